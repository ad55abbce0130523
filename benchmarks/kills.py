"""Runs that are killed again and again, with roles and ranks, and resume: no numbers are lost, no process is left.

    python -m benchmarks.kills [--kills 200] [--seed 0]

Every run is killed at random iterations up to six times: the leading process, a child process or all of them. Then it
runs to its end, which is compared with an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.copies import ROOT, Copy, command, folder_of_everybody, load_everything
from nhgd_pde.output.atomic import target_of_temporary

# Number of seconds after which a process that should have ended counts as an orphan, and a survivor as silent.
PATIENCE = 10.0


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Kind:
    """A kind of runs.

    Attributes:
        name: name in the table.
        problem, settings, options: the problem, settings and options of the run.
        helpers: number of processes that the run starts.
    """

    name: str
    problem: str
    settings: dict[str, Any]
    options: tuple[str, ...] = ()
    helpers: int = 0


STEPS = {"outer.method": "gradient", "outer.step": 0.5, "outer.iterations": 60, "output.every": 20}
KINDS = (
    Kind("one process", "poisson_control", {"mesh.cells": [12, 12], "output.checkpoint": 1, **STEPS}),
    Kind(
        "two roles",
        "poisson_control",
        {"mesh.cells": [8, 8], "output.checkpoint": 1, "inner.tests": 16, "curvature.kind": "dense", **STEPS},
        ("--roles", "2", "--no-figure"),
        1,
    ),
    Kind(
        "two ranks",
        "robust_poisson",
        {
            "mesh.cells": [8, 8],
            "output.checkpoint": 1,
            "scenarios.count": 16,
            "scenarios.validation": 0,
            "scenarios.strategy": "all",
            **STEPS,
        },
        ("--ranks", "2", "--no-figure"),
        1,
    ),
)


def try_kills(kind: Kind, count: int, seed: int) -> Counter[str]:
    """Kills a run again and again at random iterations, resumes it, and compares it with an undisturbed run."""
    random, found = np.random.default_rng(seed), Counter[str]()
    with folder_of_everybody() as home:
        arguments = (kind.settings, *kind.options)
        said, _ = begin(command(home / "whole", *arguments, problem=kind.problem), not kind.helpers).communicate()
        expected = summary_of(home / "whole")
        assert expected is not None, said
        while found["kills"] < count:
            shutil.rmtree(home / "run", ignore_errors=True)
            for _ in range(6):
                if summary_of(home / "run") is not None or found["kills"] >= count:
                    break
                resume = ("--resume",) if (home / "run" / "checkpoint.pt").exists() else ()
                _one_kill(kind, home / "run", resume, random, found)
            if not (home / "run" / "checkpoint.pt").exists():
                continue
            last = command(home / "run", *arguments, "--resume", problem=kind.problem)
            said, _ = begin(last, not kind.helpers).communicate()
            summary = summary_of(home / "run")
            right = summary is not None and all(
                summary[key] == expected[key] for key in ("status", "objective", "outer_iterations", "gradient_norm")
            )
            found["runs that ended with the same numbers" if right else "LOST"] += 1
            if "Traceback" in said:
                found["TRACEBACK"] += 1
            if any(target_of_temporary(path.name) for path in (home / "run").rglob(".*")):
                found["TEMPORARIES LEFT"] += 1
    return found


def begin(arguments: list[str], alone: bool) -> Copy | subprocess.Popen[str]:
    """Starts a run in a new process group; a run with several processes is started as a new program."""
    if alone:
        return Copy(arguments[3:])
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def _one_kill(
    kind: Kind, folder: Path, resume: tuple[str, ...], random: np.random.Generator, found: Counter[str]
) -> None:
    """Starts or resumes a run, waits for some iterations, and kills the run, one of its processes, or all of them."""
    begun = rows(folder)
    arguments = command(folder, kind.settings, *kind.options, *resume, problem=kind.problem)
    run = begin(arguments, alone=not kind.helpers)
    until = begun + int(random.integers(1, 12))
    while run.poll() is None and rows(folder) < until:
        time.sleep(0.002)
    helpers = helpers_of(run)
    victim = str(random.choice(["leader", "helper", "group"])) if helpers else "leader"
    if run.poll() is None:
        found["kills"] += 1
        found[f"of the {victim}"] += bool(kind.helpers)
        with suppress(ProcessLookupError):
            if victim == "group":
                os.killpg(run.pid, signal.SIGKILL)
            else:
                os.kill(run.pid if victim == "leader" else helpers[0], signal.SIGKILL)
    start = time.monotonic()
    text, _ = run.communicate()
    if victim == "helper" and "failed: " in text:
        named = f"(process {helpers[0]})" in text
        found["survivors that said who died" if named else "SILENT SURVIVORS"] += 1
        found["SLOW SURVIVORS"] += time.monotonic() - start > PATIENCE
        with suppress(FileNotFoundError):
            (folder / "summary.json").unlink()
    end = time.monotonic() + PATIENCE
    while any(map(runs, helpers)) and time.monotonic() < end:
        time.sleep(0.02)
    found["ORPHANS"] += sum(map(runs, helpers))
    found["TRACEBACK"] += "Traceback" in text


def rows(folder: Path) -> int:
    try:
        return (folder / "history.csv").read_bytes().count(b"\n")
    except OSError:
        return 0


def summary_of(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / "summary.json").read_bytes())
    except OSError:
        return None


def helpers_of(run: Copy | subprocess.Popen[str]) -> list[int]:
    """The processes that a run has started."""
    found = []
    with suppress(OSError):
        for child in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split():
            if b"nhgd_pde" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    load_everything()
    for kind in KINDS:
        # Half of the kills are of runs with one process, because runs with several processes take longer to start.
        share = options.kills // 2 if kind is KINDS[0] else options.kills // 4
        print(f"{kind.name}: {dict(+try_kills(kind, share, options.seed))}", flush=True)


if __name__ == "__main__":
    main()
