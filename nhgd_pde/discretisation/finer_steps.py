"""The same evolution with steps of half the length, and functions of the coarse steps as functions of the fine ones.

Between two levels the state of the implicit Euler method is constant, that of the method of Crank and Nicolson linear.
Adjoint variables belong to steps and are constant in each: those of the implicit Euler method are values at the
beginning of the step, those of Crank and Nicolson in its middle. Multipliers, such as pressures, belong to steps as
well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from ..building.blueprint import Blueprint
from ..building.frame import Frame
from ..control.controls import ControlSpace
from ..pde.evolution import EvolutionEquation
from ..pde_problem import PDEProblem
from ..problem_file.loading import ProblemFile
from .enriched import Orders


@dataclass(frozen=True, eq=False)
class FinerSteps:
    """An evolution with steps of half the length.

    Attributes:
        file: the problem file.
        coarse: the evolution with the steps of the file.
    """

    file: ProblemFile
    coarse: PDEProblem

    @cached_property
    def problem(self) -> PDEProblem:
        """The evolution with twice as many steps."""
        time = self.file.spec.time
        assert time is not None
        finer = time.model_copy(update={"steps": 2 * time.steps})
        file = replace(self.file, spec=self.file.spec.model_copy(update={"time": finer}))
        return Blueprint(Frame(file, self.coarse.space.domain, self.coarse.space.device)).nominal

    @property
    def orders(self) -> Orders:
        order = 1 if self._euler else 2
        return Orders(order, order, order)

    @property
    def _equation(self) -> EvolutionEquation:
        assert isinstance(self.coarse.equation, EvolutionEquation)
        return self.coarse.equation

    @property
    def _euler(self) -> bool:
        return self._equation.theta == 1.0

    def state(self, whole: np.ndarray) -> np.ndarray:
        levels = self._levels(whole)
        between = np.where(self._constant, levels[1:], 0.5 * (levels[1:] + levels[:-1]))
        # A multiplier has one value in each step, which is stored at its end.
        between[:, self._of_steps] = levels[1:, self._of_steps]
        return _interleaved(levels[:1], between, levels[1:])

    def state_surplus(self, whole: np.ndarray) -> np.ndarray:
        levels = self._levels(whole)
        linear = 0.5 * (levels[:-1] - levels[1:])
        # The state may jump in a step in which it is constant, as from initial values that do not fit the equation.
        smooth = levels[1:] if self._constant[0] else levels
        bent = np.zeros_like(linear)
        bent[len(levels) - len(smooth) :] = -0.125 * _second_differences(smooth)
        earlier = np.where(self._constant, linear, bent)
        later = np.zeros_like(earlier)
        of_steps = self._of_steps
        if len(of_steps):
            earlier[:, of_steps], later[:, of_steps] = self._slopes(levels[1:, of_steps])
        return _interleaved(np.zeros_like(levels[:1]), earlier, later)

    def adjoint(self, whole: np.ndarray) -> np.ndarray:
        levels = self._levels(whole)
        return _interleaved(levels[:1], levels[1:], levels[1:])

    def adjoint_surplus(self, whole: np.ndarray) -> np.ndarray:
        levels = self._levels(whole)
        return _interleaved(np.zeros_like(levels[:1]), *self._slopes(levels[1:]))

    def second_surpluses(self, state: np.ndarray, adjoint: np.ndarray) -> None:
        return None

    @cached_property
    def controls(self) -> sp.csr_matrix:
        """(p of the fine problem, p): every value is taken for the two halves of its step."""
        pairs = zip(self.coarse.control.parts, self.problem.control.parts, strict=True)
        return sp.csr_matrix(sp.block_diag([_of_control(a, b) for a, b in pairs], format="csr"))

    @cached_property
    def _constant(self) -> np.ndarray:
        """(steps, 1) whether the state is constant in a step, as the first one of Crank and Nicolson may be."""
        equation = self._equation
        found = np.full((equation.steps, 1), self._euler)
        found[0] = (equation.theta if equation.first is None else equation.first) == 1.0
        return found

    def _levels(self, whole: np.ndarray) -> np.ndarray:
        """(1, N) -> (steps + 1, size of the space)."""
        return whole.reshape(self._equation.steps + 1, -1)

    @property
    def _of_steps(self) -> np.ndarray:
        """The coefficients of one time that have one value in each step."""
        found = self._equation.multipliers
        return np.zeros(0, dtype=int) if found is None or self._euler else np.asarray(found)

    def _slopes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a linear recovery adds to values of steps (steps, n) in the first and the second half of each step.

        The values of the implicit Euler method are those at the beginning of a step: its first half keeps them.
        """
        if len(rows) < 2:
            return np.zeros_like(rows), np.zeros_like(rows)
        if self._euler:
            change = np.concatenate([rows[1:] - rows[:-1], rows[-1:] - rows[-2:-1]])
            return np.zeros_like(rows), 0.5 * change
        change = 0.25 * np.gradient(rows, axis=0)
        return -change, change


def _interleaved(first: np.ndarray, odd: np.ndarray, even: np.ndarray) -> np.ndarray:
    """(1, N of the fine problem) the level 0, and then the levels in the middle and at the end of each coarse step."""
    rest = np.stack([odd, even], axis=1).reshape(-1, first.shape[1])
    return np.concatenate([first, rest]).reshape(1, -1)


def _second_differences(levels: np.ndarray) -> np.ndarray:
    """(steps, n): the second difference in each step, the mean of those at its two ends."""
    if len(levels) < 3:
        return np.zeros_like(levels[1:])
    inner = levels[2:] - 2.0 * levels[1:-1] + levels[:-2]
    whole = np.concatenate([inner[:1], inner, inner[-1:]])
    return 0.5 * (whole[1:] + whole[:-1])


def _of_control(coarse: ControlSpace, fine: ControlSpace) -> sp.csr_matrix:
    """(fine.size, coarse.size): values of steps for the steps of half the length; others keep their times."""
    before, after = coarse.steps or 1, fine.steps or 1
    times = sp.kron(sp.identity(before), np.ones((after // before, 1)))
    return sp.csr_matrix(sp.kron(times, sp.identity(coarse.columns)))
