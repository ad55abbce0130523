"""Runs whose files cannot be written, and resumes from damaged checkpoints.

    python -m benchmarks.storage [--flips 200] [--seed 0]

It prints a row for each place where files cannot be written, and a line for the damaged checkpoints. Small file systems
are mounted if the user may do so (root); the other rows are those of an ordinary user.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

import nhgd_pde as nhgd
from benchmarks.copies import ROOT, SMALL, Copy, Guest, command, folder_of_everybody, load_everything
from nhgd_pde.output.storage import OutputError


@dataclass(frozen=True)
class Place:
    """A place where files cannot be written.

    Attributes:
        name: name in the table.
        prepare: creates the place, and returns the run folder and a function to call before a resume.
        guest: the limits of the run.
        mounts: the place needs its own file system.
    """

    name: str
    prepare: Callable[[Path], tuple[Path, Callable[[], object]]]
    guest: Guest = field(default_factory=Guest)
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
    nhgd.solve(nhgd.load(ROOT / "problems/poisson_control.yaml", SMALL), output=home / "run")
    return home / "run", nothing


PLACES = (
    Place("a folder without permission to write", closed),
    Place("a file in place of the folder", a_file),
    Place("a link that leads nowhere", a_link),
    Place("another user's run folder", another_users),
    Place("files of at most 2,000 bytes", plain, Guest(limit=2000)),
    Place("files of at most 8,000 bytes", plain, Guest(limit=8000)),
    Place("files of at most 40,000 bytes", plain, Guest(limit=40_000)),
    Place("a disk of 16 KB", plain, mounts="size=16k"),
    Place("a disk of 64 KB", plain, mounts="size=64k"),
    Place("a disk of 128 KB", plain, mounts="size=128k"),
    Place("a disk with 12 files", plain, mounts="nr_inodes=12"),
    Place("a read-only mount", plain, mounts="ro"),
    Place("a full standard output", plain, Guest(output="/dev/full")),
)


def try_place(place: Place) -> tuple[int, str, str]:
    """The exit code, the first words of the last sentence, and the result of a resume."""
    with folder_of_everybody() as home:
        if place.mounts is not None:
            options = f"mode=777,{place.mounts}"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(home)], check=True)
        try:
            folder, mend = place.prepare(home)
            run = Copy(command(folder, SMALL)[3:], place.guest)
            said, _ = run.communicate()
            code = run.returncode
            told = [line for line in said.splitlines() if line and not line.startswith("warning: ")]
            if "Traceback" in said:
                return code, f"TRACEBACK {told[-1]}", ""
            mend()
            if place.mounts is not None:
                subprocess.run(["mount", "-o", "remount,rw,size=4m,nr_inodes=1000", str(home)], check=False)
            return code, told[-1].replace(str(home), ""), resumed_to_the_end(folder)
        finally:
            if place.mounts is not None:
                subprocess.run(["umount", "-l", str(home)], check=False)


def resumed_to_the_end(folder: Path) -> str:
    """Whether a resume gives the numbers of an undisturbed run."""
    if not (folder / "checkpoint.pt").exists():
        return "no checkpoint"
    problem = nhgd.load(ROOT / "problems/poisson_control.yaml", SMALL)
    return "the same numbers" if same(nhgd.solve(problem, output=folder, resume=True), whole()) else "OTHER NUMBERS"


def same(one: nhgd.Solution, other: nhgd.Solution) -> bool:
    objectives = [[row["objective"] for row in each.history] for each in (one, other)]
    return one.status == other.status and np.array_equal(one.control, other.control) and objectives[0] == objectives[1]


@cache
def whole() -> nhgd.Solution:
    """The results of an undisturbed run."""
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
    """The content with one bit flipped, or shortened."""
    if random.random() < 0.25:
        return data[: int(random.integers(len(data)))]
    changed = bytearray(data)
    place = int(random.integers(8 * len(data)))
    changed[place // 8] ^= 1 << (place % 8)
    return bytes(changed)


def try_damage(count: int, seed: int, both: float = 0.2) -> Counter[str]:
    """The results of resumes from damaged checkpoints; for a share of them both files are damaged."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    mounts = can_mount()
    load_everything()
    print("place | exit code | last sentence | after mending, --resume")
    for place in PLACES:
        if place.mounts is None or mounts:
            print(" | ".join(map(str, (place.name, *try_place(place)))), flush=True)
    print(f"\n{options.flips} damaged checkpoints: {dict(try_damage(options.flips, options.seed))}", flush=True)


if __name__ == "__main__":
    main()
