"""Derivatives of functions by differences, each entry with an estimate of its own error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Ratio of each step to the next shorter one, and largest number of even orders of the error that are eliminated.
_FACTOR, _COLUMNS = 4.0, 5
# Ratio of the second set of steps to the first one, so that no length is in both sets. Products with it are exact.
_OTHER = 0.75
# Estimated error that is small enough, relative to the derivative plus 1e-3 of the largest derivative.
_ENOUGH, _LITTLE = 1e-9, 1e-3
# Assumed ratio of the parts of a derivative that cancel to the value of the function, for steps of unit length.
_CANCELLED = 64.0
# Derivatives on both sides that differ by more than this share of themselves show a jump.
_JUMP = 1e-2


@dataclass(frozen=True)
class EstimatedDerivative:
    """A derivative by differences.

    Attributes:
        value: the derivative.
        doubt: an estimate of its error, entry by entry; infinite where no step gives finite values.
        kinks: where the derivatives on both sides differ over steps of several lengths: at or near a kink.
    """

    value: Tensor
    doubt: Tensor
    kinks: Tensor


def central_difference(
    function: Callable[[float], Tensor],
    longest: float = 0.25,
    levels: int = 9,
    parts: Tensor | float = 0.0,
    sided: bool = False,
    blur: float = 0.0,
) -> EstimatedDerivative:
    """The derivative of t -> function(t), a tensor, at 0.

    Central differences over the steps `longest` / 4^k, with Richardson's extrapolation in the even powers of the step;
    each entry is taken from the place in the triangle where neighbours agree best (C. Ridders, Advances in Engineering
    Software 4, 1982). One-sided derivatives that differ, at a kink, count as doubt: the difference of the two is
    extrapolated in the odd powers of the step, which smooth functions have.

    Args:
        function: the function of t.
        longest: the longest step, in the unit of t.
        levels: largest number of steps.
        parts: size of the terms whose sum the values are, where the terms are larger than the values.
        sided: the function has values for t >= 0 alone. One-sided differences are extrapolated in all powers of the
            step; a kink at 0 is not seen.
        blur: size of the rounded arguments of the function relative to their change over a step of unit length.
    """
    middle = function(0.0)
    power = 1 if sided else 2
    best, doubt = torch.zeros_like(middle), torch.full_like(middle, math.inf)
    kinks, lasting = torch.zeros_like(middle, dtype=torch.bool), torch.ones_like(middle, dtype=torch.bool)
    slopes: list[Tensor] = []
    bends: list[Tensor] = []
    change, before = torch.full_like(middle, math.inf), torch.full_like(middle, math.inf)
    for k in range(levels):
        step = longest * _FACTOR**-k
        ahead = function(step)
        behind = middle if sided else function(-step)
        # These are rounding errors of the values, and of the derivative to compare with, which may be a sum of terms
        # that cancel.
        number = torch.finfo(middle.dtype)
        rounding = number.eps * (ahead.abs() + behind.abs() + parts + number.tiny) * (1.0 / step + _CANCELLED)
        slope, bend = [(ahead - behind) / (power * step)], [((ahead - middle) + (behind - middle)) / step]
        rounding = rounding + number.eps * blur / step * slope[0].abs()
        if sided:
            bend = [torch.zeros_like(middle)]
        for j in range(1, min(k, _COLUMNS) + 1):
            slope.append(slope[-1] + (slope[-1] - slopes[j - 1]) / (_FACTOR ** (power * j) - 1.0))
            bend.append(bend[-1] + (bend[-1] - bends[j - 1]) / (_FACTOR ** (2 * j - 1) - 1.0))
            unlike = torch.maximum((slope[j] - slope[j - 1]).abs(), (slope[j] - slopes[j - 1]).abs())
            error = unlike + 0.5 * bend[j].abs() + rounding
            # Comparisons with NaN are false, so that estimates that are not numbers are never taken.
            better = error < doubt
            best, doubt = torch.where(better, slope[j], best), torch.where(better, error, doubt)
        if k:
            change, before = (slope[0] - slopes[0]).abs(), change
            # Shorter steps should agree better with a derivative; otherwise longer steps did not resolve the function.
            apart = (slope[0] - best).abs()
            doubt = torch.where(apart > 0.5 * change + 8.0 * rounding, torch.maximum(doubt, apart), doubt)
        if k > 1:
            size, bent = best.abs() + slope[0].abs(), bend[0].abs()
            # From one step to the next, the smooth part falls by a factor of four, rounding errors rise by four, and a
            # jump stays.
            steady = (bent > 0.5 * bends[0].abs()) & (bent < 2.0 * bends[0].abs())
            kinks = kinks | (steady & lasting & (bent > _JUMP * size + 4.0 * rounding))
            lasting = steady
        slopes, bends = slope, bend
        if bool((doubt <= _ENOUGH * (best.abs() + _LITTLE * best.abs().max())).all()):
            return EstimatedDerivative(best, doubt, kinks)
    lost = (change > 0.5 * before + 8.0 * rounding) & (change > _JUMP * slopes[0].abs())
    return EstimatedDerivative(best, torch.where(lost, math.inf, doubt), kinks)


def sure_difference(
    function: Callable[[float], Tensor],
    longest: float = 0.25,
    levels: int = 9,
    sided: bool = False,
    blur: float = 0.0,
) -> EstimatedDerivative:
    """The same over two sets of steps, which differ where an estimate agreed with its neighbours by chance."""
    first, second = (
        central_difference(function, part * longest, levels, sided=sided, blur=blur) for part in (1.0, _OTHER)
    )
    nearer = first.doubt <= second.doubt
    unlike = (first.value - second.value).abs()
    least = torch.minimum(first.doubt, second.doubt)
    both = first.doubt.isfinite() & second.doubt.isfinite()
    doubt = torch.where(both, torch.maximum(least, unlike), least)
    return EstimatedDerivative(torch.where(nearer, first.value, second.value), doubt, first.kinks | second.kinks)


@dataclass(frozen=True)
class PointFunction:
    """A function that acts point by point, and the derivatives that are claimed to be its own.

    Attributes:
        name: for people.
        x: (dim, P) the points.
        at: its arguments, each (components, rows, P).
        groups: the sets of components that are changed together: a name, the number of the argument, the components.
        value: arguments -> value (..., rows, P).
        first: changes of the arguments -> the change of the value that the derivatives claim.
        gradient: arguments and tests (..., rows, P) -> the derivatives of (value tests).sum(), of the shapes of `at`.
        second: tests and changes of the arguments -> the change of `gradient` that second derivatives claim.
        kept: (P,) mask of the points that are tested.
        of_controls: a change of all controls (p,) -> the change of the last argument; None where there is no control.
    """

    name: str
    x: Tensor
    at: tuple[Tensor, ...]
    groups: tuple[tuple[str, int, tuple[int, ...]], ...]
    value: Callable[..., Tensor]
    first: Callable[[tuple[Tensor, ...]], Tensor]
    gradient: Callable[[tuple[Tensor, ...], Tensor], tuple[Tensor, ...]]
    second: Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
    kept: Tensor
    of_controls: Callable[[Tensor], Tensor] | None = None
