"""Names, numbers and tags of mesh files, and curves inside the domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
from click.testing import CliRunner
from mesh_files import KINDS, grid, read, read_mesh, tagged, value

from nhgd_pde import load, solve, verify
from nhgd_pde.cli import main
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.cells import CELLS, MeshFileError
from nhgd_pde.fem.mesh import Domain, domain
from nhgd_pde.fem.mesh_file import to_skfem
from nhgd_pde.problem_file.errors import ProblemError

FAULTS = Path(__file__).parent / "faults"
kinds = pytest.mark.parametrize("kind", KINDS)


def check_parts(found: Domain, names: dict[int, str]) -> None:
    x = found.mesh.p[0]
    for number, where in ((1, 0.0), (2, 1.0), (5, 0.5)):
        facets = (found.inside if number == 5 else found.boundaries)[names[number]]
        assert np.allclose(x[found.mesh.facets[:, facets]], where)
        assert len(facets) == np.isclose(x[found.mesh.facets], where).all(axis=0).sum()
    halves = [found.subdomains[names[number]] for number in (10, 11)]
    assert [(x[found.mesh.t[:, half]].mean(axis=0) > 0.5).all() for half in halves] == [False, True]
    assert sum(map(len, halves)) == found.mesh.nelements


NUMBERS = {number: str(number) for number in (1, 2, 5, 10, 11)}


# Files


@kinds
@pytest.mark.parametrize("refine", [0, 1, 2])
def test_tags_are_names_and_refinement_keeps_them_in_place(kind: str, refine: int) -> None:
    check_parts(read(tagged(kind, "medit:ref"), refine), NUMBERS)


@pytest.mark.parametrize(
    ("suffix", "key", "options"),
    [
        (".mesh", "medit:ref", {}),
        (".msh", "gmsh:physical", {"file_format": "gmsh22", "binary": False}),
        (".msh", "gmsh:physical", {"file_format": "gmsh22", "binary": True}),
        (".vtu", "medit:ref", {}),
        (".vtu", "CellEntityIds", {}),
        (".vtk", "Material", {}),
        (".bdf", "nastran:ref", {}),
        (".xdmf", "medit:ref", {}),
    ],
)
@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra", "hexahedron"])
def test_numbers_in_files_are_names(tmp_path: Path, kind: str, suffix: str, key: str, options: dict[str, Any]) -> None:
    path = tmp_path / f"a{suffix}"
    mesh = tagged(kind, key)
    if key.startswith("gmsh"):
        mesh.cell_data["gmsh:geometrical"] = [np.full_like(each, 3) for each in mesh.cell_data[key]]
    meshio.write(path, mesh, **options)
    check_parts(domain(read_mesh(path)), NUMBERS)


def test_a_table_names_some_of_the_numbers() -> None:
    mesh = tagged("triangle", "gmsh:physical")
    mesh.field_data = {"left": np.array([1, 1]), "seam": np.array([5, 1]), "1": np.array([10, 2])}
    check_parts(read(mesh), {**NUMBERS, 1: "left", 5: "seam", 10: "1"})
    mesh.cell_data["gmsh:physical"][1][:] = 0
    assert set(read(mesh).boundaries) == {"all"}
    # The families of med files have several names each.
    families = tagged("triangle", "cell_tags")
    families.cell_tags = {1: ["left", "walls"], 2: ["right", "walls"]}
    found = read(families)
    check_parts(found, {**NUMBERS, 1: "left", 2: "right"})
    assert len(found.boundaries["walls"]) == 8


def test_further_tags_have_the_name_of_their_data_as_a_prefix() -> None:
    mesh = tagged("triangle", "medit:ref")
    mesh.cell_data["region"] = [np.full_like(each, 7) for each in mesh.cell_data["medit:ref"]]
    mesh.cell_data["heat"] = [np.full(len(each), 0.5) for each in mesh.cell_data["medit:ref"]]
    mesh.cell_data["normal"] = [np.ones((len(each), 3), dtype=int) for each in mesh.cell_data["medit:ref"]]
    mesh.cell_data["id"] = [np.arange(len(each)) for each in mesh.cell_data["medit:ref"]]
    found = read(mesh)
    check_parts(found, NUMBERS)
    assert len(found.subdomains["region:7"]) == 32 and not any(
        name.startswith(("heat", "normal")) for name in found.facets
    )


ABAQUS = """\
*NODE
1, 0, 0
2, 1, 0
3, 2, 0
4, 0, 1
5, 1, 1
6, 2, 1
*ELEMENT, TYPE=CPS4, ELSET=body
1, 1, 2, 5, 4
2, 2, 3, 6, 5
*ELSET, ELSET=east
2
*NSET, NSET=left
1, 4
*NSET, NSET=bottom, GENERATE
1, 3, 1
*NSET, NSET=seam
2, 5
*NSET, NSET=corner
1
*NSET, NSET=stray
1, 4, 6
"""


def test_sets_of_abaqus_are_names(tmp_path: Path) -> None:
    path = tmp_path / "a.inp"
    path.write_text(ABAQUS)
    problem = {
        "name": "abaqus",
        "mesh": {"file": str(path)},
        "pde": {"kind": "poisson", "boundary": {"left": {"dirichlet": 0}, "seam": {"dirichlet": 2}}},
        "control": {"kind": "source", "on": "east"},
        "objective": [{"kind": "tracking", "target": 0, "on": "bottom"}],
    }
    found = load(problem).pde.space.domain
    assert {name: len(each) for name, each in found.boundaries.items()} == {"left": 1, "bottom": 2, "all": 6}
    assert {name: len(each) for name, each in found.inside.items()} == {"seam": 1}
    assert {name: each.tolist() for name, each in found.subdomains.items()} == {"body": [0, 1], "east": [1]}
    for name, count in (("corner", 1), ("stray", 3)):
        words = (
            rf"expected a boundary, found '{name}', which names {count} vertices, which do not make up facets or cells"
        )
        with pytest.raises(ProblemError, match=words):
            load(problem, {f"pde.boundary.{name}": {"dirichlet": 0}})


@kinds
def test_sets_of_vertices_are_facets_or_cells(kind: str) -> None:
    """The sets are those that meshio reads from Exodus files; it stores those of other formats in the same place."""
    points, cells, _ = grid(kind)
    sides = {name: np.flatnonzero(points[:, 0] == x) for name, x in (("left", 0.0), ("right", 1.0), ("seam", 0.5))}
    half = {"half": np.flatnonzero(points[:, 0] <= 0.5), "whole": np.arange(len(points))}
    found = read(meshio.Mesh(points, [(kind, cells)], point_sets={**sides, **half}), refine=1)
    x = found.mesh.p[0]
    for name, where in (("left", 0.0), ("right", 1.0), ("seam", 0.5)):
        assert np.allclose(x[found.mesh.facets[:, found.facets[name]]], where), name
    assert set(found.inside) == {"seam"}
    assert len(found.subdomains["half"]) * 2 == len(found.subdomains["whole"]) == found.mesh.nelements


@pytest.mark.parametrize("suffix", [".e", ".exo"])
@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra", "hexahedron"])
def test_node_sets_of_exodus_files_are_names(tmp_path: Path, kind: str, suffix: str) -> None:
    points, cells, _ = grid(kind)
    sides = {name: np.flatnonzero(points[:, 0] == x) for name, x in (("left", 0.0), ("right", 1.0), ("seam", 0.5))}
    space = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    meshio.Mesh(space, [(kind, cells)], point_sets=sides).write(tmp_path / f"a{suffix}")
    found = domain(read_mesh(tmp_path / f"a{suffix}"))
    x = found.mesh.p[0]
    assert set(found.inside) == {"seam"}
    for name, where in (("left", 0.0), ("right", 1.0), ("seam", 0.5)):
        assert np.allclose(x[found.mesh.facets[:, found.facets[name]]], where), name


@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra", "hexahedron"])
def test_families_of_med_files_are_names(tmp_path: Path, kind: str) -> None:
    mesh = tagged(kind, "cell_tags")
    # In this format, families of cells have negative numbers, and the dimension is the number of columns of the points.
    mesh.points = mesh.points[:, : grid(kind)[0].shape[1]]
    mesh.cell_data = {"cell_tags": [-each for each in mesh.cell_data["cell_tags"]]}
    mesh.cell_tags = {-1: ["left"], -2: ["right"], -5: ["seam"], -10: ["soft"], -11: ["stiff"]}
    mesh.write(tmp_path / "a.med")
    check_parts(domain(read_mesh(tmp_path / "a.med")), {1: "left", 2: "right", 5: "seam", 10: "soft", 11: "stiff"})


@pytest.mark.parametrize("suffix", [".vtu", ".vtk"])
@pytest.mark.parametrize("kind", ["triangle", "quad", "tetra", "hexahedron"])
def test_tags_of_scikit_fem_are_names(tmp_path: Path, kind: str, suffix: str) -> None:
    points, cells, _ = grid(kind)
    plain = CELLS[kind].mesh(points.T, cells.T[np.argsort(CELLS[kind].order)])
    named = plain.with_boundaries({"1": lambda x: x[0] == 0.0, "2": lambda x: x[0] == 1.0})
    seam = plain.facets_satisfying(lambda x: np.isclose(x[0], 0.5))
    halves = {"10": lambda x: x[0] < 0.5, "11": lambda x: x[0] > 0.5}
    named.with_boundaries({"5": seam}).with_subdomains(halves).save(tmp_path / f"a{suffix}")
    check_parts(domain(read_mesh(tmp_path / f"a{suffix}")), NUMBERS)


def test_messages_say_what_a_name_cannot_be_used_for() -> None:
    points, cells, _ = grid("tetra", 1)
    mesh = meshio.Mesh(
        points, [("tetra", cells), ("line", np.array([[0, 1]]))], cell_data={"medit:ref": [[1] * 6, [2]]}
    )
    assert read(mesh).described("2") == "names 1 cells of type line, which are no facets"
    points, cells, _ = grid("triangle", 1)
    lines = np.array([[0, 1], [0, 3], [1, 2]])
    mesh = meshio.Mesh(points, [("triangle", cells), ("line", lines)], cell_data={"medit:ref": [[1, 1], [2, 2, 2]]})
    missing = int(not (read(mesh).mesh.facets.T == [0, 3]).all(axis=1).any()) + int(
        not (read(mesh).mesh.facets.T == [1, 2]).all(axis=1).any()
    )
    assert read(mesh).described("2") == f"names 3 facets, {missing} of which belong to none of the triangles"
    mesh = meshio.Mesh(points, [("triangle", cells), ("line", lines[:1])], cell_sets={"all": [[], [0]]})
    with pytest.raises(MeshFileError, match="names a part of its boundary 'all'"):
        to_skfem(mesh)


def test_check_lists_the_names_of_a_file() -> None:
    def checked(name: str) -> str:
        result = CliRunner().invoke(main, ["check", str(FAULTS / f"{name}.yaml")])
        assert result.exit_code == 0, result.output
        return result.output

    assert "boundaries: 1 (8), 2 (8), 3 (8), 4 (8), all (32); subdomains: 10 (128)" in checked("tags")
    assert "inside the domain: seam (8); subdomains: plate (128)" in checked("seam")
    overlap = checked("ovb")
    assert "; right and outlet share 8 facets\n" in overlap
    words = "there the neumann condition of right and the neumann condition of outlet add up"
    assert f"warning: right and outlet share 8 facets; {words}\n" in overlap
    assert "; a and b share 40 cells\n" in checked("dup")


def test_numbers_name_the_sides_of_the_square() -> None:
    """The solution is u = x, and the optimal control for the target 1/2 is that of the built-in square."""
    square = {
        "mesh": {"kind": "rectangle", "cells": [8, 8]},
        "pde.boundary": {"left": {"dirichlet": 0}, "right": {"dirichlet": 1}},
    }
    found = solve(load(FAULTS / "tags.yaml"))
    assert found.objective == pytest.approx(solve(load(FAULTS / "tags.yaml", square)).objective, rel=1e-9)


# Curves inside


def seam(**changes: object) -> Any:
    return load(FAULTS / "seam.yaml", {key.replace("__", "."): value for key, value in changes.items()})


def test_a_curve_inside_is_tracked() -> None:
    """Where u = x, the term is (1/2 - c)^2 / 2 on x = 1/2; a linear term is the mean."""
    for target in (0.5, 2.0):
        assert value(seam(objective__0__target=target)) == pytest.approx(0.5 * (0.5 - target) ** 2, abs=1e-14)
    assert value(seam(objective__0={"kind": "linear_state", "weight": "y", "on": "seam"})) == pytest.approx(0.25)


def test_dirichlet_values_on_a_curve_inside() -> None:
    """u = 0, 3, 1 at x = 0, 1/2, 1: linear in between, int u = 7/4."""
    boundary = {"left": {"dirichlet": 0}, "seam": {"dirichlet": 3}, "right": {"dirichlet": 1}}
    assert value(seam(pde__boundary=boundary, objective__0={"kind": "linear_state"})) == pytest.approx(1.75)


@kinds
def test_curves_and_surfaces_inside_are_used_with_every_kind_of_cell(tmp_path: Path, kind: str) -> None:
    """u = x: (1/2 - 2)^2 / 2 on x = 1/2. With u = 3 there, int u = 7/4."""
    meshio.write(tmp_path / "a.vtu", tagged(kind, "tag"))
    problem = {
        "name": "inside",
        "mesh": {"file": str(tmp_path / "a.vtu"), "refine": 0 if CELLS[kind].dim == 3 else 1},
        "pde": {"kind": "poisson", "boundary": {1: {"dirichlet": 0}, 2: {"dirichlet": 1}}},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": 2, "on": 5}],
    }
    assert value(load(problem)) == pytest.approx(1.125)
    fixed = {"pde.boundary.5": {"dirichlet": 3}, "objective.0": {"kind": "linear_state"}}
    assert value(load(problem, fixed)) == pytest.approx(1.75)
    for element in ("P1",) if CELLS[kind].dim == 3 else ("P1", "P2"):
        seam = {"control": {"kind": "dirichlet", "on": 5}, "objective.0.on": None, "element": element}
        assert verify(load(problem, seam)).passed
    with pytest.raises(ProblemError, match="found '5', which lies inside the domain"):
        load(problem, {"pde.boundary.5": {"neumann": 3}})


def test_a_curve_inside_is_controlled() -> None:
    """The optimal value on the curve for the target u = min(6 x, 6 - 4 x) is 3, with which u is the target."""
    changes = {
        "objective__0": {"kind": "tracking", "target": "where(x < 0.5, 6*x, 5 - 4*x)"},
        "objective__1__weight": 1e-12,
        "control": {"kind": "dirichlet", "on": "seam"},
    }
    found = solve(seam(**changes))
    assert found.status == "converged"
    assert np.allclose(found.control, 3.0, rtol=1e-6)
    with pytest.raises(ProblemError, match="expected a boundary, found 'seam', which lies inside the domain"):
        seam(control={"kind": "dirichlet", "on": "seam", "space": "P0"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pde__boundary", {"left": {"dirichlet": 0}, "seam": {"neumann": 1}}),
        ("pde__boundary", {"left": {"dirichlet": 0}, "seam": {"robin": {"coefficient": 1, "value": 0}}}),
        ("control", {"kind": "neumann", "on": "seam"}),
        ("control", {"kind": "source", "on": "seam"}),
        ("objective__0", {"kind": "python", "python": "problems/minimal_surface.py:area", "on": "seam"}),
    ],
)
def test_a_condition_that_needs_a_boundary_is_refused_on_a_curve_inside(key: str, value: object) -> None:
    with pytest.raises(ProblemError, match="lies inside the domain"):
        seam(**{key: value})


def test_a_name_that_is_partly_inside_is_reported() -> None:
    mesh = meshes.rectangle((1, 1), (0, 0), (2, 2))
    inner = np.setdiff1d(np.arange(mesh.nfacets), mesh.boundary_facets())
    found = domain(mesh.with_boundaries({"mixed": np.append(mesh.boundaries["left"], inner[0])}), 1)
    assert found.described("mixed").startswith("lies inside the domain with 2 of its 6 facets")


GMSH_41 = """\
$MeshFormat
4.1 0 8
$EndMeshFormat
$PhysicalNames
2
1 1 "left"
1 8 "walls"
$EndPhysicalNames
$Entities
0 2 1 0
1 0 0 0 0 1 0 2 1 8 0
2 0 0 0 1 1 0 1 4 0
1 0 0 0 1 1 0 1 9 0
$EndEntities
$Nodes
1 4 1 4
2 1 0 4
1
2
3
4
0 0 0
1 0 0
1 1 0
0 1 0
$EndNodes
$Elements
3 4 1 4
1 1 1 1
1 4 1
1 2 1 1
2 1 3
2 1 2 2
3 1 2 3
4 1 3 4
$EndElements
"""


def test_a_new_gmsh_file_has_names_and_numbers(tmp_path: Path) -> None:
    """One line is in two groups with names; another line and the square are in groups without names."""
    path = tmp_path / "new.msh"
    path.write_text(GMSH_41)
    found = domain(read_mesh(path))
    assert set(found.facets) == {"left", "walls", "4", "all"} and set(found.subdomains) == {"9"}
    assert np.array_equal(found.boundaries["left"], found.boundaries["walls"])
    assert found.mesh.p[:, found.mesh.facets[:, found.inside["4"][0]]].T.tolist() == [[0, 0], [1, 1]]
    assert found.overlaps == ["left and walls share 1 facet"]


SU2 = """\
NDIME= 2
NELEM= 2
5 0 1 2 0
5 0 2 3 1
NPOIN= 4
0 0 0
1 0 1
1 1 2
0 1 3
NMARK= 2
MARKER_TAG= wall
MARKER_ELEMS= 2
3 0 1
3 1 2
MARKER_TAG= inlet
MARKER_ELEMS= 1
3 3 0
"""


def test_markers_of_su2_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "a.su2"
    path.write_text(SU2)
    found = domain(read_mesh(path))
    facets = {name: found.mesh.p[:, found.mesh.facets[:, each]] for name, each in found.boundaries.items()}
    assert {name: each.shape[2] for name, each in facets.items()} == {"1": 2, "2": 1, "all": 4}
    assert np.all(facets["2"][0] == 0.0)


@pytest.mark.parametrize("cells", [[[9, 10]], [[0, 8]]])
def test_a_line_that_is_not_an_edge_is_reported(cells: list[list[int]]) -> None:
    """One line lies outside the mesh, between vertices of no cell, and one crosses several cells."""
    points, triangles, _ = grid("triangle", 2)
    blocks = [("triangle", triangles), ("line", np.array(cells))]
    mesh = meshio.Mesh(np.concatenate([points, [[5, 5], [6, 6]]]), blocks)
    mesh.cell_data = {"tag": [np.ones(len(triangles), int), np.array([4])]}
    found = read(mesh)
    assert found.unusable == {"4": "names 1 facet, which belongs to none of the triangles"}
    assert found.mesh.nvertices == 9
