"""The interfaces of bilevel problems with many scenarios on which the engine works.

    min_v  rho(f_1(u_1(v), v), ..., f_S(u_S(v), v)) + sum_s w_s c_s(u_s(v)) + f_0(v),      R_s(u_s, v) = 0

with a risk measure rho of the values of the scenarios and their weights. The penalties c_s enforce constraints that
hold in every scenario: a measure that leaves some scenarios out must not leave out their constraints. A *part* of the
scenarios is a bilevel problem of its own; of all scenarios at once, only rows of numbers are needed.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ..bilevel import BilevelProblem, OuterProblem, SecondOrderProblem


class Risk(Protocol):
    """rho, of values (S,) with weights (S,) that sum to one."""

    @property
    def linear(self) -> bool:
        """Whether rho is the mean."""
        ...

    def value(self, values: Tensor, weights: Tensor) -> float: ...

    def exact(self, values: Tensor, weights: Tensor) -> float:
        """The measure without smoothing, which is reported."""
        ...

    def derivative(self, values: Tensor, weights: Tensor) -> Tensor:
        """d rho / d values (S,), the factors with which derivatives of the scenarios are added up."""
        ...


class Part(BilevelProblem, Protocol):
    """Some of the scenarios, with states u (b, n) whose rows are independent of each other.

    Attributes:
        definite: J is symmetric positive definite, whatever v.
    """

    @property
    def definite(self) -> bool: ...

    def scenario_values(self, u: Tensor, v: Tensor) -> Tensor:
        """The values f_s (b,), without f_0."""
        ...

    def scenario_penalties(self, u: Tensor, v: Tensor) -> Tensor:
        """The penalties c_s (b,)."""
        ...

    def scenario_derivatives(self, u: Tensor, v: Tensor, slopes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The derivatives of slopes (b,) times f_s plus c_s by u, (b, n), and by v at fixed u, (b, p). Slopes are one
        by default."""
        ...

    def scenario_control_products(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """R_v^T w of every scenario, (b, p)."""
        ...


class NominalProblem(SecondOrderProblem, Part, Protocol):
    """The problem of the nominal scenario, whose random variables have their means, and the terms in v alone."""

    def control_value(self, v: Tensor) -> float:
        """The value f_0."""
        ...

    def control_derivative(self, v: Tensor) -> Tensor:
        """The derivative (p,) of f_0."""
        ...


class ScenarioBilevelProblem(OuterProblem, Protocol):
    """A problem over all scenarios; `inner_shape` is (S, n).

    Attributes:
        nominal: the problem whose curvature stands for that of all scenarios.
        variables: (S, m) standard random variables of the scenarios, in an order in which the first b represent all,
            for any b.
        weights: (S,) weights with the sum one.
        risk: rho.
        penalty_weights: (S,) w > 0; None where rho is the mean and w are its weights, or where there are no penalties.
        at_once: number of scenarios whose matrices are in memory at the same time.
        coarse: the same problem with fewer unknowns, made when it is first asked for; None where there is none.
    """

    @property
    def nominal(self) -> NominalProblem: ...
    @property
    def variables(self) -> Tensor: ...
    @property
    def weights(self) -> Tensor: ...
    @property
    def risk(self) -> Risk: ...
    @property
    def penalty_weights(self) -> Tensor | None: ...
    @property
    def at_once(self) -> int: ...
    @property
    def coarse(self) -> MeshTransfer | None: ...

    def part(self, indices: Tensor) -> Part:
        """Some of the scenarios, by their numbers."""
        ...

    def drawn(self, first: int, count: int) -> Part:
        """Scenarios first, first + 1, ... of an endless sequence of fresh ones."""
        ...


class MeshTransfer(Protocol):
    """A problem over the same scenarios on a coarser mesh, and the maps between both.

    With the restriction R, Phi_c(R v) approximates Phi(v). Its derivative by v is R^T times that of Phi_c.
    """

    @property
    def problem(self) -> ScenarioBilevelProblem: ...

    def restrict(self, v: Tensor) -> Tensor:
        """R v: (p,) -> (p_c,)."""
        ...

    def restrict_transposed(self, derivatives: Tensor) -> Tensor:
        """R^T: covectors (k, p_c) -> (k, p)."""
        ...

    def shift(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """P^T fine - coarse (1, n_c), for derivatives (1, n) and (1, n_c) by states that P prolongs."""
        ...

    def shifted(self, covector: Tensor) -> MeshTransfer:
        """The same with <covector, u_s>, covector (1, n_c), added to f_s of every scenario on the coarser mesh."""
        ...

    def prolong(self, states: Tensor) -> Tensor:
        """Differences of states, or of adjoints, on the mesh of the problem: (k, n_c) -> (k, n)."""
        ...
