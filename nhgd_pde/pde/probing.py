"""Tests of a user's pointwise function: whether its derivatives belong to its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .derivatives import leaves

# Sizes of the states and controls at which a function is tried, in their units.
SCALES = (1e-3, 1.0, 30.0)
# Largest share of the points with a kink between the ends of a difference, and between those of a longer segment.
_SHARE, _SHARE_OF_SEGMENTS = 0.01, 0.05
# A derivative at a point is wrong if its relative error is above the first number. The second one is the relative
# rounding error of values, which subtractions inside a function increase.
_WRONG, _ROUNDING = 1e-3, 1e-12
# Lengths of a difference and of a segment, relative to the size of the arguments.
_STEP, _SEGMENT = 1e-6, 0.1
# Number of nodes of Gauss's rule on a segment.
_NODES = 5

_HOW = (
    "does it use detach, no_grad, data, item, float, numpy, floor, round or sign, through which derivatives do not "
    "pass, or numbers of single precision, or does it mix points?"
)
NOT_ITS_DERIVATIVE = f"its derivative is not that of its values; {_HOW}"


@dataclass(frozen=True)
class Probe:
    """The result of changing one argument of a function.

    Attributes:
        depends: the values change, or the derivative is not zero.
        wrong: the derivative does not belong to the values.
        zero: the derivative is zero, though the values change.
    """

    depends: bool
    wrong: bool = False
    zero: bool = False

    def sentence(self, argument: str) -> str:
        """A sentence on what is wrong."""
        if self.zero:
            return (
                f"its derivative is not that of its values: that by {argument} is zero, while the values change with "
                f"{argument}; {_HOW}"
            )
        return f"its derivative is not that of its values, as a change of {argument} shows; {_HOW}"


def probe(
    value: Callable[[Tensor], Tensor],
    at: Tensor,
    components: Sequence[int],
    size: float,
    generator: torch.Generator,
    segments: bool = True,
) -> Probe | None:
    """Changes some components of an argument; None where values of the function are not finite.

    Args:
        value: argument (components, rows, P) -> (any, rows, P), point by point.
        at: the argument.
        components: the components that are changed.
        size: size of the argument, in its units.
        generator: source of the random direction.
        segments: also look for staircases along longer segments, which may leave the range of a formula.
    """
    direction = torch.zeros_like(at)
    for i in components:
        # The mean of the direction is not zero, so that a mean over the points changes as well.
        direction[i] = (0.5 + torch.randn(at[i].shape, generator=generator, dtype=at.dtype)).to(at.device)
    middle, slope = _with_slope(value, at, direction)
    step = _STEP * size
    ahead, behind = value(at + step * direction), value(at - step * direction)
    if not all(bool(each.isfinite().all()) for each in (middle, slope, ahead, behind)):
        return None
    difference = (ahead - behind) / (2.0 * step)
    far = value(at + size * direction)
    if not torch.count_nonzero(slope) and torch.equal(ahead, behind) and not _differ(far, middle):
        return Probe(False)
    rounding = _ROUNDING * middle.reshape(len(middle), -1).abs().amax(1)[:, None, None]
    sizes = [each.reshape(len(each), -1).abs().amax(1)[:, None, None] for each in (difference, slope)]
    off = (difference - slope).abs() > _WRONG * (sizes[0] + sizes[1]) + rounding / step
    # Kinks between the ends are allowed at a few points.
    wrong = any(float(each.double().mean()) > _SHARE for each in off)
    segment = _SEGMENT * float(at[list(components)].abs().mean()) * direction
    wrong = wrong or (segments and _jumps(value, at, segment, rounding))
    zero = not torch.count_nonzero(slope) and (wrong or _never(value, at, size * direction, far - middle))
    return Probe(True, wrong or zero, zero)


def _never(value: Callable[[Tensor], Tensor], at: Tensor, segment: Tensor, change: Tensor) -> bool:
    """Whether the values change along a segment although the derivative is zero everywhere on it, as for a sign."""
    nodes = np.polynomial.legendre.leggauss(_NODES)[0]
    return bool(change.isfinite().all()) and not any(
        torch.count_nonzero(_with_slope(value, at + 0.5 * (1.0 + float(node)) * segment, segment)[1]) for node in nodes
    )


def _differ(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() > _ROUNDING * (a.abs() + b.abs())).any())


def _with_slope(value: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Values and their derivatives in a direction, both (any, rows, P)."""
    with torch.enable_grad():
        (leaf,) = leaves([at])
        found = value(leaf)
        slope = torch.zeros_like(found)
        if found.requires_grad:
            rows = []
            for component in found:
                (own,) = torch.autograd.grad(component.sum(), leaf, retain_graph=True, materialize_grads=True)
                rows.append((own * direction).sum(0))
            slope = torch.stack(rows)
    return found.detach(), slope.detach()


def _jumps(value: Callable[[Tensor], Tensor], at: Tensor, segment: Tensor, rounding: Tensor) -> bool:
    """Whether the change of values along a segment differs from the mean of the derivative, as for a staircase."""
    change = value(at + segment) - value(at)
    mean = torch.zeros_like(change)
    for node, weight in zip(*np.polynomial.legendre.leggauss(_NODES), strict=True):
        mean += 0.5 * float(weight) * _with_slope(value, at + 0.5 * (1.0 + float(node)) * segment, segment)[1]
    if not torch.isfinite(change).all() or not torch.isfinite(mean).all():
        return False
    size = change.abs() + mean.abs()
    off = (change - mean).abs() > 0.1 * size + 1e-3 * float(size.mean()) + rounding
    return float(off.double().mean()) > _SHARE_OF_SEGMENTS


def changed_in_place(call: Callable[[], object], arguments: Mapping[str, Tensor]) -> str:
    """The name of an argument that a call changes; empty where there is none."""
    before = {name: each.clone() for name, each in arguments.items()}
    call()
    for name, each in arguments.items():
        if not torch.equal(each.detach().nan_to_num(), before[name].detach().nan_to_num()):
            return name
    return ""
