"""Cells that overlap by little, interfaces that do not fit, and coordinates with few digits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mesh_files import Raw, grid, joined, moved, raw, said, union

from nhgd_pde.fem.cells import CELLS
from nhgd_pde.fem.digits import rounding_step
from nhgd_pde.fem.planes import flattened

wide_kinds = pytest.mark.parametrize("kind", ["triangle", "quad", "tetra", "hexahedron"])


def turned(points: np.ndarray) -> np.ndarray:
    """Points rotated about the origin into general position."""
    return points @ np.linalg.qr(np.random.default_rng(1).normal(size=(points.shape[1],) * 2))[0]


# Overlaps


@wide_kinds
@pytest.mark.parametrize("width", [0.1, 1e-3, 1e-5, 1e-7])
def test_a_thin_strip_in_which_two_grids_overlap_is_found(kind: str, width: float) -> None:
    """The other side has as many cells, more or fewer, and may be shifted; `strip` is the width of the overlap."""
    for cells in (3, 4, 7):
        for along in (0.0, 0.37):
            origin = (1.0 - width,) + (along,) * (CELLS[kind].dim - 1)
            mesh = union(grid(kind), grid(kind, cells, origin=origin))
            for points in (mesh[0], turned(mesh[0]) + 3.0):
                assert "overlap" in said(moved(mesh, points), cracks=True), (cells, along)
                assert said(moved(mesh, points)) != ""


@wide_kinds
def test_grids_that_touch_are_accepted(kind: str) -> None:
    for cells in (3, 4):
        for along in (0.0, 0.37):
            for gap in (0.0, 1e-7):
                origin = (1.0 + gap,) + (along,) * (CELLS[kind].dim - 1)
                mesh = union(grid(kind), grid(kind, cells, origin=origin))
                assert said(mesh, cracks=True) == said(moved(mesh, turned(mesh[0]) + 3.0), cracks=True) == ""


def test_hexahedra_with_curved_facets_may_touch() -> None:
    points, cells, kind = union(grid("hexahedron"), grid("hexahedron", origin=1.0))
    x, y, z = points.T
    bent = np.stack([x + 0.1 * np.sin(3 * y) * z, y + 0.1 * x * z, z + 0.05 * x * y], axis=1)
    assert said((bent, cells, kind), cracks=True) == ""


# Curved interfaces


def ring(cells: int, inner: float, outer: float) -> Raw:
    points, quads, kind = raw(
        CELLS["quad"].mesh.init_tensor(np.linspace(0, 1, cells + 1), np.linspace(inner, outer, 4))
    )
    angle, radius = 2 * np.pi * points[:, 0], points[:, 1]
    return joined((np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), quads, kind))


def cap(kind: str, cells: int, inner: float, outer: float) -> Raw:
    """The part of a shell between two spheres that is seen from the origin through a square."""
    across = np.linspace(-0.5, 0.5, cells + 1)
    points, corners, _ = raw(CELLS[kind].mesh.init_tensor(across, across, np.linspace(inner, outer, 3)))
    rays = np.stack([points[:, 0], points[:, 1], np.ones(len(points))], axis=1)
    return rays / np.linalg.norm(rays, axis=1)[:, None] * points[:, 2:], corners, kind


CURVED: list[Callable[[int, float, float], Raw]] = [
    ring,
    lambda *given: cap("tetra", *given),
    lambda *given: cap("hexahedron", *given),
]


@pytest.mark.parametrize("part", CURVED, ids=["ring", "tetra", "hexahedron"])
@pytest.mark.parametrize(("coarse", "fine"), [(8, 16), (9, 27), (16, 32)])
def test_hanging_nodes_on_a_curved_interface_are_refused(
    part: Callable[[int, float, float], Raw], coarse: int, fine: int
) -> None:
    """The vertices of the fine cells lie beyond a gap or inside the coarse cells."""
    if part is not ring:
        coarse, fine = coarse // 4, fine // 4 if fine != 27 else 4
    outside = joined(union(part(coarse, 0.5, 1.0), part(fine, 1.0, 1.5)))
    assert "a thin gap between the facet" in said(outside)
    assert said(outside, cracks=True) == ""
    inside = joined(union(part(fine, 0.5, 1.0), part(coarse, 1.0, 1.5)))
    assert "overlap" in said(inside) and "overlap" in said(inside, cracks=True)
    assert said(joined(union(part(coarse, 0.5, 1.0), part(coarse, 1.0, 1.5)))) == ""


def test_thin_holes_are_accepted() -> None:
    """The holes are a missing triangle and a lens, with facets of the same size on both sides."""
    points, cells, kind = grid("triangle")
    assert said((points, np.delete(cells, 12, axis=0), kind)) == ""
    points, cells, kind = grid("quad", 8)
    cut = np.flatnonzero((points[:, 1] == 0.5) & (points[:, 0] > 0.1) & (points[:, 0] < 0.9))
    copy = np.arange(len(points))
    copy[cut] = len(points) + np.arange(len(cut))
    above = points[cells].mean(axis=1)[:, 1] > 0.5
    for width in (1e-6, 0.01, 0.05):
        lens = np.concatenate([points, points[cut] + width * np.sin(np.pi * points[cut, :1]) * [0, 1]])
        assert said((lens, np.where(above[:, None], copy[cells], cells), kind)) == ""


# Digits


def written(points: np.ndarray, form: str) -> np.ndarray:
    """Coordinates after writing them to a file in some form and reading them."""
    if form == "single":
        return points.astype(np.float32)
    if form == "single, nine digits":
        points, form = points.astype(np.float32), "%.9g"
    return np.array([[float(form % x) for x in row] for row in points])


FORMS = ["%.4e", "%.5e", "%.6e", "%.5f", "%.7f", "single", "single, nine digits"]


@wide_kinds
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("size", "origin"), [(1.0, 0.0), (70.0, 10.0)])
def test_rounding_in_the_file_neither_hides_nor_causes_faults(kind: str, form: str, size: float, origin: float) -> None:
    layers = np.concatenate([[0.0], np.geomspace(2e-4 if form == "%.4e" else 1e-4, 1.0, 8)])
    noise = 1.0 + 1e-9 * np.random.default_rng(0).uniform(-1, 1, (1000, CELLS[kind].dim))
    meshes = {
        "hanging": joined(union(grid(kind, 3), grid(kind, 6, origin=1.0))),
        "three hanging": joined(union(grid(kind, 1), grid(kind, 4, origin=1.0))),
        "twice": union(grid(kind, 3), grid(kind, 3, origin=1.0)),
        "good": grid(kind, 5),
        "small": grid(kind, 3, size=0.02),
        "layers": raw(CELLS[kind].mesh.init_tensor(layers, *[np.linspace(0.0, 1.0, 3)] * (CELLS[kind].dim - 1))),
    }
    for name, mesh in meshes.items():
        points = written((size * turned(mesh[0]) + origin) * noise[: len(mesh[0])], form)
        found = said(moved(mesh, points))
        if name == "twice":
            assert "stand at the same place" in found
        elif "hanging" in name:
            assert "a hanging node" in found, name
        else:
            assert found == "", name
        assert said(moved(mesh, points), cracks=True) == "", name


@pytest.mark.parametrize("form", ["%.5f", "%.6e", "single", "%.17g"])
def test_cells_that_become_narrow_are_accepted(form: str) -> None:
    """At the tip of a blade the width is only a step of the last digit."""
    points, cells, kind = grid("quad", 40)
    x, y = points.T
    blade = np.stack([x, (y - 0.5) * (0.05 * np.sqrt(np.sin(np.pi * x)) + 5e-4)], axis=1)
    assert said((written(blade, form), cells, kind)) == ""


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_the_step_is_that_of_the_last_digit(size: float) -> None:
    points = size * np.random.default_rng(0).uniform(0.1, 1.0, (200, 3))
    largest = 10.0 ** np.floor(np.log10(points.max()))
    for digits in (5, 6, 7):
        assert rounding_step(written(points, f"%.{digits - 1}e")) == pytest.approx(largest * 10.0 ** (1 - digits))
    assert rounding_step(written(points, "single")) == np.spacing(np.float32(points.max()))
    assert rounding_step(points) == rounding_step(points - size) == 0.0
    assert rounding_step(points[:1]) == rounding_step(0.0 * points) == 0.0


def test_numbers_with_very_few_digits_are_exact() -> None:
    """These are lengths written by people, and parts that are shifted a little."""
    eighths = np.arange(17.0).reshape(-1, 1) / 8
    for shift in (0.0, 1e-5, -1e-6, 2e-7):
        assert rounding_step(np.concatenate([eighths, eighths + shift])) == 0.0
    assert rounding_step(np.arange(100.0).reshape(-1, 2)) == 0.0
    for size in (1e-310, 1e-200, 1e200, 1e307):
        assert rounding_step(size * eighths) <= 1e-6 * size


def test_a_tilted_plane_with_few_digits_is_a_plane() -> None:
    points = np.pad(np.random.default_rng(0).uniform(size=(200, 2)), ((0, 0), (0, 1)))
    found = written(turned(points), "%.5f")
    step = rounding_step(found)
    assert step == pytest.approx(1e-5)
    plane = flattened(found, 2, 2.0 * step)
    far = np.linalg.norm(points[:, None] - points, axis=2)
    assert np.allclose(np.linalg.norm(plane[:, None] - plane, axis=2), far, atol=4e-5)
