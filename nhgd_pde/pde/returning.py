"""The way back over some steps of an evolution: their adjoint variables, from those of the steps after them.

With R_k(u_k, u_{k-1}, v) = 0 the equations of the steps of a stretch, f their part of the objective, and a the
derivative of everything after the stretch by the state at its end, which is added to df/du there,

    J^T p = df/du,   df/dv - R_v^T p   and   df/du_0 - (dR/du_0)^T p

are the adjoint variables p of the stretch, its part of the derivative by the controls, and the a of the steps before.
Second derivatives follow in the same way, by differentiating these lines along a direction of the controls.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..linalg.corrected_solves import refined
from ..linalg.sparse import ScenarioMatrix
from .evolution import EvolutionEquation
from .linearisation import Linearisation
from .stretch import Stretch


@dataclass(frozen=True, eq=False)
class Visited:
    """Some steps at known states.

    Attributes:
        stretch: the steps.
        here: their equation with the state at their start.
        controls: (p of these steps,) the controls in these steps.
        full: (1, all coefficients at the start and at the ends of all steps) the states.
    """

    stretch: Stretch
    here: EvolutionEquation
    controls: Tensor
    full: Tensor

    @cached_property
    def u(self) -> Tensor:
        """(1, n) the unknowns."""
        return self.here.restrict(self.full)

    @cached_property
    def linear(self) -> Linearisation:
        return self.stretch.linearised(self.here, self.u, self.controls)

    @cached_property
    def residual(self) -> Tensor:
        """(1, n)."""
        return self.stretch.residual(self.here, self.u, self.controls)

    @cached_property
    def _below(self) -> ScenarioMatrix:
        return self.stretch.equation.before(self.controls, self.linear)

    @property
    def _width(self) -> int:
        return self.full.shape[1] // (self.here.steps + 1)

    def adjoint(self, covector: Tensor) -> tuple[Tensor, Tensor]:
        """p (1, n) of a covector (1, all coefficients), and the residual of its system."""
        linear = self.linear
        return refined(linear.factors.solve_transposed, linear.state.rmv, self.here.restrict(covector))

    def pulled_back(self, covector: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """What a covector and its p make of the derivatives by the controls of these steps, and by the state (N,) at
        the start."""
        by_control = self.here.restrict_data(covector, self.controls) - self.linear.control.rmv(p)
        return by_control, covector[0, : self._width] - self._at_start(p)

    def _at_start(self, p: Tensor) -> Tensor:
        """(dR/du_0)^T p, (N,)."""
        free = self.here.spatial_free
        first = p.new_zeros(1, self._width)
        first[0, torch.from_numpy(free)] = p[0, : len(free)]
        return self._below.rmv(first)[0]

    def moved(self, start: Tensor, d: Tensor) -> Tensor:
        """(1, all coefficients) the change of the states for a change `start` (N,) of the first one and d of the
        controls of these steps."""
        free = self.here.spatial_free
        right = self.linear.control.mv(d).clone()
        right[:, : len(free)] += self._below.mv(start[None])[:, torch.from_numpy(free)]
        found, _ = refined(self.linear.factors.solve, self.linear.state.mv, right)
        full = self.here.extend(-found, self.controls, d)
        full[0, : self._width] += start
        return full

    def bent(self, covector: Tensor, p: Tensor, move: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """The derivative of the results of `pulled_back`, before they are split, along a change of the states (1, all
        coefficients) and d of the controls, with covector and p fixed: by all coefficients, and by the controls.

        In these lines -p . R(u, v) stands for the equation, and covector . u for the given coefficients.
        """
        here, v = self.here, self.controls
        if here.affine:
            return torch.zeros_like(self.full), torch.zeros_like(v)
        whole, by_control = here.second_parts(self.full, v, p, move, d)
        if here.data is not None and here.data.parameters:
            # Given coefficients that follow from numbers have second derivatives, too.
            by_control = by_control - here.bent_data(covector - self.linear.control.whole_rmv(p), v, d)
        return -whole, -by_control


def visited(stretch: Stretch, v: Tensor, start: Tensor, states: Tensor) -> Visited:
    """The steps of a stretch at the states (N,) at their start and (steps, N) at their ends.

    Args:
        v: (p,) the controls of the whole evolution.
    """
    full = torch.cat([start[None], states]).reshape(1, -1)
    return Visited(stretch, stretch.starting(start), stretch.excerpt.local(v), full)
