"""How far the mesh lets the optimal objective be from that of the continuous problem."""

from .enriched import NoEstimateError
from .error_estimate import ErrorEstimate, Estimator, estimate_error

__all__ = ["ErrorEstimate", "Estimator", "NoEstimateError", "estimate_error"]
