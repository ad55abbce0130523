"""Coefficients and points that several families share."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...fem.state_space import StateSpace
from ...pde.ranges import CONDUCTIVITY, POSITIVE
from ...problem_file.expressions import Expression
from ..composed import traced_regions
from ..dependence import CELLS, INERTIA, Traced, stacked
from ..values import Values


def points(space: StateSpace) -> Tensor:
    """(dim, P) the quadrature points in the cells."""
    return space.cells.quadrature.flat


def conductivity_of(
    values: Values, given: Expression | dict[str, Expression] | tuple[tuple[Expression, ...], ...], x: Tensor
) -> tuple[np.ndarray, bool]:
    """The conductivity (P,) or (dim, dim, 1, P), which must be positive definite; whether it is symmetric."""
    key, symmetric = "pde.conductivity", True
    if isinstance(given, tuple):
        traced, symmetric = _matrix(values, key, given, x)
    else:
        traced = traced_regions(values, key, given, x)
    return values.admitted(key, values.recorded(CELLS, "conductivity", traced), x, CONDUCTIVITY), symmetric


def _matrix(values: Values, key: str, given: tuple[tuple[Expression, ...], ...], x: Tensor) -> tuple[Traced, bool]:
    """The matrix (dim, dim, 1, P), and whether it is symmetric for all values of the parameters in it."""
    dim = len(x)
    if len(given) != dim:
        values.complain(key, f"expected a {dim} x {dim} matrix on a {dim}-D mesh, found {len(given)} x {len(given)}")
        return Traced(np.broadcast_to(np.eye(dim)[:, :, None, None], (dim, dim, 1, x.shape[1])).copy()), True
    entries = [values.traced(f"{key}.{i}.{j}", entry, x) for i, row in enumerate(given) for j, entry in enumerate(row)]
    whole = np.stack(np.broadcast_arrays(*(np.atleast_2d(entry.values) for entry in entries)))
    whole = whole.reshape(dim, dim, -1, x.shape[1])
    symmetric = bool((whole == whole.swapaxes(0, 1)).all())
    if all(entry.follow is None for entry in entries):
        return Traced(whole), symmetric
    # Entries that change with parameters stay equal only if they are the same expression.
    for i in range(dim):
        for j in range(i):
            moving = entries[i * dim + j].follow or entries[j * dim + i].follow
            symmetric = symmetric and (moving is None or given[i][j] == given[j][i])
    names = frozenset().union(*(entry.names for entry in entries))
    return Traced(whole, stacked([entry.follow for entry in entries], (dim, dim)), names), symmetric


def capacity_of(values: Values, given: Expression | dict[str, Expression], space: StateSpace) -> Tensor:
    """The factor (P,) or (steps, P) of the time derivative, which must be positive.

    The time derivative is a separate integral, in which parameters are the only controls.
    """
    x = points(space)
    capacity = values.regional("pde.capacity", given, x, INERTIA)
    return values.tensor(values.admitted("pde.capacity", capacity, x, POSITIVE))
