"""Objectives: sums of quadratic terms in the state and in the control."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .linalg.krylov import dot
from .linalg.sparse import SparseMatrix


@dataclass(frozen=True, eq=False)
class Tracking:
    """weight/2 int (u - target)^2 over a region.

    Attributes:
        mass: (N, N) weighted mass matrix of the state space on the region.
        target: (N,) nodal values.
    """

    mass: SparseMatrix
    target: Tensor

    def value(self, u: Tensor) -> Tensor:
        """(S, N) -> one value a scenario (S,)."""
        misfit = u - self.target
        return 0.5 * (misfit * self.mass.mv(misfit)).sum(-1)

    def derivative(self, u: Tensor) -> Tensor:
        """(S, N), a covector a scenario."""
        return self.mass.mv(u - self.target)

    def second_derivative(self, direction: Tensor) -> Tensor:
        """Applied to a direction (S, N)."""
        return self.mass.mv(direction)


@dataclass(frozen=True, eq=False)
class Regularisation:
    """weight/2 int (v - reference)^2, or of the squared gradient.

    Attributes:
        gram: (p, p) mass or stiffness matrix of the control space times the weight.
        reference: (p,).
    """

    gram: SparseMatrix
    reference: Tensor

    def value(self, v: Tensor) -> float:
        deviation = (v - self.reference)[None]
        return 0.5 * dot(deviation, self.gram.mv(deviation))

    def derivative(self, v: Tensor) -> Tensor:
        """(p,)."""
        return self.gram.mv((v - self.reference)[None])[0]

    def second_derivative(self, direction: Tensor) -> Tensor:
        """Applied to a direction (p,)."""
        return self.gram.mv(direction[None])[0]


@dataclass(frozen=True, eq=False)
class Objective:
    """f(u, v) = mean over scenarios of the state terms, plus the control terms."""

    state: tuple[Tracking, ...]
    control: tuple[Regularisation, ...]

    def value(self, u: Tensor, v: Tensor) -> float:
        """u (S, N) with its Dirichlet values, v (p,)."""
        misfit = sum((float(term.value(u).mean()) for term in self.state), 0.0)
        return misfit + sum((term.value(v) for term in self.control), 0.0)

    def state_derivative(self, u: Tensor) -> Tensor:
        """df/du (S, N)."""
        total = torch.zeros_like(u)
        for term in self.state:
            total = total + term.derivative(u)
        return total / u.shape[0]

    def control_derivative(self, v: Tensor) -> Tensor:
        """df/dv at fixed u, (p,)."""
        total = torch.zeros_like(v)
        for term in self.control:
            total = total + term.derivative(v)
        return total

    def state_second_derivative(self, du: Tensor) -> Tensor:
        """d2f/du2 applied to du (S, N), zero where the state has Dirichlet values."""
        total = torch.zeros_like(du)
        for term in self.state:
            total = total + term.second_derivative(du)
        return total / du.shape[0]

    def control_second_derivative(self, dv: Tensor) -> Tensor:
        """d2f/dv2 applied to dv (p,)."""
        total = torch.zeros_like(dv)
        for term in self.control:
            total = total + term.second_derivative(dv)
        return total
