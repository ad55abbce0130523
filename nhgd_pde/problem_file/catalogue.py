"""What a problem file can choose by its name, and the place in the package where each choice is written.

Places are text (`module:class`, below the package), so that reading a file loads only what the file names. To add a
choice, write its file and add one line here; docs/extending.md has an example of each.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

OUTER_METHODS = {
    "gradient": "engine.outer.gradient:GradientDescent",
    "adam": "engine.outer.adam:Adam",
    "lbfgs": "engine.outer.lbfgs:LBFGS",
    "newton_cg": "engine.outer.newton_cg:NewtonCG",
    "mma": "engine.outer.mma:MMA",
    "oc": "engine.outer.oc:OC",
}
"""outer.method: how the control moves (`engine.outer.base.OuterMethod`)."""


def found_at(place: str) -> Any:
    """The class at a place of the catalogue; its module is loaded now."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"{__package__.rpartition('.')[0]}.{module}"), name)
