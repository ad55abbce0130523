"""What several commands take: a problem file, and values that are set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..complaints import follows, tell

if TYPE_CHECKING:
    from ..api import Problem
    from ..problem_file.loading import ProblemFile


def overrides_of(settings: tuple[str, ...]) -> dict[str, object]:
    from ..problem_file.loading import parse_override

    return dict(parse_override(text) for text in settings)


def checked_file(file: Path, settings: tuple[str, ...], method: str | None = None) -> ProblemFile:
    from ..output.names import PROBLEM
    from ..problem_file.errors import ProblemError
    from ..problem_file.loading import read_problem
    from ..problem_file.room import check_room

    if (file / PROBLEM).is_file():
        file /= PROBLEM
    try:
        problem = read_problem(file, overrides_of(settings) | ({} if method is None else {"method": method}))
    except ProblemError as error:
        from ..building.part_names import with_names

        raise with_names(error) from None
    check_room(problem)
    return problem


def built_problem(file: ProblemFile) -> Problem:
    # The file has been read before torch is loaded, which takes longer than it takes to refuse a file.
    from ..api import build_problem
    from ..problem_file.announcing import announced

    with announced(lambda text: None if follows() else tell(text)):
        return build_problem(file)


file_argument = click.argument("file", type=click.Path(path_type=Path))
set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a value by its dotted path."
)
