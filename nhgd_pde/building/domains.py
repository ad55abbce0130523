"""From the `mesh` section to the mesh."""

from __future__ import annotations

import skfem

from ..fem import mesh as meshes
from ..fem.cells import MeshFileError
from ..fem.mesh import Domain
from ..fem.mesh_file import Reading, read
from ..problem_file.lengths import check_lengths, check_read
from ..problem_file.loading import ProblemFile
from ..problem_file.mesh_spec import BoxMesh, DiskMesh, FileMesh, IntervalMesh, LShapeMesh, RectangleMesh
from ..problem_file.room import check_room
from ..problem_file.sizes import MeshSize
from .periodic_sides import with_seams


def build_domain(file: ProblemFile) -> Domain:
    """Make or read the mesh, and make the sides of the file periodic.

    Raises:
        ProblemError: there is no such file, or no sound mesh in it; the problem would not fit into memory; lengths are
            beyond what double precision calculates with; sides that should be periodic do not match.
    """
    return with_seams(file, _mesh_of(file))


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
        case FileMesh():
            path = file.resolve(spec.file)
            if path is None:
                raise file.error("mesh.file", f"expected a mesh file, found nothing at {spec.file!r}")
            try:
                found = read(path, Reading(spec.cracks == "allowed", spec.geometry == "straight", spec.cell))
            except MeshFileError as error:
                raise file.error("mesh.file", str(error)) from None
            check_room(file, _size_of(found.mesh))
            check_read(file, found.mesh.p, found.mesh.t)
            if found.curved is not None and spec.refine:
                message = f"expected 0 for a mesh with curved cells, found {spec.refine}: make the file with finer cells"
                raise file.error("mesh.refine", f"{message}, or take `geometry: straight`")
            return meshes.domain(found.mesh, spec.refine, found.unusable, found.curved)
    return meshes.domain(mesh, spec.refine)


def _size_of(mesh: skfem.Mesh) -> MeshSize:
    dim = int(mesh.dim())
    # P2 elements have about as many nodes as the mesh has vertices after one refinement.
    return MeshSize(dim, len(mesh.t), mesh.nelements, mesh.nvertices, mesh.nvertices * 2.0**dim)
