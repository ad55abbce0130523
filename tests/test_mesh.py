"""Meshes: names of sides, areas, refinement, and mesh files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import meshio
import numpy as np
import pytest
import skfem
from mesh_files import read_mesh

from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.cells import MeshFileError
from nhgd_pde.fem.mesh import Domain, domain
from nhgd_pde.fem.mesh_file import to_skfem
from problems import PLATE, slope, split

SIDES = [("left", 0, 0), ("right", 0, 1), ("bottom", 1, 0), ("top", 1, 1), ("front", 2, 0), ("back", 2, 1)]
ORIGIN, SIZE = (1.0, -2.0, 0.5), (2.0, 1.0, 3.0)


BUILT = {
    "line": lambda: meshes.interval(SIZE[0], ORIGIN[0], 3),
    "triangle": lambda: meshes.rectangle(SIZE[:2], ORIGIN[:2], (2, 3)),
    "quad": lambda: meshes.rectangle(SIZE[:2], ORIGIN[:2], (2, 3), "quadrilateral"),
    "tetra": lambda: meshes.box(SIZE, ORIGIN, (2, 3, 2)),
    "hexahedron": lambda: meshes.box(SIZE, ORIGIN, (2, 3, 2), "hexahedron"),
}
kinds = pytest.mark.parametrize("kind", BUILT)


def volume(mesh: skfem.Mesh) -> float:
    return float(skfem.Basis(mesh, mesh.elem(), intorder=2).dx.sum())


@pytest.mark.parametrize("refine", [0, 1, 2])
@kinds
def test_sides_are_named_by_their_coordinates(kind: str, refine: int) -> None:
    found = domain(BUILT[kind](), refine)
    dim = found.dim
    assert found.cell == kind and volume(found.mesh) == pytest.approx(np.prod(SIZE[:dim]), rel=1e-14)
    assert list(found.boundaries) == [name for name, axis, _ in SIDES if axis < dim] + ["all"]
    outer = found.mesh.boundary_facets()
    for name, axis, end in SIDES[: 2 * dim]:
        coordinates = found.mesh.p[axis, found.mesh.facets[:, outer]]
        on_side = np.isclose(coordinates, ORIGIN[axis] + end * SIZE[axis], rtol=0, atol=1e-12).all(axis=0)
        assert np.array_equal(found.boundaries[name], outer[on_side]), name
    assert np.array_equal(found.boundaries["all"], outer)
    together = np.concatenate([found.boundaries[name] for name, _, _ in SIDES[: 2 * dim]])
    assert np.array_equal(np.sort(together), outer)


@kinds
def test_refinement_keeps_subdomains_in_place(kind: str) -> None:
    mesh = BUILT[kind]()
    cells = np.array([0, mesh.nelements - 2])
    first = mesh.p[:, mesh.t[:, cells]].mean(axis=1)
    found = domain(mesh.with_subdomains({"core": cells}), 2)
    core = found.mesh.restrict(found.subdomains["core"])
    assert volume(core) == pytest.approx(volume(mesh.restrict(cells)), rel=1e-14)
    finder = mesh.element_finder()
    assert set(finder(*core.p[:, core.t].mean(axis=1))) == set(cells) == set(finder(*first))


def test_a_disk_converges_to_its_area_at_order_two() -> None:
    errors = [9 * np.pi - volume(meshes.disk(3.0, (1.0, 2.0), refine)) for refine in (2, 3, 4, 5)]
    assert slope([2.0**-refine for refine in (2, 3, 4, 5)], errors) == pytest.approx(2.0, abs=0.05)
    mesh = domain(meshes.disk(3.0, (1.0, 2.0), 3)).mesh
    rim = mesh.p[:, mesh.boundary_nodes()] - [[1.0], [2.0]]
    assert np.allclose(np.hypot(*rim), 3.0, rtol=1e-14)


@pytest.mark.parametrize("refine", [0, 3])
def test_an_l_shape_lacks_its_lower_right_quarter(refine: int) -> None:
    mesh = meshes.l_shape(2.0, (5.0, 1.0), refine)
    assert volume(mesh) == pytest.approx(3 * 2.0**2, rel=1e-14)
    assert mesh.p.min(axis=1).tolist() == [3.0, -1.0] and mesh.p.max(axis=1).tolist() == [7.0, 3.0]
    x, y = mesh.p[:, mesh.t].mean(axis=1)
    assert not ((x > 5.0) & (y < 1.0)).any()


def test_the_description_has_counts_and_names() -> None:
    for kind, cells, core in (("triangle", "12 triangles", 6), ("quad", "6 quadrilaterals", 3)):
        assert repr(split(BUILT[kind](), core=lambda x: x[0] < 2)) == (
            f"{cells}, 12 vertices; boundaries: left (3), right (3), bottom (2), top (2), all (10); "
            f"subdomains: core ({core})"
        )
    assert repr(domain(BUILT["hexahedron"]())).startswith("12 hexahedra, 36 vertices; boundaries: left (6), ")
    assert repr(domain(meshes.l_shape(refine=0))).endswith("subdomains: none")


# Mesh files


@pytest.mark.parametrize("refine", [0, 1])
def test_the_shipped_plate_has_its_names(refine: int) -> None:
    plate = domain(read_mesh(PLATE), refine)
    assert set(plate.subdomains) == {"plate", "pad"}
    assert set(plate.boundaries) == {"left", "right", "bottom", "top", "hole", "all"}
    pad, rest = (plate.mesh.restrict(plate.subdomains[name]) for name in ("pad", "plate"))
    assert volume(pad) == pytest.approx(np.pi * (0.35**2 - 0.2**2), rel=0.01)
    assert volume(pad) + volume(rest) == pytest.approx(2 - np.pi * 0.2**2, rel=1e-3)
    assert np.hypot(*pad.p).max() <= 0.35 + 1e-12
    for name, axis, value in (("left", 0, -1.0), ("right", 0, 1.0), ("bottom", 1, -0.5), ("top", 1, 0.5)):
        assert np.allclose(plate.mesh.p[axis, plate.mesh.facets[:, plate.boundaries[name]]], value, atol=1e-12)
    assert (np.hypot(*plate.mesh.p[:, plate.mesh.facets[:, plate.boundaries["hole"]]]) < 0.2 + 1e-12).all()


SQUARE = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
HALVES = np.array([[0, 1, 2], [0, 2, 3]])

OLD_GMSH = """\
$MeshFormat
2.2 0 8
$EndMeshFormat
$PhysicalNames
4
1 1 "inlet"
1 3 "seam"
2 1 "lower"
2 2 "upper"
$EndPhysicalNames
$Nodes
5
1 0 0 0
2 1 0 0
3 1 1 0
4 0 1 0
5 9 9 9
$EndNodes
$Elements
4
1 1 2 1 1 4 1
2 1 2 3 1 1 3
3 2 2 1 1 1 2 3
4 2 2 2 1 1 3 4
$EndElements
"""


def test_an_old_gmsh_file_keeps_its_names(tmp_path: Path) -> None:
    """The number 1 is the tag of a curve and of a surface; a vertex far away belongs to no cell."""
    path = tmp_path / "old.msh"
    path.write_text(OLD_GMSH)
    found = domain(read_mesh(path))
    assert found.mesh.nvertices == 4
    assert {name: cells.tolist() for name, cells in found.subdomains.items()} == {"lower": [0], "upper": [1]}
    # The seam lies between the two cells.
    assert set(found.boundaries) == {"inlet", "all"}
    assert found.mesh.p[:, found.mesh.facets[:, found.boundaries["inlet"][0]]].tolist() == [[0, 0], [0, 1]]


def written(path: Path, points: np.ndarray, cells: dict[str, np.ndarray]) -> Path:
    file_format = "gmsh22" if path.suffix == ".msh" else None
    meshio.write(path, meshio.Mesh(points, list(cells.items())), file_format)
    return path


@pytest.mark.parametrize("suffix", [".vtk", ".vtu", ".stl", ".off", ".msh"])
def test_other_formats_are_read(tmp_path: Path, suffix: str) -> None:
    """The mesh is the square in the plane z = 7."""
    flat = np.pad(SQUARE, ((0, 0), (0, 1)), constant_values=7.0)
    mesh = read_mesh(written(tmp_path / f"a{suffix}", flat, {"triangle": HALVES}))
    assert isinstance(mesh, skfem.MeshTri1) and volume(mesh) == pytest.approx(1.0, rel=1e-14)
    assert set(domain(mesh).boundaries) == {"all"} and len(domain(mesh).boundaries["all"]) == 4


def test_indices_of_cells_continue_over_several_blocks(tmp_path: Path) -> None:
    parts = meshio.Mesh(
        SQUARE,
        [("triangle", HALVES[:1]), ("line", np.array([[0, 1]])), ("triangle", HALVES[1:])],
        cell_data={"gmsh:physical": [np.array([4]), np.array([9]), np.array([5])]},
        field_data={"a": np.array([4, 2]), "b": np.array([5, 2]), "floor": np.array([9, 1])},
    )
    found = domain(to_skfem(parts)[0])
    assert {name: cells.tolist() for name, cells in found.subdomains.items()} == {"a": [0], "b": [1]}
    assert len(found.boundaries["floor"]) == 1


CUBE = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
QUAD = np.array([[0, 1, 2, 3]])
TENT = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0]])
SIX = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0], [2, 1, 0]])
BRICK = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
OCTET = np.arange(8)[None]


@pytest.mark.parametrize("suffix", [".vtk", ".vtu", ".msh"])
@pytest.mark.parametrize(
    ("points", "cells", "words"),
    [
        (SIX, {"wedge": np.arange(6)[None]}, "holds wedge; expected tetra, hexahedron, triangle, quad or line"),
        (SIX, {"triangle6": np.arange(6)[None], "line": QUAD[:, :2]}, "has curved cells that fold over themselves"),
        (SIX, {"triangle": np.array([[1, 4, 2]]), "quad": QUAD}, "mixes triangle with quad; expected cells of one"),
        (CUBE, {"tetra": QUAD, "quad": QUAD}, "mixes tetra with quad; .* with triangle for parts of the boundary"),
        (BRICK, {"hexahedron": OCTET, "tetra": QUAD}, "mixes tetra with hexahedron"),
        (SQUARE, {"vertex": QUAD[:, :1]}, "holds vertex; expected tetra, hexahedron, triangle, quad or line"),
        (TENT, {"triangle": HALVES}, "triangle cells that do not lie in a plane: the vertex at .*is 0.263 away"),
        (SQUARE, {"line": np.array([[0, 1], [1, 2]])}, "line cells that do not lie on a straight line: the vertex"),
        (SQUARE * [1, 0], {"triangle": HALVES}, r"a degenerate triangle \(measure zero\) at \(0.6667, 0\)"),
        (0.1 * SQUARE @ np.array([[1, 1], [1, 1]]), {"triangle": HALVES}, "degenerate triangle"),
        (CUBE * [1, 1, 0], {"tetra": QUAD}, "degenerate tetra"),
        (SQUARE, {"triangle": HALVES[[0, 1, 0]]}, "overlap"),
        (np.where(SQUARE > 0.5, np.nan, SQUARE), {"triangle": HALVES}, "not finite"),
        (TENT, {"quad": QUAD}, "quad cells that do not lie in a plane: the vertex at"),
        (SQUARE * [1, 0], {"quad": QUAD}, r"a degenerate quad \(measure zero\) at \(0.5, 0\)"),
        (BRICK * [1, 1, 0], {"hexahedron": OCTET}, "a degenerate hexahedron"),
        (SQUARE, {"quad": QUAD[:, [0, 2, 1, 3]]}, "a folded quad .* vertices out of order"),
        (np.array([[0.0, 0], [1, 0], [0.1, 0.1], [0, 1]]), {"quad": QUAD}, "a folded quad .not convex"),
        (np.array([[0.0, 0], [1, 0], [0.5, 0.5], [0, 1]]), {"quad": QUAD}, "a folded quad .*flat at a corner"),
        (BRICK, {"hexahedron": OCTET[:, [0, 1, 3, 2, 4, 5, 7, 6]]}, "a folded hexahedron"),
        (BRICK, {"hexahedron": OCTET[:, [0, 1, 2, 3, 6, 7, 4, 5]]}, "a folded hexahedron"),
        (SQUARE, {"quad": QUAD[[0, 0, 0]]}, "quad cells that overlap"),
        (BRICK, {"hexahedron": OCTET[[0, 0, 0]]}, "hexahedron cells that overlap"),
    ],
    ids=[
        "wedges", "second order", "mixed", "foreign facets", "two solids", "vertices", "curved", "bent", "flat",
        "sliver", "flat tetra", "twice", "nan", "curved quad", "flat quad", "flat hexahedron", "crossed quad",
        "dented quad", "straight corner", "crossed hexahedron", "twisted hexahedron", "thrice a quad",
        "thrice a hexahedron",
    ],
)  # fmt: skip
def test_unusable_cells_are_explained(
    tmp_path: Path, suffix: str, points: np.ndarray, cells: dict[str, np.ndarray], words: str
) -> None:
    spatial = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    path = written(tmp_path / f"bad{suffix}", spatial, cells)
    with pytest.raises(MeshFileError, match=words) as caught:
        read_mesh(path)
    assert str(path) in str(caught.value)


def test_a_curved_surface_is_explained(tmp_path: Path) -> None:
    with pytest.raises(MeshFileError, match="do not lie in a plane"):
        read_mesh(written(tmp_path / "tent.stl", TENT, {"triangle": HALVES}))


XDMF = """\
<Xdmf Version="3.0"><Domain><Grid Name="Grid">
  <Geometry GeometryType="XYZ"><DataItem DataType="Float" Dimensions="4 3" Format="XML" Precision="8">
    0 0 7 1 0 7 1 1 7 0 1 7</DataItem></Geometry>
  <Topology TopologyType="Triangle" NumberOfElements="2" NodesPerElement="3">
    <DataItem DataType="Int" Dimensions="2 3" Format="XML" Precision="8">0 1 2 0 2 3</DataItem></Topology>
</Grid></Domain></Xdmf>
"""


def test_a_format_that_needs_another_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.xdmf"
    path.write_text(XDMF)
    assert volume(read_mesh(path)) == pytest.approx(1.0, rel=1e-14)
    # The package is made to look as if it were not installed.
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MeshFileError, match="cannot be read: meshio needs the package h5py"):
        read_mesh(path)


def test_cells_of_missing_vertices_are_refused(tmp_path: Path) -> None:
    for wrong in (4, -1):
        found = meshio.Mesh(SQUARE, [("triangle", np.array([[0, 1, wrong]]))])
        with pytest.raises(MeshFileError, match="cells with vertices that the file does not contain"):
            to_skfem(found)


@pytest.mark.parametrize("suffix", [".msh", ".vtk", ".vtu", ".xdmf", ".stl", ".obj", ".inp", ".e", "", ".xyz"])
@pytest.mark.parametrize("content", ["missing", "empty", "noise", "text", "cut", "folder"])
def test_files_that_are_not_meshes_are_refused_without_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, content: str
) -> None:
    path = tmp_path / f"mesh{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, 3000, dtype=np.uint8).tobytes()
    bytes_of = {
        "empty": b"",
        "noise": noise,
        "text": b"hello\n\nworld 1 2 3\n",
        "cut": PLATE.read_bytes()[:9000],
    }
    if content in bytes_of:
        path.write_bytes(bytes_of[content])
    elif content == "folder":
        path.mkdir()
    with pytest.raises(MeshFileError, match="mesh file") as caught:
        read_mesh(path)
    assert str(path) in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) in ([path.name], [])


def test_named_facets_inside_are_not_a_boundary() -> None:
    mesh = meshes.rectangle((1, 1), (0, 0), (2, 2))
    inner = np.setdiff1d(np.arange(mesh.nfacets), mesh.boundary_facets())
    mixed = np.append(mesh.boundaries["left"], inner[0])
    found = domain(mesh.with_boundaries({"seam": inner[:2], "mixed": mixed, "none": inner[:0]}), refine=1)
    assert set(found.boundaries) == {"left", "right", "bottom", "top", "all"}


def test_refinement_prints_nothing(caplog: pytest.LogCaptureFixture) -> None:
    for kind in BUILT:
        assert isinstance(domain(BUILT[kind](), 2), Domain)
    assert not caplog.records
