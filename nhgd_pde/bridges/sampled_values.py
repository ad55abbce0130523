"""The reduced objective over the whole sample of a problem with random inputs: exact adjoints of every scenario."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from ..engine.oracle import Accuracy
from ..methods.sample_average import SampleAverage, SampleAverageState
from .solved_state import StateOptions

if TYPE_CHECKING:
    from ..scenario_problem import ScenarioProblem


@dataclass(frozen=True, eq=False)
class SampledState:
    """The states of all scenarios at a control; the members are those of `SolvedState`."""

    u: Tensor
    v: Tensor
    value: float
    derivative: Tensor
    message: str = ""

    def hessian(self, d: Tensor) -> NoReturn:
        raise NotImplementedError(
            "hessian_product: expected a problem without random inputs, as second derivatives of a risk measure over "
            "scenarios are not there yet; take a method that needs value and derivative alone, such as L-BFGS-B"
        )


class SampleSolver:
    """Evaluates the risk measure over all scenarios, and keeps the last points; see `StateSolver`.

    Args:
        problem: the problem over scenarios.
        options: see `StateOptions`; the tolerance is that of states and adjoints.
    """

    def __init__(self, problem: ScenarioProblem, options: StateOptions) -> None:
        self.problem, self.options = problem, options
        self._goal = options.goal(linear=True)
        self._oracle = SampleAverage("factors", tolerance=self._goal)
        self._state: SampleAverageState | None = None
        self._points: list[SampledState] = []

    def at(self, v: Tensor) -> SampledState:
        found = next((each for each in self._points if torch.equal(each.v, v)), None)
        if found is None:
            found = self._evaluated(v.clone())
            self._points = [*self._points, found][-self.options.kept :]
        return found

    def _evaluated(self, v: Tensor) -> SampledState:
        nothing = v.new_full(self.problem.inner_shape, math.nan)
        refused = "the control has numbers that are not finite"
        message = self.problem.refusal(v) if bool(torch.isfinite(v).all()) else refused
        if message:
            return SampledState(nothing, v, math.inf, torch.full_like(v, math.nan), message)
        state = self._state
        if state is None:
            state = self._oracle.init(self.problem, self.problem.start()[0], v)
        accuracy = Accuracy(self._goal, self._goal)
        evaluation, state = self._oracle.evaluate(self.problem, v, state, accuracy)
        if not evaluation.finite:
            message = evaluation.message or "the objective or its gradient is not finite"
            return SampledState(nothing, v, math.inf, torch.full_like(v, math.nan), message)
        self._state = state
        return SampledState(state.u, v, evaluation.value, evaluation.derivative)
