"""The times of an evolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from ..control.spaces import TimeRule


@dataclass(frozen=True)
class Clock:
    """The times of an evolution.

    Attributes:
        steps: of time.
        step: their length.
        theta: share of the end of a step in the point where integrals are taken.
    """

    steps: int
    step: float
    theta: float

    @property
    def levels(self) -> np.ndarray:
        return np.arange(self.steps + 1) * self.step

    @property
    def stages(self) -> np.ndarray:
        return (np.arange(self.steps) + self.theta) * self.step

    @property
    def averages(self) -> sp.csr_matrix:
        """(steps, steps + 1): values at the levels -> at the stages."""
        rows = np.arange(self.steps)
        shape = (self.steps, self.steps + 1)
        end = sp.csr_matrix((np.full(self.steps, self.theta), (rows, rows + 1)), shape)
        return sp.csr_matrix(end + sp.csr_matrix((np.full(self.steps, 1.0 - self.theta), (rows, rows)), shape))

    @property
    def last(self) -> sp.csr_matrix:
        """(1, steps + 1): values at the levels -> at the end."""
        return sp.csr_matrix(([1.0], ([0], [self.steps])), (1, self.steps + 1))

    def middle_rule(self) -> TimeRule:
        """Of controls that are constant in each step: one point a step, that of the equation's integrals."""
        weights = np.full(self.steps, self.step)
        return TimeRule(self.stages, self.stages, weights, sp.identity(self.steps, format="csr"))

    def end_rule(self) -> TimeRule:
        """Of controls whose values stand at the ends of the steps, as those of the state do: as exact as the scheme.

        The trapezoidal rule, or that of the right ends with the implicit Euler method. The value at the time 0, where
        the initial state is given, is no control's.
        """
        weights = np.full(self.steps + 1, self.step)
        weights[0], weights[-1] = (1.0 - self.theta) * self.step, self.theta * self.step
        values = sp.identity(self.steps + 1, format="csr")[:, 1:]
        return TimeRule(self.levels[1:], self.levels, weights, sp.csr_matrix(values))

    def stages_of(self, size: int) -> sp.csr_matrix:
        """(steps * size, (steps + 1) * size): coefficients of a space at the levels -> at the stages."""
        return sp.csr_matrix(sp.kron(self.averages, sp.identity(size)))
