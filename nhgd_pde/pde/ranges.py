"""The admissible values of coefficients, checked when a problem is loaded and for every control that is tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linalg.factorisation import SingularMatrixError


class InadmissibleError(SingularMatrixError):
    """A control at which a coefficient leaves its range; the message has the coefficient, its value and the place."""


@dataclass(frozen=True)
class Breach:
    """A value that is not admissible, or the smallest eigenvalue of a matrix.

    `index` is its place among the values (..., points) of a scalar. `expected` is the text after "expected ...", and
    `rule` the text after "must be ...", which has the violated bound.
    """

    value: float
    index: int
    expected: str
    rule: str
    matrix: bool = False

    @property
    def found(self) -> str:
        return f"the eigenvalue {self.value:g}" if self.matrix else f"{self.value:g}"


@dataclass(frozen=True)
class Range:
    """An interval of admissible values; for a matrix it holds for the eigenvalues of its symmetric part.

    Attributes:
        expected: a value of the range, in words.
        lower, upper: the ends of the interval.
        closed: whether each end belongs to the interval.
        matrix: a matrix of the range, in words.
    """

    expected: str
    lower: float = -math.inf
    upper: float = math.inf
    closed: tuple[bool, bool] = (False, False)
    matrix: str = ""

    def breach(self, values: Tensor) -> Breach | None:
        """The worst value (..., points), or matrix (dim, dim, rows, points), outside the range; None if all are inside.

        NaN is outside.
        """
        matrix = values.ndim > 2
        expected = self.matrix if matrix and self.matrix else self.expected
        if matrix:
            even = torch.movedim(0.5 * (values + values.swapaxes(0, 1)), (0, 1), (-2, -1))
            missing = ~torch.isfinite(even).all(-1).all(-1)
            unit = torch.eye(even.shape[-1], dtype=even.dtype, device=even.device)
            values = torch.linalg.eigvalsh(torch.where(missing[..., None, None], unit, even))[..., 0]
            values = torch.where(missing, torch.nan, values)
        flat = values.reshape(-1)
        unknown = torch.isnan(flat)
        if bool(unknown.any()):
            return Breach(math.nan, int(unknown.int().argmax()), expected, "finite", matrix)
        low, high = int(flat.argmin()), int(flat.argmax())
        least, most = float(flat[low]), float(flat[high])
        if not (least >= self.lower if self.closed[0] else least > self.lower):
            rule = _rule("at least" if self.closed[0] else "above", self.lower)
            return Breach(least, low, expected, rule, matrix)
        if not (most <= self.upper if self.closed[1] else most < self.upper):
            rule = _rule("at most" if self.closed[1] else "below", self.upper)
            return Breach(most, high, expected, rule, matrix)
        return None


def _rule(bound: str, end: float) -> str:
    return f"{bound} {end:g}" if math.isfinite(end) else "finite"


POSITIVE = Range("a positive value", lower=0.0)
NOT_NEGATIVE = Range("at least 0", lower=0.0, closed=(True, False))
CONDUCTIVITY = Range("a positive conductivity", lower=0.0, matrix="a positive definite conductivity")
# The elastic energy is positive in these ranges. An incompressible material, with the ratio 0.5, has a finite stress in
# plane stress only.
POISSON_RATIO = Range("a ratio above -1 and below 0.5", -1.0, 0.5)
POISSON_RATIO_PLANE_STRESS = Range("a ratio above -1 and at most 0.5", -1.0, 0.5, (False, True))


@dataclass(frozen=True, eq=False)
class Guard:
    """The ranges of the coefficients of an integral, with their names and places for messages.

    Attributes:
        keys: coefficient -> its key in the problem file. Coefficients without a key are computed from others and are
            not checked.
        ranges: key -> the range of the coefficient; coefficients without a range must be finite.
        place: index of a value (..., points) -> its place, in words.
    """

    keys: Mapping[str, str]
    ranges: Mapping[str, Range]
    place: Callable[[int], str]

    def refusal(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> str:
        """A sentence on the first coefficient that has changed to an inadmissible value; empty where there is none."""
        for name, key in self._changed(before, after):
            values = after[name].detach()
            broken = _not_finite(values) or (self.ranges[key].breach(values) if key in self.ranges else None)
            if broken is not None:
                what = f"the smallest eigenvalue of {key}" if broken.matrix else key
                return f"{what} must be {broken.rule}, but is {broken.value:.9g} at {self.place(broken.index)}"
        return ""

    def steep(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor], controls: Tensor) -> str:
        """A sentence on a coefficient whose derivative by the controls is not finite, such as sqrt(k) at k = 0."""
        for name, key in self._changed(before, after):
            if after[name].requires_grad:
                (slope,) = torch.autograd.grad(after[name].sum(), controls, retain_graph=True, allow_unused=True)
                broken = None if slope is None else _not_finite(slope)
                if broken is not None:
                    place = self.place(broken.index)
                    return f"{key} must have a finite derivative, but that is {broken.value:g} at {place}"
        return ""

    def values(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values (n,) of the coefficients that controls have changed, by their keys."""
        return {key: after[name].detach().reshape(-1) for name, key in self._changed(before, after)}

    def _changed(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[tuple[str, str]]:
        """Names and keys of the coefficients that controls have changed."""
        return [each for each in self.keys.items() if each[0] in after and after[each[0]] is not before.get(each[0])]


def _not_finite(values: Tensor) -> Breach | None:
    wrong = ~torch.isfinite(values).reshape(-1)
    if not bool(wrong.any()):
        return None
    index = int(wrong.int().argmax())
    return Breach(float(values.reshape(-1)[index]), index, "finite values", "finite")
