"""Meshes of scikit-fem and meshio in memory: the same problem as from a file, names, run folders and refusals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import skfem

import nhgd_pde as nhgd
from nhgd_pde import ProblemError
from nhgd_pde.problem_file.loading import read_problem

PAGE = (Path(__file__).parents[1] / "docs" / "own_meshes.md").read_text(encoding="utf-8")


def named(kind: type[skfem.Mesh], cells: int = 4) -> skfem.Mesh:
    dim = 3 if kind in (skfem.MeshTet, skfem.MeshHex) else 1 if kind is skfem.MeshLine else 2
    mesh = kind.init_tensor(*[np.linspace(0, 1, cells + 1)] * dim)
    return mesh.with_boundaries({"left": lambda x: x[0] == 0}).with_subdomains({"core": lambda x: x[0] < 0.5})


def problem(mesh: Any, **sections: Any) -> dict[str, Any]:
    return {
        "name": "in_memory",
        "mesh": mesh if isinstance(mesh, dict) else {"mesh": mesh},
        "pde": {
            "kind": "poisson",
            "source": 1,
            "conductivity": {"core": 5, "default": 1},
            "boundary": {"left": {"dirichlet": 0}},
        },
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": "x"}, {"kind": "regularisation", "weight": 1e-2}],
        **sections,
    }


@pytest.mark.parametrize("kind", [skfem.MeshTri, skfem.MeshQuad, skfem.MeshTet, skfem.MeshHex])
def test_a_mesh_of_scikit_fem_gives_the_problem_of_its_file(kind: type[skfem.Mesh], tmp_path: Path) -> None:
    mesh = named(kind)
    found = nhgd.load(problem(mesh)).pde.space.domain
    assert np.array_equal(np.sort(found.facets["left"]), np.sort(mesh.boundaries["left"]))
    assert np.array_equal(found.subdomains["core"], np.sort(mesh.subdomains["core"]))
    mesh.save(tmp_path / "mesh.vtk")
    of_file = nhgd.solve(nhgd.load(problem({"file": str(tmp_path / "mesh.vtk")})))
    assert nhgd.solve(nhgd.load(problem(mesh))).objective == pytest.approx(of_file.objective, rel=1e-12)


def test_intervals_of_scikit_fem_give_the_problem_of_the_built_in_interval() -> None:
    pde = {
        "kind": "poisson",
        "source": 1,
        "conductivity": "where(x < 0.5, 5, 1)",
        "boundary": {"left": {"dirichlet": 0}},
    }
    built_in = nhgd.solve(nhgd.load(problem({"kind": "interval", "cells": 4}, pde=pde)))
    given = nhgd.solve(nhgd.load(problem(named(skfem.MeshLine))))
    assert given.objective == pytest.approx(built_in.objective, rel=1e-12)


def test_a_mesh_of_meshio_has_the_names_of_its_sets_and_tags() -> None:
    mesh = named(skfem.MeshTri)
    left = mesh.facets[:, mesh.boundaries["left"]].T
    core = np.isin(np.arange(mesh.nelements), mesh.subdomains["core"]).astype(int)
    given = meshio.Mesh(
        mesh.p.T,
        [("triangle", mesh.t.T), ("line", left)],
        cell_sets={"left": [np.zeros(0, int), np.arange(len(left))], "core": [np.flatnonzero(core), np.zeros(0, int)]},
    )
    before = {name: [each.copy() for each in blocks] for name, blocks in given.cell_sets.items()}
    solution = nhgd.solve(nhgd.load(problem(given)))
    assert solution.objective == pytest.approx(nhgd.solve(nhgd.load(problem(mesh))).objective, rel=1e-12)
    # The object of the user is left as it was.
    assert list(given.cell_sets) == list(before)
    assert all(
        np.array_equal(a, b) for name in before for a, b in zip(given.cell_sets[name], before[name], strict=True)
    )


@pytest.mark.parametrize("kind", [skfem.MeshTri2, skfem.MeshQuad2, skfem.MeshTet2, skfem.MeshHex2])
def test_curved_cells_of_scikit_fem_keep_their_nodes(kind: type[skfem.Mesh]) -> None:
    straight = {"Tri": skfem.MeshTri, "Qua": skfem.MeshQuad, "Tet": skfem.MeshTet, "Hex": skfem.MeshHex}
    flat = named(straight[kind.__name__[4:7]], 3)
    bent = kind.from_mesh(flat)
    points = bent.doflocs + 0.1 * np.sin(3 * bent.doflocs[::-1])
    given = kind(points, bent.t).with_boundaries(flat.boundaries).with_subdomains(flat.subdomains)
    found = nhgd.load(problem(given, element="P2")).pde.space.domain
    assert found.curved is not None
    order = [np.lexsort(np.round(each, 9)) for each in (points, found.curved.doflocs)]
    assert np.abs(points[:, order[0]] - found.curved.doflocs[:, order[1]]).max() < 1e-12


def test_a_run_resumes_with_the_same_mesh_and_not_with_another(tmp_path: Path) -> None:
    mesh = named(skfem.MeshTri)
    whole = nhgd.solve(nhgd.load(problem(mesh)))
    first = nhgd.load(problem(mesh, outer={"iterations": 2}))
    nhgd.solve(first, output=tmp_path / "run")
    moved = mesh.p.copy()
    moved[:, 12] += 0.01
    other = skfem.MeshTri(moved, mesh.t).with_boundaries(mesh.boundaries).with_subdomains(mesh.subdomains)
    with pytest.raises(nhgd.OutputError, match="mesh"):
        nhgd.solve(nhgd.load(problem(other)), output=tmp_path / "run", resume=True)
    resumed = nhgd.solve(nhgd.load(problem(mesh)), output=tmp_path / "run", resume=True)
    assert resumed.objective == pytest.approx(whole.objective, rel=1e-9)


def test_the_checksum_sees_points_cells_and_names() -> None:
    mesh = named(skfem.MeshTri)
    moved = mesh.p.copy()
    moved[0, 12] += 1e-9
    meshes = [
        mesh,
        named(skfem.MeshTri),
        skfem.MeshTri(moved, mesh.t).with_boundaries(mesh.boundaries).with_subdomains(mesh.subdomains),
        mesh.with_subdomains({"core": np.arange(3)}),
        mesh.with_boundaries({"right": lambda x: x[0] == 1}),
    ]
    sums = [read_problem(problem(each)).dump().split("sha256 ")[1][:16] for each in meshes]
    assert sums[0] == sums[1] and len(set(sums)) == 4


def test_scenarios_are_solved_on_a_mesh_in_memory() -> None:
    sections = {
        "parameters": {"k": {"uniform": [1, 2]}},
        "scenarios": {"count": 4},
        "pde": {"kind": "poisson", "conductivity": "k", "source": 1, "boundary": {"left": {"dirichlet": 0}}},
    }
    assert nhgd.solve(nhgd.load(problem(named(skfem.MeshQuad), **sections))).status == "converged"


def broken(place: float) -> skfem.Mesh:
    mesh = named(skfem.MeshTri)
    points = mesh.p.copy()
    points[0, 12] = place
    return skfem.MeshTri(points, mesh.t)


@pytest.mark.parametrize(
    ("mesh", "sentence"),
    [
        ("mesh.msh", "expected a scikit-fem Mesh or a meshio.Mesh, in Python, found 'mesh.msh'"),
        (None, "in Python, found null"),
        (3, "in Python, found 3"),
        (skfem.MeshTri, "expected a scikit-fem Mesh"),
        (skfem.MeshWedge1(), "the mesh is a MeshWedge1 of scikit-fem; expected intervals"),
        (broken(np.nan), "the mesh has vertices that are not finite"),
        (broken(3.0), "the mesh has .*overlap"),
        (meshio.Mesh(np.zeros((0, 2)), []), "the mesh holds no cells"),
        (
            meshio.Mesh(np.zeros((2, 2)), [("triangle", np.array([[0, 1, 7]]))]),
            "vertices that the file does not contain",
        ),
    ],
)
def test_other_values_and_broken_meshes_are_refused(mesh: Any, sentence: str) -> None:
    with pytest.raises(ProblemError, match=sentence):
        nhgd.load(problem({"mesh": mesh}))


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(
        r"<!-- example of a mesh in memory: run by the tests -->\n```python\n(.*?)```", PAGE, re.DOTALL
    )
    exec(compile(example, "docs/own_meshes.md", "exec"), {})
    assert "256 curved triangles" in capsys.readouterr().out
