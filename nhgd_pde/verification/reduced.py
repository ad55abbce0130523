"""Tests of the objective as a function of the control alone: its hypergradient and its Hessian."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from ..engine.curvature.factored import Factored
from ..engine.inner_loop import InnerOptions
from ..engine.nhgd import NHGD, HypergradientOptions
from ..linalg.differences import EstimatedDerivative, central_difference
from ..linalg.safe_lengths import dot
from ..methods.adjoint import Adjoint
from .assembled import gap
from .checks import DIFFERENCES, RATE, Check, compared
from .neighbourhood import TIGHT, Neighbourhood

# The objective and its derivative (p,) as a function of the length of a step.
Evaluations = Callable[[float], tuple[float, Tensor]]

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


def reduced_checks(near: Neighbourhood) -> Iterator[Check]:
    """The hypergradient against the exact adjoint and against differences of the objective; and the Hessian."""
    problem, v = near.problem, near.v
    nhgd = NHGD(InnerOptions(), Factored(), HypergradientOptions(tolerance=1e-12))
    ours, _ = nhgd.evaluate(problem, v, nhgd.init(problem, near.solution, v), TIGHT)
    if not ours.finite:
        yield Check("hypergradient", math.nan, f"the state could not be solved: {ours.message or 'not finite'}", False)
        return
    directions = [near.smooth_control_direction(), near.control_direction()]
    hessian = Adjoint().hessian(problem, v, near.known)
    bends = [hessian(direction) for direction in directions]
    curvatures = [abs(dot(bend, direction)) for bend, direction in zip(bends, directions, strict=True)]
    slopes = [dot(ours.derivative, direction) for direction in directions]
    along = [cache(_along(near, Adjoint(), direction)) for direction in directions]
    yield _against_exact_adjoint(near, ours.gradient, directions[0], bends[0])
    yield _rate_check(near, along[0], slopes[0], curvatures[0])
    sizes = [_LITTLE * (abs(near.exact.value) + curvature) for curvature in curvatures]
    if near.ended:
        parts = _parts(near)
        sizes = [
            sum(abs(dot(each, direction)) for each in parts) + curvature
            for direction, curvature in zip(directions, curvatures, strict=True)
        ]
    claims, found = [torch.tensor(slope, dtype=v.dtype) for slope in slopes], _differences(near, along, _value)
    yield from filter(None, [compared(DIFFERENCES, claims, found, sizes)])
    other = near.smooth_control_direction()
    yield _symmetry_check(near, (directions[0], bends[0]), (other, hessian(other)))
    # Multiplied by the size of each control, the entries have one unit.
    claims, found = [bend * near.room for bend in bends], _differences(near, along, lambda at: at[1] * near.room)
    sizes = [float(claim.abs().max()) + _LITTLE * abs(near.exact.value) for claim in claims]
    yield from filter(None, [compared("reduced Hessian against differences", claims, found, sizes)])


def _value(at: tuple[float, Tensor]) -> Tensor:
    return torch.tensor(at[0], dtype=at[1].dtype)


def _parts(near: Neighbourhood) -> tuple[Tensor, Tensor]:
    """(p,) the two parts of the derivative: of the objective by the controls, and through the state."""
    _, explicit = near.problem.outer_derivatives(near.solution, near.v)
    return explicit, near.exact.derivative - explicit


def _against_exact_adjoint(near: Neighbourhood, gradient: Tensor, step: Tensor, bend: Tensor) -> Check:
    """A gradient (p,) against the exact one; `bend` is the Hessian applied to a step (p,)."""
    metric, exact = near.problem.outer_metric, near.exact
    # A gradient that is zero to rounding is compared with its change nearby, and with the objective.
    change, length = metric.norm(metric.gradient(bend[None])), metric.norm(step[None])
    least = _ROUNDED * abs(exact.value) / length if length > 0.0 else 0.0
    size = max(metric.norm(exact.gradient[None]), _ROUNDED * change, least)
    if near.ended:
        # At an optimum the parts of the gradient cancel.
        size = max(size, change, *(metric.norm(metric.gradient(each[None])) for each in _parts(near)))
    value = metric.norm((gradient - exact.gradient)[None])
    value = value / size if size > 0.0 else value
    return Check("hypergradient against exact adjoint", value, "at most 1e-8", value <= 1e-8)


def _differences(
    near: Neighbourhood, along: Sequence[Evaluations], part: Callable[[tuple[float, Tensor]], Tensor]
) -> list[EstimatedDerivative]:
    """The derivatives by the step length, at zero, of a part of the evaluations; every evaluation takes a solve."""
    levels = _LEVELS_SIDED if near.sided else _LEVELS

    def moved(evaluate: Evaluations, t: float) -> Tensor:
        return part(evaluate(t))

    return [central_difference(partial(moved, each), _LONGEST, levels, **near.options) for each in along]


def _symmetry_check(near: Neighbourhood, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Check:
    """The symmetry of the Hessian, for two directions (p,), each with the Hessian applied to it."""
    (a, image), (b, across) = one, other
    size = float((image * b).abs().sum() + (across * a).abs().sum()) + _ROUNDED * abs(near.exact.value)
    value = gap(dot(image, b), dot(across, a), size)
    seen = math.isfinite(size) or not math.isfinite(abs(near.exact.value))
    expected = "at most 1e-10" if seen else "at most 1e-10, not seen at all"
    return Check("symmetry of the reduced Hessian", value, expected, value <= 1e-10 or not seen)


def _along(near: Neighbourhood, adjoint: Adjoint, direction: Tensor) -> Evaluations:
    """t -> objective and derivative at v + t direction, from states along the tangent."""
    problem, u, v = near.problem, near.solution, near.v
    tangent = -problem.state_factors(u, v).solve(problem.control_product(u, v, direction))

    def evaluate(t: float) -> tuple[float, Tensor]:
        if not t:
            return near.exact.value, near.exact.derivative
        start = replace(near.known, u=u + t * tangent)
        moved, _ = adjoint.evaluate(problem, v + t * direction, start, TIGHT)
        if not moved.finite:
            # The equation has no solution there, or makes no sense.
            return math.nan, torch.full_like(v, math.nan)
        return moved.value, moved.derivative

    return evaluate


def _rate_check(near: Neighbourhood, evaluate: Evaluations, slope: float, curvature: float) -> Check:
    """The remainder of first order falls with the square of the step."""
    value = max(abs(near.exact.value), curvature)

    def remainder(t: float) -> float:
        return abs(evaluate(t)[0] - near.exact.value - t * slope)

    size = value + abs(slope)
    longest = 1.0 if near.problem.bounds is not None else math.inf
    first = remainder(0.25)
    if first <= 1e-11 * size and remainder(0.125) <= 1e-11 * size:
        share = first / size if size else first
        return Check("Taylor remainder of the objective (affine)", share, "at most 1e-11", True)
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


def fisher_check(near: Neighbourhood) -> Check:
    """Covariance of sampled scores against the Hessian, along random directions z: mean <s, z>^2 over <z, H z>."""
    problem, u, v = near.problem, near.u, near.v
    scenarios, n = u.shape
    directions = near.unit * near.noise((_DIRECTIONS, scenarios, n))
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
        scores = problem.batch(u, v, problem.sample(batch, near.generator)).scores
        squares += ((directions.reshape(_DIRECTIONS, -1) @ scores) / roots[:, None]).square().sum(1)
    deviation = float((squares / _SCORES - 1.0).mean())
    return Check(_FISHER, deviation, expected_text, abs(deviation) <= bound)
