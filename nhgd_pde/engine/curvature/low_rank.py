"""A prior with an inverse of its own and a streaming correction of low rank: memory O(r d).

In coordinates z = P^(-1/2) s the mean of outer products is known by its leading eigenvectors, which every batch
enlarges by its scores, and an eigen-decomposition of their Gram matrix compresses to r again, and by the energy that
was cut off. F is modelled as in probabilistic principal component analysis (Tipping and Bishop, 1999, J. R. Stat.
Soc. B 61): the rest of the energy is spread evenly over all other directions,

    F = c P + sum_i (l_i - c) q_i q_i^T,   q_i^T P^-1 q_j = delta_ij,
    A = (1 / c) [P^-1 - sum_i (1 - c / l_i) r_i r_i^T],   r_i = P^-1 q_i
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from ..bilevel import BilevelProblem
from .average import Average, check_saved, check_scores, spectrum
from .base import BackendOptions, LocalBackend, OptionError
from .shrinkage import one_block

# Directions with a smaller share of the energy than this are rounding errors.
_NOTHING = 1e-13


@dataclass(frozen=True, eq=False, kw_only=True)
class LowRankState(Average):
    """
    Attributes:
        invert: covectors (k, n) -> P^-1 covectors, where the prior is `scale` P.
        point: (u, v) where P was made, if it belongs to a point.
        vectors: (d, r) eigenvectors of the weighted sum of outer products s s^T, of length sqrt(`values`) in the
            inner product of P^-1.
        images: (d, r) P^-1 `vectors`.
        values: (r,) eigenvalues, the largest first.
        cut: sum of the eigenvalues that were cut.
        unknowns: n, the number of unknowns of one scenario.
        scale: factor of the prior.
        significant: only directions that stand out of the sampling noise count.
    """

    invert: Callable[[Tensor], Tensor]
    point: tuple[Tensor, Tensor] | None
    vectors: Tensor
    images: Tensor
    values: Tensor
    unknowns: int
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
        Pastur): smaller eigenvalues count as noise.
        """
        d, most = self.vectors.shape
        kept = most
        if self.significant and self.samples:
            edge = (1.0 + math.sqrt(d / self.effective_samples)) ** 2
            values, kept = self.values.tolist(), 0
            rest = self.cut + sum(values)
            while kept < most and values[kept] > edge * rest / (d - kept):
                rest -= values[kept]
                kept += 1
        bulk = (self.cut + float(self.values[kept:].sum())) / max(d - kept, 1)
        prior = self.prior_share * self.scale
        return prior + bulk, prior + self.values[:kept]

    @property
    def trust(self) -> float:
        """The reciprocal of a bound of the largest eigenvalue of A F: that of P^-1 F over c.

        The correction of c P is not counted, because directions that it has missed cannot be distinguished from those
        that do not exist. It is counted if nothing was ever cut, so that F is the mean of all scores.
        """
        bulk, values = self.model
        complete = len(values) == len(self.values) and self.cut <= _NOTHING * float(values.sum())
        return max(
            min(bulk * self.prior_floor / self.scale, 1.0), self.smallest(len(self.vectors)) if complete else 0.0
        )

    @property
    def description(self) -> str:
        prior = "riesz" if self.point is None else "factored"
        return f"{prior} prior with {len(self.model[1])} corrections from {self.samples:,} scores"


@dataclass(frozen=True)
class LowRank(LocalBackend):
    """Options of the low-rank backend.

    A batch of m scores takes m applications of P^-1, an application of A takes one.

    Attributes:
        rank: r, largest number of directions that are corrected.
        prior: P is the Gram matrix of the state space (`riesz`), or the Fisher information of the mean
            Jacobian (`factored`), which `refresh` renews.
        prior_weight: n0, number of samples that the prior counts as; None chooses it, and a scale of the prior, from
            the first batch (see `shrinkage`).
        forgetting: a constant beta in (0, 1) per batch, in place of the running mean.
        significant: keep only directions that stand out of the sampling noise; without it, all of them.
    """

    rank: int = 32
    prior: Literal["riesz", "factored"] = "riesz"
    prior_weight: float | None = None
    forgetting: float | None = None
    significant: bool = True
    remade: ClassVar[str] = "invert"

    @classmethod
    def of_options(cls, options: BackendOptions, scenarios: int) -> Self:
        if options.prior == "identity":
            raise OptionError("prior", "expected riesz: low_rank corrects a structured prior, found 'identity'")
        # With several scenarios the mean of their Jacobians is nearer to each of them than the Riesz map is.
        prior: Literal["riesz", "factored"] = "riesz" if scenarios == 1 else "factored"
        forgetting = options.forgetting if isinstance(options.forgetting, float) else None
        return cls(options.rank, prior, options.weight, forgetting)

    def bytes(self, unknowns: int) -> float:
        return 16.0 * self.rank * unknowns

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> LowRankState:
        invert, point = self._inverse(problem, (u, v))
        none = u.new_zeros(u.numel(), 0)
        return LowRankState(
            invert=invert,
            point=point,
            vectors=none,
            images=none,
            values=u.new_zeros(0),
            unknowns=u.shape[1],
            significant=self.significant,
            prior_weight=self.prior_weight,
            prior_floor=1.0 / spectrum(problem, u, v, invert)[1],
        )

    def absorb(self, state: LowRankState, scores: Tensor) -> LowRankState:
        """Enlarge the basis by a batch and compress it again.

        Raises:
            ValueError: scores of another dimension, or not finite.
        """
        d, m = scores.shape
        check_scores(scores, state.vectors.shape[0])
        images = _inverted(state, scores)
        gram = scores.T @ images
        gram = 0.5 * (gram + gram.T)
        whitened = one_block(gram / state.scale, d)
        mean, beta, scale = state.absorbing(m, d, whitened, self.forgetting)
        old, new = 1.0 - beta, beta / m
        mixed = math.sqrt(old * new) * (state.images.T @ scores)
        joint = torch.cat(
            [torch.cat([torch.diag(old * state.values), mixed], 1), torch.cat([mixed.T, new * gram], 1)], 0
        )
        values, axes, cut = _leading(joint, self.rank)
        above, below = math.sqrt(old) * axes[: len(state.values)], math.sqrt(new) * axes[len(state.values) :]
        return replace(
            mean,
            vectors=torch.addmm(scores @ below, state.vectors, above),
            images=torch.addmm(images @ below, state.images, above),
            values=values,
            cut=old * state.cut + cut,
            scale=scale * state.scale,
        )

    def refresh(self, state: LowRankState, problem: BilevelProblem, u: Tensor, v: Tensor) -> LowRankState:
        """The state with a renewed factored prior, and new images of the correction."""
        if self.prior == "riesz":
            return state
        invert, point = self._inverse(problem, (u, v))
        moved = replace(state, invert=invert, point=point)
        images = _inverted(moved, state.vectors)
        gram = state.vectors.T @ images
        values, axes, _ = _leading(0.5 * (gram + gram.T), self.rank)
        floor = state.scale / spectrum(problem, u, v, invert)[1]
        return replace(moved, vectors=state.vectors @ axes, images=images @ axes, values=values, prior_floor=floor)

    def restore(self, problem: BilevelProblem, saved: dict[str, Any]) -> LowRankState:
        d, rank = math.prod(problem.inner_shape), len(saved["values"])
        for name, shape in (("vectors", (d, rank)), ("images", (d, rank)), ("values", (rank,))):
            check_saved(name, saved[name], shape)
        if saved["unknowns"] != problem.inner_shape[1]:
            raise ValueError(f"unknowns: expected {problem.inner_shape[1]}, found {saved['unknowns']}")
        invert, _ = self._inverse(problem, saved["point"])
        return LowRankState(invert=invert, **saved)

    def _inverse(
        self, problem: BilevelProblem, point: tuple[Tensor, Tensor] | None
    ) -> tuple[Callable[[Tensor], Tensor], tuple[Tensor, Tensor] | None]:
        """P^-1, and the point it belongs to."""
        if self.prior == "riesz":
            return problem.inner_metric.gradient, None
        assert point is not None
        return problem.fisher_factors(*point).solve, point


def _inverted(state: LowRankState, covectors: Tensor) -> Tensor:
    """P^-1 times the columns of (d, m), for every scenario by itself."""
    d, m = covectors.shape
    return state.invert(covectors.T.reshape(-1, state.unknowns)).reshape(m, d).T


def _leading(gram: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The largest eigenvalues of a Gram matrix, their eigenvectors, and the sum of the other eigenvalues."""
    values, axes = torch.linalg.eigh(gram)
    values, axes = values.flip(0), axes.flip(1)
    count = min(rank, int((values > _NOTHING * values[:1]).sum())) if len(values) else 0
    return values[:count], axes[:, :count], float(values[count:].clamp(min=0.0).sum())
