"""The page docs/twelve_tasks.md: its blocks are short, run beside `problems/`, and do what their sentences say."""

from __future__ import annotations

import ast
import csv
import math
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.output.run_folder import read_history

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "twelve_tasks.md").read_text(encoding="utf-8")
BLOCKS = {
    name: (language, text)
    for name, language, text in re.findall(r"<!-- task (\w+) -->\n```(\w+)\n(.*?)```", PAGE, re.DOTALL)
}


class Outcome:
    """What a block has left: its names, its output, and the value of its last line if that is an expression."""

    def __init__(self, names: dict[str, Any], output: str, shown: Any = None) -> None:
        self.names, self.output, self.shown = names, output, shown

    def __getitem__(self, name: str) -> Any:
        return self.names[name]


def run_python(text: str, capsys: pytest.CaptureFixture[str]) -> Outcome:
    tree = ast.parse(text)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    names: dict[str, Any] = {}
    exec(compile(tree, "docs/twelve_tasks.md", "exec"), names)
    shown = None
    if last is not None:
        shown = eval(compile(ast.Expression(last.value), "docs/twelve_tasks.md", "eval"), names)
    return Outcome(names, capsys.readouterr().out, shown)


def run_shell(text: str) -> Outcome:
    """The output of a block: its lines of nhgd-pde are run in this process, those between them by the shell."""
    output = ""
    for part in re.split(r"^(nhgd-pde .*\n)", text, flags=re.MULTILINE):
        if part.startswith("nhgd-pde "):
            told = CliRunner().invoke(main, shlex.split(part)[1:])
            assert told.exit_code == 0, told.output
            output += told.output
        elif part.strip():
            done = subprocess.run(["bash", "-ec", part], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            output += done.stdout
    return Outcome({}, output)


def l_curve(done: Outcome) -> None:
    # At the corner the error of the conductivity, whose true value is known, is about the least of all weights.
    study, errors = done["study"], {}
    for row in study.rows:
        found = nhgd.Solution.load(study.folder / row["folder"])
        error = found.integrate("(exp(control) - 2 - 7*((x - 0.5)**2 + (y - 0.5)**2 > 0.04))**2")
        errors[row["objective.1.weight"]] = math.sqrt(error)
    nearest = min(errors, key=lambda weight: abs(math.log(weight / done["weight"])))
    assert errors[nearest] < 1.05 * min(errors.values()) and errors[nearest] < 0.7 * max(errors.values())
    assert f"{done['weight']:.1e}" in done.output and Path("outputs/l_curve/figure.png").stat().st_size > 5000


def warm_start(done: Outcome) -> None:
    warm, cold = done["warm"], done["cold"]
    assert warm.status == cold.status == "converged"
    assert warm.objective == pytest.approx(cold.objective, rel=1e-8)
    assert len(warm.history) < len(cold.history)


def arrays(done: Outcome) -> None:
    # The target between 400 points is that of the formula up to the error of linear interpolation.
    line, state = done["line"], done["state"]
    exact = 0.25 * np.sin(np.pi * line[:, 0])
    assert np.abs(state - exact).max() < 0.05 * exact.max() and state.shape == done["control"].shape == (11,)
    laplace = (np.pi**2 * 0.25 + 2) * np.sin(np.pi * line[5, 0])
    assert done["control"][5] == pytest.approx(laplace, rel=0.5)


def image(done: Outcome) -> None:
    inside, outside = done["solution"].evaluate([[0.5, 0.5], [0.5, 0.1]])
    assert abs(inside - 1) < 0.3 and abs(outside) < 0.3
    with Image.open("bar_reached.png") as picture:
        assert min(picture.size) > 300


def parts(done: Outcome) -> None:
    solution = nhgd.Solution.load("outputs/core")
    assert solution.status == "converged" and "core" in done.output and "cold" in done.output
    inside = solution.integrate("1", on="core")
    assert inside == pytest.approx(0.06 * np.pi, rel=0.1)
    assert solution.integrate("state", on="core") / inside == pytest.approx(1, abs=0.02)
    assert solution.integrate("state**2", on="cold") == pytest.approx(0, abs=1e-20)


def callback(done: Outcome) -> None:
    solution = done["solution"]
    values = [row["term_tracking"] for row in solution.history]
    assert solution.status == "interrupted" and values[-1] < 1e-4 and min(values[:-1]) >= 1e-4


def notebook(done: Outcome) -> None:
    page = done.shown._repr_html_()
    assert "tracking" in page and 'src="data:image/png;base64,' in page
    assert "converged" in done.output and "<" in done["problem"]._repr_html_()


def scipy(done: Outcome) -> None:
    ours = nhgd.solve(done["problem"]).objective
    assert done["found"].fun == pytest.approx(ours, rel=1e-7)


def sensors(done: Outcome) -> None:
    # The readings are those of the series of u_t - k u_xx = 1, u(0, t) = 0, u_x(1, t) = 0, u(x, 0) = 0 for k = 0.3.
    x, t, value = np.loadtxt("readings.csv", delimiter=",", skiprows=1).T
    roots = (np.arange(1000)[:, None] + 0.5) * np.pi
    series = 2 / (0.3 * roots**3) * (1 - np.exp(-0.3 * roots**2 * t)) * np.sin(roots * x)
    assert value == pytest.approx(series.sum(0), abs=1e-4) and len(set(t)) == 3 and len(set(x)) == 2
    solution = nhgd.Solution.load("outputs/rod")
    assert solution.status == "converged"
    assert float(solution.controls["k"].item()) == pytest.approx(0.3, rel=0.003)


def study(done: Outcome) -> None:
    with open("outputs/sweep/table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and {row["status"] for row in rows} == {"converged"}
    assert {(row["objective.1.weight"][:4], row["element"]) for row in rows} == {
        (weight, element) for weight in ("1e-0", "3.16", "0.00") for element in ("P1", "P2")
    }
    for element in ("P1", "P2"):
        misfits = [float(row["term_tracking"]) for row in rows if row["element"] == element]
        assert misfits == sorted(misfits)


def report(done: Outcome) -> None:
    page = Path("outputs/small/report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html") and page.rstrip().endswith("</html>")
    objective = read_history(Path("outputs/small"))[-1]["objective"]
    assert f"{objective:.3e}"[:4] in page and not re.search(r'(?:src|href)="(?:https?:|/)', page)


def stl(done: Outcome) -> None:
    import meshio

    surface = meshio.read("outputs/beam/density.stl")
    triangles = surface.points[surface.cells_dict["triangle"]]
    _, inverse = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    corners = inverse.reshape(-1, 3)
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    assert set(np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)[1]) == {2}
    volume = np.einsum("ij,ij->i", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2])).sum() / 6
    assert volume == pytest.approx(0.5 * 60 * 20 * 5, rel=0.1)


CHECKS: dict[str, Callable[[Outcome], None]] = {
    each.__name__: each
    for each in (
        l_curve, warm_start, arrays, image, parts, callback, notebook, scipy, sensors, study, report, stl,
    )
}  # fmt: skip


def test_the_page_has_twelve_short_tasks() -> None:
    assert list(BLOCKS) == list(CHECKS) and len(BLOCKS) == 12
    assert len(re.findall(r"^```\w+$", PAGE, re.MULTILINE)) == 12
    for name, (_, text) in BLOCKS.items():
        assert len(text.splitlines()) <= 15, name


@pytest.mark.parametrize("name", CHECKS)
def test_a_task_of_the_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "problems").symlink_to(ROOT / "problems")
    monkeypatch.chdir(tmp_path)
    language, text = BLOCKS[name]
    assert language in ("python", "sh")
    CHECKS[name](run_python(text, capsys) if language == "python" else run_shell(text))
