"""Networks as states: derivatives, the Fisher information, the inner solver, hypergradients, and whole runs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.bench.contenders import parse_contenders
from nhgd_pde.bench.suite import Plan, bench
from nhgd_pde.bench.trials import Budget
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.neural.levenberg_marquardt import LevenbergMarquardt
from nhgd_pde.neural.network import Network
from nhgd_pde.neural.neural_oracle import NeuralStates
from nhgd_pde.neural.tangent import Tangent
from nhgd_pde.problem_file.errors import ProblemError

ROOT = Path(__file__).parents[1]
LINE = ROOT / "problems/poisson_network.yaml"
DISCS = ROOT / "problems/four_discs.yaml"
PLANE: dict[str, Any] = {
    "name": "plane",
    "mesh": {"kind": "rectangle", "cells": [6, 6]},
    "pde": {"kind": "semilinear", "nonlinearity": "u**3", "source": "1", "boundary": {"all": {"dirichlet": 0}}},
    "state": {"kind": "network", "layers": [8, 8]},
    "control": {"kind": "source"},
    "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-2}],
}


def random_points(network: Network) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = 2.0 * torch.rand(7, network.inputs, generator=generator, dtype=torch.float64) - 1.0
    return network.initial(1), x, torch.arange(7) % network.outputs


def tangent_of(file: Any, layers: tuple[int, ...]) -> Tangent:
    pde = nhgd.load(file).pde
    oracle = NeuralStates(layers)
    v = pde.start()[1] + 0.3
    _, state = oracle.evaluate(pde, v, oracle.init(pde, *pde.start()), Accuracy(0.1, 0.1))
    return Tangent.at(pde, oracle.ansatz(pde, state), state.theta, v)


# The network


@pytest.mark.parametrize("network", [Network(1, (4,)), Network(2, (5, 3), 2)])
def test_derivatives_of_a_network_converge_as_differences_do(network: Network) -> None:
    theta, x, field = random_points(network)
    change = torch.sin(torch.arange(1.0, network.size + 1.0, dtype=torch.float64))
    slope = network.derivatives(theta, x, field) @ change
    assert len(theta) == network.size
    errors = []
    for h in (1e-2, 5e-3):
        up, down = (network.values(theta + sign * h * change, x, field) for sign in (1.0, -1.0))
        errors.append(float(((up - down) / (2 * h) - slope).norm()))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.05)


# The Fisher information


@pytest.mark.parametrize("layers", [(3,), (12, 12)])
def test_the_inverse_is_that_of_the_fisher_information(layers: tuple[int, ...]) -> None:
    """With fewer parameters than tests, and with more of them, where the inverse is found in the space of residuals."""
    tangent = tangent_of(PLANE, layers)
    fisher = tangent.images @ tangent.represented.T
    g, damping = tangent.gradient(tangent.problem.residual(tangent.u, tangent.v)), 1e-3 * tangent.largest
    exact = torch.linalg.solve(fisher + damping * torch.eye(len(g), dtype=g.dtype), g)
    found = tangent.solve(g, damping)
    assert float((found - exact).norm() / exact.norm()) < 1e-9
    assert tangent.largest == pytest.approx(float(torch.linalg.matrix_norm(fisher, 2)), rel=1e-9)


def test_a_rich_network_has_the_adjoint_variable_of_finite_elements() -> None:
    tangent = tangent_of(PLANE, (12, 12))
    pde, u, v = tangent.problem, tangent.u, tangent.v
    assert tangent.images.shape[0] > tangent.images.shape[1]
    inner, _ = pde.outer_derivatives(u, v)
    exact = pde.state_factors(u, v).solve_transposed(inner)
    assert pde.inner_metric.norm(tangent.adjoint(inner) - exact) < 1e-4 * pde.inner_metric.norm(exact)


def test_a_small_network_has_the_best_adjoint_variable_of_its_tangent_space() -> None:
    """p minimises |g - J^T p| over the images of the tangent space, in the norm in which the state is fitted."""
    tangent = tangent_of(PLANE, (3,))
    inner, _ = tangent.problem.outer_derivatives(tangent.u, tangent.v)
    p = tangent.adjoint(inner)
    missing = inner - tangent.problem.state_product_transposed(tangent.u, tangent.v, p)
    along = tangent.by_theta @ missing[0]
    assert float(along.norm()) < 1e-8 * float((tangent.by_theta @ inner[0]).norm())
    assert float(missing.norm()) > 1e-3 * float(inner.norm())


# The inner solver


def test_the_inner_solver_solves_a_nonlinear_equation() -> None:
    tangent = tangent_of(PLANE, (12, 12))
    pde, v = tangent.problem, tangent.v
    fit = LevenbergMarquardt(pde, tangent.ansatz, v).solved(tangent.theta, 1e-6, 300)
    adjoint = Adjoint()
    _, exact = adjoint.evaluate(pde, v, adjoint.init(pde, *pde.start()), Accuracy(1e-12, 1e-12))
    assert pde.inner_error(fit.u, v, 0.0) <= 1e-6
    assert pde.inner_metric.norm(fit.u - exact.u) < 1e-5 * pde.inner_metric.norm(exact.u)


def test_every_step_reduces_the_residual() -> None:
    tangent = tangent_of(PLANE, (8, 8))
    solver = LevenbergMarquardt(tangent.problem, tangent.ansatz, tangent.v)
    losses = [solver.solved(tangent.ansatz.start, 0.0, steps).loss for steps in range(6)]
    assert all(after < before for before, after in pairwise(losses))


# Hypergradients


def closed_form(a: float, b: float) -> np.ndarray:
    """The gradient of (a^2 + b^2 + a b - 2 b - a + 1) / 3."""
    return np.array([2 * a + b - 1, 2 * b + a - 2]) / 3


@pytest.mark.parametrize("controls", [(0.0, 0.0), (1.0, -2.0), (-0.5, 3.0)])
def test_hypergradients_in_one_dimension_are_those_of_the_closed_form(controls: tuple[float, float]) -> None:
    pde = nhgd.load(LINE).pde
    oracle, v = NeuralStates((20, 20)), torch.tensor(controls, dtype=torch.float64)
    evaluation, _ = oracle.evaluate(pde, v, oracle.init(pde, *pde.start()), Accuracy(1e-4, 1e-4))
    found, exact = evaluation.derivative.numpy(), closed_form(*controls)
    a, b = controls
    assert np.linalg.norm(found - exact) < 1e-5 * np.linalg.norm(exact)
    assert found @ exact / (np.linalg.norm(found) * np.linalg.norm(exact)) > 0.999999
    assert evaluation.value == pytest.approx((a * a + b * b + a * b - 2 * b - a + 1) / 3, rel=1e-5)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_the_state_does_not_matter(unit: float) -> None:
    overrides = {
        "pde.source": f"{-2 * unit!r}",
        "objective.0.target": f"{unit!r}*x**2",
        "control.0.initial": unit,
        "control.1.initial": -2 * unit,
    }
    first = {"control.0.initial": 1.0, "control.1.initial": -2.0}
    found = []
    for changes in (overrides, first):
        pde = nhgd.load(LINE, changes).pde
        oracle, (u, v) = NeuralStates((10, 10)), pde.start()
        found.append(oracle.evaluate(pde, v, oracle.init(pde, u, v), Accuracy(1e-2, 1e-2)))
    (scaled, state), (plain, own) = found
    assert scaled.inner_steps == pytest.approx(plain.inner_steps, abs=2)
    assert float(scaled.derivative[0]) / unit == pytest.approx(float(plain.derivative[0]), rel=1e-3)
    assert float((state.u / unit - own.u).norm() / own.u.norm()) < 1e-2


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_unit_of_a_pressure_does_not_matter(unit: float) -> None:
    """The pressure of a flow by a force has the unit of the viscosity, and no given values."""
    found = []
    for factor in (1.0, unit):
        flow = {
            "name": "flow",
            "mesh": {"kind": "rectangle", "cells": [3, 3]},
            "pde": {
                "kind": "stokes",
                "viscosity": factor,
                "source": [f"{factor!r}*y", f"{factor!r}*x**2"],
                "boundary": {"all": {"dirichlet": 0}},
            },
            "control": {"kind": "source"},
            "objective": [{"kind": "tracking", "target": ["y", "0"]}],
        }
        pde = nhgd.load(flow).pde
        oracle, (u, v) = NeuralStates((8,)), pde.start()
        found.append(oracle.evaluate(pde, v, oracle.init(pde, u, v), Accuracy(1e-1, 1e-1)))
    (plain, own), (scaled, state) = found
    assert own.scale is not None and state.scale is not None
    assert torch.allclose(state.scale, own.scale * torch.tensor([1.0, 1.0, unit]), rtol=1e-6, atol=0.0)
    assert bool((own.scale != 1.0).all())
    assert scaled.inner_steps == pytest.approx(plain.inner_steps, abs=2)


def test_an_overflow_is_a_failed_evaluation() -> None:
    pde = nhgd.load(PLANE, {"pde.nonlinearity": "exp(1000*u)"}).pde
    oracle, (u, v) = NeuralStates((8,)), pde.start()
    first, state = oracle.evaluate(pde, v, oracle.init(pde, u, v), Accuracy(1e-2, 1e-2))
    assert first.finite
    after, kept = oracle.evaluate(pde, v + 1e300, state, Accuracy(1e-2, 1e-2))
    assert not after.finite and after.message and kept.u is state.u


def test_the_state_between_two_evaluations_belongs_to_the_control_between_them() -> None:
    pde = nhgd.load(LINE).pde
    oracle, (u, v) = NeuralStates((20, 20)), pde.start()
    accuracy, ends = Accuracy(1e-5, 1e-5), (v, v + torch.tensor([1.0, 3.0], dtype=v.dtype))
    _, start = oracle.evaluate(pde, ends[0], oracle.init(pde, u, v), accuracy)
    _, end = oracle.evaluate(pde, ends[1], start, accuracy)
    middle = start.blend(end, 0.25)
    assert pde.inner_error(middle.u, torch.lerp(*ends, 0.25), 0.0) < 1e-3


def test_a_state_that_is_zero_is_known_exactly() -> None:
    """Without a source and with the control zero the state is zero, and the adjoint variable is not."""
    pde = nhgd.load(PLANE, {"pde.source": "0", "state.layers": [12, 12]}).pde
    oracle, (u, v) = NeuralStates((12, 12)), pde.start()
    evaluation, state = oracle.evaluate(pde, v, oracle.init(pde, u, v), Accuracy(1e-3, 1e-3))
    adjoint = Adjoint()
    exact, _ = adjoint.evaluate(pde, v, adjoint.init(pde, u, v), Accuracy(1e-12, 1e-12))
    assert evaluation.inner_steps == 0 and evaluation.state_error == 0.0 and not bool(state.u.any())
    assert float((evaluation.gradient - exact.gradient).norm()) < 1e-3 * float(exact.gradient.norm())
    # The unit of the state is found where it is no longer zero.
    later, state = oracle.evaluate(pde, v - evaluation.gradient, state, Accuracy(1e-3, 1e-3))
    assert state.scale is not None and later.inner_steps > 0 and later.state_error <= 1e-3


# Runs


def test_the_optimum_in_one_dimension() -> None:
    problem = nhgd.load(LINE, {"inner.tolerance": 1e-4, "outer.rtol": 1e-6})
    solution = nhgd.solve(problem)
    assert abs(solution.control - [0.0, 1.0]).max() < 1e-5
    assert solution.objective < 1e-9


def test_a_run_with_the_defaults_converges() -> None:
    solution = nhgd.solve(nhgd.load(LINE))
    assert solution.status == "converged"
    assert abs(solution.control - [0.0, 1.0]).max() < 1e-2


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    changes = {"outer.rtol": 1e-5, "output.checkpoint": 1}
    whole = nhgd.solve(nhgd.load(LINE, changes))
    nhgd.solve(nhgd.load(LINE, {**changes, "outer.iterations": 1}), output=tmp_path)
    resumed = nhgd.solve(nhgd.load(LINE, changes), output=tmp_path, resume=True)
    assert np.array_equal(resumed.control, whole.control) and resumed.objective == whole.objective


@pytest.mark.slow
def test_four_discs_have_the_objective_of_finite_elements() -> None:
    """After four of the sixteen iterations that the defaults take."""
    elements = nhgd.solve(nhgd.load(DISCS, {"state": None}))
    network = nhgd.solve(nhgd.load(DISCS, {"outer.iterations": 4}))
    judge = nhgd.load(DISCS, {"state": None}).reduced
    assert judge.value(network.control) <= 1.05 * elements.objective
    assert network.objective == pytest.approx(judge.value(network.control), rel=0.05)


@pytest.mark.slow
def test_a_network_of_position_and_time() -> None:
    path = ROOT / "benchmarks/data/heat_network.yaml"
    elements = nhgd.solve(nhgd.load(path, {"state": None}))
    network = nhgd.solve(nhgd.load(path, {"outer.iterations": 5}))
    judge = nhgd.load(path, {"state": None}).reduced
    assert judge.value(network.control) <= 1.05 * elements.objective


def test_bench_judges_a_network_with_finite_elements() -> None:
    contenders = parse_contenders(["nhgd,elements=nhgd:state=null,adjoint"])
    plan = Plan(contenders, 1, Budget(), {"outer.iterations": 3, "outer.rtol": 1e-3})
    *_, results = bench(plan, plan.tasks([LINE]))
    gaps = {judged.run.contender.label: results.gaps(judged)[-1] for judged in results.runs}
    assert gaps["elements"] < 1e-9 and gaps["adjoint"] < 1e-9
    assert 1e-12 < gaps["nhgd"] < 1e-3


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "adjoint"}, "method: expected nhgd with a network"),
        ({"inner.tests": 8}, "inner.tests: expected all"),
        ({"inner.optimiser": "sgd"}, "inner.optimiser: expected"),
        ({"inner.noise": "matched"}, "inner.noise: expected"),
        ({"curvature.kind": "dense"}, "curvature: expected the defaults"),
        ({"state.layers": [100_000, 100_000]}, "state.layers: expected a network for which"),
        ({"state.layers": []}, "state.layers: expected a list of at least one number"),
        ({"state.layers": [0]}, r"state.layers\S*: expected"),
        ({"state.kind": "net"}, "state.kind"),
        ({"state.widths": [3]}, "state.widths"),
        ({"outer.method": "newton_cg"}, "outer.method: expected"),
    ],
)
def test_what_a_network_does_not_take(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        nhgd.load(LINE, changes)


def test_networks_take_neither_random_inputs_nor_two_roles() -> None:
    random = {"parameters": {"a": {"normal": [0, 1]}}, "pde.source": "a"}
    with pytest.raises(ProblemError, match="parameters: expected none with a network"):
        nhgd.load(PLANE, random)
    with pytest.raises(ProblemError, match="state: expected none in a run of two roles"):
        nhgd.solve(nhgd.load(LINE), roles=2)
