from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import nhgd_pde as nhgd
from nhgd_pde.linalg.stage_log import stage, stages_heard
from nhgd_pde.output.progress import Progress, format_row, header
from nhgd_pde.output.remaining_time import Outlook, duration
from nhgd_pde.output.start_line import StartLine

TITLE = "poisson_control: 3,969 state and 4,225 control unknowns; mesh [64, 64]; cpu, 2 threads"


def record(iteration: int) -> dict[str, object]:
    return {
        "iteration": iteration,
        "objective": 0.12346,
        "gradient_norm": 1.3e-3,
        "state_residual": 0.0,
        "adjoint_residual": 2e-15,
        "solves": 2 + iteration,
        "seconds": 0.1 + iteration,
    }


def shown(count: int, mode: str = "normal") -> list[str]:
    stream = io.StringIO()
    with Progress(stream, mode) as progress:  # type: ignore[arg-type]
        progress.start(TITLE)
        for iteration in range(count):
            progress.iteration(record(iteration))
        progress.finish("converged")
    return stream.getvalue().splitlines()


def iterations(lines: list[str]) -> list[int]:
    return [int(line.split()[0]) for line in lines if re.match(r" *\d+ ", line)]


def test_plain_output() -> None:
    assert shown(2) == [
        TITLE,
        " iter    objective   |gradient|  state err  adjoint err  solves    time",
        "    0   1.2346e-01      1.3e-03          0        2e-15       2   0.1 s",
        "    1   1.2346e-01      1.3e-03          0        2e-15       3   1.1 s",
        "converged",
    ]
    assert shown(0) == [TITLE, "converged"]


def test_quiet_shows_only_the_message() -> None:
    assert shown(5, "quiet") == ["converged"]


def test_verbose_shows_every_row() -> None:
    assert iterations(shown(300, "verbose")) == list(range(300))


@pytest.mark.parametrize("count", [1, 2, 11, 12, 40, 200, 1000, 5001, 30_000])
def test_a_long_plain_run_is_thinned_to_about_forty_lines(count: int) -> None:
    lines = shown(count)
    found = iterations(lines)
    assert len(lines) <= 44
    assert lines.count(header()) == 1
    assert (found[0], found[-1]) == (0, count - 1)
    assert found == sorted(set(found))
    assert found[:11] == list(range(min(count, 11)))


def test_rows_appear_during_the_run() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.start(TITLE)
    progress.iteration(record(0))
    assert len(stream.getvalue().splitlines()) == 3


EXTREMES = [
    {},
    {"iteration": 99_999, "solves": 1_234_567, "seconds": 99_999},
    {"iteration": 100_000, "solves": 12_345_678, "seconds": 1e6},
    {"iteration": 2**63, "solves": 2**63, "seconds": 1e12},
    {"objective": -1.7976931348623157e308, "gradient_norm": 5e-324, "state_residual": 1e300},
    {
        "objective": float("nan"),
        "gradient_norm": float("-inf"),
        "solves": float("nan"),
        "seconds": float("inf"),
    },
    {"objective": 0, "gradient_norm": 0, "adjoint_residual": -1e-300, "seconds": 99.96},
    {"objective": np.float32(1.5), "iteration": np.int64(3), "state_residual": None},
]


@pytest.mark.parametrize("values", EXTREMES)
def test_columns_are_aligned_for_values_of_any_size(values: dict[str, object]) -> None:
    line = format_row(values)
    assert len(line) == len(header())
    assert len(line.split()) - line.count(" s") - line.count(" h") == 7, "columns have run together"
    for end in (match.end() for match in re.finditer(r"(state err|adjoint err|[^ ]+(?<!err)(?= |$))", header())):
        if header()[:end].endswith(("state", "adjoint")):
            continue
        assert line[end - 1] != " "
        assert line[end : end + 1] in (" ", "")


def test_missing_values_are_dashes() -> None:
    assert format_row({"iteration": 3, "objective": None}).split() == ["3", "-", "-", "-", "-", "-", "-"]


def test_a_column_counts_scenarios_if_there_are_any() -> None:
    stream = io.StringIO()
    counts = [{"scenarios": 0, "coarse_scenarios": 32}, {"scenarios": 16, "coarse_scenarios": 128}, {"scenarios": 128}]
    with Progress(stream) as progress:
        progress.start(TITLE)
        for iteration, more in enumerate([{"scenarios": 0}, *counts]):
            progress.iteration({**record(iteration), **more})
    lines = stream.getvalue().splitlines()[1:]
    assert lines[0].endswith("time  scenarios + coarse")
    assert [line.partition(" s ")[2].strip() for line in lines[1:5]] == ["0", "0 + 32", "16 + 128", "128"]
    assert {len(line) for line in lines[:5]} == {len(lines[0])}


def test_a_row_that_was_left_out_is_shown_when_the_run_fails() -> None:
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError), Progress(stream) as progress:
        progress.start(TITLE)
        for iteration in range(100):
            progress.iteration(record(iteration))
            1 / (33 - iteration)
    assert iterations(stream.getvalue().splitlines())[-2:] == [30, 33]
    progress.finish("failed")
    assert stream.getvalue().endswith("failed\n")
    assert iterations(stream.getvalue().splitlines()).count(33) == 1


def test_one_progress_object_shows_several_runs() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:
        for name in ("first", "second"):
            progress.start(name)
            for iteration in range(13):
                progress.iteration(record(iteration))
            progress.finish(f"{name} done")
    lines = stream.getvalue().splitlines()
    assert lines.count(header()) == 2
    assert iterations(lines) == [*range(11), 12] * 2


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="expected quiet, normal or verbose, found 'loud'"):
        Progress(io.StringIO(), "loud")  # type: ignore[arg-type]


def test_a_pipe_is_not_a_terminal_even_if_colour_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in "".join(shown(20))


def terminal(height: int = 40, width: int = 100) -> tuple[io.StringIO, Console]:
    stream = io.StringIO()
    return stream, Console(file=stream, force_terminal=True, height=height, width=width, _environ={"TERM": "xterm"})


def screen(output: str) -> list[str]:
    """The lines a terminal shows after `output`, from the control sequences that the live table uses."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", output):
        if token == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token == "\x1b[1A":
            row -= 1
            assert row >= 0
        elif not token.startswith(("\x1b", "\r")):
            lines[row] = token
    return [line.rstrip() for line in lines]


def test_a_terminal_ends_with_the_first_row_and_the_last_twenty() -> None:
    stream, console = terminal()
    with Progress(console) as progress:
        progress.start(TITLE)
        for iteration in range(50):
            progress.iteration(record(iteration))
        progress.finish("converged")
    lines = screen(stream.getvalue())
    assert lines[:2] == [TITLE, header()]
    assert iterations(lines) == [0, *range(30, 50)]
    assert lines[3].strip() == "..."
    assert lines[-2:] == ["converged", ""]


def test_a_short_run_on_a_terminal_has_every_row_and_no_gap() -> None:
    stream, console = terminal()
    with Progress(console) as progress:
        progress.start(TITLE)
        for iteration in range(21):
            progress.iteration(record(iteration))
        progress.finish("converged")
    lines = screen(stream.getvalue())
    assert iterations(lines) == list(range(21))
    assert len(lines) == 21 + 4


def test_a_table_fits_a_small_terminal() -> None:
    stream, console = terminal(height=10, width=40)
    with Progress(console) as progress:
        progress.start("title")
        for iteration in range(30):
            progress.iteration(record(iteration))
            progress._refreshed = -1.0  # Every row is drawn.
        progress.finish("converged")
    lines = screen(stream.getvalue())
    assert lines[:2] == ["title", header()[:40].rstrip()]
    assert iterations(lines) == [0, *range(24, 30)]
    assert max(map(len, lines)) <= 40


def test_a_terminal_is_drawn_at_most_eight_times_a_second() -> None:
    stream, console = terminal()
    started = time.monotonic()
    with Progress(console) as progress:
        progress.start(TITLE)
        for iteration in range(3000):
            progress.iteration(record(iteration))
        elapsed = time.monotonic() - started
        progress.finish("converged")
    assert stream.getvalue().count(header()) <= 8 * elapsed + 2


def test_the_terminal_is_restored_after_an_exception() -> None:
    stream, console = terminal()
    with pytest.raises(KeyboardInterrupt), Progress(console) as progress:
        progress.start(TITLE)
        progress.iteration(record(0))
        progress.iteration(record(1))
        assert stream.getvalue().rfind("\x1b[?25l") > stream.getvalue().rfind("\x1b[?25h")
        raise KeyboardInterrupt
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l") >= 0
    assert iterations(screen(stream.getvalue())) == [0, 1]


CHILD = """
import sys
from nhgd_pde.output.progress import Progress
with Progress(sys.stderr) as progress:
    progress.start("title")
    for iteration in range(3):
        progress.iteration({"iteration": iteration})
        print("result", iteration)
        print("warning", iteration, file=sys.stderr)
    progress.finish("done")
"""


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_on_a_terminal_other_output_goes_to_its_own_stream() -> None:
    import pty

    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=Path(__file__).parents[1],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        check=True,
    )
    os.close(slave)
    output = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # Linux reports in this way that the other end is closed.
            break
        if not chunk:
            break
        output += chunk
    os.close(master)
    assert done.stdout == "result 0\nresult 1\nresult 2\n"
    text = output.decode()
    lines = screen(text)
    assert lines == [
        "title",
        "warning 0",
        "warning 1",
        "warning 2",
        header(),
        *(format_row({"iteration": iteration}) for iteration in range(3)),
        "done",
        "",
    ]
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0


def rows_falling(count: int, seconds: float, factor: float) -> list[dict[str, object]]:
    return [{"iteration": k, "seconds": k * seconds, "gradient_norm": 7.0 * factor**k} for k in range(count)]


@pytest.mark.parametrize("seconds", [1.0, 30.0])
def test_an_estimate_is_exact_for_a_constant_rate(seconds: float) -> None:
    outlook = Outlook(goal=1e-8, most=1000)
    for row in rows_falling(9, seconds, 0.1 ** (1 / 4)):
        outlook.add(row)
    # 10^-2 is reached, and 10^-8 is 24 iterations further.
    assert outlook.line() == (
        f"iteration 8, {duration(8 * seconds)}, gradient 1e-2 of the first; about {duration(24 * seconds)} more to 1e-8"
    )


@pytest.mark.parametrize("factor", [1.0, 1.1, 0.999999])
def test_without_progress_the_largest_number_of_iterations_bounds_a_run(factor: float) -> None:
    outlook = Outlook(goal=1e-8, most=29)
    for row in rows_falling(10, 2.0, factor):
        outlook.add(row)
    assert outlook.line().endswith(" of the first; at most 40 s more")


@pytest.mark.parametrize(
    "row",
    [
        {"iteration": 3, "seconds": 1.0},
        {"iteration": 3, "seconds": 9.0, "gradient_norm": None},
        {"iteration": 3, "seconds": 9.0, "gradient_norm": float("nan")},
        {"iteration": 3, "seconds": 9.0, "gradient_norm": 0.0},
        {"iteration": 3, "seconds": float("inf"), "gradient_norm": 1.0},
        {},
    ],
)
def test_rows_that_say_nothing_are_no_part_of_an_estimate(row: dict[str, object]) -> None:
    outlook = Outlook(1e-8, 100)
    for each in [*rows_falling(3, 9.0, 0.1), row]:
        outlook.add(each)
    assert outlook.line().startswith("iteration 2, 18 s, ")
    # Times that stand still, and a goal that has been reached.
    for still in ([0.0] * 3, [9.0] * 3):
        other = Outlook(1e-8)
        for k, second in enumerate(still):
            other.add({"iteration": k, "seconds": second, "gradient_norm": 0.1**k})
        assert "about" not in other.line()
    done = Outlook(1e-1)
    for each in rows_falling(3, 9.0, 0.1):
        done.add(each)
    assert done.line() == "iteration 2, 18 s, gradient 1e-2 of the first"


def test_quick_runs_show_no_estimate_and_long_ones_only_while_they_run() -> None:
    quick = Outlook(1e-8, 100)
    for row in rows_falling(4, 1.0, 0.1):
        quick.add(row)
    assert quick.line() == ""
    stream, console = terminal()
    with Progress(console) as progress:
        progress.start(TITLE, 1e-8, 200)
        for row in rows_falling(5, 30.0, 0.1):
            progress.iteration(row)
            progress._refreshed = -1.0
        assert "iteration 4, 120 s" in stream.getvalue() or "iteration 4, 2 min" in stream.getvalue()
        progress.finish("converged")
    assert "iteration 4, " not in "\n".join(screen(stream.getvalue()))
    plain = io.StringIO()
    with Progress(plain) as progress:
        progress.start(TITLE, 1e-8, 200)
        for row in rows_falling(5, 30.0, 0.1):
            progress.iteration(row)
    assert "more to" not in plain.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.26, "0.26 s"), (119.0, "119 s"), (150.0, "2.5 min"), (7300.0, "2 h"), (1e6, "12 days")]
)
def test_durations_in_the_unit_that_people_use(seconds: float, said: str) -> None:
    assert duration(seconds) == said


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def started(stream: io.StringIO, *stages: tuple[str, float], long: bool = False) -> str:
    """What a line shows of stages that follow each other."""
    clock = Clock()
    line = StartLine(stream, clock=clock)
    clock.now += 50.0  # The time before the first stage does not count.
    if long:
        line.expect_long()
    for name, seconds in stages:
        line.hear(name, False)
        clock.now += seconds
        line.hear(name, True)
    line.close()
    line.hear("later", False)
    return stream.getvalue()


def test_a_quick_start_shows_nothing() -> None:
    for stream in (io.StringIO(), Terminal()):
        assert started(stream, ("mesh", 0.5), ("assembly", 1.4)) == ""


def test_a_long_start_shows_its_stages() -> None:
    stages = ("mesh", 0.6), ("assembly", 2.0), ("factorisation", 30.0)
    assert started(io.StringIO(), *stages).splitlines() == [
        "mesh 0.6 s, assembly 2.0 s, factorisation ...",
        "mesh 0.6 s, assembly 2.0 s, factorisation 30.0 s",
    ]
    shown = started(Terminal(), *stages)
    assert shown.count("\n") == 1 and screen(shown)[0] == "mesh 0.6 s, assembly 2.0 s, factorisation 30.0 s"
    assert started(io.StringIO(), *stages, long=True).splitlines()[0] == "mesh ..."


def test_a_stage_inside_another_has_its_own_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    line = StartLine(stream, clock=clock)
    with stages_heard(line.hear):
        with stage("first evaluation"):
            clock.now += 1.0
            with stage("factorisation"):
                clock.now += 4.0
            clock.now += 2.0
            line.finish()
            clock.now += 8.0
        line.finish()
    with stage("not heard"):
        clock.now += 8.0
    assert stream.getvalue().splitlines() == [
        "first evaluation 3.0 s, factorisation 4.0 s",
        "first evaluation 8.0 s",
    ]


def test_the_stages_of_a_solve_are_announced(tmp_path: Path) -> None:
    heard: list[tuple[str, bool]] = []
    with stages_heard(lambda name, ended: heard.append((name, ended))):
        nhgd.solve(nhgd.load("problems/poisson_control.yaml", {"mesh.cells": [6, 6]}))
    begun = [name for name, ended in heard if not ended]
    assert begun[:2] == ["mesh", "assembly"] and begun[2:4] == ["first evaluation", "factorisation"]
    assert sorted(name for name, ended in heard if ended) == sorted(begun)


def test_a_start_line_that_cannot_be_written_ends_no_run() -> None:
    stream = Terminal()
    stream.close()
    line = StartLine(Terminal())
    line._stream = stream
    line.expect_long()
    line.hear("mesh", False)
    line.close()
