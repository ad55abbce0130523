"""The derivatives of the discrete state equation at one point, their products and their factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from ..fem.pattern import Blocks
from ..linalg.bidiagonal import BidiagonalFactors, BidiagonalMatrix, LevelMatrix
from ..linalg.counts import Counts
from ..linalg.factorisation import DIRECT, Factorisation, ScenarioFactorisation
from ..linalg.solvers.base import LinearSolver
from ..linalg.sparse import ScenarioMatrix
from .given import DataDerivative
from .rows import ControlRows

if TYPE_CHECKING:
    from .stiffness import ScaledControl

# J = dR/du, with products for vectors (..., S, n), and solves with it and with its transpose.
StateDerivative = ScenarioMatrix | BidiagonalMatrix
Factors = Factorisation | ScenarioFactorisation | BidiagonalFactors


@dataclass(frozen=True, eq=False)
class Jacobian:
    """J at one point, and what its solver makes of it, such as factors, which is made when it is needed.

    Attributes:
        matrix: J on the unknowns.
        on_all: makes `whole`, which is seldom needed.
        counts: counters of factorisations and solves.
        solver: the solver of the systems.
    """

    matrix: StateDerivative
    on_all: Callable[[], ScenarioMatrix]
    counts: Counts
    solver: LinearSolver = DIRECT

    @cached_property
    def whole(self) -> ScenarioMatrix:
        """The derivative of the integrals by all coefficients, with Dirichlet rows and columns; (N, N) for each
        scenario."""
        return self.on_all()

    @cached_property
    def factors(self) -> Factors:
        """The factors of the matrix of every scenario.

        Raises:
            SingularMatrixError: a matrix is singular.
        """
        if isinstance(self.matrix, BidiagonalMatrix):
            return self.matrix.factorise(self.counts, self.solver)
        return ScenarioFactorisation(self.matrix, self.counts, self.solver)

    @cached_property
    def mean_factors(self) -> Factors:
        """The factors of the mean of the matrices over the scenarios."""
        if isinstance(self.matrix, BidiagonalMatrix) or self.matrix.shared:
            return self.factors
        return Factorisation(self.matrix.mean(), self.counts, self.matrix.symmetric, self.solver)


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The derivatives of R at one point (u, v).

    Attributes:
        jacobian: J = dR/du.
        control: R_v = dR/dv.
        at_points: makes `blocks`, which are seldom needed.
    """

    jacobian: Jacobian
    control: ControlDerivative
    at_points: Callable[[], tuple[Blocks, ...]]

    @cached_property
    def blocks(self) -> tuple[Blocks, ...]:
        """The derivative of each integrand at its points, of which J is the integral."""
        return self.at_points()

    @property
    def state(self) -> StateDerivative:
        return self.jacobian.matrix

    @property
    def whole(self) -> ScenarioMatrix:
        return self.jacobian.whole

    @property
    def factors(self) -> Factors:
        return self.jacobian.factors


@dataclass(frozen=True, eq=False)
class ControlDerivative:
    """R_v = dR/dv.

    Attributes:
        rows: maps controls to their values in the rows of the integrals.
        direct: (n of a row, width) the derivative of each row of the integrals by the controls; None where they do not
            enter the integrals.
        through: the derivative of R by all coefficients; None without `data`.
        data: the derivative of the coefficients that controls determine; None where they determine none.
        scenarios: S, the number of scenarios.
    """

    rows: ControlRows
    direct: ScenarioMatrix | ScaledControl | None
    through: ScenarioMatrix | LevelMatrix | None = None
    data: DataDerivative | None = None
    scenarios: int = 1

    @property
    def _rows(self) -> int:
        """The rows of the integrals: the scenarios of a steady equation, or the steps of an evolution."""
        return max(self.scenarios, self.rows.steps)

    def mv(self, d: Tensor) -> Tensor:
        """(p,) -> (S, n)."""
        total: Tensor | float = 0.0
        if self.direct is not None:
            total = self.direct.mv(self.rows.spread(d).expand(self._rows, -1)).reshape(self.scenarios, -1)
        if self.data is not None and self.through is not None:
            total = total + self.through.mv(self.data.mv(d).expand(self.scenarios, -1))
        assert isinstance(total, Tensor)
        return total

    def rmv(self, w: Tensor) -> Tensor:
        """(S, n) -> (p,), summed over the scenarios."""
        total: Tensor | float = 0.0
        if self.direct is not None:
            total = self.rows.gather(self.direct.rmv(w.reshape(self._rows, -1)))
        if self.data is not None:
            total = total + self.data.rmv_summed(self.whole_rmv(w))
        assert isinstance(total, Tensor)
        return total

    def whole_rmv(self, w: Tensor) -> Tensor:
        """(S, n) -> the pull-back (S, N) to all coefficients, where controls change given coefficients."""
        assert self.through is not None
        return self.through.rmv(w)

    def each_rmv(self, w: Tensor) -> Tensor:
        """(S, n) -> (S, p), for each scenario."""
        if self.scenarios == 1:
            return self.rmv(w)[None]
        # A steady equation has one row of controls, whose columns are the entries of v.
        total = 0.0 if self.direct is None else self.direct.rmv(w)
        if self.data is not None:
            total = total + self.data.rmv(self.whole_rmv(w))
        assert isinstance(total, Tensor)
        return total
