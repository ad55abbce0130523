"""Interpolation between spaces on one mesh."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from .spaces import Space


def interpolation(source: Space, target: Space) -> sp.csr_matrix:
    """(target.size, source.size): coefficients in the source space -> values at the nodes of the target space.

    Where cells differ in their value, as they do for P0, the mean of those around a node.
    """
    reference = np.asarray(target.basis.elem.doflocs).T
    values = np.stack(
        [
            np.broadcast_to(source.basis.elem.lbasis(reference, i)[0], reference.shape[1:])
            for i in range(source.basis.Nbfun)
        ]
    )
    rows = np.asarray(target.basis.element_dofs)
    columns = np.asarray(source.basis.element_dofs)
    shape = (values.shape[1], values.shape[0], rows.shape[1])
    data = np.broadcast_to(values.T[:, :, None], shape)
    where = np.broadcast_to(rows[:, None], shape), np.broadcast_to(columns[None], shape)
    total = sp.csr_matrix(
        (data.reshape(-1), (where[0].reshape(-1), where[1].reshape(-1))), shape=(target.size, source.size)
    )
    total.eliminate_zeros()
    meetings = np.bincount(rows.reshape(-1), minlength=target.size)
    return sp.csr_matrix(sp.diags_array(1.0 / meetings) @ total)


class OutsideMeshError(ValueError):
    """A point is in no cell.

    Attributes:
        index: which of the points.
    """

    def __init__(self, index: int, point: np.ndarray) -> None:
        super().__init__(f"the point ({', '.join(f'{x:g}' for x in point)}) is outside the mesh")
        self.index = index


def at_points(space: Space, points: np.ndarray) -> sp.csr_matrix:
    """(count, size): coefficients -> values at points (dim, count).

    Raises:
        OutsideMeshError: one of them, the first, is in no cell.
    """
    if not points.shape[1]:
        return sp.csr_matrix((0, space.size))
    low, high = space.domain.mesh.p.min(axis=1)[:, None], space.domain.mesh.p.max(axis=1)[:, None]
    margin = 1e-10 * (high - low)
    inside = ((points >= low - margin) & (points <= high + margin)).all(axis=0)
    points = np.clip(points, low, high) if inside.all() else points
    find = space.domain.mesh.element_finder(mapping=space.basis.mapping)
    try:
        if inside.all():
            find(*points)
    except ValueError:
        inside = np.array([_found(find, point) for point in points.T])
    if not inside.all():
        first = int(np.argmin(inside))
        raise OutsideMeshError(first, points[:, first])
    return sp.csr_matrix(space.basis.probes(points))


def _found(find: Callable[..., np.ndarray], point: np.ndarray) -> bool:
    try:
        find(*point[:, None])
    except ValueError:
        return False
    return True
