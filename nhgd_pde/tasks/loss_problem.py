"""A bilevel problem given by two losses, whose derivatives are those of automatic differentiation.

    min_v f(u*(v), v)    with    u*(v) = argmin_u g(u, v)

Vectors are those of the engine: u has one row, (1, d), v is (p,). The equation of the inner variables is
R = grad_u g = 0, with the derivative J = H, the Hessian of g, which is symmetric.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.func import grad, hessian, jvp

from ..engine.bilevel import InnerBatch, Sample, relative_dual_error
from ..linalg.counts import Counts
from ..linalg.riesz import RieszMap
from .factors import ConvexFactors, convex_factors
from .metrics import euclidean

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LossProblem:
    """Minimise an outer loss over v, where u minimises an inner loss.

    Its methods are those that optimisers call, see `SecondOrderProblem` and `ImplicitProblem` in `engine/bilevel.py`.

    Attributes:
        inner_loss: g(u, v), a number, for u (d,) and v (p,), strictly convex in u near u*(v); written with functions
            of torch that torch.func can differentiate.
        outer_loss: f(u, v), a number.
        first: u (d,) and v (p,) to start from, in double precision.
        bounds: lower and upper bounds (p,) of v; None without.
        counts: the work done: `residuals` counts gradients of g, `products` products with second derivatives.

    Raises:
        ValueError: the first variables are not vectors of finite numbers in double precision.
    """

    inner_loss: Loss
    outer_loss: Loss
    first: tuple[Tensor, Tensor]
    bounds: tuple[Tensor, Tensor] | None = None
    counts: Counts = field(default_factory=Counts)

    linear = quadratic = False
    # There are no constraints besides the bounds of v, and one stage.
    state_bounds = relaxations = reports = earlier = ()

    def __post_init__(self) -> None:
        for name, x in zip(("u", "v"), self.first, strict=True):
            if x.ndim != 1 or x.dtype != torch.float64 or not bool(torch.isfinite(x).all()):
                found = f"{x.dtype} of shape {tuple(x.shape)}" + ("" if torch.isfinite(x).all() else ", not all finite")
                raise ValueError(f"first {name}: expected finite numbers, torch.float64 of shape (n,), found {found}")

    @property
    def device(self) -> torch.device:
        return self.first[1].device

    @property
    def inner_shape(self) -> tuple[int, int]:
        return 1, len(self.first[0])

    @property
    def outer_size(self) -> int:
        return len(self.first[1])

    @cached_property
    def inner_metric(self) -> RieszMap:
        return euclidean(self.first[0])

    @cached_property
    def outer_metric(self) -> RieszMap:
        return euclidean(self.first[1])

    def start(self) -> tuple[Tensor, Tensor]:
        u, v = self.first
        return u[None].clone(), v.clone()

    def cold_start(self, v: Tensor) -> Tensor:
        return self.start()[0]

    # The inner problem

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        self.counts.residuals += 1
        return grad(self.inner_loss)(u[0], v)[None]

    def inner_gradient(self, u: Tensor, v: Tensor) -> Tensor:
        return self.residual(u, v)

    def state_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        self.counts.products += len(w)
        return torch.stack([jvp(lambda u: grad(self.inner_loss)(u, v), (u[0],), (each,))[1] for each in w])

    def state_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.state_product(u, v, w)

    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.state_product(u, v, w)

    def cross_product(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        self.counts.products += 1
        return grad(lambda v: jvp(lambda u: self.inner_loss(u, v), (u[0],), (q[0],))[1])(v)

    def control_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.cross_product(u, v, w)

    def inner_length(self, u: Tensor, v: Tensor) -> float:
        return self.inner_metric.norm(u)

    def inner_error(self, u: Tensor, v: Tensor, tolerance: float) -> float:
        return self.residual_error(self.residual(u, v), u, v, tolerance)

    def residual_error(self, residual: Tensor, u: Tensor, v: Tensor, tolerance: float) -> float:
        return relative_dual_error(self.inner_metric, residual, self.inner_length(u, v), tolerance)

    def fisher_factors(self, u: Tensor, v: Tensor) -> ConvexFactors:
        """The Cholesky factors of H (d, d).

        Raises:
            SingularMatrixError: H is not positive definite.
        """
        self.counts.factorisations += 1
        return convex_factors(hessian(self.inner_loss)(u[0], v), self.counts)

    def state_factors(self, u: Tensor, v: Tensor) -> ConvexFactors:
        return self.fisher_factors(u, v)

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        """Normal vectors, from which `batch` makes scores."""
        return Sample(torch.randn(1, count, self.inner_shape[1], generator=generator, dtype=torch.float64))

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        """
        Raises:
            TypeError: a loss alone has no terms that could be drawn.
        """
        raise TypeError("a loss without samples has no scores; use curvature: factored, or a class with `batch`")

    def inner_patches(self, size: int) -> Tensor:
        """(d,) blocks of unknowns in their order."""
        return torch.arange(self.inner_shape[1], device=self.device) // size

    # The outer problem

    def outer_value(self, u: Tensor, v: Tensor) -> float:
        return float(self.outer_loss(u[0], v))

    def outer_derivatives(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        by_u, by_v = grad(self.outer_loss, argnums=(0, 1))(u[0], v)
        return by_u[None], by_v

    # Second derivatives

    def control_product(self, u: Tensor, v: Tensor, d: Tensor) -> Tensor:
        self.counts.products += 1
        return jvp(lambda v: grad(self.inner_loss)(u[0], v), (v,), (d,))[1][None]

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        self.counts.products += 1

        def slope(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            """The derivatives of w . grad_u g: (H w, R_v^T w)."""
            return grad(lambda u, v: jvp(lambda u: self.inner_loss(u, v), (u,), (w[0],))[1], argnums=(0, 1))(u, v)

        state, control = jvp(slope, (u[0], v), (du[0], dv))[1]
        return state[None], control

    def outer_second_derivatives(self, u: Tensor, v: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        state, control = jvp(grad(self.outer_loss, argnums=(0, 1)), (u[0], v), (du[0], dv))[1]
        return state[None], control

    def inner_covector(self, u: Tensor, v: Tensor, b: Tensor) -> Tensor:
        return b

    def adjoint_state(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        return q
