"""Fields on a grid as VTU files, and a series of them with a .pvd index that ParaView opens at any moment.

meshio is imported here alone, when a file is written or read: the command line's help must not wait for it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np

from .atomic import OutputError, atomic_path, write_atomically
from .storage import writing

# The number of nodes of each type of cells, by meshio's names.
NODES_PER_CELL: Mapping[str, int] = {
    **{"vertex": 1, "line": 2, "triangle": 3, "quad": 4, "tetra": 4, "hexahedron": 8},
    **{"line3": 3, "triangle6": 6, "quad9": 9, "tetra10": 10, "hexahedron27": 27},
}
# Numbers up to this many bytes are compressed: by then zlib takes about a fifth of a second.
_COMPRESSED = 8 * 2**20
_TIME = "TimeValue"  # the name under which VTK looks for the time of a single file


@dataclass(frozen=True, eq=False)
class Grid:
    """Points (N, dim) with dim 1 to 3, and cells (M, k) of one type: 0-based point numbers in VTK's order.

    `cell_type` is meshio's name, a key of `NODES_PER_CELL`. Raises `OutputError` for arrays that do not fit.
    """

    points: np.ndarray
    cells: np.ndarray
    cell_type: str

    def __post_init__(self) -> None:
        points, cells = np.asarray(self.points, dtype=np.float64), np.asarray(self.cells)
        if points.ndim != 2 or points.shape[0] == 0 or points.shape[1] not in (1, 2, 3):
            raise OutputError(f"grid points: expected shape (N, 1), (N, 2) or (N, 3), found {points.shape}")
        if self.cell_type not in NODES_PER_CELL:
            known = ", ".join(NODES_PER_CELL)
            raise OutputError(f"grid cell_type: expected one of {known}, found {self.cell_type!r}")
        nodes = NODES_PER_CELL[self.cell_type]
        if cells.ndim != 2 or cells.shape[0] == 0 or cells.shape[1] != nodes:
            raise OutputError(f"grid cells: expected shape (M, {nodes}) for {self.cell_type}, found {cells.shape}")
        if cells.dtype.kind not in "iu":
            raise OutputError(f"grid cells: expected integers, found {cells.dtype}")
        if cells.min() < 0 or cells.max() >= len(points):
            raise OutputError(
                f"grid cells: expected point numbers 0 to {len(points) - 1}, found {cells.min()} to {cells.max()}"
            )
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "cells", cells.astype(np.int64, copy=False))


@dataclass(frozen=True, eq=False)
class FieldData:
    """Named values at the points (N, ...) and in the cells (M, ...) of a grid, at one time.

    An entry is a scalar (N,), a vector (N, c) or a square tensor (N, c, c) with c at most 3. `left_out` has sentences
    on fields that could not be computed, which no file has.
    """

    point: Mapping[str, np.ndarray] = field(default_factory=dict)
    cell: Mapping[str, np.ndarray] = field(default_factory=dict)
    time: float = 0.0
    left_out: tuple[str, ...] = ()


def write_vtu(
    path: str | os.PathLike[str],
    grid: Grid,
    fields: FieldData,
    *,
    compression: Literal["auto", "zlib", "lzma"] | None = "auto",
) -> None:
    """Write one binary .vtu file, whole or not at all, with the time of `fields` inside.

    With `auto`, small files are compressed by zlib, and large ones are not: compression would take most of the time.

    VTK is three-dimensional: points and two-component vectors get zeros, square tensors become (N, 9).
    Booleans become uint8, and a complex field `u` becomes `u_real` and `u_imag`. Raises `OutputError` for a
    field whose length is not the grid's, whose values VTK cannot hold, or whose name is empty, unprintable or
    taken.
    """
    import meshio

    if not math.isfinite(fields.time):
        raise OutputError(f"{path}: time: expected a finite number, found {fields.time}")
    dim = grid.points.shape[1]
    # New dictionaries every time: meshio writes into the ones it is given.
    mesh = meshio.Mesh(
        np.pad(grid.points, ((0, 0), (0, 3 - dim))),
        [(grid.cell_type, _short(grid.cells, len(grid.points)))],
        point_data=_vtk_arrays(fields.point, "point", len(grid.points), path),
        cell_data={k: [v] for k, v in _vtk_arrays(fields.cell, "cell", len(grid.cells), path).items()},
    )
    numbers = [mesh.points, *(block.data for block in mesh.cells), *mesh.point_data.values()]
    numbers += [block for blocks in mesh.cell_data.values() for block in blocks]
    if compression == "auto":
        compression = "zlib" if sum(each.nbytes for each in numbers) <= _COMPRESSED else None
    # The length of an array stands before it in a number of 32 bits, or of 64.
    header = "UInt64" if max(each.nbytes for each in numbers) >= 2**32 else None
    with atomic_path(path) as temporary:
        meshio.vtu.write(str(temporary), mesh, compression=compression, header_type=header)
        _append_time(temporary, fields.time)


def write_stl(path: str | os.PathLike[str], points: np.ndarray, triangles: np.ndarray) -> None:
    """Write a surface as binary STL, whole or not at all: points (N, 3), triangles (T, 3) of point numbers."""
    import meshio

    with atomic_path(path) as temporary:
        meshio.stl.write(str(temporary), meshio.Mesh(points, [("triangle", triangles)]), binary=True)


def read_vtu(path: str | os.PathLike[str]) -> tuple[Grid, FieldData]:
    """Read a .vtu file with cells of one type; points come back as (N, 3), vectors and tensors as written.

    Raises `OutputError` for a file that is missing, damaged or of several cell types.
    """
    import meshio

    if not Path(path).is_file():
        raise OutputError(f"{path}: no such file")
    with writing(path, "read"), open(path, "rb"):
        pass  # What the system refuses is told in its own words, not as a damaged file.
    try:
        # The format's own reader: meshio.read prints and ends the process when a file is unreadable.
        mesh = meshio.vtu.read(str(path))
    except Exception as error:  # damaged bytes surface as whatever the XML, zlib or numpy layer raises
        raise OutputError(f"{path}: not a readable VTU file ({type(error).__name__}: {error})") from error
    cell_types = sorted({block.type for block in mesh.cells})
    if len(cell_types) != 1:
        raise OutputError(f"{path}: expected cells of one type, found {', '.join(cell_types) or 'none'}")
    grid = Grid(mesh.points, np.concatenate([block.data for block in mesh.cells]), cell_types[0])
    cell = {name: np.concatenate(blocks) for name, blocks in mesh.cell_data.items()}
    time = float(mesh.field_data[_TIME][0]) if _TIME in mesh.field_data else 0.0
    return grid, FieldData(dict(mesh.point_data or {}), cell, time)


class FieldSeries:
    """A folder of `<stem>_<index>.vtu` files and the index `<stem>.pvd` over them.

    The index is rewritten after each file is complete, so it names complete files only, whenever it is read.
    The folder is made by the first `add`. An existing index is replaced; `resume` keeps it. `axis` says in the index
    what its times are.
    """

    def __init__(self, folder: str | os.PathLike[str], stem: str = "state", axis: str = "time") -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", stem, re.ASCII):
            raise OutputError(f"field series: stem: expected letters, digits, - and _, found {stem!r}")
        self.folder, self.stem, self.axis = Path(folder), stem, axis
        self._times: dict[int, float] = {}

    @classmethod
    def resume(
        cls, folder: str | os.PathLike[str], stem: str = "state", axis: str = "time", *, up_to: int | None = None
    ) -> FieldSeries:
        """Go on with the series in `folder`, which may be empty or missing.

        Entries whose file is gone are dropped, and with `up_to` the entries of a later index (their files
        stay until they are written again). The index on disk changes at the next `add`. Raises `OutputError`
        for an index that cannot be read or names files of another series.
        """
        series = cls(folder, stem, axis)
        if not series.index_path.exists():
            return series
        with writing(series.index_path, "read"):
            text = series.index_path.read_bytes()
        try:
            entries = ElementTree.fromstring(text).findall("Collection/DataSet")
            found = [(entry.attrib["file"], float(entry.attrib["timestep"])) for entry in entries]
        except (ElementTree.ParseError, KeyError, ValueError) as error:
            raise OutputError(f"{series.index_path}: not a readable ParaView index ({error})") from error
        for name, time in found:
            match = re.fullmatch(rf"{re.escape(stem)}_(\d+)\.vtu", name, re.ASCII)
            if match is None:
                raise OutputError(f"{series.index_path}: expected files {stem}_<number>.vtu, found {name!r}")
            if (series.folder / name).is_file() and (up_to is None or int(match[1]) <= up_to):
                series._times[int(match[1])] = time
        return series

    @property
    def index_path(self) -> Path:
        return self.folder / f"{self.stem}.pvd"

    @property
    def times(self) -> dict[int, float]:
        """Time of each entry by its index, in rising order of the index."""
        return dict(sorted(self._times.items()))

    def file_path(self, index: int) -> Path:
        return self.folder / f"{self.stem}_{index:05d}.vtu"

    def add(self, index: int, time: float, grid: Grid, fields: FieldData) -> Path:
        """Write the entry `index` (0 or more; one that exists is replaced), then the index over all entries.

        `time` is what ParaView's time axis shows and takes the place of `fields.time`. Returns the new file.
        """
        if index < 0:
            raise OutputError(f"{self.index_path}: index: expected 0 or more, found {index}")
        with writing(self.folder, "made"):
            self.folder.mkdir(parents=True, exist_ok=True)
        path = self.file_path(index)
        write_vtu(path, grid, replace(fields, time=float(time)))
        self._times[index] = float(time)
        lines = ['<?xml version="1.0"?>', f"<!-- timestep: {self.axis} -->"]
        lines += ['<VTKFile type="Collection" version="0.1">', "  <Collection>"]
        lines += [
            f'    <DataSet timestep="{moment!r}" group="" part="0" file="{self.file_path(number).name}"/>'
            for number, moment in self.times.items()
        ]
        write_atomically(self.index_path, "\n".join([*lines, "  </Collection>", "</VTKFile>", ""]))
        return path


def _vtk_arrays(
    values: Mapping[str, np.ndarray], kind: str, count: int, path: str | os.PathLike[str]
) -> dict[str, np.ndarray]:
    """The arrays of one kind (point or cell) as VTK takes them, by names safe inside an XML attribute."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in values.items():
        where = f"{path}: {kind} field {name!r}"
        if not name or not name.isprintable():
            raise OutputError(f"{where}: expected a name of printable characters")
        array = np.asarray(value)
        if array.ndim == 0 or len(array) != count:
            length = "one number" if array.ndim == 0 else f"length {len(array)}"
            raise OutputError(f"{where}: expected length {count} (the grid's {kind}s), found {length}")
        parts = {name: array}
        if array.dtype.kind == "c":
            parts = {f"{name}_real": array.real, f"{name}_imag": array.imag}
        for part, data in parts.items():
            # meshio escapes nothing and encodes the file in the machine's locale.
            key = escape(part, {'"': "&quot;"}).encode("ascii", "xmlcharrefreplace").decode("ascii")
            if key in arrays:
                raise OutputError(f"{where}: the name {part!r} is taken by another {kind} field")
            arrays[key] = _vtk_array(data, where)
    return arrays


def _short(cells: np.ndarray, points: int) -> np.ndarray:
    """Point numbers in four bytes each, where these are enough for them and for the ends of the cells."""
    return cells.astype(np.int32) if max(points, cells.size) < 2**31 else cells


def _vtk_array(array: np.ndarray, where: str) -> np.ndarray:
    """A contiguous array of a type and shape that VTK can hold."""
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    elif array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    elif array.dtype.kind not in "fiu":
        raise OutputError(f"{where}: expected real, complex, integer or boolean values, found {array.dtype}")
    shape = array.shape[1:]
    if shape == (2,):
        array = np.pad(array, ((0, 0), (0, 1)))
    elif shape in ((1, 1), (2, 2), (3, 3)):
        gap = (0, 3 - shape[0])
        array = np.pad(array, ((0, 0), gap, gap)).reshape(-1, 9)
    elif len(shape) > 1 or shape == (0,):
        raise OutputError(f"{where}: expected shape (N,), (N, c) or (N, c, c) with c <= 3, found {array.shape}")
    return np.ascontiguousarray(array)


def _append_time(path: Path, time: float) -> None:
    """Put the time into a finished VTU file, which meshio's writer has no place for."""
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - 256))
        tail = file.read()
        offset = tail.rfind(b"</UnstructuredGrid>")
        if offset < 0:
            raise OutputError(f"{path}: expected the end of an unstructured grid, found {tail[-60:]!r}")
        element = (
            f'<FieldData>\n<DataArray type="Float64" Name="{_TIME}" NumberOfTuples="1" format="ascii">\n'
            f"{time!r}\n</DataArray>\n</FieldData>\n"
        )
        file.seek(start + offset)
        file.write(element.encode("ascii") + tail[offset:])
