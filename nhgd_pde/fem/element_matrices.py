"""The matrices of elements, from the tables of two spaces and coefficients at the points."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Numbers in the matrices of those elements that are worked on at the same time: few enough for the caches of a
# processor, many enough that the time of a call does not count.
_AT_ONCE = 1 << 19
_LEAST = 256


def ranges(elements: int, numbers: int) -> Iterator[tuple[int, int]]:
    """(first, end) of groups of elements, each of which has so many numbers."""
    step = max(_LEAST, _AT_ONCE // max(numbers, 1))
    for first in range(0, elements, step):
        yield first, min(first + step, elements)


def uniform(table: Tensor) -> bool:
    """Whether a table (elements, points, functions) is stored once for all elements."""
    return table.stride(0) == 0


def product(left: Tensor, weighted: Tensor, right: Tensor) -> Tensor:
    """sum over the points of left[e, q, a] weighted[s, e, q] right[e, q, b], as (a, b, s, e).

    Tables may have one point, and may be stored once for all elements; each of these cases has a cheaper way.
    """
    scenarios, elements, _ = weighted.shape
    if left.shape[1] == right.shape[1] == 1:
        weighted = _over_points(weighted)[..., None]
    if uniform(left) and uniform(right):
        tables = (left[0].T[:, None] * right[0].T[None]).expand(-1, -1, weighted.shape[-1])
        found = tables.flatten(0, 1) @ weighted.reshape(-1, weighted.shape[-1]).T
        return found.reshape(*tables.shape[:2], scenarios, elements)
    if right.shape[1] == 1:
        return tested(left, weighted)[:, None] * right[:, 0].T[:, None]
    if left.shape[1] == 1:
        return left[:, 0].T[:, None, None] * tested(right, weighted)[None]
    return torch.einsum("seqa,eqb->abse", weighted[..., None] * left, right)


def tested(table: Tensor, weighted: Tensor) -> Tensor:
    """sum over the points of table[e, q, a] weighted[s, e, q], as (a, s, e)."""
    if table.shape[1] == 1:
        return table[:, 0].T[:, None] * _over_points(weighted)
    if uniform(table):
        found = table[0].T @ weighted.reshape(-1, weighted.shape[-1]).T
        return found.reshape(-1, *weighted.shape[:2])
    return torch.einsum("eqa,seq->ase", table, weighted)


def evaluated(table: Tensor, local: Tensor) -> Tensor:
    """sum over the functions of table[e, q, a] local[s, a, e], as (s, e, q) with one point where the table has one."""
    if table.shape[1] == 1:
        return (table[:, 0].T * local).sum(1)[..., None]
    if uniform(table):
        return local.transpose(1, 2) @ table[0].T
    return torch.einsum("eqa,sae->seq", table, local)


def _over_points(weighted: Tensor) -> Tensor:
    """The sum over the last axis, for which torch takes ten times as long where the axis is short."""
    return weighted @ weighted.new_ones(weighted.shape[-1])
