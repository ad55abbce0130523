"""The semilinear equation: manufactured solutions, derivatives of its expressions, a control with a known optimum."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import skfem
import torch

import nhgd_pde as nhgd
from benchmarks.reference import control_error, orders
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.pde.poisson import semilinear
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.expressions import Expression
from problems import BASE, equation_of, in_conductivity, problem, quasilinear, random, slope, space_of, state_of

FILE = "problems/semilinear_control.yaml"
# |y* - target|^2 / 2 + alpha |u*|^2 / 2 of the shipped problem, y* = c sin sin, p* = a sin 2 sin 2, u* = -p* / alpha.
C, A, ALPHA = 4.0, 0.01, 1e-3
MISFIT = 16 * math.pi**4 + 3 * math.pi**2 * C**2 + 9 * C**4 * 25 / 1024
OBJECTIVE = 0.5 * A**2 * MISFIT + A**2 / (8 * ALPHA)


def pde(nonlinearity: str, **others: Any) -> dict[str, Any]:
    boundary = {"all": {"dirichlet": 0}}
    return {"pde": {"kind": "semilinear", "nonlinearity": nonlinearity, "boundary": boundary, **others}}


def solved(built: PDEProblem) -> torch.Tensor:
    """The state at zero control."""
    return state_of(built)[None][:, built.equation.free]


def l2_error(built: PDEProblem, u: torch.Tensor, exact: str) -> float:
    """The L2 error by a quadrature much finer than that of the equation."""
    basis = skfem.Basis(built.space.domain.mesh, built.space.basis.elem, intorder=8)
    values = np.asarray(basis.interpolate(built.equation.embed(u)[0].numpy()))
    misfit = values - Expression(exact).numpy(np.asarray(basis.global_coordinates()))
    return float(np.sqrt((misfit**2 * basis.dx).sum()))


# The shipped problem


@pytest.fixture(scope="module")
def family() -> list[nhgd.Solution]:
    return [nhgd.solve(nhgd.load(FILE, {"mesh.cells": [n, n], "outer.rtol": 1e-10})) for n in (8, 16, 32)]


def test_control_and_objective_converge_at_order_two(family: list[nhgd.Solution]) -> None:
    def exact(x: np.ndarray) -> np.ndarray:
        return -A / ALPHA * np.sin(2 * np.pi * x[0]) * np.sin(2 * np.pi * x[1])

    assert all(solution.status == "converged" for solution in family)
    errors = [control_error(solution, exact) for solution in family]
    assert orders(errors)[-1] >= 1.95 and errors[-1] < 0.08
    gaps = [abs(solution.objective - OBJECTIVE) / OBJECTIVE for solution in family]
    assert orders(gaps)[-1] >= 1.95
    # Richardson's extrapolation.
    last = family[-1].objective
    assert last + (last - family[-2].objective) / 3 == pytest.approx(OBJECTIVE, rel=5e-4)


def test_nhgd_and_the_adjoint_find_the_same_optimum(family: list[nhgd.Solution]) -> None:
    ours = family[1]
    exact = nhgd.solve(nhgd.load(FILE, {"mesh.cells": [16, 16], "outer.rtol": 1e-10, "method": "adjoint"}))
    assert exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-12)
    assert np.abs(ours.control - exact.control).max() < 1e-8 * np.abs(exact.control).max()
    # The adjoint variable is -alpha u, and the adjoint of the comment in the problem file.
    assert np.abs(ours.adjoint[0] + ALPHA * ours.control).max() < 0.1 * A


def test_every_derivative_of_the_shipped_problem_is_right() -> None:
    assert nhgd.verify(nhgd.load(FILE, {"mesh.cells": [8, 8]})).passed


# The state equation


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize("nonlinearity", ["u**3 + x*u", "exp(u) - 1 + abs(u)", "where(u < 0, u**2*sign(u), u) + 2*y"])
def test_manufactured_solutions_converge_at_the_order_of_the_element(nonlinearity: str, element: str) -> None:
    exact = "2*sin(2*x + y) - 1"
    source = f"2*(9+4*x+2*(1+y))*sin(2*x+y) - 8*cos(2*x+y) + {nonlinearity.replace('u', f'({exact})')}"
    conductivity = [["2+x", "1"], ["y", "1"]]
    errors, sizes = [], []
    for n in (4, 8, 16):
        others = pde(nonlinearity, source=source, conductivity=conductivity, boundary={"all": {"dirichlet": exact}})
        built = problem({**others, "element": element, "mesh.cells": [n, n], "objective.0.target": "x"})
        u = solved(built)
        assert not built.equation.symmetric and not built.equation.affine
        errors.append(l2_error(built, u, exact))
        sizes.append(1.0 / n)
    assert slope(sizes, errors) == pytest.approx(int(element[1]) + 1, abs=0.2)


def test_a_nonlinearity_without_u_gives_poissons_equation() -> None:
    nonlinear = problem(pde("-x*y", conductivity="1 + x", source="1 + x"))
    linear = problem({"pde.conductivity": "1 + x", "pde.source": "1 + x + x*y"})
    u, v = random(1, nonlinear.inner_shape[1]), random(nonlinear.outer_size, seed=1)
    assert torch.allclose(nonlinear.residual(u, v), linear.residual(u, v), atol=1e-13)
    assert torch.allclose(solved(nonlinear), solved(linear), atol=1e-12)


SMOOTH_ALMOST_EVERYWHERE = [
    "u**3",
    "u**2",
    "(u - x)**5 + (u - 9)**-2",
    "abs(u)*u",
    "exp(-u)*sin(x*u) + u/(1 + y)",
    "where(u < 0, -u**2, x*u)",
    "clip(u, -0.5, 0.5)*u**2",
    "maximum(u, 0)**2 + minimum(u, x)**3",
    "sign(u)*u**2 + floor(u)*u**2",
    "sqrt(1 + u**2) + atan2(u, 2) + (u > 0)*u**2",
    "2**u + r",
]


@pytest.mark.parametrize("text", SMOOTH_ALMOST_EVERYWHERE)
def test_derivatives_of_an_expression_are_those_of_its_values(text: str) -> None:
    """First and second derivatives of the residual against differences, at states of both signs."""
    expression = Expression(text, ("u",))
    form = semilinear(lambda u, x: expression.torch(x, u=u))
    equation = equation_of(space_of(2, 3, "P2"), form, scenarios=2, control=in_conductivity)
    u, du, w = (random(2, equation.unknowns, seed=s) for s in range(3))
    v, dv = (0.3 * random(equation.controls, seed=s) for s in (3, 4))
    t = 1e-6

    def transposed(at_u: torch.Tensor, at_v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            equation.state_product_transposed(at_u, at_v, w),
            equation.control_product_transposed(at_u, at_v, w),
        )

    pushed = equation.state_product(u, v, du) + equation.control_product(u, v, dv)
    difference = (equation.residual(u + t * du, v + t * dv) - equation.residual(u - t * du, v - t * dv)) / (2 * t)
    assert (pushed - difference).norm() < 1e-6 * difference.norm()
    both = zip(transposed(u + t * du, v + t * dv), transposed(u - t * du, v - t * dv), strict=True)
    found = equation.second_derivative(u, v, w, du, dv)
    for part, (after, before) in zip(found, both, strict=True):
        assert (part - (after - before) / (2 * t)).norm() < 2e-6 * (part.norm() + 1e-3)


def test_second_derivatives_are_symmetric_where_state_and_control_mix() -> None:
    equation = equation_of(space_of(2, 3, "P2"), quasilinear, scenarios=2, control=in_conductivity)
    u, w, *du = (random(2, equation.unknowns, seed=s) for s in range(4))
    v, *dv = (0.3 * random(equation.controls, seed=s) for s in range(4, 7))
    first, second = (equation.second_derivative(u, v, w, du[i], dv[i]) for i in range(2))
    a, b = dot(first[0], du[1]) + dot(first[1], dv[1]), dot(second[0], du[0]) + dot(second[1], dv[0])
    assert a == pytest.approx(b, rel=1e-12)
    # The mixed derivative of state and control is not zero.
    crossed, _ = equation.second_derivative(u, v, w, torch.zeros_like(u), dv[0])
    assert crossed.norm() > 1e-3 * first[0].norm()


def test_an_affine_equation_has_no_second_derivatives() -> None:
    for affine in (True, False):
        equation = equation_of(space_of(2, 3, "P1"), scenarios=2, affine=affine)
        u, w = random(2, equation.unknowns), random(2, equation.unknowns, seed=1)
        v = random(equation.controls, seed=2)
        state, control = equation.second_derivative(u, v, w, w, v)
        assert (state.shape, control.shape) == (u.shape, v.shape)
        assert not torch.count_nonzero(state) and not torch.count_nonzero(control)


def test_the_kept_linearisation_is_found_by_the_values_of_its_point() -> None:
    equation = problem(pde("u**3")).equation
    u, v = random(1, equation.unknowns), random(equation.controls, seed=1)
    first = equation.linearise(u, v)
    assert equation.linearise(u.clone(), v.clone()) is first
    assert equation.linearise(u, v + 1.0) is not first
    again = equation.linearise(u, v)
    u += 1.0
    moved = equation.linearise(u, v)
    assert not torch.equal(moved.state.data, again.state.data)
    assert torch.equal(again.state.data, first.state.data)


def test_the_form_is_symmetric_where_the_conductivity_is() -> None:
    for conductivity, symmetric in ((2, True), ([[2, 1], [1, 2]], True), ([["2+x", 1], ["y", 2]], False)):
        equation = problem(pde("u**3", conductivity=conductivity)).equation
        jacobian = equation.linearise(random(1, equation.unknowns), random(equation.controls)).state.host()
        assert equation.symmetric == symmetric
        assert (abs(jacobian - jacobian.T).max() < 1e-14) == symmetric


# Mistakes


def complaint(overrides: dict[str, Any]) -> str:
    with pytest.raises(ProblemError) as caught:
        problem(overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (pde("u**3 + w"), "pde.nonlinearity: unknown name 'w'; known: e, pi, r, t, u, x, y, z"),
        (pde("u**3 + z"), "pde.nonlinearity: 'z' has no value in 2-D"),
        (pde("u**3 + t"), "pde.nonlinearity: uses the time 't'"),
        (pde("u.real"), "pde.nonlinearity: an attribute ('.') is not allowed"),
        (pde("u**3", source="u"), "pde.source: the state u can stand only in pde.nonlinearity"),
        (pde("u**3", reaction=1), "pde.reaction: unknown key"),
        (pde("u**3", conductivity=0), "pde.conductivity: expected a positive conductivity, found 0"),
        (pde("x", boundary={}), "pde.boundary: no Dirichlet or Robin condition and no reaction"),
        ({"pde.nonlinearity": "u**3"}, "pde.nonlinearity: unknown key"),
        ({**pde("u**3"), "inner.model": "energy"}, "inner.model: expected auto or residual, found 'energy': the equa"),
    ],
)
def test_mistakes_name_the_key(overrides: dict[str, Any], message: str) -> None:
    assert message in complaint(overrides)


def test_a_missing_nonlinearity_is_a_mistake() -> None:
    found = complaint({"pde": {"kind": "semilinear"}})
    assert "pde.nonlinearity: missing; expected an expression in u and the coordinates" in found


def test_a_nonlinearity_may_determine_the_constant_of_u() -> None:
    built = problem(pde("exp(u) - 2", source=0, boundary={}))
    assert built.space.size == built.inner_shape[1]
    assert torch.allclose(solved(built), torch.tensor(math.log(2.0), dtype=torch.float64), atol=1e-10)


def test_a_nonlinearity_without_a_derivative_at_the_start_ends_as_a_failed_run() -> None:
    found = nhgd.solve(nhgd.load({**copy.deepcopy(BASE), **pde("log(u)")}))
    assert found.status == "failed" and "not finite" in found.message


@pytest.mark.parametrize(("gain", "same"), [(1, True), ("1 + x", False)])
def test_a_derivative_by_the_control_that_is_one_number_is_assembled_once(gain: object, same: bool) -> None:
    """A constant one is kept from point to point; every derivative equals a difference of residuals."""
    settings = {"mesh.cells": [6, 6], "control.gain": gain}
    equation = nhgd.load("problems/semilinear_control.yaml", settings).pde.equation
    g = torch.Generator().manual_seed(0)
    u, other = (torch.randn(1, equation.unknowns, generator=g, dtype=torch.float64) for _ in range(2))
    v, d = (torch.randn(equation.controls, generator=g, dtype=torch.float64) for _ in range(2))
    first, second = equation.linearise(u, v).control, equation.linearise(other, v + d).control
    assert (first.direct is second.direct) == same
    for at, derivative in ((u, first), (other, second)):
        difference = equation.residual(at, v + d) - equation.residual(at, v)
        assert float((derivative.mv(d) - difference).abs().max()) <= 1e-11 * float(difference.abs().max())


CLOSED = {
    "anisotropic": pde("u**3*x", conductivity=[["2 + x", "y"], ["y", "3"]]),
    "steps in conductivity": pde("exp(u)", conductivity="1 + (x > 0.5)"),
    "controlled conductivity": {**pde("exp(u)"), "control": {"kind": "log_conductivity"}},
    "Allen-Cahn": {"pde": {"kind": "allen_cahn", "epsilon": 0.1}, "time": {"end": 0.1, "steps": 2}},
    "poisson": {"pde": {"kind": "poisson", "conductivity": "1 + x", "boundary": {"all": {"dirichlet": 0}}}},
}


@pytest.mark.parametrize("name", CLOSED)
def test_derivatives_in_closed_form_are_those_that_torch_computes(name: str) -> None:
    """The linear flux, and an affine equation in its controls; the matrices are those of the blocks."""
    (integral,) = problem(CLOSED[name]).equation.integrals
    plain = replace(integral, flux_blocks=None, closed=None)
    generator = torch.Generator().manual_seed(0)
    weights = integral.evaluation.quadrature.weights
    shape = (integral.evaluation.components, 2, weights.numel())
    state = torch.randn(shape, generator=generator, dtype=weights.dtype)
    controls = torch.rand((len(integral.controls), 1, shape[-1]), generator=generator, dtype=weights.dtype)
    for found, expected in zip(
        integral.blocks(state, controls, True), plain.blocks(state, controls, True), strict=True
    ):
        assert found.keys() == expected.keys()
        for key, block in found.items():
            torch.testing.assert_close(*torch.broadcast_tensors(block, expected[key]), rtol=1e-13, atol=1e-13)
    if integral.closed is not None:
        for key, block in integral.closed_control_blocks(2).items():
            torch.testing.assert_close(block, plain.control_blocks(state, controls)[key], rtol=1e-13, atol=1e-13)
