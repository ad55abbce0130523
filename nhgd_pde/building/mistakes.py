"""Collects the mistakes and the notices that building a problem finds in its file."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..problem_file.errors import Issue, ProblemError
from ..problem_file.loading import ProblemFile


@dataclass(frozen=True)
class Mistakes:
    """The mistakes of a problem file, as far as they have been found.

    Attributes:
        file: the problem file.
        issues: the mistakes.
        notices: sentences for the user that are not about mistakes.
    """

    file: ProblemFile
    issues: list[Issue] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def complain(self, key: str, message: str) -> None:
        """Add a mistake to the list, once: a part of the file may be evaluated at several places."""
        issue = self.file.issue(key, message)
        if issue not in self.issues:
            self.issues.append(issue)

    def tell(self, message: str) -> None:
        """Add a notice to the list."""
        self.notices.append(message)

    def raise_found(self) -> None:
        """Raise a `ProblemError` if there are mistakes."""
        if self.issues:
            raise ProblemError(self.issues)
