"""Controls: their spaces, bounds and inner products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from ..fem.spaces import Space
from ..linalg.riesz import RieszMap, block_riesz_map
from ..linalg.sparse import SparseMatrix
from ..pde.rows import ControlRows


class Filter(Protocol):
    """A linear map that smooths design variables, and its transpose."""

    def apply(self, v: Tensor) -> Tensor:
        """(m,) design variables -> (m,) filtered ones."""
        ...

    def transposed(self, covector: Tensor) -> Tensor: ...


class Prior(Protocol):
    """A normal distribution of the values of a control, see `inference.prior`.

    Attributes:
        mean: (size,).
        precision: the inverse of its covariance (size, size).
        riesz: the inner product of the precision.
    """

    @property
    def mean(self) -> Tensor: ...
    @property
    def precision(self) -> SparseMatrix: ...
    @property
    def riesz(self) -> RieszMap: ...


@dataclass(frozen=True, eq=False)
class TimeRule:
    """The quadrature rule for integrals in time of a control that has one value per time step or window.

    Attributes:
        times, weights: (steps or windows,) times and quadrature weights of the values of the control.
        averaged: the values of the control stand at the ends of the steps, while the integrals of the equation are
            taken in the middle of every step after the first one.
    """

    times: np.ndarray
    weights: np.ndarray
    averaged: bool = False

    def windowed(self, windows: int) -> TimeRule:
        """The rule of a control that is constant on windows of equally many steps: the means of their times, and the
        sums of their weights, with which the integral of a square in time is exact."""
        times, weights = (each.reshape(windows, -1) for each in (self.times, self.weights))
        return TimeRule(times.mean(axis=1), weights.sum(axis=1), self.averaged)


@dataclass(frozen=True, eq=False)
class ControlSpace:
    """One discrete control.

    Attributes:
        name: name in messages and in output.
        nodes: (dim, m) the point of each degree of freedom, component by component.
        evaluation: the functions of the control, one field for each component, at the points of its integrals.
        riesz: the inner product in one time step, for gradients, steps and projections.
        initial: (size,) starting values.
        lower, upper: (size,) bounds, -inf and inf where there are none; None without any bound.
        weight: (1, elements, points) one where the control acts, zero elsewhere.
        steps: number of its values in time, one for each time step or window; None where it is steady.
        measure: length of a time step or window, the weight of the inner product in time; 1 where it is steady.
        rule: quadrature rule of its integrals in time; None where it is steady.
        components: number of fields.
        space: the finite element space on the whole mesh; None for numbers.
        dofs: (m / components,) the controlled degrees of freedom of that space.
        filter: the map from the design variables to the control; None where they are the same.
        facets: (k,) the facets of the part of the boundary on which it acts; None in the cells.
        boundary: integrals of the control are over a part of the boundary, and its gradients are tangential.
        smoothing: (design variables, derivative) -> smoothed derivative, in place of a filter, for the methods that
            take one.
        material: the pointwise map of a density to the share of material; None of other controls.
        prior: what is known of it before any data; None where nothing is inferred. `riesz` is then its product.
    """

    name: str
    nodes: np.ndarray
    evaluation: EvaluationOperator
    riesz: RieszMap
    initial: Tensor
    lower: Tensor | None
    upper: Tensor | None
    weight: Tensor
    steps: int | None = None
    measure: float = 1.0
    rule: TimeRule | None = None
    components: int = 1
    space: Space | None = None
    dofs: np.ndarray | None = None
    filter: Filter | None = None
    facets: np.ndarray | None = None
    boundary: bool = False
    smoothing: Callable[[Tensor, Tensor], Tensor] | None = None
    material: Callable[[Tensor], Tensor] | None = None
    prior: Prior | None = None

    @property
    def columns(self) -> int:
        """m, the number of values in one time step."""
        return self.nodes.shape[1]

    @property
    def size(self) -> int:
        return self.columns * (self.steps or 1)

    def on_mesh(self, v: np.ndarray) -> np.ndarray:
        """Values (..., m) -> (components, ..., size of the space), zero where there is no control."""
        assert self.space is not None and self.dofs is not None
        parts = np.split(v, self.components, axis=-1)
        values = np.zeros((self.components, *v.shape[:-1], self.space.size))
        values[..., self.dofs] = np.stack(parts)
        return values


@dataclass(frozen=True, eq=False)
class Controls:
    """All controls of a problem side by side.

    Attributes:
        parts: one or more controls.
        steps: number of rows of the state equation.
    """

    parts: tuple[ControlSpace, ...]
    steps: int = 1

    @cached_property
    def rows(self) -> ControlRows:
        columns = tuple(part.columns for part in self.parts)
        averaged = tuple(part.rule is not None and part.rule.averaged for part in self.parts)
        varying = tuple(part.steps is not None for part in self.parts)
        windows = tuple(part.steps or 1 for part in self.parts)
        return ControlRows(columns, varying, self.steps, averaged, windows)

    @property
    def size(self) -> int:
        return self.rows.size

    @cached_property
    def riesz(self) -> RieszMap:
        return block_riesz_map([(part.riesz, part.steps or 1, part.measure) for part in self.parts])

    @cached_property
    def initial(self) -> Tensor:
        return torch.cat([part.initial for part in self.parts])

    @cached_property
    def start(self) -> Tensor:
        """The first control of the equation: the starting values, filtered and projected onto the bounds."""
        start = self.physical(self.initial)
        return start if self.bounds is None else start.clamp(*self.bounds)

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        if all(part.lower is None for part in self.parts):
            return None
        return self._bound("lower", -np.inf), self._bound("upper", np.inf)

    def _bound(self, side: str, none: float) -> Tensor:
        ends = [getattr(part, side) for part in self.parts]
        pairs = zip(ends, self.parts, strict=True)
        return torch.cat([torch.full_like(part.initial, none) if end is None else end for end, part in pairs])

    def split(self, v: Tensor) -> tuple[Tensor, ...]:
        return self.rows.split(v)

    def numbers(self, v: Tensor) -> str:
        """The controls that are single numbers, with their values, for messages; empty where there are none."""
        pieces = zip(self.parts, self.split(v), strict=True)
        return ", ".join(f"{part.name} = {float(piece[0]):.9g}" for part, piece in pieces if part.size == 1)

    @property
    def smoothing(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """(design variables, derivative) -> smoothed derivative, all (p,); None where no control has a smoothing."""
        if all(part.smoothing is None for part in self.parts):
            return None

        def smooth(v: Tensor, derivative: Tensor) -> Tensor:
            pieces = zip(self.parts, self.split(v), self.split(derivative), strict=True)
            return torch.cat([own if part.smoothing is None else part.smoothing(x, own) for part, x, own in pieces])

        return smooth

    @cached_property
    def _filtered(self) -> bool:
        return any(part.filter is not None for part in self.parts)

    def physical(self, v: Tensor) -> Tensor:
        """Design variables (p,) -> controls in the equation (p,), which are the filtered design variables.

        Those of two points are kept: all that is computed at a point asks for them, and a step has two ends.
        """
        if not self._filtered:
            return v
        for at, mapped in self._last:
            if torch.equal(at, v):
                return mapped
        self._last[:] = [(v.clone(), self._mapped(v, "apply")), *self._last[:1]]
        return self._last[0][1]

    @cached_property
    def _last(self) -> list[tuple[Tensor, Tensor]]:
        return []

    def pull_back(self, covector: Tensor) -> Tensor:
        """A derivative by the controls in the equation -> the derivative by the design variables."""
        if not self._filtered or not torch.count_nonzero(covector):
            return covector
        return self._mapped(covector, "transposed")

    def _mapped(self, x: Tensor, verb: str) -> Tensor:
        pieces = zip(self.split(x), self.parts, strict=True)
        return torch.cat(
            [piece if part.filter is None else getattr(part.filter, verb)(piece) for piece, part in pieces]
        )
