"""Meshes for tests as (points, cells, kind of cell), the way files have them."""

from __future__ import annotations

from pathlib import Path

import meshio
import numpy as np
import skfem

from nhgd_pde import Problem
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem import mesh_file
from nhgd_pde.fem.cells import CELLS, MeshFileError, kind_of

KINDS = list(CELLS)
FACETS = {"line": "vertex", "triangle": "line", "quad": "line", "tetra": "triangle", "hexahedron": "quad"}
Raw = tuple[np.ndarray, np.ndarray, str]


def read_mesh(path: Path) -> skfem.Mesh:
    return mesh_file.read(path)[0]


def raw(mesh: skfem.Mesh) -> Raw:
    kind = kind_of(mesh)
    return mesh.p.T.copy(), mesh.t[list(CELLS[kind].order)].T.copy(), kind


def grid(
    kind: str, cells: int = 4, size: float | tuple[float, ...] = 1.0, origin: float | tuple[float, ...] = 0.0
) -> Raw:
    """An interval, rectangle or box; a single size is that of all axes, a single origin that of the first."""
    dim = CELLS[kind].dim
    sizes = size if isinstance(size, tuple) else (size,) * dim
    origins = origin if isinstance(origin, tuple) else (origin,) + (0.0,) * (dim - 1)
    axes = [o + s * np.linspace(0.0, 1.0, cells + 1) for s, o in zip(sizes, origins, strict=True)]
    return raw(CELLS[kind].mesh.init_tensor(*axes))


def union(*parts: Raw) -> Raw:
    """Several meshes in one, which share no vertices."""
    before = np.cumsum([0, *(len(points) for points, _, _ in parts)])
    cells = [part[1] + first for part, first in zip(parts, before, strict=False)]
    return np.concatenate([part[0] for part in parts]), np.concatenate(cells), parts[0][2]


def joined(mesh: Raw) -> Raw:
    """The mesh with one vertex in place of several at the same place."""
    points, cells, kind = mesh
    _, first, number = np.unique(np.round(points, 9), axis=0, return_index=True, return_inverse=True)
    return points[first], number.reshape(-1)[cells], kind


def moved(mesh: Raw, points: np.ndarray) -> Raw:
    return points, *mesh[1:]


def soup(mesh: Raw) -> Raw:
    """The mesh in which no two cells share a vertex."""
    points, cells, kind = mesh
    return points[cells].reshape(-1, points.shape[1]), np.arange(cells.size).reshape(cells.shape), kind


def slit(kind: str, width: float) -> Raw:
    """A square or cube with a slit of some width from the middle of a side to its centre."""
    points, cells, _ = grid(kind, 8)
    cut = np.flatnonzero((points[:, 0] == 0.5) & (points[:, 1] < 0.5))
    copy = np.arange(len(points))
    copy[cut] = len(points) + np.arange(len(cut))
    right = points[cells].mean(axis=1)[:, 0] > 0.5
    shifted = points[cut] + width * np.eye(points.shape[1])[0]
    return np.concatenate([points, shifted]), np.where(right[:, None], copy[cells], cells), kind


def said(mesh: Raw, cracks: bool = False) -> str:
    """The message of the error for a mesh; empty if it is accepted."""
    points, cells, kind = mesh
    try:
        found = mesh_file.to_skfem(meshio.Mesh(points, [(kind, cells)]), mesh_file.Reading(cracks)).mesh
    except MeshFileError as error:
        return str(error)
    assert found.nelements == len(cells)
    return ""


def read(mesh: meshio.Mesh, refine: int = 0) -> meshes.Domain:
    found, unusable, _ = mesh_file.to_skfem(mesh)
    return meshes.domain(found, refine, unusable)


def on_plane(kind: str, axis: int, value: float, cells: int = 4) -> np.ndarray:
    """The vertices of the facets of `grid` on a plane."""
    points, vertices, _ = grid(kind, cells)
    mesh = CELLS[kind].mesh(points.T, vertices.T[np.argsort(CELLS[kind].order)])
    facets = mesh.facets[:, np.isclose(mesh.p[axis][mesh.facets], value).all(axis=0)].T
    if kind != "hexahedron":
        return facets
    # The vertices are in order around the facet.
    y, z = np.delete(mesh.p, axis, axis=0)[:, facets]
    angles = np.arctan2(y - y.mean(axis=1, keepdims=True), z - z.mean(axis=1, keepdims=True))
    return np.take_along_axis(facets, np.argsort(angles, axis=1), axis=1)


def tagged(kind: str, key: str, inside: bool = True) -> meshio.Mesh:
    """A mesh with the tags 10 and 11 (x > 1/2) of cells, and 1 (x = 0), 2 (x = 1) and 5 (x = 1/2, inside) of facets."""
    points, cells, _ = grid(kind)
    planes = [on_plane(kind, 0, 0.0), on_plane(kind, 0, 1.0), on_plane(kind, 0, 0.5)][: 3 if inside else 2]
    facets = np.concatenate(planes)
    numbers = np.repeat([1, 2, 5][: len(planes)], [len(each) for each in planes])
    half = np.where(points[cells].mean(axis=1)[:, 0] < 0.5, 10, 11)
    space = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    return meshio.Mesh(space, [(kind, cells), (FACETS[kind], facets)], cell_data={key: [half, numbers]})


def value(problem: Problem) -> float:
    """The objective and the state at the first control, which is zero."""
    pde = problem.pde
    u, v = pde.start()
    factors = pde.state_factors(u, v)
    return pde.outer_value(u - factors.solve(pde.residual(u, v)), v)
