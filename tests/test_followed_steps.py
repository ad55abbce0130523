"""L-BFGS on quadratic problems: trial points follow from products with the Hessian, and the last ones are evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from bilevel_problems import LeastSquares, diagonal_riesz, least_squares
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.inner_loop import InnerOptions
from nhgd_pde.engine.loop import Iterate, Minimum, Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Oracle, Response
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.methods.adjoint import Adjoint

NATURAL = NHGD(InnerOptions(), Factored(), HypergradientOptions())
GOAL = 1e-9


@dataclass(frozen=True)
class Evaluating(Adjoint):
    """The adjoint method without knowledge of quadratic problems: every trial point is evaluated."""

    @property
    def follows(self) -> bool:
        return False


@dataclass(frozen=True)
class Rough(Adjoint):
    """Responses with a relative error."""

    error: float = 0.0

    def response(self, *given: Any) -> Response:
        exact = super().response(*given)
        return Response(*(getattr(exact, name) * (1.0 + self.error) for name in Response.__dataclass_fields__))


def problem(bounded: bool, sparse: bool) -> LeastSquares:
    found = least_squares(3, n=20, p=40, weight=1e-3)
    if bounded or sparse:
        found.outer_metric = diagonal_riesz(torch.linspace(0.5, 2.0, 40, dtype=torch.float64))
    if bounded:
        limit = torch.full((40,), 0.3, dtype=torch.float64)
        found.bounds = (-limit, limit)
    if sparse:
        found.l1_weights = torch.full((40,), 0.05, dtype=torch.float64)  # type: ignore[attr-defined]
    return found


def run(oracle: Oracle, bounded: bool = False, sparse: bool = False) -> tuple[Minimum, list[Iterate]]:
    told: list[Iterate] = []
    return minimise(problem(bounded, sparse), oracle, LBFGS(), Stopping(rtol=GOAL), told.append), told


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("oracle", [Adjoint(), NATURAL], ids=["adjoint", "nhgd"])
@pytest.mark.parametrize(("bounded", "sparse"), [(False, False), (True, False), (False, True), (True, True)])
def test_the_iterates_are_those_of_evaluations(oracle: Oracle, bounded: bool, sparse: bool) -> None:
    followed, steps = run(oracle, bounded, sparse)
    evaluated, others = run(Evaluating(), bounded, sparse)
    assert followed.status == evaluated.status == "converged"
    # Rounding errors grow from step to step; the first steps are the same.
    for mine, other in zip(steps[:6], others[:6], strict=True):
        assert distance(mine.evaluation.v, other.evaluation.v) <= 1e-8 if mine.iteration else True
        assert mine.evaluation.value == pytest.approx(other.evaluation.value, rel=1e-10)
        assert mine.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-6)
    assert distance(followed.last.evaluation.v, evaluated.last.evaluation.v) <= 1e-6
    assert len(steps) > 6 and followed.last.evaluations <= 0.7 * evaluated.last.evaluations


@pytest.mark.parametrize("bounded", [True, False])
def test_the_last_points_are_evaluated(bounded: bool) -> None:
    found, told = run(Adjoint(), bounded)
    near = 30.0 * GOAL * found.first.gradient_norm
    assert found.last.evaluation.measured and not found.last.evaluation.blended
    for before, after in pairwise(told):
        if before.gradient_norm > near:
            # An iterate on which the run might end has been evaluated as well.
            ends = after.gradient_norm <= GOAL * found.first.gradient_norm
            assert ends or not after.evaluation.measured


@pytest.mark.parametrize("error", [1e-7, 1e-4])
@pytest.mark.parametrize("bounded", [True, False])
def test_errors_of_the_products_do_not_move_the_optimum(bounded: bool, error: float) -> None:
    found, _ = run(Rough(error=error), bounded)
    exact, _ = run(Evaluating(), bounded)
    assert found.status == "converged" and found.last.evaluation.measured
    assert distance(found.last.evaluation.v, exact.last.evaluation.v) <= 1e-6


def test_a_run_that_is_cut_off_ends_with_an_evaluation() -> None:
    told: list[Iterate] = []
    ended = minimise(problem(True, False), Adjoint(), LBFGS(), Stopping(rtol=GOAL, iterations=3), told.append)
    assert ended.status == "stopped" and ended.last.iteration == 3
    assert not told[-1].evaluation.measured and ended.last.evaluation.measured
    assert torch.equal(told[-1].evaluation.v, ended.last.evaluation.v)


def test_a_run_of_a_problem_file_is_resumed_in_the_middle_of_followed_steps(tmp_path: Any) -> None:
    source, settings = "problems/poisson_bounds.yaml", {"mesh.cells": [16, 16], "output.checkpoint": 1}
    whole = nhgd.solve(nhgd.load(source, settings))
    cut = nhgd.load(source, {**settings, "outer.iterations": 5})
    nhgd.solve(cut, output=tmp_path / "run")
    again = nhgd.solve(nhgd.load(source, settings), output=tmp_path / "run", resume=True)
    assert again.status == "converged" and np.array_equal(again.control, whole.control)
