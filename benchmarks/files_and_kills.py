"""What becomes of runs whose files cannot be written, whose checkpoints are damaged, and which are killed.

    python -m benchmarks.files_and_kills [--flips 200] [--kills 200] [--seed 0]

It prints a table for each of the three. Small file systems are mounted where the user may do so (root); the other rows
are those of an ordinary user.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import nhgd_pde as nhgd
from nhgd_pde.output.atomic import target_of_temporary
from nhgd_pde.output.storage import OutputError

ROOT = Path(__file__).resolve().parents[1]
NOBODY = 65534
# Seconds after which a process that ought to have ended is taken for an orphan, and a survivor for a silent one.
PATIENCE = 10.0
SMALL: dict[str, Any] = {"mesh.cells": [8, 8], "output.checkpoint": 1, "output.every": 1}


@contextmanager
def folder_of_everybody() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        path.chmod(0o777)
        yield path


def command(folder: Path, settings: dict[str, Any], *more: str, problem: str = "poisson_control") -> list[str]:
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    file = str(ROOT / "problems" / f"{problem}.yaml")
    return [sys.executable, "-m", "nhgd_pde", "solve", file, *pairs, "--output", str(folder), *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


# Files


@dataclass(frozen=True)
class Place:
    """A place that takes no files.

    Attributes:
        name: for the table.
        prepare: makes it, and gives the run folder and what is to be done before a resume.
        ordinary: the run is that of an ordinary user.
        limit: bytes that a file may have at most.
        output: where standard output goes.
        mounts: it needs a file system of its own.
    """

    name: str
    prepare: Callable[[Path], tuple[Path, Callable[[], object]]]
    ordinary: bool = True
    limit: int | None = None
    output: str | None = None
    mounts: str | None = None


def nothing() -> None:
    pass


def plain(home: Path) -> tuple[Path, Callable[[], object]]:
    return home / "run", nothing


def closed(home: Path) -> tuple[Path, Callable[[], object]]:
    (home / "run").mkdir(mode=0o555)
    return home / "run", lambda: (home / "run").chmod(0o777)


def a_file(home: Path) -> tuple[Path, Callable[[], object]]:
    (home / "run").write_text("kept")
    return home / "run", nothing


def a_link(home: Path) -> tuple[Path, Callable[[], object]]:
    (home / "run").symlink_to(home / "nowhere")
    return home / "run", nothing


def another_users(home: Path) -> tuple[Path, Callable[[], object]]:
    subprocess.run(command(home / "run", SMALL, "-q"), env=environment(), check=True, capture_output=True)
    return home / "run", nothing


PLACES = (
    Place("a folder without permission to write", closed),
    Place("a file in place of the folder", a_file),
    Place("a link that leads nowhere", a_link),
    Place("another user's run folder", another_users),
    Place("files of at most 2,000 bytes", plain, limit=2000),
    Place("files of at most 8,000 bytes", plain, limit=8000),
    Place("files of at most 40,000 bytes", plain, limit=40_000),
    Place("a disk of 16 KB", plain, mounts="size=16k"),
    Place("a disk of 64 KB", plain, mounts="size=64k"),
    Place("a disk of 128 KB", plain, mounts="size=128k"),
    Place("a disk with 12 files", plain, mounts="nr_inodes=12"),
    Place("a read-only mount", plain, mounts="ro"),
    Place("a full standard output", plain, output="/dev/full"),
)


def try_place(place: Place) -> tuple[int, str, str]:
    """The exit code, the first words of the last sentence, and what a resume finds."""
    with folder_of_everybody() as home:
        if place.mounts is not None:
            options = f"mode=777,{place.mounts}"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(home)], check=True)
        try:
            folder, mend = place.prepare(home)
            run = run_in(place, command(folder, SMALL))
            told = [line for line in (run.stdout or "").splitlines() + run.stderr.splitlines() if line]
            if "Traceback" in run.stderr:
                return run.returncode, "TRACEBACK", ""
            mend()
            if place.mounts is not None:
                subprocess.run(["mount", "-o", "remount,rw,size=4m,nr_inodes=1000", str(home)], check=False)
            return run.returncode, told[-1].replace(str(home), ""), resumed_to_the_end(folder)
        finally:
            if place.mounts is not None:
                subprocess.run(["umount", "-l", str(home)], check=False)


def run_in(place: Place, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    def limits() -> None:
        if place.limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (place.limit, place.limit))
        if place.ordinary and os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    with open(place.output or os.devnull, "w") as output:
        stream = output if place.output is not None else subprocess.PIPE
        return subprocess.run(
            arguments, stdout=stream, stderr=subprocess.PIPE, text=True, env=environment(), preexec_fn=limits
        )


def resumed_to_the_end(folder: Path) -> str:
    """Whether a resume has the numbers of a run that nothing disturbed."""
    if not (folder / "checkpoint.pt").exists():
        return "no checkpoint"
    problem = nhgd.load(ROOT / "problems/poisson_control.yaml", SMALL)
    return "the same numbers" if same(nhgd.solve(problem, output=folder, resume=True), whole()) else "OTHER NUMBERS"


def same(one: nhgd.Solution, other: nhgd.Solution) -> bool:
    objectives = [[row["objective"] for row in each.history] for each in (one, other)]
    return one.status == other.status and np.array_equal(one.control, other.control) and objectives[0] == objectives[1]


@cache
def whole() -> nhgd.Solution:
    """What a run finds that nothing disturbs."""
    return nhgd.solve(nhgd.load(ROOT / "problems/poisson_control.yaml", SMALL))


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        if mounted.returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


# Damaged checkpoints


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """With a bit flipped, or shortened."""
    if random.random() < 0.25:
        return data[: int(random.integers(len(data)))]
    changed = bytearray(data)
    place = int(random.integers(8 * len(data)))
    changed[place // 8] ^= 1 << (place % 8)
    return bytes(changed)


def try_damage(count: int, seed: int, both: float = 0.2) -> Counter[str]:
    """What becomes of resumes from checkpoints that are damaged; a share of them with both files."""
    random, found = np.random.default_rng(seed), Counter[str]()
    problem = nhgd.load(ROOT / "problems/poisson_control.yaml", SMALL)
    short = nhgd.load(ROOT / "problems/poisson_control.yaml", {**SMALL, "outer.iterations": 3})
    with folder_of_everybody() as home:
        nhgd.solve(short, output=home / "cut")
        for _ in range(count):
            shutil.rmtree(home / "run", ignore_errors=True)
            shutil.copytree(home / "cut", home / "run")
            names = ["checkpoint.pt"] + ["checkpoint-before.pt"] * (random.random() < both)
            for name in names:
                path = home / "run" / name
                path.write_bytes(damaged(path.read_bytes(), random))
            try:
                right = same(nhgd.solve(problem, output=home / "run", resume=True), whole())
                found["the same numbers" if right else "OTHER NUMBERS"] += 1
            except OutputError:
                found["refused in a sentence"] += 1
            except Exception as error:
                found[f"TRACEBACK {type(error).__name__}"] += 1
    return found


# Kills


@dataclass(frozen=True)
class Kind:
    """Runs that are killed.

    Attributes:
        name: for the table.
        problem, settings, options: of the run.
        helpers: processes that the run starts.
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
        ("--roles", "2"),
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
        ("--ranks", "2"),
        1,
    ),
)


def try_kills(kind: Kind, count: int, seed: int) -> Counter[str]:
    """Kill a run again and again at random iterations, go on, and compare with a run that was left alone."""
    random, found = np.random.default_rng(seed), Counter[str]()
    with folder_of_everybody() as home:
        arguments = (kind.settings, *kind.options)
        left_alone = subprocess.run(
            command(home / "whole", *arguments, problem=kind.problem), env=environment(), capture_output=True, text=True
        )
        expected = summary_of(home / "whole")
        assert expected is not None, left_alone.stderr
        while found["kills"] < count:
            shutil.rmtree(home / "run", ignore_errors=True)
            for _ in range(6):
                if summary_of(home / "run") is not None or found["kills"] >= count:
                    break
                resume = ("--resume",) if (home / "run" / "checkpoint.pt").exists() else ()
                _one_kill(kind, home / "run", resume, random, found)
            if not (home / "run" / "checkpoint.pt").exists():
                continue
            done = subprocess.run(
                command(home / "run", *arguments, "--resume", problem=kind.problem),
                env=environment(),
                capture_output=True,
                text=True,
            )
            summary = summary_of(home / "run")
            right = summary is not None and all(
                summary[key] == expected[key] for key in ("status", "objective", "outer_iterations", "gradient_norm")
            )
            found["runs that ended with the same numbers" if right else "LOST"] += 1
            if "Traceback" in done.stderr:
                found["TRACEBACK"] += 1
            if any(target_of_temporary(path.name) for path in (home / "run").rglob(".*")):
                found["TEMPORARIES LEFT"] += 1
    return found


def _one_kill(
    kind: Kind, folder: Path, resume: tuple[str, ...], random: np.random.Generator, found: Counter[str]
) -> None:
    """Start or go on, wait for some iterations, and kill the run, one of its processes, or all of them."""
    begun = rows(folder)
    run = subprocess.Popen(
        command(folder, kind.settings, *kind.options, *resume, problem=kind.problem),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    )
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
    if victim == "helper" and run.returncode == 1:
        named = f"(process {helpers[0]}) was killed by signal 9" in text
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


def helpers_of(run: subprocess.Popen[str]) -> list[int]:
    """Processes of this program that a run has started."""
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
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    mounts = can_mount()
    print("place | exit code | last sentence | after mending, --resume")
    for place in PLACES:
        if place.mounts is None or mounts:
            print(" | ".join(map(str, (place.name, *try_place(place)))), flush=True)
    print(f"\n{options.flips} damaged checkpoints: {dict(try_damage(options.flips, options.seed))}", flush=True)
    for kind in KINDS:
        share = options.kills // len(KINDS) + (kind is KINDS[0]) * (options.kills % len(KINDS))
        print(f"{kind.name}: {dict(+try_kills(kind, share, options.seed))}", flush=True)


if __name__ == "__main__":
    main()
