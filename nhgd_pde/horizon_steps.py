"""Steps of an evolution with their terms of the objective: forwards with derivatives, forwards, and backwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .engine.bilevel import relative_dual_error
from .linalg.riesz import RieszMap
from .linalg.safe_lengths import dot
from .linalg.sparse import SparseMatrix
from .objective.sensor_terms import SensorTerm
from .objective.terms import Objective
from .pde.returning import Visited, visited
from .pde.stretch import Passage, Stretch


@dataclass(frozen=True)
class PartPassed:
    """The passage through a part; see `methods.fds.Passed`."""

    value: float
    direct: Tensor
    indirect: Tensor
    passage: Passage
    place: str

    @property
    def state(self) -> Tensor:
        return self.passage.levels[-1]

    @property
    def derivative(self) -> Tensor:
        return self.passage.derivatives[:, -1]

    @property
    def state_error(self) -> float:
        return self.passage.state_error

    @property
    def derivative_error(self) -> float:
        return self.passage.derivative_error


@dataclass(frozen=True)
class Size:
    """Squares of norms, in the inner product of the states at one time, that are added up over the steps.

    Attributes:
        dual: of residuals.
        own: of what they are the residuals of, and `level` of its values, in the mass matrix.
        given: there are given coefficients, so that the values count.
    """

    dual: float = 0.0
    own: float = 0.0
    level: float = 0.0
    given: bool = False

    def __add__(self, other: Size) -> Size:
        sums = self.dual + other.dual, self.own + other.own, self.level + other.level
        return Size(*sums, self.given or other.given)

    @property
    def error(self) -> float:
        """The dual norm of the residuals, relative to the norm."""
        length = math.sqrt(self.own + (self.level if self.given else 0.0))
        if not math.isfinite(self.dual) or not math.isfinite(length):
            return math.nan
        return math.sqrt(self.dual) / length if length > 0.0 else (0.0 if self.dual == 0.0 else math.inf)


@dataclass(frozen=True, eq=False)
class StepNorms:
    """The norms of the certificates, one time at once.

    Attributes:
        metric: K on the unknowns of one time.
        gram, mass: K and the mass matrix on all coefficients of one time.
        level: the factor of the mass matrix in the norm of a state; see `PDEProblem.inner_length`.
    """

    metric: RieszMap
    gram: SparseMatrix
    mass: SparseMatrix
    level: float

    def of_residual(self, residual: Tensor, size: Size, tolerance: float) -> Size:
        """`size` with the dual norm of a residual (1, all unknowns), or with a bound of it if that is below the
        tolerance."""
        rows = residual.reshape(-1, self.metric.matrix.shape[0])
        length = math.sqrt(size.own + size.level)
        if length > 0.0:
            error = relative_dual_error(self.metric, rows, length, tolerance)
            return Size((error * length) ** 2, size.own, size.level, size.given)
        return Size(self.metric.dual_norm(rows) ** 2, size.own, size.level, size.given)

    def of_states(self, levels: Tensor, given: bool) -> Size:
        """Of states (levels, N)."""
        return Size(0.0, dot(levels, self.gram.mv(levels)), self.level * dot(levels, self.mass.mv(levels)), given)

    def of_adjoint(self, p: Tensor) -> Size:
        """Of adjoint variables (1, all unknowns)."""
        rows = p.reshape(-1, self.metric.matrix.shape[0])
        return Size(0.0, dot(rows, self.metric.covector(rows)))


@dataclass(frozen=True)
class Returned:
    """The way back through a part; see `methods.recomputing.StepsReturned`."""

    value: float
    direct: Tensor
    indirect: Tensor
    adjoint: Tensor
    state_size: Size
    adjoint_size: Size


@dataclass(frozen=True, eq=False)
class HorizonPart:
    """Some steps of the evolution with the terms of the objective in them.

    Attributes:
        stretch: the steps.
        objective: the terms of the state in these steps.
        norms: returns the norms of the certificates.
        sensors: the measurements in these steps.
    """

    stretch: Stretch
    objective: Objective
    norms: Callable[[], StepNorms]
    sensors: tuple[SensorTerm, ...] = ()

    @property
    def steps(self) -> int:
        return self.stretch.excerpt.steps

    @property
    def place(self) -> str:
        excerpt = self.stretch.excerpt
        return f"steps {excerpt.before + 1:,} to {excerpt.before + excerpt.steps:,}"

    def passed(self, v: Tensor, state: Tensor, derivative: Tensor) -> PartPassed:
        excerpt = self.stretch.excerpt
        passage, controls = self.stretch.passed(v, state, derivative), excerpt.local(v)
        levels = passage.levels.reshape(1, -1)
        by_state, by_control = self.objective.derivatives(levels, controls)
        return PartPassed(
            self.objective.value(levels, controls),
            excerpt.gathered(by_control),
            passage.derivatives.reshape(len(v), -1) @ by_state[0],
            passage,
            self.place,
        )

    # Backwards

    def states(self, v: Tensor, start: Tensor) -> Tensor:
        """(steps, N) the states at the ends of the steps, from the state (N,) at their start."""
        return self.stretch.states(v, start)

    def returned(self, v: Tensor, start: Tensor, states: Tensor, adjoint: Tensor, tolerance: float) -> Returned:
        """The part of value, derivative and certificates, and the derivative by the state at the start.

        Args:
            start, states: the states at the start (N,) and at the ends of the steps (steps, N).
            adjoint: (N,) the derivative of all that comes after these steps by the state at their end.
            tolerance: errors below it need not be known sharply.
        """
        excerpt, at = self.stretch.excerpt, visited(self.stretch, v, start, states)
        by_state, by_control = self.objective.derivatives(at.full, at.controls)
        covector = _with_end(by_state, adjoint)
        p, left = at.adjoint(covector)
        through, before = at.pulled_back(covector, p)
        norms, first = self.norms(), excerpt.before == 0
        levels = at.full.reshape(-1, len(start))
        whole = norms.of_states(levels if first else levels[1:], _given(at, first))
        value = self.objective.value(at.full, at.controls)
        return Returned(
            # As in `methods.adjoint`: f(u*, v) = f(u, v) - p . R + O(|R|^2).
            value - dot(p, at.residual),
            excerpt.gathered(by_control),
            excerpt.gathered(through),
            before,
            norms.of_residual(at.residual, whole, tolerance),
            norms.of_residual(left, norms.of_adjoint(p), tolerance),
        )

    def moved(self, v: Tensor, d: Tensor, start: Tensor, move: Tensor, states: Tensor) -> Tensor:
        """(steps, N) the changes of the states for a change `move` (N,) of the first one and d (p,) of the controls."""
        at = visited(self.stretch, v, start, states)
        return at.moved(move, self.stretch.excerpt.local(d))[0, len(start) :].reshape(states.shape).clone()

    def curved(
        self, v: Tensor, d: Tensor, before: tuple[Tensor, Tensor], ends: tuple[Tensor, Tensor], adjoint: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The part of the product of the Hessian with d (p,), and what `returned` calls `adjoint` with its change.

        Args:
            before: the state (N,) at the start, and its change for d.
            ends: the states (steps, N) at the ends of the steps, and their changes.
            adjoint: (2, N) the derivative of what comes after these steps by the state at their end, and its change.
        """
        excerpt, at = self.stretch.excerpt, visited(self.stretch, v, before[0], ends[0])
        local, move = excerpt.local(d), torch.cat([before[1][None], ends[1]]).reshape(1, -1)
        covector = _with_end(self.objective.derivatives(at.full, at.controls)[0], adjoint[0])
        p, _ = at.adjoint(covector)
        _, carried = at.pulled_back(covector, p)
        by_state, by_control = self.objective.second_derivatives(at.full, at.controls, move, local)
        bent, bent_control = at.bent(covector, p, move, local)
        change = _with_end(by_state, adjoint[1]) + bent
        dp, _ = at.adjoint(change)
        through, moved = at.pulled_back(change, dp)
        return excerpt.gathered(by_control + bent_control + through), torch.stack([carried, moved])


def _with_end(covector: Tensor, adjoint: Tensor) -> Tensor:
    """A covector (1, all coefficients) with another one (N,) added at the last time."""
    whole = covector.clone()
    whole[0, -len(adjoint) :] += adjoint
    return whole


def _given(at: Visited, first: bool) -> bool:
    """Whether a coefficient that is no unknown differs from zero, that at the start only of the first steps."""
    rest = at.full - at.here.extend(at.u)
    return bool(rest[0, 0 if first else len(rest[0]) // (at.here.steps + 1) :].count_nonzero())
