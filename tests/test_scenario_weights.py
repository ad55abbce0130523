"""Weights of few scenarios, and secants that correct a rough Hessian."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nhgd_pde.engine.outer.secant import CorrectedHessian, Secant
from nhgd_pde.engine.scenarios.weights import balanced

S, M = 128, 10


def sample(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(S, M, generator=generator, dtype=torch.float64), torch.full((S,), 1.0 / S, dtype=torch.float64)


def smooth(z: Tensor) -> Tensor:
    """A function like a misfit in log-normal media."""
    decay = torch.tensor([0.45, 0.3, 0.3, 0.3, 0.2, 0.2, 0.2, 0.15, 0.15, 0.15], dtype=torch.float64)
    return torch.exp(-0.3 * z[:, 1] + 0.2 * z[:, 2]) / (1.0 + torch.exp(z @ decay))


def errors(count: int, plain: bool) -> tuple[float, float]:
    """The root mean square error of the mean over 60 samples, and the estimated error."""
    found, expected = [], []
    for seed in range(60):
        z, weights = sample(seed)
        values = smooth(z)
        balance = balanced(torch.zeros_like(z) if plain else z, weights, count)
        seen = torch.cat([smooth(torch.zeros_like(z[:1])), values[:count]])
        found.append(float(balance.weights @ seen - values.mean()) ** 2)
        expected.append(float((seen @ balance.contrasts()).square().sum()))
    return (sum(found) / 60) ** 0.5, (sum(expected) / 60) ** 0.5


@pytest.mark.parametrize(("count", "factor"), [(16, 2.0), (36, 3.5), (64, 4.0)])
def test_balanced_weights_reduce_the_sampling_error(count: int, factor: float) -> None:
    assert errors(count, plain=False)[0] < errors(count, plain=True)[0] / factor


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("count", [16, 36, 64])
def test_the_estimated_error_is_right_up_to_a_factor(count: int, plain: bool) -> None:
    found, expected = errors(count, plain)
    assert 1.0 / 1.6 < expected / found < 1.6


def test_weights_are_a_distribution_and_those_of_all_scenarios_are_given() -> None:
    z, weights = sample(0)
    for count in (0, 1, 2, 8, 100, 127):
        found = balanced(z, weights, count).weights
        assert float(found.sum()) == pytest.approx(1.0, abs=1e-12) and bool((found >= 0.0).all())
    whole = balanced(z, weights, S)
    assert torch.equal(whole.weights[1:], weights) and not whole.weights[0] and not whole.contrasts().any()


def test_a_corrected_hessian_has_the_curvature_of_every_exact_secant_of_a_quadratic_function() -> None:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    hessian = root @ root.T + torch.eye(12, dtype=torch.float64)
    rough = torch.diag(hessian.diagonal())
    # The steps are conjugate, so that no later secant changes an earlier one.
    steps = torch.linalg.eigh(hessian).eigenvectors.T[:4]
    secants = [Secant(step, hessian @ step, rough @ step) for step in steps]
    corrected = CorrectedHessian.of(lambda d: rough @ d, secants)
    for step in steps:
        torch.testing.assert_close(corrected(step), hessian @ step)
    matrix = torch.stack([corrected(each) for each in torch.eye(12, dtype=torch.float64)])
    torch.testing.assert_close(matrix, matrix.T)
    assert float(torch.linalg.eigvalsh(matrix)[0]) > 0.0


def test_a_secant_without_curvature_changes_nothing() -> None:
    step = torch.ones(3, dtype=torch.float64)
    corrected = CorrectedHessian.of(lambda d: 2.0 * d, [Secant(step, -step, 2.0 * step)])
    torch.testing.assert_close(corrected(step), 2.0 * step)
