"""Normal priors: Matern fields by an elliptic operator, and independent numbers.

A field m with mean m0 has the precision R = A D^-1 A, where A = gamma K + delta M + gamma beta B has the stiffness
matrix K, the mass matrix M and the mass matrix B of the boundary; D is the lumped M. It approximates the solution of

    gamma (kappa^2 - Laplace) (m - m0) = white noise,   kappa^2 = delta / gamma,   dm/dn + beta m = 0 on the boundary,

a Matern field of smoothness nu = 2 - d/2 in d dimensions (Lindgren, Rue and Lindstroem 2011, J. R. Stat. Soc. B 73;
operators of this kind in Bui-Thanh, Ghattas, Martin and Stadler 2013, SIAM J. Sci. Comput. 35). With the lumped mass
matrix R is sparse and has the exact root L = D^-1/2 A, R = L^T L.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..linalg.counts import Counts
from ..linalg.factorisation import Factorisation
from ..linalg.riesz import RieszMap, diagonal_riesz_map
from ..linalg.sparse import SparseMatrix

# beta / kappa in 1, 2 and 3 dimensions, with which the variance at a flat boundary equals that inside. For waves along
# the boundary with omega^2 = 1 + k^2 the variances are 1 / (2 omega (omega + b)^2) there and 1 / (4 omega^3) inside; b
# makes their integrals over k in R^(d - 1) equal.
ROBIN = {1: math.sqrt(2.0) - 1.0, 2: 0.5508819467298669, 3: 1.0}


@dataclass(frozen=True)
class MaternNumbers:
    """gamma, delta and the Robin coefficient gamma beta for a pointwise standard deviation and a correlation length.

    The correlation at a distance r is that of `uncertainty.covariance.Matern` with smoothness 2 - d/2: with
    s = sqrt(2 nu) r / length it is 2^(1 - nu) / Gamma(nu) s^nu K_nu(s).
    """

    gamma: float
    delta: float
    robin: float

    @classmethod
    def of(cls, dim: int, length: float, std: float) -> MaternNumbers:
        """The numbers in `dim` dimensions, with variance Gamma(nu) / ((4 pi)^(d/2) kappa^(2 nu) gamma^2)."""
        nu = 2.0 - 0.5 * dim
        kappa = math.sqrt(2.0 * nu) / length
        gamma = math.sqrt(math.gamma(nu) / (4.0 * math.pi) ** (0.5 * dim)) / (kappa**nu * std)
        return cls(gamma, kappa**2 * gamma, ROBIN[dim] * kappa * gamma)


@dataclass(frozen=True, eq=False)
class NormalPrior:
    """The normal distribution of one control, with the precision R = A D^-1 A.

    Attributes:
        mean: (p,).
        operator: A (p, p), symmetric positive definite.
        mass: (p,) the diagonal of D.
    """

    mean: Tensor
    operator: sp.csr_matrix
    mass: np.ndarray

    @classmethod
    def of_numbers(cls, mean: Tensor, std: float) -> NormalPrior:
        """Independent numbers with one standard deviation."""
        ones = np.ones(len(mean))
        return cls(mean, sp.csr_matrix(sp.diags_array(ones / std)), ones)

    @property
    def size(self) -> int:
        return len(self.mean)

    @cached_property
    def precision(self) -> SparseMatrix:
        """R."""
        found = sp.csr_matrix(self.operator @ sp.diags_array(1.0 / self.mass) @ self.operator)
        return SparseMatrix(sp.csr_matrix(0.5 * (found + found.T)), self.mean.device, symmetric=True)

    @cached_property
    def riesz(self) -> RieszMap:
        """The inner product x . R y, in which the Hessian of a negative log-posterior is near the identity."""
        if self.operator.nnz == self.size:
            return diagonal_riesz_map(self.precision.diagonal(), self.precision)
        return RieszMap(self.precision, self.covariance)

    def covariance(self, covectors: Tensor) -> Tensor:
        """R^-1 of every row (k, p)."""
        return self._inverse(self._mass * self._inverse(covectors))

    def coloured(self, white: Tensor) -> Tensor:
        """L^-1 = A^-1 D^1/2 of every row (k, p): standard normal numbers become samples without the mean."""
        return self._inverse(self._mass.sqrt() * white)

    def whitened(self, covectors: Tensor) -> Tensor:
        """L^-T = D^1/2 A^-1 of every row (k, p)."""
        return self._mass.sqrt() * self._inverse(covectors)

    def white(self, deviations: Tensor) -> Tensor:
        """L = D^-1/2 A of every row (k, p), the inverse of `coloured`."""
        return self._operator.mv(deviations) / self._mass.sqrt()

    @cached_property
    def _operator(self) -> SparseMatrix:
        return SparseMatrix(self.operator, self.mean.device, symmetric=True)

    @cached_property
    def _mass(self) -> Tensor:
        return torch.from_numpy(self.mass).to(self.mean)

    def _inverse(self, b: Tensor) -> Tensor:
        return self._factors.solve(b)

    @cached_property
    def _factors(self) -> Factorisation:
        return Factorisation(self.operator, Counts(), symmetric=True)


@dataclass(frozen=True, eq=False)
class JointPrior:
    """The priors of all controls, which are independent of each other; the methods are those of `NormalPrior`."""

    parts: Sequence[NormalPrior]

    @cached_property
    def mean(self) -> Tensor:
        """(p,)."""
        return torch.cat([part.mean for part in self.parts])

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def precision(self, x: Tensor) -> Tensor:
        """R of every row (k, p)."""
        return self._each("precise", x)

    def covariance(self, covectors: Tensor) -> Tensor:
        return self._each("covariance", covectors)

    def coloured(self, white: Tensor) -> Tensor:
        return self._each("coloured", white)

    def whitened(self, covectors: Tensor) -> Tensor:
        return self._each("whitened", covectors)

    def white(self, deviations: Tensor) -> Tensor:
        return self._each("white", deviations)

    def _each(self, verb: str, rows: Tensor) -> Tensor:
        pieces = zip(torch.split(rows, [part.size for part in self.parts], dim=1), self.parts, strict=True)
        if verb == "precise":
            return torch.cat([part.precision.mv(piece) for piece, part in pieces], dim=1)
        return torch.cat([getattr(part, verb)(piece) for piece, part in pieces], dim=1)
