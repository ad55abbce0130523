"""Algebraic multigrid: smoothed aggregation by pyamg, whose W-cycle preconditions conjugate gradients or GMRES."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..conjugate_gradients import batched_conjugate_gradients
from ..lanczos import extreme_eigenvalues
from ..safe_lengths import dot
from ..sparse import SparseMatrix
from .aggregation import levels
from .base import Hints, Prepared
from .flow_blocks import FlowBlocks
from .gmres import MultigridGMRES, OneField, Preconditioner, SaddlePoint
from .hierarchy import Hierarchy
from .superlu import SuperLU, singular

# Lanczos steps that find the smallest eigenvalue of the product of cycle and matrix, which lies between 0.5 and 1 as a
# rule. More steps look for the smallest one of a poor hierarchy. Two hierarchies are compared by a solve to this error.
_RITZ_STEPS, _MORE_RITZ_STEPS, _ROUGH = 10, 24, 1e-3
# Half of this eigenvalue below which aggregates along strong couplings are tried, and the share below which a coupling
# is weak then. Good hierarchies have 0.2 to 0.45, and take some 10 to 20 cycles; 0.1 makes 30.
_POOR, _WEAK = 0.1, 0.08
# Number of cycles after which factors are made instead.
_MOST = 200


@dataclass(frozen=True)
class AMG:
    """Smoothed aggregation (Vanek, Mandel and Brezina 1996, Computing 56) with Chebyshev smoothing.

    Attributes:
        rtol: relative error of a solve in the energy norm |x - A^-1 b|_A / |A^-1 b|_A, as the W-cycle measures it.
        theta: couplings below this share of sqrt(a_ii a_jj) are weak; None: 0, or 0.08 where that is better.
        degree: degree of the smoothing polynomial.
    """

    rtol: float = 1e-10
    theta: float | None = None
    degree: int = 2
    name = "amg"

    def prepare(self, matrix: sp.csr_matrix, hints: Hints) -> Prepared:
        """Conjugate gradients or GMRES with a W-cycle; factors where the structure of the matrix is not known."""
        # There is no preconditioner for the time steps of a flow with convection, which has no hint on velocities.
        known = hints.symmetric or hints.velocity is not None
        if known and hints.state is not None and hints.schur is not None:
            return self._saddle(matrix, hints, hints.state, hints.schur())
        positive = bool((matrix.diagonal() > 0.0).all())
        if positive and not hints.symmetric:
            return MultigridGMRES(matrix, hints, OneField(self._cycle(matrix, hints)), self.rtol, matrix.diagonal())
        if positive and hints.definite is not False:
            return MultigridCG(matrix, hints, self)
        factors = SuperLU().prepare(matrix, hints)
        factors.note = "a matrix is not positive definite, as multigrid requires: it was factorised by superlu"
        return factors

    def _saddle(self, matrix: sp.csr_matrix, hints: Hints, first: int, mass: sp.csr_matrix) -> Prepared:
        preconditioner: Preconditioner
        sizes = np.concatenate([np.abs(matrix.diagonal()[:first]), mass.diagonal()])
        if hints.velocity is not None:
            preconditioner = FlowBlocks(matrix, hints, hints.velocity, mass, self._pressure_cycle)
        else:
            top = matrix[:first]
            preconditioner = SaddlePoint(self._cycle(top[:, :first].tocsr(), hints), top[:, first:].tocsr(), mass)
        return MultigridGMRES(matrix, hints, preconditioner, self.rtol, sizes)

    def _pressure_cycle(self, matrix: sp.csr_matrix) -> Hierarchy:
        return hierarchy(matrix, Hints(symmetric=True, definite=True), self, torch.device("cpu"))

    def _cycle(self, matrix: sp.csr_matrix, hints: Hints) -> Hierarchy:
        """The W-cycle of the symmetric part, on the host."""
        part = matrix if hints.symmetric else sp.csr_matrix(0.5 * (matrix + matrix.T))
        return hierarchy(part, hints, self, torch.device("cpu"), self.theta or 0.0)


class MultigridCG:
    """A symmetric positive definite matrix with a hierarchy; solves by preconditioned conjugate gradients.

    A matrix whose systems do not converge is factorised instead, from then on.
    """

    def __init__(self, matrix: sp.csr_matrix, hints: Hints, options: AMG) -> None:
        self._matrix, self._hints, self._options = SparseMatrix(matrix, symmetric=True), hints, options
        self._device = torch.device("cpu")
        self._hierarchy: Hierarchy | None
        self._hierarchy, self._least, self._theta = self._best()
        self._factors: Prepared | None = None
        self.note = ""
        self.cycles = 0
        if math.isnan(self._least):
            self._factorised("its cycle is not positive definite")

    @property
    def size(self) -> int:
        return self._matrix.shape[0]

    @property
    def exact(self) -> bool:
        return self._factors is not None

    @property
    def error(self) -> float:
        return 0.0 if self.exact else self._options.rtol / math.sqrt(self._least)

    @property
    def bytes(self) -> int:
        held = self._hierarchy if self._factors is None else self._factors
        assert held is not None
        return held.bytes

    def solve(self, b: Tensor) -> Tensor:
        return self.solve_within(b, self._options.rtol, False)

    def solve_within(self, b: Tensor, rtol: float, transposed: bool) -> Tensor:
        if self._factors is not None:
            return self._factors.solve(b)
        self._move(b.device)
        assert self._hierarchy is not None
        finite = b.isfinite().all(1)
        right = b if bool(finite.all()) else torch.where(finite[:, None], b, 0.0)
        # Rows that are zero have the solution zero, and nothing to be relative to.
        some = right.abs().amax(1) > 0.0
        solution = torch.zeros_like(b)
        if bool(some.any()):
            found = batched_conjugate_gradients(
                self._matrix.mv,
                right[some],
                self._hierarchy.apply,
                atol=lambda first: max(rtol, self._options.rtol) * first,
                iterations=_MOST,
            )
            self.cycles += found.iterations
            if not found.converged or not bool(found.solution.isfinite().all()):
                return self._factorised(found.message).solve(b)
            solution[some] = found.solution
        return solution if right is b else torch.where(finite[:, None], solution, torch.nan)

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self.solve(b)

    def overestimate(self, b: Tensor) -> Tensor | None:
        """One cycle, over the smallest eigenvalue of the product of cycle and matrix."""
        if self._hierarchy is None or not self._least >= _POOR:
            # A small eigenvalue is not known well enough.
            return None
        self._move(b.device)
        return self._hierarchy.apply(b) / self._least

    def _best(self) -> tuple[Hierarchy, float, float]:
        """A hierarchy, a bound of the smallest eigenvalue as in `_smallest`, and the share below which couplings are
        weak.

        Thin cells and anisotropic coefficients need aggregates along strong couplings alone. Elsewhere these make a
        hierarchy that costs more, so that they are tried where the other hierarchy is poor.
        """
        made, options = self._matrix.host, self._options
        given = options.theta or 0.0
        found = hierarchy(made, self._hints, options, self._device, given)
        least = self._smallest(found)
        if options.theta is None and not least >= _POOR:
            other = hierarchy(made, self._hints, options, self._device, _WEAK)
            # A few small eigenvalues hardly slow the iteration down, so that a trial decides.
            if self._trial(other) < self._trial(found):
                found, given = other, _WEAK
            least = self._smallest(found, _MORE_RITZ_STEPS)
        return found, least, given

    def _trial(self, cycle: Hierarchy) -> int:
        """The number of cycles of a rough solve with a rough right-hand side."""
        b = torch.from_numpy(np.random.default_rng(0).standard_normal((1, self.size))).to(self._device)
        steps = batched_conjugate_gradients(
            self._matrix.mv, b, cycle.apply, atol=lambda first: _ROUGH * first, iterations=_MOST
        )
        return steps.iterations if steps.converged else _MOST + 1

    def _smallest(self, cycle: Hierarchy, steps: int = _RITZ_STEPS) -> float:
        """A lower bound of the smallest eigenvalue of the product of cycle and matrix: half the smallest Ritz value
        after a few steps, and at most 1/2; NaN where the product is not definite."""
        matrix = self._matrix.mv
        start = torch.ones(1, self.size, dtype=torch.float64, device=self._device)
        start[:, ::2] = -0.5
        low, _ = extreme_eigenvalues(lambda x: cycle.apply(matrix(x)), lambda x, y: dot(x, matrix(y)), start, steps)
        return 0.5 * min(low, 1.0) if low > 0.0 else math.nan

    def _move(self, device: torch.device) -> None:
        if device == self._device:
            return
        self._matrix = SparseMatrix(self._matrix.host, device, symmetric=True)
        self._hierarchy = hierarchy(self._matrix.host, self._hints, self._options, device, self._theta)
        self._device = device

    def _factorised(self, reason: str) -> Prepared:
        """Factors, where the hierarchy has failed."""
        self.note = f"multigrid did not converge ({reason}): the matrix was factorised by superlu"
        self._factors, self._hierarchy = SuperLU().prepare(self._matrix.host, self._hints), None
        return self._factors


def hierarchy(matrix: sp.csr_matrix, hints: Hints, options: AMG, device: torch.device, theta: float = 0.0) -> Hierarchy:
    """The W-cycle of a symmetric positive definite matrix."""
    matrices, prolongations = levels(matrix, hints, theta)
    if not all(np.isfinite(each.data).all() for each in matrices):
        raise singular(matrix)
    return Hierarchy(matrices, prolongations, device, options.degree)
