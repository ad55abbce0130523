"""How many files and functions of the package one solve enters, and how many modules it loads.

    python -m benchmarks.entered [FILE] [KEY=VALUE ...]

A file is entered when one of its functions is called; the code that runs while a module is loaded does not count.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import nhgd_pde

PACKAGE = Path(nhgd_pde.__file__).parent
# Flag of code objects that have local variables of their own: functions, in contrast to modules and classes.
FUNCTION = 0x2


def entered(source: Path, overrides: dict[str, Any]) -> set[CodeType]:
    """The functions of the package that loading, solving and writing a problem calls."""
    found: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & FUNCTION and code.co_filename.startswith(f"{PACKAGE}/"):
            found.add(code)

    with tempfile.TemporaryDirectory() as folder:
        sys.setprofile(note)
        try:
            nhgd_pde.solve(nhgd_pde.load(source, overrides), output=Path(folder) / "run")
        finally:
            sys.setprofile(None)
    return found


def main() -> None:
    from nhgd_pde.problem_file.loading import parse_override

    source, *settings = sys.argv[1:] or ["problems/poisson_control.yaml", "mesh.cells=[16,16]"]
    functions = entered(Path(source), dict(parse_override(text) for text in settings))
    files = sorted({code.co_filename for code in functions})
    loaded = sum(name.partition(".")[0] == PACKAGE.name for name in sys.modules)
    for name in files:
        count = sum(code.co_filename == name for code in functions)
        print(f"{count:5d} functions of {Path(name).relative_to(PACKAGE)}")
    print(f"{source}: {len(files)} files and {len(functions)} functions entered, {loaded} modules loaded")


if __name__ == "__main__":
    main()
