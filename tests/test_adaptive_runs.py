"""Adaptive runs: the answers on their meshes, their folders, and what becomes of them when they are cut off."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import nhgd_pde as nhgd
from benchmarks.adaptive import adaptive, order, uniform
from nhgd_pde.adaptive.level_problems import on_mesh
from nhgd_pde.cli import main
from nhgd_pde.fem.adaptive_refinement import smallest_angle
from nhgd_pde.output.names import LEVEL_MESH, LEVEL_TABLE, LEVELS, PROBLEM, SUMMARY
from nhgd_pde.output.run_folder import OutputError, read_history
from nhgd_pde.run.sharing import check_one_process

MESHES = Path(__file__).parents[1] / "meshes"
CORNER: dict[str, Any] = {
    "name": "corner",
    "mesh": {"kind": "l_shape", "refine": 1, "adapt": {"tolerance": 0.03}},
    "parts": {"core": {"cells": "x < 0 and y > 0"}, "upper": {"boundary": "y > 1 - 1e-9"}},
    "pde": {
        "kind": "poisson",
        "source": {"core": "2", "default": "1"},
        "boundary": {"all": {"dirichlet": 0}, "upper": {"neumann": "1"}},
    },
    "control": {"kind": "source"},
    "objective": [
        {"kind": "tracking", "target": "1", "on": "core"},
        {"kind": "regularisation", "norm": "l2", "weight": 1.0e-3},
    ],
    "outer": {"rtol": 1e-6},
    "output": {"every": 0, "checkpoint": 1},
}


def corner(**changes: Any) -> nhgd.Problem:
    return nhgd.load(CORNER, changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[nhgd.Solution, Path]:
    """An adaptive run that nothing has disturbed, and its folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return nhgd.solve(corner(), output=folder), folder


def same(found: nhgd.Solution, expected: nhgd.Solution) -> None:
    """The same numbers on the same meshes; times differ."""
    assert found.status == expected.status == "converged"
    assert [each.cells for each in found.levels] == [each.cells for each in expected.levels]
    assert np.array_equal(found.control, expected.control)
    assert found.objective == expected.objective
    for one, other in zip(found.levels, expected.levels, strict=True):
        assert one.objective == other.objective and one.reference == other.reference
        assert one.estimated_error == pytest.approx(other.estimated_error, rel=1e-9)


def test_the_error_falls_below_the_tolerance(whole: tuple[nhgd.Solution, Path]) -> None:
    solution, folder = whole
    errors = [each.relative_error for each in solution.levels]
    assert len(errors) > 2 and errors[-1] <= 0.03 < min(errors[:-1])
    assert "goal 3e-02" in solution.message and solution.status == "converged"
    # It is the distance to the objective on much finer meshes, up to the digits of an estimate.
    finer = nhgd.solve(nhgd.load(CORNER, {"mesh.adapt.tolerance": 3e-3}))
    for each in solution.levels:
        assert each.estimated_error == pytest.approx(finer.objective - each.objective, rel=0.6)
    angles = [each.smallest_angle for each in finer.levels]
    assert min(angles) == pytest.approx(45.0) and smallest_angle(finer.problem.space.domain) == angles[-1]
    rows = read_history(folder / LEVEL_TABLE)
    assert [row["cells"] for row in rows] == [each.cells for each in solution.levels]
    assert rows[-1]["objective"] == solution.objective == read_summary(folder)["objective"]


def read_summary(folder: Path) -> dict[str, Any]:
    import json

    content: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
    return content


def test_every_mesh_has_a_run_that_can_be_made_alone(whole: tuple[nhgd.Solution, Path]) -> None:
    solution, folder = whole
    last = folder / LEVELS / f"{len(solution.levels):02d}"
    assert (last / LEVEL_MESH).is_file()
    alone = nhgd.load(last / PROBLEM)
    domain, own = alone.pde.space.domain, solution.problem.space.domain
    assert np.array_equal(domain.mesh.p, own.mesh.p) and np.array_equal(domain.mesh.t, own.mesh.t)
    assert all(np.array_equal(domain.boundaries[name], own.boundaries[name]) for name in ("all", "upper"))
    assert np.array_equal(domain.subdomains["core"], own.subdomains["core"])
    cold = nhgd.solve(alone)
    assert cold.objective == pytest.approx(solution.objective, rel=1e-9)
    # The run on the last mesh started at the solution on the mesh before.
    assert solution.levels[-1].iterations <= cold.stats["outer_iterations"]
    first = solution.history[0]["objective"] - solution.objective
    assert first < 0.01 * (cold.history[0]["objective"] - cold.objective)


def test_states_and_controls_of_the_mesh_before_save_solves() -> None:
    equation = {"kind": "semilinear", "nonlinearity": "u**3", "source": "20", "boundary": {"all": {"dirichlet": 0}}}
    problem = corner(pde=equation, parts={}, **{"objective.0.on": None, "outer.rtol": 1e-4})
    solution = nhgd.solve(problem)
    cold = nhgd.solve(nhgd.Problem.of_file(on_mesh(problem.file, solution.problem.space.domain)))
    assert cold.objective == pytest.approx(solution.objective, rel=1e-6)
    assert solution.levels[-1].solves <= 0.8 * cold.stats["solves"]["solves"]
    assert solution.history[0]["inner_steps"] < cold.history[0]["inner_steps"]


def test_the_folder_is_that_of_any_run(whole: tuple[nhgd.Solution, Path]) -> None:
    solution, folder = whole
    recalled = nhgd.Solution.load(folder)
    assert isinstance(recalled, nhgd.Solution)
    same(recalled, solution)
    assert np.array_equal(recalled.state, solution.state)
    assert recalled.message == solution.message and recalled.stats["levels"] == read_summary(folder)["levels"]
    assert nhgd.load(folder).file.spec.mesh.adapt == corner().file.spec.mesh.adapt
    points = np.array([[-0.5, 0.5]])
    assert recalled.evaluate(points) == pytest.approx(solution.evaluate(points), rel=1e-12)
    assert solution.report(folder.parent / "page.html").stat().st_size > 1000


def test_without_a_folder_the_numbers_are_the_same(whole: tuple[nhgd.Solution, Path]) -> None:
    same(nhgd.solve(corner()), whole[0])


class Killed(BaseException):
    """Ends a run at once, as the end of its process does."""


@pytest.mark.parametrize("rows", [1, 3, 7, 12])
def test_a_run_that_is_killed_goes_on_where_it_was(
    rows: int, whole: tuple[nhgd.Solution, Path], tmp_path: Path
) -> None:
    seen = []

    def killed(row: Any) -> None:
        seen.append(row)
        if len(seen) == rows:
            raise Killed

    with pytest.raises(Killed):
        nhgd.solve(corner(), killed, tmp_path / "run")
    ended = {path.parent: read_summary(path.parent)["seconds"] for path in tmp_path.rglob(f"{LEVELS}/*/{SUMMARY}")}
    same(nhgd.solve(corner(), output=tmp_path / "run", resume=True), whole[0])
    # Runs that had ended have not been made again.
    assert all(read_summary(folder)["seconds"] == seconds for folder, seconds in ended.items())


@pytest.mark.parametrize("notes", [1, 2, 3, 4])
def test_a_run_that_is_killed_between_two_meshes_goes_on(
    notes: int, whole: tuple[nhgd.Solution, Path], tmp_path: Path
) -> None:
    seen = []

    def killed(sentence: str) -> None:
        seen.append(sentence)
        if len(seen) == notes:
            raise Killed

    with pytest.raises(Killed):
        nhgd.solve(corner(), output=tmp_path / "run", note=killed)
    same(nhgd.solve(corner(), output=tmp_path / "run", resume=True), whole[0])


def test_an_interrupted_run_can_be_resumed(whole: tuple[nhgd.Solution, Path], tmp_path: Path) -> None:
    rows = []

    def enough(row: Any) -> bool:
        rows.append(row)
        return len(rows) >= 13

    solution = nhgd.solve(corner(), enough, tmp_path / "run")
    assert solution.status == "interrupted" and 1 < len(solution.levels) < len(whole[0].levels)
    assert solution.levels[-1].estimated_error is None and read_summary(tmp_path / "run")["status"] == "interrupted"
    same(nhgd.solve(corner(), output=tmp_path / "run", resume=True), whole[0])


def test_a_smaller_tolerance_goes_on_with_the_meshes_there_are(tmp_path: Path) -> None:
    first = nhgd.solve(corner(**{"mesh.adapt.tolerance": 0.1}), output=tmp_path / "run")
    more = nhgd.solve(corner(), output=tmp_path / "run", resume=True)
    assert more.levels[: len(first.levels) - 1] == first.levels[:-1] and len(more.levels) > len(first.levels)
    with pytest.raises(OutputError, match=r"another problem: it has objective\.1\.weight = 0\.001, not 0\.1"):
        nhgd.solve(corner(**{"objective.1.weight": 0.1}), output=tmp_path / "run", resume=True)
    # A new run clears what the one before has written.
    plain = nhgd.load({**CORNER, "mesh": {"kind": "l_shape", "refine": 1}})
    nhgd.solve(plain, output=tmp_path / "run")
    assert not (tmp_path / "run" / LEVELS).exists() and not (tmp_path / "run" / LEVEL_TABLE).exists()
    with pytest.raises(OutputError, match=r"expected the run of a mesh|another problem"):
        nhgd.solve(corner(), output=tmp_path / "run", resume=True)


def test_a_run_ends_where_its_cells_do() -> None:
    solution = nhgd.solve(corner(**{"mesh.adapt": {"tolerance": 1e-6, "cells": 100}}))
    assert solution.status == "stopped" and solution.levels[-1].cells <= 100
    assert "more than mesh.adapt.cells = 100" in solution.message


def test_a_run_that_does_not_converge_is_not_refined() -> None:
    solution = nhgd.solve(corner(**{"outer.iterations": 1}))
    assert solution.status == "stopped" and len(solution.levels) == 1
    assert "the mesh is not refined, as the run on it has not converged" in solution.message


def test_maximum_marks_too() -> None:
    solution = nhgd.solve(corner(**{"mesh.adapt.marking": "maximum", "mesh.adapt.fraction": 0.3}))
    assert solution.status == "converged" and solution.levels[-1].relative_error <= 0.03


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize("kind", ["interval", "disk", "box", "file"])
def test_every_mesh_of_simplices_is_refined(kind: str, element: str, tmp_path: Path) -> None:
    cells = {"interval": 20, "disk": 250, "box": 400, "file": 4000}[kind]
    first = {"interval": {"cells": 4}, "disk": {"refine": 1}, "box": {"cells": [2, 2, 2]}, "file": {}}[kind]
    mesh = {"kind": kind, **first} if first else {"file": str(MESHES / "plate.msh")}
    problem = nhgd.load(
        {
            "name": "kinds",
            "mesh": {**mesh, "adapt": {"tolerance": 1e-9, "cells": cells}},
            "element": element,
            "pde": {"kind": "poisson", "source": "exp(-20*(x-0.3)**2)", "boundary": {"all": {"dirichlet": 0}}},
            "control": {"kind": "source", "bounds": [-1, 1]},
            "objective": [
                {"kind": "tracking", "target": "x"},
                {"kind": "regularisation", "norm": "l2", "weight": 1.0e-3},
            ],
            "outer": {"rtol": 1e-8},
            "output": {"every": 0},
        }
    )
    solution = nhgd.solve(problem, output=tmp_path / "run")
    sizes = [each.contributions or math.inf for each in solution.levels]
    assert len(sizes) > 1 and sizes[-1] < sizes[0]
    last = nhgd.solve(nhgd.load(tmp_path / "run" / LEVELS / f"{len(sizes):02d}"))
    assert last.objective == pytest.approx(solution.objective, rel=1e-7)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pde.kind": "heat", "time": {"end": 1, "steps": 2}}, "time: with mesh.adapt expected a steady problem"),
        ({"parameters": {"z": {"normal": [0, 1]}}}, "parameters: with mesh.adapt expected no random inputs"),
        ({"state": {"kind": "network", "layers": [8]}}, "state: with mesh.adapt expected no network"),
        ({"constraints": [{"kind": "state", "upper": 1}]}, "constraints: with mesh.adapt expected no bounds"),
        ({"method": "hpm"}, "method: with mesh.adapt expected a method that starts from one control"),
        ({"mesh.adapt.fraction": 1.5}, "mesh.adapt.fraction: expected a number above 0 and below 1"),
        ({"mesh.adapt.marking": "all"}, "mesh.adapt.marking: expected one of doerfler, maximum"),
    ],
)
def test_what_cannot_be_adapted_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(nhgd.ProblemError, match=sentence):
        corner(**changes)


def test_one_process_makes_the_meshes() -> None:
    with pytest.raises(nhgd.ProblemError, match=r"mesh\.adapt: expected none in a run of two roles"):
        nhgd.solve(corner(), roles=2)
    with pytest.raises(nhgd.ProblemError, match=r"mesh\.adapt: expected none in a run of 3 ranks"):
        check_one_process(corner().file, 1, 3)


def test_the_command_line_shows_the_meshes(tmp_path: Path) -> None:
    path = tmp_path / "corner.yaml"
    path.write_text(corner(**{"mesh.adapt.tolerance": 0.1}).yaml())
    checked = CliRunner().invoke(main, ["check", str(path)])
    assert "the mesh is refined until the estimated error of the objective is below 1e-01 of it" in checked.output
    done = CliRunner().invoke(main, ["solve", str(path), "--output", str(tmp_path / "run"), "--no-figure"])
    assert done.exit_code == 0, done.output
    assert done.output.count(" iter ") == done.output.count("mesh 1 of") + 2
    lines = done.output.splitlines()
    heading = next(k for k, line in enumerate(lines) if line.split()[:3] == ["mesh", "cells", "unknowns"])
    levels = nhgd.Solution.load(tmp_path / "run").levels  # type: ignore[attr-defined]
    assert [line.split()[1] for line in lines[heading + 1 : heading + 1 + len(levels)]] == [
        f"{each.cells:,}" for each in levels
    ]


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[1]
    text = (root / "docs" / "adaptive_meshes.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "problems").symlink_to(root / "problems")
    exec(compile(code, "adaptive_meshes.md", "exec"), {})


@pytest.mark.slow
def test_adaptive_meshes_have_the_order_that_uniform_ones_lose_in_a_corner() -> None:
    adapted, halved = list(adaptive(1e-4)), list(uniform(range(3, 8)))
    assert order(adapted[-6:]) < -0.9
    assert -0.75 < order(halved[-3:]) < -0.6
    # The estimate does not promise too much: it has three times the digits of the tolerance in sight.
    last = adapted[-1]
    assert last.error < 1.5e-4
    # Uniform meshes with five times the unknowns of the first one with such an error are far from it.
    first = next(each for each in adapted if each.error < 1.5e-3)
    assert halved[-1].unknowns > 5 * first.unknowns and halved[-1].error > first.error
