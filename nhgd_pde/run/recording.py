"""Recorders: they write a run into its folder while it goes on, and measure the time that this takes.

A file that cannot be written does not end a run, which warns. At the end it is an error, which carries the solution.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..engine.loop import Iterate
from ..output.fields import FieldData, Grid
from ..output.names import POPULATION
from ..output.run_folder import RunFolder
from ..output.sealed import write_sealed
from ..output.storage import StorageError
from .answer import Answer, Row
from .checkpoint import Checkpoint, Checkpoints
from .troubles import ResultsLostError, Troubles


class Recorder:
    """The records of a run without a folder: none."""

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the records."""

    def title(self, text: str) -> None:
        """Writes the first line of the log."""

    def note(self, text: str) -> None:
        """Writes a further line of the log."""

    def population(self, content: Mapping[str, Any]) -> None:
        """Writes the state of a population search."""

    def iterate(self, iterate: Iterate, row: Row) -> None:
        """Records an outer iterate and its row of the history."""

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint."""

    def finish(self, solution: Answer, last: Iterate) -> None:
        """Writes the last fields, the files of the result and the last line of the log."""

    def summarise(self, solution: Answer) -> None:
        """Writes summary.json, with the time that output took.

        Raises:
            ResultsLostError: this or another result could not be written.
        """


@dataclass
class FolderRecorder(Recorder):
    """Writes history, fields, checkpoints and summary of one run into its folder.

    Attributes:
        _reached: the iteration of the checkpoint that the run has gone on from; None for a new run.
        _every: outer iterations between fields; 0 writes final ones only.
        _frame: the fields of an iterate, or None.
    """

    _folder: RunFolder
    _checkpoints: Checkpoints
    _troubles: Troubles
    _reached: int | None
    _every: int
    _frame: Callable[[Iterate], tuple[Grid, FieldData] | None]
    _lost: list[StorageError] = field(default_factory=list)
    _written: int = -1
    _seconds: float = 0.0

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Adds the seconds of a block to those that output has taken."""
        start = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - start

    def __exit__(self, *error: object) -> None:
        self._folder.close()

    def title(self, text: str) -> None:
        with self._troubles.bearing("run.log"):
            self._folder.log(text)

    note = title

    def population(self, content: Mapping[str, Any]) -> None:
        with self._timed(), self._troubles.bearing("population", lambda: "the search goes on"):
            self._folder.check()
            write_sealed(self._folder.path / POPULATION, content)

    def iterate(self, iterate: Iterate, row: Row) -> None:
        with self._timed():
            with self._troubles.bearing("history.csv", lambda: "its rows wait until they can be written"):
                self._folder.append_history(row)
            if self._every and iterate.iteration % self._every == 0:
                self._fields(iterate)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        # The history is completed first, as a checkpoint must not be ahead of it.
        with self._timed(), self._troubles.bearing("checkpoint", lambda: f"the run goes on; {self._resumable()}"):
            content = self._checkpoints.content(checkpoint)
            self._folder.complete_history()
            self._checkpoints.write({**content, "history": self._folder.history_extent})
            self._reached = checkpoint.before + checkpoint.loop.current.iteration

    def _resumable(self) -> str:
        """What a later run can go on from, as a clause."""
        if self._reached is None:
            return "there is no checkpoint yet that --resume could go on from"
        return f"--resume goes on from the checkpoint of iteration {self._reached}"

    def _fields(self, iterate: Iterate) -> None:
        frame = self._frame(iterate)
        if frame is None:
            return
        with self._troubles.bearing("fields"):
            self._folder.check()
            self._folder.fields.add(iterate.iteration, float(iterate.iteration), *frame)
            self._written = iterate.iteration

    @contextmanager
    def _result(self) -> Iterator[None]:
        """Go on with the other results where one cannot be written."""
        try:
            yield
        except StorageError as error:
            self._lost.append(error)

    def finish(self, solution: Answer, last: Iterate) -> None:
        with self._timed():
            if self._every and last.iteration != self._written:
                self._fields(last)
            with self._result():
                self._folder.complete_history()
            solution.write(self._folder, self._result)
            for text in self._folder.warnings:
                self._troubles.note(text)
            with self._troubles.bearing("run.log"):
                self._folder.log(f"{solution.status}: {solution.message}")
                if "errors" in solution.stats:
                    # Loaded here, because most solves in memory do without it.
                    from .accuracy_words import trust_sentence

                    self._folder.log(trust_sentence(solution.stats))

    def summarise(self, solution: Answer) -> None:
        with self._result():
            self._folder.write_summary({**solution.stats, "seconds_output": self._seconds})
        if self._lost:
            text = "; ".join(dict.fromkeys(map(str, self._lost)))
            again = "solve has to be run again"
            if self._reached is not None:
                again = f"{self._resumable()} and writes the results"
            lost = ResultsLostError(f"{text}; the run has ended as {solution.status}, {again}")
            lost.solution = solution
            raise lost


@dataclass
class Follower(Recorder):
    """The recorder of a rank that writes nothing: it takes part in gathering what rank 0 writes.

    Attributes:
        _every: outer iterations between fields; 0 writes final ones only.
        _frame: the fields of an iterate.
    """

    _checkpoints: Checkpoints
    _every: int
    _frame: Callable[[Iterate], object]

    def iterate(self, iterate: Iterate, row: Row) -> None:
        if self._every and iterate.iteration % self._every == 0:
            self._frame(iterate)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        self._checkpoints.content(checkpoint)
