from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from bilevel_problems import LeastSquares, least_squares, normal, riesz, seeded
from torch import Tensor

from nhgd_pde.engine.curvature.dense import Dense, DenseState


@lru_cache
def fisher(n: int) -> tuple[LeastSquares, Tensor]:
    """A problem and its Fisher information, condition number about 500."""
    problem = least_squares(1, 1, n)
    return problem, problem.hessian(*problem.start())


def absorbed(options: Dense, problem: LeastSquares, samples: int, batch: int, seed: int = 0) -> DenseState:
    state, generator = options.init(problem, *problem.start()), seeded(seed)
    for _ in range(samples // batch):
        state = options.absorb(state, problem.batch(*problem.start(), problem.sample(batch, generator)).scores)
    return state


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.matrix_norm(a - b) / torch.linalg.matrix_norm(b))


def whitened(state: DenseState, matrix: Tensor) -> Tensor:
    """F^1/2 A F^1/2, the identity for an exact inverse."""
    root = torch.linalg.cholesky(matrix)
    return root.T @ state.inverse @ root


@pytest.mark.parametrize("prior", ["riesz", "identity"])
@pytest.mark.parametrize(("weight", "forgetting"), [(None, None), (7.5, None), (None, 0.2)])
def test_the_inverse_is_that_of_the_directly_summed_matrix(
    prior: str, weight: float | None, forgetting: float | None
) -> None:
    problem = least_squares(2, scenarios=2, n=10)
    options = Dense(prior, weight, forgetting)
    state, generator = options.init(problem, *problem.start()), seeded(0)
    expected = torch.linalg.inv(state.inverse)
    if prior == "riesz":
        gram = problem.inner_metric.covector(torch.eye(10, dtype=torch.float64))
        assert relative(expected, torch.block_diag(gram, gram)) < 1e-12
    else:
        assert relative(expected, expected[0, 0] * torch.eye(20, dtype=torch.float64)) < 1e-15
    address, total = state.inverse.data_ptr(), state.prior_weight
    assert total == weight or (weight is None and total == (20 if prior == "riesz" else 1))
    for count in (1, 3, 16, 64, 5):
        scores = problem.batch(*problem.start(), problem.sample(count, generator)).scores
        total += count
        beta = forgetting or count / total
        expected = (1.0 - beta) * expected + beta / count * scores @ scores.T
        state = options.absorb(state, scores)
        assert relative(state.inverse, torch.linalg.inv(expected)) < 1e-10
        assert relative(state.inverse, state.inverse.T) < 1e-14
    assert state.samples == 89 and state.inverse.data_ptr() == address
    g = normal(generator, 2, 10)
    assert torch.allclose(state.solve(g).reshape(-1), torch.linalg.solve(expected, g.reshape(-1)), rtol=1e-9)


def test_a_running_mean_does_not_see_how_scores_are_batched() -> None:
    problem, _ = fisher(12)
    scores = problem.batch(*problem.start(), problem.sample(48, seeded(0))).scores
    inverses = []
    for size in (1, 8, 48):
        state = Dense().init(problem, *problem.start())
        for part in scores.split(size, dim=1):
            state = Dense().absorb(state, part)
        inverses.append(state.inverse)
        assert state.effective_samples == pytest.approx(48.0)
    assert relative(inverses[0], inverses[2]) < 1e-12 and relative(inverses[1], inverses[2]) < 1e-12


def test_scores_that_do_not_fit_are_refused_and_leave_the_inverse_alone() -> None:
    problem, _ = fisher(12)
    state = Dense().init(problem, *problem.start())
    before = state.inverse.clone()
    with pytest.raises(ValueError, match="dimension 11, expected 12"):
        Dense().absorb(state, torch.ones(11, 2, dtype=torch.float64))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            Dense().absorb(state, torch.full((12, 2), bad, dtype=torch.float64))
    assert torch.equal(state.inverse, before)


def test_estimate_takes_off_the_bias_of_an_inverted_mean() -> None:
    problem, matrix = fisher(30)
    truth, generator = torch.linalg.inv(matrix), seeded(9)
    raw, corrected = [], []
    for seed in range(20):
        state = absorbed(Dense("identity"), problem, samples=120, batch=8, seed=seed)
        g = normal(generator, 1, 30)
        exact = truth @ g[0]
        raw.append(float(exact @ matrix @ state.solve(g)[0] / (exact @ matrix @ exact)))
        corrected.append(float(exact @ matrix @ state.estimate(g)[0] / (exact @ matrix @ exact)))
    # T / (T - d - 1) with T = 120, d = 30.
    assert np.mean(raw) == pytest.approx(120 / 89, rel=0.08)
    assert np.mean(corrected) == pytest.approx(1.0, abs=0.08)


@pytest.mark.parametrize("prior", ["riesz", "identity"])
@pytest.mark.parametrize("ratio", [2, 4, 16])
def test_trust_is_the_reciprocal_of_the_largest_eigenvalue(prior: str, ratio: int) -> None:
    problem, matrix = fisher(40)
    for seed in range(4):
        state = absorbed(Dense(prior), problem, samples=40 * ratio, batch=8, seed=seed)
        largest = float(torch.linalg.eigvalsh(whitened(state, matrix))[-1])
        assert 0.5 < state.trust * largest < 1.5


@pytest.mark.parametrize("forgetting", [0.02, 0.1])
def test_an_inverse_that_forgets_is_trusted_no_more_than_what_it_remembers(forgetting: float) -> None:
    problem, matrix = fisher(40)
    state = absorbed(Dense("identity", forgetting=forgetting), problem, samples=8 * 600, batch=8)
    assert state.samples == 4800
    assert state.effective_samples == pytest.approx(8 * (2 - forgetting) / forgetting, rel=1e-3)
    largest = float(torch.linalg.eigvalsh(whitened(state, matrix))[-1])
    assert 0.5 < state.trust * largest < 1.5


def test_a_prior_below_the_fisher_information_is_not_trusted() -> None:
    problem, matrix = fisher(40)
    state = Dense().init(problem, *problem.start())
    assert state.trust * float(torch.linalg.eigvalsh(whitened(state, matrix))[-1]) == pytest.approx(1.0, rel=0.02)
    assert Dense("identity").init(problem, *problem.start()).trust == 0.0
    # Where the inner metric is the Fisher information itself, the prior is exact and a full step is safe.
    exact = least_squares(1, 1, 40)
    exact.inner_metric = riesz(matrix)
    state = Dense().init(exact, *exact.start())
    assert state.trust == pytest.approx(1.0, abs=1e-10)
    assert relative(state.inverse, torch.linalg.inv(matrix)) < 1e-10


def test_the_error_of_the_inverse_falls_with_the_root_of_the_samples() -> None:
    problem, matrix = fisher(16)
    identity = torch.eye(16, dtype=torch.float64)
    samples = [4 * 16, 20 * 16, 80 * 16, 400 * 16]
    errors = []
    for count in samples:
        square = 0.0
        for seed in range(6):
            state = absorbed(Dense("identity"), problem, count, batch=64, seed=seed)
            columns = torch.stack([state.estimate(column[None])[0] for column in identity], dim=1)
            inverse = DenseState(columns, count, 1.0, 0.0)
            square += float((whitened(inverse, matrix) - identity).square().sum()) / 16 / 6
        errors.append(square**0.5)
    slope = np.polyfit(np.log(samples), np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.1)
    # E |F^1/2 A F^1/2 - I|^2 is close to d^2 / T for many samples.
    assert errors[-1] == pytest.approx((16 / samples[-1]) ** 0.5, rel=0.1)


def test_the_state_says_what_it_is() -> None:
    problem, _ = fisher(12)
    assert absorbed(Dense(), problem, 24, 8).description == "dense 12 x 12 from 24 scores"
