"""The table of the command line around a run that is started from Python."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..output.level_table import level_lines
from ..output.progress import Progress
from .answer import Row
from .solution import Solution

if TYPE_CHECKING:
    from ..problem import Problem


def watched(
    solve: Callable[..., Solution],
    problem: Problem,
    callback: Callable[[Row], object] | None,
    note: Callable[[str], None],
) -> Solution:
    """Solve a problem and show its title, its iterates and its end on standard output.

    Args:
        solve: takes `callback` and `note`.
        callback, note: called as without the table.
    """
    with Progress(sys.stdout) as table:
        table.start(str(problem), *problem.method.ends)

        def seen(row: Row) -> Any:
            table.iteration(row)
            return None if callback is None else callback(row)

        def noted(sentence: str) -> None:
            table.note(sentence)
            note(sentence)

        solution = solve(callback=seen, note=noted)
        table.finish(f"{level_lines(solution.stats.get('levels', ()))}{solution.status}: {solution.message}")
    return solution
