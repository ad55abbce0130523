"""The families of equations: what each makes of its section of a problem file."""

from __future__ import annotations

from .allen_cahn import ALLEN_CAHN
from .base import Family, Interior
from .burgers import BURGERS
from .diffusion import HEAT, POISSON, SEMILINEAR

FAMILIES: dict[str, Family] = {
    "poisson": POISSON,
    "semilinear": SEMILINEAR,
    "heat": HEAT,
    "burgers": BURGERS,
    "allen_cahn": ALLEN_CAHN,
}

__all__ = ["FAMILIES", "Family", "Interior"]
