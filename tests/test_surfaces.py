"""Surfaces of designs: closed, oriented, with the right volume, from meshes of all kinds of cells."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
from click.testing import CliRunner

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.cells import CELLS, kind_of
from nhgd_pde.output.fields import FieldData, Grid, write_vtu
from nhgd_pde.output.surfaces import nodal_values, solid, volume

ROOT = Path(__file__).parents[1]


def grid_of(mesh: Any, turned: bool = False) -> Grid:
    """A grid; `turned`: hexahedra and quadrilaterals begin with another corner from cell to cell."""
    kind = kind_of(mesh)
    cells = mesh.t[list(CELLS[kind].order)].T.copy()
    if turned and kind in ("hexahedron", "quad"):
        half = cells.shape[1] // (2 if kind == "hexahedron" else 1)
        for k, cell in enumerate(cells):
            cells[k] = np.concatenate([np.roll(part, k) for part in np.split(cell, cell.size // half)])
    return Grid(mesh.p.T, cells, kind)


def euler(triangles: np.ndarray) -> int:
    """V - E + F of a surface that is checked to be closed and oriented: each edge is passed once in both directions."""
    edges = np.concatenate([triangles[:, [k, (k + 1) % 3]] for k in range(3)])
    assert (edges[:, 0] != edges[:, 1]).all()
    count = triangles.max() + 1
    forwards, backwards = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    assert len(np.unique(forwards)) == len(edges)
    assert np.array_equal(np.sort(forwards), np.sort(backwards))
    return len(np.unique(triangles)) - len(edges) // 2 + len(triangles)


def part_above(points: np.ndarray, simplices: np.ndarray, values: np.ndarray) -> float:
    """The volume of {linear function > 0} in simplices, by products of shares of edges."""
    total, dim = 0.0, simplices.shape[1] - 1
    for corners in simplices:
        x, v = points[corners], values[corners]
        size = abs(np.linalg.det((x[1:] - x[0])[:, :dim])) / math.factorial(dim)
        above = [k for k in range(dim + 1) if v[k] > 0]
        below = [k for k in range(dim + 1) if v[k] <= 0]
        if len(above) in (0, dim + 1):
            total += size * (len(above) > 0)
        elif len(above) == 1 or len(below) == 1:
            (one,), rest = (above, below) if len(above) == 1 else (below, above)
            tip = size * math.prod(v[one] / (v[one] - v[k]) for k in rest)
            total += tip if len(above) == 1 else size - tip
        else:
            (a, b), (c, d) = above, below
            # The wedge: two of the pyramids over the cut, by the inclusion of tetrahedra at a and b.
            s = {(i, j): v[i] / (v[i] - v[j]) for i in (a, b) for j in (c, d)}
            ac, ad, bc, bd = s[a, c], s[a, d], s[b, c], s[b, d]
            total += size * (ac * ad + bc * bd * (1 - ac) + ac * bd * (1 - ad))
    return total


def ball(x: np.ndarray, radius: float = 0.37) -> np.ndarray:
    """Positive in a ball about a point that no node of a grid meets."""
    return radius - np.linalg.norm(x - (0.51, 0.485, 0.507)[: x.shape[-1]], axis=-1)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("cell", ["tetrahedron", "hexahedron"])
def test_the_surface_of_a_ball(cell: Any, turned: bool) -> None:
    errors = []
    for n in (8, 16):
        grid = grid_of(meshes.box([1, 1, 1], [0, 0, 0], [n, n, n], cell), turned)
        points, triangles = solid(grid, ball(grid.points), 0.0)
        assert euler(triangles) == 2
        errors.append(abs(volume(points, triangles) / (4 / 3 * math.pi * 0.37**3) - 1))
    assert errors[0] < 0.1 and errors[1] < 0.35 * errors[0]


def test_the_volume_is_that_of_the_piecewise_linear_field() -> None:
    grid = grid_of(meshes.box([1, 1, 1], [0, 0, 0], [4, 4, 4]))
    # Random values, of which some parts end at the boundary of the grid, and others are holes.
    values = np.random.default_rng(3).normal(size=len(grid.points))
    points, triangles = solid(grid, values, 0.0)
    euler(triangles)
    assert volume(points, triangles) == pytest.approx(part_above(grid.points, grid.cells, values), rel=1e-3)


def test_the_whole_grid_a_half_and_a_shell() -> None:
    grid = grid_of(meshes.box([2, 1, 1], [0, 0, 0], [6, 3, 3]))
    points, triangles = solid(grid, np.ones(len(grid.points)), 0.5)
    assert euler(triangles) == 2 and volume(points, triangles) == pytest.approx(2.0, rel=1e-12)
    points, triangles = solid(grid, grid.points[:, 0], 0.7)
    assert euler(triangles) == 2 and volume(points, triangles) == pytest.approx(1.3, rel=1e-12)
    assert points[:, 0].min() == pytest.approx(0.7, rel=1e-12)
    # A threshold that nodes have exactly: the surface stays away from them by a thousandth of an edge.
    points, triangles = solid(grid, grid.points[:, 0], 1.0)
    assert euler(triangles) == 2 and volume(points, triangles) == pytest.approx(1.0, abs=2e-3)
    cube = grid_of(meshes.box([1, 1, 1], [0, 0, 0], [9, 9, 9]))
    shell = 0.1 - np.abs(ball(cube.points, 0.3))
    assert euler(solid(cube, shell, 0.0)[1]) == 4
    x = cube.points - 0.5
    ring = 0.12 - np.hypot(np.hypot(x[:, 0], x[:, 1]) - 0.3, x[:, 2])
    assert euler(solid(cube, ring, 0.0)[1]) == 0
    assert len(solid(grid, np.zeros(len(grid.points)), 0.5)[1]) == 0


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_a_plane_design_is_extruded(cell: Any) -> None:
    grid = grid_of(meshes.rectangle([1, 1], [0, 0], [12, 12], cell), turned=True)
    points, triangles = solid(grid, ball(grid.points), 0.0, thickness=0.25)
    assert euler(triangles) == 2
    assert volume(points, triangles) == pytest.approx(0.25 * math.pi * 0.37**2, rel=0.02)
    assert np.unique(points[:, 2]).tolist() == [0.0, 0.25]
    points, triangles = solid(grid, -np.abs(ball(grid.points)), -0.1, thickness=1.0)
    assert euler(triangles) == 0  # a ring


def test_values_of_cells_become_means_at_nodes() -> None:
    grid = grid_of(meshes.rectangle([1, 1], [0, 0], [2, 1], "quadrilateral"))
    found = nodal_values(grid, np.array([1.0, 0.0]))
    np.testing.assert_allclose(found, 1.0 - grid.points[:, 0])
    hexahedra = grid_of(meshes.box([1, 1, 1], [0, 0, 0], [2, 2, 2], "hexahedron"))
    np.testing.assert_allclose(nodal_values(hexahedra, np.full(8, 0.3)), 0.3)


def read_surface(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The points and triangles of an STL file, whose points are single precision and stand once for each triangle."""
    found = meshio.read(path)
    points, numbers = np.unique(found.points, axis=0, return_inverse=True)
    return points, numbers[found.cells[0].data]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.mark.parametrize("overrides", [{}, {"control.filter": "helmholtz", "control.space": "P1"}, {"element": "P2"}])
def test_a_beam_is_exported(overrides: dict[str, Any], tmp_path: Path) -> None:
    more = {"mesh.cells": [30, 10], "outer.iterations": 12, **overrides}
    solution = nhgd.solve(nhgd.load(ROOT / "problems/mbb_beam.yaml", more), output=tmp_path / "run")
    assert isinstance(solution, nhgd.Solution)
    done = run("export", tmp_path / "run", "--stl", "--thickness", 5)
    assert done.exit_code == 0 and "density.stl" in done.output, done.output
    points, triangles = read_surface(tmp_path / "run" / "density.stl")
    euler(triangles)
    size = volume(points, triangles)
    assert float(done.output.split()[-1]) == pytest.approx(size, rel=1e-4)
    assert 0.3 * 6000 < size < 0.7 * 6000
    again = run("export", tmp_path / "run", "--stl", "--threshold", 0.1, "--output", tmp_path / "more.stl")
    assert again.exit_code == 0
    x, _ = read_surface(tmp_path / "more.stl")
    assert np.ptp(x[:, 2]) == pytest.approx(6.0)


@pytest.mark.parametrize("cell", ["tetrahedron", "hexahedron"])
def test_a_body_is_exported(cell: str, tmp_path: Path) -> None:
    file = {
        "name": "pillar",
        "mesh": {"kind": "box", "size": [1, 1, 2], "cells": [3, 3, 6], "cell": cell},
        "pde": {
            "kind": "elasticity",
            "boundary": {"front": {"dirichlet": [0, 0, 0]}, "back": {"neumann": [1, 0, 0]}},
        },
        "control": {"kind": "density", "penalty": 3, "initial": 0.4, "low": 1e-3},
        "objective": [{"kind": "compliance"}],
        "constraints": [{"kind": "volume", "fraction": 0.4}],
        "outer": {"iterations": 6},
    }
    nhgd.solve(nhgd.load(file), output=tmp_path / "run")
    # Without a filter the density is the control.
    done = run("export", tmp_path / "run", "--stl", "--threshold", 0.5)
    assert done.exit_code == 0, done.output
    points, triangles = read_surface(tmp_path / "run" / "density.stl")
    euler(triangles)
    assert 0.1 < volume(points, triangles) < 1.9


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "paraview.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"<!-- example surface -->\n```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    more = {"mesh.cells": [30, 10], "outer.iterations": 3}
    nhgd.solve(nhgd.load(ROOT / "problems/mbb_beam.yaml", more), output="outputs/mbb_beam")
    names: dict[str, Any] = {}
    exec(example, names)
    points, triangles = read_surface(Path("outputs/mbb_beam/density.stl"))
    assert names["done"].triangles == len(triangles)
    assert names["done"].volume == pytest.approx(volume(points, triangles), rel=1e-4)


def test_mistakes_are_told_and_leave_nothing(tmp_path: Path) -> None:
    problem = {
        "name": "plain",
        "mesh": {"kind": "rectangle", "cells": [3, 3]},
        "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": 1}, {"kind": "regularisation", "weight": 1}],
    }
    folder = tmp_path / "run"
    nhgd.solve(nhgd.load(problem), output=folder)
    line = {**problem, "name": "line", "mesh": {"kind": "interval", "cells": 3}}
    nhgd.solve(nhgd.load(line), output=tmp_path / "line")
    for arguments, words in [
        ((folder, "--stl"), "expected one field with a density, found state, control"),
        ((folder, "--stl", "--field", "rho"), "expected a field 'rho'"),
        ((folder, "--stl", "--field", "state", "--threshold", 1e9), "expected values of at least 1e+09"),
        ((folder, "--stl", "--field", "state", "--threshold", "nan"), "threshold: expected a finite number"),
        ((tmp_path / "line", "--stl", "--field", "state"), "found an interval"),
        ((tmp_path / "nothing", "--stl"), "expected a run folder, found nothing"),
        ((folder,), "--stl"),
        ((folder, "--stl", "--thickness", 0), "--thickness"),
        ((folder, "--stl", "--field", "state", "--thickness", "nan"), "thickness: expected a finite number above 0"),
        ((folder, "--stl", "--field", "state", "--threshold", 0, "--output", tmp_path / "no" / "a.stl"), "a.stl"),
    ]:
        done = run("export", *arguments)
        assert done.exit_code == 2 and words in done.output, done.output
        assert "Traceback" not in done.output
    assert not list(tmp_path.rglob("*.stl"))
    values = np.ones(16)
    values[3] = np.nan
    grid = grid_of(meshes.rectangle([1, 1], [0, 0], [3, 3]))
    write_vtu(folder / "final.vtu", grid, FieldData({"density": values, "vector": np.zeros((16, 2))}))
    assert "values that are not finite" in run("export", folder, "--stl").output
    assert "found 3 components" in run("export", folder, "--stl", "--field", "vector").output
    (folder / "final.vtu").write_text("no xml")
    done = run("export", folder, "--stl")
    assert done.exit_code == 2 and "not a readable VTU file" in done.output
