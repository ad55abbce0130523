"""The page on the architecture and the README: files exist, the picture agrees with the imports, the example runs."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
import torch
from click.testing import CliRunner
from test_import_direction import ALLOWED, PACKAGE

from nhgd_pde.cli import main

ROOT = PACKAGE.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
(PICTURE,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
(EXAMPLE,) = re.findall(r"<!-- example: run by the tests -->\n```python\n(.*?)```", PAGE, re.DOTALL)
# The command line, studies and the Python interface may import every folder, so that ALLOWED leaves them out.
FRONT = {"cli", "api", "commands", "studies"}


def below(arrows: dict[str, set[str]], part: str) -> set[str]:
    """The parts that the arrows from a part lead to, directly or through others."""
    return arrows.get(part, set()).union(*(below(arrows, each) for each in arrows.get(part, set())))


@pytest.fixture
def single_thread_and_type() -> Iterator[None]:
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(before)
    torch.set_num_threads(threads)


def test_every_file_that_the_page_names_exists() -> None:
    names = set(re.findall(r"`([\w/]+\.py|problems/[\w.]+)`", PAGE))
    assert len(names) > 50
    assert not {name for name in names if not any((top / name).is_file() for top in (PACKAGE, ROOT))}
    linked = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", PAGE)}
    assert not {target for target in linked if not (ROOT / "docs" / target).is_file()}


def test_a_solve_enters_every_file_of_the_twelve_stops(tmp_path: Path) -> None:
    stops = re.findall(r"^\| \d+ \| .* \| (`.*`) \|$", PAGE, re.MULTILINE)
    assert len(stops) == 12
    entered = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        # Modules and the bodies of classes are run when they are imported; functions alone have fast locals.
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            entered.add(frame.f_code.co_filename)

    file = str(ROOT / "problems" / "poisson_control.yaml")
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        done = CliRunner().invoke(main, ["solve", file, "--set", "mesh.cells=[4,4]", "--output", str(tmp_path / "run")])
    finally:
        sys.setprofile(before)
    assert done.exit_code == 0, done.output
    named = {name for stop in stops for name in re.findall(r"`([^`]+)`", stop)}
    assert not {name for name in named if str(PACKAGE / name) not in entered}


def test_the_page_has_every_folder_of_the_package_and_no_other() -> None:
    folders = {f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("__init__.py")} - {"./"}
    table = set(re.findall(r"^\| `([\w/]+/)` \|", PAGE, re.MULTILINE))
    assert table == folders


def test_the_page_has_every_file_at_the_top_of_the_package() -> None:
    files = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert not {name for name in files if f"`{name}`" not in PAGE}


def test_the_picture_of_the_layers_is_that_of_the_imports() -> None:
    arrows: dict[str, set[str]] = {}
    for source, target in re.findall(r"(\w+) --> (\w+)", PICTURE):
        arrows.setdefault(source, set()).add(target)
    drawn = {source: below(arrows, source) for source in arrows if source not in FRONT}
    assert drawn.keys() | set().union(*drawn.values()) == ALLOWED.keys()
    # An allowed import is a path in the picture, and an arrow of the picture is an allowed import.
    assert not {(part, each) for part, allowed in ALLOWED.items() for each in allowed - drawn.get(part, set())}
    assert not {(part, each) for part in drawn for each in arrows[part] - ALLOWED[part]}


def test_the_engine_alone_finds_the_closed_form(single_thread_and_type: None) -> None:
    names: dict[str, object] = {}
    exec(compile(EXAMPLE, "docs/architecture.md", "exec"), names)
    found, v, exact = names["found"], names["v"], names["exact"]
    assert isinstance(v, torch.Tensor) and isinstance(exact, torch.Tensor)
    assert found.status == "converged", found.message  # type: ignore[attr-defined]
    assert float((v - exact).norm() / exact.norm()) < 1e-9
    used = set(re.findall(r"^from nhgd_pde\.(\w+)", EXAMPLE, re.MULTILINE))
    assert used == {"engine", "linalg"}


def test_the_readme_has_every_shipped_problem() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`[^|]+) \|", readme, re.MULTILINE)
    named = re.findall(r"`(\w+\.yaml)`", " ".join(table))
    assert sorted(named) == sorted(path.name for path in (ROOT / "problems").glob("*.yaml"))
    linked = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", readme)}
    assert not {each for each in linked if not each.startswith("https://") and not (ROOT / each).is_file()}
