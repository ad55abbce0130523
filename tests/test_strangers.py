"""Problem files of strangers: their code is announced, can be left out, and does not change the process."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.problem_file.expressions import Expression, ExpressionError

ROOT = Path(__file__).parents[1]
CODE = (ROOT / "problems/minimal_surface.py").read_text()
FILE = (ROOT / "problems/minimal_surface.yaml").read_text().replace("[32, 32]", "[4, 4]")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(FILE)
    (tmp_path / "minimal_surface.py").write_text(CODE)
    return tmp_path


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments], catch_exceptions=False)


def test_code_is_announced_before_it_is_run(folder: Path) -> None:
    (folder / "minimal_surface.py").write_text(CODE + "\nimport sys\nprint('it runs', file=sys.stderr)\n")
    result = check("p.yaml")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("this problem runs code of minimal_surface.py\nit runs\n")
    assert result.stderr.count("this problem runs") == 1


def test_code_in_other_folders_is_announced_with_its_full_path(folder: Path) -> None:
    below = folder / "below"
    below.mkdir()
    (below / "p.yaml").write_text(FILE)
    assert f"this problem runs code of {folder.resolve() / 'minimal_surface.py'}\n" in check("below/p.yaml").stderr


def test_the_library_logs_that_code_is_run(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "nhgd_pde.code"):
        nhgd.load("p.yaml")
    assert caplog.messages[0] == "this problem runs code of minimal_surface.py"


def test_check_without_code_runs_none(folder: Path) -> None:
    (folder / "minimal_surface.py").write_text(CODE + "\nopen('trace', 'w').close()\n")
    result = check("p.yaml", "--no-code")
    assert result.exit_code == 0, result.output
    assert not (folder / "trace").exists()
    assert "9 state and 25 control unknowns" in result.stdout
    for key in ("pde.python", "control.python", "objective.1.python"):
        assert f"not run: {key} minimal_surface.py:" in result.stdout
    assert "this problem runs" not in result.stderr


def test_check_without_code_finds_the_other_mistakes(folder: Path) -> None:
    (folder / "p.yaml").write_text(FILE.replace("all: {dirichlet", "nowhere: {dirichlet"))
    result = check("p.yaml", "--no-code")
    assert result.exit_code == 2
    assert "unknown boundary 'nowhere'" in result.stderr


@pytest.mark.parametrize(
    ("pde", "source"),
    [("kind: poisson, conductivity: d", "0"), ("kind: elasticity, poisson_ratio: d, young: d", "[0, 0]")],
)
def test_check_without_code_takes_data_in_the_range_of_their_place(tmp_path: Path, pde: str, source: str) -> None:
    (tmp_path / "p.yaml").write_text(
        f"name: p\nmesh: {{kind: rectangle, cells: 4}}\ndata: {{d: {{python: 'mine.py:f'}}}}\n"
        f"pde: {{{pde}, source: {source}, boundary: {{left: {{dirichlet: {source}}}}}}}\ncontrol: {{kind: source}}\n"
        f"objective: [{{kind: tracking, target: {source}}}, {{kind: regularisation, weight: 1}}]\n"
    )
    result = check(str(tmp_path / "p.yaml"), "--no-code")
    assert result.exit_code == 0, result.output
    assert "not run: data.d.python mine.py:f (which is not there)" in result.stdout
    (tmp_path / "p.yaml").write_text((tmp_path / "p.yaml").read_text().replace("left", "lft"))
    result = check(str(tmp_path / "p.yaml"), "--no-code")
    assert "unknown boundary 'lft'" in result.stderr and "expected a p" not in result.stderr


def test_check_without_code_reports_a_problem_without_code() -> None:
    result = check(str(ROOT / "problems/heat_control.yaml"), "--no-code")
    assert result.exit_code == 0
    assert "the problem names no code" in result.stdout


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("raise SystemExit(3)", "minimal_surface.py cannot be imported: SystemExit: 3"),
        ("import sys; sys.exit()", "minimal_surface.py cannot be imported: SystemExit"),
        ("raise KeyboardInterrupt", "minimal_surface.py was interrupted while it was imported"),
        ("1/0", "minimal_surface.py cannot be imported: ZeroDivisionError: division by zero"),
        ("def f(:", "minimal_surface.py cannot be imported: SyntaxError"),
        ("def f(): f()\nf()", "minimal_surface.py cannot be imported: RecursionError"),
        ("def soap_film(u, grad, c, x): raise SystemExit(4)", "would end the process (SystemExit: 4)"),
        ("def area(u, grad, v, x): raise SystemExit(4)", "would end the process (SystemExit: 4)"),
        ("def actuator(c, v): raise SystemExit(4)", "would end the process (SystemExit: 4)"),
    ],
)
def test_code_that_exits_the_process_is_reported_in_a_sentence(folder: Path, line: str, sentence: str) -> None:
    (folder / "minimal_surface.py").write_text(f"{CODE}\n{line}\n")
    result = check("p.yaml")
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_settings_that_an_import_changes_are_restored(folder: Path) -> None:
    odd = "import os, sys, warnings, numpy, torch\nos.chdir('/')\nsys.stdout = None\nnumpy.seterr(all='raise')\n"
    odd += "torch.set_default_dtype(torch.float32)\nwarnings.simplefilter('ignore')\n"
    (folder / "minimal_surface.py").write_text(odd + CODE)
    before = sys.stdout, np.geterr(), torch.get_default_dtype(), list(warnings.filters), os.getcwd()
    nhgd.load("p.yaml")
    assert (sys.stdout, np.geterr(), torch.get_default_dtype(), list(warnings.filters), os.getcwd()) == before


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__[0]",
        "x.__class__",
        "[x for x in range(10)]",
        "lambda: 1",
        "'x'*10**9",
        "9**9**9**9",
        "x**(2**40)",
        "(" * 900 + "x" + ")" * 900,
        "-" * 1900 + "x",
        "x" + "**x" * 600,
        "sin(" * 300 + "x" + ")" * 300,
        "f'{x}'",
        "x if x else 1",
        "eval('x')",
        "open('/etc/passwd')",
        "1" * 1999,
        "1e999*x",
        "x.real",
        "(y := x)",
    ],
)
def test_expressions_run_no_code(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert len(str(caught.value)) < 1000
