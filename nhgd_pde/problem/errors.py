"""What is wrong with a problem file, said once for every mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Issue:
    """One mistake: the dotted key it concerns, what was expected and found, and where it stands.

    `key` uses dots for mappings and lists alike (`objective.1.weight`) and is empty for the file as a whole;
    `place` is `file:line`, `--set` for an override, or None where there is no file.
    """

    key: str
    message: str
    place: str | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.key, self.message) if part)


class ProblemError(ValueError):
    """A problem file that cannot be used; its text is one line for each issue."""

    def __init__(self, issues: Iterable[Issue]) -> None:
        self.issues: tuple[Issue, ...] = tuple(issues)
        super().__init__("\n".join(str(issue) for issue in self.issues))

    def __reduce__(self) -> tuple[type[ProblemError], tuple[tuple[Issue, ...]]]:
        return (type(self), (self.issues,))


def suggest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known name nearest to `name`, or nothing when none is near."""
    spelt = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=0.6)
    return f" (did you mean {spelt[near[0]]!r}?)" if near else ""
