"""Meshes of second order, mixed meshes and facets in files of their own: geometry, orders and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import skfem
import torch

import nhgd_pde as nhgd
from nhgd_pde import ProblemError
from nhgd_pde.fem.cells import CELLS, kind_of
from nhgd_pde.fem.mesh import Domain, domain
from nhgd_pde.fem.mesh_file import Reading, to_skfem
from nhgd_pde.fem.mesh_objects import as_meshio, of_object
from nhgd_pde.fem.second_order import SECOND_ORDER
from nhgd_pde.fem.spaces import space

QUARTER = 0.5 * np.pi
EXACT = "(1 - x**2 - y**2)*exp(x)"
SOURCE = "(4 + 4*x - (1 - x**2 - y**2))*exp(x)"


def ring(cells: int) -> skfem.Mesh:
    axes = np.linspace(1, 2, cells + 1), np.linspace(0, QUARTER, 2 * cells + 1)
    flat = skfem.MeshQuad2.from_mesh(skfem.MeshQuad.init_tensor(*axes))
    radius, angle = flat.doflocs
    return skfem.MeshQuad2(np.stack([radius * np.cos(angle), radius * np.sin(angle)]), flat.t)


def shell(cells: int) -> skfem.Mesh:
    axes = np.linspace(1, 2, cells + 1), np.linspace(0, QUARTER, 2 * cells + 1), np.linspace(0, 1, cells + 1)
    flat = skfem.MeshHex2.from_mesh(skfem.MeshHex.init_tensor(*axes))
    radius, angle, height = flat.doflocs
    return skfem.MeshHex2(np.stack([radius * np.cos(angle), radius * np.sin(angle), height]), flat.t)


def disc(refine: int) -> skfem.Mesh:
    return skfem.MeshTri2.init_circle(refine)


def ball(refine: int) -> skfem.Mesh:
    return skfem.MeshTet2.init_ball(refine)


def serendipity(mesh: meshio.Mesh, kind: str) -> meshio.Mesh:
    """The mesh with 8 nodes in place of 9, or 20 in place of 27."""
    count = int("".join(filter(str.isdigit, kind)))
    return meshio.Mesh(mesh.points, [(kind, mesh.cells[0].data[:, :count])])


def as_file(mesh: skfem.Mesh, path: Path, kind: str | None = None) -> None:
    """Write a mesh of second order as a file of another library would be."""
    found = as_meshio(mesh)
    points = np.pad(found.points, ((0, 0), (0, 3 - found.points.shape[1])))
    whole = meshio.Mesh(points, [(block.type, block.data) for block in found.cells[:1]])
    (whole if kind is None else serendipity(whole, kind)).write(path)


def measures(found: Domain) -> np.ndarray:
    """The measure of the domain and that of its boundary."""
    functions = space(found, "P2", torch.device("cpu"))
    inside, outside = functions.cells, functions.facets(found.boundaries["all"])
    return np.array([float(each.quadrature.weights.sum()) for each in (inside, outside)])


SHAPES: dict[str, tuple[Callable[[int], skfem.Mesh], str | None, tuple[int, int], tuple[float, float]]] = {
    "triangle6": (disc, None, (1, 2), (np.pi, 2 * np.pi)),
    "quad9": (ring, None, (1, 2), (0.75 * np.pi, 2 + 1.5 * np.pi)),
    "quad8": (ring, "quad8", (1, 2), (0.75 * np.pi, 2 + 1.5 * np.pi)),
    "tetra10": (ball, None, (2, 3), (4 / 3 * np.pi, 4 * np.pi)),
    "hexahedron27": (shell, None, (1, 2), (0.75 * np.pi, 2 + 3.0 * np.pi)),
    "hexahedron20": (shell, "hexahedron20", (1, 2), (0.75 * np.pi, 2 + 3.0 * np.pi)),
}


@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("kind", SHAPES)
def test_curved_cells_measure_with_order_four_and_straight_ones_with_order_two(
    kind: str, straight: bool, tmp_path: Path
) -> None:
    make, name, sizes, exact = SHAPES[kind]
    errors = []
    for size in sizes:
        as_file(make(size), tmp_path / "mesh.vtu", name)
        read = meshio.read(tmp_path / "mesh.vtu")
        assert read.cells[0].type == kind
        found = to_skfem(read, Reading(straight=straight))
        assert (found.curved is None) == straight
        errors.append(np.abs(measures(domain(found.mesh, 0, found.unusable, found.curved)) - exact))
    orders = np.log2(errors[0] / errors[1])
    assert (np.abs(orders - (2.0 if straight else 4.0)) < 0.3).all(), orders


def solved(mesh: dict[str, Any], element: str) -> nhgd.Solution:
    return nhgd.solve(
        nhgd.load(
            {
                "name": "disc",
                "mesh": mesh,
                "element": element,
                "pde": {"kind": "poisson", "source": SOURCE, "boundary": {"all": {"dirichlet": 0}}},
                "control": {"kind": "source"},
                "objective": [{"kind": "tracking", "target": 0}, {"kind": "regularisation", "weight": 1e12}],
            }
        )
    )


@pytest.mark.parametrize(
    ("element", "geometry", "order"), [("P1", "curved", 2), ("P2", "curved", 3), ("P2", "straight", 2)]
)
def test_the_state_on_a_disc_has_the_order_of_its_element_and_its_geometry(
    element: str, geometry: str, order: int, tmp_path: Path
) -> None:
    errors = []
    for refine in (2, 3):
        as_file(disc(refine), tmp_path / "disc.vtu")
        solution = solved({"file": str(tmp_path / "disc.vtu"), "geometry": geometry}, element)
        errors.append(solution.integrate(f"(state - {EXACT})**2") ** 0.5)
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.25


def test_points_near_a_curved_boundary_are_found_and_fields_are_written_curved(tmp_path: Path) -> None:
    solution = solved({"mesh": disc(3)}, "P2")
    angles = np.linspace(0, 6, 9)
    points = 0.9999 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    exact = (1 - (points**2).sum(axis=1)) * np.exp(points[:, 0])
    assert np.abs(solution.evaluate(points, "state") - exact).max() < 2e-3
    with pytest.raises(ValueError, match=r"row 1: the point .* is outside the mesh"):
        solution.evaluate(np.array([[0, 0], [1.1, 0]]), "state")
    solution.save(tmp_path / "run")
    found = meshio.read(tmp_path / "run" / "final.vtu")
    assert found.cells[0].type == "triangle6"
    radius = np.linalg.norm(found.points, axis=1)
    # 32 vertices and as many middles of edges are on the circle.
    assert (np.abs(radius - 1) < 1e-12).sum() == 64


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_derivatives_on_curved_cells_are_right(element: str) -> None:
    found = nhgd.verify(
        nhgd.load(
            {
                "name": "curved",
                "mesh": {"mesh": ring(2)},
                "element": element,
                "pde": {
                    "kind": "advection_diffusion",
                    "conductivity": 0.01,
                    "velocity": [1, "x"],
                    "boundary": {"all": {"dirichlet": 0}},
                },
                "control": {"kind": "source"},
                "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-3}],
            }
        )
    )
    assert found.passed, str(found)


def test_nodes_in_the_middle_of_edges_leave_cells_straight() -> None:
    found = of_object(skfem.MeshTri2.from_mesh(skfem.MeshTri().refined(2)), Reading())
    assert found.curved is None


def test_a_cell_that_folds_over_itself_is_refused() -> None:
    mesh = skfem.MeshTri2.from_mesh(skfem.MeshTri().refined(1))
    points = mesh.doflocs.copy()
    points[:, np.asarray(mesh.dofs.element_dofs)[3, 0]] += 0.4
    with pytest.raises(ProblemError, match=r"curved cells that fold over themselves.*`geometry: straight`"):
        solved({"mesh": skfem.MeshTri2(points, mesh.t)}, "P2")
    assert solved({"mesh": skfem.MeshTri2(points, mesh.t), "geometry": "straight"}, "P2").problem.space.size == 25


def test_curved_cells_are_not_refined() -> None:
    with pytest.raises(ProblemError, match=r"mesh.refine: expected 0 for a mesh with curved cells, found 1"):
        solved({"mesh": disc(2), "refine": 1}, "P1")


# Triangles and quadrilaterals in one mesh

HOUSE = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1], [2, 0.5]])


def house(**data: Any) -> meshio.Mesh:
    return meshio.Mesh(HOUSE, [("quad", np.array([[0, 1, 2, 3]])), ("triangle", np.array([[1, 4, 2]]))], **data)


def test_a_mixed_mesh_is_refused_with_the_way_out_and_split_on_request() -> None:
    with pytest.raises(ProblemError, match=r"mixes triangle with quad.*take `cell: triangle`"):
        solved({"mesh": house()}, "P1")
    tags = {"tag": [np.array([3]), np.array([4])]}
    found = of_object(house(cell_data=tags), Reading(cell="triangle"))
    assert found.mesh.nelements == 3
    assert {name: len(cells) for name, cells in found.mesh.subdomains.items()} == {"3": 2, "4": 1}
    assert measures(domain(found.mesh))[0] == pytest.approx(1.5)


def test_quadrilaterals_are_split_along_the_shorter_diagonal() -> None:
    points = np.array([[0.0, 0], [2, 0.2], [1, 1], [0, 0.5]])
    found = of_object(meshio.Mesh(points, [("quad", np.array([[0, 1, 2, 3]]))]), Reading(cell="triangle"))
    assert {frozenset(cell) for cell in found.mesh.t.T.tolist()} == {frozenset({0, 1, 2}), frozenset({0, 2, 3})}


@pytest.mark.parametrize("solid", ["wedge", "pyramid"])
def test_prisms_and_pyramids_are_refused_with_the_way_out(solid: str) -> None:
    count = {"wedge": 6, "pyramid": 5}[solid]
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1]])
    mixed = meshio.Mesh(corners, [(solid, np.arange(count)[None]), ("tetra", np.array([[0, 1, 2, 3]]))])
    with pytest.raises(ProblemError, match=f"mixes tetra with {solid}.*Recombine"):
        solved({"mesh": mixed}, "P1")


# Facets in a file of their own

pytest.importorskip("h5py")


@pytest.mark.parametrize("turned", [False, True])
def test_facets_come_from_a_second_file(turned: bool, tmp_path: Path) -> None:
    mesh = skfem.MeshTri.init_tensor(*[np.linspace(0, 1, 5)] * 2)
    left = 1 + (mesh.p[0, mesh.t].mean(axis=0) < 0.5).astype(int)
    meshio.Mesh(mesh.p.T, [("triangle", mesh.t.T)], cell_data={"tags": [left]}).write(tmp_path / "mesh.xdmf")
    facets = mesh.boundary_facets()
    numbers = np.where(mesh.p[0, mesh.facets[:, facets]].max(axis=0) == 0, 3, 7)
    points, lines = mesh.p.T, mesh.facets[:, facets].T
    if turned:
        points, lines = points[::-1], mesh.nvertices - 1 - lines
    meshio.Mesh(points, [("line", lines)], cell_data={"sides": [numbers]}).write(tmp_path / "facets.xdmf")
    problem = nhgd.load(
        {
            "name": "fenics",
            "mesh": {"file": str(tmp_path / "mesh.xdmf"), "facets": str(tmp_path / "facets.xdmf")},
            "pde": {"kind": "poisson", "conductivity": {"1": 2, "2": 1}, "boundary": {"3": {"dirichlet": 0}}},
            "control": {"kind": "neumann", "on": "7"},
            "objective": [{"kind": "tracking", "target": "x"}, {"kind": "regularisation", "weight": 1}],
        }
    )
    found = problem.pde.space.domain
    assert {name: len(each) for name, each in found.boundaries.items()} == {"3": 4, "7": 12, "all": 16}
    assert {name: len(each) for name, each in found.subdomains.items()} == {"1": 16, "2": 16}


def test_facets_of_another_mesh_are_refused(tmp_path: Path) -> None:
    mesh = skfem.MeshTri().refined(1)
    meshio.Mesh(mesh.p.T, [("triangle", mesh.t.T)]).write(tmp_path / "mesh.xdmf")
    meshio.Mesh(mesh.p.T + 0.1, [("line", mesh.facets[:, :2].T)]).write(tmp_path / "facets.xdmf")
    with pytest.raises(ProblemError, match=r"has a facet with a vertex at .*, which the mesh does not have"):
        solved({"file": str(tmp_path / "mesh.xdmf"), "facets": str(tmp_path / "facets.xdmf")}, "P1")
    with pytest.raises(ProblemError, match=r"mesh.facets: expected a mesh file, found nothing at"):
        solved({"file": str(tmp_path / "mesh.xdmf"), "facets": "nothing.xdmf"}, "P1")


def test_every_kind_of_cell_has_its_second_order() -> None:
    assert {straight for straight, _ in SECOND_ORDER.values()} == set(CELLS)
    assert kind_of(disc(1)) == "triangle"
