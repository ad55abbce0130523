"""How far the mesh lets the optimal objective be from that of the continuous problem."""

from .estimate import ErrorEstimate, estimate_error
from .finer import NoEstimateError

__all__ = ["ErrorEstimate", "NoEstimateError", "estimate_error"]
