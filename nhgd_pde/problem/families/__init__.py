"""The families of equations: what each makes of its section of a problem file."""

from __future__ import annotations

from .base import Family, Interior
from .diffusion import HEAT, POISSON, SEMILINEAR
from .elasticity import ELASTICITY
from .python import PYTHON

FAMILIES: dict[str, Family] = {
    "poisson": POISSON,
    "semilinear": SEMILINEAR,
    "heat": HEAT,
    "elasticity": ELASTICITY,
    "python": PYTHON,
}

__all__ = ["FAMILIES", "Family", "Interior"]
