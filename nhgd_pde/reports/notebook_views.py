"""What notebooks show of a problem and of an answer: a line, a small table, a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..output.pictures import png
from .markup import image, joined, number, table, tag
from .material import content_of
from .problem_words import constraint_words, control_words, equation_words, random_words, task_words, term_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def answer_view(said: object, summary: Mapping[str, Any], figure: Figure | None) -> str:
    """How a run ended, the values of the terms of the objective, and the picture.

    Args:
        said: the answer, whose text is a line.
        summary: the content of summary.json.
        figure: its picture; None for none.
    """
    parts = [tag("p", tag("code", said)), tag("p", tag("b", summary["status"]), f": {summary['message']}")]
    if summary.get("terms"):
        parts.append(table((name, number(value, f"terms.{name}")) for name, value in summary["terms"].items()))
    if figure is not None:
        parts.append(image(png(figure, dpi=80), f"Picture of {summary['name']}"))
    return tag("div", joined(parts))


def problem_view(said: str, mesh: str, problem_yaml: str) -> str:
    """A problem in words; `said` and `mesh` are lines about it and about its mesh."""
    content = content_of(problem_yaml)
    if "task" in content:
        rows = task_words(content["task"])
    else:
        words = (equation_words, control_words, term_words, constraint_words, random_words)
        rows = [row for each in words for row in each(content) if row[0] != "mesh"]
        rows.append(("mesh", mesh))
    return tag("div", tag("p", tag("code", said)), table(rows))
