"""Pages that are followed from the top to the bottom in one folder: files, commands and Python, in their order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import nhgd_pde as nhgd
from nhgd_pde.cli import main

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"<!-- (file|command|python)(?: (\S+))? -->\n```\w+\n(.*?)```", re.DOTALL)


def followed(page: str) -> list[str]:
    """Runs the blocks of a page in the current folder; returns the output of its commands."""
    outputs = []
    names: dict[str, object] = {}
    for kind, name, text in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if kind == "file":
            Path(name).write_text(text, encoding="utf-8")
        elif kind == "python":
            exec(compile(text, page, "exec"), names)
        else:
            for line in text.strip().splitlines():
                program, *arguments = shlex.split(line)
                assert program == "nhgd-pde"
                done = CliRunner().invoke(main, arguments)
                assert done.exit_code == 0, f"{line}\n{done.output}"
                outputs.append(done.output)
    return outputs


@pytest.mark.parametrize("page", ["own_data.md", "time_control.md"])
def test_every_block_of_a_tutorial_is_run(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == text.count("```") // 2


def test_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plate, fine, thermometers = followed("own_data.md")
    assert "converged" in plate and "converged" in thermometers
    # The finer mesh starts near its optimum.
    last = [line for line in plate.splitlines() if re.match(r" +\d+ ", line)][-1]
    assert float(fine.splitlines()[2].split()[1]) < 1.1 * float(last.split()[1])
    assert "k_left = " in thermometers and Path("outputs/thermometers/sensors.vtu").exists()


def test_time_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, first, second, finer, small = followed("time_control.md")
    assert "evolution/evolution.pvd" in first and "converged" in second and "converged" in finer
    # With less memory the numbers are the same.
    objectives = [re.findall(r"objective (\S+),", text)[-1] for text in (first, small)]
    assert float(objectives[1]) == pytest.approx(float(objectives[0]), rel=1e-7)
    assert nhgd.Solution.load("outputs/small_memory").times.tolist() == [1.0]
