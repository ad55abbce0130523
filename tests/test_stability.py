"""The inf-sup constant: estimates against singular values, and certificates against true errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from bilevel_problems import normal, riesz, seeded, spd
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.hypergradient import hypergradient
from nhgd_pde.engine.inner_loop import InnerOptions
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.stability import UNKNOWN, Stability, estimated, state_error
from nhgd_pde.linalg.factorisation import SingularMatrixError
from nhgd_pde.linalg.lanczos import largest_eigenpair
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.pde_problem import PDEProblem
from problems import problem

DIRICHLET = {"all": {"dirichlet": 0}}
NO_SLIP = {"all": {"dirichlet": [0, 0]}}
LID = {"all": {"dirichlet": ["where(y > 0.99, 1, 0)", 0]}}
FLOW = {"element": "P2", "objective.0.target": ["sin(pi*x)", "0"], "mesh.cells": [6, 6]}
RESONANCE = {"kind": "helmholtz", "wavenumber": 4.4429, "boundary": DIRICHLET, "source": "1 + x*y"}
ABSORBING = {"left": {"dirichlet": 1}, "right": {"absorbing": True}}


def advection(conductivity: float) -> dict[str, Any]:
    pde = {"kind": "advection_diffusion", "conductivity": conductivity, "velocity": [1, 0.5], "source": "1"}
    return {"pde": {**pde, "boundary": DIRICHLET}, "mesh.cells": [12, 12]}


def heat(capacity: float) -> dict[str, Any]:
    pde = {"kind": "heat", "capacity": capacity, "source": "1 + x", "boundary": DIRICHLET}
    return {"pde": pde, "time": {"end": 1.0, "steps": 6}, "mesh.cells": [6, 6]}


BURGERS = {"kind": "burgers", "viscosity": 0.01, "source": "1 + x", "boundary": {"left": {"dirichlet": 1}}}
CASES: dict[str, dict[str, Any]] = {
    "poisson": {"mesh.cells": [8, 8]},
    "reaction": {"mesh.cells": [8, 8], "pde.reaction": 1e4, "inner.model": "residual"},
    "anisotropic": {"pde.conductivity": [[1, 0], [0, 1e-2]], "mesh.cells": [12, 12], "inner.model": "residual"},
    "resonance": {"pde": RESONANCE, "element": "P2", "mesh.cells": [8, 8]},
    "short waves": {"pde": {**RESONANCE, "wavenumber": 20}, "element": "P2", "mesh.cells": [8, 8]},
    "absorbed waves": {"pde": {**RESONANCE, "wavenumber": 10, "boundary": ABSORBING}, "mesh.cells": [12, 12]},
    "advection": advection(1e-1),
    "dominant advection": advection(1e-3),
    "extreme advection": advection(1e-6),
    "stokes": {"pde": {"kind": "stokes", "viscosity": 1, "boundary": LID}, **FLOW},
    "navier_stokes": {"pde": {"kind": "navier_stokes", "viscosity": 0.02, "boundary": LID}, **FLOW},
    "heat": heat(1.0),
    "slow heat": heat(100.0),
    "burgers": {"mesh": {"kind": "interval", "cells": [80]}, "pde": BURGERS, "objective.0.target": "x"},
    "semilinear": {
        "pde": {"kind": "semilinear", "nonlinearity": "u**3", "source": "1e3", "boundary": DIRICHLET},
        "mesh.cells": [10, 10],
    },
    "conductivity": {"control": {"kind": "log_conductivity"}, "mesh.cells": [8, 8]},
    "contrast": {"control": {"kind": "log_conductivity"}, "mesh.cells": [8, 8]},
    "lifted": {
        "control": {"kind": "log_conductivity"},
        "mesh.cells": [8, 8],
        "pde.boundary": {"left": {"dirichlet": 1}, "right": {"dirichlet": "1 + y"}},
    },
}
# The change of the control from the point of K, times a field between 0 and 1.
SHIFTS = {"conductivity": -6.0, "contrast": 18.0, "lifted": -6.0}


def solved(built: PDEProblem, case: str = "") -> tuple[Tensor, Tensor, Tensor, Stability]:
    """u, v, the adjoint variable and the estimate of the inf-sup constant."""
    u, v = built.start()
    v = v + SHIFTS.get(case, 0.0) * (torch.arange(v.numel()) % 3 == 0).double()
    evaluation, state = Adjoint().evaluate(built, v, Adjoint().init(built, u, v), Accuracy(1e-12, 1e-12))
    assert evaluation.finite, evaluation.message
    assert state.q is not None
    return state.u, v, state.q, state.stability


def dense(built: PDEProblem, u: Tensor, v: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """J and K."""
    columns = torch.eye(u.shape[1], dtype=torch.float64)
    jacobian = torch.cat([built.state_product(u, v, column[None]) for column in columns]).T
    return jacobian.numpy(), built.inner_metric.covector(columns).T.numpy()


def singular_values(jacobian: np.ndarray, gram: np.ndarray) -> np.ndarray:
    root = np.linalg.cholesky(0.5 * (gram + gram.T))
    half = scipy.linalg.solve_triangular(root, jacobian, lower=True)
    return np.linalg.svd(scipy.linalg.solve_triangular(root, half.T, lower=True), compute_uv=False)


@pytest.mark.parametrize("case", [name for name in CASES if name not in SHIFTS])
def test_the_inf_sup_constant_is_the_smallest_singular_value(case: str) -> None:
    built = problem(CASES[case])
    u, v, _, stability = solved(built)
    beta = singular_values(*dense(built, u, v))[-1]
    assert stability.known
    assert 0.8 * beta <= stability.value <= 1.15 * beta


@pytest.mark.parametrize("case", list(CASES))
def test_reported_errors_are_sharp_bounds_of_true_ones(case: str) -> None:
    """|u - u*| is at most 1.15 times the reported error; the worst direction reaches 80 % of it."""
    built = problem(CASES[case])
    u, v, p, stability = solved(built, case)
    g, _ = built.outer_derivatives(u, v)
    jacobian, gram = dense(built, u, v)
    kind = built.jacobian_kind
    matrix = jacobian if kind.hessian else gram
    _, vectors = scipy.linalg.eigh(jacobian.T @ np.linalg.solve(gram, jacobian), gram)
    left = scipy.linalg.eigh(jacobian @ np.linalg.solve(gram, jacobian.T), gram)[1]
    # The error is small, so that equations are nearly linear.
    worst, worst_adjoint = torch.from_numpy(vectors[:, :1].T.copy()), torch.from_numpy(left[:, :1].T.copy())
    rough = normal(seeded(1), *u.shape)
    smooth = built.inner_metric.gradient(normal(seeded(2), *u.shape))

    def norm(x: Tensor) -> float:
        return float(np.sqrt(x.numpy()[0] @ matrix @ x.numpy()[0]))

    for name, direction in {"rough": rough, "smooth": smooth, "worst": worst}.items():
        size = 1e-6 * built.inner_metric.norm(u) / built.inner_metric.norm(direction)
        moved = u + size * direction
        residual = built.residual(moved, v)
        plain = built.residual_error(residual, moved, v, 0.0)
        reported, _, _ = state_error(built, moved, v, residual, plain, stability, 0.0)
        scale = built.energy(moved, v)[1] if kind.hessian and not kind.gram else built.inner_length(moved, v)
        true = norm(moved - u) / scale
        assert true <= 1.15 * reported
        if name == "worst" or kind.hessian:
            assert true >= 0.8 * reported
    _, bound, _ = state_error(built, u, v, built.residual(u, v), 0.0, stability, 0.0)
    for name, direction in {"rough": rough, "smooth": smooth, "worst": worst_adjoint}.items():
        moved = p + 1e-3 * built.inner_metric.norm(p) / built.inner_metric.norm(direction) * direction
        reported = bound.of_adjoint(g, moved, g - built.state_product_transposed(u, v, moved), 0.0)
        true = norm(moved - p) / norm(moved)
        assert true <= 1.15 * reported
        if name == "worst" or kind.hessian:
            assert true >= 0.8 * reported


def test_near_a_resonance_the_reported_error_is_not_the_residual() -> None:
    """With P2 on 8 x 8 cells, the residual is about a thousand times smaller than the error of the state."""
    built = problem(CASES["resonance"])
    u, v, _, stability = solved(built)
    assert stability.value < 1e-3
    # An error in the direction of inverse iteration has a small residual.
    assert stability.vector is not None
    moved = u + 1e-4 * built.inner_metric.norm(u) * stability.vector
    plain = built.inner_error(moved, v, 0.0)
    reported, _, _ = state_error(built, moved, v, built.residual(moved, v), plain, stability, 0.0)
    true = built.inner_metric.norm(moved - u) / built.inner_metric.norm(moved)
    assert true > 500.0 * plain
    assert 0.8 * reported <= true <= 1.15 * reported


@pytest.mark.parametrize("method", ["adjoint", "nhgd"])
def test_near_a_resonance_runs_converge_on_true_errors(method: str) -> None:
    objective = [{"kind": "tracking", "target": "sin(pi*x)*y"}, {"kind": "regularisation", "weight": 1e-2}]
    content = {"name": "resonance", "mesh": {"kind": "rectangle", "cells": [8, 8]}, "element": "P2", "pde": RESONANCE}
    solution = nhgd.solve(
        nhgd.load({**content, "control": {"kind": "source"}, "objective": objective, "method": method})
    )
    assert solution.status == "converged"
    # Rounding errors are divided by the constant as well.
    assert 1e-14 < solution.certificate.state_residual <= 1e-8
    assert solution.certificate.adjoint_residual <= 1e-8


def test_where_the_gram_matrix_is_the_derivative_no_solves_are_spent() -> None:
    built = problem({"mesh.cells": [8, 8]})
    u, v = built.start()
    before = built.counts.solves
    assert built.jacobian_kind.gram
    found = estimated(built, u, v, UNKNOWN, lambda: pytest.fail("asked for factors"))
    assert found.value == 1.0 and found.known and built.counts.solves == before


def test_the_constant_is_renewed_where_the_derivative_has_changed_only() -> None:
    built = problem(CASES["semilinear"])
    u, v, _, first = solved(built)
    near, far = 1.001 * u, 3.0 * u
    assert estimated(built, near, v, first, lambda: pytest.fail("asked for factors")) is first
    before = built.counts.solves
    again = estimated(built, far, v, first, lambda: built.state_factors(far, v))
    assert again is not first
    assert built.counts.solves - before <= 6
    beta = singular_values(*dense(built, far, v))[-1]
    assert 0.8 * beta <= again.value <= 1.15 * beta


def test_a_change_of_the_worst_mode_is_found() -> None:
    """The control moves from one resonance to the next, where the singular vector of the first one is useless."""

    def at(square: float) -> PDEProblem:
        pde = {"kind": "semilinear", "nonlinearity": f"-{square}*u", "source": "1 + x*y", "boundary": DIRICHLET}
        return problem({"pde": pde, "mesh.cells": [12, 12]})

    u, v, _, known = solved(at(20.3))
    other = at(51.4)
    found = estimated(other, u, v, known, lambda: other.state_factors(u, v))
    beta = singular_values(*dense(other, u, v))[-1]
    assert beta < 3e-2 and 0.8 * beta <= found.value <= 1.15 * beta


def test_a_derivative_that_is_singular_is_an_error_of_the_step() -> None:
    built = problem({"mesh.cells": [8, 8], "inner.model": "residual", "pde.reaction": 1.0})

    class Broken:
        def solve(self, b: Tensor) -> Tensor:
            return b * float("inf")

        solve_transposed = solve

    u, v = built.start()
    with pytest.raises(SingularMatrixError, match="singular in double precision"):
        estimated(built, u, v, UNKNOWN, Broken)


@pytest.mark.parametrize("case", ["resonance", "dominant advection", "conductivity", "semilinear"])
def test_both_methods_report_the_same_errors(case: str) -> None:
    """The solution of the Fisher system has the error of its adjoint variable."""
    built = problem(CASES[case])
    exact_u, v, p, stability = solved(built, case)
    u = built.start()[0]
    oracle = NHGD(InnerOptions(), Factored(), HypergradientOptions())
    evaluation, state = oracle.evaluate(built, v, oracle.init(built, u, v), Accuracy(1e-10, 1e-10))
    assert evaluation.finite and state.p is not None
    assert state.stability.value == pytest.approx(stability.value, rel=0.1)
    bound = state_error(built, exact_u, v, built.residual(exact_u, v), 0.0, stability, 0.0)[1]
    inverse = Factored().init(built, exact_u, v)
    found = hypergradient(built, exact_u, v, inverse, None, None, bound=bound)
    rough = found.q + 1e-4 * float(found.q.abs().max()) * normal(seeded(3), *u.shape)
    g, _ = built.outer_derivatives(exact_u, v)
    reported = bound.of_solution(g, rough, g - built.hessian_product(exact_u, v, rough), 0.0)
    own = built.adjoint_state(exact_u, v, rough)
    assert bound.metric.norm(own - p) / bound.metric.norm(own) <= 1.15 * reported
    direct = bound.of_adjoint(g, own, g - built.state_product_transposed(exact_u, v, own), 0.0)
    assert reported == pytest.approx(direct, rel=1e-3)


def test_eigenvalues_of_largest_modulus_are_found_with_either_sign() -> None:
    gram = spd(30, 1e2, seeded(4))
    metric = riesz(gram)
    axes = torch.linalg.solve_triangular(
        torch.linalg.cholesky(gram).T, torch.linalg.qr(normal(seeded(5), 30, 30)).Q, upper=True
    )
    for values in (torch.linspace(-9.0, 5.0, 30), torch.linspace(-2.0, 7.0, 30)):
        weights = values.double()

        def operator(x: Tensor, weights: Tensor = weights) -> Tensor:
            return (x @ gram @ axes) * weights @ axes.T

        found, vector, steps = largest_eigenpair(operator, metric, normal(seeded(6), 1, 30), [1e-8] * 30)
        assert found == pytest.approx(float(weights.abs().max()), rel=1e-6)
        assert metric.norm(operator(vector)) == pytest.approx(found, rel=1e-3) and steps <= 30
