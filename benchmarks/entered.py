"""The number of files and functions of the package that one solve enters, and of modules that it loads.

    python -m benchmarks.entered [FILE] [KEY=VALUE ...]

A file is entered when one of its functions is called; the code that runs while a module is loaded does not count.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import TypeVar

import nhgd_pde

Result = TypeVar("Result")

PACKAGE = Path(nhgd_pde.__file__).parent
# Flag of code objects with local variables: functions have it, modules and classes do not.
FUNCTION = 0x2


def entered(work: Callable[[], Result]) -> tuple[Result, set[CodeType]]:
    """The result of some work, and the functions of the package that it calls."""
    found: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & FUNCTION and code.co_filename.startswith(f"{PACKAGE}/"):
            found.add(code)

    sys.setprofile(note)
    try:
        return work(), found
    finally:
        sys.setprofile(None)


def main() -> None:
    from nhgd_pde.problem_file.loading import parse_override

    source, *settings = sys.argv[1:] or ["problems/poisson_control.yaml", "mesh.cells=[16,16]"]
    overrides = dict(parse_override(text) for text in settings)
    problem, loading = entered(lambda: nhgd_pde.load(source, overrides))
    with tempfile.TemporaryDirectory() as folder:
        _, solving = entered(lambda: nhgd_pde.solve(problem, output=Path(folder) / "run"))
    for name, count in sorted(Counter(code.co_filename for code in loading | solving).items()):
        print(f"{count:5d} functions of {Path(name).relative_to(PACKAGE)}")
    for what, functions in {"load": loading, "solve": solving, "both": loading | solving}.items():
        files = {code.co_filename for code in functions}
        print(f"{what:>5}: {len(functions):4d} functions of {len(files):3d} files entered")
    loaded = sum(name.partition(".")[0] == PACKAGE.name for name in sys.modules)
    print(f"{loaded} modules of the package loaded")


if __name__ == "__main__":
    main()
