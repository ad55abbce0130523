"""The surface of the material of a run, from the files of its folder alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .atomic import OutputError
from .fields import FieldData, Grid, read_vtu, write_stl
from .names import FINAL, SURFACE
from .run_folder import read_ended
from .surfaces import nodal_values, solid, volume


@dataclass(frozen=True)
class Export:
    """A surface that has been written.

    Attributes:
        path: the file.
        triangles: their number.
        volume: what is inside, in the unit of the mesh.
    """

    path: Path
    triangles: int
    volume: float

    def __str__(self) -> str:
        return f"{self.path}: {self.triangles:,} triangles around a volume of {self.volume:.6g}"


def export_surface(
    folder: Path,
    target: Path | None = None,
    threshold: float = 0.5,
    field: str | None = None,
    thickness: float | None = None,
) -> Export:
    """Write the surface of the points of a run that has ended where a field is at least a threshold, as binary STL.

    Args:
        folder: the run folder.
        target: the file; `density.stl` in the folder by default.
        threshold: the least value of the part that is kept.
        field: the name of a scalar field of final.vtu; by default the only density. Values in cells are replaced by
            their means at the nodes.
        thickness: of a plane design, which is extruded; by default a tenth of its longer side.

    Raises:
        OutputError: there is no run that has ended, no such field, nothing at the threshold, or an interval.
    """
    if not np.isfinite(threshold):
        raise OutputError(f"threshold: expected a finite number, found {threshold}")
    if thickness is not None and not (np.isfinite(thickness) and thickness > 0.0):
        raise OutputError(f"thickness: expected a finite number above 0, found {thickness}")
    read_ended(folder)
    if not (folder / FINAL).exists():
        raise OutputError(f"{folder}: expected {FINAL}, found none")
    grid, data = read_vtu(folder / FINAL)
    values = _values(folder, grid, data, field)
    if grid.cell_type.startswith("line"):
        raise OutputError(f"{folder / FINAL}: expected a mesh in two or three dimensions, found an interval")
    if thickness is None:
        thickness = 0.1 * float(np.ptp(grid.points, axis=0).max())
    points, triangles = solid(grid, values, threshold, thickness)
    if not len(triangles):
        raise OutputError(
            f"{folder / FINAL}: expected values of at least {threshold:g}, found {values.min():g} to {values.max():g}"
        )
    path = folder / SURFACE if target is None else target
    write_stl(path, points, triangles)
    return Export(path, len(triangles), volume(points, triangles))


def _values(folder: Path, grid: Grid, data: FieldData, field: str | None) -> np.ndarray:
    """(N,) the values of a field at the points."""
    every = {**data.point, **data.cell}
    names = [field] if field is not None else [name for name in every if name.startswith("density")]
    if len(names) != 1 or names[0] not in every:
        wanted = f"a field {field!r}" if field is not None else "one field with a density"
        densities = ", ".join(names) if field is None and names else ", ".join(every)
        raise OutputError(f"{folder / FINAL}: expected {wanted}, found {densities or 'none'}; name one by --field")
    values = every[names[0]]
    if values.ndim > 1 or not np.isfinite(values).all():
        shape = f"{values.shape[1]} components" if values.ndim > 1 else "values that are not finite"
        raise OutputError(f"{folder / FINAL}: {names[0]}: expected one finite number at a place, found {shape}")
    return values if names[0] in data.point else nodal_values(grid, values)
