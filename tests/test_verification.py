"""`verify` sees wrong derivatives, however small, wherever and at whatever values they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nhgd_pde as nhgd
from benchmarks.quasilinear import quasilinear_problem
from nhgd_pde.linalg.differences import central_difference, sure_difference
from nhgd_pde.verification import Verification, verify_problem

PROBLEMS = sorted((Path(__file__).parents[1] / "problems").glob("*.yaml"))
ERRORS = pytest.mark.parametrize("error", [1e-3, 1e-5, 3e-6])


class Cubed(torch.autograd.Function):
    """x^3 with a derivative that is wrong by a share where a mask says so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(x, share)
        return x**3

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        x, share = ctx.saved_tensors
        return outputs[0] * 3.0 * x**2 * (1.0 + share), None


class Slope(torch.autograd.Function):
    """3 x^2 with a wrong derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(x, share)
        return 3.0 * x**2

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        x, share = ctx.saved_tensors
        return outputs[0] * 6.0 * x * (1.0 + share), None


class CubedTwice(torch.autograd.Function):
    """x^3 with a right derivative, whose own derivative is wrong."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(x, share)
        return x**3

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        x, share = ctx.saved_tensors
        return outputs[0] * Slope.apply(x, share), None


def cubed(x: Tensor, share: Any) -> Tensor:
    return Cubed.apply(x, torch.as_tensor(share, dtype=x.dtype))  # type: ignore[no-untyped-call, no-any-return]


def cubed_twice(x: Tensor, share: Any) -> Tensor:
    return CubedTwice.apply(x, torch.as_tensor(share, dtype=x.dtype))  # type: ignore[no-untyped-call, no-any-return]


def problem(
    form: Callable[..., Any] | None = None,
    enter: Callable[..., Any] | None = None,
    density: Callable[..., Any] | None = None,
    cells: int = 5,
    **more: Any,
) -> nhgd.Problem:
    """A problem with functions of one's own, right where none is given."""
    file: dict[str, Any] = {
        "name": "own",
        "mesh": {"kind": "rectangle", "cells": [cells, cells]},
        "pde": {"python": form or reaction, "source": "4*y", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"} if enter is None else {"kind": "python", "python": enter},
        "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-3}],
    }
    if density is not None:
        file["objective"].append({"kind": "python", "python": density, **more})
    return nhgd.load(file)


def reaction(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return u**3 - c["source"], grad


def failures(found: Verification) -> set[str]:
    return {check.name for check in found.checks if not check.passed}


# Differences


def test_an_extrapolated_difference_and_its_estimated_error() -> None:
    x = torch.linspace(0.1, 3.0, 200, dtype=torch.float64)
    for function, slope in ((torch.exp, torch.exp(x)), (torch.sin, torch.cos(x)), (lambda y: y**5, 5.0 * x**4)):
        found = sure_difference(lambda t, function=function: function(x + t))
        error = (found.value - slope).abs()
        assert float((found.doubt / slope.abs()).median()) < 1e-9
        assert (error <= 10.0 * found.doubt).all()


def test_a_difference_at_a_kink_is_not_sure() -> None:
    x = torch.linspace(-1.0, 1.0, 201, dtype=torch.float64)
    found = sure_difference(lambda t: (x + t).abs())
    sure = found.doubt < 1e-6
    assert not sure[100] and float(sure.double().mean()) > 0.95
    assert torch.allclose(found.value[sure], x.sign()[sure], rtol=0, atol=1e-6)
    # A value that is no number on one side says nothing.
    assert not torch.isfinite(
        central_difference(lambda t: torch.log(torch.tensor([t], dtype=torch.float64))).doubt
    ).any()


# What is right


@pytest.mark.parametrize("path", PROBLEMS, ids=lambda path: path.stem)
def test_every_derivative_of_the_shipped_problems_is_right(path: Path) -> None:
    found = nhgd.verify(small(path))
    assert found.passed, str(found)
    assert str(found).endswith("every derivative is right"), str(found)


SMALL: dict[str, dict[str, Any]] = {
    "poisson_plate": {},
    "elastic_control": {"mesh.cells": [8, 2]},
    "mbb_beam": {"mesh.cells": [9, 3]},
    "poisson_control_3d": {"mesh.cells": [3, 3, 3]},
    "robust_poisson_3d": {"mesh.cells": [3, 3, 3], "scenarios.count": 4},
    "darcy_wells": {"mesh.cells": [8, 4], "scenarios.count": 4},
    "uncertain_source": {"mesh.cells": [8, 4], "scenarios.count": 4},
    "cvar_control": {"mesh.cells": [6, 6], "scenarios.count": 4},
    "robust_poisson": {"mesh.cells": [6, 6], "scenarios.count": 4},
    "allen_cahn_control": {"mesh.cells": [4, 4], "time.steps": 3},
    "burgers_control": {"mesh.cells": 10, "time.steps": 4},
    "heat_boundary": {"mesh.cells": [6, 6], "time.steps": 4},
    "heat_control": {"mesh.cells": 10, "time.steps": 4},
    "heat_initial": {"mesh.cells": [6, 6], "time.steps": 4},
    "navier_stokes_control": {"mesh.cells": [3, 3]},
}


def small(path: Path) -> nhgd.Problem:
    return nhgd.load(path, SMALL.get(path.stem, {"mesh.cells": [6, 6]}))


# What is wrong


@ERRORS
def test_a_wrong_derivative_of_an_equation_fails(error: float) -> None:
    found = nhgd.verify(problem(lambda u, grad, c, x: (cubed(u, error) - c["source"], grad)))
    assert "equation in the cells by u" in failures(found), str(found)
    check = next(each for each in found.checks if each.name == "equation in the cells by u")
    assert check.value == pytest.approx(error, rel=0.1)


@ERRORS
def test_a_wrong_derivative_of_a_term_fails(error: float) -> None:
    found = nhgd.verify(problem(density=lambda u, grad, v, x: cubed(u, error)))
    assert any(name.startswith("objective") and name.endswith("by u") for name in failures(found)), str(found)
    found = nhgd.verify(problem(density=lambda u, grad, v, x: u**2 + cubed(v, error)))
    assert any(name.startswith("objective") and name.endswith("by v") for name in failures(found)), str(found)


@ERRORS
def test_a_wrong_derivative_of_a_control_map_fails(error: float) -> None:
    def enter(c: Any, v: Tensor) -> Any:
        return {**c, "source": c["source"] + v + 0.3 * cubed(v, error)}

    found = nhgd.verify(problem(enter=enter))
    assert "equation in the cells by the control" in failures(found), str(found)


@ERRORS
def test_a_wrong_second_derivative_fails(error: float) -> None:
    found = nhgd.verify(problem(lambda u, grad, c, x: (cubed_twice(u, error) - c["source"], grad)))
    assert "second derivatives of equation in the cells" in failures(found), str(found)
    found = nhgd.verify(problem(density=lambda u, grad, v, x: cubed_twice(u, error)))
    assert any("second derivatives" in name for name in failures(found)), str(found)


@ERRORS
@pytest.mark.parametrize("product", ["state_product_transposed", "control_product_transposed"])
def test_a_wrong_transpose_fails(error: float, product: str) -> None:
    wrong = quasilinear_problem(6)
    right = getattr(wrong.equation, product)
    object.__setattr__(wrong.equation, product, lambda u, v, w: (1.0 + error) * right(u, v, w))
    assert failures(verify_problem(wrong)) & {"adjoint of dR/du", "adjoint of dR/dv"}


@ERRORS
def test_a_product_that_is_wrong_in_one_row_fails(error: float) -> None:
    wrong = quasilinear_problem(6)
    right = wrong.equation.state_product

    def product(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        image = right(u, v, w).clone()
        image[:, 3] *= 1.0 + error
        return image

    object.__setattr__(wrong.equation, "state_product", product)
    assert "dR/du against differences" in failures(verify_problem(wrong))


@ERRORS
def test_an_error_at_some_values_shows_where_these_are(error: float) -> None:
    """The state reaches 0.5 in the middle only."""

    def form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return cubed(u, error * (u > 0.5)) - 4.0 * c["source"], grad

    found = problem(form, cells=8)
    v = torch.ones_like(found.pde.control.initial)
    checks = verify_problem(found.pde, at=(None, v))
    assert "equation in the cells by u" in failures(checks), str(checks)


@ERRORS
def test_an_error_at_one_side_shows(error: float) -> None:
    def density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Tensor:
        return cubed(u + grad[0], error * (x[0] > 0.999))

    for more in ({}, {"on": "right"}):
        found = nhgd.verify(problem(density=density, cells=8 if not more else 5, **more))
        if more:
            assert failures(found), str(found)
            (named,) = [each for each in found.checks if "objective" in each.name and each.name.endswith("by grad u")]
            assert "as at (1, " in named.remark


@ERRORS
def test_an_error_in_one_corner_shows(error: float) -> None:
    def form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return cubed(u, error * ((x[0] > 0.8) & (x[1] > 0.8))) - c["source"], grad

    found = nhgd.verify(problem(form))
    assert "equation in the cells by u" in failures(found), str(found)


def test_a_small_term_does_not_hide_behind_a_large_one() -> None:
    def density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Tensor:
        return 1e-9 * cubed(u, 1e-5)

    assert not nhgd.verify(problem(density=density)).passed
