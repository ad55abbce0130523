"""What an answer says of itself: its terms, its fields at points, integrals; callbacks that end a run."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib import image

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.output.fields import Grid
from nhgd_pde.output.run_folder import RunFolder
from nhgd_pde.output.sealed import read_sealed, write_sealed
from nhgd_pde.output.slices import middle_slice
from nhgd_pde.problem_file.catalogue import CONSTRAINTS, EQUATIONS, TERMS
from nhgd_pde.problem_file.objects import OBJECTS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
SMALL: dict[str, dict[str, Any]] = {
    "poisson_control": {"mesh.cells": [12, 12]},
    "sparse_control": {"mesh.cells": [12, 12]},
    "semilinear_control": {"mesh.cells": [8, 8]},
    "heat_control": {"mesh.cells": [16]},
    "heat_boundary": {},
    "stokes_control": {"mesh.cells": [6, 6]},
    "helmholtz_control": {"mesh.cells": [8, 8]},
    "state_constraint": {"mesh.cells": [12, 12]},
    "log_conductivity_inversion": {"mesh.cells": [8, 8]},
    "mbb_beam": {"outer.iterations": 4},
}


def solved(name: str, **settings: Any) -> nhgd.Solution:
    return nhgd.solve(nhgd.load(ROOT / f"problems/{name}.yaml", {**SMALL.get(name, {}), **settings}))


@pytest.mark.parametrize("name", SMALL)
def test_the_terms_add_up_to_the_objective(name: str) -> None:
    solution = solved(name)
    assert len(solution.terms) >= 1 and sum(solution.terms.values()) == pytest.approx(solution.objective, rel=1e-9)
    row = solution.history[-1]
    written = {key.removeprefix("term_"): value for key, value in row.items() if key.startswith("term_")}
    assert set(written) == set(solution.terms)
    assert sum(written.values()) == pytest.approx(float(row["objective"]), rel=1e-7)  # type: ignore[arg-type,type-var]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("robust_poisson", {"mesh.cells": [6, 6], "scenarios.count": 8}),
        ("heat_windows_fds", {}),
        ("heat_control", {"time.memory": "20 kB"}),
    ],
)
def test_where_terms_are_not_known_one_by_one_there_are_none(name: str, settings: dict[str, Any]) -> None:
    solution = solved(name, **settings)
    assert solution.terms == {} and not any(key.startswith("term_") for key in solution.history[-1])


@pytest.mark.parametrize("name", ["poisson_control", "robust_poisson", "heat_control"])
def test_an_answer_describes_itself_in_a_line(name: str) -> None:
    few: dict[str, Any] = {"scenarios.count": 8, "mesh.cells": [6, 6]} if name == "robust_poisson" else {}
    said = repr(solved(name, **few))
    assert len(said) < 160 and "\n" not in said and name in said and "converged" in said


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_fields_at_points_are_those_of_the_elements(element: str, cell: str) -> None:
    """The control between equal bounds is the constant, and the state of -Lap u = 2 a is exact in P2."""
    source: dict[str, Any] = {
        "name": "exact",
        "mesh": {"kind": "rectangle", "size": [1, 2], "cells": [5, 4], "cell": cell},
        "element": element,
        "pde": {"kind": "poisson", "source": 2, "boundary": {"left": {"dirichlet": 0},
                "right": {"dirichlet": 0}}},
        "control": {"kind": "source", "bounds": [0, 0], "space": "P0"},
        "objective": [{"kind": "tracking", "target": "x + 3*y"}, {"kind": "regularisation", "weight": 1}],
    }  # fmt: skip
    solution = nhgd.solve(nhgd.load(source))
    points = np.random.default_rng(0).uniform([0, 0], [1, 2], (50, 2))
    x = points[:, 0]
    assert solution.evaluate(points, "target") == pytest.approx(x + 3.0 * points[:, 1], abs=1e-12)
    assert solution.evaluate(points, "control") == pytest.approx(0.0, abs=1e-15)
    error = np.abs(solution.evaluate(points) - x * (1.0 - x)).max()
    assert error < (1e-12 if element == "P2" else 0.25 / 5**2 + 1e-12)
    if element == "P2":
        assert solution.integrate("state") == pytest.approx(2.0 / 6.0, rel=1e-12)
        assert solution.integrate("state**2") == pytest.approx(2.0 / 30.0, rel=1e-12)
    assert solution.integrate("x*target", on="top") == pytest.approx(1.0 / 3.0 + 3.0, rel=1e-12)
    assert solution.integrate(1.0) == pytest.approx(2.0, rel=1e-14)


def test_vectors_and_times_have_their_components_and_levels() -> None:
    flow = solved("stokes_control")
    points = np.array([[0.3, 0.4], [0.7, 0.2]])
    velocity = flow.evaluate(points, "velocity")
    assert velocity.shape == (2, 2)
    assert flow.integrate("velocity_x**2 + velocity_y**2") > 0.0
    heat = solved("heat_control")
    first, last = (heat.evaluate(points[:, 0], level=level) for level in (0, -1))
    assert not np.allclose(first, last)
    assert heat.integrate("t", level=-1) == pytest.approx(heat.times[-1] * heat.integrate("1"), rel=1e-12)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda s: s.evaluate([[2.0, 0.5]]), r"points: row 0: the point \(2, 0.5\) is outside the mesh"),
        (lambda s: s.evaluate([[0.5, 0.5, 0.5]]), r"points: expected finite coordinates of shape \(k, 2\)"),
        (lambda s: s.evaluate([[float("nan"), 0.5]]), r"points: expected finite coordinates"),
        (lambda s: s.evaluate([[0.5, 0.5]], "temperature"), r"expected one of state, control, .*found 'temperature'"),
        (lambda s: s.integrate("temperature"), r"unknown name 'temperature'"),
        (lambda s: s.integrate("1", on="lid"), r"expected a subdomain or a part of the boundary \(left, .*found 'lid'"),
    ],
)
def test_mistakes_are_told(ask: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ask(solved("poisson_control"))


def test_a_callback_ends_the_run(tmp_path: Path) -> None:
    problem = nhgd.load("problems/poisson_control.yaml", SMALL["poisson_control"])
    ended = nhgd.solve(problem, callback=lambda row: row["iteration"] == 3, output=tmp_path / "run")
    assert ended.status == "interrupted" and ended.stats["outer_iterations"] == 3
    assert ended.message.startswith("the callback ended the run; relative gradient ")
    log = (tmp_path / "run" / "run.log").read_text()
    assert log.count("interrupted") == 1 and f"interrupted: {ended.message}" in log
    asked = nhgd.solve(problem, interrupted=lambda: True)
    assert asked.message.startswith("the run was asked to end; relative gradient ")
    numpy_ended = nhgd.solve(problem, callback=lambda row: np.equal(row["iteration"], 2))
    assert numpy_ended.status == "interrupted" and numpy_ended.stats["outer_iterations"] == 2
    # What is no True, such as the None of a print or the length of a list, is no wish to stop.
    seen: list[Any] = []
    whole = nhgd.solve(problem, callback=lambda row: seen.append(row) or len(seen))
    assert whole.status == "converged" and len(seen) == len(whole.history)
    again = nhgd.solve(problem, output=tmp_path / "run", resume=True)
    assert again.status == "converged" and np.array_equal(again.control, whole.control)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_page_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "problems").symlink_to(ROOT / "problems")
    names: dict[str, Any] = {}
    exec(compile(EXAMPLES[name], f"docs/python.md: {name}", "exec"), names)
    if name == "values":
        assert names["tracking"] == pytest.approx(0.5 * names["misfit"], rel=1e-12)
        assert names["profile"].shape == (101,)
    if name == "pictures":
        assert (tmp_path / "heat.png").stat().st_size > 10_000 and names["page"].read_text().startswith(
            "<!DOCTYPE html>"
        )
    if name == "callback":
        assert names["solution"].status == "interrupted"


@pytest.mark.parametrize("name", ["poisson_control", "heat_control", "mbb_beam", "stokes_control"])
def test_the_picture_of_a_run_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    solved(name).save(folder)
    said = CliRunner().invoke(main, ["plot", str(folder)])
    assert said.exit_code == 0 and f"{folder / 'figure.png'}" in said.output
    height, width, _ = image.imread(folder / "figure.png").shape
    assert width > height > 300
    # A new run of the problem removes it, and so does one that goes on.
    solved(name).save(folder)
    assert not (folder / "figure.png").exists()
    (folder / "figure.png").write_bytes(b"old")
    RunFolder.resume(folder).close()
    assert not (folder / "figure.png").exists()


def test_what_is_no_run_has_no_picture(tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["plot", str(tmp_path / "nothing")])
    assert said.exit_code == 2 and "expected a run folder, found nothing" in said.output


@pytest.mark.parametrize("cell", ["tetrahedron", "hexahedron"])
def test_a_slice_has_the_area_and_the_values_of_its_plane(cell: str) -> None:
    source: dict[str, Any] = {
        "name": "box",
        "mesh": {"kind": "box", "size": [2, 1, 3], "cells": [3, 4, 5], "cell": cell},
        "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": "x + 10*y + 100*z"}}},
        "control": {"kind": "source", "bounds": [0, 0]},
        "objective": [{"kind": "tracking", "target": 0}, {"kind": "regularisation", "weight": 1}],
    }
    grid, data = nhgd.solve(nhgd.load(source)).fields()
    cut, where = middle_slice(grid)
    # Across the shortest axis, through the centre of a cell.
    level = float(where.removeprefix("y = "))
    assert 0.25 < level < 0.5
    a, b, c = (cut.points[cut.triangles[:, k]] for k in range(3))
    areas = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    assert areas.sum() == pytest.approx(6.0, rel=1e-12)
    # A linear state is exact on every cut edge, if no cell is curved.
    expected = cut.points[:, 0] + 10.0 * level + 100.0 * cut.points[:, 1]
    assert cut.values(data.point["state"]) == pytest.approx(expected, rel=1e-9)
    assert cut.cells.max() < len(grid.cells)


def test_a_mesh_with_a_gap_in_its_middle_has_a_slice() -> None:
    corners = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.4]])
    grid = Grid(np.concatenate([corners, corners + np.array([0.0, 0.0, 0.6])]), np.arange(8).reshape(2, 4), "tetra")
    assert len(middle_slice(grid)[0].triangles) >= 1


# Back from a run folder


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("poisson_control", {}),
        ("mbb_beam", {}),
        ("stokes_control", {}),
        ("state_constraint", {}),
        ("heat_windows_fds", {"mesh.cells": 8, "time.steps": 20}),
        ("robust_poisson", {"mesh.cells": [6, 6], "scenarios.count": 8, "scenarios.validation": 4}),
        ("minimal_surface", {"mesh.cells": [6, 6]}),
        ("poisson_network", {"outer.iterations": 1}),
        ("digits_distillation", {"outer.iterations": 1, "task.training": 100}),
    ],
)
def test_a_solution_comes_back_from_its_folder(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """To the last digit, with everything that can be asked of it; files that the problem names are found again."""
    problem = nhgd.load(ROOT / f"problems/{name}.yaml", {**SMALL.get(name, {}), **settings})
    solution = nhgd.solve(problem, output=tmp_path / "run")
    found = nhgd.Solution.load(tmp_path / "run")
    assert_same_answer(nhgd.Solution.load(solution.save(tmp_path / "saved")), found)
    assert_same_answer(nhgd.Solution.load(found.save(tmp_path / "again")), found)
    assert_same_fields(found, solution)
    for key in ("control", "gradient", "state", "adjoint"):
        assert np.array_equal(getattr(found, key, 0), getattr(solution, key, 0)), key
    same = ("status", "message", "objective", "certificate")
    assert all(getattr(found, key) == getattr(solution, key) for key in same)
    assert [row["objective"] for row in found.history] == [row["objective"] for row in solution.history]
    assert found.stats["solves"] == solution.stats["solves"]
    if isinstance(solution, nhgd.Solution) and isinstance(found, nhgd.Solution):
        assert found.terms == solution.terms
        middle = np.full((1, problem.pde.space.domain.dim), 0.5)
        first = next(iter(solution.fields()[1].point))
        assert np.array_equal(found.evaluate(middle, first), solution.evaluate(middle, first))


def assert_same_answer(saved: Any, found: Any) -> None:
    """Two answers that were loaded are equal to the last digit, in everything that can be asked of them."""
    same = ("status", "message", "objective", "certificate", "history", "complete")
    assert all(getattr(saved, key) == getattr(found, key) for key in same)
    untimed = [{**each.stats, "seconds_output": 0.0} for each in (saved, found)]
    assert untimed[0] == untimed[1]
    assert list(saved.scenario_rows()) == list(found.scenario_rows())
    for key in ("control", "gradient", "state", "adjoint", "parameters"):
        assert np.array_equal(getattr(saved, key, 0), getattr(found, key, 0)), key
    assert_same_fields(saved, found)


def assert_same_fields(one: Any, other: Any) -> None:
    """All that is written of two answers, fields and arrays, is equal to the last digit."""
    written: list[dict[str, np.ndarray]] = []
    for each in (one, other):
        frames = {"final": each.fields(), "sensors": each.sensors(), "boundary": each.boundary()}
        written.append({**each.arrays()})
        for file, (_, data) in ((file, frame) for file, frame in frames.items() if frame is not None):
            written[-1] |= {f"{file}: {name}": np.asarray(array) for name, array in {**data.point, **data.cell}.items()}
    assert written[0].keys() == written[1].keys()
    for name, array in written[0].items():
        assert np.array_equal(array, written[1][name], equal_nan=array.dtype.kind in "fc"), name


def test_a_saved_solution_is_a_run_that_others_start_from(tmp_path: Path) -> None:
    """Its control is found to the last digit; a new run in its folder leaves nothing of it."""
    problem = nhgd.load(ROOT / "problems/poisson_control.yaml", {"mesh.cells": [6, 6]})
    solution = nhgd.solve(problem)
    folder = solution.save(tmp_path / "saved")
    again = nhgd.solve(problem, initial=folder)
    assert np.array_equal(again.control, nhgd.solve(problem, initial=solution).control)
    assert nhgd.verify(problem, at=folder).passed
    with pytest.raises(nhgd.OutputError, match="expected a checkpoint to resume from"):
        nhgd.solve(problem, output=folder, resume=True)
    nhgd.solve(problem, output=folder)
    assert not (folder / "solution.pt").exists()
    assert np.array_equal(nhgd.Solution.load(folder).control, solution.control)


@pytest.mark.parametrize("damage", ["content", "problem", "iteration", "version"])
def test_a_saved_solution_that_is_not_that_of_its_folder_is_refused(damage: str, tmp_path: Path) -> None:
    settings = {"mesh.cells": [6, 6]}
    folder = nhgd.solve(nhgd.load(ROOT / "problems/poisson_control.yaml", settings)).save(tmp_path / "saved")
    path = folder / "solution.pt"
    if damage == "content":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        expected = "its checksum is not that of its content"
    elif damage == "problem":
        text = (folder / "problem.yaml").read_text()
        (folder / "problem.yaml").write_text(text.replace("1.0e-06", "1.0e-05").replace("1e-06", "1e-05"))
        expected = "was written with objective.1.weight = 1e-06, the problem has 1e-05"
    elif damage == "iteration":
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "outer_iterations": 77}))
        expected = "expected the solution of iteration 77"
    else:
        content = read_sealed(path)
        write_sealed(path, {key: value for key, value in content.items() if key != "arrays"})
        expected = "malformed, or of another version"
    with pytest.raises(nhgd.OutputError, match=expected):
        nhgd.Solution.load(folder)


def test_the_problem_of_a_run_folder_is_found_with_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "problems" / "log_conductivity_inversion.yaml"
    first = nhgd.load(path, {"mesh.cells": [6, 6]})
    nhgd.solve(first, output=tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    again = nhgd.load("run")
    assert again.file.spec.model_copy(update={"files": None}) == first.file.spec
    assert nhgd.solve(again, output="run", resume=True).status == "converged"


def test_folders_that_have_no_answer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(nhgd.OutputError, match="expected a run folder"):
        nhgd.Solution.load(tmp_path)
    folder = nhgd.solve(nhgd.load(ROOT / "problems/poisson_control.yaml", {"mesh.cells": [6, 6]})).save(
        tmp_path / "run"
    )
    (folder / "solution.pt").unlink()
    with pytest.raises(nhgd.OutputError, match="expected a checkpoint"):
        nhgd.Solution.load(folder)


# Problems made of Python objects


def test_a_problem_of_objects_is_that_of_the_file() -> None:
    made = nhgd.Problem(
        name="poisson_control",
        mesh=nhgd.Rectangle(cells=[8, 8]),
        pde=nhgd.Poisson(boundary={"all": {"dirichlet": 0}}),
        control=nhgd.SourceControl(),
        objective=[
            nhgd.Tracking(target="sin(2*pi*x)*sin(2*pi*y)"),
            nhgd.Regularisation(norm="l2", weight=1e-6),
        ],
        output={"every": 10},
    )
    read = nhgd.load(ROOT / "problems/poisson_control.yaml", {"mesh.cells": [8, 8], "output.every": 10})
    assert made.file.spec == read.file.spec
    assert nhgd.solve(made).objective == nhgd.solve(read).objective


def test_mistakes_in_objects_are_those_of_a_file() -> None:
    with pytest.raises(nhgd.ProblemError) as caught:
        nhgd.Problem(
            mesh=nhgd.Rectangle(cell=[8, 8]),
            pde=nhgd.Poisson(bondary={}),
            control=[nhgd.ParameterControl()],
            objective=[nhgd.Tracking(targt="x")],
        )
    keys = {issue.key for issue in caught.value.issues}
    assert {"mesh.cell", "pde.bondary", "objective.0.targt"} <= keys
    with pytest.raises(TypeError, match="objective"):
        nhgd.Problem(mesh=nhgd.Interval(), pde=nhgd.Poisson(), control=nhgd.SourceControl())


def test_every_kind_of_section_has_a_class_that_documents_its_keys() -> None:
    kinds = {section.kind for name in OBJECTS for section in [getattr(nhgd, name)] if section.kind is not None}
    assert {*EQUATIONS, *TERMS, *CONSTRAINTS} - {"python"} <= kinds
    for name in OBJECTS:
        section = getattr(nhgd, name)
        assert "Args:" in section.__doc__ and isinstance(section(), dict) and name in dir(nhgd)
    assert repr(nhgd.Poisson(source=1)) == "Poisson(source=1)"
    assert "(*, at=None, target=None" in str(inspect.signature(nhgd.Tracking))
