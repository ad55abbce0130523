"""Risk measures, which combine the objectives of many scenarios into one number."""

from .base import Mean, RiskMeasure
from .cvar import CVaR, CVaRIntegrand, value_at_risk
from .deviation import MeanPlusDeviation
from .exponential import Entropic, WorstCase

__all__ = [
    "CVaR",
    "CVaRIntegrand",
    "Entropic",
    "Mean",
    "MeanPlusDeviation",
    "RiskMeasure",
    "WorstCase",
    "value_at_risk",
]
