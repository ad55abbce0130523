"""The command line: output, messages, exit codes, and no incomplete files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nhgd_pde.cli import main

GOOD = """\
name: small
mesh: {kind: rectangle, cells: [8, 8]}
pde:
  kind: poisson
  boundary: {all: {dirichlet: 0}}
control: {kind: source}
objective:
  - {kind: tracking, target: "sin(pi*x)*sin(pi*y)"}
  - {kind: regularisation, weight: 1.0e-4}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in a folder with problem.yaml (GOOD or the given text)."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, text: str = GOOD) -> Result:
        (tmp_path / "problem.yaml").write_text(text)
        return CliRunner().invoke(main, list(arguments))

    return invoke


def test_solve_writes_the_run_folder_and_prints_its_path(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("solve", "problem.yaml")
    assert result.exit_code == 0, result.output
    assert "small: 49 state and 81 control unknowns" in result.output
    assert "converged: relative gradient" in result.output
    folder = tmp_path / "outputs" / "small"
    assert {path.name for path in folder.iterdir()} == {
        "problem.yaml",
        "summary.json",
        "history.csv",
        "fields",
        "final.vtu",
        "paraview_state.py",
        "run.log",
        "checkpoint.pt",
        "checkpoint-before.pt",
        "figure.png",
    }
    assert json.loads((folder / "summary.json").read_text())["status"] == "converged"


def test_a_written_problem_file_solves_again_to_the_same_numbers(run: Callable[..., Result], tmp_path: Path) -> None:
    run("solve", "problem.yaml", "--set", "objective.1.weight=1e-3")
    first = json.loads((tmp_path / "outputs/small/summary.json").read_text())
    result = run("solve", "outputs/small/problem.yaml", "--output", "again")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "again/summary.json").read_text())["objective"] == first["objective"]


def test_quiet_and_verbose(run: Callable[..., Result]) -> None:
    quiet = run("solve", "problem.yaml", "-q").output.splitlines()
    verbose = run("solve", "problem.yaml", "-v").output.splitlines()
    assert len(quiet) == 3
    assert quiet[0].startswith("converged")
    assert "the mesh leaves an error of about" in quiet[1]
    assert len(verbose) > len(quiet) + 3


def test_method_adjoint(run: Callable[..., Result], tmp_path: Path) -> None:
    assert run("solve", "problem.yaml", "--method", "adjoint").exit_code == 0
    assert json.loads((tmp_path / "outputs/small/summary.json").read_text())["method"] == "adjoint"


def test_too_few_iterations_are_exit_code_one(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("solve", "problem.yaml", "--set", "outer.iterations=1")
    assert result.exit_code == 1
    assert "stopped: 1 outer iterations ended" in result.output
    assert json.loads((tmp_path / "outputs/small/summary.json").read_text())["status"] == "stopped"


def test_a_diverging_run_fails_with_a_sentence_and_keeps_its_last_good_fields(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    from nhgd_pde.output.fields import read_vtu

    result = run("solve", "problem.yaml", "--set", "outer.method=gradient", "--set", "outer.step=1e9")
    assert result.exit_code == 1
    assert "failed: the objective grew from" in result.output
    folder = tmp_path / "outputs/small"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["objective"] == summary["objective_initial"]
    _, fields = read_vtu(folder / "final.vtu")
    assert abs(fields.point["control"]).max() == 0.0


def test_check_solves_nothing(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("check", "problem.yaml")
    assert result.exit_code == 0
    assert "49 state and 81 control unknowns" in result.output
    assert "128 triangles, 81 vertices" in result.output
    assert not (tmp_path / "outputs").exists()


def test_verify_prints_a_table_and_a_verdict(run: Callable[..., Result]) -> None:
    result = run("verify", "problem.yaml")
    assert result.exit_code == 0, result.output
    assert "Taylor rate of the objective" in result.output
    assert result.output.rstrip().endswith("every derivative is right")


def test_verify_at_the_end_of_a_run(run: Callable[..., Result], tmp_path: Path) -> None:
    run("solve", "problem.yaml")
    result = run("verify", "problem.yaml", "--at", "outputs/small")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("small at the end of outputs/small (converged, ")
    assert "at most 1e-06, seen to " in result.output
    result = run("verify", "problem.yaml", "--at", "outputs/other")
    assert result.exit_code == 2
    assert "outputs/other: expected a run folder, found nothing" in result.output


def test_list_and_schema(run: Callable[..., Result]) -> None:
    assert "poisson" in run("list").output
    assert json.loads(run("schema").output)["title"] == "nhgd-pde problem"


def edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


BAD = {
    "unknown key": (edited("control:", "contrl:"), ["problem.yaml:6: contrl: ", "did you mean 'control'?"]),
    "wrong type": (edited("weight: 1.0e-4", "weight: tiny"), ["problem.yaml:9: objective.1.weight: ", "'tiny'"]),
    "missing mesh file": (
        edited("{kind: rectangle, cells: [8, 8]}", "{file: nowhere.msh}"),
        ["problem.yaml:2: mesh.file: ", "'nowhere.msh'"],
    ),
    "unreadable mesh file": (
        edited("{kind: rectangle, cells: [8, 8]}", "{file: problem.yaml}"),
        ["problem.yaml:2: mesh.file: ", "cannot be read"],
    ),
    "unknown boundary": (
        edited("{all: {dirichlet: 0}}", "{topp: {dirichlet: 0}}"),
        ["problem.yaml:5: pde.boundary.topp: ", "did you mean 'top'?", "all, bottom, left, right, top"],
    ),
    "function that is not allowed": (
        edited('"sin(pi*x)*sin(pi*y)"', '"gamma(x)"'),
        ["problem.yaml:8: objective.0.target: ", "'gamma' is not allowed"],
    ),
    "code in an expression": (
        edited('"sin(pi*x)*sin(pi*y)"', "\"__import__('os').system('touch hacked')\""),
        ["problem.yaml:8: objective.0.target: ", "only functions called by their name are allowed"],
    ),
    "negative conductivity": (
        edited("kind: poisson", "kind: poisson\n  conductivity: x - 0.5"),
        ["problem.yaml:5: pde.conductivity: ", "positive", " at ("],
    ),
    "bounds crossed": (
        edited("{kind: source}", "{kind: source, bounds: [x, 1 - x]}"),
        ["problem.yaml:6: control.bounds: ", "lower <= upper"],
    ),
    "empty control region": (
        edited("{kind: source}", "{kind: source, on: nowhere}"),
        ["problem.yaml:6: control.on: ", "unknown subdomain 'nowhere'"],
    ),
    "duplicate key": (GOOD + "name: again\n", ["problem.yaml:10: name: duplicate key"]),
    "non-finite target": (
        edited('"sin(pi*x)*sin(pi*y)"', '"log(x)"'),
        ["problem.yaml:8: objective.0.target: ", "finite", "-inf"],
    ),
    "missing file": (GOOD, []),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_message_and_exit_code_two(case: str, run: Callable[..., Result], tmp_path: Path) -> None:
    text, expected = BAD[case]
    if case == "missing file":
        result = run("solve", "other.yaml", text=text)
        expected = ["other.yaml: no such file"]
    else:
        result = run("solve", "problem.yaml", text=text)
    assert result.exit_code == 2, result.output
    for part in expected:
        assert part in result.stderr
    assert "Traceback" not in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"problem.yaml"}


def test_every_mistake_is_reported_at_once(run: Callable[..., Result]) -> None:
    text = GOOD.replace("weight: 1.0e-4", "weight: tiny").replace("name: small", "name: a/b")
    assert len(run("check", "problem.yaml", text=text).stderr.splitlines()) == 2
    two = GOOD.replace("{all: {dirichlet: 0}}", "{topp: {dirichlet: 0}}").replace("sin(pi*x)", "log(x)")
    assert len(run("check", "problem.yaml", text=two).stderr.splitlines()) == 2


def test_a_folder_that_is_not_a_run_folder_is_not_touched(run: Callable[..., Result], tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.tex").write_text("words")
    result = run("solve", "problem.yaml", "--output", "thesis")
    assert result.exit_code == 2
    assert [path.name for path in precious.iterdir()] == ["chapter.tex"]


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom nhgd_pde.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'skfem', 'meshio', 'pydantic', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "solve" in done.stdout


def test_verify_reports_a_singular_equation_as_a_failed_test(run: Callable[..., Result]) -> None:
    text = edited("{all: {dirichlet: 0}}", "{left: {robin: {coefficient: 1.0e-18, value: 0}}}")
    result = run("verify", "problem.yaml", text=text)
    assert result.exit_code == 1
    assert "FAIL hypergradient" in result.output
    assert "singular" in result.output
