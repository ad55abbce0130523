"""The outer problems that one run solves one after the other.

A continuation has several stages, each of which starts from the solution of the stage before. Bounds of the state add
rounds to the last stage, see `rounds`. All but the last of these problems are solved roughly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..engine.loop import Iterate, Minimum, Stopping
from ..engine.reasons import converged
from .outer_problem import starting_at
from .rounds import following_round, following_stage, impossible, nearly, reported, restored, settled, started

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .initial_control import Start
    from .outer_problem import OuterProblem

# How far the gradient is reduced in a stage of a continuation that is not the last.
_STAGE_RTOL = 1e-2
# How far the gradient is reduced in a round of state bounds: rougher solutions give poor multipliers.
_ROUND_RTOL = 1e-3
# How far the gradient is reduced at least in a round that starts with a violation above the tolerance: a round that
# changes nothing says nothing about the penalty.
_LEAST_REDUCTION = 0.1


class ProblemSequence:
    """The stages and rounds of a run, and the one that is solved now.

    Attributes:
        current: the problem that is solved now.
        stage: number of its stage.
        before: number of outer iterations of all stages and rounds before it.
        rounds: number of rounds that have ended.
        reference: the first gradient norm of the run; 0 before the first evaluation. Of a warm run the norm at the
            start of the file, to which its goal is relative.
        warm: the run starts at another control than that of the file.

    Args:
        stopping: the stopping rule of the last stage.
    """

    def __init__(self, problems: tuple[OuterProblem, ...], stopping: Stopping) -> None:
        self.problems, self._stopping = problems, stopping
        self.current = problems[0]
        self.stage, self.before, self.rounds, self.reference = 0, 0, 0, 0.0
        self.warm = False

    def start_at(self, start: Start, gradient_norm: Callable[[OuterProblem], float]) -> None:
        """Makes another point than that of the file the start of the first stage.

        Args:
            gradient_norm: evaluates a problem at its start.
        """
        self.reference = start.gradient_norm or gradient_norm(started(self.current))
        self.current = starting_at(self.current, start.v, start.u)

    def begin(self) -> None:
        """Starts the first round of the first stage."""
        self.current = started(self.current)

    def go_on(self, checkpoint: Checkpoint) -> None:
        """Goes to the stage and the round of a checkpoint."""
        self.stage, self.before, self.reference = checkpoint.stage, checkpoint.before, checkpoint.reference
        self.warm = self.reference not in (0.0, checkpoint.loop.first.gradient_norm)
        self.current = self.problems[self.stage]
        if checkpoint.rounds is not None:
            self.rounds, self.current = checkpoint.rounds

    def end_at(self, stage: int, rounds: Sequence[Mapping[str, Any]] | None) -> None:
        """Goes to the stage that a run has ended in, with the relaxations of its bounds of the state, if it has any."""
        self.stage, self.current = stage, self.problems[stage]
        if rounds is not None:
            self.current = restored(self.current, list(rounds))

    def close_round(self, last: Iterate) -> None:
        """Updates the multipliers at the end of a round, if there are any.

        Args:
            last: the iterate at which the round has ended.
        """
        if self.current.relaxations:
            self.rounds += 1
            self.current = following_round(self.current, last)

    @property
    def stopping(self) -> Stopping:
        """The stopping rule of the current problem."""
        stopping = self._stopping
        if self.warm and not self.before:
            stopping = replace(stopping, reference=self.reference)
        if self.before:
            # The goal is relative to the gradient at the beginning of the run.
            atol = max(stopping.atol, stopping.rtol * self.reference)
            stopping = replace(stopping, atol=atol, restarts=False)
        if self.current.relaxations and not settled(self.current):
            stopping = replace(stopping, reduction=_LEAST_REDUCTION)
        rtol = _ROUND_RTOL if self._last else _STAGE_RTOL
        return replace(stopping, rtol=max(stopping.rtol, rtol)) if self._rough else stopping

    @property
    def balanced(self) -> bool:
        """Whether the current problem is the last one of the run and without rounds, whose goal may be another one."""
        return self._last and not self.current.relaxations

    @property
    def _last(self) -> bool:
        return self.stage == len(self.problems) - 1

    @property
    def _rough(self) -> bool:
        return not self._last or not nearly(self.current)

    def placed(self, iterate: Iterate) -> Iterate:
        """The iterate as it is reported: with the objective of the file, and counted from the beginning of the run."""
        iterate = reported(self.current, iterate)
        return replace(iterate, iteration=self.before + iterate.iteration) if self.before else iterate

    def ended(self, found: Minimum, first: Iterate, stopping: Stopping) -> Minimum | None:
        """Goes from the current problem, which has ended, to the next one.

        Args:
            stopping: the stopping rule by which the current problem has ended.

        Returns:
            The result of the run; None where there is another problem to solve.
        """
        if found.status not in ("converged", "stopped"):
            return found
        if self._last:
            result = self._round_ended(found, first, stopping)
            if result is not None:
                return result
        else:
            self.stage += 1
            self.current = following_stage(self.current, found.last, self.problems[self.stage])
        self.before += found.last.iteration + 1
        return None

    def _round_ended(self, found: Minimum, first: Iterate, stopping: Stopping) -> Minimum | None:
        before, rough = self.current, self._rough
        if not before.relaxations:
            return found
        self.close_round(found.last)
        reason = impossible(self.current, self.rounds, found.last)
        if reason:
            return replace(found, status="stopped", message=reason)
        if settled(self.current) and not rough:
            if found.status != "converged":
                return found
            goal = max(stopping.rtol * first.gradient_norm, stopping.atol)
            return replace(found, message=converged(reported(before, found.last), first, goal, stopping))
        return found if found.last.iteration >= stopping.iterations else None
