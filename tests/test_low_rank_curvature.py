from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from bilevel_problems import LeastSquares, cubic_problem, least_squares, normal, riesz, seeded, spd
from torch import Tensor

from nhgd_pde.engine.bilevel import BilevelProblem
from nhgd_pde.engine.curvature.average import spectrum
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.curvature.low_rank import LowRank, LowRankState
from nhgd_pde.engine.inner_loop import InnerOptions, InnerState, solve_inner
from problems import problem as pde
from problems import relative


def full(problem: BilevelProblem, operator: object) -> Tensor:
    """The (d, d) matrix of a map of (S, n), column by column."""
    scenarios, n = problem.inner_shape
    columns = torch.eye(scenarios * n, dtype=torch.float64).reshape(-1, scenarios, n)
    return torch.stack([operator(column).reshape(-1) for column in columns], dim=1)  # type: ignore[operator]


def fed(options: LowRank, problem: BilevelProblem, batches: list[Tensor]) -> LowRankState:
    state = options.init(problem, *problem.start())
    for scores in batches:
        state = options.absorb(state, scores)
    return state


def drawn(problem: BilevelProblem, sizes: list[int], seed: int = 0) -> list[Tensor]:
    u, v = problem.start()
    generator = seeded(seed)
    return [problem.batch(u, v, problem.sample(size, generator)).scores for size in sizes]


def spiked(size: int, spikes: list[float]) -> LeastSquares:
    """F has the eigenvalues `spikes` and ones relative to the inner metric, in random directions."""
    problem = least_squares(0, 1, size)
    gram = problem.inner_metric.covector(torch.eye(size, dtype=torch.float64))
    root = torch.linalg.cholesky(gram)
    axes = torch.linalg.qr(normal(seeded(3), size, size)).Q
    values = torch.ones(size, dtype=torch.float64)
    values[: len(spikes)] = torch.tensor(spikes, dtype=torch.float64)
    problem.design = (root @ (axes * values.sqrt()) @ axes.T).T[None]
    k = problem.design.shape[1]
    problem.mixing, problem.data = problem.mixing[:, :k], problem.data[:, :k]
    problem.control = problem.design.mT @ problem.mixing
    return problem


@pytest.mark.parametrize("prior", ["riesz", "factored"])
@pytest.mark.parametrize(("weight", "forgetting"), [(7.5, None), (None, None), (7.5, 0.2)])
@pytest.mark.parametrize("scenarios", [1, 2])
def test_the_inverse_is_that_of_the_directly_summed_matrix(
    prior: str, weight: float | None, forgetting: float | None, scenarios: int
) -> None:
    """Nothing is cut off: there are as many directions as scores, then as many as unknowns."""
    problem = least_squares(2, scenarios, 40)
    d = 40 * scenarios
    options = LowRank(100, prior, weight, forgetting, significant=False)
    state = options.init(problem, *problem.start())
    expected = torch.linalg.inv(full(problem, state.solve))
    inverse = problem.inner_metric.gradient if prior == "riesz" else problem.fisher_factors(*problem.start()).solve
    assert relative(full(problem, state.solve), full(problem, inverse)) < 1e-12
    total = weight
    for scores in drawn(problem, [1, 3, 16, 5, 64]):
        count, before = scores.shape[1], state
        state = options.absorb(state, scores)
        if total is None:
            expected, total = state.scale * expected, state.prior_weight
        total += count
        beta = forgetting or count / total
        expected = (1.0 - beta) * expected + beta / count * scores @ scores.T
        assert relative(full(problem, state.solve), torch.linalg.inv(expected)) < 1e-10
        assert state.vectors.shape == state.images.shape == (d, min(before.samples + count, d))
    assert state.cut < 1e-10
    if prior == "riesz" and scenarios == 1 and forgetting is None:
        dense = Dense(prior_weight=weight)
        same = dense.init(problem, *problem.start())
        for scores in drawn(problem, [1, 3, 16, 5, 64]):
            same = dense.absorb(same, scores)
        assert relative(full(problem, state.solve), same.inverse) < 1e-10
        assert state.trust == pytest.approx(max(same.trust, state.trust)) and state.trust >= same.trust


def test_the_model_is_that_of_the_full_covariance_where_little_is_cut() -> None:
    """r + m directions at a time find the same leading eigenvalues as all scores at once."""
    problem = spiked(60, [400.0, 150.0, 80.0])
    batches = drawn(problem, [32] * 20)
    state = fed(LowRank(12), problem, batches)
    gram = problem.inner_metric.covector(torch.eye(60, dtype=torch.float64))
    root = torch.linalg.cholesky(gram)
    whitened = torch.linalg.solve_triangular(root, torch.cat(batches, 1), upper=False)
    values = torch.linalg.eigvalsh(whitened @ whitened.T / 640).flip(0)
    share = 1.0 - state.prior_share
    bulk, found = state.model
    assert len(found) == 3
    assert torch.allclose(state.values[:3] / share, values[:3], rtol=5e-3)
    # The trace does not change; the part outside the three directions is spread over the others.
    assert state.cut + float(state.values.sum()) == pytest.approx(share * float(values.sum()), rel=1e-12)
    prior = state.prior_share * state.scale
    assert bulk == pytest.approx(prior + share * float(values.sum() - state.values[:3].sum() / share) / 57, rel=1e-10)
    # The inverse is that of the model: c P and the eigenvectors on top.
    expected = bulk * gram
    for value, vector, length in zip(found, state.vectors.T, state.values, strict=False):
        expected = expected + (value - bulk) * torch.outer(vector, vector) / length
    assert relative(full(problem, state.solve), torch.linalg.inv(expected)) < 1e-10
    # The two factors belong to the same inverse.
    assert torch.allclose(gram @ state.images, state.vectors, atol=1e-10 * float(state.vectors.abs().max()))
    assert torch.allclose(state.vectors.T @ state.images, torch.diag(state.values), atol=1e-10 * float(values[0]))


def test_noise_alone_gives_no_correction() -> None:
    """The prior is right, so that hardly any direction is beyond the edge of the noise, for any number of samples."""
    problem = spiked(60, [])
    kept = []
    for seed in range(6):
        state = problem_state = LowRank(16).init(problem, *problem.start())
        for scores in drawn(problem, [16] * 30, seed):
            state = LowRank(16).absorb(state, scores)
            kept.append(len(state.model[1]))
        assert relative(full(problem, state.solve), full(problem, problem_state.solve)) < 0.05
    assert np.mean(kept) < 0.1
    # Without the edge all directions count, and the inverse is worse.
    loose = fed(LowRank(16, prior_weight=1.0, significant=False), problem, drawn(problem, [16] * 30))
    tight = fed(LowRank(16, prior_weight=1.0), problem, drawn(problem, [16] * 30))
    exact = torch.linalg.inv(problem.hessian(*problem.start()))
    assert relative(full(problem, tight.solve), exact) < 0.3 * relative(full(problem, loose.solve), exact)


def test_the_correction_helps_where_few_directions_matter() -> None:
    """With fewer samples than unknowns, the condition number of A F decides about conjugate gradients."""
    problem = spiked(120, [300.0, 200.0, 100.0, 60.0])
    batches = drawn(problem, [20] * 4)
    matrix = problem.hessian(*problem.start())

    def condition(inverse: Tensor) -> float:
        values = torch.linalg.eigvals(inverse @ matrix).real
        return float(values.max() / values.min())

    state = fed(LowRank(8), problem, batches)
    before = full(problem, problem.inner_metric.gradient)
    dense = Dense()
    same = dense.init(problem, *problem.start())
    for scores in batches:
        same = dense.absorb(same, scores)
    assert condition(before) == pytest.approx(300.0, rel=1e-6)
    assert condition(full(problem, state.solve)) < min(0.15 * condition(before), 0.5 * condition(same.inverse))


def test_a_batch_takes_one_solve_a_score_and_an_application_one_solve() -> None:
    problem = pde({"mesh.cells": [8, 8], "inner.model": "residual", "pde.conductivity": "1 + 3*x"})
    batches = drawn(problem, [16, 5])
    for prior in ("riesz", "factored"):
        options = LowRank(8, prior)
        state = options.init(problem, *problem.start())
        before = replace(problem.counts)
        for scores in batches:
            state = options.absorb(state, scores)
        # A factored application is a solve with J and one with its transpose.
        each = 1 if prior == "riesz" else 2
        assert (problem.counts - before).solves == 21 * each
        state.solve(problem.start()[0])
        assert (problem.counts - before).solves == 22 * each
        assert state.vectors.shape == state.images.shape == (49, 8)


def test_refresh_renews_a_factored_prior_and_keeps_the_correction() -> None:
    problem = cubic_problem(n=12)
    u, v = problem.start()
    there = u + 0.7
    options = LowRank(20, "factored", prior_weight=5.0, significant=False)
    state = options.init(problem, u, v)
    scores = problem.batch(u, v, problem.sample(10, seeded(0))).scores
    state = options.refresh(options.absorb(state, scores), problem, there, v)
    prior = torch.linalg.inv(full(problem, problem.fisher_factors(there, v).solve))
    expected = (5.0 * prior + scores @ scores.T) / 15.0
    assert relative(full(problem, state.solve), torch.linalg.inv(expected)) < 1e-10
    assert state.point is not None and torch.equal(state.point[0], there)
    assert LowRank().refresh(state, problem, u, v) is state


@pytest.mark.parametrize("prior", ["riesz", "factored"])
@pytest.mark.parametrize("scenarios", [1, 3])
def test_trust_bounds_the_largest_eigenvalue(prior: str, scenarios: int) -> None:
    problem = least_squares(1, scenarios, 30)
    matrix = problem.hessian(*problem.start())
    for options in (LowRank(8, prior), LowRank(8, prior, forgetting=0.1), LowRank(200, prior, significant=False)):
        state = options.init(problem, *problem.start())
        largest = torch.linalg.eigvals(full(problem, state.solve) @ matrix).real.max()
        assert state.trust * float(largest) == pytest.approx(1.0, rel=0.03)
        for k, scores in enumerate(drawn(problem, [16] * 40)):
            state = options.absorb(state, scores)
            if k % 8 == 7:
                largest = torch.linalg.eigvals(full(problem, state.solve) @ matrix).real.max()
                assert state.trust > 0.0 and state.trust * float(largest) < 1.15
    # All scores kept: as good as the dense inverse.
    if scenarios == 1:
        assert state.trust * float(largest) > 0.5


@pytest.mark.parametrize("prior", ["riesz", "factored"])
def test_the_spectrum_of_a_prior_known_by_its_inverse(prior: str) -> None:
    problem = least_squares(1, 1, 15)
    problem.inner_metric = riesz(spd(15, 50.0, seeded(8)))
    u, v = problem.start()
    inverse = problem.inner_metric.gradient if prior == "riesz" else problem.fisher_factors(u, v).solve
    exact = torch.linalg.eigvals(full(problem, inverse) @ problem.hessian(u, v)).real
    smallest, largest = spectrum(problem, u, v, inverse)
    assert largest == pytest.approx(float(exact.max()), rel=1e-6)
    assert smallest == pytest.approx(float(exact.min()), rel=1e-3)


@pytest.mark.parametrize(
    "curvature", [LowRank(4), LowRank(4, "factored"), LowRank(4, forgetting=0.05), LowRank(64, significant=False)]
)
@pytest.mark.parametrize("name", ["least squares", "scenarios", "cubic", "pde"])
def test_natural_steps_converge(name: str, curvature: LowRank) -> None:
    problem = {
        "least squares": lambda: least_squares(1),
        "scenarios": lambda: least_squares(1, 2),
        "cubic": cubic_problem,
        "pde": lambda: pde({"mesh.cells": [6, 6], "inner.model": "residual", "pde.conductivity": "1 + 3*x"}),
    }[name]()
    u, v = problem.start()
    v = v + 0.5 * normal(seeded(7), problem.outer_size)
    state = InnerState(u, curvature.init(problem, u, v))
    result = solve_inner(problem, v, state, curvature, InnerOptions(16, 3000), 1e-6, seeded(0))
    assert problem.inner_error(result.state.u, v, 0.0) < 1e-5
    assert result.state.steps < 3000


@pytest.mark.parametrize("prior", ["riesz", "factored"])
def test_a_restored_state_gives_the_same_numbers(prior: str) -> None:
    problem = cubic_problem(n=20)
    u, v = normal(seeded(2), 1, 20), problem.start()[1]
    for options in (LowRank(6, prior), LowRank(6, prior, 3.0, 0.1, significant=False)):
        for batches in (0, 5):
            state, generator = options.init(problem, u, v), seeded(1)
            for _ in range(batches):
                state = options.absorb(state, problem.batch(u, v, problem.sample(8, generator)).scores)
            file = io.BytesIO()
            torch.save(options.save(state), file)
            file.seek(0)
            again = options.restore(problem, torch.load(file, weights_only=True))
            for _ in range(3):
                scores = problem.batch(u, v, problem.sample(8, generator)).scores
                state, again = options.absorb(state, scores), options.absorb(again, scores)
            g = normal(generator, 1, 20)
            assert torch.equal(state.solve(g), again.solve(g)) and torch.equal(state.images, again.images)
            assert (state.trust, state.description) == (again.trust, again.description)


def test_bad_scores_are_refused_and_a_short_batch_is_not() -> None:
    problem = least_squares(1, n=10)
    options = LowRank(4)
    state = options.init(problem, *problem.start())
    with pytest.raises(ValueError, match="dimension 12, expected 10"):
        options.absorb(state, torch.ones(12, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="3 of 3 scores"):
        options.absorb(state, torch.full((10, 3), math.inf, dtype=torch.float64))
    # Scores that are equal or zero have fewer directions than columns.
    state = options.absorb(state, torch.ones(10, 3, dtype=torch.float64))
    assert state.vectors.shape[1] == 1
    state = options.absorb(state, torch.zeros(10, 3, dtype=torch.float64))
    assert torch.isfinite(state.solve(torch.ones(1, 10, dtype=torch.float64))).all()
    assert fed(options, problem, [torch.zeros(10, 2, dtype=torch.float64)]).vectors.shape[1] == 0
    assert fed(options, problem, drawn(problem, [1])).description == "riesz prior with 0 corrections from 1 scores"
