"""`outer.rtol: auto`: the optimiser stops where its error is a tenth of the one that the mesh leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..discretisation import Estimator, NoEstimateError
from ..engine.loop import Iterate, Nearness
from ..engine.optimality_gap import GapBound
from ..engine.outer.reduced_objective import Evaluation
from ..objective.convexity import convexity
from ..output.sealed import first_line
from ..pde_problem import PDEProblem
from .presentation import adjoint_of

# The error of the mesh is first estimated where the objective is estimated to be within this share of its value.
_ROUGH = 0.1
# The error of the optimiser as a share of that of the mesh, and the factor by which an estimate of it may be too small.
_SHARE, _DOUBT = 0.1, 3.0


@dataclass(frozen=True, eq=False)
class Standing:
    """A control, its state and its adjoint variable, before the end of a run, as estimates take them."""

    status: str
    objective: float
    control: np.ndarray
    state: np.ndarray
    adjoint: np.ndarray
    problem: PDEProblem


@dataclass(frozen=True, eq=False)
class _Bound:
    """The bound at an evaluation of an iterate, and the bound from which the next step goes on."""

    evaluation: Evaluation
    iteration: int
    bound: GapBound
    base: GapBound


class MovingGoal:
    """How near to its optimum an objective is at an iterate, and has to be: a share of the error of the mesh there.

    The error of the mesh is estimated at the first iterate that is near enough for that, and again at an iterate that
    has reached the goal. Where conjugate gradients minimise a strictly convex objective, the gap is a bound.

    Args:
        problem: the problem that is solved.
        steps: the outer method takes the steps of conjugate gradients.
        estimator: estimates the error of the mesh.
        note: called with a sentence where there is no estimate.
        expected: the error of the mesh if it is known roughly; 0 where it is not.
    """

    def __init__(
        self,
        problem: PDEProblem,
        steps: bool,
        estimator: Estimator,
        note: Callable[[str], None],
        expected: float = 0.0,
    ) -> None:
        self._problem, self._estimator, self._note = problem, estimator, note
        self._convexity = convexity(problem.objective, problem.outer_metric, problem.start()[1]) if steps else 0.0
        self._share = _SHARE if self.bounded else _SHARE / _DOUBT
        self._goal: float | None = self._share * expected if expected else None
        self._bound: _Bound | None = None
        self._at, self._refused = -1, False

    @property
    def bounded(self) -> bool:
        """The gaps are bounds, and not estimates."""
        return self._convexity > 0.0

    def __call__(self, iterate: Iterate) -> Nearness:
        """The goal is 0 where only a small gradient ends the run."""
        value = iterate.evaluation.value
        gap = self._bound_at(iterate).gap if self.bounded else iterate.gap
        if self._refused or not math.isfinite(gap) or (self._goal is None and not gap <= _ROUGH * abs(value)):
            return Nearness(math.inf, 0.0)
        if self._at != iterate.iteration and (self._goal is None or gap <= self._goal):
            self._goal, self._at = self._estimated(iterate), iterate.iteration
        return Nearness(math.inf, 0.0) if self._refused else Nearness(gap, self._goal or 0.0)

    def _bound_at(self, iterate: Iterate) -> GapBound:
        """The bound at an iterate; evaluated again, it is the same point, from which the method begins anew."""
        evaluation, last = iterate.evaluation, self._bound
        value, norm = evaluation.value, evaluation.norm
        begun = GapBound.at(self._convexity, value, norm)
        if last is None or iterate.iteration not in (last.iteration, last.iteration + 1):
            self._bound = _Bound(evaluation, iterate.iteration, begun, begun)
        elif iterate.iteration == last.iteration + 1:
            found = last.base.after(value, norm)
            self._bound = _Bound(evaluation, iterate.iteration, found, found)
        elif evaluation is not last.evaluation:
            again = replace(last.bound, value=value, norm=norm)
            self._bound = _Bound(evaluation, iterate.iteration, again, begun)
        assert self._bound is not None
        return self._bound.bound

    def _estimated(self, iterate: Iterate) -> float:
        problem, v = self._problem, iterate.evaluation.v
        state = problem.state(iterate.oracle.u, v).cpu().numpy()
        adjoint = adjoint_of(problem, iterate, len(state))
        standing = Standing("stopped", iterate.evaluation.objective, v.cpu().numpy(), state, adjoint, problem)
        try:
            return self._share * abs(self._estimator.estimate(standing).value)
        except NoEstimateError as missing:
            reason = str(missing)
        except Exception as error:
            # Code of the user may fail on the refined mesh, though not on this one.
            reason = f"it failed ({first_line(error)})"
        self._note(f"outer.rtol: auto is the default goal, as there is no estimate of the mesh error: {reason}")
        self._refused = True
        return 0.0
