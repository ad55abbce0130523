"""Quadrature points and weights on the cells or facets of a mesh."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .pattern import Pattern


class Quadrature:
    """Quadrature points x (dim, elements, points) and weights (elements, points) that include the Jacobian.

    Points are computed when they are read and live as long as somebody holds them: most of the equations with constant
    coefficients never need them, and they take more memory than all matrices of a mesh of tetrahedra.

    Args:
        weights: the weights.
        dim: the dimension of space.
        places: (first, end) -> the points of the elements from `first` to before `end`.
    """

    def __init__(self, weights: Tensor, dim: int, places: Callable[[int, int], Tensor]) -> None:
        self.weights, self.dim, self._places = weights, dim, places

    @cached_property
    def patterns(self) -> list[Pattern]:
        """The patterns of matrices of spaces with these points, so that spaces with the same numbers share one."""
        return []

    @cached_property
    def _known(self) -> list[weakref.ref[Tensor]]:
        return []

    @property
    def x(self) -> Tensor:
        for known in self._known:
            if (found := known()) is not None:
                return found
        made = self._places(0, len(self.weights))
        self._known[:] = [weakref.ref(made)]
        return made

    @property
    def points(self) -> int:
        return self.weights.numel()

    @property
    def flat(self) -> Tensor:
        """(dim, P) the points, element by element."""
        return self.x.reshape(self.dim, -1)

    def piece(self, first: int, end: int) -> Quadrature:
        """The points and weights of the elements from `first` to before `end`."""
        return Quadrature(self.weights[first:end], self.dim, lambda low, high: self._places(first + low, first + high))


def given_quadrature(x: Tensor, weights: Tensor) -> Quadrature:
    """The quadrature with points x (dim, elements, points) that are known already."""
    return Quadrature(weights, len(x), lambda first, end: x[:, first:end] if end - first < x.shape[1] else x)


def same_points(one: Quadrature, other: Quadrature) -> bool:
    """Whether two quadratures have the same points."""
    return one is other or (one.weights.shape == other.weights.shape and torch.equal(one.x, other.x))
