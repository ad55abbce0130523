"""Tests of the objective as a function of the control alone: its hypergradient and its Hessian."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from ..engine.curvature.factored import Factored
from ..engine.inner_loop import InnerOptions
from ..engine.nhgd import NHGD, HypergradientOptions
from ..linalg.differences import central_difference
from ..linalg.safe_lengths import dot
from ..methods.adjoint import Adjoint
from .assembled import gap
from .checks import DIFFERENCES, RATE, Check, compared
from .point import TIGHT, Place

# Longest step, and number of steps, of differences for which every value takes a solve.
_LONGEST, _LEVELS = 1.0 / 16.0, 5
# One-sided differences take half as many solves a step, and need more steps.
_LEVELS_SIDED = 8
# Derivatives below these shares of the objective, or of the change of the gradient, have few digits. The first share is
# for differences, which estimate their errors, the second for comparisons without such an estimate.
_LITTLE, _ROUNDED = 1e-6, 1e-3
_DIRECTIONS = 16
_SCORES = 512
_FISHER = "Fisher against Hessian"


def reduced_checks(place: Place) -> Iterator[Check]:
    """The hypergradient against the exact adjoint and against differences of the objective; and the Hessian."""
    problem, v, exact = place.problem, place.v, place.exact
    adjoint = Adjoint()
    _, explicit = problem.outer_derivatives(place.solution, v)
    nhgd = NHGD(InnerOptions(), Factored(), HypergradientOptions(tolerance=1e-12))
    ours, _ = nhgd.evaluate(problem, v, nhgd.init(problem, place.solution, v), TIGHT)
    if not ours.finite:
        yield Check("hypergradient", math.nan, f"the state could not be solved: {ours.message or 'not finite'}", False)
        return
    directions = [place.smooth_control_direction(), place.control_direction()]
    levels = _LEVELS_SIDED if place.sided else _LEVELS
    hessian = adjoint.hessian(problem, v, place.known)
    metric = problem.outer_metric
    # A gradient that is zero to rounding is compared with its change nearby, and with the objective.
    step, bent = directions[0], hessian(directions[0])
    change, length = metric.norm(metric.gradient(bent[None])), metric.norm(step[None])
    least = _ROUNDED * abs(exact.value) / length if length > 0.0 else 0.0
    size = max(metric.norm(exact.gradient[None]), _ROUNDED * change, least)
    if place.ended:
        # At an optimum the parts of the gradient cancel.
        parts = (explicit, exact.derivative - explicit)
        size = max(size, change, *(metric.norm(metric.gradient(each[None])) for each in parts))
    value = metric.norm((ours.gradient - exact.gradient)[None])
    value = value / size if size > 0.0 else value
    yield Check("hypergradient against exact adjoint", value, "at most 1e-8", value <= 1e-8)

    claims, found, sizes, bends, differences = [], [], [], [], []
    for k, direction in enumerate(directions):
        evaluate = cache(_along(place, adjoint, direction))
        slope = dot(ours.derivative, direction)
        if k == 0:
            yield _rate_check(place, evaluate, slope, abs(dot(bent, direction)))

        def values(t: float, evaluate: Callable[[float], tuple[float, Tensor]] = evaluate) -> Tensor:
            return torch.tensor(evaluate(t)[0], dtype=v.dtype)

        def slopes(t: float, evaluate: Callable[[float], tuple[float, Tensor]] = evaluate) -> Tensor:
            # Multiplied by the size of each control, the entries have one unit.
            return evaluate(t)[1] * place.room

        claims.append(torch.tensor(slope, dtype=v.dtype))
        found.append(central_difference(values, _LONGEST, levels, **place.way))
        bend = hessian(direction)
        curvature = abs(dot(bend, direction))
        if place.ended:
            parts = (explicit, exact.derivative - explicit)
            sizes.append(sum(abs(dot(each, direction)) for each in parts) + curvature)
        else:
            sizes.append(_LITTLE * (abs(exact.value) + curvature))
        bends.append(bend * place.room)
        differences.append(central_difference(slopes, _LONGEST, levels, **place.way))
    yield from filter(None, [compared(DIFFERENCES, claims, found, sizes)])
    other = place.smooth_control_direction()
    image, across = hessian(directions[0]), hessian(other)
    size = float((image * other).abs().sum() + (across * directions[0]).abs().sum()) + _ROUNDED * abs(exact.value)
    value = gap(dot(image, other), dot(across, directions[0]), size)
    seen = math.isfinite(size) or not math.isfinite(abs(exact.value))
    expected = "at most 1e-10" if seen else "at most 1e-10, not seen at all"
    yield Check("symmetry of the reduced Hessian", value, expected, value <= 1e-10 or not seen)
    lengths = [float(bend.abs().max()) + _LITTLE * abs(exact.value) for bend in bends]
    yield from filter(None, [compared("reduced Hessian against differences", bends, differences, lengths)])


def _along(place: Place, adjoint: Adjoint, direction: Tensor) -> Callable[[float], tuple[float, Tensor]]:
    """t -> objective and derivative at v + t direction, from states along the tangent."""
    problem, u, v = place.problem, place.solution, place.v
    tangent = -problem.state_factors(u, v).solve(problem.control_product(u, v, direction))

    def evaluate(t: float) -> tuple[float, Tensor]:
        if not t:
            return place.exact.value, place.exact.derivative
        start = replace(place.known, u=u + t * tangent)
        moved, _ = adjoint.evaluate(problem, v + t * direction, start, TIGHT)
        if not moved.finite:
            # The equation has no solution there, or makes no sense.
            return math.nan, torch.full_like(v, math.nan)
        return moved.value, moved.derivative

    return evaluate


def _rate_check(
    place: Place, evaluate: Callable[[float], tuple[float, Tensor]], slope: float, curvature: float
) -> Check:
    """The remainder of first order falls with the square of the step."""
    value = max(abs(place.exact.value), curvature)

    def remainder(t: float) -> float:
        return abs(evaluate(t)[0] - place.exact.value - t * slope)

    size = value + abs(slope)
    longest = 1.0 if place.problem.bounds is not None else math.inf
    first = remainder(0.25)
    if first <= 1e-11 * size and remainder(0.125) <= 1e-11 * size:
        return Check(
            "Taylor remainder of the objective (affine)", first / size if size else first, "at most 1e-11", True
        )
    rate = taylor_rate(remainder, value, longest)
    if math.isnan(rate) and math.isfinite(slope):
        # As at the edge of a range of a coefficient: no step is both admissible and clear of rounding.
        return Check(RATE, rate, "at least 1.9, not seen at all", True, math.inf)
    return Check(RATE, rate, "at least 1.9", rate >= 1.9)


def taylor_rate(remainder: Callable[[float], float], value: float, longest: float = math.inf) -> float:
    """The rate at which the remainder falls, the smallest of the last three steps that stand clear of rounding.

    The first ones may be too long for the second order to dominate. Steps begin where the remainder is small against
    the objective and go down to where a relative error of about 1e-4 in the gradient would show as a rate of one.
    """
    t, size = 1.0, remainder(1.0)
    for _ in range(60):
        if not math.isfinite(size) or size > 1e-3 * abs(value):
            t *= 0.25
        elif size < 1e-5 * abs(value) and 4.0 * t <= longest:
            t *= 4.0
        else:
            break
        size = remainder(t)
    rates = []
    for _ in range(8):
        t *= 0.25
        smaller = remainder(t)
        if smaller < 1e-11 * abs(value):
            break
        rates.append(math.log(size / smaller, 4.0))
        size = smaller
    return min(rates[-3:], default=math.nan)


def fisher_check(place: Place) -> Check:
    """Covariance of sampled scores against the Hessian, along random directions z: mean <s, z>^2 over <z, H z>."""
    problem, u, v = place.problem, place.u, place.v
    scenarios, n = u.shape
    directions = place.unit * place.noise((_DIRECTIONS, scenarios, n))
    squares = torch.zeros(_DIRECTIONS, dtype=u.dtype, device=u.device)
    expected = torch.stack([(z * problem.hessian_product(u, v, z)).sum() for z in directions])
    bound = 5.0 * math.sqrt(2.0 / (_SCORES * min(_DIRECTIONS, scenarios * n)))
    expected_text = f"at most {bound:.2g} (five standard errors)"
    if not bool((expected.isfinite() & (expected.abs() > torch.finfo(u.dtype).tiny)).all()):
        # Squares of the state overflow or underflow at the edge of the range of a coefficient.
        return Check(_FISHER, math.nan, f"{expected_text}, not seen at all", True, math.inf)
    roots = expected.sqrt()
    batch = 32
    for _ in range(_SCORES // batch):
        scores = problem.batch(u, v, problem.sample(batch, place.generator)).scores
        squares += ((directions.reshape(_DIRECTIONS, -1) @ scores) / roots[:, None]).square().sum(1)
    deviation = float((squares / _SCORES - 1.0).mean())
    return Check(_FISHER, deviation, expected_text, abs(deviation) <= bound)
