"""Files that a run could not write while it went on: told when it happens, sparingly, and once more at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..engine.roles.errors import RemoteStorageError
from ..output.storage import StorageError

# Among the failures of one kind, those that are told at once: the first, and then ever fewer.
_TOLD = (1, 10, 100, 1000)


class ResultsLostError(StorageError):
    """A run has ended, and some of its results could not be written.

    Attributes:
        solution: what the run has found.
    """

    solution: object = None


@dataclass
class _Failures:
    count: int
    last: str


class Troubles:
    """Takes note of files that could not be written, so that a run goes on without them.

    Args:
        tell: told a sentence at once.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._failures: dict[str, _Failures] = {}

    @contextmanager
    def bearing(self, what: str, more: Callable[[], str] = lambda: "the run goes on without it") -> Iterator[None]:
        """Go on after the block where it fails to write.

        Args:
            what: that is written, the same for all files of a kind.
            more: what this means, as a clause.
        """
        try:
            yield
        except (StorageError, RemoteStorageError) as error:
            known = self._failures.setdefault(what, _Failures(0, ""))
            known.count += 1
            known.last = f"{what}: {error}; {more()}"
            if known.count in _TOLD:
                self._tell(known.last)

    @property
    def sentences(self) -> list[str]:
        """One for each kind of file that could not be written at least once."""
        return [
            each.last if each.count == 1 else f"{each.last} (this happened {each.count:,} times)"
            for each in self._failures.values()
        ]
