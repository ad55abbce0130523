"""NSBO-SAGA and MA-NSBO-SAGA on finite sums: means, vanishing variance, limits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from bilevel_problems import LeastSquares, least_squares, normal, riesz, seeded
from hypergradients import EXACT, at, dense, gap, solved
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.bilevel import InnerBatch, Sample
from nhgd_pde.engine.finite_sums import FiniteSumProblem, InnerTerm, OuterTerm, partition
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.outer.gradient import GradientDescent
from nhgd_pde.methods.nbo import NBOGD, NSBOSGD
from nhgd_pde.methods.nsbo_saga import MANSBOSAGA, NSBOSAGA, TabledState
from nhgd_pde.methods.saba import SABA
from nhgd_pde.methods.saga_table import Table
from nhgd_pde.tasks.classification import Classification


class Sums(LeastSquares):
    """Least squares as the mean of 16 terms, those of the rows, and the tracking of u as the mean of n terms."""

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        """A sample without numbers of its own has the numbers of its rows; other samples draw them."""
        k = self.design.shape[1]
        chosen = (sample.tests[0, :, 0] * k).long()
        design, mixing, data = (k / len(chosen) * self.design[0, chosen]), self.mixing[0, chosen], self.data[0, chosen]
        gradient = (self.design[0, chosen] @ u[0] + mixing @ v - data) @ design
        return InnerBatch(
            gradient[None],
            design.T,
            float(gradient.norm()),
            0.1,
            hessian=lambda w: w @ design.T @ self.design[0, chosen],
            cross=lambda q: (design @ q[0]) @ mixing,
        )

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        return Sample(torch.rand(1, count, 1, generator=generator, dtype=torch.float64))

    def inner_terms(self, size: int) -> tuple[InnerTerm, ...]:
        k = self.design.shape[1]
        return tuple(
            InnerTerm(Sample(((numbers.double() + 0.5) / k)[None, :, None]), factor)
            for numbers, factor in partition(k, size)
        )

    def outer_terms(self, size: int) -> tuple[OuterTerm, ...]:
        return tuple(OuterTerm(*part) for part in partition(self.inner_shape[1], size))

    def outer_term_derivatives(self, u: Tensor, v: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        inner, outer = self.outer_derivatives(u, v)
        some = torch.zeros_like(inner)
        some[0, numbers] = inner[0, numbers] * inner.shape[1] / len(numbers)
        return some, outer


def sums() -> Sums:
    """In the inner product of the Hessian, in which its terms have the eigenvalues 0 to 4."""
    plain = least_squares(weight=1.0)
    fields = {name: value for name, value in vars(plain).items() if name != "hessians"}
    return Sums(**{**fields, "inner_metric": riesz(plain.hessians[0])})


STEP = 0.08


def test_the_terms_of_a_sum_have_its_mean() -> None:
    """Their factors count parts of different sizes."""
    from test_tasks import _point, _small

    for problem in (sums(), _small(drawn=True, scores="observed")):
        assert isinstance(problem, FiniteSumProblem)
        u, v = _point(problem) if isinstance(problem, Classification) else solved(problem)[::-1]
        u, q = u + 0.1, normal(seeded(0), *u.shape)
        found: Any = torch.zeros(2, *u.shape, dtype=u.dtype)
        cross, terms = torch.zeros_like(v), problem.inner_terms(7)
        for term in terms:
            batch = problem.batch(u, v, term.sample)
            found = found + term.factor / len(terms) * torch.stack([batch.gradient, batch.hessian(q)])
            cross = cross + term.factor / len(terms) * batch.cross(q)
        torch.testing.assert_close(found[0], problem.inner_gradient(u, v), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found[1], problem.hessian_product(u, v, q), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(cross, problem.cross_product(u, v, q), rtol=1e-10, atol=1e-12)
        outer = problem.outer_terms(3)
        assert len({term.factor for term in (*terms, *outer)}) > 1
        parts = [problem.outer_term_derivatives(u, v, term.numbers) for term in outer]
        for k, whole in enumerate(problem.outer_derivatives(u, v)):
            mean = sum(term.factor / len(outer) * part[k] for term, part in zip(outer, parts, strict=True))
            torch.testing.assert_close(mean, whole, rtol=1e-10, atol=1e-12)


def test_the_estimates_of_a_table_are_unbiased_and_its_mean_is_kept() -> None:
    generator = seeded(1)
    table, now = (Table.of([(normal(generator, 3),) for _ in range(4)]) for _ in range(2))
    estimates = torch.stack([table.seen(i, now.rows[i])[0][0] for i in range(4)])
    torch.testing.assert_close(estimates.mean(0), now.mean[0], rtol=1e-12, atol=1e-12)
    after = table.seen(2, now.rows[2])[1]
    torch.testing.assert_close(after.mean[0], torch.stack([row[0] for row in after.rows]).mean(0))


def test_nsbo_saga_has_the_mean_of_nbo_gd_whatever_its_table_holds() -> None:
    problem = sums()
    v, u = solved(problem)
    near = u + 0.1 * normal(seeded(5), *u.shape)
    step = 0.1 / float(dense(problem, near, v)[2][-1])
    oracle = NSBOSAGA(tests=3, steps=4, linear_step=step)
    # Terms of an earlier point.
    state = oracle.init(problem, u + normal(seeded(6), *u.shape), v + normal(seeded(7), len(v)))
    rows = []
    for seed in range(600):
        evaluation, after = oracle.evaluate(problem, v, replace(state, u=near, generator=seeded(seed)), EXACT)
        rows.append(torch.cat([after.u[0], after.q[0], evaluation.derivative]))
    mean, deviation = torch.stack(rows).mean(0), torch.stack(rows).std(0) / math.sqrt(600)

    def expected(steps: int) -> Tensor:
        evaluation, after = at(problem, NBOGD(steps=steps, linear_step=step), v, near)
        return torch.cat([after.u[0], after.q[0], evaluation.derivative])

    assert float(((mean - expected(4)) / deviation).abs().max()) < 4.5
    assert float(((mean - expected(3)) / deviation).abs().max()) > 9.0


def errors(oracle: Any) -> Iterator[tuple[float, float]]:
    """Relative errors of the hypergradient and of u at one v, evaluation by evaluation."""
    problem = sums()
    v, u = solved(problem)
    exact = problem.exact(v)[1]
    state = oracle.init(problem, torch.zeros_like(u), v)
    while True:
        evaluation, state = oracle.evaluate(problem, v, state, EXACT)
        found = float((evaluation.derivative - exact).norm() / exact.norm())
        yield found, float((state.u - u).norm() / u.norm())


@pytest.mark.parametrize("kind", [NSBOSAGA, MANSBOSAGA])
def test_at_one_point_the_hypergradient_converges_to_the_exact_one(kind: type[NSBOSAGA]) -> None:
    """Where the stochastic steps of NSBO-SGD, of the same length, end in noise."""
    options = {"tests": 4, "steps": 9, "linear_step": STEP}
    *_, (derivative, state) = islice(errors(kind(**options)), 150)
    *noisy, _ = islice(errors(NSBOSGD(**options)), 150)
    floor = sorted(error for error, _ in noisy[75:])[0]
    # The moving average forgets its first values at the rate 0.9.
    assert derivative < (1e-12 if kind is NSBOSAGA else 1e-6) and state < 1e-12
    assert floor > 0.02


def test_no_steps_are_one_step_of_saba() -> None:
    """T = 0: u and q take one gradient step each, with the estimates of SABA."""
    problem = sums()
    v, u = solved(problem)
    state: Any = NSBOSAGA(tests=4, steps=0, linear_step=STEP).init(problem, u + 0.3, v)
    state = replace(state, q=normal(seeded(8), *u.shape), outer=(), target=None)
    after = NSBOSAGA(tests=4, steps=0, linear_step=STEP).evaluate(problem, v, state, EXACT)[1]
    saba: Any = SABA(tests=4, warm_up=0, inner_step=STEP, linear_step=STEP)
    other = replace(saba.init(problem, u + 0.3, v), q=state.q, generator=seeded(0))
    first = NSBOSAGA(tests=4, steps=0, linear_step=STEP).evaluate(
        problem, v, replace(state, generator=seeded(0)), EXACT
    )[1]
    moved = saba.evaluate(problem, v, other, EXACT)[1]
    torch.testing.assert_close(first.u, moved.u, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(first.q, moved.q, rtol=1e-12, atol=1e-12)
    assert isinstance(after, TabledState)


def test_the_optimum_is_exact_and_that_of_nsbo_sgd_is_not() -> None:
    problem, gaps = sums(), {}
    for kind in (NSBOSAGA, MANSBOSAGA, NSBOSGD):
        oracle = kind(tests=4, steps=9, linear_step=STEP)
        found = minimise(problem, oracle, GradientDescent(step=0.03), Stopping(400, 0.0, change=None))
        gaps[kind] = gap(problem, found.last.evaluation.v)
    assert gaps[NSBOSAGA] < 1e-4 and gaps[MANSBOSAGA] < 1e-4, gaps
    assert gaps[NSBOSGD] > 1e-3, gaps


def test_the_moving_average_begins_with_the_first_hypergradient() -> None:
    problem = sums()
    v, u = solved(problem)
    plain, averaged = NSBOSAGA(tests=4, steps=3), MANSBOSAGA(tests=4, steps=3, weight=0.25)
    one, two = plain.init(problem, u, v), averaged.init(problem, u, v)
    mean: Tensor | None = None
    for _ in range(3):
        mine, one = plain.evaluate(problem, v, one, EXACT)
        theirs, two = averaged.evaluate(problem, v, two, EXACT)
        mean = mine.derivative if mean is None else 0.75 * mean + 0.25 * mine.derivative
        torch.testing.assert_close(theirs.derivative, mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["nsbo_saga", "ma_nsbo_saga"])
def test_files_choose_the_methods(method: str) -> None:
    """In a task with minibatches of its examples, and for an equation with a pool of samples."""
    options = {"method": method, "inner.tests": 32, "outer.iterations": 3, "hypergradient.steps": 4}
    task = nhgd.load("problems/digits_cleaning.yaml", {**options, "task.training": 100, "task.validation": 50})
    assert task.bilevel.drawn  # type: ignore[attr-defined]
    solution = nhgd.solve(task)
    assert solution.status == "stopped" and solution.objective < solution.history[0]["objective"]  # type: ignore[operator]
    small = nhgd.load("problems/poisson_control.yaml", {**options, "mesh.cells": [4, 4], "outer.step": 1e-3})
    assert nhgd.solve(small).status == "stopped"
