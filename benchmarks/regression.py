"""A bilevel problem that satisfies the assumptions of the theory: regression with a random design, all of it known.

    l(u, v; x, y) = s(v) (y - x . u)^2 / 2,   y = x . u*(v) + eps / sqrt(s(v)),   u*(v) = B v + c,   eps ~ N(0, 1)

x = Sigma^(1/2) r with r uniform on the sphere of radius sqrt(d), so that E x x^T = Sigma and x is bounded. The model is
correctly specified for every v: Hessian and Fisher information are s(v) Sigma, with s(v) = exp(stretch sin v_1) between
two positive bounds. The inner problem is strongly convex and smooth, uniformly in v.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import torch
from torch import Tensor

from nhgd_pde.engine.bilevel import CrossFactors, InnerBatch, Sample
from nhgd_pde.tasks.loss_problem import LossProblem

# See `nhgd_pde.inner.model`.
Scores = Literal["observed", "model"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Regression(LossProblem):
    """The problem, on the interface of the engine.

    Attributes:
        variances: (d,) the diagonal of Sigma.
        slope, offset: B (d, p) and c (d,).
        target: (d,) of the outer objective.
        weight: w of its last term.
        stretch: how much the Hessian depends on v.
        convex: the outer objective is |u - target|^2 / 2 + w |v|^2 / 2; else the first term is the sum of
            r^2 / (1 + r^2) over the components r of u - target, and Phi is not convex.
        scores: `observed` are the stochastic gradients themselves, as in the paper.
    """

    variances: Tensor
    slope: Tensor
    offset: Tensor
    target: Tensor
    weight: float
    stretch: float
    convex: bool
    scores: Scores

    @classmethod
    def of(
        cls,
        size: int,
        outer: int,
        condition: float = 2.0,
        stretch: float = 0.0,
        convex: bool = True,
        weight: float = 0.1,
        scores: Scores = "observed",
        seed: int = 0,
    ) -> Self:
        """A problem of `size` inner and `outer` outer variables with the given condition number of Sigma."""
        g = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        variances = torch.linspace(1.0, condition, size, dtype=torch.float64)
        slope, offset, target = normal(size, outer) / outer**0.5, normal(size), normal(size)

        def inner_loss(u: Tensor, v: Tensor) -> Tensor:
            """The expectation of l, less its value at u*(v)."""
            error = u - slope @ v - offset
            return 0.5 * torch.exp(stretch * torch.sin(v[0])) * (variances * error * error).sum()

        def outer_loss(u: Tensor, v: Tensor) -> Tensor:
            square = (u - target) ** 2
            fit = 0.5 * square if convex else square / (1.0 + square)
            return fit.sum() + 0.5 * weight * (v * v).sum()

        first = torch.zeros(size, dtype=torch.float64), torch.zeros(outer, dtype=torch.float64)
        return cls(
            inner_loss,
            outer_loss,
            first,
            variances=variances,
            slope=slope,
            offset=offset,
            target=target,
            weight=weight,
            stretch=stretch,
            convex=convex,
            scores=scores,
        )

    def solution(self, v: Tensor) -> Tensor:
        """u*(v), (1, d)."""
        return (self.slope @ v + self.offset)[None]

    def precision(self, v: Tensor) -> float:
        """s(v)."""
        return float(torch.exp(self.stretch * torch.sin(v[0])))

    def inverse(self, v: Tensor) -> Tensor:
        """The inverse (d, d) of the Fisher information."""
        return torch.diag(1.0 / (self.precision(v) * self.variances))

    def exact(self, v: Tensor) -> Tensor:
        """The gradient (p,) of Phi: grad_v f + B^T grad_u f at u*(v)."""
        by_u, by_v = self.outer_derivatives(self.solution(v), v)
        return by_v + self.slope.T @ by_u[0]

    def reduced(self, v: Tensor) -> float:
        """Phi(v)."""
        return self.outer_value(self.solution(v), v)

    @cached_property
    def optimum(self) -> Tensor:
        """The minimiser (p,) of a convex Phi."""
        identity = torch.eye(self.outer_size, dtype=torch.float64)
        matrix = self.slope.T @ self.slope + self.weight * identity
        return torch.linalg.solve(matrix, self.slope.T @ (self.target - self.offset))

    @cached_property
    def smoothness(self) -> Tensor:
        """(d,) the eigenvalues of E (x x^T)^2 = d / (d + 2) (2 Sigma^2 + tr(Sigma) Sigma), with which the difference of
        the stochastic gradients of one sample at two points grows in mean square."""
        d = len(self.variances)
        return d / (d + 2.0) * self.variances * (2.0 * self.variances + self.variances.sum())

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        """x (1, m, d) and eps (1, m)."""
        d = len(self.variances)
        numbers = torch.randn(count, d + 1, generator=generator, dtype=torch.float64)
        r = numbers[:, :d]
        r = r * (d**0.5 / r.norm(dim=1, keepdim=True))
        return Sample((r * self.variances.sqrt())[None], numbers[None, :, d])

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        assert sample.noise is not None
        x, eps, m = sample.tests[0], sample.noise[0], sample.count
        s = self.precision(v)
        misfit = x @ (u - self.solution(v))[0]
        gradients = (s * misfit - s**0.5 * eps)[:, None] * x
        scores = gradients if self.scores == "observed" else s**0.5 * x
        gradient = gradients.mean(0, keepdim=True)
        square = self.smoothness.max() / m + (1.0 - 1.0 / m) * self.variances.max() ** 2

        def factors() -> CrossFactors:
            """The derivative of (s x . (u - u*) - sqrt(s) eps) x by v."""
            change = torch.zeros_like(v)
            change[0] = s * self.stretch * torch.cos(v[0])
            left = (misfit - 0.5 * eps / s**0.5)[:, None] * change - s * (x @ self.slope)
            return CrossFactors(left[None] / m, x[None])

        return InnerBatch(
            gradient=gradient,
            scores=scores.T.contiguous(),
            residual=float(gradient.norm()),
            # The mean-square smoothness L of a batch is the largest eigenvalue of H divided by this step.
            step=float(self.variances.max() / square.sqrt()),
            hessian=lambda w: s * (w @ x.T) @ x / m,
            cross=lambda q: factors()(q),
            cross_factors=factors,
        )
