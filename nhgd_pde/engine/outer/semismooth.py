"""The minimiser of a quasi-Newton model where the objective has kinks: bounds, an l1 term.

q(d) = h . d + d . B d / 2 + sum_i w_i (|v_i + d_i| - |v_i|),   lower <= v + d <= upper
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ...linalg.safe_lengths import dot, magnitude, quotient
from .base import Feasible
from .reduced_objective import Evaluation

# Relative accuracy of the minimiser of a model of secants; a better one saves no evaluations.
_REDUCTION = 0.01
# Largest numbers of semismooth Newton steps, and of faces in one minimisation in a face.
_MOST_ROUNDS = 50
_MOST_FACES = 20
# A semismooth Newton step of which a smaller share than this is best for q says little about the kinks.
_LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Point:
    """A point (p,), the derivative of the smooth part of q there, and the share of the step that was taken."""

    x: Tensor
    slope: Tensor
    share: float = 1.0


class KinkedModel(Protocol):
    """The matrix B of a model, positive definite.

    Attributes:
        scale: the curvature of B in directions of which it knows nothing, in the inner product of the space: one for
            all variables, or (p,).
    """

    @property
    def scale(self) -> Tensor | float: ...

    def product(self, d: Tensor) -> Tensor:
        """B d (p,), a covector."""
        ...

    def newton_step(self, slope: Tensor, free: Tensor) -> Tensor:
        """The step d (p,) in the free variables for which slope + B d (nearly) vanishes there."""
        ...


Matrix = TypeVar("Matrix", bound=KinkedModel)
SafeStep = Callable[[Feasible, Point, Matrix], Point | None]


def minimise_between_kinks(
    space: Feasible,
    best: Evaluation,
    matrix: Matrix,
    reduction: float = _REDUCTION,
    safe_step: SafeStep[Matrix] | None = None,
) -> Tensor:
    """The point v + d (p,) of a step d that reduces the stationarity of q by a factor, or descends.

    A semismooth Newton method (Hintermueller, Ito and Kunisch 2003, SIAM J. Optim. 13; with an l1 term Stadler 2009,
    Comput. Optim. Appl. 44): prox(x - gradient / c) shows which variables will be at a kink. They are put there, and q
    is minimised in the others. c is the curvature of B in directions of which it knows nothing. The step is cut off at
    kinks, and the share of it that is best for q is taken. Where this share is small, a safe step is taken instead,
    so that q falls in every round, and no two repeat. By default it is a step of the proximal gradient method, and q is
    minimised in the face that is reached (More and Toraldo 1991, SIAM J. Optim. 1).
    """
    safe_step = safe_step or _face_step
    point, unit = Point(best.v, best.derivative), 1.0 / matrix.scale
    first = space.distance(best.v, best.gradient, unit)
    for _ in range(_MOST_ROUNDS):
        if not space.distance(point.x, point.slope / space.mass, unit) > reduction * first:
            break
        reached = towards(space, point, _semismooth_point(space, point, matrix), matrix)
        if reached is None or reached.share < _LEAST_SHARE:
            reached = safe_step(space, point, matrix)
            if reached is None:
                break
        point = reached
    return point.x


def towards(space: Feasible, start: Point, end: Tensor, matrix: KinkedModel) -> Point | None:
    """The best point for q on the line to another point; None where q does not fall along it.

    The l1 term is convex: taken as linear along the line, it is not underestimated.
    """
    rate = space.rate(start.slope, start.x, end)
    if not rate < 0.0:
        return None
    step = end - start.x
    image = matrix.product(step)
    # The curvature underflows where the bounds leave hardly any room: nothing is to be seen of it there.
    share = min(1.0, quotient(-rate, dot(step, image)))
    return Point(end if share == 1.0 else start.x + share * step, start.slope + share * image, share)


def _face_step(space: Feasible, start: Point, matrix: KinkedModel) -> Point | None:
    """A step of the proximal gradient method, and the minimiser in the face that it reaches."""
    reached = towards(space, start, _cauchy_point(space, start, matrix), matrix)
    return None if reached is None else _face_minimiser(space, reached, matrix)


def _semismooth_point(space: Feasible, start: Point, matrix: KinkedModel) -> Tensor:
    """The minimiser of q with some variables put at their kinks; the others are cut off at kinks."""
    target = space.prox(start.x - start.slope / (matrix.scale * space.mass), 1.0 / matrix.scale)
    free = at_no_kink(space, target)
    jump = torch.where(free, 0.0, target - start.x)
    step = matrix.newton_step(_smooth(space, start.slope + matrix.product(jump), target), free)
    return _cut(space, torch.where(free, start.x + step, target), target)


def _cauchy_point(space: Feasible, start: Point, matrix: KinkedModel) -> Tensor:
    """The step of the proximal gradient method whose length is best for q where no kink is met."""
    step = -space.residual(start.x, start.slope / space.mass, 1.0 / matrix.scale)
    unit = step / (magnitude(step) or 1.0)
    length = dot(unit, space.mass * unit) / dot(unit, matrix.product(unit))
    return space.prox(start.x - length * start.slope / space.mass, length)


def _face_minimiser(space: Feasible, start: Point, matrix: KinkedModel) -> Point:
    """The minimiser of q in the face of a point, or in a smaller face: variables that meet a kink stay there."""
    for _ in range(_MOST_FACES):
        free = at_no_kink(space, start.x)
        whole = start.x + matrix.newton_step(_smooth(space, start.slope, start.x), free)
        end = _cut(space, torch.where(free, whole, start.x), start.x)
        reached = towards(space, start, end, matrix)
        if reached is None:
            break
        start = reached
        if reached.share == 1.0 and torch.equal(end[free], whole[free]):
            break
    return start


def at_no_kink(space: Feasible, x: Tensor) -> Tensor:
    """(p,) which variables are at no kink."""
    free = torch.ones_like(x, dtype=torch.bool)
    if space.bounds is not None:
        free = (x > space.bounds[0]) & (x < space.bounds[1])
    if space.weights is not None:
        free = free & ((x != 0.0) | (space.weights == 0.0))
    return free


def _smooth(space: Feasible, slope: Tensor, signs: Tensor) -> Tensor:
    """The derivative of q where variables have the signs given."""
    return slope if space.weights is None else slope + space.weights * signs.sign()


def _cut(space: Feasible, x: Tensor, signs: Tensor) -> Tensor:
    """A point within the bounds, zero where the l1 term has a kink between it and the signs given."""
    if space.weights is not None:
        x = torch.where((space.weights > 0.0) & (x * signs < 0.0), 0.0, x)
    return space.project(x)
