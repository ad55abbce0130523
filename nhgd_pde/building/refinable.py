"""Refuses adaptive refinement of meshes of which single cells cannot be refined."""

from __future__ import annotations

from ..fem.adaptive_refinement import NotRefinableError, check_refinable
from ..fem.mesh import Domain
from ..problem_file.loading import ProblemFile
from ..problem_file.mesh_spec import BoxMesh, RectangleMesh


def require_refinable(file: ProblemFile, domain: Domain) -> None:
    """Refuses quadrilaterals, hexahedra and curved cells.

    Raises:
        ProblemError: with the key that asks for cells which can be refined.
    """
    try:
        check_refinable(domain)
    except NotRefinableError as error:
        mesh = file.spec.mesh
        if domain.curved is not None:
            way = "take mesh.geometry: straight"
        elif isinstance(mesh, RectangleMesh | BoxMesh):
            way = f"take mesh.cell: {'triangle' if domain.dim == 2 else 'tetrahedron'}"
        elif domain.dim == 2:
            way = "take mesh.cell: triangle, which splits every quadrilateral into two triangles"
        else:
            way = "make the file with tetrahedra (gmsh: leave out `Recombine`)"
        message = f"adaptive refinement needs straight triangles or tetrahedra, {error}: {way}"
        raise file.error("mesh.adapt", message) from None
