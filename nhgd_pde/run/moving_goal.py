"""`outer.rtol: auto`: the optimiser stops where its error is a tenth of the one that the mesh leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..discretisation import Estimator, NoEstimateError
from ..engine.loop import Iterate
from ..output.sealed import first_line
from ..pde_problem import PDEProblem
from .presentation import adjoint_of

# The error of the mesh is first estimated where the objective is estimated to be within this share of its value.
_ROUGH = 0.1
# The error of the optimiser as a share of that of the mesh, and the factor by which estimates of it may be too small.
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


class MovingGoal:
    """How near to its optimum an objective has to be, at an iterate: a share of the error of the mesh there.

    The error is estimated at the first iterate that is near enough for that, and again at an iterate that has reached
    the goal.

    Args:
        problem: the problem that is solved.
        estimator: estimates the error of the mesh.
        note: called with a sentence where there is no estimate.
        expected: the error of the mesh if it is known roughly; 0 where it is not.
    """

    def __init__(
        self, problem: PDEProblem, estimator: Estimator, note: Callable[[str], None], expected: float = 0.0
    ) -> None:
        self._problem, self._estimator, self._note = problem, estimator, note
        self._gap: float | None = _SHARE / _DOUBT * expected if expected else None
        self._at, self._refused = -1, False

    def __call__(self, iterate: Iterate) -> float:
        """The largest gap with which the run ends; 0 where only a small gradient ends it."""
        value, gap = iterate.evaluation.value, iterate.gap
        if self._refused or not math.isfinite(gap):
            return 0.0
        if self._gap is None and not gap <= _ROUGH * abs(value):
            return 0.0
        if self._at != iterate.iteration and (self._gap is None or gap <= self._gap):
            self._gap, self._at = self._estimated(iterate), iterate.iteration
        return self._gap or 0.0

    def _estimated(self, iterate: Iterate) -> float:
        problem, v = self._problem, iterate.evaluation.v
        state = problem.state(iterate.oracle.u, v).cpu().numpy()
        adjoint = adjoint_of(problem, iterate, len(state))
        standing = Standing("stopped", iterate.evaluation.objective, v.cpu().numpy(), state, adjoint, problem)
        try:
            return _SHARE / _DOUBT * abs(self._estimator.estimate(standing).value)
        except NoEstimateError as missing:
            reason = str(missing)
        except Exception as error:
            # Code of the user may fail on the refined mesh, though not on this one.
            reason = f"it failed ({first_line(error)})"
        self._note(f"outer.rtol: auto is the default goal, as there is no estimate of the mesh error: {reason}")
        self._refused = True
        return 0.0
