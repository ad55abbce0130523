"""The runs of a study that are made now, beside those that are known from an earlier session."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from ..problem_file.errors import ProblemError
from ..problem_file.loading import ProblemFile
from .designs import PlannedRun, Row, rounds
from .one_run import Record, RunTask
from .study_file import StudyFile
from .study_folder import KnownRun, StudyFolder, folder_name, mark_of
from .table_rows import ended, row_of
from .workers import Workers

# Seconds between two looks at whether the study is to stop.
_PAUSE = 0.1
# The time between two writings of the table, as a multiple of the time that one takes.
_SPARING = 20.0


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A run whose problem has been read, and by what it is recognised."""

    run: PlannedRun
    problem: ProblemFile
    mark: str
    folder: str


class Session:
    """One session of a study.

    Args:
        workers: make the runs.
        interrupted: true ends the session.
        callback: called with the row of every run that has ended.
        retry: runs that have failed in an earlier session are made again.
        problems: those of the first runs, as far as they are known.

    Attributes:
        known: the runs that have ended, by the marks of their problems.
    """

    def __init__(
        self,
        file: StudyFile,
        folder: StudyFolder,
        workers: Workers,
        interrupted: Callable[[], bool],
        callback: Callable[[Row], object],
        retry: bool,
        problems: Sequence[ProblemFile],
    ) -> None:
        self._file, self._folder, self._workers = file, folder, workers
        self._interrupted, self._callback, self._problems = interrupted, callback, problems
        over = ("converged", "stopped") if retry else ("converged", "stopped", "failed")
        self.known = {mark: each for mark, each in folder.known.items() if each["record"]["status"] in over}
        self._rows: dict[int, Row] = {}
        self._after: dict[int, int | None] = {}
        self._marks: Counter[str] = Counter()
        self._stopped, self._written, self._cost = False, 0.0, 0.0

    @property
    def rows(self) -> list[Row]:
        """The rows of all runs so far, in their order."""
        return [self._rows[number] for number in sorted(self._rows)]

    def make(self) -> None:
        """Makes the runs, round by round, until the end or until the study is stopped."""
        plan = rounds(self._file.spec)
        try:
            runs = next(plan)
            while True:
                self._make_round(runs)
                if self._stopped:
                    return
                runs = plan.send([self._rows[run.number] for run in runs])
        except StopIteration:
            return
        finally:
            plan.close()

    def _make_round(self, runs: Sequence[PlannedRun]) -> None:
        self._after |= {run.number: run.after for run in runs}
        left = [each for run in runs if (each := self._prepared(run)) is not None]
        making: dict[Future[Record], _Prepared] = {}
        while left or making:
            self._go_on(left, making)
            for future in [future for future in making if future.done()]:
                self._note(making.pop(future), future.result())
            if not self._stopped and self._interrupted():
                self._stop()
            if self._stopped:
                for each in left:
                    self._note(each, {"status": "pending", "message": "not begun"})
                left.clear()

    def _go_on(self, left: list[_Prepared], making: dict[Future[Record], _Prepared]) -> None:
        """Begins runs, and waits a little; of a session that is to stop, until all runs have ended."""
        try:
            if not self._stopped:
                self._begin(left, making)
            wait(making, None if self._stopped else _PAUSE, FIRST_COMPLETED)
        except KeyboardInterrupt:
            if self._stopped:
                raise
            self._stop()

    def _stop(self) -> None:
        self._stopped = True
        self._workers.stop()

    def _prepared(self, run: PlannedRun) -> _Prepared | None:
        """A run that is to be made; None if it is known already, or its problem is wrong."""
        try:
            known_problem = run.number <= len(self._problems)
            problem = self._problems[run.number - 1] if known_problem else self._file.problem_of(run.settings)
        except ProblemError as error:
            record = {"status": "failed", "message": str(error).replace("\n", "; ")}
            self._add(run, record, "", None)
            return None
        mark = mark_of(problem)
        self._marks[mark] += 1
        if self._marks[mark] > 1:
            mark = f"{mark}-{self._marks[mark]}"  # The same problem once more.
        known = self.known.get(mark)
        if known is not None:
            self._add(run, known["record"], known["folder"], problem)
            return None
        return _Prepared(run, problem, mark, folder_name(run))

    def _begin(self, left: list[_Prepared], making: dict[Future[Record], _Prepared]) -> None:
        """Begins as many runs as there is room for."""
        for each in [each for each in left if each.run.after is None or each.run.after in self._rows]:
            if len(making) >= self._workers.size:
                return
            left.remove(each)
            before = self._before(each.run)
            initial = None if before is None else self._folder.path / before["folder"]
            making[self._workers.submit(RunTask(each.problem, self._folder.path / each.folder, initial))] = each

    def _before(self, run: PlannedRun) -> Row | None:
        """The nearest run before a run, along its chain, that has ended with an answer."""
        number = run.after
        while number is not None and not ended(self._rows[number]):
            number = self._after.get(number)
        return None if number is None else self._rows[number]

    def _note(self, each: _Prepared, record: Record) -> None:
        before = self._before(each.run) if each.run.after in self._rows else None
        start = "cold" if before is None else before["folder"]
        record = {**record, "start": record.get("start") or start}
        if record["status"] not in ("interrupted", "pending"):
            self.known[each.mark] = KnownRun(folder=each.folder, record=record)
        elif record["status"] == "interrupted" and not self._stopped:
            self._stop()
        self._add(each.run, record, each.folder, each.problem)

    def _add(self, run: PlannedRun, record: Record, folder: str, problem: ProblemFile | None) -> None:
        self._rows[run.number] = row_of(run, record, folder, problem)
        if record["status"] != "pending":
            self._callback(self._rows[run.number])
        began = time.monotonic()
        if began - self._written >= _SPARING * self._cost:
            self._folder.keep(self.known, self.rows, {})
            self._written = time.monotonic()
            self._cost = self._written - began
