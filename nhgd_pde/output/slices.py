"""The intersection of a grid of tetrahedra or hexahedra with a plane, for pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fields import Grid

# Corners of the tetrahedra that a cell is cut into, in VTK's order of its corners.
_TETRAHEDRA = {
    4: np.array([[0, 1, 2, 3]]),
    8: np.array([[0, 1, 2, 6], [0, 2, 3, 6], [0, 3, 7, 6], [0, 7, 4, 6], [0, 4, 5, 6], [0, 5, 1, 6]]),
}
_CORNERS = {"tetra": 4, "tetra10": 4, "hexahedron": 8, "hexahedron27": 8}
_EDGES = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])


@dataclass(frozen=True, eq=False)
class Slice:
    """The triangles in which a plane meets the tetrahedra.

    Attributes:
        points: (k, 2) coordinates in the plane, three for each triangle, which follow one another.
        ends: (k, 2) the numbers of the two nodes between which a point lies.
        shares: (k,) its place between them, from 0 to 1.
        cells: (k / 3,) the cell of each triangle.
        axis: the axis of space that the plane is at right angles to.
    """

    points: np.ndarray
    ends: np.ndarray
    shares: np.ndarray
    cells: np.ndarray
    axis: int

    @property
    def triangles(self) -> np.ndarray:
        return np.arange(len(self.points)).reshape(-1, 3)

    def values(self, nodal: np.ndarray) -> np.ndarray:
        """Values (N,) at the nodes -> (k,) at the points of the triangles."""
        first, last = nodal[self.ends[:, 0]], nodal[self.ends[:, 1]]
        return np.asarray(first + self.shares * (last - first))


def middle_slice(grid: Grid) -> tuple[Slice, str]:
    """The slice through the middle of a three-dimensional grid, across its shortest axis, and the plane in words."""
    axis = int(np.argmin(np.ptp(grid.points, axis=0)))
    x = grid.points[:, axis]
    # The plane goes through the centre of a cell, so that it meets this cell also where a mesh has a gap in its middle.
    # Through nodes it would meet tetrahedra in faces, twice or not at all.
    centres = x[grid.cells[:, : _CORNERS[grid.cell_type]]].mean(axis=1)
    level = centres[np.argmin(np.abs(centres - 0.5 * (x.min() + x.max())))]
    return slice_of(grid, axis, float(level)), f"{'xyz'[axis]} = {level:.4g}"


def slice_of(grid: Grid, axis: int, level: float) -> Slice:
    """The slice through a grid with cells in three dimensions where one coordinate has a value."""
    corners = grid.cells[:, : _CORNERS[grid.cell_type]]
    parts = _TETRAHEDRA[corners.shape[1]]
    # Only cells that reach to both sides of the plane are cut into tetrahedra: few of many.
    beyond = (grid.points[:, axis] > level)[corners]
    crossing = np.flatnonzero(beyond.any(axis=1) & ~beyond.all(axis=1))
    tetrahedra = corners[crossing][:, parts].reshape(-1, 4)
    owner = np.repeat(crossing, len(parts))
    above = grid.points[tetrahedra, axis] > level
    count = above.sum(axis=1)
    met = (count > 0) & (count < 4)
    tetrahedra, above, owner = tetrahedra[met], above[met], owner[met]
    crossed = above[:, _EDGES[:, 0]] != above[:, _EDGES[:, 1]]
    ends: list[np.ndarray] = []
    cells: list[np.ndarray] = []
    for amount in (3, 4):
        chosen = crossed.sum(axis=1) == amount
        edges = _EDGES[np.nonzero(crossed[chosen])[1].reshape(-1, amount)]
        own = tetrahedra[chosen][np.arange(chosen.sum())[:, None, None], edges]
        # Four edges in the order of their numbers: the first and the last have no corner in common, so that the other
        # two lie between them on both sides.
        faces = [[0, 1, 2]] if amount == 3 else [[0, 1, 3], [0, 2, 3]]
        for face in faces:
            ends.append(own[:, face].reshape(-1, 2))
            cells.append(owner[chosen])
    pairs = np.concatenate(ends)
    start, end = grid.points[pairs[:, 0]], grid.points[pairs[:, 1]]
    shares = (level - start[:, axis]) / (end[:, axis] - start[:, axis])
    points = start + shares[:, None] * (end - start)
    return Slice(np.delete(points, axis, axis=1), pairs, shares, np.concatenate(cells), axis)
