"""The tests with instructions of other processors and beside busy processes: `python -m benchmarks.processors`.

    python -m benchmarks.processors                         the quick tests under every setting
    python -m benchmarks.processors --slow                  the slow ones
    python -m benchmarks.processors --only AVX2 --only busy -- tests/test_newton.py

Libraries choose their kernels by the instructions of the processor, so that sums are rounded differently on another
processor. The settings below select the kernels of older processors, for one library at a time and then for all of
them; settings that this processor cannot run are left out. The last two settings run beside two processes that never
wait, with one and with two threads for each test process. Every argument after `--` is given to pytest. The exit code
is 1 if a test fails.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .busy import busy_processes

ROOT = Path(__file__).resolve().parents[1]
BUSY_PROCESSES = 2
# Instruction sets from the newest to the oldest; every setting needs one of them.
CAPABILITIES = ("DEFAULT", "AVX2", "AVX512")


@dataclass(frozen=True)
class Setting:
    """One way to run the tests.

    Attributes:
        name: name in the table.
        variables: variables of the environment.
        needs: the instructions that it uses, one of CAPABILITIES.
        busy: number of other processes that never wait.
    """

    name: str
    variables: dict[str, str] = field(default_factory=dict)
    needs: str = "DEFAULT"
    busy: int = 0


SETTINGS = (
    Setting("COMPATIBLE", {"MKL_CBWR": "COMPATIBLE"}),
    Setting("AVX2", {"MKL_CBWR": "AVX2"}, "AVX2"),
    Setting("AVX512", {"MKL_CBWR": "AVX512"}, "AVX512"),
    # These settings are for torch's kernels, and for the BLAS of NumPy and SciPy.
    Setting("ATen", {"ATEN_CPU_CAPABILITY": "default"}),
    Setting("OpenBLAS", {"OPENBLAS_CORETYPE": "Nehalem"}),
    Setting(
        "oldest of all", {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Nehalem"}
    ),
    Setting("busy", {"OMP_NUM_THREADS": "1"}, busy=BUSY_PROCESSES),
    Setting("busy, two threads", {"OMP_NUM_THREADS": "2"}, busy=BUSY_PROCESSES),
)


def run(setting: Setting, arguments: list[str]) -> tuple[bool, str]:
    """Whether all tests pass, and the last line of pytest."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **setting.variables}
    command = [sys.executable, "-m", "pytest", "-q", "--dist", "loadfile", *arguments]
    with busy_processes(setting.busy):
        found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    # The last lines have the names of failed tests, and the counts.
    told = [line for line in found.stdout.splitlines() if re.match(r"(FAILED|ERROR) |=*.*\d+ (passed|failed)", line)]
    return found.returncode == 0, "\n".join(told) or found.stderr[-2000:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--slow", action="store_true", help="the slow tests instead of the quick ones")
    parser.add_argument("--only", action="append", choices=[each.name for each in SETTINGS], help="settings to try")
    parser.add_argument("--processes", default="auto", help="of pytest; a process a core as a rule")
    parser.add_argument("rest", nargs="*", help="arguments of pytest")
    given = parser.parse_args()
    arguments = ["-n", given.processes, "-m", "slow" if given.slow else "not slow", *given.rest]
    offered = CAPABILITIES.index(torch.backends.cpu.get_cpu_capability())
    passed = True
    for setting in SETTINGS:
        if given.only and setting.name not in given.only:
            continue
        if CAPABILITIES.index(setting.needs) > offered:
            print(f"{setting.name}: left out, this processor does not offer {setting.needs}", flush=True)
            continue
        start = time.monotonic()
        good, told = run(setting, arguments)
        passed = passed and good
        print(
            f"{setting.name}: {'passed' if good else 'FAILED'} in {time.monotonic() - start:.0f} s\n{told}", flush=True
        )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
