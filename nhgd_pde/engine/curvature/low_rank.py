"""A prior with an inverse of its own and a streaming correction of low rank: memory O(r d).

In coordinates z = P^(-1/2) s the mean of outer products is known by its leading eigenvectors, which every batch
enlarges by its scores and an eigen-decomposition of their Gram matrix compresses to r again, and by the energy of
what was cut. F is modelled as in probabilistic principal component analysis (Tipping and Bishop, 1999, J. R. Stat.
Soc. B 61): the rest of the energy is spread evenly over all other directions,

    F = c P + sum_i (l_i - c) q_i q_i^T,   q_i^T P^-1 q_j = delta_ij,
    A = (1 / c) [P^-1 - sum_i (1 - c / l_i) r_i r_i^T],   r_i = P^-1 q_i
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..bilevel import BilevelProblem
from .average import Average, check_scores, spectrum
from .base import LocalBackend
from .shrinkage import one_block

# Directions whose share of the energy is a rounding error.
_NOTHING = 1e-14


@dataclass(frozen=True, eq=False, kw_only=True)
class LowRankState(Average):
    """
    Attributes:
        invert: covectors (k, n) -> P^-1 covectors, where the prior is `scale` P.
        point: (u, v) where P was made, if it belongs to one.
        vectors: (d, r) eigenvectors of the weighted sum of outer products s s^T, of length sqrt(`values`) in the
            inner product of P^-1.
        images: (d, r) P^-1 `vectors`.
        values: (r,) eigenvalues, the largest first.
        cut: sum of the eigenvalues that were cut.
        scale: of the prior.
        significant: only directions that stand out of the sampling noise count.
    """

    invert: Callable[[Tensor], Tensor]
    point: tuple[Tensor, Tensor] | None
    vectors: Tensor
    images: Tensor
    values: Tensor
    cut: float = 0.0
    scale: float = 1.0
    significant: bool = True

    def solve(self, g: Tensor) -> Tensor:
        bulk, values = self.model
        k = len(values)
        flat, images = self.invert(g).reshape(-1), self.images[:, :k]
        # images are r_i sqrt(value_i).
        weights = (1.0 - bulk / values) / self.values[:k]
        return ((flat - images @ (weights * (images.T @ g.reshape(-1)))) / bulk).reshape(g.shape)

    def estimate(self, g: Tensor) -> Tensor:
        return self.solve(g)

    @property
    def model(self) -> tuple[float, Tensor]:
        """c and the l_i of the directions that are corrected.

        With T samples the eigenvalues of pure noise of variance c end near c (1 + sqrt(d / T))^2 (Marchenko and
        Pastur). An eigenvalue beyond it is put right by the shrinker that is best in the Frobenius norm (Donoho,
        Gavish and Johnstone, 2018, Ann. Statist. 46).
        """
        prior = self.prior_share * self.scale
        d, share = self.vectors.shape[0], 1.0 - self.prior_share
        if not len(self.values):
            return prior + self.cut / d, self.values
        if not self.significant:
            bulk = prior + self.cut / max(d - len(self.values), 1)
            return bulk, self.values + prior
        ratio = d / self.effective_samples
        values = (self.values / share).tolist()
        total = self.cut / share + sum(values)
        kept, noise = 0, total / d
        while kept < len(values) and kept < d - 1 and values[kept] > noise * (1.0 + math.sqrt(ratio)) ** 2:
            kept += 1
            noise = (total - sum(values[:kept])) / (d - kept)
        shrunk = [noise * _shrunk(value / noise, ratio) for value in values[:kept]]
        noise = (total - sum(shrunk)) / (d - kept)
        return prior + share * noise, prior + share * self.values.new_tensor(shrunk)

    @property
    def trust(self) -> float:
        """The reciprocal of a bound of the largest eigenvalue of A F: that of P^-1 F over c.

        F has at least c P; what the correction adds is not counted, because directions that it has missed
        cannot be told from those that are not there.
        """
        return min(self.model[0] * self.prior_floor / self.scale, 1.0) if self.samples else self.smallest(1)

    @property
    def description(self) -> str:
        kept = len(self.model[1])
        return f"a prior and {kept} of at most {self.vectors.shape[1]} corrections from {self.samples:,} scores"
