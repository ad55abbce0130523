"""What a run has found so far: the rows of its history, its first and its last iterate, and its warnings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..engine.loop import Iterate
from .solution import Row

# The kind of the warnings that come with evaluations. They differ in their numbers only.
EVALUATION = "evaluation"


class Warnings:
    """Sentences on what makes the result worse than it need be; of each kind the first one only.

    Args:
        sentences: warnings that are known at the beginning.
    """

    def __init__(self, sentences: Iterable[str]) -> None:
        self._sentences = list(sentences)
        self._kinds: set[str] = set()

    def add(self, sentence: str, kind: str = "") -> None:
        """Notes a warning, unless one of its kind has been noted before; those without a kind are all noted."""
        if kind in self._kinds:
            return
        self._sentences.append(sentence)
        if kind:
            self._kinds.add(kind)

    @property
    def sentences(self) -> list[str]:
        return list(self._sentences)


@dataclass
class Records:
    """The records of one run.

    Attributes:
        warnings: see `Warnings`.
        rows: the rows of history.csv.
        first, last: the first and the last iterate, as they are reported; None before the first evaluation.
    """

    warnings: Warnings
    rows: list[Row] = field(default_factory=list)
    first: Iterate | None = None
    last: Iterate | None = None

    def add(self, iterate: Iterate, row: Row) -> None:
        """Notes an iterate and its row."""
        self.first, self.last = self.first or iterate, iterate
        self.rows.append(row)
        if iterate.evaluation.warning:
            self.warnings.add(iterate.evaluation.warning, EVALUATION)
