"""The derivative of the measured values by the control at one point, and its transpose.

With R(u, m) = 0, J = dR/du and measured values C u, the derivative is F = -C J^-1 R_m. The Fisher information of the
noise model N(C u(m), Gamma) about m is F^T Gamma^-1 F, the Gauss-Newton Hessian of the misfit: with data C u + e of the
model itself the score, which is the gradient of the log-likelihood, is F^T Gamma^-1 e with covariance F^T Gamma^-1 F.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bridges.solved_state import SolvedState
from ..pde_problem import PDEProblem
from .noise import SensorNoise

# Rows that are solved for at once, which bounds the memory of states and adjoints.
_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class ForwardMap:
    """F at one point, for rows of vectors.

    Attributes:
        problem: the problem of one scenario.
        point: its state at the control.
        noise: the measured values.
    """

    problem: PDEProblem
    point: SolvedState
    noise: SensorNoise

    @property
    def state(self) -> Tensor:
        """(1, N) all coefficients of the state."""
        return self.problem.state(self.point.u, self.point.v)

    def moved(self, directions: Tensor) -> Tensor:
        """The changes (k, N) of all coefficients of the state for changes (k, p) of the control."""
        return _in_pieces(self._moved, directions)

    def _moved(self, directions: Tensor) -> Tensor:
        problem, u, v = self.problem, self.point.u, self.point.v
        loads = torch.cat([problem.control_product(u, v, d) for d in directions])
        changes = -self.point.factors.solve(loads)
        equation = problem.equation
        return torch.cat([equation.extend(du[None], v, d) for du, d in zip(changes, directions, strict=True)])

    def pulled_back(self, covectors: Tensor) -> Tensor:
        """The transpose of `moved`: the derivatives (k, p) of functionals (k, N) of the state by the control."""
        return _in_pieces(self._pulled_back, covectors)

    def _pulled_back(self, covectors: Tensor) -> Tensor:
        problem, u, v = self.problem, self.point.u, self.point.v
        equation = problem.equation
        adjoints = self.point.factors.solve_transposed(equation.restrict(covectors))
        return torch.stack(
            [
                equation.restrict_data(own[None], v) - problem.control_product_transposed(u, v, p[None])
                for own, p in zip(covectors, adjoints, strict=True)
            ]
        )

    def apply(self, directions: Tensor) -> Tensor:
        """F d for every row (k, p): the changes (k, q) of the measured values."""
        return self.noise.observed(self.moved(directions))

    def transposed(self, values: Tensor) -> Tensor:
        """F^T y for every row (k, q); (k, p). The unit vectors of the measured values give the rows of F."""
        return self.pulled_back(self.noise.spread(values))

    def fisher(self, directions: Tensor) -> Tensor:
        """F^T Gamma^-1 F d for every row (k, p)."""
        return self.transposed(self.noise.precision * self.apply(directions))

    def scores(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, p) samples of the score, whose covariance is the Fisher information."""
        white = torch.randn(count, self.noise.size, generator=generator, dtype=torch.float64)
        return self.transposed(self.noise.root * white.to(self.noise.root))


def _in_pieces(linear: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    return torch.cat([linear(piece) for piece in torch.split(rows, _AT_ONCE)]) if len(rows) > _AT_ONCE else linear(rows)
