"""`outer.rtol: auto`: the optimiser stops where its error is a tenth of the one that the mesh leaves.

The run is first solved roughly. There the error of the mesh is estimated, and the run goes on until the objective is
estimated to be a tenth of that above its optimum. The estimate is made again at the end, which may move the goal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..discretisation import Estimator, NoEstimateError
from ..engine.loop import Minimum, Stopping
from ..engine.scales import UNKNOWN
from ..pde_problem import PDEProblem
from .presentation import adjoint_of

# The relative gradient at which the error of the mesh is first estimated.
_ROUGH = 1e-2
# The error of the optimiser as a share of that of the mesh, and the factor by which estimates of it may be too small.
_SHARE, _DOUBT = 0.1, 3.0
# The goal is moved at most so many times.
_MOST = 5


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
    """The goals of a run, one after the other.

    Args:
        estimator: estimates the error of the mesh.
        note: called with a sentence where there is no estimate.
        expected: the error of the mesh if it is known roughly; 0 where it is not.
    """

    def __init__(self, estimator: Estimator, note: Callable[[str], None], expected: float = 0.0) -> None:
        self._estimator, self._note = estimator, note
        self._gap, self._moved, self._given_up = _SHARE / _DOUBT * expected, 0, False

    def rule(self, stopping: Stopping) -> Stopping:
        """The stopping rule of the present goal."""
        if self._given_up:
            return stopping
        return replace(stopping, gap=self._gap) if self._gap else replace(stopping, rtol=max(stopping.rtol, _ROUGH))

    def goes_on(self, problem: PDEProblem, found: Minimum, whole: Stopping) -> bool:
        """Whether the run goes on with another goal, after it has ended by the present one.

        Args:
            whole: the stopping rule of a run to the last digit.
        """
        last, first = found.last, found.first
        done = whole.small(last, whole.goal(first.gradient_norm, UNKNOWN))
        if found.status != "converged" or self._given_up or done or self._moved == _MOST:
            return False
        state = problem.state(last.oracle.u, last.evaluation.v).cpu().numpy()
        control, adjoint = last.evaluation.v.cpu().numpy(), adjoint_of(problem, last, len(state))
        try:
            standing = Standing(found.status, last.evaluation.objective, control, state, adjoint, problem)
            error = abs(self._estimator.estimate(standing).value)
        except NoEstimateError as missing:
            self._note(f"outer.rtol: auto is {whole.rtol:g}, as there is no estimate of the mesh error: {missing}")
            self._given_up = True
            return True
        self._gap, self._moved = _SHARE / _DOUBT * error, self._moved + 1
        return last.gap > self._gap
