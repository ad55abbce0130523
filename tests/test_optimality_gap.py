"""How far an objective is above its optimum: the estimate from the last iterates, and the bound where it is convex."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import nhgd_pde as nhgd
from nhgd_pde.engine.optimality_gap import GapBound, gap_of
from nhgd_pde.objective.convexity import convexity


@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.9])
def test_the_gap_of_linear_convergence(ratio: float) -> None:
    """The gap decreases by a factor in each iterate, and is a multiple of the square of the gradient."""
    trail = [(5.0 + 2.0 * ratio**k, math.sqrt(3.0 * ratio**k)) for k in range(8)]
    assert gap_of(trail) == pytest.approx(2.0 * ratio**7, rel=1e-6)


def test_a_slow_end_is_seen_although_the_gradient_is_small() -> None:
    """The objective goes on to decrease evenly, while the gradient would promise less."""
    fast = [(1.0 + 10.0**-k, 10.0 ** (-k / 2)) for k in range(3)]
    slow = [(fast[-1][0] - 1e-3 * k, 1e-3 * 0.9**k) for k in range(1, 6)]
    assert gap_of(fast + slow) == math.inf


@pytest.mark.parametrize("trail", [[], [(1.0, 1.0)], [(1.0, 1.0), (0.5, 2.0)]])
def test_too_little_is_known(trail: list[tuple[float, float]]) -> None:
    assert gap_of(trail) == math.inf


def test_a_gradient_that_vanishes_leaves_no_gap() -> None:
    assert gap_of([(1.0, 1.0), (0.5, 0.0)]) == 0.0


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_the_gap_has_the_unit_of_the_objective(unit: float) -> None:
    trail = [(3.0 + 0.5**k, 0.7**k) for k in range(6)]
    scaled = [(unit * value, unit * norm) for value, norm in trail]
    assert gap_of(scaled) == pytest.approx(unit * gap_of(trail), rel=1e-6)


def steps_of_conjugate_gradients(eigenvalues: np.ndarray, unit: float) -> list[tuple[float, float, float]]:
    """Objective, norm of the gradient and gap of the iterates for 1/2 x . A x - b . x, A diagonal."""
    b = np.random.default_rng(0).standard_normal(len(eigenvalues))
    optimum = -0.5 * float(b @ (b / eigenvalues))
    x, r = np.zeros_like(b), b
    d, found = r, []
    while True:
        value = 0.5 * float(x @ (eigenvalues * x)) - float(b @ x)
        found.append((unit * value, unit * float(np.linalg.norm(r)), unit * (value - optimum)))
        if value - optimum <= 1e-8 * abs(optimum):
            return found
        step = (r @ r) / (d @ (eigenvalues * d))
        x, before, r = x + step * d, r, r - step * eigenvalues * d
        d = r + (r @ r) / (before @ before) * d


@pytest.mark.parametrize("known", [1.0, 0.1])
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("decay", [1.0, 2.0, 4.0])
def test_the_bound_is_above_the_gap_and_near_it(decay: float, unit: float, known: float) -> None:
    """Eigenvalues that decay to the smallest one, as those of a regularised problem do; `known` is a share of it."""
    eigenvalues = 1e-3 + np.arange(1, 400) ** -decay
    steps = steps_of_conjugate_gradients(eigenvalues, unit)
    smallest = float(eigenvalues.min())
    bound = GapBound.at(unit * known * smallest, *steps[0][:2])
    for k, (value, norm, gap) in enumerate(steps):
        bound = bound if k == 0 else bound.after(value, norm)
        assert 0.99 * gap <= bound.gap <= 0.50001 * norm * norm / (unit * known * smallest)
    if known == 1.0:
        assert bound.gap <= 2.0 * steps[-1][2]


def test_a_step_that_is_lost_in_rounding_leaves_a_bound() -> None:
    bound = GapBound.at(1e-2, 1.0, 1e-9)
    assert bound.after(1.0, 1e-9).gap <= bound.gap
    # A decrease beyond the bound of the gap, such as one by rounding, starts the recurrence anew.
    assert bound.after(0.5, 1e-9).gap == pytest.approx(bound.gap)
    assert bound.after(1.0, 0.0).gap == 0.0


PROBLEM: dict[str, Any] = {
    "name": "source",
    "mesh": {"kind": "rectangle", "cells": [6, 5]},
    "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "norm": "l2", "weight": 1e-3}],
}
TWO = {
    "control": [{"name": "a", "kind": "source"}, {"name": "b", "kind": "neumann", "on": "left"}],
    "pde": {"kind": "poisson", "boundary": {"right": {"dirichlet": 0}}},
    "objective": [
        {"kind": "tracking", "target": "x*y"},
        {"kind": "regularisation", "norm": "l2", "weight": 1e-3, "control": "a"},
        {"kind": "regularisation", "norm": "l2", "weight": 1e-4, "control": "b"},
    ],
}
TERMS = PROBLEM["objective"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1e-3),
        ({"control": {"kind": "source", "space": "P0"}}, 1e-3),
        (TWO, 1e-4),
        ({"objective": [TERMS[0], {**TERMS[1], "norm": "h1"}]}, 0.0),
        ({"objective": [TERMS[0]]}, 0.0),
        ({"objective": [*TERMS, {"kind": "regularisation", "norm": "tv", "weight": 1e-3}]}, 0.0),
    ],
)
def test_the_convexity_that_a_penalty_yields(changes: dict[str, Any], expected: float) -> None:
    problem = nhgd.load({**PROBLEM, **changes})
    found = convexity(problem.pde.objective, problem.pde.outer_metric, problem.pde.start()[1])
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_run_ends_within_a_tenth_of_the_error_of_the_mesh_by_its_bound() -> None:
    best = nhgd.solve(nhgd.load({**PROBLEM, "outer": {"rtol": 1e-12}}))
    error = abs(nhgd.estimate_error(nhgd.load(PROBLEM), best).value)
    problem = nhgd.load({**PROBLEM, "outer": {"rtol": "auto"}})
    found = nhgd.solve(problem)
    gap = found.objective - best.objective
    bound = 0.5 * found.history[-1]["gradient_norm"] ** 2 / 1e-3
    assert 0.0 <= gap <= min(0.1 * error, bound) and gap > 1e-6 * error
    assert found.stats["solves"]["solves"] < best.stats["solves"]["solves"]
    # A run that starts there is at its end.
    again = nhgd.solve(problem, initial=found)
    assert len(again.history) == 1 and again.status == "converged"
