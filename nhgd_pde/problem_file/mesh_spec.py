"""The `mesh` section of a problem file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from nhgd_pde.problem_file.fields import MeshValue, Number, OneOf, PerAxis, Section

# Tags of mesh files are numbers, which YAML reads as such without quotes.
PartName = Annotated[
    str, BeforeValidator(lambda name: str(name) if isinstance(name, int) and not isinstance(name, bool) else name)
]
Length = Annotated[float, Number(above=0)]
Coordinate = Annotated[float, Number()]
Count = Annotated[int, Number(whole=True, least=1)]
Natural = Annotated[int, Number(whole=True, least=0)]
Refinement = Annotated[
    Natural,
    Field(description="Times every edge is halved after the mesh is made or read."),
]


class AdaptSpec(Section):
    """Adaptive refinement: the problem is solved on finer and finer meshes, each from the answer on the one before."""

    tolerance: Annotated[float, Number(above=0)] = Field(
        default=1e-3, description="The largest estimated error of the objective, relative to the objective."
    )
    cells: Count = Field(default=200_000, description="Cells that no mesh may have more of.")
    marking: Literal["doerfler", "maximum"] = Field(
        default="doerfler",
        description="Cells that are refined: the fewest that have `fraction` of the error, or those that have at least "
        "`fraction` of the largest error of a cell.",
    )
    fraction: Annotated[float, Number(above=0, below=1)] = Field(default=0.5, description="The share in `marking`.")

    def __str__(self) -> str:
        return (
            f"adapt: the mesh is refined until the estimated error of the objective is below {self.tolerance:.0e} of "
            f"it, with at most {self.cells:,} cells"
        )


Adaptation = Annotated[
    AdaptSpec | None,
    Field(description="Adaptive refinement, such as {tolerance: 1e-3}; null: the mesh stays as it is."),
]


class IntervalMesh(Section):
    """An interval, with the sides left and right."""

    kind: Literal["interval"]
    size: Annotated[tuple[Length], PerAxis(1)] = Field(default=(1.0,), description="Length.")
    origin: Annotated[tuple[Coordinate], PerAxis(1)] = Field(default=(0.0,), description="Left end.")
    cells: Annotated[tuple[Count], PerAxis(1)] = Field(default=(32,), description="Number of cells.")
    refine: Refinement = 0
    adapt: Adaptation = None


class RectangleMesh(Section):
    """A rectangle of triangles or quadrilaterals, with the sides left, right, bottom and top."""

    kind: Literal["rectangle"]
    size: Annotated[tuple[Length, Length], PerAxis(2)] = Field(default=(1.0, 1.0), description="Edge lengths.")
    origin: Annotated[tuple[Coordinate, Coordinate], PerAxis(2)] = Field(
        default=(0.0, 0.0), description="Lower left corner."
    )
    cells: Annotated[tuple[Count, Count], PerAxis(2)] = Field(
        default=(32, 32), description="Number of cells along each axis."
    )
    cell: Literal["triangle", "quadrilateral"] = Field(
        default="triangle", description="Their kind; of triangles two make a cell of the grid."
    )
    refine: Refinement = 0
    adapt: Adaptation = None


class BoxMesh(Section):
    """A box of tetrahedra or hexahedra, with the sides left, right (x), bottom, top (y), front and back (z)."""

    kind: Literal["box"]
    size: Annotated[tuple[Length, Length, Length], PerAxis(3)] = Field(
        default=(1.0, 1.0, 1.0), description="Edge lengths."
    )
    origin: Annotated[tuple[Coordinate, Coordinate, Coordinate], PerAxis(3)] = Field(
        default=(0.0, 0.0, 0.0), description="Corner with the least coordinates."
    )
    cells: Annotated[tuple[Count, Count, Count], PerAxis(3)] = Field(
        default=(32, 32, 32), description="Number of cells along each axis."
    )
    cell: Literal["tetrahedron", "hexahedron"] = Field(
        default="tetrahedron", description="Their kind; of tetrahedra six make a cell of the grid."
    )
    refine: Refinement = 0
    adapt: Adaptation = None


class DiskMesh(Section):
    """A disk of triangles."""

    kind: Literal["disk"]
    size: Length = Field(default=1.0, description="Radius.")
    origin: Annotated[tuple[Coordinate, Coordinate], PerAxis(2)] = Field(default=(0.0, 0.0), description="Centre.")
    refine: Refinement = 4
    adapt: Adaptation = None


class LShapeMesh(Section):
    """Three squares about a re-entrant corner; the lower right one of four is missing."""

    kind: Literal["l_shape"]
    size: Length = Field(default=1.0, description="Edge of each square.")
    origin: Annotated[tuple[Coordinate, Coordinate], PerAxis(2)] = Field(
        default=(0.0, 0.0), description="The re-entrant corner."
    )
    refine: Refinement = 4
    adapt: Adaptation = None


Cracks = Annotated[
    Literal["refused", "allowed"],
    Field(
        description="Whether cells may touch without sharing vertices and facets: the mesh is cut there, and nothing "
        "goes through. Cells that overlap are refused always."
    ),
]
Geometry = Annotated[
    Literal["curved", "straight"],
    Field(description="Whether cells of second order keep their curved edges, or become straight."),
]
Split = Annotated[
    Literal["triangle"] | None,
    Field(description="triangle: every quadrilateral is split into two triangles; null: cells as they are."),
]


class FileMesh(Section):
    """A mesh file; its names and tags become the names of boundaries and subdomains."""

    file: str = Field(
        description="The path of a mesh file that meshio reads, from this file's folder or the one above it.",
        min_length=1,
    )
    facets: str | None = Field(
        default=None,
        description="A second file with facets of the mesh and their tags, as XDMF files of FEniCS have them.",
        min_length=1,
    )
    refine: Refinement = 0
    cracks: Cracks = "refused"
    geometry: Geometry = "curved"
    cell: Split = None
    adapt: Adaptation = None


class ObjectMesh(Section):
    """In Python: a mesh of scikit-fem or meshio in memory, with the names of its parts."""

    mesh: Annotated[Any, MeshValue()] = Field(
        description="The mesh, a scikit-fem Mesh or a meshio.Mesh; in the problem.yaml of a run folder the description "
        "of the mesh in the file mesh.npz beside it."
    )
    refine: Refinement = 0
    cracks: Cracks = "refused"
    geometry: Geometry = "curved"
    cell: Split = None
    adapt: Adaptation = None


MeshSpec = Annotated[IntervalMesh | RectangleMesh | BoxMesh | DiskMesh | LShapeMesh | FileMesh | ObjectMesh, OneOf()]
