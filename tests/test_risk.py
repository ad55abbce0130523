"""Risk measures against closed forms, their definitions and their axioms."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from bilevel_problems import normal, seeded
from torch import Tensor

from nhgd_pde.objective.risk import CVaR, Entropic, Mean, MeanPlusDeviation, RiskMeasure, WorstCase, value_at_risk

GAUSS = torch.distributions.Normal(0.0, 1.0)

# The width is large enough to test the curvature.
WIDE: list[RiskMeasure] = [
    Mean(),
    CVaR(0.1, 0.3),
    CVaR(0.5, 0.1),
    CVaR(0.9, 0.3),
    Entropic(2.0),
    MeanPlusDeviation(1.5, 0.3),
    WorstCase(0.3),
]
SHARP: list[RiskMeasure] = [CVaR(0.2), CVaR(0.9), CVaR(0.99), Entropic(3.0), MeanPlusDeviation(1.0), WorstCase()]
COHERENT: list[RiskMeasure] = [Mean(), CVaR(0.05), CVaR(0.9), CVaR(0.999), WorstCase()]
MONOTONE: list[RiskMeasure] = [*COHERENT, Entropic(2.0), CVaR(0.7, 1.0)]


def named(risk: RiskMeasure) -> str:
    return risk.name


def sample(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Values and unequal probabilities."""
    g = seeded(seed)
    weights = torch.rand(size, generator=g, dtype=torch.float64) + 0.05
    return normal(g, size), weights / weights.sum()


def equal(size: int) -> Tensor:
    return torch.full((size,), 1.0 / size, dtype=torch.float64)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def middles(size: int) -> Tensor:
    """(size,) probabilities at the middles of equal shares."""
    return (torch.arange(size, dtype=torch.float64) + 0.5) / size


def rates(errors: list[float]) -> list[float]:
    """The orders of errors when the width is halved."""
    return [math.log2(a / b) for a, b in pairwise(errors)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("risk", WIDE, ids=named)
def test_taylor_rates(risk: RiskMeasure, seed: int) -> None:
    values, weights = sample(40, seed)
    direction = normal(seeded(seed + 100), 40)
    slope = risk.derivative(values, weights) @ direction
    bend = risk.second_derivative(values, weights, direction)
    first, second, third = [], [], []
    for h in (0.02, 0.01, 0.005, 0.0025):
        moved = values + h * direction
        rest = risk.value(moved, weights) - risk.value(values, weights) - h * float(slope)
        first.append(abs(rest))
        second.append(abs(rest - 0.5 * h**2 * float(bend @ direction)))
        change = risk.derivative(moved, weights) - risk.derivative(values, weights)
        third.append(float((change - h * bend).norm()))
    if risk.linear:
        assert max(first) < 1e-15 and max(third) == 0.0
        return
    assert np.allclose(rates(first), 2.0, atol=0.15)
    assert np.allclose(rates(second), 3.0, atol=0.3)
    assert np.allclose(rates(third), 2.0, atol=0.2)


@pytest.mark.parametrize("risk", WIDE, ids=named)
def test_second_derivatives_are_symmetric_nonnegative_and_zero_for_constants(risk: RiskMeasure) -> None:
    values, weights = sample(12)
    hessian = torch.stack([risk.second_derivative(values, weights, e) for e in torch.eye(12, dtype=torch.float64)])
    size = float(hessian.abs().max())
    assert torch.allclose(hessian, hessian.T, rtol=0.0, atol=1e-14 * max(size, 1e-300))
    assert float(torch.linalg.eigvalsh(hessian)[0]) >= -1e-14 * size
    assert float(hessian.sum(0).abs().max()) <= 1e-14 * size


def sorted_tail(values: Tensor, weights: Tensor, beta: float) -> float:
    """The mean of the worst share 1 - beta, scenario by scenario."""
    left, total = 1.0 - beta, 0.0
    for value, weight in sorted(zip(values.tolist(), weights.tolist(), strict=True), reverse=True):
        part = min(weight, left)
        total, left = total + part * value, left - part
    return total / (1.0 - beta)


@pytest.mark.parametrize("beta", [0.05, 0.5, 0.83, 0.9, 0.99])
def test_exact_cvar_is_the_mean_of_the_sorted_tail_and_the_minimum_over_t(beta: float) -> None:
    for seed in range(5):
        values, weights = sample(57, seed)
        exact = CVaR(beta).exact(values, weights)
        assert exact == pytest.approx(sorted_tail(values, weights, beta), abs=1e-13)
        minimum = min(float(t + weights @ (values - t).clamp(min=0.0) / (1.0 - beta)) for t in values)
        assert exact == pytest.approx(minimum, abs=1e-13)


@pytest.mark.parametrize("beta", [0.05, 0.5, 0.83, 0.9, 0.99])
def test_smoothed_cvar_tends_to_the_sorted_tail_in_first_order_between_its_bounds(beta: float) -> None:
    values, weights = sample(57)
    tail = sorted_tail(values, weights, beta)
    # A share s of the scenario at the value at risk belongs to the tail; the error of the width is in proportion to
    # H(s).
    at = value_at_risk(values, weights, beta)
    weight = float(weights[values == at])
    share = (1.0 - beta - float(weights[values > at].sum())) / weight
    coin = -share * math.log(share) - (1.0 - share) * math.log(1.0 - share)
    for width in (1e-4, 1e-6, 1e-8, 1e-10):
        risk = CVaR(beta, width)
        value, gap = risk.value(values, weights), risk.gap(weights)
        assert tail - gap <= value <= tail
        missing = gap - width * weight * coin / (1.0 - beta)
        assert tail - value == pytest.approx(missing, rel=1e-6, abs=1e-14)
        assert risk.level(values, weights) == pytest.approx(at, abs=20.0 * width)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.95])
def test_cvar_of_a_normal_distribution_in_closed_form(beta: float) -> None:
    quantile = GAUSS.icdf(torch.tensor(beta, dtype=torch.float64))
    density = float(GAUSS.log_prob(quantile).exp())
    truth = 1.0 + 2.0 * density / (1.0 - beta)  # The distribution is N(1, 2^2).
    errors = []
    for size in (2000, 4000, 8000, 16000, 32000):
        values = 1.0 + 2.0 * GAUSS.icdf(middles(size))
        errors.append(abs(CVaR(beta).exact(values, equal(size)) - truth))
    # The error of the tail beyond the last point is of first order, up to a root of a logarithm.
    assert all(rate > 0.95 for rate in rates(errors)) and errors[-1] < 1e-4
    values, weights = 1.0 + 2.0 * GAUSS.icdf(middles(100_000)), equal(100_000)
    exact = CVaR(beta).exact(values, weights)
    bends, offs = [], []
    for width in (0.4, 0.2, 0.1, 0.05):
        risk = CVaR(beta, width)
        bends.append(risk.value(values, weights) + risk.gap(weights) - exact)
        level = risk.level(values, weights)
        assert level is not None
        offs.append(level - 1.0 - 2.0 * float(quantile))
        # int softplus(s) - plus(s) ds = pi^2 / 6, times the density of N(1, 2^2) at the value at risk.
        leading = width**2 * math.pi**2 / 6.0 * (density / 2.0) / (1.0 - beta)
    assert np.allclose(rates(bends), 2.0, atol=0.05)
    assert bends[-1] == pytest.approx(leading, rel=5e-3)
    # In the formula for the level, -F''/F' replaces the density.
    assert offs[-1] == pytest.approx(width**2 * math.pi**2 / 6.0 * float(quantile) / 2.0, rel=5e-3, abs=1e-9)
    assert beta == 0.5 or np.allclose(rates(offs), 2.0, atol=0.1)


@pytest.mark.parametrize("beta", [0.25, 0.5, 0.9])
def test_cvar_of_a_uniform_distribution_in_closed_form(beta: float) -> None:
    values, weights = middles(20_000), equal(20_000)
    assert CVaR(beta).exact(values, weights) == pytest.approx((1.0 + beta) / 2.0, abs=1e-12)
    assert value_at_risk(values, weights, beta) == pytest.approx(beta, abs=1e-4)
    errors = []
    for width in (0.02, 0.01, 0.005, 0.0025):
        risk = CVaR(beta, width)
        errors.append(risk.value(values, weights) + risk.gap(weights) - (1.0 + beta) / 2.0)
        assert errors[-1] == pytest.approx(width**2 * math.pi**2 / 6.0 / (1.0 - beta), rel=0.02)
        assert risk.level(values, weights) == pytest.approx(beta, abs=1e-3)
    assert np.allclose(rates(errors), 2.0, atol=0.05)


def by_autograd(risk: CVaR, values: Tensor, weights: Tensor) -> tuple[float, float]:
    """The mean of the integrand and its slope in t at the level."""
    t = torch.tensor(risk.level(values, weights), dtype=torch.float64, requires_grad=True)
    mean = t + risk.width * (weights @ torch.log1p(torch.exp((values - t) / risk.width))) / (1.0 - risk.beta)
    (slope,) = torch.autograd.grad(mean, t)
    return float(mean.detach()), float(slope)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9, 0.99])
def test_the_level_minimises_the_integrand(beta: float) -> None:
    values, weights = sample(60)
    risk = CVaR(beta, 0.1)
    mean, slope = by_autograd(risk, values, weights)
    assert abs(slope) < 2e-15 / (1.0 - beta) and risk.value(values, weights) + risk.gap(weights) == pytest.approx(mean)
    level = risk.level(values, weights)
    assert level is not None
    least = risk.integrand(values, level)
    assert float(weights @ least.value) == pytest.approx(risk.value(values, weights), abs=1e-14)
    assert torch.allclose(weights * least.by_value, risk.derivative(values, weights), rtol=1e-12, atol=0.0)
    for t in (level - 0.1, level + 0.1):
        assert float(weights @ risk.integrand(values, t).value) > risk.value(values, weights)


@pytest.mark.parametrize("beta", [0.3, 0.9])
def test_the_derivatives_of_the_integrand_in_values_and_level(beta: float) -> None:
    values, _ = sample(30)
    risk, t, dt = CVaR(beta, 0.3), 0.4, -0.7
    direction = normal(seeded(9), 30)
    at = risk.integrand(values, t)
    slope = at.by_value * direction + at.by_level * dt
    bend = at.curvature * (direction - dt) ** 2
    first, second = [], []
    for h in (0.02, 0.01, 0.005, 0.0025):
        rest = risk.integrand(values + h * direction, t + h * dt).value - at.value - h * slope
        first.append(float(rest.norm()))
        second.append(float((rest - 0.5 * h**2 * bend).norm()))
    assert np.allclose(rates(first), 2.0, atol=0.1)
    assert np.allclose(rates(second), 3.0, atol=0.15)


def test_eliminating_the_level_is_the_schur_complement_of_the_integrand() -> None:
    values, weights = sample(20)
    risk, direction = CVaR(0.8, 0.2), normal(seeded(3), 20)
    level = risk.level(values, weights)
    assert level is not None
    k = weights * risk.integrand(values, level).curvature
    expected = k * direction - k * (k @ direction) / k.sum()
    assert torch.allclose(risk.second_derivative(values, weights, direction), expected, rtol=1e-11, atol=1e-14)


def test_stochastic_gradients_in_control_and_level_find_the_minimum_of_the_risk() -> None:
    """min over v of CVaR of (v - z)^2/2 by stochastic gradients of the integrand, t a variable beside v."""
    z, weights = sample(200)
    risk, g = CVaR(0.8, 0.2), seeded(4)

    def slope(v: float) -> float:
        return float(risk.derivative((v - z) ** 2 / 2.0, weights) @ (v - z))

    low, high = -3.0, 3.0
    while high - low > 1e-12:
        middle = (low + high) / 2.0
        low, high = (low, middle) if slope(middle) > 0.0 else (middle, high)
    v, t, averages = 2.0, 1.0, tensor(0.0, 0.0)
    picks = torch.multinomial(weights, 40_000, replacement=True, generator=g)
    for step, x in enumerate(z[picks].reshape(-1, 10)):
        at = risk.integrand((v - x) ** 2 / 2.0, t)
        rate = 0.5 / (step + 10.0) ** 0.6
        v, t = v - rate * float((at.by_value * (v - x)).mean()), t - rate * float(at.by_level.mean())
        if step >= 1000:
            averages += tensor(v, t) / 3000.0
    level = risk.level((low - z) ** 2 / 2.0, weights)
    assert averages.tolist() == pytest.approx([low, level], abs=0.03)


@pytest.mark.parametrize("risk", [*MONOTONE, MeanPlusDeviation(1.0)], ids=named)
def test_measures_are_translation_equivariant_and_preserve_constants(risk: RiskMeasure) -> None:
    values, weights = sample(50)
    assert risk.value(values + 7.0, weights) == pytest.approx(risk.value(values, weights) + 7.0, abs=1e-13)
    assert risk.exact(values + 7.0, weights) == pytest.approx(risk.exact(values, weights) + 7.0, abs=1e-13)
    assert float(risk.derivative(values, weights).sum()) == pytest.approx(1.0, abs=1e-12)
    constant = torch.full_like(values, -3.0)
    assert risk.value(constant, weights) == pytest.approx(-3.0, abs=1e-13)
    assert risk.exact(constant, weights) == pytest.approx(-3.0, abs=1e-13)
    assert torch.allclose(risk.derivative(constant, weights), weights, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("factor", [1e-12, 0.3, 1e12])
@pytest.mark.parametrize("risk", [*COHERENT, MeanPlusDeviation(1.0)], ids=named)
def test_measures_are_homogeneous_in_values_and_width(risk: RiskMeasure, factor: float) -> None:
    values, weights = sample(50)
    direction = normal(seeded(1), 50)
    scaled, fitted = factor * values, risk.fitted(values, weights)
    other = risk.fitted(scaled, weights)
    assert other.value(scaled, weights) == pytest.approx(factor * fitted.value(values, weights), rel=1e-13)
    assert other.exact(scaled, weights) == pytest.approx(factor * fitted.exact(values, weights), rel=1e-13)
    assert torch.allclose(other.derivative(scaled, weights), fitted.derivative(values, weights), rtol=1e-9, atol=1e-15)
    bend = fitted.second_derivative(values, weights, direction)
    found = other.second_derivative(scaled, weights, factor * direction)
    assert torch.allclose(found, bend, rtol=1e-9, atol=1e-12 * float(bend.abs().max()))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("risk", MONOTONE, ids=named)
def test_monotone_measures_have_probabilities_as_derivatives(risk: RiskMeasure, seed: int) -> None:
    values, weights = sample(50, seed)
    worse = values + normal(seeded(seed + 50), 50).clamp(min=0.0)
    assert risk.value(worse, weights) >= risk.value(values, weights)
    assert risk.exact(worse, weights) >= risk.exact(values, weights)
    assert float(risk.derivative(values, weights).min()) >= 0.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("risk", [*COHERENT, MeanPlusDeviation(2.0)], ids=named)
def test_measures_are_subadditive(risk: RiskMeasure, seed: int) -> None:
    one, weights = sample(50, seed)
    other = 3.0 * normal(seeded(seed + 50), 50)
    assert risk.exact(one + other, weights) <= risk.exact(one, weights) + risk.exact(other, weights) + 1e-14
    # For smoothed measures the widths are added like the values.
    doubled = risk if isinstance(risk, Mean) else replace(risk, scale=2.0)  # type: ignore[type-var]
    assert doubled.value(one + other, weights) <= risk.value(one, weights) + risk.value(other, weights) + 1e-14


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("risk", WIDE, ids=named)
def test_measures_are_convex(risk: RiskMeasure, seed: int) -> None:
    one, weights = sample(50, seed)
    other = 3.0 * normal(seeded(seed + 50), 50)
    chord = 0.3 * risk.value(one, weights) + 0.7 * risk.value(other, weights)
    assert risk.value(0.3 * one + 0.7 * other, weights) <= chord + 1e-14


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("risk", [*WIDE, *SHARP], ids=named)
def test_smoothed_measures_are_between_the_mean_and_the_exact_measure(risk: RiskMeasure, seed: int) -> None:
    values, weights = sample(50, seed)
    value, exact = risk.value(values, weights), risk.exact(values, weights)
    assert float(weights @ values) - 1e-14 <= value <= exact + 1e-14
    assert exact <= value + risk.gap(weights) + 1e-14


def test_gaps_are_attained() -> None:
    weights = equal(8)
    cvar = CVaR(0.75, 1e-3)  # The tail consists of two whole scenarios.
    assert cvar.exact(torch.arange(8.0), weights) == 6.5
    assert cvar.value(torch.arange(8.0), weights) == pytest.approx(6.5 - cvar.gap(weights), abs=1e-14)
    worst = WorstCase(1e-3)
    assert worst.value(torch.arange(8.0), weights) == pytest.approx(7.0 - 1e-3 * math.log(8.0), abs=1e-14)
    assert worst.gap(weights) == pytest.approx(1e-3 * math.log(8.0))


def test_cvar_grows_with_its_level() -> None:
    values, weights = sample(200)
    found = [CVaR(beta, 0.05).value(values, weights) for beta in (1e-6, 0.1, 0.5, 0.9, 0.99, 1.0 - 1e-6)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(float(weights @ values), abs=1e-5)
    assert CVaR(1.0 - 1e-6).exact(values, weights) == pytest.approx(float(values.max()), abs=1e-14)
    assert CVaR(1.0 - 1e-6, 1e-8).derivative(values, weights)[values.argmax()] == pytest.approx(1.0, abs=1e-9)


def test_entropic_risk_between_mean_and_maximum_with_its_limits() -> None:
    values, weights = sample(100)
    mean, top = float(weights @ values), float(values.max())
    variance = float(weights @ (values - mean) ** 2)
    found = [Entropic(theta).value(values, weights) for theta in np.logspace(-8, 6, 29)]
    assert found == sorted(found) and mean < found[4] and found[-1] < top
    assert top - found[-1] == pytest.approx(-math.log(float(weights[values.argmax()])) * 1e-6, rel=1e-6)
    rests = []
    for theta in (0.1, 0.05, 0.025, 0.0125):
        rests.append(abs(Entropic(theta).value(values, weights) - mean - 0.5 * theta * variance))
    assert np.allclose(rates(rests), 2.0, atol=0.2)
    # The difference to the mean is theta/2 variance, up to rounding.
    assert (Entropic(1e-6).value(values, weights) - mean) / 0.5e-6 == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize("theta", [0.1, 1.0, 5.0])
def test_entropic_risk_of_a_normal_distribution_in_closed_form(theta: float) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    probabilities = torch.from_numpy(weights / weights.sum())
    value = Entropic(theta).value(torch.from_numpy(1.0 + 0.5 * nodes), probabilities)
    assert value == pytest.approx(1.0 + theta * 0.25 / 2.0, rel=1e-12)


def test_mean_plus_deviation_against_numpy() -> None:
    values, weights = sample(80)
    mean = np.average(values.numpy(), weights=weights.numpy())
    deviation = math.sqrt(np.average((values.numpy() - mean) ** 2, weights=weights.numpy()))
    for c in (0.0, 0.5, 3.0):
        assert MeanPlusDeviation(c).exact(values, weights) == pytest.approx(mean + c * deviation, rel=1e-14)
        plain = MeanPlusDeviation(c).exact(values, equal(80))
        assert plain == pytest.approx(values.numpy().mean() + c * values.numpy().std(), rel=1e-13)
        errors = []
        for width in (1e-1, 1e-2, 1e-3, 1e-4):
            risk = MeanPlusDeviation(c, width)
            errors.append(mean + c * (deviation - width) + 0.5 * c * width**2 / deviation - risk.value(values, weights))
        assert abs(errors[0]) < 1e-4 and abs(errors[1]) < 1e-8 and abs(errors[2]) < 1e-12
    assert MeanPlusDeviation(0.0).linear and not MeanPlusDeviation(0.5).linear


@pytest.mark.parametrize("c", [0.5, 3.0])
def test_mean_plus_deviation_at_zero_variance_is_smooth(c: float) -> None:
    weights, width = sample(10)[1], 1e-4
    constant, direction = torch.full_like(weights, 2.0), normal(seeded(5), 10)
    risk = MeanPlusDeviation(c, width)
    assert torch.equal(risk.derivative(constant, weights), weights)
    expected = c / width * weights * (direction - weights @ direction)
    assert torch.allclose(risk.second_derivative(constant, weights, direction), expected, rtol=1e-12)
    rest = []
    for h in (8e-6, 4e-6, 2e-6, 1e-6):
        change = risk.derivative(constant + h * direction, weights) - weights
        rest.append(float((change - h * expected).norm()))
    assert np.allclose(rates(rest), 3.0, atol=0.05)  # The measure is even about a constant.


def test_mean_plus_deviation_is_not_monotone() -> None:
    values, weights = tensor(-1.0, 0.0, 0.0, 0.0, 0.0), equal(5)
    assert float(MeanPlusDeviation(1.0).derivative(values, weights)[0]) < 0.0


@pytest.mark.parametrize("risk", [*WIDE, *SHARP], ids=named)
def test_unequal_weights_are_repeated_scenarios(risk: RiskMeasure) -> None:
    values, counts = normal(seeded(2), 6), torch.tensor([1, 4, 2, 1, 3, 1])
    weights, direction = counts / counts.sum().double(), normal(seeded(3), 6)
    many, flat = values.repeat_interleave(counts), equal(12)
    owner = torch.arange(6).repeat_interleave(counts)

    def together(parts: Tensor) -> Tensor:
        return torch.zeros(6, dtype=torch.float64).index_add(0, owner, parts)

    assert risk.value(many, flat) == pytest.approx(risk.value(values, weights), abs=1e-13)
    assert risk.exact(many, flat) == pytest.approx(risk.exact(values, weights), abs=1e-13)
    assert torch.allclose(together(risk.derivative(many, flat)), risk.derivative(values, weights), atol=1e-12)
    bend = risk.second_derivative(values, weights, direction)
    assert torch.allclose(together(risk.second_derivative(many, flat, direction[owner])), bend, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("risk", [*WIDE, *SHARP], ids=named)
def test_scenarios_without_probability_do_not_count(risk: RiskMeasure) -> None:
    values, weights = sample(9)
    more, padded = torch.cat([tensor(50.0), values, tensor(-50.0)]), torch.cat([tensor(0.0), weights, tensor(0.0)])
    assert risk.value(more, padded) == pytest.approx(risk.value(values, weights), abs=1e-13)
    assert risk.exact(more, padded) == pytest.approx(risk.exact(values, weights), abs=1e-13)
    derivative = risk.derivative(more, padded)
    assert float(derivative[0]) == float(derivative[-1]) == 0.0
    assert torch.allclose(derivative[1:-1], risk.derivative(values, weights), atol=1e-12)
    bend = risk.second_derivative(more, padded, torch.cat([tensor(1.0), values, tensor(1.0)]))
    assert bool(bend.isfinite().all())


@pytest.mark.parametrize("value", [0.0, 1e-12, -3.0, 1e12])
@pytest.mark.parametrize("risk", [*WIDE, *SHARP], ids=named)
def test_measures_of_one_scenario_are_its_value(risk: RiskMeasure, value: float) -> None:
    values, weights = tensor(value), tensor(1.0)
    for each in (risk, risk.fitted(values, weights)):
        assert each.value(values, weights) == pytest.approx(value, rel=1e-14, abs=1e-15)
        assert each.exact(values, weights) == value
        assert each.derivative(values, weights).tolist() == pytest.approx([1.0], abs=1e-12)
        bend = each.second_derivative(values, weights, tensor(1.0))
        assert abs(float(bend)) <= 1e-12 * max(1.0, 1.0 / abs(value) if value else 1.0)


@pytest.mark.parametrize("risk", SHARP, ids=named)
def test_small_differences_of_large_values_are_kept(risk: RiskMeasure) -> None:
    """Values are multiples of 2^-10, so that adding 2^40 is exact."""
    values, weights = (sample(50)[0] * 1024.0).round() / 1024.0, equal(50)
    direction = normal(seeded(1), 50)
    large = values + 2.0**40
    assert risk.value(large, weights) - 2.0**40 == pytest.approx(risk.value(values, weights), abs=5e-4)
    derivative, bend = risk.derivative(values, weights), risk.second_derivative(values, weights, direction)
    assert torch.allclose(risk.derivative(large, weights), derivative, rtol=1e-11, atol=0.0)
    found = risk.second_derivative(large, weights, direction)
    assert torch.allclose(found, bend, rtol=1e-10, atol=1e-12 * float(bend.abs().max()))


@pytest.mark.parametrize("smoothing", [1e-14, 1e-6, 1e6])
@pytest.mark.parametrize("kind", [CVaR(0.9), CVaR(0.85), WorstCase(), MeanPlusDeviation(1.0)], ids=named)
def test_the_level_is_exact_up_to_rounding_for_any_width(kind: RiskMeasure, smoothing: float) -> None:
    values, weights = sample(10)[0], equal(10)
    risk = replace(kind, smoothing=smoothing)  # type: ignore[type-var]
    assert float(risk.derivative(values, weights).sum()) == pytest.approx(1.0, abs=1e-12)
    assert bool(risk.second_derivative(values, weights, values).isfinite().all())
    limit = float(weights @ values) if smoothing > 1.0 else risk.exact(values, weights)
    assert risk.value(values, weights) == pytest.approx(limit, abs=2e-5)


def test_fitted_widths_follow_the_spread_and_not_the_mean() -> None:
    values, weights = sample(50)
    deviation = float(weights @ (values - weights @ values) ** 2) ** 0.5
    for risk in (CVaR(0.9), WorstCase(), MeanPlusDeviation(1.0)):
        for shift in (0.0, 1e3):
            fitted = risk.fitted(values + shift, weights)
            assert fitted.width == pytest.approx(risk.smoothing * deviation, rel=1e-10)
        same = torch.full_like(values, -4.0)
        assert risk.fitted(same, weights).width == 4.0 * risk.smoothing
        assert risk.fitted(0.0 * values, weights).width == risk.smoothing
    for risk in (Mean(), Entropic(2.0)):
        assert risk.fitted(values, weights) is risk


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("risk", [*WIDE, *SHARP], ids=named)
def test_a_failed_scenario_fails_the_measure(risk: RiskMeasure, bad: float) -> None:
    values, weights = sample(5)
    values[2] = bad
    assert not math.isfinite(risk.value(values, weights))
    assert not math.isfinite(risk.exact(values, weights))
    if not risk.linear:
        assert not bool(risk.derivative(values, weights).isfinite().all())
        with pytest.raises(ValueError, match="values: expected finite ones"):
            CVaR(0.9).fitted(values, weights)


@pytest.mark.parametrize(
    ("build", "field"),
    [
        *[(lambda beta=beta: CVaR(beta), "beta") for beta in (0.0, 1.0, -0.1, 1.5, math.nan)],
        *[(lambda theta=theta: Entropic(theta), "theta") for theta in (0.0, -1.0, math.inf, math.nan)],
        *[(lambda c=c: MeanPlusDeviation(c), "c") for c in (-1e-9, math.inf, math.nan)],
        (lambda: CVaR(0.9, 0.0), "smoothing"),
        (lambda: WorstCase(-1.0), "smoothing"),
        (lambda: MeanPlusDeviation(1.0, math.nan), "smoothing"),
        (lambda: CVaR(0.9, scale=0.0), "scale"),
    ],
)
def test_parameters_out_of_range_are_named(build, field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: expected a .*, found -?(\d|nan|inf)"):
        build()


def test_values_and_weights_that_do_not_fit_are_refused() -> None:
    risk = CVaR(0.9)
    with pytest.raises(ValueError, match=r"weights: expected one for each of 3 values, found shape \(2,\)"):
        risk.value(tensor(1.0, 2.0, 3.0), equal(2))
    with pytest.raises(ValueError, match=r"values: expected one number a scenario, found shape \(0,\)"):
        risk.value(tensor(), tensor())
    with pytest.raises(ValueError, match=r"sum to 1, found a sum of 1\.5"):
        risk.derivative(tensor(1.0, 2.0), tensor(0.5, 1.0))
    signed = tensor(-0.5, 1.5)
    with pytest.raises(ValueError, match=r"found -0\.5; under quadrature weights of both signs only the mean"):
        risk.exact(tensor(1.0, 2.0), signed)
    assert Mean().value(tensor(1.0, 2.0), signed) == 2.5


@pytest.mark.parametrize("size", [10, 100, 1000, 100_000])
def test_value_at_risk_where_the_level_is_reached_up_to_the_rounding_of_sums(size: int) -> None:
    values = torch.arange(size, dtype=torch.float64)
    for beta in (0.1, 0.3, 0.7, 0.9):
        assert value_at_risk(values, equal(size), beta) == round(beta * size) - 1
        assert value_at_risk(values, equal(size), beta + 0.5 / size) == round(beta * size)


def test_a_tail_of_very_small_probability_is_exact() -> None:
    tail = 2.0**-40
    values, weights = tensor(4.0, 1.0, 2.0), tensor(0.25 * tail, 1.0 - 0.5 * tail, 0.25 * tail)
    assert CVaR(1.0 - tail).exact(values, weights) == pytest.approx(0.25 * 4.0 + 0.25 * 2.0 + 0.5, rel=1e-14)


def test_an_outlier_of_small_probability_leaves_the_deviation_centred() -> None:
    values = torch.cat([tensor(1e12), normal(seeded(0), 20)])
    weights = torch.cat([tensor(1e-20), equal(20)])
    assert float(MeanPlusDeviation(1.0).derivative(values, weights).sum()) == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parametrize("risk", SHARP, ids=named)
def test_values_whose_squares_overflow_have_finite_measures(risk: RiskMeasure) -> None:
    values, weights = tensor(1.0, 2.0, -3.0), equal(3)
    value, exact = risk.value(1e300 * values, weights), risk.exact(1e300 * values, weights)
    assert value == pytest.approx(exact, rel=1e-12) and 0.0 <= value <= 1e301
    assert float(risk.derivative(1e300 * values, weights).sum()) == pytest.approx(1.0, abs=1e-14)
