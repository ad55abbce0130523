"""Checks that double precision can represent the lengths of a mesh and their powers."""

from __future__ import annotations

import numpy as np

from .loading import ProblemFile
from .mesh_spec import DiskMesh, FileMesh, LShapeMesh, ObjectMesh
from .sizes import real, two_to

# Shortest and longest length, in the units of the mesh. Between them, volumes, squares of volumes and squares of
# gradients can be represented in double precision.
_SHORTEST, _LONGEST = 1e-40, 1e40
# Smallest width of cells relative to their coordinates; narrower cells are lost in the rounding of the coordinates.
_RELATIVE = 64.0 * np.finfo(float).eps


def check_lengths(file: ProblemFile) -> None:
    """Refuse a built-in shape whose cells are too small, too large, or lost in the rounding of their coordinates.

    Raises:
        ProblemError: at the size or the origin of the mesh.
    """
    mesh = file.spec.mesh
    if isinstance(mesh, FileMesh | ObjectMesh):
        return
    sizes: tuple[float, ...]
    counts: tuple[float, ...]
    if isinstance(mesh, DiskMesh | LShapeMesh):
        sizes, counts = (mesh.size,) * 2, (1.0,) * 2
    else:
        sizes, counts = mesh.size, tuple(real(count) for count in mesh.cells)
    for size, origin, count in zip(sizes, mesh.origin, counts, strict=True):
        width = size / count / two_to(mesh.refine)
        check_between(file, "mesh.size", width, size)
        if width <= _RELATIVE * abs(origin):
            message = (
                f"expected cells that are wider than the rounding of their coordinates, found a width of {width:g} "
                f"at {origin:g}"
            )
            raise file.error("mesh.origin", message)


def check_read(file: ProblemFile, places: np.ndarray, cells: np.ndarray) -> None:
    """The same check of a mesh from a file, by its vertices (dim, V) and the vertices of cells (corners, cells)."""
    corners = places[:, cells]
    widths = np.abs(corners[:, 1:] - corners[:, :1]).max(axis=0)
    key = "mesh.file" if isinstance(file.spec.mesh, FileMesh) else "mesh.mesh"
    check_between(file, key, float(widths.min()) / two_to(file.spec.mesh.refine), float(np.ptp(places)))


def check_between(file: ProblemFile, key: str, shortest: float, longest: float) -> None:
    """Refuse lengths whose powers double precision cannot represent."""
    wrong = longest if longest > _LONGEST else shortest
    if not (shortest >= _SHORTEST and longest <= _LONGEST):
        message = (
            f"expected lengths from {_SHORTEST:g} to {_LONGEST:g}, whose volumes and their squares double precision "
            f"has, found {wrong:g}: choose another unit of length"
        )
        raise file.error(key, message)
