"""What is wrong with a problem file, said once for every mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

# Characters of a key or a path and of a line, and lines, that a message has at most.
_LONGEST_KEY, _LONGEST = 200, 2_000
_MOST_LINES = 50
# Names that are longer than this have no similar name.
_LONGEST_NAME = 80


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
        parts = (_shortened(self.place or "", _LONGEST_KEY), _shortened(self.key, _LONGEST_KEY), self.message)
        return ": ".join(_shortened(part, _LONGEST) for part in parts if part)


class ProblemError(ValueError):
    """A problem file that cannot be used; its text is one line for each issue, of many for the first of them."""

    def __init__(self, issues: Iterable[Issue]) -> None:
        self.issues: tuple[Issue, ...] = tuple(issues)
        lines = [str(issue) for issue in self.issues[:_MOST_LINES]]
        if len(self.issues) > _MOST_LINES:
            lines.append(f"... and {len(self.issues) - _MOST_LINES:,} more mistakes")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[ProblemError], tuple[tuple[Issue, ...]]]:
        return (type(self), (self.issues,))


def suggest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known name nearest to `name`, or nothing when none is near."""
    if len(name) > _LONGEST_NAME:
        return ""
    spelt = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), spelt, n=1, cutoff=0.6)
    return f" (did you mean {spelt[near[0]]!r}?)" if near else ""


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
