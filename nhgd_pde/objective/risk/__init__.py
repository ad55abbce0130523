"""Risk measures: one number out of the objectives of many scenarios."""

from .cvar import CVaR, Integrand, value_at_risk
from .deviation import MeanPlusDeviation
from .exponential import Entropic, WorstCase
from .measure import Mean, Risk

__all__ = ["CVaR", "Entropic", "Integrand", "Mean", "MeanPlusDeviation", "Risk", "WorstCase", "value_at_risk"]
