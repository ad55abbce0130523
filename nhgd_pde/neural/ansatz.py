"""States that are given by a network at the nodes of the finite elements.

    u_i(theta) = s_i (N(x_i; theta) - N(x_i; theta_0))

with the nodes x_i of the unknowns (with the time, for an evolution), a natural size s_i of the field, and the
parameters theta_0 at the start, for which the state is zero while its derivatives by the parameters are those of a
random network. Dirichlet and initial values are those of the finite elements, at their nodes. Interpolation of networks
by finite elements: Badia, Li and Martin (2024), Comput. Methods Appl. Mech. Eng. 418; subtraction of the start:
Chizat, Oyallon and Bach (2019), On lazy training in differentiable programming.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..pde.evolution import EvolutionEquation
from ..pde_problem import PDEProblem
from .network import Network


@dataclass(frozen=True, eq=False)
class Ansatz:
    """The network of a state.

    Attributes:
        network: N.
        points: (n, k) the nodes of the unknowns, each coordinate scaled to [-1, 1].
        fields: (n,) the number of the field that each unknown belongs to.
        start: (d,) theta_0.
        scale: (c,) a natural size of each field.
    """

    network: Network
    points: Tensor
    fields: Tensor
    start: Tensor
    scale: Tensor

    @cached_property
    def _sizes(self) -> Tensor:
        """(n,) s."""
        return self.scale[self.fields]

    @cached_property
    def _first(self) -> Tensor:
        return self.network.values(self.start, self.points, self.fields)

    def state(self, theta: Tensor) -> Tensor:
        """u (1, n)."""
        return (self._sizes * (self.network.values(theta, self.points, self.fields) - self._first))[None]

    def derivatives(self, theta: Tensor) -> Tensor:
        """(d, n) du/dtheta, a row for each parameter."""
        return (self._sizes[:, None] * self.network.derivatives(theta, self.points, self.fields)).T.contiguous()


def coordinates(problem: PDEProblem) -> tuple[Tensor, Tensor]:
    """The nodes (n, k) of the unknowns, each coordinate scaled to [-1, 1], and the number (n,) of their fields."""
    equation, space = problem.equation, problem.space
    free = equation.spatial_free
    nodes, times = space.nodes[:, free].T, equation.repeats
    field = np.searchsorted(space.offsets, free, side="right") - 1
    if isinstance(equation, EvolutionEquation):
        time = np.repeat(np.arange(1.0, times + 1.0), len(nodes))
        nodes, field = np.column_stack([np.tile(nodes, (times, 1)), time]), np.tile(field, times)
    low, high = nodes.min(axis=0), nodes.max(axis=0)
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    device = equation.lift.device
    scaled = (nodes - middle) / np.where(half > 0.0, half, 1.0)
    return torch.from_numpy(scaled).to(device), torch.from_numpy(field.astype(np.int64)).to(device)
