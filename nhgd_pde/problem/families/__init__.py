"""The families of equations: what each makes of its section of a problem file."""

from __future__ import annotations

from .advection import ADVECTION_DIFFUSION
from .base import Family, Interior
from .diffusion import HEAT, POISSON, SEMILINEAR
from .helmholtz import HELMHOLTZ

FAMILIES: dict[str, Family] = {
    "poisson": POISSON,
    "semilinear": SEMILINEAR,
    "heat": HEAT,
    "advection_diffusion": ADVECTION_DIFFUSION,
    "helmholtz": HELMHOLTZ,
}

__all__ = ["FAMILIES", "Family", "Interior"]
