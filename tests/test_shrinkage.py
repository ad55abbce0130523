from __future__ import annotations

import numpy as np
import pytest
import torch
from bilevel_problems import normal, seeded, spd
from torch import Tensor

from nhgd_pde.engine.curvature.shrinkage import Moments, moments, one_block, prior_scale_and_weight, samples_worth


def drawn(fisher: Tensor, count: int, seed: int) -> Tensor:
    """Gaussian scores (d, m) with a given covariance."""
    return torch.linalg.cholesky(fisher) @ normal(seeded(seed), fisher.shape[0], count)


def identity(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def of(scores: Tensor) -> Moments:
    return one_block(scores.T @ scores, scores.shape[0])


def standard_error(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) / len(values) ** 0.5


def test_the_moments_are_unbiased() -> None:
    fisher = spd(12, 30.0, seeded(1))
    found = [of(drawn(fisher, 6, seed)) for seed in range(2000)]
    trace = float(fisher.trace())
    for values, exact in (
        ([each.trace for each in found], trace),
        ([each.squared_traces for each in found], trace**2),
        ([each.square for each in found], float((fisher @ fisher).trace())),
    ):
        assert abs(float(np.mean(values)) - exact) < 3.5 * standard_error(values)
        assert 3.5 * standard_error(values) < 0.1 * exact


def test_the_moments_of_blocks_equal_those_of_the_block_diagonal_matrix() -> None:
    blocks = [spd(5, 30.0, seeded(1)), spd(3, 4.0, seeded(2)), spd(1, 1.0, seeded(3)) * 7.0]
    whole = torch.block_diag(*blocks)
    found = []
    for seed in range(2000):
        parts = drawn(whole, 6, seed).split([5, 3, 1])
        found.append(moments(torch.stack([part.T @ part for part in parts]), torch.tensor([5, 3, 1])))
    assert found[0].unknowns == 9 and found[0].freedom == 30 + 12 + 2
    for values, exact in (
        ([each.trace for each in found], float(whole.trace())),
        ([each.squared_traces for each in found], sum(float(block.trace()) ** 2 for block in blocks)),
        ([each.square for each in found], float((whole @ whole).trace())),
    ):
        assert abs(float(np.mean(values)) - exact) < 3.5 * standard_error(values)
    # Moments by chunks are the same.
    parts = drawn(whole, 6, 0).split([5, 3, 1])
    grams = [moments((part.T @ part)[None], torch.tensor([len(part)])) for part in parts]
    added = grams[0] + grams[1] + grams[2]
    assert (added.unknowns, added.freedom) == (9, 44) and added.count == 6
    assert added.trace == pytest.approx(found[0].trace, rel=1e-14)
    assert added.squared_traces == pytest.approx(found[0].squared_traces, rel=1e-12)
    assert added.square == pytest.approx(found[0].square, rel=1e-12)


@pytest.mark.parametrize("sizes", [[20], [1] * 20, [4, 8, 8], [2]])
def test_the_standard_error_where_the_prior_is_right(sizes: list[int]) -> None:
    d, m, distances = sum(sizes), 8, []
    for seed in range(3000):
        parts = normal(seeded(seed), d, m).split(sizes)
        found = moments(torch.stack([part.T @ part for part in parts]), torch.tensor(sizes))
        squared_trace = (found.lengths.sum() ** 2 - found.lengths.square().sum()) / (m * (m - 1))
        distances.append(found.square - float(squared_trace) / d)
    assert np.std(distances) == pytest.approx(found.noise, rel=0.1)


@pytest.mark.parametrize(("size", "first", "samples"), [(40, 16, 40), (40, 64, 320), (100, 32, 96)])
@pytest.mark.parametrize("condition", [1.0, 5.0, 500.0])
def test_the_chosen_weight_beats_both_fixed_ones(size: int, first: int, samples: int, condition: float) -> None:
    """Median errors of F in the Frobenius norm, against n0 = d and n0 = 1 with the same scale."""
    fisher = 3.0 * (identity(size) if condition == 1.0 else spd(size, condition, seeded(500)))
    errors: dict[str, list[float]] = {"chosen": [], "d": [], "one": [], "best": []}
    for seed in range(15):
        scores = drawn(fisher, samples, seed)
        mean = scores @ scores.T / samples
        scale, weight = prior_scale_and_weight(of(scores[:, :first]))
        assert scale == pytest.approx(float(fisher.trace()) / size, rel=0.25)
        for name, n0 in (("chosen", weight), ("d", float(size)), ("one", 1.0)):
            share = n0 / (n0 + samples)
            errors[name].append(float((share * scale * identity(size) + (1.0 - share) * mean - fisher).norm()))
        tried = torch.linspace(0.0, 1.0, 201)
        errors["best"].append(
            min(float((a * scale * identity(size) + (1.0 - a) * mean - fisher).norm()) for a in tried.tolist())
        )
    chosen, one, d, best = (float(np.median(errors[name])) for name in ("chosen", "one", "d", "best"))
    assert chosen < min(d, one)
    if condition == 1.0:
        assert chosen < 0.4 * d
    else:
        assert chosen < 1.1 * best


def test_the_weight_is_that_of_the_formula_for_many_scores() -> None:
    fisher = spd(10, 100.0, seeded(4))
    trace, square = float(fisher.trace()), float((fisher @ fisher).trace())
    scale, weight = prior_scale_and_weight(of(drawn(fisher, 4000, 0)))
    assert scale == pytest.approx(trace / 10, rel=0.03)
    assert weight == pytest.approx((trace**2 + square) / (square - trace**2 / 10), rel=0.1)


def test_the_weight_stays_within_its_bounds() -> None:
    for m in (1, 2, 64):
        for size in (1, 3, 100):
            weights = [prior_scale_and_weight(of(normal(seeded(s), size, m)))[1] for s in range(50)]
            assert min(weights) >= 1.0 and max(weights) <= 1.0001 * size * m
    # In one dimension F is only a scale, and the batch that gives it counts with its number of samples.
    assert prior_scale_and_weight(of(normal(seeded(0), 1, 500)))[1] == pytest.approx(500, rel=0.25)
    # If all scores are along one direction, the prior has nearly no weight.
    line = normal(seeded(0), 50, 1) @ normal(seeded(1), 1, 64)
    assert 1.0 <= prior_scale_and_weight(of(line))[1] < 5.0
    assert prior_scale_and_weight(of(torch.zeros(7, 4, dtype=torch.float64))) == (1.0, 7.0)


def test_an_estimate_keeps_its_weight_while_the_fisher_information_stays() -> None:
    size, samples = 20, 400
    kept = 0
    for seed in range(40):
        past, fresh = normal(seeded(seed), size, samples), normal(seeded(1000 + seed), size, 32)
        inverse = torch.linalg.inv(past @ past.T / samples)
        found = one_block(fresh.T @ inverse @ fresh, size)
        kept += samples_worth(found, samples, 1.0 - (size + 1) / samples) == samples
    assert kept == 40


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_the_weight_of_a_wrong_estimate_follows_from_its_error(factor: float) -> None:
    """F = factor I and the estimate I, whose error is that of a mean of (tr F^2 + (tr F)^2) / |F - I|^2 samples."""
    size = 20
    exact = factor**2 * (size**2 + size) / (size * (factor - 1.0) ** 2)
    found = []
    for seed in range(40):
        fresh = factor**0.5 * normal(seeded(seed), size, 64)
        found.append(samples_worth(of(fresh), 1e4, 1.0))
    assert float(np.median(found)) == pytest.approx(max(exact, 1.0), rel=0.2)
    assert max(found) < 1e3
