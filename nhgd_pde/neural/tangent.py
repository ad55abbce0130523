"""The Fisher information of a neural state, by the tangent space of the network at one point.

    B = J du/dtheta,   F = B^T K^-1 B = V diag(lambda) V^T

with J = dR/du and the inner product K of the tests. F has at most min(n, d) positive eigenvalues, n the number of tests
and d that of parameters: where n is smaller, they are found in the space of residuals, by the push-through identity

    (B^T K^-1 B + mu I)^-1 B^T K^-1 = B^T (B B^T + mu K)^-1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..engine.oracle import finite
from ..linalg.factorisation import SingularMatrixError
from ..pde_problem import PDEProblem
from .ansatz import Ansatz

# The damping of the inverse in the hypergradient, relative to the largest eigenvalue: F is computed as a product, whose
# eigenvalues below this are rounding errors.
ROUNDING = 1e-14


@dataclass(frozen=True, eq=False)
class Tangent:
    """The derivatives at one point (theta, v).

    Attributes:
        problem, ansatz: the equation and the network.
        theta, v: the point.
        u: (1, n) the state.
        by_theta: (d, n) du/dtheta.
        images: (d, n) the rows of B^T.
    """

    problem: PDEProblem
    ansatz: Ansatz
    theta: Tensor
    v: Tensor
    u: Tensor
    by_theta: Tensor
    images: Tensor

    @classmethod
    def at(cls, problem: PDEProblem, ansatz: Ansatz, theta: Tensor, v: Tensor) -> Tangent:
        u, by_theta = ansatz.state(theta), ansatz.derivatives(theta)
        images = problem.state_product(u, v, by_theta[:, None])[:, 0]
        return cls(problem, ansatz, theta, v, u, by_theta, images)

    @cached_property
    def represented(self) -> Tensor:
        """(d, n) the rows of B^T K^-1."""
        return self.problem.inner_metric.gradient(self.images)

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """lambda (r,) and V (d, r).

        Raises:
            SingularMatrixError: a derivative is not finite.
        """
        d, n = self.images.shape
        if not finite(self.images, self.represented):
            raise SingularMatrixError("the derivatives of the network's residual are not finite")
        if d <= n:
            values, vectors = torch.linalg.eigh(self.images @ self.represented.T)
            return values.clamp_min(0.0), vectors
        identity = torch.eye(n, dtype=self.u.dtype, device=self.u.device)
        factor = torch.linalg.cholesky(self.problem.inner_metric.covector(identity))
        whitened = torch.linalg.solve_triangular(factor, self.images.T, upper=False)
        _, singular, rows = torch.linalg.svd(whitened, full_matrices=False)
        return singular * singular, rows.T

    @property
    def largest(self) -> float:
        """The largest eigenvalue of F."""
        return float(self._spectrum[0].max())

    def gradient(self, residual: Tensor) -> Tensor:
        """B^T K^-1 R (d,) for a residual (1, n)."""
        return self.represented @ residual[0]

    def solve(self, g: Tensor, damping: float) -> Tensor:
        """(F + damping I)^-1 g for g (d,) in the range of B^T."""
        values, vectors = self._spectrum
        return vectors @ ((vectors.T @ g) / (values + damping))

    def adjoint(self, g: Tensor) -> Tensor:
        """The adjoint variable p = K^-1 B q (1, n) with F q = (du/dtheta)^T g, for a covector g (1, n).

        p is the best approximation of J^-T g in the tangent space that B gives.
        """
        by_theta = self.by_theta @ g[0]
        q = self.solve(by_theta, ROUNDING * self.largest)
        # Rounding errors of the products in F are removed by a second solve with the residual of the first one.
        q = q + self.solve(by_theta - self.images @ (q @ self.represented), ROUNDING * self.largest)
        return (q @ self.represented)[None]
