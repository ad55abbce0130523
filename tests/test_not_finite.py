"""Numbers at the ends of the range of double precision: a run converges or ends with a true sentence."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_newton import Factors
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.state_newton import newton
from nhgd_pde.linalg.riesz import RieszMap
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.linalg.sparse import SparseMatrix
from nhgd_pde.pde_problem import PDEProblem
from problems import problem

FAULTS = Path(__file__).parent / "faults"
BOUNDARY = {"all": {"dirichlet": 0}}


def solved(pde: dict[str, Any], target: Any, method: str, weight: float = 1e-3, **keys: Any) -> nhgd.Solution:
    objective = [{"kind": "tracking", "target": target}, {"kind": "regularisation", "weight": weight}]
    mesh = {"kind": "rectangle", "cells": [8, 8]}
    content = {"name": "extreme", "mesh": mesh, "pde": pde, "control": {"kind": "source"}, "objective": objective}
    return nhgd.solve(nhgd.load({**content, "method": method, **keys}))


def test_a_newton_step_whose_length_overflows_is_a_step_too_long() -> None:
    """The first Newton step leads to u = 480: exp(u) is finite, the square of its norm is not."""
    solution = nhgd.solve(nhgd.load(FAULTS / "exp_overflow.yaml"))
    assert solution.status == "converged"
    assert solution.history[0]["inner_steps"] <= 15
    assert solution.objective == pytest.approx(20.59168164, rel=1e-8)


class Overflowing(SparseMatrix):
    """A Gram matrix whose products with large vectors overflow, as they do for some orders of summation."""

    def mv(self, x: Tensor) -> Tensor:
        return torch.where(x.abs() > 1e160, -math.inf * x.sign(), super().mv(x))


def test_an_overflow_to_minus_infinity_is_not_a_step_of_length_zero() -> None:
    """On every processor x . K x = -inf, which must not be clamped to the length zero."""
    pde = {"kind": "semilinear", "nonlinearity": "exp(u)", "source": "1e4*sin(pi*x)*sin(pi*y)", "boundary": BOUNDARY}
    built = problem({"pde": pde, "mesh.cells": [16, 16]})
    v, start = torch.zeros(built.outer_size, dtype=torch.float64), torch.zeros(built.inner_shape, dtype=torch.float64)
    known = newton(built, v, start, Factors(built, v, start), 1e-10, 15)
    assert known.error <= 1e-10
    gram = built.inner_metric.matrix
    riesz = RieszMap(Overflowing(gram.host, symmetric=True), built.inner_metric.gradient)
    long = torch.full(start.shape, 1e170, dtype=torch.float64)
    assert dot(long, riesz.covector(long)) == -math.inf
    other = replace(built, model=replace(built.model, riesz=riesz))
    found = newton(other, v, start, Factors(other, v, start), 1e-10, 15)
    assert found.steps == known.steps and torch.equal(found.u, known.u)


# Where the equation has a solution that Newton's method finds, both methods find it.
STIFF = {
    "exp(u)": True,
    "exp(1000*u)": True,
    "sinh(50*u)": True,
    "u**9": True,
    "exp(-u)": True,
    "1/(1e-3 + u**2)": True,
    "log(1 + u**2)": True,
    "sqrt(abs(u))": False,
    "1/u": False,
}


@pytest.mark.parametrize("source", ["0", "1e4*sin(pi*x)*sin(pi*y)", "1e100"])
@pytest.mark.parametrize("nonlinearity", list(STIFF))
def test_stiff_nonlinearities_converge_or_end_in_a_sentence(nonlinearity: str, source: str) -> None:
    pde = {"kind": "semilinear", "nonlinearity": nonlinearity, "source": source, "boundary": BOUNDARY}
    for method in ("adjoint", "nhgd"):
        solution = solved(pde, 1, method, **{"outer": {"iterations": 30}})
        assert solution.message
        if source == "0" and STIFF[nonlinearity]:
            assert solution.status == "converged"
        if solution.status == "converged":
            assert max(solution.certificate.state_residual, solution.certificate.adjoint_residual) <= 1e-8
        if solution.status == "failed":
            assert solution.message.startswith("at the starting point: ") and "nan" not in solution.message
            assert " inf" not in solution.message
            assert not (STIFF[nonlinearity] and source == "0")


@pytest.mark.parametrize("method", ["adjoint", "nhgd"])
@pytest.mark.parametrize("model", ["energy", "residual"])
@pytest.mark.parametrize("scale", [1e-100, 1e20, 1e100, 1e150])
def test_linear_problems_do_not_depend_on_the_unit_of_the_state(scale: float, model: str, method: str) -> None:
    def at(scale: float) -> nhgd.Solution:
        pde = {"kind": "poisson", "source": str(scale), "boundary": BOUNDARY}
        return solved(pde, str(scale), method, **{"inner": {"model": model}})

    one, other = at(1.0), at(scale)
    assert one.status == other.status == "converged"
    assert other.objective / scale / scale == pytest.approx(one.objective, rel=1e-10)
    assert torch.allclose(torch.as_tensor(other.control) / scale, torch.as_tensor(one.control), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["adjoint", "nhgd"])
@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_objectives_that_overflow_are_reported(scale: float, method: str) -> None:
    solution = solved({"kind": "poisson", "boundary": BOUNDARY}, str(scale), method)
    assert solution.status == "failed" and solution.message.startswith("at the starting point: ")


@pytest.mark.parametrize("method", ["nhgd", "adjoint", "broyden", "amigo", "nbo_gd", "truncated_cg"])
def test_a_matrix_without_factors_is_reported_by_every_method(method: str) -> None:
    """The entries of the matrix overflow."""
    pde = {"kind": "poisson", "conductivity": 1e308, "boundary": BOUNDARY}
    solution = solved(pde, 1, method, **{"mesh": {"kind": "rectangle", "cells": [4, 4]}})
    assert solution.status == "failed" and "not finite" in solution.message


@pytest.mark.parametrize("method", ["adjoint", "nhgd"])
def test_long_steps_of_the_control_do_not_overflow(method: str) -> None:
    """Steps have the length 1e160, whose square overflows."""
    pde = {"kind": "elasticity", "young": 1.5e56, "boundary": {"left": {"dirichlet": [0, 0]}}, "source": [1, 0.3]}
    solution = solved(pde, [0, "-1.6e115"], method, **{"outer": {"iterations": 4, "method": "lbfgs"}})
    assert solution.status in ("converged", "stopped") and solution.message


@pytest.mark.parametrize("scale", [1e-250, 1e-170, 1e170, 1e250])
def test_the_total_variation_is_homogeneous(scale: float) -> None:
    """It is homogeneous in the control and the smoothing together, and so are its derivatives."""

    def term(smoothing: float) -> tuple[PDEProblem, Any]:
        built = problem({"objective.1": {"kind": "regularisation", "norm": "tv", "weight": 1, "smoothing": smoothing}})
        (found,) = built.objective.control
        return built, found

    built, one = term(0.5)
    _, other = term(0.5 * scale)
    v = torch.sin(torch.arange(built.outer_size, dtype=torch.float64))
    d = torch.cos(torch.arange(built.outer_size, dtype=torch.float64))
    assert other.value(scale * v) / scale == pytest.approx(one.value(v), rel=1e-12)
    assert torch.allclose(other.derivative(scale * v), one.derivative(v), rtol=1e-12, atol=1e-14)
    second = other.second_derivative(scale * v, scale * d)
    assert torch.allclose(second, one.second_derivative(v, d), rtol=1e-12, atol=1e-14)
