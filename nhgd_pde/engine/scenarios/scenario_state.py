"""The state of natural hypergradients over scenarios, on one or two meshes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ..nhgd import NHGDState
from ..scales import UNKNOWN, GradientScales
from .known_solutions import KnownSolutions
from .nominal_point import NominalPoint
from .scenario_bilevel import MeshTransfer, ScenarioBilevelProblem


@dataclass(frozen=True)
class MeshLevelState:
    """Data of one mesh that are carried from one evaluation to the next.

    Attributes:
        nominal: state of the nominal scenario.
        known: states and adjoints of the other scenarios.
        active: number of scenarios that the next evaluation takes.
        sampling_error: standard error of their part of the gradient in the last evaluation; infinite before the first.
        used: number of the first scenarios that were used to choose the point; the others are fresh at the point.
    """

    nominal: NHGDState
    known: KnownSolutions
    active: int
    sampling_error: float = math.inf
    used: int = 0

    def blend(self, other: MeshLevelState, share: float) -> MeshLevelState:
        nominal, known = self.nominal.blend(other.nominal, share), self.known.blend(other.known, share)
        return replace(other, nominal=nominal, known=known, used=other.active)

    def at(self, nominal_point: NominalPoint) -> MeshLevelState:
        """The state at another point, where all solutions have moved with the nominal scenario."""
        known = self.known.following(nominal_point.u, nominal_point.p)
        return replace(self, nominal=nominal_point.state, known=known)


@dataclass(frozen=True)
class MeshLevel:
    """A problem on one mesh at a point, its nominal scenario there, and the solutions known of the others.

    Attributes:
        transfer: the maps between this mesh and that of the problem to solve; None where both are the same.
    """

    problem: ScenarioBilevelProblem
    v: Tensor
    nominal_point: NominalPoint
    state: MeshLevelState
    transfer: MeshTransfer | None = None

    def prolonged(self, states: Tensor) -> Tensor:
        """Differences of states on the mesh of the problem to solve."""
        return states if self.transfer is None else self.transfer.prolong(states)

    def pulled_back(self, derivatives: Tensor) -> Tensor:
        """Derivatives (k, p_c) by the control of this level -> (k, p) by that of the problem to solve."""
        return derivatives if self.transfer is None else self.transfer.restrict_transposed(derivatives)

    def knowing(self, known: KnownSolutions) -> MeshLevel:
        return replace(self, state=replace(self.state, known=known))


@dataclass(frozen=True)
class ScenarioState:
    """Data that are carried from one evaluation to the next.

    Attributes:
        fine: the level on the mesh of the problem; with no active scenarios only the nominal scenario is evaluated,
            unless there is a coarse level.
        coarse: the level on a coarser mesh; None where none is in use.
        sensitivity: error of the last gradient for relative errors of one in states and adjoints.
        tried: a coarse level was in use before, and will not be used again.
        at: (p,) the point of the last evaluation; None before the first, and where the last point was interpolated.
        doubt: bound of the error of the last gradient; infinite where no fresh scenarios were available.
        scale: factor by which sampling errors estimated from the last fresh scenarios exceeded those from used
            scenarios.
        parts: the scales of the last gradient over scenarios.
        shift: (1, n_c) the linear term of the objective on the coarser mesh, see `mesh_levels`; None before it is
            known.
    """

    fine: MeshLevelState
    coarse: MeshLevelState | None = None
    sensitivity: float = 0.0
    tried: bool = False
    at: Tensor | None = None
    doubt: float = math.inf
    scale: float = 1.0
    parts: GradientScales = UNKNOWN
    shift: Tensor | None = None
    q: ClassVar[Tensor | None] = None

    @property
    def active(self) -> int:
        """Scenarios that the next evaluation takes on the mesh of the problem."""
        return self.fine.active

    @property
    def nominal(self) -> NHGDState:
        return self.fine.nominal

    @property
    def known(self) -> KnownSolutions:
        return self.fine.known

    @property
    def sampling_error(self) -> float:
        """Standard error of the gradient of the last evaluation; infinite before the first."""
        below = 0.0 if self.coarse is None else self.coarse.sampling_error
        return math.hypot(self.fine.sampling_error, below)

    @property
    def u(self) -> Tensor:
        """(b, n) states of the scenarios of this rank; (1, n) the nominal state before any scenario is used."""
        return self.known.u if len(self.known.u) else self.nominal.u

    @property
    def p(self) -> Tensor | None:
        return self.known.p if len(self.known.p) else self.nominal.p

    @property
    def description(self) -> str:
        return f"{self.nominal.description}, shared by the scenarios"

    def each(self, verb: Callable[[MeshLevelState], MeshLevelState]) -> ScenarioState:
        """The state with every level changed, the fine one first."""
        fine = verb(self.fine)
        return replace(self, fine=fine, coarse=None if self.coarse is None else verb(self.coarse))

    def blend(self, other: ScenarioState, share: float) -> ScenarioState:
        coarse = other.coarse
        if coarse is not None and self.coarse is not None:
            coarse = self.coarse.blend(coarse, share)
        return replace(other, fine=self.fine.blend(other.fine, share), coarse=coarse, at=None, doubt=math.inf)
