"""Meshes in memory in run folders: to the last bit, read in a new process, and refused where they are not the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import skfem
from click.testing import CliRunner
from inverse_problems import grid_points, sensor_file, source_inversion
from skfem.generic_utils import OrientedBoundary
from test_adaptive_runs import CORNER, corner
from test_adaptive_runs import same as same_adaptive_run
from test_mesh_objects import named, problem

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.output.kept_mesh import keep_mesh, read_kept
from nhgd_pde.output.names import LEVELS, MESH, PROBLEM
from nhgd_pde.problem_file.described_mesh import description
from nhgd_pde.problem_file.mesh_arrays import arrays_of, mesh_of

KINDS = [skfem.MeshLine, skfem.MeshTri, skfem.MeshQuad, skfem.MeshTet, skfem.MeshHex]


def shaken(kind: type[skfem.Mesh]) -> skfem.Mesh:
    """A mesh whose points have digits to lose, with a boundary that has sides, one without, and a subdomain."""
    mesh = named(kind, 3)
    points = mesh.p + 1e-3 * np.random.default_rng(0).standard_normal(mesh.p.shape)
    inner = np.setdiff1d(np.arange(mesh.nfacets), mesh.boundary_facets())[::2]
    boundaries = {**mesh.boundaries, "größe": OrientedBoundary(inner, np.arange(len(inner)) % 2)}
    return kind(points, mesh.t).with_boundaries(boundaries).with_subdomains(mesh.subdomains)


def bent(kind: type[skfem.Mesh]) -> skfem.Mesh:
    flat = shaken({"Tri": skfem.MeshTri, "Qua": skfem.MeshQuad}[kind.__name__[4:7]])
    mesh = kind.from_mesh(flat)
    points = mesh.doflocs + 0.01 * np.sin(3 * mesh.doflocs[::-1])
    return kind(points, mesh.t).with_boundaries(flat.boundaries).with_subdomains(flat.subdomains)


def unsorted() -> skfem.Mesh:
    """Triangles whose vertices are not sorted, as scikit-fem would sort them unless it is told not to."""
    mesh = named(skfem.MeshTri)
    turned = skfem.MeshTri(mesh.p, mesh.t[::-1], sort_t=False)
    assert (np.sort(turned.t, axis=0) != turned.t).any()
    return turned.with_boundaries(mesh.boundaries).with_subdomains(mesh.subdomains)


def of_meshio() -> meshio.Mesh:
    mesh = shaken(skfem.MeshTri)
    left = mesh.facets[:, mesh.boundaries["left"]].T
    nothing, core = np.zeros(0, dtype=np.uint32), np.asarray(mesh.subdomains["core"], dtype=np.uint32)
    return meshio.Mesh(
        mesh.p.T,
        [("triangle", mesh.t.T.astype(np.int64)), ("line", left.astype(">i4"))],
        point_data={"height": np.arange(mesh.p.shape[1], dtype=np.float32) / 3},
        cell_data={"mark": [np.arange(mesh.nelements), np.full(len(left), 7)]},
        field_data={"core": np.array([3, 2])},
        point_sets={"corner": np.array([0])},
        cell_sets={"core": [core, nothing], "left": [nothing, np.arange(len(left))], "none": [None, nothing]},
    )


def test_meshes_come_back_to_the_last_bit(tmp_path: Path) -> None:
    every = [shaken(kind) for kind in KINDS] + [bent(skfem.MeshTri2), bent(skfem.MeshQuad2), unsorted()]
    for mesh in every:
        keep_mesh(tmp_path, arrays_of(mesh))
        found = read_kept(tmp_path / MESH, mesh_of)
        assert type(found) is type(mesh) and found.elem is mesh.elem
        assert (found.affine, found.sort_t, found.validate) == (mesh.affine, mesh.sort_t, mesh.validate)
        identical(found.doflocs, mesh.doflocs)
        identical(found.t, mesh.t)
        for theirs, ours in ((found.boundaries, mesh.boundaries), (found.subdomains, mesh.subdomains)):
            assert list(theirs) == list(ours)
            for name in ours:
                identical(theirs[name], ours[name])
                assert type(theirs[name]) is type(ours[name])
        if mesh.boundaries.keys() > {"left"}:
            identical(found.boundaries["größe"].ori, mesh.boundaries["größe"].ori)
        assert description(found) == description(mesh)


def identical(one: Any, other: Any) -> None:
    """Equal in their types too; the members of lists and mappings one by one."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            identical(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for each, its in zip(one, other, strict=True):
            identical(each, its)
    else:
        assert one == other


def test_meshes_of_meshio_come_back_to_the_last_bit(tmp_path: Path) -> None:
    mesh = of_meshio()
    mesh.gmsh_periodic = [(1, (2, 3), [1.0, 0.5], np.array([[0, 1]]))]
    mesh.info = {"scale": np.float32(0.1), "name": "a", "all": True, "of": None}
    keep_mesh(tmp_path, arrays_of(mesh))
    found = read_kept(tmp_path / MESH, mesh_of)
    for name in ("points", "point_data", "cell_data", "field_data", "point_sets", "cell_sets", "gmsh_periodic", "info"):
        identical(getattr(found, name), getattr(mesh, name))
    assert [(block.type, block.tags) for block in found.cells] == [(block.type, block.tags) for block in mesh.cells]
    for one, other in zip(found.cells, mesh.cells, strict=True):
        identical(one.data, other.data)
    assert description(found) == description(mesh)


def same(found: Any, expected: nhgd.Solution) -> None:
    assert found.objective == expected.objective and found.status == expected.status
    for name in ("control", "state", "adjoint", "gradient"):
        identical(getattr(found, name), getattr(expected, name))
    assert found.source.problem.file.dump() == expected.source.problem.file.dump()


@pytest.mark.parametrize(
    "mesh", [*map(shaken, KINDS), bent(skfem.MeshTri2), of_meshio()], ids=lambda each: str(each)[:20]
)
def test_a_folder_gives_the_solution_of_its_run(mesh: Any, tmp_path: Path) -> None:
    solution = nhgd.solve(nhgd.load(problem(mesh)), output=tmp_path / "run")
    same(nhgd.Solution.load(tmp_path / "run"), solution)
    solution.save(tmp_path / "saved")
    same(nhgd.Solution.load(tmp_path / "saved"), solution)
    # What has been read can be solved and saved like any other problem.
    nhgd.Solution.load(tmp_path / "saved").save(tmp_path / "again")
    shutil.rmtree(tmp_path / "saved")
    same(nhgd.Solution.load(tmp_path / "again"), solution)


def test_a_new_process_needs_the_folder_alone(tmp_path: Path) -> None:
    solution = nhgd.solve(nhgd.load(problem(named(skfem.MeshTri))), output=tmp_path / "here" / "run")
    (tmp_path / "here").rename(tmp_path / "there")
    code = (
        "import sys, json, nhgd_pde as nhgd\n"
        "found = nhgd.Solution.load(sys.argv[1])\n"
        "print(json.dumps([found.objective, found.control.tolist()]))"
    )
    done = subprocess.run([sys.executable, "-c", code, "run"], cwd=tmp_path / "there", capture_output=True, check=True)
    objective, control = json.loads(done.stdout)
    assert objective == solution.objective and control == solution.control.tolist()


def test_commands_take_the_folder(tmp_path: Path) -> None:
    points = grid_points(3)
    sensors = sensor_file(tmp_path, points, 0.02 * np.sin(3.0 * points[:, 0]))
    mesh = skfem.MeshTri.init_tensor(*[np.linspace(0, 1, 7)] * 2)
    sections = {**source_inversion(sensors, 6, inference={"samples": 2}), "mesh": {"mesh": mesh}}
    nhgd.solve(nhgd.load(sections), output=tmp_path / "run")
    folder = str(tmp_path / "run")
    for arguments in (
        ["check", folder],
        ["verify", folder, "--at", folder],
        ["posterior", folder],
        ["report", folder],
        ["solve", folder, "--resume", "--output", folder, "--no-figure"],
        ["solve", f"{folder}/{PROBLEM}", "--output", str(tmp_path / "other"), "--no-figure"],
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, (arguments, done.output)
    assert (tmp_path / "other" / MESH).is_file()


def test_a_run_that_was_cut_off_goes_on_from_its_folder(tmp_path: Path) -> None:
    mesh = named(skfem.MeshTri)
    whole = nhgd.solve(nhgd.load(problem(mesh)))
    nhgd.solve(nhgd.load(problem(mesh, outer={"iterations": 2})), output=tmp_path / "run")
    more = nhgd.load(tmp_path / "run", {"outer.iterations": 200})
    resumed = nhgd.solve(more, output=tmp_path / "run", resume=True)
    assert resumed.status == "converged" and resumed.objective == pytest.approx(whole.objective, rel=1e-9)
    # The folder of an earlier version has no mesh; it gets that of the run that goes on.
    (tmp_path / "run" / MESH).unlink()
    nhgd.solve(nhgd.load(problem(mesh)), output=tmp_path / "run", resume=True)
    same(nhgd.Solution.load(tmp_path / "run"), resumed)


def mistakes(source: Any) -> list[str]:
    with pytest.raises(nhgd.ProblemError) as caught:
        nhgd.load(source)
    return [str(each) for each in caught.value.issues]


def test_missing_damaged_and_other_meshes_are_refused(tmp_path: Path) -> None:
    mesh, folder = named(skfem.MeshTri), tmp_path / "run"
    nhgd.solve(nhgd.load(problem(mesh)), output=folder)
    file, whole = folder / MESH, (folder / MESH).read_bytes()
    place, line = f"{file}: ", (folder / PROBLEM).read_text().splitlines()
    number = next(k for k, text in enumerate(line, 1) if " in memory, " in text)
    expected = (
        f"{folder / PROBLEM}:{number}: mesh.mesh: expected {description(mesh)}, in the folder of this file; {place}"
    )

    def complaint() -> str:
        (sentence,) = mistakes(folder)
        assert sentence.startswith(expected), sentence
        assert sentence.endswith("(copy it from the run again, or give the mesh itself in Python)")
        return sentence.removeprefix(expected)

    file.unlink()
    assert complaint().startswith("no such file")
    file.mkdir()
    assert "cannot be read" in complaint()
    file.rmdir()
    other = mesh.translated((1.0, 0.0))
    keep_mesh(folder, arrays_of(other))
    assert complaint().startswith(f"holds {description(other)}")
    for content in (b"", whole[: len(whole) // 2], b"text", np.zeros(3).tobytes()):
        file.write_bytes(content)
        assert complaint().startswith("not a mesh that can be read")
    np.save(folder / "array.npy", np.zeros(3))
    (folder / "array.npy").replace(file)
    assert complaint().startswith("not a mesh that can be read")
    with open(file, "wb") as stream:
        np.savez(stream, layout=np.array([{"code": print}], dtype=object))
    assert complaint().startswith("not a mesh that can be read")


def test_a_byte_that_has_changed_is_found_or_changes_nothing(tmp_path: Path) -> None:
    mesh = shaken(skfem.MeshTri)
    keep_mesh(tmp_path, arrays_of(mesh))
    file, whole, found = tmp_path / MESH, (tmp_path / MESH).read_bytes(), 0
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            read = read_kept(file, mesh_of)
        except nhgd.OutputError:
            found += 1
        else:
            assert description(read) == description(mesh)
            identical(read.boundaries["größe"].ori, mesh.boundaries["größe"].ori)
    # What is left are dates and the like in the directory of the file.
    assert found > 0.6 * len(range(0, len(whole), 7))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"class": "os"}, "os"),
        ({"class": "ElementTriP1"}, "expected a mesh of scikit-fem, found ElementTriP1"),
        ({"format": 2}, "expected format 1, found 2"),
        ({"values": {"code": 1}}, "code"),
    ],
)
def test_a_layout_runs_no_code(values: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    arrays = arrays_of(named(skfem.MeshTri))
    layout = {**json.loads(arrays["layout"].tobytes()), **values}
    keep_mesh(tmp_path, {**arrays, "layout": np.frombuffer(json.dumps(layout).encode(), dtype=np.uint8)})
    with pytest.raises(nhgd.OutputError, match=f"not a mesh that can be read .*{sentence}"):
        read_kept(tmp_path / MESH, mesh_of)


def test_a_description_without_a_folder_is_one_mistake(tmp_path: Path) -> None:
    text = description(named(skfem.MeshTri))
    (sentence,) = mistakes(problem(text))
    assert "mesh.mesh: expected a scikit-fem Mesh or a meshio.Mesh, in Python, found" in sentence
    assert "load that folder" in sentence
    # Other mistakes are still found in the same round, and none follows from the mesh that is missing.
    wrong = problem(text, control={"kind": "sauce"}, pde={"kind": "poisson", "boundary": {"nowhere": {"dirichlet": 0}}})
    assert [each.partition(":")[0] for each in mistakes(wrong)] == ["mesh.mesh", "control.kind"]
    assert [each.partition(":")[0] for each in mistakes(problem({"file": 3}))] == ["mesh.file"]


def test_what_cannot_be_written_is_refused_before_the_folder_is_touched(tmp_path: Path) -> None:
    mesh = of_meshio()
    nhgd.solve(nhgd.load(problem(mesh)), output=tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    mesh.point_data["notes"] = np.array([{}] * len(mesh.points))
    assert nhgd.solve(nhgd.load(problem(mesh))).status == "converged"
    with pytest.raises(nhgd.ProblemError, match=r"mesh\.mesh: .*expected an array of numbers or texts in 'notes'"):
        nhgd.solve(nhgd.load(problem(mesh)), output=tmp_path / "run")
    assert {path: path.read_bytes() for path in before} == before


def test_the_next_run_in_a_folder_replaces_or_removes_its_mesh(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = nhgd.load(problem(named(skfem.MeshTri)))
    nhgd.solve(first, output=folder)
    written = (folder / MESH).stat().st_mtime_ns
    half = folder / f".{MESH}.0123456789ab.tmp"
    half.write_text("half")
    nhgd.solve(nhgd.load(folder), output=folder)
    assert (folder / MESH).stat().st_mtime_ns == written and not half.exists(), "the same mesh is not written again"
    nhgd.solve(nhgd.load(problem(named(skfem.MeshQuad))), output=folder)
    assert isinstance(read_kept(folder / MESH, mesh_of), skfem.MeshQuad)
    built_in = problem(
        {"kind": "rectangle", "cells": [4, 4]}, pde={"kind": "poisson", "boundary": {"left": {"dirichlet": 0}}}
    )
    nhgd.solve(nhgd.load(built_in), output=folder)
    assert not (folder / MESH).exists()
    (folder / MESH).mkdir()
    with pytest.raises(nhgd.OutputError, match=r"mesh\.npz: expected a file, found a folder"):
        nhgd.solve(first, output=folder)


def test_other_processes_read_the_mesh_of_the_folder(tmp_path: Path) -> None:
    given = nhgd.load(problem(named(skfem.MeshTri)))
    with pytest.raises(nhgd.ProblemError, match=r"mesh\.mesh: expected mesh\.file in a run of several processes"):
        nhgd.solve(given, roles=2)
    one = nhgd.solve(given, output=tmp_path / "run")
    two = nhgd.solve(nhgd.load(tmp_path / "run"), output=tmp_path / "run", roles=2)
    assert two.objective == pytest.approx(one.objective, rel=1e-12)
    # A mesh in memory in place of that of the folder is in no file.
    replaced = nhgd.load(tmp_path / "run", {"mesh.mesh": named(skfem.MeshQuad)})
    with pytest.raises(nhgd.ProblemError, match=r"mesh\.mesh: expected mesh\.file in a run of several processes"):
        nhgd.solve(replaced, roles=2)


@pytest.mark.slow
def test_a_study_of_a_folder_is_shared_by_processes(tmp_path: Path) -> None:
    nhgd.solve(nhgd.load(problem(named(skfem.MeshTri))), output=tmp_path / "run")
    weights = [1e-2, 1e-3]
    content = {"study": "s", "problem": str(tmp_path / "run" / PROBLEM), "kind": "grid"}
    content |= {"vary": {"objective.1.weight": weights}, "processes": 2}
    made = nhgd.study(content, output=tmp_path / "study")
    alone = [nhgd.solve(nhgd.load(tmp_path / "run", {"objective.1.weight": weight})) for weight in weights]
    assert [row["objective"] for row in made.rows] == pytest.approx([each.objective for each in alone], rel=1e-12)
    for row, each in zip(made.rows, alone, strict=True):
        loaded = nhgd.Solution.load(tmp_path / "study" / row["folder"])
        assert loaded.objective == pytest.approx(each.objective, rel=1e-12)


def test_periodic_sides_are_those_of_the_mesh(tmp_path: Path) -> None:
    mesh = named(skfem.MeshTri).with_boundaries({"left": lambda x: x[0] == 0, "right": lambda x: x[0] == 1})
    sides = mesh.with_boundaries({"bottom": lambda x: x[1] == 0})
    boundary = {"left": {"periodic": "right"}, "bottom": {"dirichlet": 0}}
    pde = {"kind": "poisson", "source": "y", "boundary": boundary}
    solution = nhgd.solve(nhgd.load(problem(sides, pde=pde)), output=tmp_path / "run")
    same(nhgd.Solution.load(tmp_path / "run"), solution)


def test_an_adaptive_solution_is_saved_with_its_last_mesh(tmp_path: Path) -> None:
    for folder in (None, tmp_path / "run"):
        solution = nhgd.solve(corner(), output=folder)
        solution.save(tmp_path / "saved", overwrite=True)
        if folder is not None:
            # The saved folder needs nothing of the folder of the run.
            shutil.rmtree(folder)
        found: Any = nhgd.Solution.load(tmp_path / "saved")
        same_adaptive_run(found, solution)
        assert len(solution.levels) > 2 and found.levels == solution.levels
        identical(found.state, solution.state)
        assert found.message == solution.message and found.stats["levels"] == solution.stats["levels"]
        found.save(tmp_path / "again", overwrite=True)
        assert nhgd.Solution.load(tmp_path / "again").levels == solution.levels


def test_an_adaptive_run_starts_from_a_mesh_in_memory(tmp_path: Path) -> None:
    mesh = skfem.MeshTri.init_lshaped().refined(1)
    first = {"mesh": mesh, "adapt": {"tolerance": 0.1}}
    coarse = nhgd.solve(nhgd.load({**CORNER, "mesh": first}), output=tmp_path / "run")
    same_adaptive_run(nhgd.Solution.load(tmp_path / "run"), coarse)
    # The folder of the run has the first mesh, those of its levels have theirs.
    assert [path.parent.name for path in tmp_path.rglob(MESH)] == ["run"] and (
        tmp_path / "run" / LEVELS / "02"
    ).is_dir()
    finer = nhgd.load(tmp_path / "run", {"mesh.adapt.tolerance": 0.03})
    resumed = nhgd.solve(finer, output=tmp_path / "run", resume=True)
    same_adaptive_run(resumed, nhgd.solve(nhgd.load({**CORNER, "mesh": {**first, "adapt": {"tolerance": 0.03}}})))
