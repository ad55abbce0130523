"""Bilevel problems whose objectives are means of finitely many terms, which are visited in minibatches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from .bilevel import Sample


@dataclass(frozen=True, eq=False)
class InnerTerm:
    """A minibatch of the inner sum as a sample for `batch`, and N times its share of the sum."""

    sample: Sample
    factor: float


@dataclass(frozen=True, eq=False)
class OuterTerm:
    """The numbers of a minibatch of the outer sum, and N times its share of the sum."""

    numbers: Tensor
    factor: float


@runtime_checkable
class FiniteSumProblem(Protocol):
    """Further members of a bilevel problem whose inner and outer objectives are finite sums."""

    def inner_terms(self, size: int) -> tuple[InnerTerm, ...]:
        """A partition of the inner sum into minibatches of at most `size` terms; `batch` takes their samples."""
        ...

    def outer_terms(self, size: int) -> tuple[OuterTerm, ...]:
        """The same of the outer sum."""
        ...

    def outer_term_derivatives(self, u: Tensor, v: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """df_j/du (S, n) and df_j/dv (p,) of the mean of some terms."""
        ...


def partition(count: int, size: int) -> list[tuple[Tensor, float]]:
    """The numbers 0, ..., count - 1 in interleaved parts of at most `size`, each with N times its share."""
    parts = math.ceil(count / size)
    numbers = [torch.arange(first, count, parts) for first in range(parts)]
    return [(each, parts * len(each) / count) for each in numbers]
