"""The number of fresh samples that a prior, or an older estimate, of the Fisher information is worth.

In coordinates z = P^(-1/2) s, in which the matrix P to be judged is the identity and F = E z z^T, a batch of m
independent scores has the Gram matrix G = S^T P^-1 S, with

    E g_ii = tr F,   E g_ii g_jj = (tr F)^2,   E g_ij^2 = tr F^2   (i != j)

The combination of mu I and the mean of T outer products that is nearest to F in the Frobenius norm has
(Ledoit and Wolf, 2004, J. Multivariate Anal. 88, Theorem 2.1)

    mu = tr F / d,   share of mu I = b^2 / (a^2 + b^2),
    a^2 = |F - mu I|^2 = tr F^2 - (tr F)^2 / d,   b^2 = E |mean - F|^2 = ((tr F)^2 + tr F^2) / T   (Gaussian z)

so that the prior mu P is worth n0 = T b^2 / a^2 samples. Where F is known to be block diagonal, traces are taken
block by block and added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Moments of the Fisher information, estimated from one batch.

    Attributes:
        unknowns: d.
        freedom: sum of b (b + 1) over blocks of size b.
        lengths: (m,) the squared length of every score, of all blocks together.
        squared_traces: sum over the blocks of (tr F)^2.
        square: sum over the blocks of tr F^2.
    """

    unknowns: int
    freedom: int
    lengths: Tensor
    squared_traces: float
    square: float

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets of blocks together."""
        return Moments(
            self.unknowns + other.unknowns,
            self.freedom + other.freedom,
            self.lengths + other.lengths,
            self.squared_traces + other.squared_traces,
            self.square + other.square,
        )

    @property
    def count(self) -> int:
        """m."""
        return self.lengths.shape[0]

    @property
    def trace(self) -> float:
        return float(self.lengths.mean())

    @property
    def noise(self) -> float:
        """Standard error of `square` - (tr F)^2 / d where F = I and scores are Gaussian.

        The estimate is a mean over m (m - 1) / 2 pairs of uncorrelated numbers with variance 2 sum b (b + 1) - 4.
        """
        m = self.count
        return 2.0 * math.sqrt(max(self.freedom - 2, 0) / max(m * (m - 1), 1))


def moments(grams: Tensor, sizes: Tensor) -> Moments:
    """The moments from Gram matrices (B, m, m) of B blocks of sizes (B,)."""
    m = grams.shape[1]
    diagonals = grams.diagonal(dim1=1, dim2=2)
    lengths = diagonals.sum(0)
    unknowns, freedom = int(sizes.sum()), int((sizes * (sizes + 1)).sum())
    if m == 1:
        # One score gives no tr F^2: P is taken to be right, for which E g^2 = (tr F)^2 (1 + 2 / d).
        squared = diagonals[:, 0].square() / (1.0 + 2.0 / sizes)
        return Moments(unknowns, freedom, lengths, float(squared.sum()), float((squared / sizes).sum()))
    pairs = m * (m - 1)
    own = float(diagonals.square().sum())
    traces = (float(diagonals.sum(1).square().sum()) - own) / pairs
    return Moments(unknowns, freedom, lengths, traces, (float(grams.square().sum()) - own) / pairs)


def prior_scale_and_weight(batch: Moments) -> tuple[float, float]:
    """mu and n0 for a prior P, from the moments of a batch in the coordinates of P.

    Two errors of the estimates bound n0 from above: a^2 is not visible below its standard error, so that n0 is at most
    about d m / 2; and mu comes from m scores, which adds 2 tr F^2 / (d m) to a^2, so that n0 is at most m for d = 1.
    From below, tr F^2 <= (tr F)^2 makes n0 at least one.
    """
    d, m, mu = batch.unknowns, batch.count, batch.trace / batch.unknowns
    if not mu > 0.0:
        # A batch of zeros has no information.
        return 1.0, float(d)
    least = max(
        (batch.trace * batch.trace - batch.lengths.var().item() / m if m > 1 else batch.squared_traces) / d, 0.0
    )
    square = min(max(batch.square, least), batch.squared_traces)
    distance = max(square - least, mu * mu * batch.noise) + 2.0 * square / (d * m)
    return mu, max((batch.squared_traces + square) / distance, 1.0)


def samples_worth(batch: Moments, weight: float, unbiased: float) -> float:
    """The number of fresh samples that an estimate of F is worth, at most its present `weight`.

    An estimate from T samples differs from F by |P - F|^2 = ((tr F)^2 + tr F^2) / T. An estimate that is farther away
    than sampling explains belongs to an F that has changed. It is worth the number of samples whose mean would be as
    far away.

    Args:
        batch: moments in coordinates in which the estimate is the identity, of scores that are not part of it.
        weight: number of samples that the estimate counts as.
        unbiased: factor that corrects the bias of the estimate's inverse.
    """
    d, m = batch.unknowns, batch.count
    square = unbiased * unbiased * max(batch.square, 0.0)
    scatter = unbiased * unbiased * batch.squared_traces + square
    distance = square - 2.0 * unbiased * batch.trace + d
    # Where F = I, the two sums vary independently: by `noise`, and by var |z|^2 = 2 d per score.
    error = math.hypot(batch.noise, math.sqrt(8.0 * max(square, d) / m))
    if distance - 4.0 * error <= 2.0 * scatter / weight:
        return weight
    return min(max(scatter / distance, 1.0), weight)


def one_block(gram: Tensor, unknowns: int) -> Moments:
    """The moments from one Gram matrix (m, m) of scores of dimension d."""
    return moments(gram[None], torch.tensor([unknowns], device=gram.device))
