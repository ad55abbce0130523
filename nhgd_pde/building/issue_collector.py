"""Collects the mistakes and the notices that building a problem finds in its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..fem.mesh import Domain
from ..problem_file.errors import Issue, ProblemError, suggest
from ..problem_file.loading import ProblemFile


@dataclass(frozen=True)
class IssueCollector:
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

    def unknown(
        self,
        domain: Domain,
        key: str,
        kind: str,
        name: str,
        known: Mapping[str, np.ndarray],
        sides: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Complain of the name of a part that the mesh does not have; `sides` are boundaries that may stand there."""
        names = ", ".join(sorted(known)) or "none"
        also = "" if sides is None else f"; its boundaries: {', '.join(sorted(sides))}"
        described = domain.described(name)
        hint = suggest(name, {**known, **(sides or {})})
        wrong = (
            f"expected a {kind}, found {name!r}, which {described}" if described else f"unknown {kind} {name!r}{hint}"
        )
        self.complain(key, f"{wrong}; this mesh has: {names}{also}")

    def raise_found(self) -> None:
        """Raise a `ProblemError` if there are mistakes."""
        if self.issues:
            raise ProblemError(self.issues)
