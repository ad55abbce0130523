"""The description of a mesh in memory, and the mesh of a description in a run folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from ..output.kept_mesh import read_kept
from ..output.names import MESH
from ..output.storage import OutputError
from .fields.formulas import library_class
from .fields.mistakes import issue
from .mesh_arrays import mesh_of


def description(mesh: Any) -> str:
    """A description of a mesh: what it is, its sizes, and a checksum of its points, cells and names."""
    kind = library_class(mesh)
    assert kind is not None
    library = kind.__module__.partition(".")[0]
    if library == "skfem":
        points, cells = np.asarray(mesh.doflocs).T, [("cells", np.asarray(mesh.t).T)]
        names = [*(mesh.boundaries or {}).items(), *(mesh.subdomains or {}).items()]
    else:
        points, cells = np.asarray(mesh.points), [(block.type, np.asarray(block.data)) for block in mesh.cells]
        several = (mesh.cell_sets, mesh.cell_data)
        names = [(key, each) for part in several for key, arrays in part.items() for each in arrays]
        names += list(mesh.point_sets.items())
    checksum = hashlib.sha256()
    for name, array in [("points", points), *cells, *names]:
        if array is None:
            continue
        checksum.update(str(name).encode())
        checksum.update(np.ascontiguousarray(array).tobytes())
    count = sum(len(each) for _, each in cells)
    what = f"{library} {kind.__name__} in memory"
    return f"{what}, {len(points):,} points, {count:,} cells, sha256 {checksum.hexdigest()[:16]}"


def described_mesh(folder: Path, described: str) -> Any:
    """The mesh in a run folder.

    Raises:
        PydanticCustomError: there is none, it is damaged, or it is not the one of this description.
    """
    path = folder / MESH
    try:
        mesh, found = read_kept(path, lambda arrays: (made := mesh_of(arrays), description(made)))
        if found == described:
            return mesh
        said = f"{path}: holds {found}"
    except OutputError as error:
        said = str(error)
    way_out = "copy it from the run again, or give the mesh itself in Python"
    raise issue(f"expected {described}, in the folder of this file; {said} ({way_out})")
