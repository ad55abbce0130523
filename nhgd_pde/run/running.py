"""One run: the outer loop with its records, its checkpoints and its clock, and what it found."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engine.loop import Iterate, LoopState, Minimum, Stopping
from ..engine.minimise import minimise
from ..engine.oracle import Oracle, Unsolved
from ..engine.reasons import converged
from ..engine.roles.link import RoleError
from ..engine.scenarios.scenario_nhgd import ScenarioState
from ..engine.scenarios.team import ALONE, Team
from ..linalg.counts import Counts
from ..linalg.factorisation import SingularMatrixError
from ..output.lock import FolderLock
from ..output.run_folder import RunFolder, read_history_up_to
from ..pde_problem import PDEProblem
from ..problem import Problem
from ..problem_file.errors import ProblemError
from ..scenario_problem import ScenarioProblem
from .checkpoint import Checkpoint, Checkpoints, Origin
from .drawing import Fields, state_fields
from .fingerprint import fingerprint
from .history import history_row
from .judgement import Judgement, fitted, judge
from .outcome import roles_of, satisfied, solution_of
from .ranks import report, shared
from .recording import Follower, Recorder
from .rounds import following_round, following_stage, impossible, nearly, reported, settled, started
from .scenario_fields import statistics_fields
from .solution import Row, Solution
from .troubles import Troubles

# How far the gradient is reduced in a stage of a continuation that is not the last.
_STAGE_RTOL = 1e-2
# How far the gradient is reduced in a round of state bounds: rougher solutions give poor multipliers.
_ROUND_RTOL = 1e-3
# How far it is reduced at least in a round that starts with a violation above the tolerance: a round that changes
# nothing says nothing of the penalty.
_LEAST_REDUCTION = 0.1
# Fresh scenarios that judge an answer where the file does not say: as many as the sample has, within these.
_LEAST_FRESH, _MOST_FRESH = 100, 1000


class Run:
    """One run: the loop, its records and its clock, which stands still while records are made."""

    def __init__(
        self,
        problem: Problem,
        oracle: Oracle,
        callback: Callable[[Row], None] | None,
        interrupted: Callable[[], bool],
        team: Team = ALONE,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._problem, self._oracle, self._callback = problem, oracle, callback
        self._judge = problem.method.judge if team.size == 1 else shared(problem.method.judge, team)
        self._team, self._whole = team, team.size == 1
        self._interrupted = lambda: team.decided(interrupted())
        self._tell_at_once, self._troubles = tell, Troubles(tell)
        self._problems = problem.stages
        self._current = self._problems[0]
        self._stage, self._before_stage, self._reference, self._rounds = 0, 0, 0.0, 0
        self._alone = False
        self._rows: list[Row] = []
        self._first: Iterate | None = None
        self._last: Iterate | None = None
        self._warnings: list[str] = list(problem.pde.notices)
        self._recorder: Recorder | Follower | None = None
        self._aside, self._earlier = 0.0, problem.seconds
        self._start = time.perf_counter()
        self._before = replace(problem.pde.counts)

    @property
    def _seconds(self) -> float:
        return self._earlier + time.perf_counter() - self._start - self._aside

    @property
    def _counts(self) -> Counts:
        return self._problem.pde.counts - self._before

    def solve(self, path: Path | None, resume: bool, lock: FolderLock | None = None) -> Solution:
        """Solve the problem.

        Args:
            path: the run folder; None for a run without one.
            resume: go on from the checkpoint in the folder.
            lock: of the folder; None on a rank that does not write.
        """
        problem = self._problem
        text = problem.yaml()
        self._problems = tuple(
            fitted(each, self._team) if isinstance(each, ScenarioProblem) else each for each in self._problems
        )
        self._current = self._problems[0]
        with self._team.together():
            if path is not None:
                self._origin = Origin(problem.file.spec.model_dump(mode="json"), fingerprint(problem))
                self._checkpoints = Checkpoints(path)
            resumed = self._resumed(path) if resume and path is not None else None
            if path is not None:
                self._recorder = self._opened(path, resumed, text, lock)
        with self._recorder or nullcontext():
            if self._recorder is not None:
                self._recorder.title(f"resumed: {problem}" if resumed else str(problem))
            before = resumed.evaluations if resumed is not None else 0
            if resumed is None:
                self._current = started(self._current)
            try:
                found = self._stages(resumed)
            except KeyboardInterrupt:
                if self._first is None or self._last is None:
                    raise
                self._abandon()
                found = Minimum(self._last, self._first, "interrupted", "interrupted in the middle of an iteration")
            except RoleError as lost:
                if self._first is None or self._last is None:
                    raise
                self._abandon()
                found = Minimum(self._last, self._first, "failed", f"{lost}; the last checkpoint can be resumed")
            except (ProblemError, SingularMatrixError) as error:
                # A scenario that no one had looked at before has a coefficient out of its range.
                if self._first is None or self._last is None:
                    raise
                found = Minimum(self._last, self._first, "failed", str(error))
            found = replace(found, first=self._first or found.first, last=self._gathered(self._last or found.last))
            self._whole = True
            found = replace(found, message=found.message + satisfied(self._current, found.last))
            judged = self._judged(found)
            warnings = list(self._warnings)
            more: dict[str, Any] = {
                "warnings": warnings,
                "roles": roles_of(self._oracle),
                "ranks": report(self._team, found.last.evaluations - before),
            }
            if judged is not None:
                more["uncertainty"] = judged.summary()
                found = replace(found, message=found.message + judged.sentence(found.last.evaluation))
            solution = solution_of(
                self._current, problem, found, tuple(self._rows), self._counts, self._seconds, text, more, judged
            )
            if self._recorder is not None:
                self._recorder.finish(solution, found.last)
                warnings += self._troubles.sentences
                self._recorder.summarise(solution)
        return solution

    def _opened(self, path: Path, resumed: LoopState | None, text: str, lock: FolderLock | None) -> Recorder | Follower:
        every = self._problem.file.spec.output.every
        if self._team.rank:
            return Follower(every, self._fields_of)
        last = None
        if resumed is not None:
            last = self._before_stage + resumed.current.iteration
            folder = RunFolder.resume(path, up_to=last, problem_yaml=text, lock=lock)
        else:
            folder = RunFolder.create(path, text, lock=lock)
        return Recorder(self._problem.pde, folder, self._checkpoints, self._troubles, last, every, self._fields_of)

    def _gathered(self, iterate: Iterate) -> Iterate:
        """With the scenarios of all ranks on rank 0; of an abandoned team, with the nominal one."""
        # The states at a start that is a solution may be those of the judge.
        judged = isinstance(iterate.oracle, ScenarioState)
        oracle: Any = self._judge if judged and self._judge is not None else self._oracle
        if self._whole or isinstance(iterate.oracle, Unsolved):
            return iterate
        return replace(iterate, oracle=oracle.whole(iterate.oracle))

    def _abandon(self) -> None:
        """Go on without the other ranks, which are lost or left where they are."""
        oracle: Any = self._oracle
        if not self._whole and self._last is not None and not isinstance(self._last.oracle, Unsolved):
            self._last = replace(self._last, oracle=oracle.bare(self._last.oracle))
            self._warnings.append("without the other ranks there are no statistics of the state, and no judgement")
            self._whole, self._alone = True, True

    def _stages(self, resumed: LoopState | None) -> Minimum:
        """Solve the problems of a continuation one after the other, each from the solution of the one before."""
        while True:
            last = self._stage == len(self._problems) - 1
            rough = not last or not nearly(self._current)
            stopping = self._stopping((_ROUND_RTOL if last else _STAGE_RTOL) if rough else 0.0)
            found = minimise(
                self._current,
                self._oracle,
                self._problem.method.outer,
                stopping,
                self._tell,
                self._interrupted,
                self._keep,
                resumed,
                self._judge,
            )
            if found.status not in ("converged", "stopped"):
                return found
            if not last:
                self._stage += 1
                following = following_stage(self._current, found.last, self._problems[self._stage])
            else:
                ended, following = self._round_ended(found, rough, stopping)
                if ended is not None:
                    return ended
            resumed = None
            self._before_stage += found.last.iteration + 1
            self._current = following

    def _stopping(self, rtol: float) -> Stopping:
        """The stopping rule of the run, or a rougher one."""
        stopping = self._problem.method.stopping
        if self._reference:
            # The goal is relative to the gradient at the beginning of the run.
            atol = max(stopping.atol, stopping.rtol * self._reference)
            stopping = replace(stopping, atol=atol, restarts=False)
        if self._current.relaxations and not settled(self._current):
            stopping = replace(stopping, reduction=_LEAST_REDUCTION)
        return replace(stopping, rtol=max(stopping.rtol, rtol))

    def _round_ended(
        self, found: Minimum, rough: bool, stopping: Stopping
    ) -> tuple[Minimum | None, PDEProblem | ScenarioProblem]:
        """The result of the run, None if it goes on, and the problem of the next round."""
        current = self._current
        if not current.relaxations:
            return found, current
        self._rounds += 1
        self._current = following = following_round(current, found.last)
        reason = impossible(following, self._rounds, found.last)
        if reason:
            return replace(found, status="stopped", message=reason), following
        if settled(following) and not rough:
            last, first = reported(current, found.last), self._first or found.first
            if found.status == "converged":
                goal = max(stopping.rtol * first.gradient_norm, stopping.atol)
                found = replace(found, message=converged(last, first, goal, stopping))
            return found, following
        if found.last.iteration >= stopping.iterations:
            return found, following
        return None, following

    def _fields_of(self, iterate: Iterate) -> Fields:
        """The fields of the state at an iterate."""
        iterate = self._gathered(iterate)
        problem, u, v = self._current, iterate.oracle.u, iterate.evaluation.v
        state = problem.state(u, v).cpu().numpy()
        if not isinstance(problem, ScenarioProblem):
            return state_fields(problem, state)
        weights = problem.weights[: len(state)].cpu().numpy()
        threshold = self._problem.file.spec.output.exceedance
        return statistics_fields(problem.nominal, state, weights / weights.sum(), threshold)

    def _judged(self, found: Minimum) -> Judgement | None:
        """The answer over scenarios, judged by fresh ones; None where there are none, or no answer."""
        problem, scenarios = self._current, self._problem.scenarios
        if not isinstance(problem, ScenarioProblem) or scenarios is None or not found.last.evaluation.finite:
            return None
        if self._alone:
            return None
        fresh = scenarios.spec.validation
        count = min(max(len(problem.z), _LEAST_FRESH), _MOST_FRESH) if fresh == "auto" else int(fresh)
        try:
            judged = judge(problem.relaxed(()), found.last.evaluation.v, count, scenarios.spec.confidence, self._team)
        except (ProblemError, SingularMatrixError) as error:
            self._warnings.append(f"the answer could not be judged: {error}")
            return None
        streamed = getattr(self._oracle, "fresh", False)
        return replace(judged, sample=problem.z, inputs=scenarios.inputs, streamed=streamed)

    def _resumed(self, path: Path) -> LoopState:
        checkpoint, damage = self._checkpoints.read(self._oracle, self._problems, self._origin)
        if damage and not self._team.rank:
            self._warnings.append(damage)
            self._tell_at_once(damage)
        loop = checkpoint.loop
        self._stage, self._before_stage = checkpoint.stage, checkpoint.before
        self._reference = checkpoint.reference
        self._current = self._problems[self._stage]
        if checkpoint.rounds is not None:
            self._rounds, self._current = checkpoint.rounds
        self._first, self._last = checkpoint.first or self._placed(loop.first), self._placed(loop.current)
        reached = self._last.iteration
        if not self._team.rank:
            self._rows += read_history_up_to(path, reached)
        self._earlier += checkpoint.seconds
        for name, done in checkpoint.counts.as_dict().items():
            setattr(self._before, name, getattr(self._before, name) - done)
        return loop

    def _placed(self, iterate: Iterate) -> Iterate:
        """The iterate, counted from the beginning of the run, with the objective that is reported."""
        iterate = reported(self._current, iterate)
        return replace(iterate, iteration=self._before_stage + iterate.iteration) if self._before_stage else iterate

    def _tell(self, iterate: Iterate) -> None:
        iterate = self._placed(iterate)
        self._reference = self._reference or iterate.gradient_norm
        row = history_row(iterate, self._counts, self._seconds, self._problem.scenarios is not None)
        began = time.perf_counter()
        self._first, self._last = self._first or iterate, iterate
        self._rows.append(row)
        warning = iterate.evaluation.warning
        # A warning that differs from an earlier one in its numbers only is the same.
        if warning and not any(warning.split()[0:4] == told.split()[0:4] for told in self._warnings):
            self._warnings.append(warning)
        if self._recorder is not None:
            self._recorder.iterate(iterate, row)
        if self._callback is not None:
            self._callback(row)
        self._aside += time.perf_counter() - began

    def _keep(self, loop: LoopState, last: bool) -> None:
        """Write a checkpoint where one is due."""
        every = self._problem.file.spec.output.checkpoint
        if self._recorder is None or not (last or (every and loop.current.iteration % every == 0)):
            return
        checkpoint = Checkpoint(
            loop,
            self._counts,
            self._seconds,
            self._stage,
            self._before_stage,
            self._reference,
            (self._rounds, self._current) if self._current.relaxations else None,
            self._first if self._before_stage else None,
        )
        began = time.perf_counter()
        self._recorder.checkpoint(self._oracle, self._origin, checkpoint)
        self._aside += time.perf_counter() - began
