"""Values that several expressions make together: one for each subdomain, or one for each component."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..problem_file.expressions import Expression
from .dependence import Follow, Traced, on_cells, stacked
from .evaluator import Evaluator


@dataclass
class _Regions:
    """The values (..., cells, points of each cell) of expressions, which are filled in one region after the other.

    Attributes:
        parts: how the values in a region follow from parameters, and the cells of the region.
        names: parameters and random inputs that `parts` use.
    """

    evaluator: Evaluator
    key: str
    points: Tensor
    values: np.ndarray
    parts: list[tuple[Follow, Tensor]] = field(default_factory=list)
    names: frozenset[str] = frozenset()

    def fill(self, name: str, expression: Expression, cells: np.ndarray) -> None:
        """Fill in the values in a region (indices of cells)."""
        part = self.evaluator.traced(f"{self.key}.{name}", expression, self.points[:, cells])
        self.values[..., cells, :] = part.values
        if part.follow is not None:
            self.parts.append((part.follow, torch.from_numpy(cells).to(self.evaluator.device)))
            self.names = self.names | part.names

    @property
    def traced(self) -> Traced:
        flat = self.values.reshape(*self.values.shape[:-2], -1)
        shape = (self.points.shape[1], self.points.shape[2])
        return Traced(flat, on_cells(self.parts, shape) if self.parts else None, self.names)


def traced_regions(
    evaluator: Evaluator,
    key: str,
    value: Expression | dict[str, Expression],
    x: Tensor,
    at: np.ndarray | None = None,
) -> Traced:
    """A coefficient (P,), or (rows, P) where it depends on time or random inputs, and how it follows from parameters.

    Args:
        evaluator: evaluates expressions and collects mistakes.
        key: the key of the coefficient in the file.
        value: one expression, or one for each subdomain; `default` stands for the cells of no other name.
        x: (dim, P) points of every cell in turn, or of the cells `at`.
        at: the cells of the points; by default all cells.
    """
    if isinstance(value, Expression):
        return evaluator.traced(key, value, x)
    every = np.arange(evaluator.domain.mesh.nelements) if at is None else at
    points = x.reshape(evaluator.domain.dim, len(every), -1)
    found = _Regions(evaluator, key, points, np.zeros((*_rows(evaluator, value), *points.shape[1:])))
    missing, before = np.ones(len(every), dtype=bool), len(evaluator.issues)
    for name in value:
        if name != "default":
            cells = np.flatnonzero(np.isin(every, evaluator.subdomain(f"{key}.{name}", name)))
            found.fill(name, value[name], cells)
            missing[cells] = False
    if "default" in value:
        found.fill("default", value["default"], np.flatnonzero(missing))
    elif missing.any() and len(evaluator.issues) == before:
        message = f"{missing.sum():,} cells belong to none of {', '.join(value)}; add a value named default"
        evaluator.complain(key, message)
    return found.traced


def _rows(evaluator: Evaluator, value: dict[str, Expression]) -> tuple[int, ...]:
    """The axes of the values of several expressions before that of the points: scenarios, then times."""
    names = frozenset().union(*(expression.variables for expression in value.values()))
    uncertain = names & evaluator.random_names and evaluator.random is not None and evaluator.random.rows is not None
    moving = "t" in names and evaluator.times is not None
    scenarios = (evaluator.rows,) if uncertain else ()
    return (*scenarios, len(evaluator.times)) if moving and evaluator.times is not None else scenarios


def traced_components(
    evaluator: Evaluator,
    key: str,
    value: Expression | tuple[Expression, ...] | dict[str, Expression],
    count: int,
    x: Tensor | np.ndarray,
    times: np.ndarray | None = None,
    following: bool = True,
) -> Traced:
    """A vector (count, rows, ...) given by a list of expressions, and how it follows from parameters.

    Rows are times or scenarios, or one. A single 0 stands for a list of zeros. Another single expression is a scalar,
    or the real part of a complex field.

    Args:
        evaluator: evaluates expressions and collects mistakes.
        key: the key of the vector in the file.
        value: the expressions.
        count: the number of components.
        x: (dim, ...) the points.
        times: the times for expressions in t; by default those of the integrals.
        following: whether the expressions may name parameters.
    """
    shape = tuple(x.shape[1:])

    def one(at: str, each: Expression) -> Traced:
        return evaluator.traced(at, each, x, times) if following else Traced(evaluator.formula(at, each, x, times))

    if isinstance(value, tuple):
        if len(value) != count:
            wanted = "one expression" if count == 1 else f"{count} expressions, one a component"
            evaluator.complain(key, f"expected {wanted}, found {len(value)}")
            return Traced(np.zeros((count, 1, *shape)))
        return _stacked([one(f"{key}.{i}", each) for i, each in enumerate(value)], len(shape))
    if isinstance(value, dict):
        assert isinstance(x, Tensor)
        single = traced_regions(evaluator, key, value, x)
    else:
        single = one(key, value)
    if evaluator.complex and count == 2:
        return _stacked([single, Traced(np.zeros_like(single.values))], len(shape))
    if count > 1 and (single.values.any() or single.follow is not None):
        evaluator.complain(key, f"expected a list of {count} expressions, one a component, found a scalar")
    return _stacked([single] * count, len(shape))


def _stacked(components: list[Traced], axes: int) -> Traced:
    """One vector from its components, whose points have so many axes."""
    rows = [each.values if each.values.ndim > axes else each.values[None] for each in components]
    whole = np.stack(np.broadcast_arrays(*rows))
    if all(each.follow is None for each in components):
        return Traced(whole)
    names = frozenset().union(*(each.names for each in components))
    return Traced(whole, stacked([each.follow for each in components], (len(components),)), names)
