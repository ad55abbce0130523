"""Files that could not be written during a run: reported when it happens, sparingly, and once more at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..engine.roles.failures import RemoteStorageError
from ..output.storage import StorageError

# Numbers of the failures of one kind that are reported at once: the first one, and then ever fewer.
_TOLD = (1, 10, 100, 1000)


class ResultsLostError(StorageError):
    """A run has ended, and some of its results could not be written.

    Attributes:
        solution: the solution that the run has found.
    """

    solution: object = None


class Troubles:
    """Notes files that could not be written, so that a run goes on without them.

    Args:
        tell: called with a sentence at once.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        # For each kind of file the number of failures, and a sentence on the last one.
        self._failures: dict[str, tuple[int, str]] = {}
        self._notes: list[str] = []

    @contextmanager
    def bearing(self, what: str, more: Callable[[], str] = lambda: "the run goes on without it") -> Iterator[None]:
        """Goes on after the `with` block if it fails to write.

        Args:
            what: the kind of file that is written.
            more: the consequence of a failure, as a clause.
        """
        try:
            yield
        except (StorageError, RemoteStorageError) as error:
            count = self._failures.get(what, (0, ""))[0] + 1
            sentence = f"{what}: {error}; {more()}"
            self._failures[what] = count, sentence
            if count in _TOLD:
                self._tell(sentence)

    def note(self, sentence: str) -> None:
        """Notes a part of the result that is missing, which no file is to blame for."""
        self._notes.append(sentence)
        self._tell(sentence)

    @property
    def sentences(self) -> list[str]:
        """One sentence for each kind of file that could not be written, and those that were noted."""
        return self._notes + [
            last if count == 1 else f"{last} (this happened {count:,} times)" for count, last in self._failures.values()
        ]
