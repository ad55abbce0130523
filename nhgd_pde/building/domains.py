"""From the `mesh` section to the mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import skfem

from ..fem import mesh as meshes
from ..fem.cells import MeshFileError
from ..fem.mesh import Domain
from ..fem.mesh_file import FoundMesh, Reading, read
from ..problem_file.lengths import check_lengths, check_read
from ..problem_file.loading import ProblemFile
from ..problem_file.mesh_spec import (
    BoxMesh,
    DiskMesh,
    FileMesh,
    IntervalMesh,
    LShapeMesh,
    ObjectMesh,
    RectangleMesh,
)
from ..problem_file.room import check_room
from ..problem_file.sizes import MeshSize


def build_domain(file: ProblemFile) -> Domain:
    """Make or read the mesh, find the parts that the file describes, and make the sides of the file periodic.

    Raises:
        ProblemError: there is no such file, or no sound mesh in it; the problem would not fit into memory; lengths are
            beyond what double precision calculates with; a part is empty; sides that should be periodic do not match;
            single cells of the mesh cannot be refined though the file asks for it.
    """
    domain = _mesh_of(file)
    if file.spec.mesh.adapt is not None:
        from .refinable import require_refinable

        require_refinable(file, domain)
    # Loaded where they are needed, because most solves do without them.
    if file.spec.parts:
        from .parts import with_parts

        domain = with_parts(file, domain)
    if all(each.periodic is None for each in file.spec.pde.boundary.values()):
        return domain
    from .periodic_sides import with_seams

    return with_seams(file, domain)


def _mesh_of(file: ProblemFile) -> Domain:
    check_room(file)
    check_lengths(file)
    spec = file.spec.mesh
    match spec:
        case IntervalMesh():
            mesh = meshes.interval(spec.size[0], spec.origin[0], spec.cells[0])
        case RectangleMesh():
            mesh = meshes.rectangle(spec.size, spec.origin, spec.cells, spec.cell)
        case BoxMesh():
            mesh = meshes.box(spec.size, spec.origin, spec.cells, spec.cell)
        case DiskMesh():
            mesh = meshes.disk(spec.size, spec.origin, spec.refine)
            return meshes.domain(mesh)
        case LShapeMesh():
            mesh = meshes.l_shape(spec.size, spec.origin, spec.refine)
            return meshes.domain(mesh)
        case FileMesh() | ObjectMesh():
            found = _read(file, spec)
            check_room(file, _size_of(found.mesh))
            check_read(file, found.mesh.p, found.mesh.t)
            if found.curved is not None and spec.refine:
                message = (
                    f"expected 0 for a mesh with curved cells, found {spec.refine}: make the file with finer cells"
                )
                raise file.error("mesh.refine", f"{message}, or take `geometry: straight`")
            return meshes.domain(found.mesh, spec.refine, found.unusable, found.curved)
    return meshes.domain(mesh, spec.refine)


def onto_boundary(mesh: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """Moves points (dim, k) near the boundary of a disk onto it; None for other meshes.

    Args:
        mesh: the `mesh` section of a problem file.
    """
    if not isinstance(mesh, DiskMesh):
        return None
    centre, radius = np.array(mesh.origin, dtype=float)[:, None], mesh.size

    def moved(x: np.ndarray) -> np.ndarray:
        return centre + radius * (x - centre) / np.linalg.norm(x - centre, axis=0)

    return moved


def _read(file: ProblemFile, spec: FileMesh | ObjectMesh) -> FoundMesh:
    """The mesh in files or in memory."""
    reading = Reading(spec.cracks == "allowed", spec.geometry == "straight", spec.cell)
    if isinstance(spec, ObjectMesh):
        from ..fem.mesh_objects import of_object

        try:
            return of_object(spec.mesh, reading)
        except MeshFileError as error:
            raise file.error("mesh.mesh", f"the mesh {error}") from None
    paths = {}
    for key, name in (("file", spec.file), ("facets", spec.facets)):
        path = None if name is None else file.resolve(name)
        if name is not None and path is None:
            raise file.error(f"mesh.{key}", f"expected a mesh file, found nothing at {name!r}")
        paths[key] = path
    assert paths["file"] is not None
    try:
        return read(paths["file"], reading, paths["facets"])
    except MeshFileError as error:
        raise file.error("mesh.file", str(error)) from None


def _size_of(mesh: skfem.Mesh) -> MeshSize:
    dim = int(mesh.dim())
    # P2 elements have about as many nodes as the mesh has vertices after one refinement.
    return MeshSize(dim, len(mesh.t), mesh.nelements, mesh.nvertices, mesh.nvertices * 2.0**dim)
