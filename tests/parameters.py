"""Problem files with parameters, and the same files with numbers in place of the parameters."""

from __future__ import annotations

import re
from typing import Any

import torch

from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.pde_problem import PDEProblem


def parameter(value: float, name: str = "k") -> dict[str, Any]:
    return {"kind": "parameter", "name": name, "initial": value}


def written(value: Any, number: float, name: str = "k") -> Any:
    """A part of a file with a number in place of a parameter."""
    if isinstance(value, dict):
        return {key: written(each, number, name) for key, each in value.items()}
    if isinstance(value, list):
        return [written(each, number, name) for each in value]
    if not isinstance(value, str):
        return value
    return re.sub(rf"\b{name}\b", f"({number!r})", value)


def evaluated(built: PDEProblem, v: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The state (N,) and the value of the objective."""
    u, _ = built.start()
    found, state = Adjoint().evaluate(built, v, Adjoint().init(built, u, v), Accuracy(1e-13, 1.0))
    assert found.finite, found.message
    return built.state(state.u, v)[0], found.value
