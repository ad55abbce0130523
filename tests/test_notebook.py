"""The notebook docs/notebook.ipynb: its format, and every cell in turn."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import nhgd_pde as nhgd

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run_cell(text: str, names: dict[str, Any]) -> Any:
    """Runs a cell as Jupyter does; returns the value of its last line if that is an expression."""
    tree = ast.parse(text)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "docs/notebook.ipynb", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "docs/notebook.ipynb", "eval"), names)


def test_the_notebook_has_the_format_of_jupyter_and_no_outputs() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert set(NOTEBOOK) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in NOTEBOOK["cells"]:
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            assert set(cell) == {"cell_type", "id", "metadata", "source", "outputs", "execution_count"}
        else:
            assert cell["cell_type"] == "markdown" and set(cell) == {"cell_type", "id", "metadata", "source"}


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # Jupyter runs a notebook in the folder that it is in.
    (tmp_path / "docs").mkdir()
    (tmp_path / "problems").symlink_to(ROOT / "problems")
    monkeypatch.chdir(tmp_path / "docs")
    names: dict[str, Any] = {}
    shown = [value for value in (run_cell(text, names) for text in CELLS) if value is not None]
    output = capsys.readouterr().out
    problem_view, answer_view = (each._repr_html_() for each in shown if hasattr(each, "_repr_html_"))
    assert "tracking" in problem_view and "data:image/png;base64," in answer_view and "converged" in answer_view
    assert "|gradient|" in output  # the table of `progress=True`

    first, second = names["solution"], names["second"]
    assert first.status == second.status == "converged"
    assert first.integrate("0.5*(state - sin(2*pi*x)*sin(2*pi*y))**2") == pytest.approx(
        first.terms["tracking"], rel=1e-9
    )
    assert second.terms["tracking"] < 0.3 * first.terms["tracking"]
    assert Path("first_control.png").stat().st_size > 10_000
    assert names["page"].read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert isinstance(names["again"], nhgd.Solution) and names["again"].objective == second.objective
