from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from bilevel_problems import LeastSquares, cubic_problem, least_squares, normal, riesz, seeded
from torch import Tensor

from nhgd_pde.engine.curvature.dense import Dense, DenseState
from nhgd_pde.engine.curvature.shrinkage import one_block, prior_scale_and_weight
from nhgd_pde.engine.inner_loop import InnerOptions, InnerState, solve_inner
from nhgd_pde.linalg.factorisation import SingularMatrixError
from problems import relative


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
    address, total = state.inverse.data_ptr(), weight
    for count in (1, 3, 16, 64, 5):
        scores = problem.batch(*problem.start(), problem.sample(count, generator)).scores
        if total is None:
            scale, total = prior_scale_and_weight(one_block(scores.T @ torch.linalg.solve(expected, scores), 20))
            expected = scale * expected
        total += count
        beta = forgetting or count / total
        expected = (1.0 - beta) * expected + beta / count * scores @ scores.T
        state = options.absorb(state, scores)
        assert relative(state.inverse, torch.linalg.inv(expected)) < 1e-10
        assert torch.equal(state.inverse, state.inverse.T)
    assert state.samples == 89 and state.inverse.data_ptr() == address
    g = normal(generator, 2, 10)
    assert torch.allclose(state.solve(g).reshape(-1), torch.linalg.solve(expected, g.reshape(-1)), rtol=1e-9)


def test_a_running_mean_does_not_depend_on_the_batches_of_scores() -> None:
    problem, _ = fisher(12)
    scores = problem.batch(*problem.start(), problem.sample(48, seeded(0))).scores
    inverses = []
    for size in (1, 8, 48):
        options = Dense(prior_weight=12.0)
        state = options.init(problem, *problem.start())
        for part in scores.split(size, dim=1):
            state = options.absorb(state, part)
        inverses.append(state.inverse)
        assert state.effective_samples == pytest.approx(48.0)
    assert relative(inverses[0], inverses[2]) < 1e-12 and relative(inverses[1], inverses[2]) < 1e-12


def test_scores_of_other_sizes_are_refused_and_leave_the_inverse_unchanged() -> None:
    problem, _ = fisher(12)
    state = Dense().init(problem, *problem.start())
    before = state.inverse.clone()
    with pytest.raises(ValueError, match="dimension 11, expected 12"):
        Dense().absorb(state, torch.ones(11, 2, dtype=torch.float64))
    for bad in (float("nan"), float("inf")):
        scores = torch.ones(12, 5, dtype=torch.float64)
        scores[3, 1] = scores[4, 1] = scores[0, 4] = bad
        with pytest.raises(ValueError, match="2 of 5 scores of a batch are not finite"):
            Dense().absorb(state, scores)
    assert torch.equal(state.inverse, before)
    broken = replace(state, inverse=-before)
    with pytest.raises(SingularMatrixError, match="indefinite after 0 scores"):
        Dense(prior_weight=1.0).absorb(
            replace(broken, prior_weight=1.0), 100.0 * torch.ones(12, 2, dtype=torch.float64)
        )
    assert torch.equal(broken.inverse, -before)


@pytest.mark.parametrize(("prior", "weight"), [("identity", 1.0), ("exact", 30.0), ("exact", 120.0)])
def test_estimate_corrects_the_bias_of_an_inverted_mean(prior: str, weight: float) -> None:
    problem, matrix = fisher(30)
    if prior == "exact":
        problem = least_squares(1, 1, 30)
        problem.inner_metric = riesz(matrix)
    options = Dense("identity" if prior == "identity" else "riesz", weight)
    truth, generator = torch.linalg.inv(matrix), seeded(9)
    raw, corrected = [], []
    for seed in range(20):
        state = absorbed(options, problem, samples=120, batch=8, seed=seed)
        g = normal(generator, 1, 30)
        exact = truth @ g[0]
        raw.append(float(exact @ matrix @ state.solve(g)[0] / (exact @ matrix @ exact)))
        corrected.append(float(exact @ matrix @ state.estimate(g)[0] / (exact @ matrix @ exact)))
    if prior == "identity":
        # T / (T - d - 1) with T = 120, d = 30.
        assert np.mean(raw) == pytest.approx(120 / 89, rel=0.08)
    else:
        assert np.mean(raw) > 1.05
    assert np.mean(corrected) == pytest.approx(1.0, abs=0.05 if prior == "exact" else 0.08)


@pytest.mark.parametrize(("prior", "weight"), [("riesz", 40.0), ("identity", 1.0)])
@pytest.mark.parametrize("ratio", [2, 4, 16])
def test_trust_is_the_reciprocal_of_the_largest_eigenvalue(prior: str, weight: float, ratio: int) -> None:
    problem, matrix = fisher(40)
    for seed in range(4):
        state = absorbed(Dense(prior, weight), problem, samples=40 * ratio, batch=8, seed=seed)
        largest = float(torch.linalg.eigvalsh(whitened(state, matrix))[-1])
        assert 0.5 < state.trust * largest < 1.5
        # With a prior that is larger than F in some directions and smaller in others, trust is a bound.
        chosen = absorbed(Dense(prior), problem, samples=40 * ratio, batch=8, seed=seed)
        assert chosen.trust * float(torch.linalg.eigvalsh(whitened(chosen, matrix))[-1]) < 1.2


@pytest.mark.parametrize("forgetting", [0.02, 0.1])
def test_trust_in_an_inverse_that_forgets_depends_on_the_samples_in_memory(forgetting: float) -> None:
    problem, matrix = fisher(40)
    state = absorbed(Dense("identity", 1.0, forgetting), problem, samples=8 * 600, batch=8)
    assert state.samples == 4800
    assert state.effective_samples == pytest.approx(8 * (2 - forgetting) / forgetting, rel=1e-3)
    largest = float(torch.linalg.eigvalsh(whitened(state, matrix))[-1])
    assert 0.5 < state.trust * largest < 1.5


def test_a_prior_below_the_fisher_information_is_not_trusted() -> None:
    problem, matrix = fisher(40)
    state = Dense().init(problem, *problem.start())
    assert state.trust * float(torch.linalg.eigvalsh(whitened(state, matrix))[-1]) == pytest.approx(1.0, rel=0.02)
    assert Dense("identity").init(problem, *problem.start()).trust == 0.0
    # If the inner metric is the Fisher information, the prior is exact and a full step is safe.
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
            state = absorbed(Dense("identity", 1.0), problem, count, batch=64, seed=seed)
            columns = torch.stack([state.estimate(column[None])[0] for column in identity], dim=1)
            inverse = DenseState(inverse=columns)
            square += float((whitened(inverse, matrix) - identity).square().sum()) / 16 / 6
        errors.append(square**0.5)
    slope = np.polyfit(np.log(samples), np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.1)
    # E |F^1/2 A F^1/2 - I|^2 is close to d^2 / T for many samples.
    assert errors[-1] == pytest.approx((16 / samples[-1]) ** 0.5, rel=0.1)


def test_the_description_of_the_state() -> None:
    problem, _ = fisher(12)
    assert absorbed(Dense(), problem, 24, 8).description == "dense 12 x 12 from 24 scores"


def test_forgetting_does_not_let_rounding_errors_grow() -> None:
    """An asymmetry would grow by the factor 1 / 0.9 in each batch, and by 1e46 in all."""
    problem, matrix = fisher(20)
    state = absorbed(Dense(forgetting=0.1), problem, samples=16 * 1000, batch=16)
    assert torch.equal(state.inverse, state.inverse.T)
    # An inverse of 16 * 19 effective samples.
    assert float((whitened(state, matrix) - torch.eye(20, dtype=torch.float64)).square().sum()) < 2.5 * 400 / 304


@pytest.mark.parametrize(("size", "options"), [(1, Dense()), (129, Dense()), (300, Dense(prior_weight=3.0))])
def test_panels_of_a_large_matrix_give_the_whole_matrix(size: int, options: Dense) -> None:
    problem = least_squares(1, 1, size)
    state = options.init(problem, *problem.start())
    gram = problem.inner_metric.covector(torch.eye(size, dtype=torch.float64))
    assert relative(state.inverse, torch.linalg.inv(gram)) < 1e-12
    scores = problem.batch(*problem.start(), problem.sample(16, seeded(0))).scores
    scale, weight = 1.0, options.prior_weight
    if weight is None:
        scale, weight = prior_scale_and_weight(one_block(scores.T @ state.inverse @ scores, size))
    state = options.absorb(state, scores)
    expected = torch.linalg.inv((weight * scale * gram + scores @ scores.T) / (weight + 16))
    assert relative(state.inverse, expected) < 1e-10
    assert torch.equal(state.inverse, state.inverse.T)


def test_a_prior_that_is_right_up_to_scale_is_recognised() -> None:
    _, matrix = fisher(40)
    exact = least_squares(1, 1, 40)
    exact.inner_metric = riesz(matrix / 9.0)
    identity = torch.eye(40, dtype=torch.float64)
    errors: dict[float | None, list[float]] = {None: [], 40.0: [], 1.0: []}
    for weight, found in errors.items():
        for seed in range(9):
            state = absorbed(Dense(prior_weight=weight), exact, samples=320, batch=32, seed=seed)
            found.append(float((whitened(state, matrix) - identity).norm()))
            if weight is None:
                # The prior is scaled to F, and so is its known share of F.
                assert state.prior_floor == pytest.approx(1.0, abs=0.15)
                assert state.trust > 0.6
    chosen, d, one = (float(np.median(each)) for each in errors.values())
    assert chosen < 0.5 * min(d, one)


def test_a_restored_state_gives_the_same_numbers() -> None:
    problem, _ = fisher(12)
    for options in (Dense(), Dense(forgetting=0.1), Dense("identity", 3.0), Dense(forgetting="auto")):
        for samples in (0, 64):
            state = absorbed(options, problem, samples, 8)
            file = io.BytesIO()
            torch.save(options.save(state), file)
            file.seek(0)
            again = options.restore(problem, torch.load(file, weights_only=True))
            generator = seeded(5)
            for _ in range(3):
                scores = problem.batch(*problem.start(), problem.sample(8, generator)).scores
                state, again = options.absorb(state, scores), options.absorb(again, scores)
            assert torch.equal(state.inverse, again.inverse)
            assert (state.trust, state.description) == (again.trust, again.description)
            assert {**options.save(state), "inverse": 0} == {**options.save(again), "inverse": 0}


def far_away(options: Dense, seed: int) -> tuple[int, float]:
    """Steps from far away to a solution where F is smaller, and the smallest eigenvalue of A F there."""
    problem = cubic_problem(n=30)
    u, v = problem.start()[0], 30.0 * normal(seeded(7), problem.outer_size)
    start = InnerState(u, options.init(problem, u, v))
    end = solve_inner(problem, v, start, options, InnerOptions(tests=16, steps=300), 1e-6, seeded(seed)).state
    matrix = problem.hessian(problem.solution(v), v)
    return end.steps, float(torch.linalg.eigvalsh(whitened(end.curvature, matrix))[0])


def test_scores_of_far_points_lose_weight_when_fresh_scores_contradict_them() -> None:
    for seed in range(2):
        kept, faded = far_away(Dense(), seed), far_away(Dense(forgetting="auto"), seed)
        assert faded[0] < 0.7 * kept[0] and faded[1] > 1.5 * kept[1]
    # If F does not change, no score loses weight.
    problem, _ = fisher(40)
    for seed in range(4):
        kept, same = (absorbed(Dense(forgetting=f), problem, 16 * 100, 16, seed) for f in (None, "auto"))
        assert torch.equal(kept.inverse, same.inverse) and same.forgotten == 0.0


MEMORY = """
import resource
import numpy as np
import scipy.sparse as sp
import torch
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.linalg.counts import Counts
from nhgd_pde.linalg.factorisation import factorised_riesz_map
from nhgd_pde.linalg.sparse import SparseMatrix

class Chain:
    def __init__(self, n):
        side = -np.ones(n - 1)
        gram = sp.diags([side, 2.5 * np.ones(n), side], [-1, 0, 1]).tocsr()
        self.inner_metric = factorised_riesz_map(SparseMatrix(gram, symmetric=True), Counts())

    def hessian_product(self, u, v, w):
        return self.inner_metric.covector(w)

def work(prior, n, m):
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    u, options = torch.zeros(1, n, dtype=torch.float64), Dense(prior)
    state = options.init(Chain(n), u, u[0])
    scores = torch.randn(n, m, dtype=torch.float64)
    for _ in range(2):
        state = options.absorb(state, scores)
    state.estimate(u)
    # getrusage is not used, because its peak includes the process that started this one.
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    return (1024 * peak - before) / (8.0 * n**2)

work("PRIOR", 400, 8)
print(work("PRIOR", 4000, 80))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("prior", ["riesz", "identity"])
def test_the_peak_of_memory_is_1_1_times_the_inverse(prior: str) -> None:
    """The resident memory of a separate process includes all libraries."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY.replace("PRIOR", prior)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert 1.0 < float(done.stdout) < 1.1


@pytest.mark.parametrize("forgetting", [None, 0.3])
def test_more_scores_than_unknowns_are_absorbed_in_one_batch(forgetting: float | None) -> None:
    problem = least_squares(n=6)
    u, v = problem.start()
    backend = Dense("identity", 5.0, forgetting)
    state = backend.init(problem, u, v)
    before = torch.linalg.inv(state.inverse)
    scores = problem.batch(u, v, problem.sample(400, seeded(0))).scores
    beta = forgetting or 400.0 / 405.0
    expected = torch.linalg.inv((1.0 - beta) * before + beta / 400.0 * scores @ scores.T)
    after = backend.absorb(state, scores)
    torch.testing.assert_close(after.inverse, expected, rtol=1e-10, atol=1e-12)
    assert after.samples == 400 and after.prior_share == pytest.approx(1.0 - beta)
    assert after.effective_samples == pytest.approx(400.0)
