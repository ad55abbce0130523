"""The times of an evolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from ..control.controls import TimeRule
from ..problem_file.control_spec import DirichletControl
from ..problem_file.schema import ProblemSpec

# Rounding error of the number of a level, which is a time over the length of a step.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Clock:
    """The times of an evolution.

    Attributes:
        steps: number of time steps.
        step: length of a step.
        theta: position within a step at which integrals are taken, from 0 at its beginning to 1 at its end.
        first: theta of the first step.
        before: number of steps before these, of a part of an evolution.
    """

    steps: int
    step: float
    theta: float
    first: float
    before: int = 0

    @property
    def thetas(self) -> np.ndarray:
        """(steps,) theta of every step."""
        return np.append(self.first, np.full(self.steps - 1, self.theta))

    @property
    def levels(self) -> np.ndarray:
        return (self.before + np.arange(self.steps + 1)) * self.step

    @property
    def stages(self) -> np.ndarray:
        return (self.before + np.arange(self.steps) + self.thetas) * self.step

    @property
    def averages(self) -> sp.csr_matrix:
        """(steps, steps + 1) the matrix that takes values at the levels to values at the stages."""
        rows = np.arange(self.steps)
        shape = (self.steps, self.steps + 1)
        end = sp.csr_matrix((self.thetas, (rows, rows + 1)), shape)
        return sp.csr_matrix(end + sp.csr_matrix((1.0 - self.thetas, (rows, rows)), shape))

    @property
    def last(self) -> sp.csr_matrix:
        """(1, steps + 1) the matrix that takes values at the levels to the value at the end."""
        return sp.csr_matrix(([1.0], ([0], [self.steps])), (1, self.steps + 1))

    def contains(self, times: np.ndarray) -> np.ndarray:
        """(count,) whether times lie in these steps: time 0 in the first step, the end of a step in this step."""
        number = self._step_of(times)
        return np.asarray((number > self.before) & (number <= self.before + self.steps))

    def at(self, times: np.ndarray) -> sp.csr_matrix:
        """(count, steps + 1) values at the levels -> those at times in these steps, linear between the levels."""
        number = self._step_of(times)
        share = np.clip(times / self.step - (number - 1), 0.0, 1.0)
        rows, left = np.arange(len(times)), number - 1 - self.before
        entries = np.concatenate([1.0 - share, share]), (np.tile(rows, 2), np.concatenate([left, left + 1]))
        return sp.csr_matrix(entries, (len(times), self.steps + 1))

    def _step_of(self, times: np.ndarray) -> np.ndarray:
        """(count,) the number of the step, from 1, in which each time lies; rounding moves no time to the next step."""
        return np.maximum(np.ceil(times / self.step - _ROUNDING), 1).astype(int)

    def middle_rule(self) -> TimeRule:
        """The rule in time for controls that are constant in each step: one point a step, at its stage."""
        return TimeRule(self.stages, np.full(self.steps, self.step))

    def end_rule(self) -> TimeRule:
        """The rule in time for controls that have values at the ends of the steps, as the state has.

        It has the order of the scheme. Every step has the trapezoidal rule, or the value at its end.
        """
        weights = np.asarray(self.averages.T @ np.full(self.steps, self.step))[1:]
        return TimeRule(self.levels[1:], weights, self.theta < 1.0)


def clock_of(spec: ProblemSpec) -> Clock | None:
    """The times of the evolution that a file describes; None of a steady problem."""
    if spec.time is None:
        return None
    theta = 1.0 if spec.time.scheme == "implicit_euler" else 0.5
    # A first step of the implicit Euler method does not use the boundary values at time 0, where controls have no
    # value and the initial state need not fit. A single such step does not reduce the order of the scheme.
    # It also makes the velocity of a flow free of divergence, which the midpoint rule then preserves.
    implicit = spec.pde.mixed or any(isinstance(each, DirichletControl) for each in spec.controls)
    first = 1.0 if implicit else theta
    return Clock(spec.time.steps, spec.time.end / spec.time.steps, theta, first)
