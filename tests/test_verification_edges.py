"""`verify` at the edge of admissible values: right derivatives pass, and wrong ones are found."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from parameters import parameter
from test_admissible import CLAMPED, EDGES, PAR_NU, file_of, poisson, thinner
from test_verification import cubed, cubed_twice, failures
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.linalg.differences import central_difference, sure_difference
from nhgd_pde.verification import Verification


def at_the_end(content: Any, **overrides: Any) -> Verification:
    built = nhgd.load(copy.deepcopy(content), overrides or None)
    return nhgd.verify(built, at=nhgd.solve(built))


def bounded(lower: float, upper: float, **pde: Any) -> dict[str, Any]:
    return file_of(poisson(**pde), control={**parameter(0.3), "bounds": [lower, upper]})


# One-sided differences


def test_one_sided_differences_are_as_accurate_as_central_ones() -> None:
    """The functions are not defined on the other side of the point."""
    x = torch.linspace(0.1, 3.0, 200, dtype=torch.float64)

    def right(t: float) -> Tensor:
        return torch.exp(x + t) if t >= 0.0 else torch.full_like(x, math.nan)

    found = sure_difference(right, sided=True)
    error = (found.value / torch.exp(x) - 1.0).abs()
    assert float(error.max()) < 1e-8
    assert (error * torch.exp(x) <= 10.0 * found.doubt).all()
    assert not central_difference(right).doubt.isfinite().any()


def test_rounded_arguments_increase_the_estimated_error() -> None:
    """x = 1 moves by 1e-9, so that the sums and the derivative have seven digits."""
    x, step = torch.tensor([1.0], dtype=torch.float64), 1e-9 / 3.0
    found = central_difference(lambda t: 1e-9 * (x + t * step), blur=1.0 / step)
    assert float((found.value - 1e-9 * step).abs()) <= float(found.doubt)
    assert float(found.doubt / found.value) < 1e-3


# Right derivatives


QUICK = ("conductivity", "in space", "matrix", "ratio above", "ratio below", "several", "reaction", "exchange")


@pytest.mark.parametrize("name", QUICK)
def test_right_derivatives_pass_where_a_run_has_ended_at_the_edge(name: str) -> None:
    found = at_the_end(EDGES[name][0])
    assert found.passed, str(found)
    # The tests of the equation by the control find errors there.
    (check,) = [each for each in found.checks if each.name == "equation in the cells by the control"] or [None]
    assert check is None or (check.accuracy is not None and check.accuracy <= 1e-6), str(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EDGES if name not in QUICK])
def test_right_derivatives_pass_at_every_edge(name: str) -> None:
    found = at_the_end(EDGES[name][0])
    assert found.passed, str(found)


@pytest.mark.parametrize(
    "content",
    [
        bounded(0.3, 0.5, conductivity="k"),
        bounded(0.0, 1.0, conductivity="1 + k"),
        bounded(0.0, 1.0, source="sqrt(k)"),
        bounded(1e-8, 1.0, source="log(k)"),
        file_of(poisson(source="exp(1/k)")),
        file_of(poisson(), control={"kind": "log_conductivity", "space": "constant"}),
        file_of(poisson(), control={"kind": "python", "python": thinner}),
        file_of(
            {"kind": "elasticity", "plane": "stress", "poisson_ratio": "k", "boundary": CLAMPED},
            -1.0,
            control={**parameter(0.3), "bounds": [0, 0.5]},
        ),
    ],
    ids=["bound", "zero", "root", "logarithm", "overflow", "underflow", "field", "closed range"],
)
def test_right_derivatives_pass_at_bounds_and_at_the_limits_of_numbers(content: dict[str, Any]) -> None:
    found = at_the_end(content)
    assert found.passed, str(found)


def test_right_derivatives_pass_near_poissons_ratio_of_a_half() -> None:
    found = at_the_end(PAR_NU)
    assert found.passed, str(found)


@pytest.mark.parametrize("kind", ["density", "source"])
def test_fields_at_their_bounds_are_tested(kind: str) -> None:
    """A design of zeros and ones and a source at its bounds are moved inwards."""
    control: dict[str, Any] = {"kind": "source", "bounds": [0, 0.1]}
    terms: list[dict[str, Any]] = [{"kind": "tracking", "target": "0.1*sin(6*x)*y"}]
    more: dict[str, Any] = {}
    if kind == "density":
        control = {"kind": "density", "low": 1e-3, "initial": 0.4}
        terms = [{"kind": "compliance"}]
        more = {"constraints": [{"kind": "volume", "fraction": 0.4}], "outer": {"iterations": 15}}
    content = {
        "name": "fields",
        "mesh": {"kind": "rectangle", "cells": [6, 6]},
        "pde": {"kind": "poisson", "source": 1, "boundary": {"left": {"dirichlet": 0}}},
        "control": control,
        "objective": terms,
        **more,
    }
    built = nhgd.load(content)
    solution = nhgd.solve(built)
    v = torch.as_tensor(solution.control)
    assert built.pde.bounds is not None
    lower, upper = built.pde.bounds
    assert bool(((v - lower < 1e-6) | (upper - v < 1e-6)).any())
    found = nhgd.verify(built, at=solution)
    assert found.passed, str(found)
    assert all((each.accuracy or 0.0) <= 1e-6 for each in found.checks), str(found)


# Wrong derivatives


@pytest.mark.parametrize("error", [1e-3, 3e-6])
@pytest.mark.parametrize(("lower", "upper"), [(0.3, 0.5), (0.0, 0.2)])
def test_a_wrong_derivative_is_found_at_a_bound(error: float, lower: float, upper: float) -> None:
    """The control is at its bound everywhere; it has to be moved inwards, else nothing that depends on it is tested."""

    def form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return cubed(c["source"], error) - u, grad

    terms = [{"kind": "linear_control", "weight": 1.0 if lower else -1.0}]
    found = at_the_end(
        {
            "name": "bound",
            "mesh": {"kind": "rectangle", "cells": [4, 4]},
            "pde": {"python": form, "boundary": {"all": {"dirichlet": 0}}},
            "control": {"kind": "source", "bounds": [lower, upper], "initial": 0.5 * (lower + upper)},
            "objective": terms,
        }
    )
    assert "equation in the cells by the control" in failures(found), str(found)


@pytest.mark.parametrize("error", [1e-3, 3e-6])
@pytest.mark.parametrize("twice", [False, True])
def test_a_wrong_derivative_is_found_at_the_edge_of_a_range(error: float, twice: bool) -> None:
    """A conductivity in Python that becomes zero at some points during a run."""
    wrong = cubed_twice if twice else cubed

    def enter(c: Any, v: Tensor) -> Any:
        return {**c, "conductivity": 1.0 + wrong(v, error)}

    content = file_of(poisson(), control={"kind": "python", "python": enter, "initial": 0.1})
    names = failures(at_the_end(content))
    wanted = "second derivatives of equation in the cells" if twice else "equation in the cells by the control"
    assert wanted in names
