"""The weights of sensors as a bilevel problem: the inner problem is the inversion, in the space of `information.py`.

    max_w  criterion(U*(w)) - penalty sum w,   U*(w) = argmin_U  tr(1/2 U H(w) U^T - U)

The inner variables are the rows of the covariance U* = H(w)^-1 of the posterior. The Hessian of the inner problem is
the precision H(w): the Fisher information of the sensors, whose scores are the rows K_j, and that of the prior. With
the adjoint variables P, P H = df/dU, the hypergradient by w_j is df/dw_j - tr K_j U^T P K_j^T.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..engine.bilevel import InnerBatch, Sample, relative_dual_error
from ..linalg.counts import Counts
from ..linalg.riesz import RieszMap
from ..tasks.factors import ConvexFactors, convex_factors
from ..tasks.metrics import euclidean
from .information import SensorInformation


@dataclass(frozen=True)
class SensorBudget:
    """sum w / count - 1 <= 0.

    Attributes:
        count: the largest sum of the weights.
    """

    count: int

    @property
    def description(self) -> str:
        return f"at most {self.count} sensors"

    def value(self, v: Tensor) -> float:
        return float(v.sum()) / self.count - 1.0

    def derivative(self, v: Tensor) -> Tensor:
        return torch.full_like(v, 1.0 / self.count)


@dataclass(frozen=True, eq=False)
class DesignProblem:
    """The problem of the weights, to be minimised; its methods are those of `engine.bilevel.BilevelProblem`.

    Attributes:
        information: candidates and criterion.
        count: the largest sum of the weights; None with a penalty.
        penalty: of the sum of the weights, in the unit of the criterion.
    """

    information: SensorInformation
    count: int | None
    penalty: float = 0.0
    counts: Counts = field(default_factory=Counts)

    # The inner equation U H(w) = I is linear in U.
    linear = True
    quadratic = False
    state_bounds = relaxations = reports = earlier = ()

    @property
    def inner_shape(self) -> tuple[int, int]:
        return len(self.information.base), len(self.information.base)

    @property
    def outer_size(self) -> int:
        return self.information.count

    @property
    def device(self) -> torch.device:
        return self.information.base.device

    @cached_property
    def inner_metric(self) -> RieszMap:
        return euclidean(self.information.base[0])

    @cached_property
    def outer_metric(self) -> RieszMap:
        return euclidean(self.start()[1])

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        ones = self.information.rows.new_ones(self.outer_size)
        return 0.0 * ones, ones

    @property
    def constraint(self) -> SensorBudget | None:
        return None if self.count is None else SensorBudget(self.count)

    def start(self) -> tuple[Tensor, Tensor]:
        share = 0.5 if self.count is None else self.count / self.outer_size
        v = self.information.rows.new_full((self.outer_size,), share)
        return self.cold_start(v), v

    def cold_start(self, v: Tensor) -> Tensor:
        return torch.eye(len(self.information.base)).to(self.information.base)

    # The inner problem

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        self.counts.residuals += 1
        return u @ self.information.precision(v) - self.cold_start(v)

    def inner_gradient(self, u: Tensor, v: Tensor) -> Tensor:
        return self.residual(u, v)

    def state_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        self.counts.products += 1
        return w @ self.information.precision(v)

    def state_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.state_product(u, v, w)

    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.state_product(u, v, w)

    def control_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        self.counts.products += 1
        return torch.einsum("mbr,rs,mbs->m", self.information.rows, u.T @ w, self.information.rows)

    def cross_product(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        return self.control_product_transposed(u, v, q)

    def inner_length(self, u: Tensor, v: Tensor) -> float:
        return self.inner_metric.norm(u)

    def inner_error(self, u: Tensor, v: Tensor, tolerance: float) -> float:
        return self.residual_error(self.residual(u, v), u, v, tolerance)

    def residual_error(self, residual: Tensor, u: Tensor, v: Tensor, tolerance: float) -> float:
        return relative_dual_error(self.inner_metric, residual, self.inner_length(u, v), tolerance)

    def fisher_factors(self, u: Tensor, v: Tensor) -> ConvexFactors:
        self.counts.factorisations += 1
        return convex_factors(self.information.precision(v), self.counts)

    def state_factors(self, u: Tensor, v: Tensor) -> ConvexFactors:
        return self.fisher_factors(u, v)

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        raise TypeError("the sensors' Fisher information is known without samples; use curvature: factored")

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        raise TypeError("the sensors' Fisher information is known without samples; use curvature: factored")

    def inner_patches(self, size: int) -> Tensor:
        """(d,) blocks of unknowns in their order."""
        rows, length = self.inner_shape
        own = torch.arange(length, device=self.device) // size
        return torch.cat([own + k * (int(own[-1]) + 1) for k in range(rows)])

    # The outer problem

    def outer_value(self, u: Tensor, v: Tensor) -> float:
        information = self.information
        if information.criterion == "D":
            gain = -0.5 * float(torch.linalg.slogdet(u).logabsdet + torch.linalg.slogdet(information.base).logabsdet)
        else:
            before = information.covariance(torch.zeros_like(v))
            gain = float((information.spread * (before - u)).sum())
        return self.penalty * float(v.sum()) - gain

    def outer_derivatives(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        by_weights = torch.full_like(v, self.penalty)
        if self.information.criterion == "D":
            return 0.5 * torch.linalg.inv(u).T, by_weights
        return self.information.spread, by_weights
