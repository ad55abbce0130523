"""The estimate of how far an objective is above its optimum, from the last iterates."""

from __future__ import annotations

import math

import pytest

from nhgd_pde.engine.optimality_gap import gap_of


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
