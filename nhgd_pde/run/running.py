"""One run: from the start, or from a checkpoint, to the solution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from ..engine.loop import Iterate, LoopState, Minimum, Status, Stopping
from ..engine.minimise import first_gradient_norm, minimise
from ..engine.oracle import Oracle
from ..engine.roles.failures import RoleError
from ..engine.scenarios.team import ALONE, Team
from ..linalg.factorisation import SingularMatrixError
from ..linalg.stage_log import stage
from ..output.lock import FolderLock
from ..output.names import HISTORY, SOLUTION
from ..output.run_folder import OutputError, RunFolder, read_ended, read_history
from ..problem import Problem
from ..problem_file.errors import ProblemError
from .answer import Answer, Row
from .checkpoint import Checkpoint, Checkpoints
from .gathering import Gathering
from .outcome import Outcome, roles_of, satisfied, traffic_of
from .outer_problem import nominal_of
from .presentation import presentation_of
from .problem_sequence import ProblemSequence
from .recording import FolderRecorder, Follower, Recorder
from .records import Records, history_row
from .stopwatch import Stopwatch
from .troubles import Troubles

if TYPE_CHECKING:
    from torch import Tensor

    from ..discretisation import Estimator
    from ..output.fields import FieldData, Grid
    from ..pde_problem import PDEProblem
    from ..task_problem import TaskProblem
    from .initial_control import Start
    from .judgement import Judgement
    from .outer_problem import OuterProblem
    from .population_start import PopulationStart
    from .solution import Solution


class Run:
    """One run of a problem.

    Args:
        oracle: the oracle of its method, on the processes that take part.
        callback: called with the row of history.csv of every outer iterate.
        interrupted: asked before every evaluation; true stops the run with what it has.
        tell: called with a sentence as soon as there is something to warn of.
        note: called with a sentence on every generation of a population search.
        initial: where to start, see `api.solve`; None: that of the file.
        expected: the error that the mesh leaves in the objective, if it is known roughly; for `outer.rtol: auto`.
    """

    def __init__(
        self,
        problem: Problem | TaskProblem,
        oracle: Oracle,
        callback: Callable[[Row], object] | None,
        interrupted: Callable[[], bool],
        team: Team = ALONE,
        tell: Callable[[str], None] = lambda sentence: None,
        note: Callable[[str], None] = lambda sentence: None,
        initial: np.ndarray | Answer | str | Path | Start | None = None,
        expected: float = 0.0,
    ) -> None:
        self._initial, self._expected = _checked(problem, initial), expected
        self._watch = Stopwatch(problem.counts, problem.seconds)
        self._problem, self._oracle, self._callback = problem, oracle, callback
        judge: Any = problem.method.judge
        self._judge = judge if judge is None or team.size == 1 else replace(judge, team=team)
        self._team, self._states = team, Gathering(oracle, self._judge, team)
        self._stopped = False
        self._interrupted = lambda: team.decided(interrupted() or self._stopped)
        self._tell_at_once, self._troubles = tell, Troubles(tell)
        self._records = Records(list(problem.notices))
        self._recorder, self._presentation = Recorder(), presentation_of(problem)
        self._search = self._population_search(note)

    def solve(self, path: Path | None, resume: bool, lock: FolderLock | None = None) -> Answer:
        """Solves the problem.

        Args:
            path: the run folder; None for a run without one.
            resume: go on from the checkpoint in the folder.
            lock: the lock of the folder; None on a rank that does not write.
        """
        with self._watch.stopped():
            text = None if path is None else self._problem.yaml(path)
        self._sequence = ProblemSequence(self._fitted(), self._problem.method.stopping)
        self._sequence.warm = self._initial is not None
        resumed: Checkpoint | None = None
        with self._team.together():
            if path is not None and text is not None:
                checkpoints = Checkpoints(path, self._oracle, self._problem)
                resumed = self._resumed(path, checkpoints) if resume else None
                self._recorder = self._opened(path, checkpoints, resume, text, lock)
        with self._recorder:
            self._recorder.title(f"resumed: {self._problem}" if resume else str(self._problem))
            if resumed is None:
                self._begin(path is not None)
            with stage("first evaluation"):
                found = self._whole(self._minimised(None if resumed is None else resumed.loop))
            earlier = 0 if resumed is None else resumed.loop.evaluations
            solution = self._presentation.answer(self._outcome(found, self._judged_end(found), earlier, text))
            solution = self._trusted(solution, found.last, path is not None)
            self._recorder.finish(solution, found.last)
            warnings = [*solution.stats["warnings"], *self._troubles.sentences]
            solution = replace(solution, stats={**solution.stats, "warnings": warnings})
            self._recorder.summarise(solution)
        return solution

    def recalled(self, path: Path) -> Answer:
        """The answer of this run, which has ended, from its folder.

        Raises:
            OutputError: its checkpoint is missing, damaged, of another problem, or not that of the last iterate.
        """
        text, summary = read_ended(path)
        self._sequence = ProblemSequence(self._fitted(), self._problem.method.stopping)
        if (path / SOLUTION).is_file():
            return self._recalled_saved(path, text, summary)
        checkpoint = self._resumed(path, Checkpoints(path, self._oracle, self._problem))
        ended = summary.get("outer_iterations")
        reached = None if self._records.last is None else self._records.last.iteration
        if checkpoint is None or reached != ended:
            raise OutputError(f"{path}: expected a checkpoint of iteration {ended}, found one of {reached}")
        loop = checkpoint.loop
        if summary["status"] in ("converged", "stopped"):
            # The checkpoint was written before the multipliers were updated for the last time.
            self._sequence.close_round(loop.current)
        found = self._whole(Minimum(loop.current, loop.first, summary["status"], summary["message"]))
        answer = self._presentation.answer(self._outcome(found, self._judged_end(found), 0, text))
        return replace(answer, message=summary["message"], stats=summary)

    def _recalled_saved(self, path: Path, text: str, summary: Mapping[str, Any]) -> Answer:
        """The answer of a folder that `Answer.save` has written."""
        from .saved_solution import read_saved

        kept = read_saved(path / SOLUTION, self._problem)
        self._sequence.end_at(kept.stage, kept.rounds)
        judged = self._judged(torch.from_numpy(kept.common["control"])) if "uncertainty" in summary else None
        values = kept.values(path, self._problem, text, summary)
        return self._presentation.answer_of(values, self._sequence.current, judged)

    # The beginning

    def _fitted(self) -> tuple[OuterProblem, ...]:
        """The problems of all stages, with kinks of the risk measure rounded as the spread of the objective asks."""
        if self._problem.scenarios is None:
            return cast("tuple[OuterProblem, ...]", self._problem.stages)
        from .judging import fitted

        return tuple(fitted(each, self._team) for each in self._problem.stages)

    def _population_search(self, note: Callable[[str], None]) -> PopulationStart | None:
        if self._problem.population is None:
            return None
        # Other problems are solved without loading what a population needs.
        from .population_start import PopulationStart

        def noted(sentence: str) -> None:
            self._recorder.note(sentence)
            note(sentence)

        return PopulationStart(self._problem, self._watch, self._interrupted, noted)

    def _begin(self, kept: bool) -> None:
        """Finds the start where a population searches for it, and starts the first round; `kept`: there is a folder."""
        if self._search is not None:
            self._search.search(self._recorder.population, kept)
            self._sequence.current = self._search.started(cast(Any, self._sequence.current))
            if not self._search.ended:
                self._interrupted = lambda: True
        if self._initial is not None:
            method = self._problem.method
            norm = partial(
                first_gradient_norm, oracle=self._oracle, outer=method.outer, stopping=self._sequence.stopping
            )
            self._sequence.start_at(self._initial, norm)
        self._sequence.begin()

    def _resumed(self, path: Path, checkpoints: Checkpoints) -> Checkpoint | None:
        """The checkpoint of the folder, with time, stages and records as they were then; None where the run was still
        searching for its start."""
        if self._search is not None:
            taken = self._search.read(path)
            if not (self._search.ended and checkpoints.there):
                self._watch.add(*taken)
                return None
        checkpoint, damage = checkpoints.read(self._sequence.problems)
        self._watch.add(checkpoint.seconds, checkpoint.counts)
        self._sequence.go_on(checkpoint)
        records, placed = self._records, self._sequence.placed
        records.first = checkpoint.first or placed(checkpoint.loop.first)
        records.last = placed(checkpoint.loop.current)
        if self._team.rank == 0:
            if (path / HISTORY).exists():
                records.rows += read_history(path, records.last.iteration)
            if damage:
                records.warnings.append(damage)
                self._tell_at_once(damage)
        return checkpoint

    def _opened(
        self, path: Path, checkpoints: Checkpoints, resumed: bool, text: str, lock: FolderLock | None
    ) -> Recorder:
        every = self._problem.file.spec.output.every
        if self._team.rank:
            return Follower(checkpoints, every, self._frame_of)
        reached, mesh = None, self._problem.file.mesh_arrays()
        if resumed:
            reached = None if self._records.last is None else self._records.last.iteration
            up_to = -1 if reached is None else reached
            folder = RunFolder.resume(path, up_to=up_to, problem_yaml=text, lock=lock, mesh=mesh)
        else:
            folder = RunFolder.create(path, text, lock=lock, mesh=mesh)
        return FolderRecorder(folder, checkpoints, self._troubles, reached, every, self._frame_of)

    # The loop

    def _minimised(self, loop: LoopState | None) -> Minimum:
        """The end of the last problem; of a run that is cut off after its first iterate, the last iterate."""
        try:
            found = self._solve_stages(loop)
        except KeyboardInterrupt as error:
            return self._cut_off(error, "interrupted", "the run was asked to end in the middle of an iteration")
        except RoleError as lost:
            return self._cut_off(lost, "failed", f"{lost}; the last checkpoint can be resumed")
        except (ProblemError, SingularMatrixError) as error:
            # A scenario that has not been looked at before has a coefficient out of its range.
            return self._cut_off(error, "failed", str(error))
        if found.status == "interrupted":
            why = "the callback ended the run" if self._stopped else "the run was asked to end"
            found = replace(found, message=f"{why}; {found.message}")
        return found

    def _solve_stages(self, loop: LoopState | None) -> Minimum:
        """Solves the problems of the run one after the other, each from the solution of the one before."""
        outer, sequence = self._problem.method.outer, self._sequence
        watchers = self._tell, self._interrupted, self._keep
        while True:
            stopping = sequence.stopping
            if sequence.balanced and self._problem.file.spec.outer.rtol == "auto":
                stopping = self._balanced(stopping, nominal_of(sequence.current))
            found = minimise(sequence.current, self._oracle, outer, stopping, *watchers, loop, self._judge)
            ended = sequence.ended(found, self._records.first or found.first, stopping)
            if ended is not None:
                return ended
            loop = None

    def _cut_off(self, error: BaseException, status: Status, message: str) -> Minimum:
        records = self._records
        if records.first is None or records.last is None:
            raise error
        if isinstance(error, KeyboardInterrupt | RoleError):
            records.last = self._states.abandon(records.last)
            if self._states.abandoned:
                records.warnings.append(
                    "without the other ranks there are no statistics of the state, and no judgement"
                )
        return Minimum(records.last, records.first, status, message)

    def _tell(self, iterate: Iterate) -> None:
        iterate = self._sequence.placed(iterate)
        self._sequence.reference = self._sequence.reference or iterate.gradient_norm
        random = self._problem.scenarios is not None
        with self._watch.stopped():
            terms = self._presentation.terms(self._sequence.current, iterate)
            row = history_row(iterate, self._watch.counts, self._watch.seconds, random, terms)
            self._records.add(iterate, row)
            self._recorder.iterate(iterate, row)
            answer = None if self._callback is None else self._callback(row)
            # Comparisons of NumPy have a type of their own.
            self._stopped = self._stopped or (isinstance(answer, bool | np.bool_) and bool(answer))

    def _balanced(self, stopping: Stopping, problem: PDEProblem) -> Stopping:
        """The rules of `outer.rtol: auto`; a problem without an equation has none."""
        if not isinstance(self._problem, Problem):
            return stopping
        from .moving_goal import MovingGoal

        steps = self._problem.method.outer.exact and problem.quadratic
        nearness = MovingGoal(problem, steps, self._estimator, self._recorder.note, self._expected)
        # A start that is a solution is recognised by the bound of its gap.
        return replace(stopping, nearness=nearness, scaled=not nearness.bounded)

    @cached_property
    def _estimator(self) -> Estimator:
        from ..discretisation import Estimator

        assert isinstance(self._problem, Problem)
        return Estimator(self._problem)

    def _keep(self, loop: LoopState, last: bool) -> None:
        every = self._problem.file.spec.output.checkpoint
        if self._search is not None and not self._search.ended:
            return  # A run that is resumed goes on with the search.
        if not last and not (every and loop.current.iteration % every == 0):
            return
        sequence = self._sequence
        checkpoint = Checkpoint(
            loop,
            self._watch.counts,
            self._watch.seconds,
            sequence.stage,
            sequence.before,
            sequence.reference,
            (sequence.rounds, sequence.current) if sequence.current.relaxations else None,
            self._records.first if sequence.before else None,
        )
        with self._watch.stopped():
            self._recorder.checkpoint(checkpoint)

    def _frame_of(self, iterate: Iterate) -> tuple[Grid, FieldData] | None:
        return self._presentation.frame(self._sequence.current, self._states.whole(iterate))

    # The end

    def _whole(self, found: Minimum) -> Minimum:
        """The result as it is reported: from the first iterate of the run to its last, with all states."""
        told = self._records.last or found.last
        if told.evaluation.blended and not found.last.evaluation.blended:
            # The end of the run has been evaluated after its row was written.
            told = self._sequence.placed(found.last)
        first, last = self._records.first or found.first, self._states.end(told)
        message = found.message + satisfied(self._sequence.current, last)
        if self._search is None:
            return replace(found, first=first, last=last, message=message)
        if not self._search.ended:
            return replace(found, first=first, last=last, status="interrupted", message=self._search.sentence)
        return replace(found, first=first, last=last, message=f"{message}; {self._search.sentence}")

    def _trusted(self, solution: Answer, last: Iterate, kept: bool) -> Answer:
        """The answer with an estimate of the error that the mesh leaves; `kept`: there is a run folder."""
        if self._team.size > 1 or not isinstance(self._problem, Problem):
            return solution
        from .trust import wanted, with_trust

        if not wanted(self._problem, kept):
            return solution
        with stage("estimate of the mesh error"):
            return with_trust(self._estimator, cast("Solution", solution), last)

    def _judged_end(self, found: Minimum) -> Judgement | None:
        """The judgement of an answer over scenarios; None where there are none, or no answer."""
        known = found.last.evaluation.finite and not self._states.abandoned
        return self._judged(found.last.evaluation.v) if known else None

    def _judged(self, v: Tensor) -> Judgement | None:
        """The judgement of a control over scenarios; None where there are none."""
        scenarios = self._problem.scenarios
        if scenarios is None:
            return None
        from .judging import judged

        streamed = getattr(self._oracle, "fresh", False)
        try:
            return judged(self._sequence.current, v, scenarios, streamed, self._team)
        except (ProblemError, SingularMatrixError) as error:
            self._records.warnings.append(f"the answer could not be judged: {error}")
            return None

    def _outcome(self, found: Minimum, judged: Judgement | None, earlier: int, text: str | None) -> Outcome:
        sentence = "" if judged is None else judged.sentence(found.last.evaluation)
        return Outcome(
            problem=self._problem,
            presentation=self._presentation,
            solved=self._sequence.current,
            found=replace(found, message=found.message + sentence),
            records=self._records,
            counts=self._watch.counts,
            seconds=self._watch.seconds,
            roles=roles_of(self._oracle),
            ranks=traffic_of(self._team, found.last.evaluations - earlier),
            judgement=judged,
            search={} if self._search is None else self._search.entries(),
            text=text,
            stage=self._sequence.stage,
        )


def _checked(problem: Problem | TaskProblem, initial: np.ndarray | Answer | str | Path | Start | None) -> Start | None:
    """The point to start from; None for that of the file."""
    if initial is None:
        return None
    from .initial_control import checked_start

    return checked_start(problem, initial)
