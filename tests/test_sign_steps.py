"""Sign steps: every step by hand, and what follows from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.outer.base import Feasible
from nhgd_pde.engine.outer.reduced_objective import Evaluation, failed_evaluation
from nhgd_pde.engine.outer.sign import SignSteps
from nhgd_pde.linalg.riesz import diagonal_riesz_map
from nhgd_pde.linalg.sparse import SparseMatrix


def evaluation(v: Tensor, derivative: Tensor, value: float = 0.0) -> Evaluation:
    return Evaluation(v, value, derivative, derivative, 0.0, 0.0, 0.0)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def space(size: int) -> Feasible:
    identity = SparseMatrix(sp.identity(size, format="csr"), symmetric=True)
    return Feasible(diagonal_riesz_map(torch.ones(size, dtype=torch.float64), identity))


def test_a_step_is_halved_where_its_sign_changes_and_nowhere_else() -> None:
    method, at = SignSteps(step=1.0, decay=0.5), space(4)
    state = method.init(at, evaluation(numbers(0, 0, 0, 0), numbers(3, -1e-9, 0, 5)))
    v, state = method.propose(at, state)
    assert v.tolist() == [-1, 1, 0, -1]
    state = method.update(at, state, evaluation(v, numbers(-2, -7, 4, 0)))
    assert state.accepted and state.lengths.tolist() == [0.5, 1, 1, 1]
    v, state = method.propose(at, state)
    assert v.tolist() == [-0.5, 2, -1, -1]
    # After a derivative of zero the next sign is no change.
    state = method.update(at, state, evaluation(v, numbers(1, 1, 4, -9)))
    assert state.lengths.tolist() == [0.25, 0.5, 1, 1]


def test_a_step_to_where_nothing_is_finite_is_taken_back_and_halved() -> None:
    method, at = SignSteps(step=1.0), space(2)
    state = method.init(at, evaluation(numbers(0, 0), numbers(1, -1)))
    v, state = method.propose(at, state)
    state = method.update(at, state, failed_evaluation(v, "no state"))
    assert not state.accepted and state.best.v.tolist() == [0, 0]
    assert method.propose(at, state)[0].tolist() == [-0.5, 0.5]


def test_every_component_of_a_separable_function_is_bracketed() -> None:
    """|v_i - w_i| is at most twice the step once its sign has changed, whatever the curvatures."""
    wanted, curvature = numbers(0.37, -2.11, 1.0, 0.0), numbers(1e-12, 1.0, 1e12, 3.0)
    method, at = SignSteps(), space(4)

    def at_point(v: Tensor) -> Evaluation:
        return evaluation(v, curvature * (v - wanted))

    state = method.init(at, at_point(numbers(0, 0, 0, 0)))
    for _ in range(70):
        v, state = method.propose(at, state)
        state = method.update(at, state, at_point(v))
    changed = state.lengths < 0.1
    assert changed[:2].all()
    gap = (state.best.v - wanted).abs()
    assert bool((gap <= 2.0 * state.lengths + 1e-12).all())
    assert float(gap.max()) < 1e-6


def test_steps_end_at_bounds() -> None:
    method, at = SignSteps(step=1.0), replace(space(2), bounds=(numbers(-0.3, -5), numbers(5, 0.2)))
    state = method.init(at, evaluation(numbers(0, 0), numbers(1, -1)))
    assert method.propose(at, state)[0].tolist() == [-0.3, 0.2]


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_unit_of_the_objective_does_not_matter(factor: float) -> None:
    def solved(times: float) -> nhgd.Solution:
        more = {
            "objective": [
                {"kind": "tracking", "target": "sin(pi*x)", "weight": times},
                {"kind": "regularisation", "weight": 0.1 * times},
            ],
            "outer.method": "sign",
            "outer.rtol": 1e-3,
            "mesh.cells": 8,
            "time.steps": 20,
        }
        return nhgd.solve(nhgd.load("problems/heat_windows_fds.yaml", more))

    ours, base = solved(factor), solved(1.0)
    assert ours.status == base.status == "converged"
    assert ours.control.tolist() == pytest.approx(base.control.tolist(), abs=1e-12)


@pytest.mark.parametrize("method", ["nhgd", "adjoint", "fds"])
def test_every_method_takes_sign_steps(method: str) -> None:
    more = {"method": method, "outer": {"method": "sign", "step": 0.2, "decay": 0.4, "rtol": 1e-3}}
    found = nhgd.solve(nhgd.load("problems/heat_windows_fds.yaml", {**more, "mesh.cells": 8, "time.steps": 20}))
    assert found.status == "converged", found.message
