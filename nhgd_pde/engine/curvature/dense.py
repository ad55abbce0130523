"""The paper's inverse: a full matrix, renewed by the Woodbury identity from batches of scores.

    F+ = (1 - beta) F + (beta / m) S S^T
    A+ = [A - A S (m (1 - beta) / beta I + S^T A S)^-1 S^T A] / (1 - beta)

beta_t = m / (n0 + T + m) after T scores is a running mean in which the prior counts as n0 samples; a constant
beta forgets (arXiv 2602.10905, with rank m in place of one).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from ..bilevel import BilevelProblem
from .average import Average, Forgetting, check_saved, check_scores, cholesky, rayleigh_quotient, spectrum
from .base import BackendOptions, LocalBackend
from .shrinkage import one_block

# Smallest number of rows of A that are updated at once: a matrix product is efficient with these, and little work is
# done twice.
_PANEL = 128
# Largest number of stored entries at one time, relative to d^2.
_PEAK = 1.1
# From this number of unknowns on, products are long enough for more than one thread.
_PARALLEL = 2_000


@dataclass(frozen=True, eq=False, kw_only=True)
class DenseState(Average):
    """
    Attributes:
        inverse: A (d, d), exactly symmetric, owned by this state and overwritten when it absorbs.
    """

    inverse: Tensor

    def solve(self, g: Tensor) -> Tensor:
        return (self.inverse @ g.reshape(-1)).reshape(g.shape)

    def estimate(self, g: Tensor) -> Tensor:
        return self.solve(g) * self.unbiased(self.inverse.shape[0])

    @property
    def trust(self) -> float:
        """The reciprocal of the largest eigenvalue that A F is expected to have, at most 1."""
        return self.smallest(self.inverse.shape[0])

    @property
    def description(self) -> str:
        d = self.inverse.shape[0]
        return f"dense {d:,} x {d:,} from {self.samples:,} scores"


@dataclass(frozen=True)
class Dense(LocalBackend):
    """Options of the dense backend.

    Attributes:
        prior: `riesz` starts from the inverse Gram matrix of the state space (exact where it is the Fisher
            information), `identity` from a multiple of the identity, the paper's 1/lambda.
        prior_weight: n0, number of samples that the prior counts as; None chooses it, and a scale of the prior, from
            the first batch (see `shrinkage`).
        regularisation: lambda of the prior (1/lambda) I; None: the mean eigenvalue of F takes its place.
        forgetting: a constant beta in (0, 1) per batch, in place of the running mean; `auto` keeps the running mean
            until a batch shows that F has changed; then the mean counts as fewer samples.
    """

    prior: Literal["riesz", "identity"] = "riesz"
    prior_weight: float | None = None
    forgetting: Forgetting = None
    regularisation: float | None = None

    @classmethod
    def of_options(cls, options: BackendOptions, scenarios: int) -> Self:
        return cls(options.prior, options.weight, options.forgetting, options.regularisation)

    def bytes(self, unknowns: int) -> float:
        return 8.0 * _PEAK * unknowns**2

    def parallel(self, unknowns: int) -> bool:
        return unknowns >= _PARALLEL

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> DenseState:
        if self.prior == "riesz":
            inverse, metric = _inverse_gram(problem, u), problem.inner_metric
            floor = 1.0 / spectrum(problem, u, v, metric.gradient)[1]
            return DenseState(inverse=inverse, prior_weight=self.prior_weight, prior_floor=floor)
        inverse = u.new_zeros(u.numel(), u.numel())
        inverse.fill_diagonal_(1.0 / (self.regularisation or rayleigh_quotient(problem, u, v)))
        return DenseState(inverse=inverse, prior_weight=self.prior_weight)

    def absorb(self, state: DenseState, scores: Tensor) -> DenseState:
        """One rank-m update, in place; more scores than unknowns are split into pieces with the same result.

        Raises:
            ValueError: scores of another dimension, or not finite.
        """
        check_scores(scores, state.inverse.shape[0])
        forgetting, count = self.forgetting, scores.shape[1]
        kept = 1.0 - forgetting if isinstance(forgetting, float) else 0.0
        for piece in scores.split(max(state.inverse.shape[0], _PANEL), dim=1):
            if isinstance(self.forgetting, float):
                # Later pieces reduce the weights of earlier ones, so that all weights are those of one batch in the
                # end.
                share = self.forgetting * piece.shape[1] / count
                kept += share
                forgetting = share / kept
            state = self._absorbed(state, piece, forgetting)
        return state

    def _absorbed(self, state: DenseState, scores: Tensor, forgetting: Forgetting) -> DenseState:
        inverse, m = state.inverse, scores.shape[1]
        # A is symmetric; as the second factor it is read by rows, nearly twice as fast.
        image = scores.T @ inverse
        gram = image @ scores
        d = inverse.shape[0]
        # A known weight of the prior and a fixed rule of forgetting need no moments.
        known = state.prior_weight is not None and forgetting != "auto"
        mean, beta, scale = state.absorbing(m, d, None if known else one_block(gram, d), forgetting)
        small = gram / scale
        small.diagonal().add_(m * (1.0 - beta) / beta)
        # With L L^T the small matrix, the update is A - (A S L^-T)(A S L^-T)^T. It overwrites A S piece by piece.
        factor = cholesky(small, state.samples) * scale
        for piece in image.split(_PANEL, dim=1):
            piece.copy_(torch.linalg.solve_triangular(factor, piece, upper=False))
        _downdate(inverse, image, 1.0 / (scale * (1.0 - beta)), 1.0 / (1.0 - beta))
        return mean

    def restore(self, problem: BilevelProblem, saved: dict[str, Any]) -> DenseState:
        d = math.prod(problem.inner_shape)
        check_saved("inverse", saved["inverse"], (d, d))
        return DenseState(**saved)


def _inverse_gram(problem: BilevelProblem, u: Tensor) -> Tensor:
    """K^-1 for every scenario, solved for a few columns at a time, directly into the (d, d) matrix."""
    scenarios, n = u.shape
    inverse = u.new_zeros(u.numel(), u.numel())
    # The solver holds a few copies of these columns.
    width = max(8, u.numel() // 512)
    for first in range(0, n, width):
        last = min(first + width, n)
        units = u.new_zeros(last - first, n)
        units[:, first:last].fill_diagonal_(1.0)
        rows = problem.inner_metric.gradient(units)
        for start in range(0, scenarios * n, n):
            inverse[start + first : start + last, start : start + last] = rows[:, :last]
            _mirror(inverse, start + first, start + last)
    return inverse


def _downdate(a: Tensor, half: Tensor, keep: float, take: float) -> None:
    """A <- keep A - take half^T half, in place and exactly symmetric.

    It takes half the operations of a full product. The asymmetry of a full product would grow by 1 / (1 - beta) per
    batch.
    """
    d = a.shape[0]
    # A large matrix has few panels, so that a GPU does not wait for each.
    width = max(_PANEL, d // 64)
    for first in range(0, d, width):
        last = min(first + width, d)
        a[first:last, :last].addmm_(half.T[first:last], half[:, :last], beta=keep, alpha=-take)
        _mirror(a, first, last)


def _mirror(a: Tensor, first: int, last: int) -> None:
    """Copy some rows left of the diagonal to the columns above it."""
    a[:first, first:last] = a[first:last, :first].T
    corner = a[first:last, first:last]
    corner.copy_(corner.tril() + corner.tril(-1).T)
