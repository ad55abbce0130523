"""How far the mesh lets the optimal objective be from that of the continuous problem."""

from .enriched import NoEstimateError
from .estimate import ErrorEstimate, estimate_error

__all__ = ["ErrorEstimate", "NoEstimateError", "estimate_error"]
