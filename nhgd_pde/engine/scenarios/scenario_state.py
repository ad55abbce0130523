"""The state of natural hypergradients over scenarios."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from ..nhgd import NHGDState
from ..scales import UNKNOWN, GradientScales
from .known_solutions import KnownSolutions
from .mesh_levels import MeshLevelState


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
    """

    fine: MeshLevelState
    coarse: MeshLevelState | None = None
    sensitivity: float = 0.0
    tried: bool = False
    at: Tensor | None = None
    doubt: float = math.inf
    scale: float = 1.0
    parts: GradientScales = UNKNOWN

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
    def q(self) -> Tensor | None:
        return None

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
