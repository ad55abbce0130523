"""Meshes whose cells do not fit together are refused with the place; other meshes are accepted."""

from __future__ import annotations

from pathlib import Path

import meshio
import numpy as np
import pytest
import skfem
from mesh_files import KINDS, Raw, grid, joined, moved, raw, read, read_mesh, said, slit, soup, union
from scipy.spatial import Delaunay

from nhgd_pde import Problem, load, solve
from nhgd_pde.fem.boundary_checks import Outline
from nhgd_pde.fem.boxes import BoxTree
from nhgd_pde.fem.cells import CELLS
from nhgd_pde.fem.planes import NotFlatError, flattened
from nhgd_pde.problem_file.errors import ProblemError

FAULTS = Path(__file__).parent / "faults"
kinds = pytest.mark.parametrize("kind", KINDS)
flat_kinds = pytest.mark.parametrize("kind", ["triangle", "quad"])
wide_kinds = pytest.mark.parametrize("kind", KINDS[:4])


def turned(dim: int) -> np.ndarray:
    """An orthogonal matrix in general position."""
    return np.linalg.qr(np.random.default_rng(dim).normal(size=(dim, dim)))[0]


def everywhere(mesh: Raw, cracks: bool = False) -> set[bool]:
    """Whether a mesh is accepted: small, turned and far from the origin, and large."""
    points = mesh[0]
    way = turned(points.shape[1])
    places = (1e-6 * points, points @ way + 3.0, 1e6 * points @ way)
    return {said(moved(mesh, each), cracks) == "" for each in places}


# Faulty files


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "two",
            r"two.yaml:2: mesh.file: .* vertices 8 and 81 \(counted from 0\) stand at the same place, \(1, 0, 0\), "
            r"and 8 more pairs elsewhere; .* add `cracks: allowed` to the section mesh",
        ),
        (
            "hang3r",
            r"vertex 6 \(counted from 0\) at \(1, 0.5, 0\) lies on the facet \(1, 0, 0\) \(1, 1, 0\) of another quad",
        ),
        (
            "folded",
            r"triangle cells that overlap at \(0.6625, 0.6, 0\): two of them lie on the same side of the facet "
            r"with the vertices 40, 41",
        ),
    ],
)
def test_cells_that_do_not_fit_are_refused_with_the_place(name: str, words: str) -> None:
    with pytest.raises(ProblemError, match=words):
        load(FAULTS / f"{name}.yaml")


def test_the_joined_squares_have_the_value_of_one_mesh(tmp_path: Path) -> None:
    """The double vertices are joined, which gives the reference problem."""
    reference = solve(load(FAULTS / "two_ref.yaml")).objective
    assert reference == pytest.approx(5.724565e-02, rel=1e-6)
    found = meshio.read(FAULTS / "two_squares.msh", file_format="gmsh")
    points, number = np.unique(np.round(found.points, 9), axis=0, return_inverse=True)
    cells = [(block.type, number.reshape(-1)[block.data]) for block in found.cells]
    path = tmp_path / "joined.msh"
    whole = meshio.Mesh(points, cells, cell_data=found.cell_data, field_data=found.field_data)
    meshio.write(path, whole, "gmsh22", binary=False)
    assert solve(load(FAULTS / "two.yaml", {"mesh.file": str(path)})).objective == pytest.approx(reference, rel=1e-7)


def test_an_allowed_crack_separates_the_squares() -> None:
    """Each square has its own solution: u = 1 + source on the left, u = 0 + source on the right."""
    problem = load(FAULTS / "two.yaml", {"mesh.cracks": "allowed"})
    assert "in 2 pieces that share no facet" in str(problem.pde.space.domain)
    assert solve(problem).objective == pytest.approx(2 * solve(load(ONE_SQUARE)).objective, rel=1e-7)


ONE_SQUARE = {
    "name": "one",
    "mesh": {"kind": "rectangle", "cells": [8, 8]},
    "pde": {"kind": "poisson", "boundary": {"left": {"dirichlet": 1}}},
    "control": {"kind": "source"},
    "objective": [{"kind": "tracking", "target": 0.5}, {"kind": "regularisation", "weight": 1e-2}],
}


# Similar faults


@kinds
@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_double_vertices_are_refused_unless_cracks_are_allowed(kind: str, noise: float) -> None:
    mesh = union(grid(kind), grid(kind, origin=1.0))
    mesh = moved(mesh, mesh[0] + noise * np.random.default_rng(0).uniform(-1, 1, mesh[0].shape))
    assert everywhere(mesh) == {False} and everywhere(mesh, cracks=True) == {True}
    assert "vertices" in said(mesh) and "stand at the same place, (1" in said(mesh)
    assert "stand at the same place" in said(soup(grid(kind)))
    assert said(soup(grid(kind)), cracks=True) == ""


@wide_kinds
@pytest.mark.parametrize("finer", [2, 3])
def test_hanging_nodes_are_refused_unless_cracks_are_allowed(kind: str, finer: int) -> None:
    mesh = joined(union(grid(kind, 2), grid(kind, 2 * finer, origin=1.0)))
    noise = 1e-9 * np.random.default_rng(0).uniform(-1, 1, mesh[0].shape)
    assert everywhere(moved(mesh, mesh[0] + noise)) == {False}
    assert everywhere(mesh) == {False} and everywhere(mesh, cracks=True) == {True}
    assert "which does not have it (a hanging node)" in said(mesh) and f"of another {kind}" in said(mesh)


def test_tetrahedra_that_cut_a_square_in_two_ways_are_refused() -> None:
    """All vertices are shared, and no facet between the two cubes."""
    points, cells, kind = grid("tetra", 2)
    flipped = points * [1, -1, 1] + [1, 1, 0]
    mesh = joined(union((points, cells, kind), (flipped, cells, kind)))
    assert "their edges" in said(mesh) and "cross" in said(mesh)
    assert everywhere(mesh) == {False} and everywhere(mesh, cracks=True) == {True}


def overlapping(kind: str) -> dict[str, Raw]:
    dim = CELLS[kind].dim
    one = grid(kind)
    found = {
        "shifted": union(one, grid(kind, origin=(0.5137,) + (0.21,) * (dim - 1))),
        "nested": union(one, grid(kind, size=0.1, origin=(0.33,) * dim)),
        "copied": union(one, one),
        "covered by half": union(one, grid(kind, size=(1.0,) * (dim - 1) + (0.5,))),
        "by one layer": union(one, grid(kind, origin=0.75)),
    }
    if dim > 1:
        bars = [(3.0, 0.5, 0.5)[:dim], (0.5, 3.0, 0.5)[:dim]]
        at = [(-1.0, 0.2, 0.1)[:dim], (0.2, -1.0, 0.2)[:dim]]
        found["crossing"] = union(*(grid(kind, 1, size, origin) for size, origin in zip(bars, at, strict=True)))
    points = one[0].copy()
    points[np.argmin(np.abs(points - 0.5).sum(axis=1)), 0] += 0.6
    found["folded"] = moved(one, points)
    return found


@kinds
def test_cells_that_overlap_are_refused_even_with_cracks(kind: str) -> None:
    for name, mesh in overlapping(kind).items():
        for cracks in (False, True):
            assert everywhere(mesh, cracks) == {False}, (name, cracks)
            assert " at (" in said(mesh, cracks), name
        assert "overlap" in said(mesh, True) or "folded" in said(mesh, True), name


def test_a_strip_that_winds_more_than_once_overlaps() -> None:
    """Any two neighbours fit together, only the whole strip overlaps."""
    points, cells, kind = grid("quad", 60)
    angle, radius = 2.6 * np.pi * points[:, 0], 1 + points[:, 1]
    strip = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    assert "overlap" in said((strip, cells, kind))
    spiral = strip * (1 + 1.01 * angle / (2 * np.pi) / radius)[:, None]
    assert said((spiral, cells, kind)) == ""
    # Twelve triangles go around one vertex twice.
    turns = np.arange(12) * np.pi / 3
    rim = np.stack([np.cos(turns), np.sin(turns)], axis=1) * (1 + 0.01 * np.arange(12))[:, None]
    fan = np.stack([np.zeros(12, int), 1 + np.arange(12), 1 + (1 + np.arange(12)) % 12], axis=1)
    assert "overlap" in said((np.concatenate([[[0.0, 0.0]], rim]), fan, "triangle"))


def test_three_cells_at_a_facet_are_reported() -> None:
    points = np.array([[0.0, 0], [1, 0], [0.5, 1], [0.5, -1], [0.5, 2]])
    cells = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    words = (
        "triangle cells that overlap at (0.5, 0): three of them share the facet with the vertices 0, 1 (counted from 0)"
    )
    assert words in said((points, cells, "triangle"))


# Sound meshes


@kinds
def test_fine_meshes_are_accepted(kind: str) -> None:
    dim, mesh = CELLS[kind].dim, CELLS[kind].mesh
    layers = np.concatenate([[0.0], np.geomspace(1e-9, 1.0, 25)])
    plain = [np.linspace(0.0, 1.0, 4)] * (dim - 1)
    assert everywhere(raw(mesh.init_tensor(layers, *plain))) == {True}
    for thin in (1e-3, 1e-6):
        assert everywhere(grid(kind, 3, (1.0,) * (dim - 1) + (thin,))) == {True}
    for gap in (1e-3, 1e-6, 1e-7):
        apart = union(grid(kind), grid(kind, 3, origin=1.0 + gap))
        assert everywhere(apart) == {True}


@wide_kinds
def test_slits_curves_and_holes_are_accepted(kind: str) -> None:
    dim = CELLS[kind].dim
    for width in (1e-2, 1e-4, 1e-6):
        assert everywhere(slit(kind, width)) == {True}
    assert "same place, (0.5, 0" in said(slit(kind, 0.0)) and everywhere(slit(kind, 0.0), cracks=True) == {True}
    points, cells, _ = grid(kind, 9)
    middle = np.floor(9 * points[cells].mean(axis=1)).astype(int) % 3 == 1
    assert said((points, cells[~middle.all(axis=1)], kind)) == ""
    for closed in (1 - 1e-6, 0.99):
        angle, radius = 2 * np.pi * closed * points[:, 0], 1 + 0.3 * points[:, 1]
        ring = np.concatenate([[radius * np.cos(angle), radius * np.sin(angle)], points[:, 2:].T]).T
        assert everywhere((ring, cells, kind)) == {True}
    # Two parts meet in a common vertex.
    assert everywhere(joined(union(grid(kind), grid(kind, origin=(1.0,) * dim)))) == {True}


@pytest.mark.parametrize("kind", ["tetra", "hexahedron"])
def test_a_thin_curved_sheet_is_accepted(kind: str) -> None:
    """The sheet is a hundred times thinner than the warp of its facets."""
    points, cells, _ = grid(kind, 8)
    x, y, z = points.T
    assert everywhere((np.stack([x, y, 1e-5 * z + 0.15 * np.sin(5 * x) * np.cos(4 * y)], axis=1), cells, kind)) == {
        True
    }


@pytest.mark.parametrize("dim", [2, 3])
def test_irregular_meshes_are_accepted(dim: int) -> None:
    for count in (30, 1000):
        points = np.random.default_rng(count).uniform(size=(count, dim))
        cells = Delaunay(points).simplices
        size = np.abs(np.linalg.det(points[cells[:, 1:]] - points[cells[:, :1]]))
        assert said((points, cells[size > 1e-12], "triangle" if dim == 2 else "tetra")) == ""
    corner = skfem.MeshTri().refined(2)
    for _ in range(30):
        distance = np.hypot(*corner.p[:, corner.t].mean(axis=1))
        corner = corner.refined(np.flatnonzero(distance < 2 * distance.min()))
    assert said(raw(corner)) == "" and np.hypot(*corner.p)[corner.p.any(axis=0)].min() < 1e-9


@pytest.mark.parametrize("kind", ["tetra", "hexahedron"])
def test_the_checks_compare_only_neighbours(kind: str) -> None:
    """The number of compared pairs grows with the boundary only."""
    pairs = []
    for cells in (5, 10):
        points, vertices, _ = grid(kind, cells)
        mesh = CELLS[kind].mesh(points.T, vertices.T[np.argsort(CELLS[kind].order)])
        outline = Outline.of(mesh, 0.0)
        found = (outline.near_corners(), outline.near_edges(), outline.near_simplices())
        pairs.append([sum(len(each[0]) for each in some) for some in found])
    assert (np.array(pairs[1]) <= 4.5 * np.array(pairs[0])).all()


def test_boxes_that_meet_are_found() -> None:
    random = np.random.default_rng(0)
    low = random.uniform(size=(200, 3))
    high = low + random.exponential(0.05, (200, 3))
    found = {(i, j) for one, other in BoxTree(low, high).meeting(low, high) for i, j in zip(one, other, strict=True)}
    meet = ((low[:, None] <= high[None]) & (low[None] <= high[:, None])).all(axis=2)
    assert found == set(zip(*np.nonzero(meet), strict=True))


# Pieces


def problem_on(mesh: Raw, folder: Path, **changes: object) -> Problem:
    points, cells, kind = mesh
    path = folder / "mesh.vtu"
    meshio.write(path, meshio.Mesh(np.pad(points, ((0, 0), (0, 3 - points.shape[1]))), [(kind, cells)]))
    return load({**ONE_SQUARE, "mesh": {"file": str(path)}, **changes})


POINT = {"kind": "poisson", "points": [{"at": [0, 0], "dirichlet": 1}]}


@flat_kinds
def test_every_piece_needs_its_own_conditions(tmp_path: Path, kind: str) -> None:
    apart = union(grid(kind), grid(kind, origin=2.0))
    words = (
        rf"in 2 pieces that share no facet, and the one with {len(grid(kind)[1])} cells at \(2.* has no Dirichlet or"
    )
    with pytest.raises(ProblemError, match=words):
        problem_on(apart, tmp_path, pde=POINT)
    both = {"kind": "poisson", "points": [*POINT["points"], {"at": [2, 0], "dirichlet": 1}]}
    assert problem_on(apart, tmp_path, pde=both).pde.space.domain.pieces.max() == 1
    whole = {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}}
    twice = solve(problem_on(apart, tmp_path, pde=whole)).objective
    assert twice == pytest.approx(2 * solve(problem_on(grid(kind), tmp_path, pde=whole)).objective, rel=1e-9)


def test_a_common_vertex_does_not_connect_pieces(tmp_path: Path) -> None:
    mesh = joined(union(grid("triangle"), grid("triangle", origin=(1.0, 1.0))))
    with pytest.raises(ProblemError, match="in 2 pieces"):
        problem_on(mesh, tmp_path, pde=POINT)
    assert problem_on(mesh, tmp_path, pde={"kind": "poisson", "reaction": 1})
    with pytest.raises(ProblemError, match="in 2 pieces"):
        problem_on(mesh, tmp_path, pde={"kind": "poisson", "reaction": "where(x < 1, 1, 0)"})


def test_bodies_and_flows_in_pieces(tmp_path: Path) -> None:
    apart = union(grid("triangle"), grid("triangle", origin=2.0))
    held = {"kind": "elasticity", "points": [{"at": [0, 0], "dirichlet": [0, 0]}, {"at": [0, 1], "dirichlet": [0, 0]}]}
    source = {"control": {"kind": "source"}, "objective": [{"kind": "tracking", "target": [0, 0]}]}
    with pytest.raises(
        ProblemError, match=r"at \(2.* is not held by conditions of its own: 3 of its 3 rigid motions are free"
    ):
        problem_on(apart, tmp_path, pde=held, **source)
    body = {"kind": "elasticity", "boundary": {"all": {"dirichlet": [0, 0]}}}
    assert problem_on(apart, tmp_path, pde=body, **source)
    flow = {"kind": "stokes", "boundary": {"all": {"dirichlet": [0, 0]}}}
    with pytest.raises(ProblemError, match="velocities given all around: its pressure is determined up to a constant"):
        problem_on(apart, tmp_path, pde=flow, **source)


# Planes


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@flat_kinds
def test_noise_out_of_the_plane_is_rounding(kind: str, size: float) -> None:
    points, cells, _ = grid(kind, 8)
    noise = 1e-9 * np.random.default_rng(0).normal(size=len(points))
    found = read(meshio.Mesh(size * np.column_stack([points, 7 + noise]), [(kind, cells)]))
    assert np.array_equal(found.mesh.p, size * points.T)


def test_coordinates_in_a_plane_are_those_of_the_file_where_they_can_be() -> None:
    points = np.random.default_rng(0).uniform(size=(20, 2))
    for axis in range(3):
        space = np.insert(points, axis, 5.0, axis=1)
        assert np.array_equal(flattened(space, 2), points)
        assert np.array_equal(
            flattened(np.insert(np.insert(points[:, :1], 0, 1.0, axis=1), axis, 5.0, axis=1), 1), points[:, :1]
        )
    for seed in range(5):
        frame = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
        space = points @ frame[:2] + frame[2]
        plane = flattened(space, 2)
        assert np.allclose(
            np.linalg.norm(plane[:, None] - plane, axis=2), np.linalg.norm(points[:, None] - points, axis=2)
        )
        # The first axis is the image of x, and y rises along the second.
        normal = frame[2]
        first = np.array([1.0, 0, 0]) - normal[0] * normal
        assert np.allclose(plane[:, 0], space @ first / np.linalg.norm(first), atol=1e-12)
        assert (np.array([0.0, 1, 0]) @ np.linalg.lstsq(plane - plane.mean(0), space - space.mean(0), rcond=None)[0].T)[
            1
        ] > 0
    with pytest.raises(NotFlatError):
        flattened(np.column_stack([points, points[:, 0] ** 2]), 2)


def test_a_tilted_plate_has_the_value_of_the_flat_one(tmp_path: Path) -> None:
    """The plate is turned about the x axis, so its coordinates in the plane are those of the flat plate."""
    points, cells, kind = grid("triangle", 8)
    lifted = np.stack([points[:, 0], 0.6 * points[:, 1], 0.8 * points[:, 1]], axis=1)
    pde = {"kind": "poisson", "source": "x*y**2", "boundary": {"all": {"dirichlet": "x + 2*y"}}}
    flat, tilted = (solve(problem_on((each, cells, kind), tmp_path, pde=pde)).objective for each in (points, lifted))
    assert tilted == pytest.approx(flat, rel=1e-9)


# The same cell twice


def test_a_cell_in_two_groups_is_one_cell() -> None:
    plain = read_mesh(FAULTS / "overlap.msh")
    both = read_mesh(FAULTS / "dup.msh")
    assert both.nelements == plain.nelements == 128
    assert len(both.subdomains["a"]) == 128 and len(both.subdomains["b"]) == 40
    assert solve(load(FAULTS / "dup.yaml")).objective == pytest.approx(2 / 3, rel=1e-6)


@kinds
def test_the_same_cell_twice_is_reported(kind: str) -> None:
    points, cells, _ = grid(kind, 2)
    again = np.concatenate([cells, cells[:1, ::-1]])
    for data in ({}, {"tag": [np.full(len(again), 7)]}):
        with pytest.raises(ValueError, match=r"the same cell stands twice, at .* once for each of its groups"):
            read(meshio.Mesh(points, [(kind, again)], cell_data=data))
    tags = np.append(np.full(len(cells), 7), 8)
    found = read(meshio.Mesh(points, [(kind, again)], cell_data={"tag": [tags]}))
    assert found.mesh.nelements == len(cells)
    assert len(found.subdomains["7"]) == len(cells) and found.subdomains["8"].tolist() == [0]
