"""Matrices that are not symmetric and definite: GMRES with multigrid preconditioners of fields and saddle points."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from torch import Tensor

from .base import Hints, Prepared, WithoutEstimate
from .superlu import SuperLU

# Directions between restarts, and the largest number of restarts before the matrix is factorised.
_RESTART, _MOST = 200, 2
# From one restart to the next the residual has to fall by the first factor, unless it is not above the second one times
# what the rounding errors of its computation may be.
_PROGRESS, _ROUNDING = 0.5, 10.0 * np.finfo(float).eps
# Chebyshev steps with the mass matrix of the multiplier, whose eigenvalues relative to its diagonal lie between these
# numbers (Wathen and Rees 2009, ETNA 34).
_MASS_STEPS, _MASS_LOW, _MASS_HIGH = 10, 0.5, 2.5


class Preconditioner(Protocol):
    """r (n,) -> P r, which approximates A^-1 r or A^-T r."""

    @property
    def bytes(self) -> int: ...

    def apply(self, r: np.ndarray, transposed: bool) -> np.ndarray: ...


class Cycle(Protocol):
    """A multigrid cycle."""

    @property
    def bytes(self) -> int: ...

    def apply(self, b: Tensor) -> Tensor: ...


class OneField:
    """A W-cycle for the symmetric part of the matrix, which serves its transpose as well."""

    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle

    @property
    def bytes(self) -> int:
        return self._cycle.bytes

    def apply(self, r: np.ndarray, transposed: bool) -> np.ndarray:
        return cycled(self._cycle, r)


class MassSteps:
    """A mass matrix M of functions of degree one on simplices, whose inverse is approximated."""

    def __init__(self, mass: sp.csr_matrix) -> None:
        self._mass, self._diagonal = mass, mass.diagonal()

    @property
    def bytes(self) -> int:
        return 12 * int(self._mass.nnz)

    def inverse(self, r: np.ndarray) -> np.ndarray:
        """M^-1 r by a fixed number of Chebyshev steps, which is a linear map."""
        centre, radius = 0.5 * (_MASS_HIGH + _MASS_LOW), 0.5 * (_MASS_HIGH - _MASS_LOW)
        sigma = centre / radius
        rho = 1.0 / sigma
        step = r / self._diagonal / centre
        x = step.copy()
        for _ in range(_MASS_STEPS - 1):
            r = r - self._mass @ step
            before, rho = rho, 1.0 / (2.0 * sigma - rho)
            step = rho * before * step + 2.0 * rho / radius * (r / self._diagonal)
            x += step
        return x


class SaddlePoint:
    """[F B'; B 0]^-1 by blocks: a W-cycle for F, and the mass matrix M of the multiplier for its Schur complement.

    With exact blocks the preconditioner [F B'; 0 -S]^-1, S = B F^-1 B', needs two steps. For a Stokes flow S is
    spectrally equivalent to M over the viscosity on every mesh (Elman, Silvester and Wathen 2014, Finite Elements and
    Fast Iterative Solvers, chapter 4), so that the number of steps does not grow under refinement.

    Args:
        cycle: for F, which is symmetric.
        upper: B'.
        mass: M with the reciprocal of the viscosity as its weight.
    """

    def __init__(self, cycle: Cycle, upper: sp.csr_matrix, mass: sp.csr_matrix) -> None:
        self._cycle, self._upper, self._mass = cycle, upper, MassSteps(mass)

    @property
    def bytes(self) -> int:
        return self._cycle.bytes + self._mass.bytes + 12 * int(self._upper.nnz)

    def apply(self, r: np.ndarray, transposed: bool) -> np.ndarray:
        first = self._upper.shape[0]
        multiplier = -self._mass.inverse(r[first:])
        state = cycled(self._cycle, r[:first] - self._upper @ multiplier)
        return np.concatenate([state, multiplier])


def cycled(cycle: Cycle, r: np.ndarray) -> np.ndarray:
    return cycle.apply(torch.from_numpy(r)[None])[0].numpy()


class MultigridGMRES(WithoutEstimate):
    """A matrix with a preconditioner; solves by restarted GMRES (Saad and Schultz 1986) from SciPy, on the host.

    A matrix whose systems do not converge is factorised instead, from then on.

    Args:
        matrix: A.
        hints: what is known of it.
        preconditioner: P.
        rtol: relative residual of a solve.
        sizes: (n,) the diagonal of a definite matrix like A, for multipliers like their Schur complement. Residuals are
            divided by its square roots: equations of different units add up only then.
    """

    def __init__(
        self, matrix: sp.csr_matrix, hints: Hints, preconditioner: Preconditioner, rtol: float, sizes: np.ndarray
    ) -> None:
        self._matrix, self._hints, self._rtol = matrix, hints, rtol
        self._scale = 1.0 / np.sqrt(sizes)
        self._transposed = matrix if hints.symmetric else matrix.T.tocsr()
        self._preconditioner = preconditioner
        self._factors: Prepared | None = None
        self.note = ""
        self.cycles = 0

    @property
    def size(self) -> int:
        return int(self._matrix.shape[0])

    @property
    def exact(self) -> bool:
        return self._factors is not None

    @property
    def error(self) -> float:
        return 0.0 if self.exact else self._rtol

    @property
    def bytes(self) -> int:
        held = self._preconditioner if self._factors is None else self._factors
        return held.bytes

    def solve(self, b: Tensor) -> Tensor:
        return self.solve_within(b, self._rtol, False)

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self.solve_within(b, self._rtol, True)

    def solve_within(self, b: Tensor, rtol: float, transposed: bool) -> Tensor:
        transposed = transposed and not self._hints.symmetric
        if self._factors is None:
            rows = b.detach().cpu().numpy()
            found = np.zeros_like(rows)
            if all(self._solved(row, found[k], max(rtol, self._rtol), transposed) for k, row in enumerate(rows)):
                return torch.from_numpy(found).to(b.device)
            self.note = "multigrid did not converge: the matrix was factorised by superlu"
            self._factors = SuperLU().prepare(self._matrix, self._hints)
        return self._factors.solve_transposed(b) if transposed else self._factors.solve(b)

    def _solved(self, row: np.ndarray, found: np.ndarray, rtol: float, transposed: bool) -> bool:
        """Whether a system has been solved; the solution goes to `found`.

        Solutions are corrected until the residual is small enough, or until it consists of rounding errors: with a
        condition number of 1e6 and more it does not fall below 1e-10 of the right-hand side.
        """
        if not np.isfinite(row).all():
            found[:] = np.nan
            return True
        size = float(np.abs(self._scale * row).max())
        if not np.isfinite(size):
            # A row has no diagonal entry by which its residual could be weighed.
            return False
        if size == 0.0:
            return True
        matrix = self._transposed if transposed else self._matrix
        b = row / size
        x, r, left = np.zeros_like(b), b, 1.0
        whole = self._norm(b)
        for _ in range(_MOST):
            before = left
            x = x + self._correction(matrix, r, rtol / left, transposed)
            r = b - matrix @ x
            left = self._norm(r) / whole
            if left <= rtol or not left <= _PROGRESS * before:
                break
        rounding = _ROUNDING * self._norm(abs(matrix) @ np.abs(x) + np.abs(b))
        if not (left <= rtol or left * whole <= rounding):
            return False
        found[:] = size * x
        return True

    def _norm(self, residual: np.ndarray) -> float:
        return float(np.linalg.norm(self._scale * residual))

    def _correction(self, matrix: sp.csr_matrix, r: np.ndarray, rtol: float, transposed: bool) -> np.ndarray:
        """An approximate solution for a residual, after the steps of one restart or with a relative residual."""

        def applied(y: np.ndarray) -> np.ndarray:
            return self._preconditioner.apply(np.ravel(y) / self._scale, transposed)

        def product(y: np.ndarray) -> np.ndarray:
            return np.asarray(self._scale * (matrix @ applied(y)))

        # With the preconditioner on the right, the residual that ends the iteration is that of the system itself.
        operator = scipy.sparse.linalg.LinearOperator(matrix.shape, product, dtype=np.float64)

        def count(_: float) -> None:
            self.cycles += 1

        y, _ = scipy.sparse.linalg.gmres(
            operator, self._scale * r, rtol=rtol, restart=_RESTART, maxiter=1, callback=count, callback_type="pr_norm"
        )
        return applied(y)
