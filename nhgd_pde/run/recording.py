"""Writes a run into its folder while it goes on, and keeps its own time apart from the run's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from ..engine.loop import Iterate
from ..engine.oracle import Oracle
from ..output.fields import FieldData
from ..output.run_folder import RunFolder
from ..pde_problem import PDEProblem
from .checkpoint import Checkpoint, checkpoint_content, write_checkpoint
from .drawing import Fields, control_fields, density_fields, output_grid
from .solution import Row, Solution


class Recorder:
    """History, fields and summary of one run.

    Args:
        problem: what is solved.
        folder: the open run folder.
        every: outer iterations between fields; 0 writes final ones only.
        states: the fields of the state at an iterate.
    """

    def __init__(self, problem: PDEProblem, folder: RunFolder, every: int, states: Callable[[Iterate], Fields]) -> None:
        self._problem, self._folder, self._every, self._states = problem, folder, every, states
        self._grid = output_grid(problem)
        self._written = -1
        self.seconds = 0.0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.close()

    def title(self, text: str) -> None:
        self._folder.log(text)

    def iterate(self, iterate: Iterate, row: Row) -> None:
        """Record one outer iterate."""
        start = time.perf_counter()
        self._folder.append_history(row)
        if self._every and iterate.iteration % self._every == 0:
            self._fields(iterate)
        self.seconds += time.perf_counter() - start

    def checkpoint(self, oracle: Oracle, spec: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        """Write a checkpoint, after everything that it must not be ahead of."""
        start = time.perf_counter()
        write_checkpoint(self._folder.path, checkpoint_content(oracle, spec, checkpoint))
        self.seconds += time.perf_counter() - start

    def _fields(self, iterate: Iterate) -> None:
        control = iterate.evaluation.v.cpu().numpy()
        point, cell = control_fields(self._problem, control)
        more_points, more_cells = density_fields(self._problem, control)
        point = {**self._states(iterate), **point, **more_points}
        data = FieldData(point=point, cell={**cell, **more_cells})
        self._folder.fields.add(iterate.iteration, float(iterate.iteration), self._grid, data)
        self._written = iterate.iteration

    def finish(self, solution: Solution, last: Iterate) -> None:
        """Write the last fields, final.vtu and the series in time, then the log's last line."""
        start = time.perf_counter()
        if self._every and last.iteration != self._written:
            self._fields(last)
        self._folder.write_final(*solution.fields())
        self._folder.write_evolution(solution.frames())
        if solution.judgement is not None:
            self._folder.write_scenarios(solution.judgement.rows())
        self._folder.log(f"{solution.status}: {solution.message}")
        self.seconds += time.perf_counter() - start

    def summarise(self, solution: Solution) -> None:
        """Write summary.json, with the time that output took."""
        self._folder.write_summary({**solution.stats, "seconds_output": self.seconds})


class Follower:
    """The recorder of a rank that writes nothing: it takes part in gathering what rank 0 writes.

    Args:
        every: outer iterations between fields; 0 writes final ones only.
        states: the fields of the state at an iterate.
    """

    seconds = 0.0

    def __init__(self, every: int, states: Callable[[Iterate], Fields]) -> None:
        self._every, self._states = every, states

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def title(self, text: str) -> None:
        pass

    def iterate(self, iterate: Iterate, row: Row) -> None:
        if self._every and iterate.iteration % self._every == 0:
            self._states(iterate)

    def checkpoint(self, oracle: Oracle, spec: Mapping[str, Any], checkpoint: Checkpoint) -> None:
        checkpoint_content(oracle, spec, checkpoint)

    def finish(self, solution: Solution, last: Iterate) -> None:
        pass

    def summarise(self, solution: Solution) -> None:
        pass
