"""Sharing over windows: the mean square error of the hypergradient is bias plus variance, and below their bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.sharing import EQUATIONS, derivative_of, errors, hypergradients, problem, slope

STEPS = 240
SIZES = (1, 2, 4, 8, 16, 24, 40, 60, 80)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_the_error_of_sharing_is_within_its_bound(equation: str) -> None:
    known = hypergradients(equation, STEPS)
    found = [errors(known, n, samples=300) for n in SIZES if STEPS % n == 0]
    for each in found:
        assert abs(each.sampled - each.bias - each.variance) <= 5.0 * each.doubt
        assert each.bias <= each.drift * (1 + 1e-12)
        assert each.variance == pytest.approx(each.noise, rel=1e-9)
        assert each.sampled <= each.bound + 5.0 * each.doubt
    # The bias grows with the square of the steps in a window, and the variance falls with their number.
    short, long = [each for each in found if 2 <= each.n <= 8], [each for each in found if each.n >= 40]
    assert slope([each.n for each in short], [each.bias for each in short]) == pytest.approx(2.0, abs=0.4)
    assert slope([each.n for each in long], [each.variance for each in long]) == pytest.approx(-1.0, abs=0.25)
    # Sharing pays: the least error is neither that of single steps nor that of the longest windows at no bias.
    best = min(found, key=lambda each: each.bias + each.variance)
    assert best.n > 1 and best.bias + best.variance < 0.5 * found[0].variance


@pytest.mark.parametrize("equation", EQUATIONS)
def test_forward_mode_on_windows_finds_the_mean_of_the_hypergradients_of_their_steps(equation: str) -> None:
    known, windows = hypergradients(equation, STEPS), 12
    shared = problem(equation, windows, "fds", STEPS)
    found = windows * derivative_of(shared, torch.zeros(windows, dtype=torch.float64))
    means = known.mean.reshape(windows, -1).mean(1)
    assert np.abs(found - means).max() <= 1e-10 * np.abs(means).max()
