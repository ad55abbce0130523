"""The test product of a state with a field that is determined up to a constant: the product of the field of mean zero.

The product of the unknowns would depend on which coefficient is pinned. The inf-sup constant would fall under
refinement, like the norm of a function that is one at the pinned node and zero at all others.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..linalg.factorisation import factorised_riesz_map, gram_solver
from ..linalg.riesz import RieszMap
from ..linalg.sparse import SparseMatrix
from ..pde.equation import StateEquation
from ..pde.zero_mean import ZeroMean


class QuotientMatrix(SparseMatrix):
    """E^T K E, where E maps unknowns to coefficients and subtracts the mean. The matrix is dense; products use its
    factors.

    Args:
        equation: the equation with these unknowns and coefficients.
        whole: K (N, N). The attribute `host` is K on the unknowns, which differs from the matrix by rank one.
    """

    def __init__(self, equation: StateEquation, whole: SparseMatrix) -> None:
        super().__init__(whole.host[equation.free][:, equation.free], whole.device, symmetric=True)
        self._equation, self._whole = equation, whole

    def mv(self, x: Tensor) -> Tensor:
        return self._equation.restrict(self._whole.mv(self._equation.extend(x)))

    def rmv(self, y: Tensor) -> Tensor:
        return self.mv(y)

    def diagonal(self) -> Tensor:
        mean = self._equation.zero_mean
        assert mean is not None
        constant = self._whole.diagonal().new_zeros(1, self._whole.shape[0])
        constant[0, mean.first : mean.end] = 1.0
        found = self._whole.diagonal()
        found[mean.first : mean.end] -= mean.weights**2 * (constant * self._whole.mv(constant)).sum()
        return found[torch.from_numpy(np.asarray(self._equation.free, dtype=np.int64)).to(found.device)]


def quotient_riesz_map(equation: StateEquation, whole: SparseMatrix) -> RieszMap:
    """The Riesz map of `QuotientMatrix`, by a factorisation of K with the pinned coefficient among the unknowns.

    A covector that gives zero for constants is the image of a field of mean zero.
    """
    mean = equation.zero_mean
    assert mean is not None
    kept = with_pinned(equation.free, mean)
    gram = SparseMatrix(whole.host[kept][:, kept], whole.device, True)
    single = factorised_riesz_map(gram, equation.counts, gram_solver(equation.solver, kept))
    columns = torch.from_numpy(kept).to(whole.device)
    unknowns = torch.from_numpy(np.asarray(equation.free, dtype=np.int64)).to(whole.device)

    def solve(derivative: Tensor) -> Tensor:
        full = derivative.new_zeros(derivative.shape[0], equation.size)
        full[:, unknowns] = derivative
        found = torch.zeros_like(full)
        found[:, columns] = single.gradient(mean.completed(full)[:, columns])
        return mean.pinned_to_zero(found)[:, unknowns]

    return RieszMap(QuotientMatrix(equation, whole), solve)


def with_pinned(free: np.ndarray, mean: ZeroMean) -> np.ndarray:
    """The unknowns and the pinned coefficient, sorted."""
    return np.union1d(free, [mean.pinned]).astype(np.int64)
