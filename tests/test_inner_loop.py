from __future__ import annotations

import math
from dataclasses import dataclass, fields
from itertools import pairwise

import pytest
import torch
from bilevel_problems import Cubic, Explicit, cubic_problem, least_squares, normal, seeded
from torch import Tensor

from nhgd_pde.engine.bilevel import InnerBatch, Sample, inner_spectrum
from nhgd_pde.engine.curvature.base import Curvature
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.inner_loop import InnerOptions, InnerResult, InnerState, solve_inner


@dataclass
class Loop:
    """Inner loops of one problem at one outer point, each of which starts where the last one ended."""

    problem: Explicit
    v: Tensor
    curvature: Curvature
    seed: int = 0

    def __post_init__(self) -> None:
        u, _ = self.problem.start()
        self.state = InnerState(u, self.curvature.init(self.problem, u, self.v))
        self.generator = seeded(self.seed)
        self.exact = self.problem.solution(self.v)

    def run(self, options: InnerOptions, tolerance: float = 0.0) -> InnerResult:
        result = solve_inner(self.problem, self.v, self.state, self.curvature, options, tolerance, self.generator)
        self.state = result.state
        return result

    @property
    def error(self) -> float:
        metric = self.problem.inner_metric
        return metric.norm(self.state.u - self.exact) / metric.norm(self.exact)


def outer_point(problem: Explicit, size: float = 1.0) -> Tensor:
    return size * normal(seeded(7), problem.outer_size)


# Expected steps


def test_expected_steps_with_a_fresh_inverse_converge_quadratically() -> None:
    problem = cubic_problem()
    loop = Loop(problem, outer_point(problem), Factored())
    errors = []
    for _ in range(8):
        state = loop.state
        fresh = loop.curvature.refresh(state.curvature, problem, state.u, loop.v)
        loop.state = InnerState(state.u, fresh)
        loop.run(InnerOptions(steps=1))
        errors.append(loop.error)
    inside = [(a, b) for a, b in pairwise(errors) if 1e-7 < a < 0.1]
    assert len(inside) >= 2 and errors[-1] < 1e-14
    assert all(b < 3.0 * a**2 for a, b in inside)


@pytest.mark.parametrize("scenarios", [1, 3])
def test_expected_steps_reach_any_tolerance_and_certify_it(scenarios: int) -> None:
    problem = cubic_problem(2, scenarios)
    for tolerance in (1e-2, 1e-6, 1e-12):
        loop = Loop(problem, outer_point(problem, 0.5), Factored())
        result = loop.run(InnerOptions(steps=200), tolerance)
        assert result.converged and result.error <= tolerance and result.message == ""
        # |u - u*|_K <= |R|_{K^-1}, because K <= J.
        assert loop.error <= 1.1 * result.error + 1e-14


def test_one_step_solves_an_affine_problem_and_no_factor_is_renewed() -> None:
    problem = least_squares()
    loop = Loop(problem, outer_point(problem), Factored())
    result = loop.run(InnerOptions(), 1e-10)
    assert result.converged and result.state.steps == 1 and loop.error < 1e-12
    assert problem.counts.factorisations == 1


def test_a_lagged_inverse_is_renewed_when_steps_no_longer_contract() -> None:
    problem = cubic_problem()
    loop = Loop(problem, outer_point(problem), Factored())
    loop.run(InnerOptions(), 1e-12)
    assert problem.counts.factorisations > 2
    # Near the point where the inverse was made, it is used unchanged.
    before = problem.counts.factorisations
    loop.v = loop.v + 1e-3 * normal(seeded(8), problem.outer_size)
    assert loop.run(InnerOptions(), 1e-10).converged
    assert problem.counts.factorisations == before
    # Far away it is renewed: this takes at least one factorisation more, and fewer steps.
    loop.v = 4.0 * loop.v
    assert loop.run(InnerOptions(), 1e-10).converged
    assert problem.counts.factorisations > before


@dataclass(eq=False)
class ArcTangent(Cubic):
    """R = 0.02 K u + atan(4 u) - C v: Newton's method overshoots from afar."""

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        return 0.02 * u @ self.matrix.T + torch.atan(4.0 * u) + self.control @ v

    def jacobian(self, u: Tensor) -> Tensor:
        return 0.02 * self.matrix + torch.diag_embed(4.0 / (1.0 + 16.0 * u**2))


def overshooting(start: float) -> ArcTangent:
    base = cubic_problem(3)
    return ArcTangent(
        base.inner_metric,
        base.outer_metric,
        base.control,
        base.target,
        base.weight,
        matrix=base.matrix,
        u0=torch.full_like(base.target, start),
    )


def test_steps_from_a_bad_start_are_damped() -> None:
    problem = overshooting(2.0)
    v = 0.01 * outer_point(problem)
    u, metric = problem.start()[0], problem.inner_metric
    newton = u - torch.linalg.solve(problem.jacobian(u), problem.residual(u, v)[..., None])[..., 0]
    assert metric.dual_norm(problem.residual(newton, v)) > metric.dual_norm(problem.residual(u, v))
    loop = Loop(problem, v, Factored())
    result = loop.run(InnerOptions(steps=100), 1e-10)
    assert result.converged, result.message
    assert metric.dual_norm(problem.residual(loop.state.u, v)) < 1e-10


def test_a_failure_comes_back_as_a_sentence() -> None:
    problem = cubic_problem()
    loop = Loop(problem, outer_point(problem), Factored())
    short = loop.run(InnerOptions(steps=2), 1e-12)
    assert not short.converged and short.error > 1e-12
    assert short.message == f"2 inner steps left a relative residual of {short.error:.1e}"
    # The residual is only rounding, so that no step reduces it.
    loop.run(InnerOptions(), 1e-12)
    stuck = loop.run(InnerOptions(), 1e-30)
    assert not stuck.converged and stuck.error < 1e-13
    assert stuck.message == f"no step reduces the inner residual {stuck.error:.1e}"
    missing = Loop(problem, torch.full_like(loop.v, math.nan), Factored()).run(InnerOptions(), 1e-10)
    assert not missing.converged and "no step reduces" in missing.message


# Sampled steps


def mean_square_contraction(problem: Explicit, options: InnerOptions, steps: int, seeds: int) -> float:
    """The factor by which the mean over seeds of |u - u*|_H^2 decreases in each step."""
    v = outer_point(problem)
    matrix = problem.hessian(problem.solution(v), v)
    squares = torch.zeros(2, dtype=torch.float64)
    for seed in range(seeds):
        loop = Loop(problem, v, Factored(), seed)
        for k in range(2):
            error = (loop.state.u - loop.exact).reshape(-1)
            squares[k] += error @ matrix @ error
            loop.run(InnerOptions(options.tests, steps, optimiser=options.optimiser))
    return float(squares[1] / squares[0]) ** (1.0 / steps)


@pytest.mark.parametrize("tests", [1, 4, 16])
def test_natural_steps_with_the_exact_inverse_contract_as_predicted(tests: int) -> None:
    problem = cubic_problem(cubic=0.0, n=8)
    measured = mean_square_contraction(problem, InnerOptions(tests), steps=4, seeds=150)
    assert 1.0 - measured == pytest.approx(tests / (tests + 8 + 1), rel=0.15)


@pytest.mark.parametrize("curvature", [Dense(), Dense("identity"), Dense(forgetting=0.05)])
@pytest.mark.parametrize("problem", [least_squares(1, 2), cubic_problem(), cubic_problem(1, 2, cubic=0.02)])
def test_natural_steps_with_a_sampled_inverse_end_at_the_tolerance(problem: Explicit, curvature: Dense) -> None:
    loop = Loop(problem, outer_point(problem, 0.5), curvature)
    result = loop.run(InnerOptions(tests=16, steps=600), 1e-8)
    assert loop.error < 1e-7
    assert result.state.steps < 600
    # The loop ends with the estimate from its last batch, without the step of this batch.
    assert result.error < 1e-7 and result.converged == (result.error <= 1e-8) == (result.message == "")


@pytest.mark.parametrize("size", [3.0, 30.0])
def test_natural_steps_converge_although_the_fisher_information_grows(size: float) -> None:
    """J^T K^-1 J grows by up to 500 from start to solution: steps along the first inverse would diverge."""
    problem = cubic_problem()
    loop = Loop(problem, outer_point(problem, size), Dense(forgetting=0.1))
    matrix = problem.hessian(loop.exact, loop.v)
    growth = torch.linalg.eigvals(loop.state.curvature.inverse @ matrix).real.max()
    assert growth > 5.0
    loop.run(InnerOptions(tests=16, steps=800), 1e-6)
    assert loop.error < 1e-5


def test_a_diverging_run_is_reported() -> None:
    problem = cubic_problem(cubic=0.0)
    loop = Loop(problem, outer_point(problem), Dense())
    before = loop.state.curvature.inverse
    result = loop.run(InnerOptions(tests=4, steps=2000, optimiser="sgd", schedule=100.0))
    assert not result.converged and math.isnan(result.error)
    assert result.message == "the sampled inner steps diverged"
    assert torch.isfinite(before).all()


@pytest.mark.parametrize("problem", [least_squares(), cubic_problem(cubic=0.0)])
def test_sgd_with_the_schedule_of_the_paper_decreases_the_error(problem: Explicit) -> None:
    loop = Loop(problem, outer_point(problem), Dense())
    errors = [loop.error]
    for _ in range(4):
        loop.run(InnerOptions(tests=16, steps=300, optimiser="sgd"))
        errors.append(loop.error)
    assert all(b < a for a, b in pairwise(errors))
    assert errors[-1] < 0.5 * errors[0]
    assert loop.state.steps == 1200 and loop.state.spectrum is not None


def test_the_schedule_uses_the_ends_of_the_inner_spectrum() -> None:
    problem = least_squares(n=12)
    u, v = problem.start()
    gram = problem.inner_metric.covector(torch.eye(12, dtype=torch.float64))
    values = torch.linalg.eigvals(torch.linalg.solve(gram, problem.hessian(u, v))).real
    smallest, largest = inner_spectrum(problem, u, v)
    assert smallest == pytest.approx(float(values.min()), rel=0.05)
    assert largest == pytest.approx(float(values.max()), rel=1e-6)
    # The first step of `sgd`: mu = spectrum[0], L = spectrum[1] over the stable step m / (m + n + 1) of a batch.
    small = cubic_problem(cubic=0.0)
    loop = Loop(small, outer_point(small), Dense())
    batch = small.batch(loop.state.u, loop.v, small.sample(16, seeded(0)))
    result = loop.run(InnerOptions(tests=16, steps=1, optimiser="sgd"))
    mu, smoothness = result.state.spectrum[0], result.state.spectrum[1] * 25 / 16
    expected = -4.0 / (mu * (1 + 8.0 * (smoothness / mu) ** 2)) * small.inner_metric.gradient(batch.gradient)
    assert torch.allclose(loop.state.u, expected, rtol=1e-12)


def test_sampled_steps_end_as_soon_as_the_tolerance_is_reached() -> None:
    problem = cubic_problem()
    loop = Loop(problem, outer_point(problem), Dense())
    coarse = loop.run(InnerOptions(tests=32, steps=400), 1e-3).state.steps
    fine = loop.run(InnerOptions(tests=32, steps=400), 1e-9).state.steps - coarse
    assert 1 <= coarse < 400 and 1 <= fine < 400
    assert loop.run(InnerOptions(tests=32, steps=400), 1e-3).state.steps == coarse + fine + 1
    # u = 0 is the solution for v = 0, which one batch shows.
    rest = Loop(problem, torch.zeros_like(loop.v), Dense()).run(InnerOptions(tests=32, steps=400), 1e-9)
    assert rest.converged and rest.error == 0.0 and rest.state.steps == 1


@pytest.mark.parametrize("optimiser", ["natural", "sgd"])
def test_the_same_seed_gives_the_same_numbers(optimiser: str) -> None:
    problem = cubic_problem(scenarios=2)
    ends = []
    for seed in (3, 3, 4):
        loop = Loop(problem, outer_point(problem, 0.5), Dense(), seed)
        loop.run(InnerOptions(tests=8, steps=20, optimiser=optimiser))
        ends.append((loop.state.u, loop.state.curvature.inverse))
    assert torch.equal(ends[0][0], ends[1][0]) and torch.equal(ends[0][1], ends[1][1])
    assert not torch.equal(ends[0][0], ends[2][0])


@dataclass(eq=False)
class Spoilt(Cubic):
    """A problem whose third batch has scores that are NaN."""

    drawn: int = 0

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        found = super().batch(u, v, sample)
        self.drawn += 1
        if self.drawn == 3:
            found.scores[2, 1] = math.nan
        return found


def test_scores_that_are_not_finite_end_the_loop_before_they_reach_the_inverse() -> None:
    sound = cubic_problem()
    problem = Spoilt(**{each.name: getattr(sound, each.name) for each in fields(sound)})
    loop = Loop(problem, outer_point(problem), Dense())
    result = loop.run(InnerOptions(tests=4, steps=10))
    assert math.isnan(result.error) and not result.converged
    assert "1 of 32 numbers in the scores of inner step 3 are not finite" in result.message
    assert torch.isfinite(result.state.curvature.inverse).all() and torch.isfinite(result.state.u).all()
    assert result.state.curvature.samples == 8
