"""What an estimate needs of a problem with a finer discretisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from ..pde_problem import PDEProblem


class NoEstimateError(ValueError):
    """There is no estimate of the discretisation error for a problem; the message says why."""


@dataclass(frozen=True)
class Orders:
    """The orders in the width of cells or steps with which the parts of the error fall, for smooth solutions.

    Attributes:
        state: the part of state and adjoint variable, of quadrature and boundary values.
        costs: the part of the terms in the control alone, whose references are interpolated; at most `state`.
        control: the part of the control.
    """

    state: int
    costs: int
    control: int


class Enriched(Protocol):
    """A problem with a finer discretisation, and functions of the coarse one as functions of the fine one.

    Arrays (1, N) have all coefficients of a state, of an evolution those of all times.

    Attributes:
        coarse: the problem whose error is estimated.
        problem: the same problem with half the width of the cells, or of the steps in time.
        controls: (p of the fine problem, p) the map of the controls.
        orders: the orders of the objective in that width.
    """

    @property
    def coarse(self) -> PDEProblem: ...
    @property
    def problem(self) -> PDEProblem: ...
    @property
    def controls(self) -> sp.csr_matrix: ...
    @property
    def orders(self) -> Orders: ...

    def state(self, whole: np.ndarray) -> np.ndarray:
        """A state as a function of the fine discretisation."""
        ...

    def state_surplus(self, whole: np.ndarray) -> np.ndarray:
        """What a recovery of higher order adds to a state."""
        ...

    def adjoint(self, whole: np.ndarray) -> np.ndarray:
        """An adjoint variable as a function of the fine discretisation."""
        ...

    def adjoint_surplus(self, whole: np.ndarray) -> np.ndarray:
        """What a recovery of higher order adds to an adjoint variable."""
        ...

    def second_surpluses(self, state: np.ndarray, adjoint: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """What a second recovery adds to a state and an adjoint variable; None where there is only one recovery.

        The difference of the two recoveries shows how well a recovery is known.
        """
        ...
