"""The Fisher information as a weighted mean of a prior and of scores, for all sampled backends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from ...linalg.factorisation import SingularMatrixError
from ...linalg.safe_lengths import dot, paired_length
from ..bilevel import BilevelProblem, rough_vector
from .shrinkage import Moments, prior_scale_and_weight, samples_worth

# How old scores lose weight: never (None), by a constant weight of every batch, or where fresh scores contradict them.
Forgetting = float | Literal["auto"] | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Average:
    """The weights of the prior and of the scores in the F that a state inverts.

    Attributes:
        samples: T, number of scores absorbed so far.
        prior_weight: n0, the number of samples that the prior counts as; None until the first batch decides.
        prior_floor: c with prior >= c F, so that the prior counts in the stability of a step; 0 where none is
            known.
        prior_share: weight of the prior in F.
        squares: sum of the squared weights of the scores in F.
        forgotten: number of samples among n0 + T that no longer count.
    """

    samples: int = 0
    prior_weight: float | None = None
    prior_floor: float = 0.0
    prior_share: float = 1.0
    squares: float = 0.0
    forgotten: float = 0.0

    @property
    def effective_samples(self) -> float:
        """The number of equally weighted scores with the same variance: T for a running mean, fewer when F forgets."""
        return (1.0 - self.prior_share) ** 2 / self.squares if self.squares > 0.0 else 0.0

    def smallest(self, size: int, overlap: float = 1.0) -> float:
        """The smallest eigenvalue that the estimate of F is expected to have relative to F, at most 1.

        The sample mean of T scores of dimension `size` has its smallest eigenvalue, relative to its expectation,
        near (1 - sqrt(size / T))^2 (Marchenko and Pastur), that expectation its own relative to F: `overlap`.
        The prior adds the smallest eigenvalue that it is known to have.
        """
        samples = self.effective_samples
        sampled = (1.0 - math.sqrt(size / samples)) ** 2 if samples > size else 0.0
        return min(self.prior_share * self.prior_floor + (1.0 - self.prior_share) * overlap * sampled, 1.0)

    def unbiased(self, size: int) -> float:
        """The factor that corrects the bias by the inversion of a sampled matrix.

        In expectation the inverse of rho P + (1 - rho) W, W the mean of T outer products of dimension d, is close
        to that of rho P + (1 - rho) y F, y = 1 / (1 + (1 - rho) tr(F A) / T) (Marchenko and Pastur). For P = F the
        factor y is the root below, for rho = 0 it is the (T - d - 1) / T of a Wishart matrix; in between, these
        are the two ends. With few samples neither applies, and the inverse is not corrected.
        """
        samples, rho = self.effective_samples, self.prior_share
        if samples <= 2 * size:
            return 1.0
        load = (1.0 - rho) * (size + 1) / samples
        return 0.5 * (1.0 - load + math.sqrt((1.0 - load) ** 2 + 4.0 * rho * load))

    def absorbing(
        self, count: int, size: int, moments: Moments | None, forgetting: Forgetting
    ) -> tuple[Self, float, float]:
        """The weights after a batch of `count` scores, the weight beta of the batch, and the factor of the prior.

        Args:
            count: m.
            size: dimension of the matrices that are averaged.
            moments: moments of the batch, in coordinates in which the earlier F is the identity; None where they are
                not needed, i.e. n0 is known and forgetting is not `auto`.
            forgetting: how old scores fade.
        """
        scale, mean = 1.0, self
        if self.prior_weight is None:
            assert moments is not None
            scale, weight = prior_scale_and_weight(moments)
            mean = replace(self, prior_weight=weight, prior_floor=scale * self.prior_floor)
        assert mean.prior_weight is not None
        total = mean.prior_weight + mean.samples - mean.forgotten
        # With less than a few samples per unknown, the eigenvalues of A F are far from one because samples are few.
        if forgetting == "auto" and moments is not None and mean.effective_samples > 4 * size:
            worth = samples_worth(moments, total, mean.unbiased(size))
            if worth < total or mean.forgotten > 0.0:
                worth = min(worth, 8.0 * size)
            mean = replace(mean, forgotten=mean.forgotten + total - worth)
            total = worth
        beta = forgetting if isinstance(forgetting, float) else count / (total + count)
        mean = replace(
            mean,
            samples=mean.samples + count,
            prior_share=(1.0 - beta) * mean.prior_share,
            squares=(1.0 - beta) ** 2 * mean.squares + beta**2 / count,
        )
        return mean, beta, scale


def check_saved(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raises a `ValueError` where a tensor of a saved state has another shape, or no real numbers."""
    if tuple(tensor.shape) != shape or tensor.dtype != torch.float64:
        raise ValueError(f"{name}: expected numbers of shape {shape}, found {tensor.dtype} {tuple(tensor.shape)}")


def check_scores(scores: Tensor, unknowns: int) -> None:
    """Raises a `ValueError` for scores of another dimension, or not finite."""
    if scores.shape[0] != unknowns:
        raise ValueError(f"scores of dimension {scores.shape[0]}, expected {unknowns}")
    # The sums are those of whole columns, so that nothing of the size of the scores is stored.
    bad = int((~torch.isfinite(scores.sum(0))).sum())
    if bad:
        raise ValueError(f"{bad} of {scores.shape[1]} scores of a batch are not finite")


def cholesky(matrix: Tensor, samples: int) -> Tensor:
    """The Cholesky factors of (..., m, m) matrices, which are symmetrised first.

    Raises:
        SingularMatrixError: a matrix is not positive definite.
    """
    factor, info = torch.linalg.cholesky_ex(0.5 * (matrix + matrix.mT))
    if bool(info.any()):
        raise SingularMatrixError(
            f"rounding errors made the inverse Fisher information indefinite after {samples:,} scores; "
            "a larger prior weight prevents that"
        )
    return factor


def spectrum(
    problem: BilevelProblem, u: Tensor, v: Tensor, inverse: Callable[[Tensor], Tensor], steps: int = 20
) -> tuple[float, float]:
    """Estimates of the ends of the spectrum of P^-1 H, for a P of which only the inverse is known.

    The extreme Ritz values of Lanczos steps on covectors p, orthogonal in the inner product of P^-1, each of which
    takes one product and one solve. Vectors P^-1 p are not combined but solved for: the errors of combinations would be
    amplified by every step.
    """
    image = problem.hessian_product(u, v, rough_vector(u))
    pairs: list[tuple[Tensor, Tensor]] = []
    diagonal: list[float] = []
    off: list[float] = []
    for _ in range(min(steps, u.numel())):
        # The newest vector comes first: it removes most, and the older ones remove what its errors leave.
        for vector, covector in reversed(pairs):
            image = image - dot(vector, image) * covector
        vector = inverse(image)
        length = paired_length(image, vector)
        if not (0.0 < length < math.inf) and not diagonal:
            return math.nan, math.nan
        if diagonal:
            if length <= 1e-12 * abs(diagonal[0]):
                break
            off.append(length)
        pairs.append((vector / length, image / length))
        image = problem.hessian_product(u, v, pairs[-1][0])
        diagonal.append(dot(pairs[-1][0], image))
    side = torch.tensor(off, dtype=torch.float64)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(side, 1) + torch.diag(side, -1)
    if not torch.isfinite(tridiagonal).all():
        return math.nan, math.nan
    values = torch.linalg.eigvalsh(tridiagonal)
    return float(values[0]), float(values[-1])


def rayleigh_quotient(problem: BilevelProblem, u: Tensor, v: Tensor) -> float:
    """x . H x / x . x for a rough x, which is of the order of the mean eigenvalue of H."""
    x = (-1.0) ** torch.arange(u.numel(), dtype=u.dtype, device=u.device).reshape(u.shape)
    return dot(x, problem.hessian_product(u, v, x)) / u.numel()
