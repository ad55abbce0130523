"""Lengths of vectors whose squares may overflow or underflow, and of quadratic forms that rounding errors may spoil."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

# Rounding error of a quadratic form, relative to the sum of the absolute values of its terms.
_ROUNDING = 1e-10
# Powers of two with exponents up to this have reciprocals that do not underflow.
_LARGEST_EXPONENT = 1022


def magnitude(*tensors: Tensor) -> float:
    """A power of two between half the largest absolute value of the entries and that value.

    Dividing by it and multiplying with it makes no rounding errors, apart from underflow. It is 0 where all entries are
    zero, and infinite or NaN where an entry is.
    """
    largest = [float(torch.linalg.vector_norm(each, math.inf)) for each in tensors if each.numel()]
    if any(math.isnan(each) for each in largest):
        return math.nan
    size = max(largest, default=0.0)
    if size == 0.0 or math.isinf(size):
        return size
    exponent = math.frexp(size)[1] - 1
    return math.ldexp(1.0, max(min(exponent, _LARGEST_EXPONENT), -_LARGEST_EXPONENT))


def length(x: Tensor, apply: Callable[[Tensor], Tensor], weights: Callable[[], Tensor] | None = None) -> float:
    """sqrt(x . A x) of a positive definite A, without overflow or underflow on the way.

    The length is not finite where x or A x is not. It is NaN where the form is more negative than rounding errors
    explain.

    Args:
        x: vectors of any shape; the forms of rows are added.
        apply: x -> A x, homogeneous.
        weights: returns the diagonal of A where A is a matrix, by which rounding errors are estimated where the form is
            negative. Without it they are estimated by the length of A x, as for a solve.
    """
    scale = magnitude(x)
    if scale == 0.0 or not math.isfinite(scale):
        return scale
    unit = x / scale
    image = apply(unit)
    return scale * root(dot(unit, image), lambda: _terms(unit, image, weights))


def paired_length(x: Tensor, image: Tensor) -> float:
    """sqrt(x . y) where y = A x is known, for a positive definite A; see `length`."""
    scales = magnitude(x), magnitude(image)
    for scale in scales:
        if scale == 0.0 or not math.isfinite(scale):
            return scale
    a, b = x / scales[0], image / scales[1]
    return math.sqrt(scales[0]) * math.sqrt(scales[1]) * root(dot(a, b), lambda: _terms(a, b, None))


def row_lengths(x: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """sqrt(x_s . A x_s) of every row of (S, n), as `length`; (S,)."""
    largest = x.abs().amax(1, keepdim=True)
    usual = (largest > 0.0) & largest.isfinite()
    unit = x / torch.where(usual, largest, 1.0)
    image = apply(torch.where(usual, unit, 0.0))
    squares = (unit * image).sum(1)
    rounding = (squares < 0.0) & (-squares <= _ROUNDING * unit.norm(dim=1) * image.norm(dim=1))
    roots = torch.where(rounding, 0.0, squares).sqrt()
    return torch.where(usual[:, 0], largest[:, 0] * roots, largest[:, 0])


def root(square: float, terms: Callable[[], float]) -> float:
    """The square root of a form; zero where it is negative by rounding, NaN where it is more negative.

    `terms` returns the sum of the absolute values of the terms of the form.
    """
    if square < 0.0:
        return 0.0 if -square <= _ROUNDING * terms() else math.nan
    return math.sqrt(square)


def quotient(a: float, b: float) -> float:
    """a / b, where a >= 0 and b >= 0: infinite for b = 0 < a, and NaN for 0 / 0."""
    if b == 0.0:
        return math.nan if a == 0.0 or math.isnan(a) else math.inf
    return a / b


def _terms(x: Tensor, image: Tensor, weights: Callable[[], Tensor] | None) -> float:
    if weights is not None:
        return float((x.square() * weights()).sum())
    return float(x.norm()) * float(image.norm())


def dot(a: Tensor, b: Tensor) -> float:
    """The sum of a * b over every axis."""
    return float(torch.dot(a.reshape(-1), b.reshape(-1)))


def row_dots(a: Tensor, b: Tensor) -> Tensor:
    """(S,) the inner products of the rows of two tensors (S, n)."""
    # A single row needs no temporary product.
    return torch.dot(a[0], b[0])[None] if len(a) == 1 else (a * b).sum(1)
