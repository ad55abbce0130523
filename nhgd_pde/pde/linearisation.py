"""The derivatives of the discrete state equation at one point, their products and their factors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from ..fem.pattern import Blocks
from ..linalg.bidiagonal import BidiagonalMatrix
from ..linalg.counts import Counts
from ..linalg.factorisation import Factorisation, ScenarioFactorisation
from ..linalg.sparse import ScenarioMatrix
from .given import DataDerivative
from .rows import ControlRows


class Factors(Protocol):
    """Solves with a matrix and with its transpose."""

    def solve(self, b: Tensor) -> Tensor: ...
    def solve_transposed(self, b: Tensor) -> Tensor: ...


class ControlDerivative(Protocol):
    """R_v = dR/dv."""

    def mv(self, d: Tensor) -> Tensor:
        """(p,) -> (S, n)."""
        ...

    def rmv(self, w: Tensor) -> Tensor:
        """(S, n) -> (p,), summed over the scenarios."""
        ...

    def each_rmv(self, w: Tensor) -> Tensor:
        """(S, n) -> (S, p), for each scenario."""
        ...

    def whole_rmv(self, w: Tensor) -> Tensor:
        """(S, n) -> the pull-back (S, N) to all coefficients, where controls change given coefficients."""
        ...


class StateDerivative(Protocol):
    """J = dR/du, with products for vectors (..., S, n)."""

    @property
    def shared(self) -> bool:
        """Whether all scenarios have the same matrix."""
        ...

    @property
    def symmetric(self) -> bool: ...
    def mv(self, x: Tensor) -> Tensor: ...
    def rmv(self, y: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Jacobian:
    """J at one point, and its factors, which are computed when they are needed.

    Attributes:
        matrix: J on the unknowns.
        whole: the derivative of the integrals by all coefficients, with Dirichlet rows and columns; (N, N) for each
            scenario.
        counts: counters of factorisations and solves.
    """

    matrix: StateDerivative
    whole: ScenarioMatrix
    counts: Counts

    @cached_property
    def factors(self) -> Factors:
        """The factors of the matrix of every scenario.

        Raises:
            SingularMatrixError: a matrix is singular.
        """
        if isinstance(self.matrix, ScenarioMatrix):
            return ScenarioFactorisation(self.matrix, self.counts)
        assert isinstance(self.matrix, BidiagonalMatrix)
        return self.matrix.factorise(self.counts)

    @cached_property
    def mean_factors(self) -> Factors:
        """The factors of the mean of the matrices over the scenarios."""
        if isinstance(self.matrix, ScenarioMatrix) and not self.matrix.shared:
            return Factorisation(self.matrix.mean(), self.counts, self.matrix.symmetric)
        return self.factors


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The derivatives of R at one point (u, v).

    Attributes:
        jacobian: J = dR/du.
        control: R_v = dR/dv.
        blocks: the derivative of each integrand at its points, from which J is assembled.
    """

    jacobian: Jacobian
    control: ControlDerivative
    blocks: tuple[Blocks, ...]

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
class SteadyControlDerivative:
    """R_v of a steady equation; implements `ControlDerivative`.

    Attributes:
        rows: maps controls to their values in the rows of the integrals.
        direct: (n, width) the derivative of the integrals by the controls; None where they do not enter the integrals.
        through: (n, N) the derivative of the integrals by all coefficients; None without `data`.
        data: the derivative of the coefficients that controls determine; None where they determine none.
        scenarios: S, the number of scenarios.
    """

    rows: ControlRows
    direct: ScenarioMatrix | None
    through: ScenarioMatrix | None
    data: DataDerivative | None
    scenarios: int

    def mv(self, d: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        if self.direct is not None:
            total = self.direct.mv(self.rows.spread(d).expand(self.scenarios, -1))
        if self.data is not None and self.through is not None:
            total = total + self.through.mv(self.data.mv(d).expand(self.scenarios, -1))
        assert isinstance(total, Tensor)
        return total

    def rmv(self, w: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        if self.direct is not None:
            total = self.rows.gather(self.direct.rmv(w))
        if self.data is not None and self.through is not None:
            total = total + self.data.rmv_summed(self.through.rmv(w))
        assert isinstance(total, Tensor)
        return total

    def whole_rmv(self, w: Tensor) -> Tensor:
        assert self.through is not None
        return self.through.rmv(w)

    def each_rmv(self, w: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        if self.direct is not None:
            # A steady equation has one row of controls, whose columns are the entries of v.
            total = self.direct.rmv(w)
        if self.data is not None and self.through is not None:
            total = total + self.data.rmv(self.through.rmv(w))
        assert isinstance(total, Tensor)
        return total
