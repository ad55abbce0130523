"""The paper's inverse: a full matrix, renewed by the Woodbury identity from batches of scores.

    F+ = (1 - beta) F + (beta / m) S S^T
    A+ = [A - A S (m (1 - beta) / beta I + S^T A S)^-1 S^T A] / (1 - beta)

beta_t = m / (n0 + T + m) after T scores is a running mean in which the prior counts as n0 samples; a constant
beta forgets (arXiv 2602.10905, with rank m in place of one).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ...linalg.krylov import dot
from ..bilevel import BilevelProblem, inner_spectrum
from .base import identity_like, symmetric_


@dataclass(frozen=True)
class DenseState:
    """
    Attributes:
        inverse: A (d, d), owned by this state and overwritten when it absorbs.
        samples: scores absorbed so far, T.
        prior_weight: n0.
        prior_floor: c with prior >= c F, so that the prior counts in the stability of a step; 0 where none is
            known.
        prior_share: weight of the prior in the F that A inverts.
        squares: sum of the squared weights of the scores in that F.
    """

    inverse: Tensor
    samples: int
    prior_weight: float
    prior_floor: float
    prior_share: float = 1.0
    squares: float = 0.0

    @property
    def effective_samples(self) -> float:
        """Equally weighted scores that would average as well: T for a running mean, fewer when A forgets."""
        return (1.0 - self.prior_share) ** 2 / self.squares if self.squares > 0.0 else 0.0

    def solve(self, g: Tensor) -> Tensor:
        return (self.inverse @ g.reshape(-1)).reshape(g.shape)

    def estimate(self, g: Tensor) -> Tensor:
        # The inverse of a d x d Wishart matrix of T samples over-estimates by T / (T - d - 1).
        d, samples = self.inverse.shape[0], self.effective_samples
        correct = self.prior_floor == 0.0 and samples > 2 * d
        return self.solve(g) * ((samples - d - 1) / samples if correct else 1.0)

    @property
    def trust(self) -> float:
        """The reciprocal of the largest eigenvalue that A F is expected to have, at most 1.

        The sample mean of T scores has its smallest eigenvalue, relative to F, near (1 - sqrt(d / T))^2
        (Marchenko and Pastur); the prior adds what it is known to have.
        """
        d, samples = self.inverse.shape[0], self.effective_samples
        smallest = (1.0 - math.sqrt(d / samples)) ** 2 if samples > d else 0.0
        return min(self.prior_share * self.prior_floor + (1.0 - self.prior_share) * smallest, 1.0)

    @property
    def description(self) -> str:
        d = self.inverse.shape[0]
        return f"dense {d:,} x {d:,} from {self.samples:,} scores"


@dataclass(frozen=True)
class Dense:
    """Options of the dense backend.

    Attributes:
        prior: `riesz` starts from the inverse Gram matrix of the state space (exact where it is the Fisher
            information), `identity` from a multiple of the identity, the paper's 1/lambda.
        prior_weight: n0, samples the prior counts as; None for d (riesz) or 1 (identity).
        forgetting: a constant beta in (0, 1) a batch, in place of the running mean.
    """

    prior: Literal["riesz", "identity"] = "riesz"
    prior_weight: float | None = None
    forgetting: float | None = None

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> DenseState:
        scenarios, n = problem.inner_shape
        d = scenarios * n
        if self.prior == "riesz":
            block = problem.inner_metric.gradient(identity_like(n, u))
            inverse = torch.block_diag(*[block] * scenarios)
            _, largest = inner_spectrum(problem, u, v)
            return DenseState(symmetric_(inverse), 0, self.prior_weight or float(d), 1.0 / largest)
        # lambda: a Rayleigh quotient of H, of the order of its mean eigenvalue for a rough vector.
        rough = (-1.0) ** torch.arange(d, dtype=u.dtype, device=u.device).reshape(u.shape)
        scale = dot(rough, problem.hessian_product(u, v, rough)) / d
        return DenseState(identity_like(d, u) / scale, 0, self.prior_weight or 1.0, 0.0)

    def absorb(self, state: DenseState, scores: Tensor) -> DenseState:
        """One rank-m update, in place.

        Raises:
            ValueError: scores of another dimension, or not finite.
        """
        d, m = scores.shape
        if d != state.inverse.shape[0]:
            raise ValueError(f"scores of dimension {d}, expected {state.inverse.shape[0]}")
        if not torch.isfinite(scores).all():
            raise ValueError("a batch of scores holds numbers that are not finite")
        beta = self.forgetting or m / (state.prior_weight + state.samples + m)
        inverse = state.inverse
        image = inverse @ scores
        small = scores.T @ image
        small.diagonal().add_(m * (1.0 - beta) / beta)
        # With L L^T the small matrix, A - (A S L^-T)(A S L^-T)^T keeps A symmetric to rounding.
        factor = torch.linalg.cholesky(symmetric_(small))
        half = torch.linalg.solve_triangular(factor, image.T, upper=False)
        inverse.addmm_(half.T, half, alpha=-1.0).div_(1.0 - beta)
        return replace(
            state,
            samples=state.samples + m,
            prior_share=(1.0 - beta) * state.prior_share,
            squares=(1.0 - beta) ** 2 * state.squares + beta**2 / m,
        )

    def refresh(self, state: DenseState, problem: BilevelProblem, u: Tensor, v: Tensor) -> DenseState:
        return state
