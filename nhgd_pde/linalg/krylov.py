"""Common parts of the Krylov methods: operators, inner products, results, and units that keep squares in range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .safe_lengths import magnitude

Operator = Callable[[Tensor], Tensor]

# The squares of numbers between these two neither underflow nor overflow.
USUAL = 1e-100, 1e100


class Metric(Protocol):
    """An inner product of a space of vectors."""

    def covector(self, x: Tensor) -> Tensor: ...
    def inner(self, x: Tensor, y: Tensor) -> float: ...
    def norm(self, x: Tensor) -> float: ...


@dataclass(frozen=True)
class KrylovResult:
    """The result of a Krylov method for one system: the last iterate, the number of steps, and a sentence.

    Attributes:
        residual: right-hand side minus operator times solution, as updated by the recurrence.
        error: relative residual, measured by the caller's function or in the norm of the preconditioner.
        converged: whether the tolerance was reached.
    """

    solution: Tensor
    residual: Tensor
    iterations: int
    error: float
    converged: bool
    message: str


@dataclass(frozen=True)
class BatchedResult:
    """The result of a Krylov method for many systems, one a row: as a `KrylovResult`, with all errors (S,).

    Attributes:
        error: (S,) the errors of the rows in the norm of the method. Conjugate gradients report the error before the
            last step of a row; it is smaller after this step.
        iterations: number of steps of the row that took most.
        converged: whether every row has reached its tolerance.
        gain: (S,) factor, included in the errors, by which solutions with an operator are larger than solutions with
            the preconditioner; None if it was not asked for.
    """

    solution: Tensor
    residual: Tensor
    error: Tensor
    iterations: int
    converged: bool
    message: str = ""
    gain: Tensor | None = None


# The errors that rows have to reach: one number for all, (S,), or a function of the errors (S,) of the start.
RowGoals = Tensor | float | Callable[[Tensor], Tensor]


def usual_unit(b: Tensor) -> float:
    """A power of two in which the squares of the entries of b are in range, unless b is zero; usually 1."""
    scale = magnitude(b)
    return 1.0 if scale == 0.0 or USUAL[0] <= scale <= USUAL[1] or not math.isfinite(scale) else scale


def as_row(apply: Operator, like: Tensor) -> Operator:
    """An operator on tensors of the shape of `like`, for such tensors written as one row (1, n)."""
    return lambda row: apply(row.reshape(like.shape)).reshape(1, -1)


def row_goals(goals: RowGoals, first: Tensor, units: Tensor) -> Tensor:
    """(S,) the goals in given units (S, 1), from the errors (S,) of the start in the same units."""
    size = units[:, 0]
    found = goals(first * size) if callable(goals) else goals
    return torch.as_tensor(found, dtype=first.dtype, device=first.device) / size


def row_units(residual: Tensor, start: Tensor | None) -> Tensor:
    """(S, 1) powers of two in which squares of residuals are in range and starts are finite; usually all are 1."""
    largest = residual.abs().amax(1)
    some = largest[largest > 0.0]
    if not len(some) or (float(some.min()) > USUAL[0] and float(some.max()) < USUAL[1]):
        return torch.ones_like(largest)[:, None]
    if start is not None:
        largest = torch.maximum(largest, start.abs().amax(1) * 1e-250)
    exponent = torch.frexp(largest).exponent.clamp(-1000, 1000)
    unit = torch.ldexp(torch.ones_like(largest), exponent)
    return torch.where((largest > 0.0) & largest.isfinite(), unit, 1.0)[:, None]
