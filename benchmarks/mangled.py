"""Thousands of mangled problem files: `python -m benchmarks.mangled --count 10000`.

Every file goes through `nhgd-pde check`, and a share of the files that pass is solved. Workers have an address space of
2 GB; a worker that hangs in compiled code is killed. Tracebacks, warnings, hangs and dead workers are failures and are
printed.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Number of seconds for one file; a worker that prints nothing for so long is killed.
_SILENCE = 60.0


def work(first: int, count: int, share: int, whole: int) -> None:
    """Runs the files first, ..., first + count - 1, and prints a line of JSON for each command."""
    import resource

    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    resource.setrlimit(resource.RLIMIT_AS, (int(2e9), resource.RLIM_INFINITY))
    from mangled_runs import outcomes
    from mangling import mangled, prepare

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        os.chdir(folder)
        for number in range(first, first + count):
            small = not (whole and number % whole == 0)
            for outcome in outcomes(number, folder, share > 0 and number % share == 0, small):
                peak = 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                made = mangled(number, small)
                more = {"origin": made.origin, "changes": made.changes, "peak": peak}
                print(json.dumps({**vars(outcome), **more, "output": outcome.output[-2000:]}), flush=True)
            print(json.dumps({"done": number}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--solve", type=int, default=5, help="every how many files is solved, too; 0: none")
    parser.add_argument("--whole", type=int, default=20, help="every how many files keeps its mesh; 0: none")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.first, options.count, options.solve, options.whole)
        return 0
    start, counts, failures = time.perf_counter(), collections.Counter[str](), 0
    slowest = peak = 0.0
    for line in _lines(options):
        if line["failure"]:
            failures += 1
            print(f"{line['number']} {line['command']} ({line['origin']}: {', '.join(line['changes'])})")
            print(line["failure"], flush=True)
        counts[f"{line['command']} {line['code']}"] += 1
        slowest, peak = max(slowest, line["seconds"]), max(peak, line["peak"])
    listed = ", ".join(f"{name}: {count:,}" for name, count in sorted(counts.items()))
    print(f"{options.count:,} files in {time.perf_counter() - start:.0f} s; {listed}")
    print(f"{failures} failures; slowest {slowest:.1f} s, largest peak {peak / 1e9:.2f} GB")
    return min(failures, 1)


def _lines(options: argparse.Namespace) -> Any:
    """The outcomes of all files; a worker that has died is replaced by a new one."""
    first, last = options.first, options.first + options.count
    while first < last:
        command = [sys.executable, "-m", "benchmarks.mangled", "--worker", "--first", str(first)]
        command += ["--count", str(last - first), "--solve", str(options.solve), "--whole", str(options.whole)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, cwd=ROOT) as worker:
            assert worker.stdout is not None
            while first < last:
                ready, _, _ = select.select([worker.stdout], [], [], _SILENCE)
                text = worker.stdout.readline() if ready else b""
                if not text:
                    break
                line = json.loads(text)
                if "done" in line:
                    first = line["done"] + 1
                else:
                    yield line
            worker.kill()
        if first < last:
            how = "hangs" if not ready else f"died with {worker.returncode}"
            made = {"number": first, "command": "worker", "code": 1, "origin": "?", "changes": [], "seconds": 0.0}
            yield {**made, "peak": 0.0, "failure": f"a worker {how} at file {first}"}
            first += 1


if __name__ == "__main__":
    sys.exit(main())
