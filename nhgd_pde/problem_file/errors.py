"""The mistakes of a problem file, and the exception that reports them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Largest number of characters of a key or a path in a message, and of one line; largest number of lines.
_LONGEST_KEY, _LONGEST = 200, 2_000
_MOST_LINES = 50
# No similar name is looked for where a name has more characters than this.
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Issue:
    """One mistake: its dotted key, what was expected and found there, and the file and line.

    `key` uses dots for mappings and lists alike (`objective.1.weight`) and is empty for the file as a whole;
    `place` is `file:line`, `--set` for an override, or None where there is no file.
    """

    key: str
    message: str
    place: str | None = None

    def __str__(self) -> str:
        parts = (_shortened(self.place or "", _LONGEST_KEY), _shortened(self.key, _LONGEST_KEY), self.message)
        return ": ".join(_shortened(part, _LONGEST) for part in parts if part)


class ProblemError(ValueError):
    """A problem file that cannot be used; the text has one line for each of the first issues.

    Attributes:
        issues: the mistakes.
        rest: a problem of what is right in the file, a `loading.RestOfFile`, in which names of the mesh can be
            checked; None without one.
    """

    def __init__(self, issues: Iterable[Issue], rest: Any = None) -> None:
        self.issues: tuple[Issue, ...] = tuple(issues)
        self.rest = rest
        lines = [str(issue) for issue in self.issues[:_MOST_LINES]]
        if len(self.issues) > _MOST_LINES:
            lines.append(f"... and {len(self.issues) - _MOST_LINES:,} more mistakes")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[ProblemError], tuple[tuple[Issue, ...]]]:
        return (type(self), (self.issues,))


def suggest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for what `name` is called here, or for the known name nearest to it; or nothing."""
    if len(name) > _LONGEST_NAME:
        return ""
    # The table is loaded with the first mistake.
    from nhgd_pde.problem_file.other_names import words_for

    known = list(known)
    called = words_for(name, known)
    if called:
        return f" (did you mean {' or '.join(map(repr, called))}?)"
    spelt = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=0.6)
    return f" (did you mean {spelt[near[0]]!r}?)" if near else ""


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
