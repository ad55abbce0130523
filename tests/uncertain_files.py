"""Problem files with random inputs, as mappings."""

from __future__ import annotations

import copy
import re
from typing import Any

RECTANGLE = {"kind": "rectangle", "cells": [4, 3]}
# b is positive, a has both signs.
PARAMETERS = {"a": {"normal": [0.2, 0.5]}, "b": {"uniform": [1, 2]}}
TRACKING = {"kind": "tracking", "target": "x"}
HELD: dict[str, Any] = {"left": {"dirichlet": 0}}


def uncertain_file(pde: dict[str, Any], **more: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": "uncertain",
        "mesh": RECTANGLE,
        "pde": pde,
        "control": {"kind": "source"},
        "objective": [TRACKING],
        "scenarios": {"count": 8},
    }
    data |= more
    # An input that nothing uses is a mistake.
    used = set(re.findall(r"\b[a-z]\w*\b", f"{pde} {data.get('time')}"))
    data.setdefault("parameters", {name: given for name, given in PARAMETERS.items() if name in used})
    return copy.deepcopy(data)


def poisson(**more: Any) -> dict[str, Any]:
    return {"kind": "poisson", "boundary": copy.deepcopy(HELD), **more}


def elastic(**more: Any) -> dict[str, Any]:
    held = {"left": {"dirichlet": [0, 0]}, "right": {"neumann": ["a", "b"]}}
    return {"kind": "elasticity", "boundary": held, "source": ["a*x", "-b"], **more}
