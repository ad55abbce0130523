"""Evolutions: matrices, derivatives, orders in time, controls of every kind, series in time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from evolutions import LINE, evolution, l2_error, solved
from torch import Tensor

import nhgd_pde as nhgd
from benchmarks.reference import orders
from nhgd_pde.linalg.bidiagonal import BidiagonalMatrix
from nhgd_pde.linalg.counts import Counts
from nhgd_pde.linalg.factorisation import SingularMatrixError
from nhgd_pde.linalg.newton import newton
from nhgd_pde.linalg.riesz import block_riesz_map, mass_riesz_map
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.linalg.sparse import ScenarioMatrix, SparseMatrix
from nhgd_pde.output.fields import read_vtu
from nhgd_pde.pde.evolution import EvolutionEquation
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.errors import ProblemError
from problems import random, slope

schemes = pytest.mark.parametrize("scheme", ["implicit_euler", "crank_nicolson"])

# Matrices


def matrices(count: int, n: int, seed: int) -> ScenarioMatrix:
    """A sparse matrix or several of one pattern, far from singular."""
    pattern = sp.random_array((n, n), density=0.3, rng=seed) + sp.eye_array(n)
    pattern = sp.csr_matrix(pattern)
    data = random(count, pattern.nnz, seed=seed)
    rows = np.repeat(np.arange(n), np.diff(pattern.indptr))
    data[:, torch.from_numpy(rows == pattern.indices)] += 5.0
    return ScenarioMatrix((pattern.indptr, pattern.indices), data, (n, n))


@pytest.mark.parametrize("shared", [(True, True), (True, False), (False, True), (False, False)])
def test_a_bidiagonal_matrix_is_that_of_its_blocks(shared: tuple[bool, bool]) -> None:
    steps, n = 4, 6
    diagonal, below = (matrices(1 if one else steps, n, seed) for seed, one in enumerate(shared))
    matrix, counts = BidiagonalMatrix(diagonal, below, steps), Counts()
    dense = np.zeros((steps * n, steps * n))
    for k in range(steps):
        dense[k * n : (k + 1) * n, k * n : (k + 1) * n] = diagonal.host(k).toarray()
        if k:
            dense[k * n : (k + 1) * n, (k - 1) * n : k * n] = below.host(k).toarray()
    assert np.array_equal(matrix.host().toarray(), dense)
    assert matrix.shape == dense.shape
    x, exact, factors = random(3, steps * n, seed=7), torch.from_numpy(dense), matrix.factorise(counts)
    for found, expected in (
        (matrix.mv(x), x @ exact.T),
        (matrix.rmv(x), x @ exact),
        (factors.solve(x), torch.linalg.solve(exact, x.T).T),
        (factors.solve_transposed(x), torch.linalg.solve(exact.T, x.T).T),
    ):
        assert (found - expected).norm() < 1e-12 * expected.norm()
    assert matrix.mv(x[:, None]).shape == (3, 1, steps * n)
    assert counts.factorisations == (1 if shared[0] else steps) and counts.solves == 2 * 3 * steps


def test_a_part_of_a_symmetric_matrix_with_other_columns_is_not_symmetric() -> None:
    square = ScenarioMatrix(matrices(1, 5, 0).pattern, matrices(1, 5, 0).data, (5, 5), symmetric=True)
    rows, every = np.array([1, 3]), np.arange(5)
    part = square.restrict(rows, every)
    y = random(1, 2)
    assert not part.symmetric and torch.allclose(part.rmv(y), y @ torch.from_numpy(part.host().toarray()))
    assert square.restrict(rows, rows).symmetric


def test_the_mass_map_of_many_rows_acts_on_each_row() -> None:
    built = evolution({"mesh.cells": [9]})
    mass = built.control.parts[0].riesz.matrix
    riesz = mass_riesz_map(SparseMatrix(mass.host, symmetric=True), Counts())
    # The second row is lost in rounding unless every row has its own scale.
    b = random(4, mass.shape[0]) * torch.tensor([[1.0], [1e-30], [0.0], [1e20]], dtype=torch.float64)
    exact = torch.linalg.solve(torch.from_numpy(mass.host.toarray()), b.T).T
    assert ((riesz.gradient(b) - exact).norm(dim=1) <= 1e-12 * exact.norm(dim=1)).all()
    steps = block_riesz_map([(riesz, 4, 0.5)])
    assert torch.allclose(steps.gradient(b.reshape(1, -1)), 2.0 * exact.reshape(1, -1), rtol=1e-10, atol=0.0)


# Newton's method


def scalar(residual: Any, derivative: Any, start: float) -> Any:
    x = torch.tensor([start], dtype=torch.float64)
    return newton(residual, lambda at: lambda b: b / derivative(at), x, 1e-12, 40)


def test_newtons_method_is_damped_where_full_steps_diverge() -> None:
    found = scalar(torch.atan, lambda x: 1.0 / (1.0 + x**2), 20.0)
    assert found.converged and abs(float(found.solution)) < 1e-12


def test_newtons_method_converges_quadratically() -> None:
    found = scalar(lambda x: x**2 - 2.0, lambda x: 2.0 * x, 1.0)
    assert found.converged and float(found.solution) == pytest.approx(math.sqrt(2.0), rel=1e-15)
    assert int(found.message.split()[0]) <= 5
    assert scalar(lambda x: x, torch.ones_like, 0.0).converged


def test_newtons_method_reports_the_reason_of_a_failure() -> None:
    no_root = scalar(lambda x: x**2 + 1.0, lambda x: 2.0 * x, 1.0)
    assert not no_root.converged and torch.isfinite(no_root.solution).all() and no_root.message
    not_finite = scalar(torch.log, lambda x: 1.0 / x, -1.0)
    assert not not_finite.converged and "not finite" in not_finite.message and float(not_finite.solution) == -1.0

    def singular(x: Tensor) -> Any:
        raise SingularMatrixError("no way out")

    start = torch.ones(1, dtype=torch.float64)
    assert newton(lambda x: x, singular, start, 1e-12, 40).message == "no way out"


# Derivatives

HEAT: dict[str, Any] = {
    "kind": "heat",
    "capacity": "1 + x + t",
    "conductivity": "1 + t*x",
    "reaction": "x",
    "source": "x*exp(-t)",
    "boundary": {"left": {"dirichlet": "1 + t"}, "right": {"robin": {"coefficient": 2, "value": "t"}}},
}
PHASES: dict[str, Any] = {
    "kind": "allen_cahn",
    "epsilon": "0.5 + 0.1*t",
    "boundary": {"left": {"dirichlet": "sin(t)"}, "right": {"robin": {"coefficient": 1, "value": "t*x"}}},
}
SQUARE = {"kind": "rectangle", "cells": [2, 2]}
FLOW: dict[str, Any] = {
    "pde": {"kind": "burgers", "viscosity": 0.3, "boundary": {"left": {"dirichlet": ["t", 0]}}},
    "mesh": SQUARE,
    "objective.0.target": ["x*t", "y"],
    "time.initial": ["x", "y"],
}
SPACES = ("P0", "P1", "time", "constant")
CONTROLS: dict[str, dict[str, Any]] = {
    **{f"source {space}": {"kind": "source", "gain": "1 + t*x", "space": space} for space in SPACES},
    **{f"neumann {space}": {"kind": "neumann", "on": "right", "gain": "1 + t", "space": space} for space in SPACES},
    **{f"robin {space}": {"kind": "robin", "on": "right", "gain": 3, "space": space} for space in SPACES},
    **{f"dirichlet {space}": {"kind": "dirichlet", "on": "left", "gain": 2, "space": space} for space in SPACES},
    "initial": {"kind": "initial"},
    "log_conductivity": {"kind": "log_conductivity"},
    "parameter": {"kind": "parameter", "name": "k", "initial": 0.5},
}


def controlled(pde: dict[str, Any], name: str) -> dict[str, Any]:
    """A problem with one control, without a condition that excludes it."""
    control, pde = CONTROLS[name], {**pde, "boundary": dict(pde["boundary"])}
    if control["kind"] == "neumann":
        del pde["boundary"]["right"]
    if control["kind"] == "log_conductivity":
        del pde["conductivity"]
    if control["kind"] == "parameter":
        pde["source"] = "k**2*x*exp(-t)"
    return {"pde": pde, "control": control}


def check_derivatives(built: PDEProblem) -> None:
    """Taylor remainders, transposes, and second derivatives against differences."""
    equation = built.equation
    assert isinstance(equation, EvolutionEquation)
    u, w, z = (random(1, equation.unknowns, seed=s) for s in range(3))
    v, d = (0.4 * random(equation.controls, seed=s) for s in (3, 4))
    linear = equation.state_product(u, v, w) + equation.control_product(u, v, d)
    base = equation.residual(u, v)
    steps = [1e-1, 1e-2, 1e-3]
    left = [float((equation.residual(u + t * w, v + t * d) - base - t * linear).norm()) for t in steps]
    if equation.affine:
        assert max(left) < 1e-12 * float(linear.norm())
        general = equation._residual(equation.embed(u, v), v)
        assert (general - base).norm() < 1e-12 * base.norm()
    else:
        assert slope(steps, left) == pytest.approx(2.0, abs=0.05)
    for pushed, direction, pulled in (
        (equation.state_product(u, v, w), w, equation.state_product_transposed(u, v, z)),
        (equation.control_product(u, v, d), d, equation.control_product_transposed(u, v, z)),
    ):
        assert pushed.norm() > 0.0
        assert abs(dot(pushed, z) - dot(direction, pulled)) < 1e-12 * float(pushed.norm() * z.norm())
    factors = equation.linearise(u, v).factors
    assert (equation.state_product(u, v, factors.solve(z)) - z).norm() < 1e-10 * z.norm()
    assert (equation.state_product_transposed(u, v, factors.solve_transposed(z)) - z).norm() < 1e-10 * z.norm()

    t = 1e-5
    sides = []
    for sign in (t, -t):
        at = u + sign * w, v + sign * d
        sides.append((equation.state_product_transposed(*at, z), equation.control_product_transposed(*at, z)))
    for found, after, before in zip(equation.second_derivative(u, v, z, w, d), *sides, strict=True):
        assert (found - (after - before) / (2 * t)).norm() < 1e-6 * float(found.norm() + linear.norm())


@schemes
@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("pde", [HEAT, PHASES], ids=["heat", "allen_cahn"])
def test_every_derivative_with_every_control(pde: dict[str, Any], name: str, scheme: str) -> None:
    if pde is PHASES and name == "log_conductivity":
        pytest.skip("an equation without a conductivity")
    check_derivatives(evolution({"time.scheme": scheme, **controlled(pde, name)}))


@schemes
@pytest.mark.parametrize("kind", ["source", "neumann", "dirichlet", "initial"])
def test_every_derivative_of_a_vector(kind: str, scheme: str) -> None:
    control = {"kind": kind, **({"on": "left" if kind == "dirichlet" else "right"} if kind != "source" else {})}
    if kind == "initial":
        del control["on"]
    check_derivatives(evolution({**FLOW, "time.scheme": scheme, "control": control}))


def test_a_march_solves_the_equations_of_all_steps_with_every_control() -> None:
    """The state of a march solves the equations of all steps."""
    for name in CONTROLS:
        if name == "log_conductivity":
            continue
        built = evolution({"time.scheme": "crank_nicolson", **controlled(PHASES, name)})
        assert isinstance(built.equation, EvolutionEquation)
        v = 0.4 * random(built.outer_size, seed=1)
        u = built.equation.march(v)
        scale = built.equation.residual(torch.zeros_like(u), v).norm()
        assert built.equation.residual(u, v).norm() < 1e-12 * scale, name


def test_a_parameter_may_enter_coefficients_that_depend_on_time() -> None:
    pde = {**PHASES, "epsilon": "0.5 + k*t", "source": "k*t*x"}
    built = evolution({"pde": pde, "control": CONTROLS["parameter"]})
    check_derivatives(built)
    u, v = built.start()
    assert built.equation.residual(u, v).norm() < 1e-12


def test_two_controls_of_different_spaces() -> None:
    both = [{**CONTROLS["source time"]}, {**CONTROLS["robin P1"], "name": "outside"}, CONTROLS["initial"]]
    built = evolution({"pde": HEAT, "control": both, "time.scheme": "crank_nicolson"})
    assert built.control.rows.sizes == (3, 3, 5)
    check_derivatives(built)


@pytest.mark.parametrize("space", SPACES)
def test_a_control_that_varies_in_time_has_a_value_in_every_step(space: str) -> None:
    built = evolution({"control": {"kind": "source", "space": space, "initial": "t" if space != "constant" else 1}})
    columns = {"P0": 4, "P1": 5, "time": 1, "constant": 1}[space]
    assert built.outer_size == (1 if space == "constant" else 3 * columns)
    if space != "constant":
        rows = built.control.initial.reshape(3, columns)
        expected = torch.tensor([1 / 6, 1 / 3, 1 / 2], dtype=torch.float64)
        assert torch.allclose(rows, expected[:, None].expand(3, columns))
    # The integral of 1 over time, or over time and the interval.
    one = torch.ones(1, built.outer_size, dtype=torch.float64)
    assert built.outer_metric.inner(one, one) == pytest.approx(1.0 if space == "constant" else 0.5, rel=1e-12)


@schemes
def test_every_test_of_verify_passes(scheme: str) -> None:
    for overrides in (
        {"pde": HEAT, "control": CONTROLS["source P1"]},
        controlled(HEAT, "log_conductivity"),
        {**controlled(PHASES, "dirichlet time"), "objective.0.time": "final"},
    ):
        for key, value in overrides.items():
            assert key in ("pde", "control", "objective.0.time"), value
        result = nhgd.verify(nhgd.load(LINE, {"time.scheme": scheme, **overrides}))
        assert result.passed, str(result)


# Orders


@pytest.mark.parametrize(("scheme", "order"), [("implicit_euler", 1), ("crank_nicolson", 2)])
def test_heat_converges_at_the_order_of_the_scheme(scheme: str, order: int) -> None:
    """P2 elements have no error for the polynomial in space, so the error is that of the scheme."""
    exact = "exp(-2*t)*(1 + x + x**2 + x*y)"
    pde = {
        "kind": "heat",
        "capacity": "1.5 + t",
        "conductivity": "1 + t",
        "reaction": "t",
        "source": f"(t - 3 - 2*t)*{exact} - (1 + t)*2*exp(-2*t)",
        "boundary": {
            "left": {"dirichlet": exact},
            "right": {"robin": {"coefficient": "1 + t", "value": f"{exact} + exp(-2*t)*(3 + y)"}},
            "bottom": {"neumann": "-(1 + t)*exp(-2*t)*x"},
            "top": {"neumann": "(1 + t)*exp(-2*t)*x"},
        },
    }
    errors = []
    for steps in (8, 16, 32, 64):
        time = {"end": 1, "steps": steps, "scheme": scheme, "initial": exact.replace("-2*t", "0")}
        others = {"mesh": SQUARE, "element": "P2", "pde": pde, "time": time, "control": {"kind": "source"}}
        built = evolution(others)
        errors.append(l2_error(built, solved(built)[-1], [exact], 1.0))
    assert orders(errors)[-1] == pytest.approx(order, abs=0.05) and min(orders(errors)) > order - 0.2


@schemes
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_heat_converges_at_the_order_of_the_element(element: str, scheme: str) -> None:
    """Both schemes have no error for solutions that are linear in time."""
    exact = "(1 + t)*sin(2*x + y)"
    pde = {"kind": "heat", "source": f"sin(2*x + y) + 5*{exact}", "boundary": {"all": {"dirichlet": exact}}}
    errors = []
    for n in (4, 8, 16, 32):
        time = {"end": 1, "steps": 2, "scheme": scheme, "initial": "sin(2*x + y)"}
        mesh = {"kind": "rectangle", "cells": [n, n]}
        built = evolution({"mesh": mesh, "element": element, "pde": pde, "time": time})
        errors.append(l2_error(built, solved(built)[-1], [exact], 1.0))
    assert orders(errors)[-1] == pytest.approx(int(element[1]) + 1, abs=0.1)


# Objectives


def bilinear(built: PDEProblem) -> Tensor:
    """All coefficients (1, N) of (1 + x)(1 + t)."""
    assert isinstance(built.equation, EvolutionEquation)
    times = built.equation.step * np.arange(built.equation.steps + 1)
    return torch.from_numpy((1.0 + times[:, None]) * (1.0 + built.space.nodes[0])).reshape(1, -1)


@schemes
def test_tracking_over_time_is_the_sum_over_the_stages(scheme: str) -> None:
    built = evolution({"time.scheme": scheme, "objective": [{"kind": "tracking", "target": "x*t", "weight": 3}]})
    stages = (np.arange(3) + (1.0 if scheme == "implicit_euler" else 0.5)) / 6
    exact = 3 * 0.5 * sum(((2 + t) ** 3 - (1 + t) ** 3) / 3 for t in stages) / 6
    (term,) = built.objective.state
    assert float(term.value(bilinear(built))) == pytest.approx(exact, rel=1e-13)


@schemes
def test_tracking_at_the_end_uses_the_last_state(scheme: str) -> None:
    terms = [
        {"kind": "tracking", "target": "x*t", "time": "final"},
        {"kind": "tracking", "target": "t", "time": "final", "on": "right"},
    ]
    built = evolution({"time.scheme": scheme, "objective": terms})
    inside, right = (float(term.value(bilinear(built))) for term in built.objective.state)
    assert inside == pytest.approx(0.5 * (2.5**3 - 1.5**3) / 3, rel=1e-13)
    assert right == pytest.approx(0.5 * (2 * 1.5 - 0.5) ** 2, rel=1e-13)


@schemes
def test_linear_terms_in_time(scheme: str) -> None:
    terms = [
        {"kind": "linear_state", "weight": "x*t"},
        {"kind": "linear_state", "weight": "x*t", "time": "final"},
        {"kind": "linear_state", "on": "right"},
        {"kind": "linear_control", "weight": "x*t"},
    ]
    built = evolution({"time.scheme": scheme, "objective": terms})
    stages = (np.arange(3) + (1.0 if scheme == "implicit_euler" else 0.5)) / 6
    over, end, side = (float(term.value(bilinear(built))) for term in built.objective.state)
    assert over == pytest.approx(sum(t * (1 + t) * 5 / 6 for t in stages) / 6, rel=1e-13)
    assert end == pytest.approx(0.5 * 1.5 * 5 / 6, rel=1e-13)
    assert side == pytest.approx(sum(2 * (1 + t) for t in stages) / 6, rel=1e-13)
    control = torch.from_numpy(np.tile(1.0 + built.control.parts[0].nodes[0], 3))
    (term,) = built.objective.control
    assert term.value(control) == pytest.approx(sum(t * 5 / 6 for t in stages) / 6, rel=1e-13)


# Work


def test_heat_with_constant_coefficients_is_factorised_once() -> None:
    built = evolution({"time.steps": 20, "mesh.cells": [16], "time.scheme": "crank_nicolson"})
    u, v = built.start()
    assert built.counts.factorisations == 0
    factors = built.state_factors(u, v)
    factors.solve(built.residual(u, v))
    factors.solve_transposed(u)
    built.equation.linearise(u + 1.0, v + 1.0).factors.solve(u)
    assert built.counts.factorisations == 1 and built.counts.solves == 3 * 20
    built.inner_metric.gradient(u)
    assert built.counts.factorisations == 2 and built.counts.solves == 4 * 20


def test_heat_with_a_conductivity_in_time_is_factorised_once_a_step() -> None:
    built = evolution({"time.steps": 5, "pde.conductivity": "1 + t"})
    u, v = built.start()
    built.state_factors(u, v)
    assert built.counts.factorisations == 5


# Failures


def test_a_step_that_fails_ends_in_a_sentence() -> None:
    file = {**LINE, "pde": {"kind": "allen_cahn", "epsilon": 0.1, "source": "where(t > 0.2, 1e200, 0)"}}
    built = evolution({"pde": file["pde"]})
    u, _ = built.start()
    assert torch.isfinite(u).all()
    solution = nhgd.solve(nhgd.load(file))
    assert solution.status == "failed" and solution.message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"time": None}, "time: missing; an equation of kind heat evolves in time"),
        ({"pde.kind": "poisson"}, "time: an equation of kind poisson does not evolve in time"),
        ({"pde.capacity": "x - 1"}, "pde.capacity: expected a positive value, found"),
        ({"time.steps": 0}, "time.steps: expected a whole number of at least 1"),
        ({"time.end": -1}, "time.end: expected a number above 0"),
        ({"time.initial": "1/x"}, "time.initial: expected finite values, found inf at (0)"),
        ({"pde.boundary.all.dirichlet": "1/(t - 0.5)"}, "pde.boundary.all.dirichlet: expected finite values"),
        ({"time.scheme": "euler"}, "time.scheme: expected"),
        (
            {"control.initial": "t", "control.space": "constant"},
            "control.initial: expected an expression without the tim",
        ),
        ({"control.bounds": [0, "t"], "control.space": "constant"}, "control.bounds.1: expected an expression without"),
        (
            {"control": {"kind": "dirichlet", "on": "left", "gain": "1 + t"}},
            "control.gain: expected an expression without the time t, as this does not change, found 1 + t",
        ),
        (
            {"objective.1.reference": "t", "control": {"kind": "initial"}},
            "objective.1.reference: expected an expression without the time t",
        ),
    ],
)
def test_mistakes_name_the_key(overrides: dict[str, Any], message: str) -> None:
    base = {"objective.0.target": "x"} if "time" in overrides else {}
    with pytest.raises(ProblemError) as caught:
        evolution({**base, **overrides})
    assert message in str(caught.value)


def test_bounds_may_change_in_time() -> None:
    overrides = {"control.bounds": ["-t", 0.05], "objective.1.weight": 1e-4, "time.steps": 5}
    ours, exact = (nhgd.solve(nhgd.load(LINE, {**overrides, "method": method})) for method in ("nhgd", "adjoint"))
    assert ours.status == exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-9)
    upper, lower = ours.control.max(), ours.control.reshape(5, -1) + (np.arange(5)[:, None] + 1) / 10
    assert upper == pytest.approx(0.05) and lower.min() >= -1e-14


def test_a_control_of_the_initial_state_needs_a_time_section() -> None:
    steady = {"pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}}, "time": None}
    with pytest.raises(ProblemError, match=r"control.kind: expected a problem with time, found a steady one"):
        evolution({**steady, "objective.0.target": "x", "control": {"kind": "initial"}})


# Output


def test_a_run_writes_the_time_series_of_its_last_iterate(tmp_path: Path) -> None:
    problem = nhgd.load(LINE, {"control.initial": "t"})
    assert "12 control unknowns" not in str(problem) and "in 3 time steps; " in str(problem)
    solution = nhgd.solve(problem, output=tmp_path / "run")
    folder = tmp_path / "run" / "evolution"
    entries = ElementTree.parse(folder / "evolution.pvd").getroot().findall("Collection/DataSet")
    assert [float(entry.attrib["timestep"]) for entry in entries] == pytest.approx(solution.times)
    assert solution.times == pytest.approx([0.0, 1 / 6, 1 / 3, 0.5])
    control, adjoint = solution.control.reshape(3, -1), solution.adjoint.reshape(4, -1)
    target = np.exp(-solution.times[[1, 1, 2, 3]])[:, None] * np.sin(np.pi * solution.problem.space.nodes[0])
    for k, entry in enumerate(entries):
        _, found = read_vtu(folder / entry.attrib["file"])
        assert found.time == pytest.approx(solution.times[k])
        assert np.array_equal(found.point["state"], solution.evolution[k])
        assert np.array_equal(found.point["control"], control[max(k - 1, 0)])
        assert np.array_equal(found.point["adjoint"], adjoint[k])
        assert np.allclose(found.point["target"], target[k], atol=1e-15)
    _, final = read_vtu(tmp_path / "run" / "final.vtu")
    assert np.array_equal(final.point["state"], solution.evolution[-1])
    # A later run with fewer steps removes these files; a saved solution has the same files.
    shorter = nhgd.solve(nhgd.load(LINE, {"time.steps": 2}), output=tmp_path / "run")
    assert len(list(folder.glob("*.vtu"))) == 3
    shorter.save(tmp_path / "again")
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in (tmp_path / "again" / "evolution").iterdir()}


def test_a_steady_run_writes_no_time_series(tmp_path: Path) -> None:
    steady = {
        "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
        "time": None,
        "objective.0.target": "x",
    }
    solution = nhgd.solve(nhgd.load(LINE, steady), output=tmp_path)
    assert not (tmp_path / "evolution").exists()
    assert solution.evolution.shape == (1, 5) and solution.times.tolist() == [0.0]
