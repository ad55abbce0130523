"""The families of equations: what each makes of its section of a problem file."""

from __future__ import annotations

from .advection import ADVECTION_DIFFUSION
from .allen_cahn import ALLEN_CAHN
from .base import Family, Interior
from .burgers import BURGERS
from .diffusion import HEAT, POISSON, SEMILINEAR
from .elasticity import ELASTICITY
from .flow import NAVIER_STOKES, STOKES
from .helmholtz import HELMHOLTZ
from .python import PYTHON

FAMILIES: dict[str, Family] = {
    "poisson": POISSON,
    "semilinear": SEMILINEAR,
    "advection_diffusion": ADVECTION_DIFFUSION,
    "heat": HEAT,
    "burgers": BURGERS,
    "allen_cahn": ALLEN_CAHN,
    "elasticity": ELASTICITY,
    "stokes": STOKES,
    "navier_stokes": NAVIER_STOKES,
    "helmholtz": HELMHOLTZ,
    "python": PYTHON,
}

__all__ = ["FAMILIES", "Family", "Interior"]
