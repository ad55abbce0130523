"""Refining single cells of a mesh: no hanging nodes, no bad angles, and every name keeps its part of the domain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import meshio
import numpy as np
import pytest
import skfem

import nhgd_pde as nhgd
from nhgd_pde.adaptive.marking import doerfler, maximum
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem import mesh_file
from nhgd_pde.fem.adaptive_refinement import NotRefinableError, refined, smallest_angle
from nhgd_pde.fem.interpolation import locate
from nhgd_pde.fem.mesh import Domain
from nhgd_pde.fem.nesting import parents
from nhgd_pde.fem.refinement import halved
from nhgd_pde.fem.seams import seam

MESHES = Path(__file__).parents[1] / "meshes"


def named(mesh: skfem.Mesh) -> Domain:
    """A domain with a subdomain, the rest, and the facets between both."""
    middle, size = mesh.p[:, mesh.t].mean(axis=1), np.ptp(mesh.p, axis=1)
    core = np.flatnonzero((np.abs(middle - mesh.p.mean(axis=1)[:, None]) < 0.3 * size[:, None]).all(axis=0))
    within = np.isin(mesh.f2t, core)
    skin = np.flatnonzero((within[0] != within[1]) & (mesh.f2t[1] >= 0))
    boundaries = {**(mesh.boundaries or {}), "skin": skin}
    rest = np.setdiff1d(np.arange(mesh.nelements), core)
    return meshes.domain(mesh.with_boundaries(boundaries).with_subdomains({"core": core, "rest": rest}))


def of_file(path: Path) -> Domain:
    return meshes.domain(mesh_file.read(path).mesh)


def block(path: Path) -> Domain:
    """A file of gmsh with two boxes of tetrahedra, and the names of two of their sides."""
    mesh = skfem.MeshTet.init_tensor(np.linspace(0, 2, 5), np.linspace(0, 1, 3), np.linspace(0, 1, 3))
    sides = [mesh.facets_satisfying(lambda x, at=at: np.isclose(x[0], at)) for at in (0.0, 2.0)]
    tags = [1 + (mesh.p[0, mesh.t].mean(axis=0) > 1.0), np.full(len(sides[0]), 3), np.full(len(sides[1]), 4)]
    names = {"first": [1, 3], "second": [2, 3], "inlet": [3, 2], "outlet": [4, 2]}
    cells = [("tetra", mesh.t.T), *(("triangle", mesh.facets[:, each].T) for each in sides)]
    data = {"gmsh:physical": tags, "gmsh:geometrical": tags}
    fields = {name: np.array(entry) for name, entry in names.items()}
    meshio.write(path / "block.msh", meshio.Mesh(mesh.p.T, cells, cell_data=data, field_data=fields), "gmsh22")
    return of_file(path / "block.msh")


DOMAINS: dict[str, Callable[[Path], Domain]] = {
    "interval": lambda path: named(meshes.interval(2.0, -1.0, 7)),
    "rectangle": lambda path: named(meshes.rectangle((2.0, 1.0), (0.0, 0.0), (6, 5))),
    "l_shape": lambda path: named(meshes.l_shape(refine=2)),
    "plate": lambda path: of_file(MESHES / "plate.msh"),
    "discs": lambda path: of_file(MESHES / "four_discs.msh"),
    "box": lambda path: named(meshes.box((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (3, 3, 3))),
    "block": block,
}


def volumes(corners: np.ndarray) -> np.ndarray:
    """(k,) the lengths, areas or volumes of simplices with corners (dim, corners, k)."""
    sides = (corners[:, 1:] - corners[:, :1]).transpose(2, 0, 1)
    gram = np.einsum("kia,kib->kab", sides, sides)
    return np.sqrt(np.maximum(np.linalg.det(gram), 0.0)) / np.prod(np.arange(1, sides.shape[2] + 1))


def measures(domain: Domain) -> dict[str, float]:
    """The sizes of all named parts, and of the whole."""
    mesh = domain.mesh
    facets, cells = volumes(mesh.p[:, mesh.facets]), volumes(mesh.p[:, mesh.t])
    found = {f"facets {name}": facets[each].sum() for name, each in domain.facets.items()}
    found |= {f"cells {name}": cells[each].sum() for name, each in domain.subdomains.items()}
    return {**found, "whole": cells.sum()}


def near_a_point(domain: Domain, share: float = 0.1) -> np.ndarray:
    middle = domain.mesh.p[:, domain.mesh.t].mean(axis=1)
    order = np.argsort(np.linalg.norm(middle - domain.mesh.p.min(axis=1)[:, None], axis=0))
    return order[: max(1, int(share * len(order)))]


@pytest.mark.parametrize("name", DOMAINS)
def test_names_keep_their_parts_and_no_node_hangs(name: str, tmp_path: Path) -> None:
    domain = DOMAINS[name](tmp_path)
    before, rng = measures(domain), np.random.default_rng(3)
    for marking in (near_a_point, lambda each: rng.choice(each.mesh.nelements, 5), near_a_point):
        marked = marking(domain)
        finer = refined(domain, marked)
        # A hanging node would make facets inside the domain parts of its boundary.
        after = measures(finer)
        assert after.keys() == before.keys()
        assert all(after[key] == pytest.approx(before[key], rel=1e-12) for key in before)
        assert finer.inside.keys() == domain.inside.keys()
        # Marked cells have become as many cells as halves of their width make.
        cells, _, inside = locate(domain.mesh.p, domain.mesh.t, finer.mesh.p[:, finer.mesh.t].mean(axis=1))
        assert inside.all() and np.bincount(cells)[marked].min() >= 2**domain.dim
        domain = finer


@pytest.mark.parametrize("name", DOMAINS)
def test_the_cells_of_a_uniform_refinement_know_their_parents(name: str, tmp_path: Path) -> None:
    domain = DOMAINS[name](tmp_path)
    for _ in range(2):
        fine, _, _ = halved(domain.mesh, {}, {})
        cells, _, inside = locate(domain.mesh.p, domain.mesh.t, fine.p[:, fine.t].mean(axis=1))
        assert inside.all() and np.array_equal(parents(domain.mesh), cells)
        domain = refined(domain, near_a_point(domain))


@pytest.mark.parametrize("name", ["rectangle", "l_shape", "plate", "discs", "box"])
def test_angles_do_not_degrade(name: str, tmp_path: Path) -> None:
    domain = DOMAINS[name](tmp_path)
    first = smallest_angle(domain)
    # Of triangles, the smallest angle stays above half of the first one (Rosenberg and Stenger, 1975).
    least = first if name in ("l_shape", "box") else 0.5 * first
    for _ in range(4 if domain.dim == 3 else 12):
        domain = refined(domain, near_a_point(domain, 0.05))
        assert smallest_angle(domain) >= least * (1.0 - 1e-9)


def test_the_smallest_angle_is_that_between_two_facets() -> None:
    triangle = skfem.MeshTri(np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 3.0**0.5]]), np.array([[0], [1], [2]]))
    assert smallest_angle(meshes.domain(triangle)) == pytest.approx(30.0)
    corner = skfem.MeshTet(np.array([[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), np.arange(4)[:, None])
    assert smallest_angle(meshes.domain(corner)) == pytest.approx(np.degrees(np.arccos(3**-0.5)))


def test_a_disk_becomes_rounder() -> None:
    centre, radius = np.array([[3.0], [-1.0]]), 2.0

    def onto(x: np.ndarray) -> np.ndarray:
        return centre + radius * (x - centre) / np.linalg.norm(x - centre, axis=0)

    domain = meshes.domain(meshes.disk(radius, (3.0, -1.0), 2))
    for _ in range(3):
        domain = refined(domain, np.flatnonzero(np.isin(domain.mesh.t2f, domain.boundaries["all"]).any(axis=0)), onto)
        rim = domain.mesh.p[:, np.unique(domain.mesh.facets[:, domain.boundaries["all"]])]
        assert np.linalg.norm(rim - centre, axis=0) == pytest.approx(radius, rel=1e-14)
    sides = len(domain.boundaries["all"])
    area = volumes(domain.mesh.p[:, domain.mesh.t]).sum()
    assert area == pytest.approx(0.5 * sides * radius**2 * np.sin(2 * np.pi / sides), rel=1e-9)
    assert smallest_angle(domain) > 15.0


@pytest.mark.parametrize("unit", [1e-9, 1e6])
def test_the_unit_of_length_does_not_matter(unit: float) -> None:
    plain, scaled = (meshes.domain(meshes.box((s, s, s), (0, 0, 0), (2, 2, 2))) for s in (1.0, unit))
    for _ in range(2):
        plain, scaled = (refined(each, near_a_point(each)) for each in (plain, scaled))
    assert np.array_equal(plain.mesh.t, scaled.mesh.t)


@pytest.mark.parametrize("kind", ["rectangle", "box"])
def test_periodic_sides_are_refined_alike(kind: str) -> None:
    mesh = (
        meshes.rectangle((1, 1), (0, 0), (5, 5)) if kind == "rectangle" else meshes.box((1, 1, 1), (0, 0, 0), (3, 3, 3))
    )
    domain = meshes.domain(mesh)
    for _ in range(3):
        sides = domain.boundaries["left"], domain.boundaries["right"]
        domain = domain.glued([seam(domain.mesh, ("left", "right"), *sides)])
        before = domain.mesh.nelements
        domain = refined(domain, near_a_point(domain, 0.04))
        assert domain.mesh.nelements > before and not domain.seams
    # This raises an error where a facet has no partner.
    seam(domain.mesh, ("left", "right"), domain.boundaries["left"], domain.boundaries["right"])


def test_other_cells_are_refused() -> None:
    quadrilaterals = meshes.domain(meshes.rectangle((1, 1), (0, 0), (2, 2), "quadrilateral"))
    with pytest.raises(NotRefinableError, match="found quadrilaterals"):
        refined(quadrilaterals, np.array([0]))
    rectangle = {"kind": "rectangle", "cell": "quadrilateral", "cells": [4, 4], "adapt": {}}
    for mesh, way in (
        (rectangle, "found quadrilaterals: take mesh.cell: triangle"),
        ({**rectangle, "kind": "box", "cell": "hexahedron", "cells": [2, 2, 2]}, "hexahedra: take mesh.cell: tetra"),
        ({"mesh": skfem.MeshTri2.init_circle(2), "adapt": {}}, "curved cells .* take mesh.geometry: straight"),
        ({"mesh": skfem.MeshQuad().refined(2), "adapt": {}}, "take mesh.cell: triangle, which splits"),
        ({"mesh": skfem.MeshHex().refined(1), "adapt": {}}, "make the file with tetrahedra"),
    ):
        with pytest.raises(nhgd.ProblemError, match=way):
            nhgd.Problem(
                mesh=mesh,
                pde={"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
                control={"kind": "source"},
                objective=[{"kind": "tracking", "target": "1"}],
            )


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_doerflers_set_is_the_smallest_with_its_share(fraction: float) -> None:
    indicator = np.random.default_rng(1).exponential(size=400) ** 3
    marked = doerfler(indicator, fraction)
    total = indicator.sum()
    assert indicator[marked].sum() >= fraction * total
    # The largest ones are taken, and without the smallest of them the share is not reached.
    assert indicator[marked].min() >= np.delete(indicator, marked).max()
    assert indicator[marked].sum() - indicator[marked].min() < fraction * total


def test_equal_cells_are_marked_together() -> None:
    indicator = np.array([1.0, 4.0, 1.0, 1.0, 0.0])
    assert np.array_equal(doerfler(indicator, 0.5), [1])
    assert np.array_equal(doerfler(indicator, 0.6), [0, 1, 2, 3])
    assert np.array_equal(maximum(indicator, 0.25), [0, 1, 2, 3])
    assert np.array_equal(maximum(indicator, 0.3), [1])
    assert not len(doerfler(np.zeros(3), 0.5)) and not len(maximum(np.zeros(3), 0.5))
