"""Hypergradients and curvature of other libraries; a test is skipped if its library is not installed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from nhgd_pde.bench.hypergradients import relative_error
from nhgd_pde.bench.peers import betty, boat, bridge, compare_peers, torchopt, unavailable
from nhgd_pde.bench.trials import Task
from nhgd_pde.bench.truth import Judge

PROBLEM: dict[str, Any] = {
    "name": "small",
    "mesh": {"kind": "rectangle", "cells": [10, 8]},
    "pde": {"kind": "poisson", "conductivity": "1 + x", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [
        {"kind": "tracking", "target": "sin(pi*x)*y"},
        {"kind": "regularisation", "weight": 1e-4},
    ],
}
MODELS = ("energy", "residual")


def judge_of(model: str) -> Judge:
    return Judge(Task({**PROBLEM, "inner": {"model": model}}, {}))


@pytest.fixture
def quiet() -> Iterator[None]:
    """Ignores warnings of other libraries, which call functions that torch has renamed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def needs(reason: str | None) -> None:
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize("model", MODELS)
def test_automatic_differentiation_gives_the_derivatives_of_both_problems(model: str) -> None:
    judge = judge_of(model)
    problem = judge.problem
    exact, u = judge.solution(judge.ahead())
    generator = torch.Generator().manual_seed(0)
    u = (u + 0.1 * torch.randn(u.shape, generator=generator, dtype=u.dtype)).requires_grad_()
    v = exact.v.clone().requires_grad_()
    w = torch.randn(u.shape, generator=generator, dtype=u.dtype)
    (gradient,) = torch.autograd.grad(bridge.inner_loss(problem, u, v), u, create_graph=True)
    by_u, by_v = torch.autograd.grad(gradient, (u, v), w)
    # Differences of the gradient are exact because it is affine here.
    step = torch.randn(v.shape, generator=generator, dtype=v.dtype)
    with torch.no_grad():
        along_u = problem.inner_gradient(u + w, v) - gradient
        along_v = problem.inner_gradient(u, v + step) - gradient
    assert (by_u - along_u).norm() <= 1e-10 * along_u.norm()
    assert float((by_v * step).sum()) == pytest.approx(float((w * along_v).sum()), rel=1e-10)
    inner, direct = torch.autograd.grad(bridge.outer_loss(problem, u, v), (u, v))
    expected = problem.outer_derivatives(u.detach(), v.detach())
    assert torch.equal(inner, expected[0]) and torch.equal(direct, expected[1])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("library", "derivative"),
    [
        (torchopt, torchopt.hypergradient),
        (torchopt, torchopt.normal_hypergradient),
        (boat, boat.hypergradient),
    ],
    ids=["torchopt", "torchopt-normal", "boat"],
)
def test_other_libraries_agree_where_they_converge(model: str, library: Any, derivative: Any, quiet: None) -> None:
    needs(unavailable().get(library.NAME))
    judge = judge_of(model)
    exact, u = judge.solution(judge.ahead())
    metric = judge.problem.outer_metric
    assert relative_error(metric, derivative(judge.problem, u, exact.v, 500), exact.derivative) < 1e-8
    assert relative_error(metric, derivative(judge.problem, u, exact.v, 2), exact.derivative) > 1e-6


def test_the_released_betty_does_not_converge(quiet: None) -> None:
    needs(unavailable().get(betty.NAME))
    judge = judge_of("energy")
    exact, u = judge.solution(judge.ahead())
    metric = judge.problem.outer_metric
    # One step of conjugate gradients needs no second direction and is right.
    ours = torchopt.hypergradient if torchopt.NAME not in unavailable() else None
    one = betty.hypergradient(judge.problem, u, exact.v, 1)
    if ours is not None:
        assert relative_error(metric, one, ours(judge.problem, u, exact.v, 1)) < 1e-12
    error = relative_error(metric, betty.hypergradient(judge.problem, u, exact.v, 500), exact.derivative)
    assert not error < 1e-4


def test_the_comparison_names_every_library(quiet: None) -> None:
    found = compare_peers(judge_of("energy"))
    assert {peer.name for peer in found if not peer.setting} == set(unavailable())
    ours = {peer.setting: peer.error for peer in found if peer.name == "nhgd-pde" and peer.steps == 500}
    assert set(ours) == {"certified, factored curvature", "certified, no curvature"}
    assert max(ours.values()) < 1e-10
    short = {peer.setting: peer.error for peer in found if peer.name == "nhgd-pde" and peer.steps == 20}
    assert short["certified, factored curvature"] < 1e-12 < short["certified, no curvature"]


def test_the_matrix_of_scores_is_the_gauss_newton_matrix_of_curvlinops(quiet: None) -> None:
    """A linear torch model whose outputs are the tested residuals: its Gauss-Newton matrix is that of the scores."""
    curvlinops = pytest.importorskip("curvlinops")
    judge = judge_of("residual")
    problem = judge.problem
    exact, u = judge.solution(judge.ahead())
    sample = problem.sample(12, torch.Generator().manual_seed(1))
    batch = problem.batch(u, exact.v, sample)
    # Rows J^T w of each test function w, by products with J.
    rows = torch.cat([problem.equation.state_product_transposed(u, exact.v, w[None]) for w in sample.tests[0]])
    network = torch.nn.Linear(rows.shape[1], 1, bias=False, dtype=rows.dtype)
    data = [(rows, torch.zeros(len(rows), 1, dtype=rows.dtype))]
    loss = torch.nn.MSELoss(reduction="sum")
    matrix = curvlinops.GGNLinearOperator(network, loss, list(network.parameters()), data)
    w = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(2), dtype=rows.dtype)
    # MSELoss has no factor 1/2.
    theirs = 0.5 * (matrix @ w)
    assert (theirs - batch.scores @ (batch.scores.T @ w)).norm() <= 1e-12 * theirs.norm()
    assert (theirs - sample.count * batch.hessian(w[None])[0]).norm() <= 1e-12 * theirs.norm()
