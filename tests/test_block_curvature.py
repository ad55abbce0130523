from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from bilevel_problems import Explicit, cubic_problem, least_squares, normal, seeded
from torch import Tensor

from nhgd_pde.engine.bilevel import BilevelProblem
from nhgd_pde.engine.curvature.block import Block, BlockState
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.curvature.shrinkage import moments, prior_scale_and_weight
from nhgd_pde.engine.inner_loop import InnerOptions, InnerState, solve_inner
from nhgd_pde.fem.patches import patches
from problems import problem as pde
from problems import relative


def full(problem: BilevelProblem, operator: object) -> Tensor:
    """The (d, d) matrix of a map of (S, n), column by column."""
    scenarios, n = problem.inner_shape
    columns = torch.eye(scenarios * n, dtype=torch.float64).reshape(-1, scenarios, n)
    return torch.stack([operator(column).reshape(-1) for column in columns], dim=1)  # type: ignore[operator]


def absorbed(options: Block, problem: BilevelProblem, samples: int, batch: int, seed: int = 0) -> BlockState:
    u, v = problem.start()
    state, generator = options.init(problem, u, v), seeded(seed)
    for _ in range(samples // batch):
        state = options.absorb(state, problem.batch(u, v, problem.sample(batch, generator)).scores)
    return state


def on_blocks(matrix: Tensor, labels: Tensor) -> Tensor:
    return torch.where(labels[:, None] == labels[None, :], matrix, 0.0)


def largest(problem: BilevelProblem, state: BlockState, u: Tensor, v: Tensor) -> float:
    """The largest eigenvalue of A F."""
    matrix = full(problem, lambda w: problem.hessian_product(u, v, w))
    return float(torch.linalg.eigvals(full(problem, state.solve) @ matrix).real.max())


@pytest.mark.parametrize("prior", ["riesz", "identity"])
@pytest.mark.parametrize(("weight", "forgetting"), [(None, None), (7.5, None), (None, 0.2)])
@pytest.mark.parametrize("size", [1, 4, 10])
def test_the_inverse_is_that_of_the_blocks_of_the_directly_summed_matrix(
    size: int, prior: str, weight: float | None, forgetting: float | None
) -> None:
    """Two scenarios of 10 unknowns: blocks of 4, 4 and 2, two of them padded."""
    problem = least_squares(2, scenarios=2, n=10)
    labels, options = problem.inner_patches(size), Block(size, prior, weight, forgetting)
    state, generator = options.init(problem, *problem.start()), seeded(0)
    expected = torch.linalg.inv(full(problem, state.solve))
    if prior == "riesz":
        gram = problem.inner_metric.covector(torch.eye(10, dtype=torch.float64))
        assert relative(expected, on_blocks(torch.block_diag(gram, gram), labels)) < 1e-12
    else:
        assert relative(expected, expected[0, 0] * torch.eye(20, dtype=torch.float64)) < 1e-15
    total, address = weight, state.blocks.data_ptr()
    for count in (3, 1, 16, 64, 5):
        scores = problem.batch(*problem.start(), problem.sample(count, generator)).scores
        if total is None:
            parts = [labels == k for k in range(int(labels.max()) + 1)]
            grams = [scores[p].T @ torch.linalg.solve(expected[p][:, p], scores[p]) for p in parts]
            sizes = torch.tensor([int(p.sum()) for p in parts])
            scale, total = prior_scale_and_weight(moments(torch.stack(grams), sizes))
            expected = scale * expected
        total += count
        beta = forgetting or count / total
        expected = (1.0 - beta) * expected + beta / count * on_blocks(scores @ scores.T, labels)
        state = options.absorb(state, scores)
        assert relative(full(problem, state.solve), torch.linalg.inv(expected)) < 1e-10
        assert torch.equal(state.blocks, state.blocks.mT)
    assert state.samples == 89 and state.blocks.data_ptr() == address
    assert state.blocks.shape == (2 * -(-10 // size), size, size)


def test_padding_does_not_influence_anything() -> None:
    """The same blocks with two more rows and columns of padding, over so many updates that padding would overflow."""
    problem, options = least_squares(2, n=10), Block(4, forgetting=0.5)
    state = options.init(problem, *problem.start())
    padded = replace(
        state,
        blocks=torch.nn.functional.pad(state.blocks, (0, 2, 0, 2)),
        unknowns=torch.nn.functional.pad(state.unknowns, (0, 2), value=-1),
    )
    generator = seeded(0)
    for _ in range(1200):
        scores = problem.batch(*problem.start(), problem.sample(4, generator)).scores
        state, padded = options.absorb(state, scores), options.absorb(padded, scores)
    assert torch.allclose(padded.blocks[:, :4, :4], state.blocks, rtol=1e-10)
    assert not padded.blocks[:, 4:].any() and not padded.blocks[:, :, 4:].any()
    g = normal(generator, 1, 10)
    assert torch.allclose(padded.solve(g), state.solve(g), rtol=1e-10)


def test_chunks_of_any_size_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = least_squares(2, scenarios=2, n=10)
    ends = []
    for chunk in (2**22, 50):
        monkeypatch.setattr("nhgd_pde.engine.curvature.block._CHUNK", chunk)
        ends.append(absorbed(Block(4), problem, 64, 16))
    assert torch.allclose(ends[0].blocks, ends[1].blocks, rtol=1e-12)
    assert ends[0].prior_weight == pytest.approx(ends[1].prior_weight, rel=1e-12)


def test_one_block_is_the_dense_inverse() -> None:
    problem = least_squares(1, n=12)
    for weight in (None, 5.0):
        state, dense = absorbed(Block(12, prior_weight=weight), problem, 64, 16), Dense(prior_weight=weight)
        same, generator = dense.init(problem, *problem.start()), seeded(0)
        for _ in range(4):
            same = dense.absorb(same, problem.batch(*problem.start(), problem.sample(16, generator)).scores)
        assert relative(state.blocks[0], same.inverse) < 1e-12
        assert state.trust == pytest.approx(same.trust, rel=1e-6)
        g = normal(generator, 1, 12)
        assert torch.allclose(state.estimate(g), same.estimate(g), rtol=1e-10)


def test_bad_scores_are_refused() -> None:
    problem = least_squares(1, n=10)
    state = Block(4).init(problem, *problem.start())
    before = state.blocks.clone()
    with pytest.raises(ValueError, match="dimension 12, expected 10"):
        Block(4).absorb(state, torch.ones(12, 2, dtype=torch.float64))
    scores = torch.ones(10, 3, dtype=torch.float64)
    scores[7, 2] = float("nan")
    with pytest.raises(ValueError, match="1 of 3 scores"):
        Block(4).absorb(state, scores)
    assert torch.equal(state.blocks, before)


def small_pde(model: str) -> BilevelProblem:
    return pde({"mesh.cells": [8, 8], "inner.model": model, "pde.conductivity": "1 + 3*x"})


@pytest.mark.parametrize("prior", ["riesz", "identity"])
@pytest.mark.parametrize(
    "problem",
    [least_squares(1, 1, 30), least_squares(1, 3, 12), small_pde("energy"), small_pde("residual")],
    ids=["dense", "scenarios", "energy", "residual"],
)
def test_trust_bounds_the_largest_eigenvalue(problem: BilevelProblem, prior: str) -> None:
    u, v = problem.start()
    state = Block(6, prior).init(problem, u, v)
    # The prior is exact before there are scores.
    assert state.trust * largest(problem, state, u, v) == pytest.approx(1.0, rel=0.03)
    # Blocks of F itself, the limit of many samples: the largest eigenvalue of block Jacobi is above one.
    state = absorbed(Block(6, prior, prior_weight=1.0), problem, 64 * 60, 64)
    reach = largest(problem, state, u, v)
    assert reach > 1.2 and 0.1 < state.trust * reach < 1.1
    for samples in (64, 256):
        few = absorbed(Block(6, prior), problem, samples, 64)
        assert few.trust * largest(problem, few, u, v) < 1.25


def test_the_overlap_is_sharp_where_the_metric_is_the_fisher_information() -> None:
    problem = small_pde("energy")
    u, v = problem.start()
    state = Block(6).init(problem, u, v)
    assert state.overlap * largest(problem, state, u, v) == pytest.approx(1.0, rel=0.03)
    assert Block(10**6).init(problem, u, v).overlap == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("curvature", [Block(4), Block(4, "identity"), Block(4, forgetting=0.05)])
@pytest.mark.parametrize(
    "problem", [least_squares(1, 2), cubic_problem(), small_pde("energy")], ids=["least squares", "cubic", "pde"]
)
def test_natural_steps_with_blocks_converge(problem: BilevelProblem, curvature: Block) -> None:
    u, v = problem.start()
    v = v + 0.5 * normal(seeded(7), problem.outer_size)
    state = InnerState(u, curvature.init(problem, u, v))
    result = solve_inner(problem, v, state, curvature, InnerOptions(16, 1500), 1e-6, seeded(0))
    assert problem.inner_error(result.state.u, v, 0.0) < 1e-5
    assert result.state.steps < 1500
    if isinstance(problem, Explicit):
        exact = problem.solution(v)
        assert problem.inner_metric.norm(result.state.u - exact) < 1e-5 * problem.inner_metric.norm(exact)


def test_a_restored_state_gives_the_same_numbers() -> None:
    problem = least_squares(2, scenarios=2, n=10)
    for options in (Block(4), Block(4, "identity", 3.0), Block(4, forgetting="auto")):
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
            assert torch.equal(state.blocks, again.blocks)
            assert (state.trust, state.description) == (again.trust, again.description)
    assert state.description == "6 blocks of at most 4 unknowns from 88 scores"


# Patches


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("count", "size"), [(1, 5), (100, 7), (64, 64), (65, 64), (257, 1)])
def test_patches_are_balanced_and_compact(dim: int, count: int, size: int) -> None:
    points = np.random.default_rng(dim).uniform(size=(dim, count))
    found = patches(points, size)
    sizes = np.bincount(found)
    assert len(sizes) == -(-count // size) and sizes.max() <= size and sizes.max() - sizes.min() <= 1
    if count // size > 4:
        # Boxes with as many points have sides of the length (size / count)^(1 / dim).
        extent = np.mean([np.ptp(points[:, found == k], axis=1).max() for k in range(len(sizes))])
        assert extent < 2.0 * (size / count) ** (1.0 / dim)


def test_points_at_one_place_keep_their_order() -> None:
    points = np.repeat(np.linspace(0.0, 1.0, 6)[None], 2, axis=1)
    points = np.sort(points, axis=1)
    assert patches(points, 4).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    with pytest.raises(ValueError, match="at least 1 point, found 0"):
        patches(points, 0)


def test_the_patches_of_a_pde_are_those_of_its_free_nodes() -> None:
    problem = pde({"mesh.cells": [10, 10]})
    labels = problem.inner_patches(9)
    nodes = problem.space.nodes[:, problem.equation.free]
    assert labels.dtype == torch.int64 and len(labels) == problem.inner_shape[1] == 81
    assert torch.bincount(labels).tolist() == [9] * 9
    assert all(np.ptp(nodes[:, labels.numpy() == k], axis=1).max() < 0.45 for k in range(9))
