"""The interface of backends of the inverse Fisher information."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from ..bilevel import BilevelProblem, InnerBatch
from ..running_cross import LocalCross, RunningCross


class InverseFisher(Protocol):
    """An inverse A: `solve` is A g, `estimate` A g without the bias by the inversion of a sampled matrix."""

    def solve(self, g: Tensor) -> Tensor: ...
    def estimate(self, g: Tensor) -> Tensor: ...


class CurvatureState(InverseFisher, Protocol):
    """The current inverse A."""

    @property
    def trust(self) -> float:
        """The share, in [0, 1], of a natural-gradient step that is stable under sampling errors; 0 for none yet.

        Where the eigenvalues of trust A F are at most one, the step m / (m + d + 1) with m Gaussian scores s
        contracts the error e in mean square: in coordinates in which F = I, with M = trust A,

            E (I - eta M W)^T M^-1 (I - eta M W) = M^-1 - 2 eta I + eta^2 ((m + 1) M + tr M I) / m,

        W the mean of the m outer products, which is at most M^-1 - eta I.
        """
        ...

    @property
    def description(self) -> str: ...


class PointwiseState(CurvatureState, Protocol):
    """The inverse at one point, from factors of J there; see `FisherFactors`."""

    def newton_step(self, residual: Tensor) -> Tensor: ...
    def adjoint(self, g: Tensor) -> Tensor: ...

    @property
    def point(self) -> tuple[Tensor, Tensor]:
        """(u, v) of the factors."""
        ...


def belongs(state: PointwiseState, problem: BilevelProblem, u: Tensor, v: Tensor) -> bool:
    """Whether the factors are those of (u, v)."""
    at_u, at_v = state.point
    return problem.quadratic or (torch.equal(at_v, v) and (problem.linear or torch.equal(at_u, u)))


@runtime_checkable
class ElsewhereState(Protocol):
    """A state whose inverse is in another process, so that an answer need not be waited for at once."""

    def begin(self, g: Tensor) -> Callable[[], Tensor]:
        """Ask for A g; the function returned waits for it. One question at a time."""
        ...


def begin_solve(state: CurvatureState, g: Tensor) -> Callable[[], Tensor]:
    """A function that returns A g for the current inverse, which is computed meanwhile where that is possible."""
    if isinstance(state, ElsewhereState):
        return state.begin(g)
    found = state.solve(g)
    return lambda: found


State = TypeVar("State", bound=CurvatureState)


class Curvature(Protocol[State]):
    """A backend: frozen options, and the methods that make and renew its state.

    Attributes:
        pointwise: the inverse is that of one point, a `PointwiseState`; `refresh` moves it, scores do not change it.
        iterated: the inverse is a preconditioner that is made at one point: Newton directions are found by conjugate
            gradients, and `refresh` moves it where an inner loop ends.
    """

    @property
    def pointwise(self) -> bool: ...
    @property
    def iterated(self) -> bool: ...

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> State: ...

    def absorb(self, state: State, scores: Tensor) -> State:
        """The state after a batch of scores (d, m); the state passed in may be overwritten."""
        ...

    def refresh(self, state: State, problem: BilevelProblem, u: Tensor, v: Tensor) -> State:
        """The state with everything that belongs to one point rebuilt at (u, v)."""
        ...

    def anticipate(self, state: State, problem: BilevelProblem, u: Tensor, v: Tensor) -> State:
        """The state, told that the next `refresh` is likely to be at this point; the inverse stays as it is."""
        ...

    def running_cross(self, problem: BilevelProblem, v: Tensor, first: InnerBatch, steps: int) -> RunningCross:
        """An empty mean of the cross derivatives of an inner loop, in the process of the inverse.

        Args:
            v: (p,) the outer variables of the loop.
            first: its first batch, which tells what form the cross derivatives have.
            steps: most batches of the loop.
        """
        ...

    def save(self, state: State) -> dict[str, Any]:
        """The state as tensors, numbers, strings, tuples and None, without copies of its tensors."""
        ...

    def restore(self, problem: BilevelProblem, saved: dict[str, Any]) -> State:
        """The state that was saved, which goes on with the same numbers and uses the same tensors."""
        ...


@dataclass(frozen=True)
class BackendOptions:
    """The options of backends in a problem file, section `curvature`.

    Attributes:
        prior: see `Dense`.
        prior_weight: number of samples that the prior counts as; None for the default of the backend.
        forgetting: a constant weight of the newest batch, `auto`, or None for the running mean.
        block: largest number of unknowns of a block.
        rank: largest number of directions of a correction.
        regularisation: see `Dense`.
    """

    prior: Literal["riesz", "identity"] = "riesz"
    prior_weight: float | None = None
    forgetting: float | Literal["auto"] | None = None
    block: int = 64
    rank: int = 32
    regularisation: float | None = None

    @property
    def weight(self) -> float | None:
        """The weight of the prior; None: a backend chooses it from the first batch.

        A multiple of the identity has no information: the weight that is best for F is bad for its inverse.
        """
        return 1.0 if self.prior_weight is None and self.prior == "identity" else self.prior_weight


class OptionError(ValueError):
    """A backend does not accept the value of an option; `option` is the key in the section `curvature`."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


class LocalBackend:
    """The base of the backends of this process: most are not pointwise, and cannot work ahead.

    Attributes:
        pointwise, iterated: see `Curvature`.
        layered: the problem has to have layers (`kfac.KroneckerProblem`).
        sampled: the inverse is made from scores of sampled tests.
        remade: the field of a state that is not saved, but made again at the state's point.
    """

    pointwise: ClassVar[bool] = False
    iterated: ClassVar[bool] = False
    layered: ClassVar[bool] = False
    sampled: ClassVar[bool] = True
    remade: ClassVar[str] = ""

    @classmethod
    def of_options(cls, options: BackendOptions, scenarios: int) -> Self:
        """The backend with the options of a problem file, for a number of scenarios.

        Raises:
            OptionError: an option that the backend does not take.
        """
        return cls()

    def bytes(self, unknowns: int) -> float:
        """Memory that the inverse takes at its peak, beside sparse factors."""
        return 0.0

    def parallel(self, unknowns: int) -> bool:
        """Whether products with the inverse are long enough for more than one thread."""
        return False

    def refresh(self, state: Any, problem: BilevelProblem, u: Tensor, v: Tensor) -> Any:
        return state

    def anticipate(self, state: State, problem: BilevelProblem, u: Tensor, v: Tensor) -> State:
        return state

    def running_cross(self, problem: BilevelProblem, v: Tensor, first: InnerBatch, steps: int) -> RunningCross:
        return LocalCross(problem, v, steps)

    def save(self, state: Any) -> dict[str, Any]:
        return {each.name: getattr(state, each.name) for each in fields(state) if each.name != self.remade}


Inverse = TypeVar("Inverse")


@runtime_checkable
class InexactFactors(Protocol):
    """A further method of factors or inverses whose systems may be solved by iteration."""

    def within(self, rtol: float) -> Any:
        """The same for solves that need not be more accurate than a relative error."""
        ...


def within(factors: Inverse, rtol: float) -> Inverse:
    """Factors or inverses for solves up to a relative error; as they are, where that saves nothing."""
    return cast(Inverse, factors.within(rtol)) if isinstance(factors, InexactFactors) else factors
