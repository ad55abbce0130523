"""Small explicit bilevel problems with dense matrices and known answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from nhgd_pde.engine.bilevel import CrossFactors, InnerBatch, Sample, relative_dual_error
from nhgd_pde.engine.loop import Iterate, Minimum, Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.base import Feasible, HessianProduct, OuterMethod
from nhgd_pde.engine.outer.reduced_objective import Evaluation, failed_evaluation
from nhgd_pde.linalg.counts import Counts
from nhgd_pde.linalg.riesz import RieszMap, diagonal_riesz_map
from nhgd_pde.linalg.sparse import SparseMatrix


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def spd(size: int, condition: float, generator: torch.Generator) -> Tensor:
    """A symmetric positive definite matrix with eigenvalues from 1 to `condition`, spread logarithmically."""
    axes = torch.linalg.qr(normal(generator, size, size)).Q
    values = torch.logspace(0.0, float(np.log10(condition)), size, dtype=torch.float64)
    matrix = axes * values @ axes.T
    return 0.5 * (matrix + matrix.T)


def chain(size: int, shift: float = 0.5) -> Tensor:
    """Tridiagonal (-1, 2 + shift, -1)."""
    side = torch.ones(size - 1, dtype=torch.float64)
    return (
        torch.diag(torch.full((size,), 2.0 + shift, dtype=torch.float64)) - torch.diag(side, 1) - torch.diag(side, -1)
    )


def riesz(matrix: Tensor) -> RieszMap:
    """The Riesz map of a dense Gram matrix, inverted by its Cholesky factor."""
    factor = torch.linalg.cholesky(matrix)
    sparse = SparseMatrix(sp.csr_matrix(matrix.numpy()), symmetric=True)
    return RieszMap(sparse, lambda rows: torch.cholesky_solve(rows.T, factor).T)


def diagonal_riesz(weights: Tensor) -> RieszMap:
    return diagonal_riesz_map(weights, SparseMatrix(sp.diags(weights.numpy()).tocsr(), symmetric=True))


def rows(matrices: Tensor, vectors: Tensor) -> Tensor:
    """A_s x_s for every scenario: (S, n, m) and (S, m) to (S, n)."""
    return torch.einsum("snm,sm->sn", matrices, vectors)


@dataclass(frozen=True)
class DenseFactors:
    """One dense matrix for each scenario, or one for all; implements `StateFactors`."""

    matrices: Tensor
    description: str = "dense"

    def solve(self, b: Tensor) -> Tensor:
        return torch.linalg.solve(self.matrices, b[..., None])[..., 0]

    def solve_transposed(self, b: Tensor) -> Tensor:
        return torch.linalg.solve(self.matrices.mT, b[..., None])[..., 0]


@dataclass(frozen=True)
class DenseFisherFactors:
    """J^-1 K J^-T with a dense J, or J^-1 without K where the residual is the inner gradient."""

    jacobian: Tensor
    metric: RieszMap | None = None
    description: str = "dense"

    def solve(self, g: Tensor) -> Tensor:
        return self.newton_step(g if self.metric is None else self.metric.covector(self.adjoint(g)))

    def newton_step(self, residual: Tensor) -> Tensor:
        return DenseFactors(self.jacobian).solve(residual)

    def adjoint(self, g: Tensor) -> Tensor:
        return DenseFactors(self.jacobian).solve_transposed(g)


@dataclass(eq=False)
class Explicit:
    """The common parts of both problems: tracking of u, regularisation of v, and dense derivatives of a residual.

    f(u, v) = |u - target|^2 / 2 + weight |v|_M^2 / 2
    """

    inner_metric: RieszMap
    outer_metric: RieszMap
    control: Tensor
    target: Tensor
    weight: float
    bounds: tuple[Tensor, Tensor] | None = None
    quadratic: bool = False
    counts: Counts = field(default_factory=Counts)
    u0: Tensor | None = None
    v0: Tensor | None = None

    @property
    def inner_shape(self) -> tuple[int, int]:
        return self.target.shape[0], self.target.shape[1]

    @property
    def outer_size(self) -> int:
        return self.control.shape[2]

    def start(self) -> tuple[Tensor, Tensor]:
        u = torch.zeros_like(self.target) if self.u0 is None else self.u0
        return u.clone(), torch.zeros(self.outer_size, dtype=torch.float64) if self.v0 is None else self.v0

    def cold_start(self, v: Tensor) -> Tensor:
        return self.start()[0]

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    def jacobian(self, u: Tensor) -> Tensor:
        """(S, n, n)."""
        raise NotImplementedError

    def inner_error(self, u: Tensor, v: Tensor, tolerance: float) -> float:
        self.counts.residuals += 1
        return relative_dual_error(self.inner_metric, self.residual(u, v), self.inner_metric.norm(u), tolerance)

    def residual_error(self, residual: Tensor, u: Tensor, v: Tensor, tolerance: float) -> float:
        return relative_dual_error(self.inner_metric, residual, self.inner_metric.norm(u), tolerance)

    def inner_length(self, u: Tensor, v: Tensor) -> float:
        return self.inner_metric.norm(u)

    @property
    def linear(self) -> bool:
        return self.quadratic

    def state_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return rows(self.jacobian(u), w)

    def outer_value(self, u: Tensor, v: Tensor) -> float:
        return float(0.5 * (u - self.target).square().sum()) + 0.5 * self.weight * self.outer_metric.norm(v[None]) ** 2

    def outer_derivatives(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return u - self.target, self.weight * self.outer_metric.covector(v[None])[0]

    def inner_patches(self, size: int) -> Tensor:
        """Contiguous ranges of every scenario."""
        scenarios, n = self.inner_shape
        return (torch.arange(n) // size + -(-n // size) * torch.arange(scenarios)[:, None]).reshape(-1)

    def state_factors(self, u: Tensor, v: Tensor) -> DenseFactors:
        return DenseFactors(self.jacobian(u))

    def control_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return torch.einsum("snp,sn->p", self.control, w)

    def state_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return rows(self.jacobian(u).mT, w)

    def control_product(self, u: Tensor, v: Tensor, d: Tensor) -> Tensor:
        return self.control @ d

    def outer_second_derivatives(self, u: Tensor, v: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        return du, self.weight * self.outer_metric.covector(dv[None])[0]

    def hessian(self, u: Tensor, v: Tensor) -> Tensor:
        """The inner Hessian as one (d, d) matrix, column by column."""
        d = self.target.numel()
        columns = torch.eye(d, dtype=torch.float64).reshape(d, *self.inner_shape)
        return torch.stack([self.hessian_product(u, v, column).reshape(-1) for column in columns], dim=1)

    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        raise NotImplementedError

    def exact(self, v: Tensor) -> tuple[float, Tensor]:
        """Phi and its derivative at v, by the implicit function theorem."""
        u = self.solution(v)
        inner, outer = self.outer_derivatives(u, v)
        adjoint = torch.linalg.solve(self.jacobian(u).mT, inner[..., None])[..., 0]
        return self.outer_value(u, v), outer - self.control_product_transposed(u, v, adjoint)

    def solution(self, v: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(eq=False)
class LeastSquares(Explicit):
    """(a) l = |y - B u - C v|^2 / 2: u* is affine in v and Phi is quadratic, with closed forms.

    R = B^T (B u + C v - y) is the inner gradient, H = B^T B its derivative, a score B^T z with z ~ N(0, I).
    """

    design: Tensor = field(default_factory=lambda: torch.empty(0))
    mixing: Tensor = field(default_factory=lambda: torch.empty(0))
    data: Tensor = field(default_factory=lambda: torch.empty(0))

    @cached_property
    def hessians(self) -> Tensor:
        return self.design.mT @ self.design

    def jacobian(self, u: Tensor) -> Tensor:
        return self.hessians

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        return rows(self.design.mT, rows(self.design, u) + self.mixing @ v - self.data)

    def inner_gradient(self, u: Tensor, v: Tensor) -> Tensor:
        return self.residual(u, v)

    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        self.counts.products += 1
        return rows(self.hessians, w)

    def cross_product(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        return self.control_product_transposed(u, v, q)

    def fisher_factors(self, u: Tensor, v: Tensor) -> DenseFisherFactors:
        self.counts.factorisations += 1
        return DenseFisherFactors(self.hessians.mean(0))

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        scenarios, k, _ = self.design.shape
        return Sample(normal(generator, scenarios, k, count).mT)

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        scores = self.design.mT @ sample.tests.mT
        gradient = self.residual(u, v)
        return InnerBatch(
            gradient,
            scores.reshape(-1, sample.count),
            self.inner_metric.dual_norm(gradient),
            1.0,
            hessian=lambda w: self.hessian_product(u, v, w),
            cross=lambda q: self.cross_product(u, v, q),
            cross_point=u,
        )

    def solution(self, v: Tensor) -> Tensor:
        return torch.linalg.lstsq(self.design, (self.data - self.mixing @ v)[..., None]).solution[..., 0]

    def optimum(self) -> Tensor:
        """The minimiser of Phi: one symmetric linear system, from u* = U v + u_0."""
        offset = (self.target - self.solution(torch.zeros(self.outer_size, dtype=torch.float64))).reshape(-1)
        return torch.linalg.solve(self.reduced_hessian, self.slope.T @ offset)

    @property
    def slope(self) -> Tensor:
        """du*/dv, (d, p)."""
        return -torch.linalg.solve(self.hessians, self.control).reshape(-1, self.outer_size)

    @property
    def reduced_hessian(self) -> Tensor:
        gram = self.outer_metric.covector(torch.eye(self.outer_size, dtype=torch.float64))
        return self.slope.T @ self.slope + self.weight * gram

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(u), torch.zeros_like(v)

    def inner_covector(self, u: Tensor, v: Tensor, b: Tensor) -> Tensor:
        return b

    def adjoint_state(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        return q


def least_squares(seed: int = 0, scenarios: int = 1, n: int = 8, p: int = 12, weight: float = 1e-2) -> LeastSquares:
    g = seeded(seed)
    k = 2 * n
    shared = normal(g, 1, k, n)
    design = shared + (0.1 * normal(g, scenarios, k, n) if scenarios > 1 else 0.0)
    mixing = normal(g, scenarios, k, p)
    return LeastSquares(
        inner_metric=riesz(chain(n)),
        outer_metric=riesz(spd(p, 20.0, g)),
        control=design.mT @ mixing,
        target=normal(g, scenarios, n),
        weight=weight,
        quadratic=True,
        design=design,
        mixing=mixing,
        data=normal(g, scenarios, k),
    )


@dataclass(eq=False)
class Cubic(Explicit):
    """(b) R(u, v) = K u + cubic u^3 - C v in the residual form.

    l = <w, R>^2 / 2 with w ~ N(0, K^-1), so that H = J^T K^-1 J at the solution; `control` is -C.
    """

    matrix: Tensor = field(default_factory=lambda: torch.empty(0))
    cubic: float = 0.1

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        return u @ self.matrix.T + self.cubic * u**3 + self.control @ v

    def jacobian(self, u: Tensor) -> Tensor:
        return self.matrix + torch.diag_embed(3.0 * self.cubic * u**2)

    def inner_gradient(self, u: Tensor, v: Tensor) -> Tensor:
        return rows(self.jacobian(u).mT, self.inner_metric.gradient(self.residual(u, v)))

    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        jacobian = self.jacobian(u)
        self.counts.products += 1
        return rows(jacobian.mT, self.inner_metric.gradient(rows(jacobian, w)))

    def cross_product(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        return self.control_product_transposed(u, v, self.inner_metric.gradient(rows(self.jacobian(u), q)))

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        return 6.0 * self.cubic * u * du * w, torch.zeros_like(v)

    def inner_covector(self, u: Tensor, v: Tensor, b: Tensor) -> Tensor:
        return rows(self.jacobian(u).mT, self.inner_metric.gradient(b))

    def adjoint_state(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        return self.inner_metric.gradient(rows(self.jacobian(u), q))

    def fisher_factors(self, u: Tensor, v: Tensor) -> DenseFisherFactors:
        self.counts.factorisations += 1
        return DenseFisherFactors(self.jacobian(u).mean(0), self.inner_metric)

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        scenarios, n = self.inner_shape
        root = torch.linalg.cholesky(self.inner_metric.covector(torch.eye(n, dtype=torch.float64)))
        return Sample(torch.linalg.solve_triangular(root.T, normal(generator, scenarios, n, count), upper=True).mT)

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        scenarios, n = u.shape
        tests, count = sample.tests.mT, sample.count
        scores = self.jacobian(u).mT @ tests
        tested = rows(tests.mT, self.residual(u, v))
        return InnerBatch(
            rows(scores, tested) / count,
            scores.reshape(-1, count),
            float(tested.square().mean().sqrt()) * scenarios**0.5,
            count / (count + n + 1),
            hessian=lambda q: rows(scores, rows(scores.mT, q)) / count,
            cross=lambda q: self.control_product_transposed(u, v, rows(tests, rows(scores.mT, q)) / count),
            cross_factors=lambda: CrossFactors((self.control.mT @ tests).mT / count, scores.mT),
        )

    def solution(self, v: Tensor) -> Tensor:
        """u* by Newton's method, which converges because R is the derivative of a convex function."""
        u = torch.linalg.solve(self.matrix, -(self.control @ v).T).T
        for _ in range(60):
            u = u - torch.linalg.solve(self.jacobian(u), self.residual(u, v)[..., None])[..., 0]
        return u


def cubic_problem(
    seed: int = 0, scenarios: int = 1, n: int = 8, p: int = 5, cubic: float = 0.1, weight: float = 1e-2
) -> Cubic:
    g = seeded(seed)
    return Cubic(
        inner_metric=riesz(chain(n)),
        outer_metric=riesz(spd(p, 20.0, g)),
        control=-normal(g, scenarios, n, p),
        target=1.5 * normal(g, scenarios, n),
        weight=weight,
        matrix=chain(n),
        cubic=cubic,
    )


# Outer functions alone


@dataclass(frozen=True)
class NoState:
    """The state of an oracle without inner variables."""

    u: Tensor
    q: Tensor | None = None
    description: str = "function"

    def blend(self, other: NoState, share: float) -> NoState:
        return other


@dataclass(eq=False)
class Function:
    """(c) A function of v that is both problem and oracle.

    `tried` keeps every point of an evaluation, and `products` the directions that the Hessian was applied to.

    Attributes:
        value: v -> Phi(v), differentiated by torch.
        first: starting point.
        outer_metric: the inner product.
        certificate: reported as both errors.
    """

    value: Callable[[Tensor], Tensor]
    first: Tensor
    outer_metric: RieszMap
    bounds: tuple[Tensor, Tensor] | None = None
    quadratic: bool = False
    certificate: float = 0.0
    tried: list[Tensor] = field(default_factory=list)
    products: list[Tensor] = field(default_factory=list)
    name: str = "function"

    def start(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 1, dtype=torch.float64), self.first

    def outer_value(self, u: Tensor, v: Tensor) -> float:
        return float(self.value(v))

    def init(self, problem: Function, u: Tensor, v: Tensor) -> NoState:
        return NoState(u)

    def evaluate(self, problem: Function, v: Tensor, state: NoState, accuracy: Accuracy) -> tuple[Evaluation, NoState]:
        self.tried.append(v)
        with torch.enable_grad():
            point = v.clone().requires_grad_()
            value = self.value(point)
            (derivative,) = torch.autograd.grad(value, point)
        if not torch.isfinite(value):
            return failed_evaluation(v, "outside the domain"), state
        gradient = self.outer_metric.gradient(derivative[None])[0]
        error = self.certificate
        return Evaluation(v, value.item(), derivative, gradient, error, error, 0.0), state

    def hessian(self, problem: Function, v: Tensor, state: NoState) -> HessianProduct:
        def product(d: Tensor) -> Tensor:
            self.products.append(d)
            with torch.enable_grad():
                point = v.clone().requires_grad_()
                (derivative,) = torch.autograd.grad(self.value(point), point, create_graph=True)
                return torch.autograd.grad(derivative @ d, point)[0]

        return product

    @property
    def space(self) -> Feasible:
        return Feasible(self.outer_metric, self.bounds, self.quadratic)

    def minimise(self, outer: OuterMethod, stopping: Stopping | None = None) -> tuple[Minimum, list[Iterate]]:
        """The minimum, and the records that the callback got."""
        told: list[Iterate] = []
        return minimise(self, self, outer, stopping or Stopping(rtol=1e-8), told.append), told

    def transformed(self, matrix: Tensor) -> Function:
        """The same function of w, v = T w, in the inner product T^T M T."""
        gram = self.outer_metric.covector(torch.eye(len(self.first), dtype=torch.float64))
        return replace(
            self,
            value=lambda w: self.value(matrix @ w),
            first=torch.linalg.solve(matrix, self.first),
            outer_metric=riesz(matrix.T @ gram @ matrix),
            tried=[],
        )


def quadratic_function(
    size: int, condition: float, seed: int = 0, metric: RieszMap | None = None, quadratic: bool = True
) -> tuple[Function, Tensor, Tensor]:
    """v . H v / 2 - c . v + 1 from v = 0, with H and c."""
    g = seeded(seed)
    hessian, linear = spd(size, condition, g), normal(g, size)
    metric = metric or riesz(spd(size, 10.0, g))
    start = torch.zeros(size, dtype=torch.float64)
    function = Function(lambda v: 0.5 * v @ hessian @ v - linear @ v + 1.0, start, metric, quadratic=quadratic)
    return function, hessian, linear


def rosenbrock(size: int = 6, seed: int = 0) -> Function:
    def value(v: Tensor) -> Tensor:
        return (100.0 * (v[1:] - v[:-1] ** 2) ** 2 + (1.0 - v[:-1]) ** 2).sum()

    start = torch.full((size,), -1.2, dtype=torch.float64)
    start[1::2] = 1.0
    return Function(value, start, riesz(spd(size, 10.0, seeded(seed))))
