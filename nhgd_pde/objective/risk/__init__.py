"""Risk measures, which combine the objectives of many scenarios into one number."""

from .base import Mean, Risk
from .cvar import CVaR, Integrand, value_at_risk
from .deviation import MeanPlusDeviation
from .exponential import Entropic, WorstCase

__all__ = ["CVaR", "Entropic", "Integrand", "Mean", "MeanPlusDeviation", "Risk", "WorstCase", "value_at_risk"]
