"""The interfaces of bilevel problems on which the engine works.

    min_v f(u*(v), v)   with   u*(v) = argmin_u E l(u, v; xi)

where l is a negative log-likelihood, so that the Hessian H of the inner objective is also its Fisher
information. Inner variables are rows (S, n), one per scenario, d = S n; outer variables are (p,). All quantities that
the inner model scales by its noise variance are in units in which sigma = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..linalg.counts import Counts
from ..linalg.lanczos import extreme_eigenvalues
from ..linalg.riesz import RieszMap
from ..linalg.safe_lengths import dot, magnitude


@dataclass(frozen=True)
class Sample:
    """The random numbers of one minibatch, which do not depend on where it is evaluated.

    Attributes:
        tests: (S, m, k) test functions, or the noise of the observed fluxes.
        noise: (S, m) observation noise; None where it is part of the tests or integrated out.

    Raises:
        ValueError: the shapes do not go together.
    """

    tests: Tensor
    noise: Tensor | None = None

    def __post_init__(self) -> None:
        if self.tests.ndim != 3 or (self.noise is not None and self.noise.shape != self.tests.shape[:2]):
            noise = None if self.noise is None else tuple(self.noise.shape)
            raise ValueError(f"expected tests (S, m, k) and noise (S, m), found {tuple(self.tests.shape)} and {noise}")

    @property
    def count(self) -> int:
        """m."""
        return self.tests.shape[1]


@dataclass(frozen=True)
class CrossFactors:
    """The cross derivative of a batch as a sum of products: (d2 / dv du)^T q = sum_sk left[s, k] <right[s, k], q_s>.

    Attributes:
        left: (S, k, p).
        right: (S, k, n).
    """

    left: Tensor
    right: Tensor

    def __call__(self, q: Tensor) -> Tensor:
        """(p,) for q (S, n)."""
        return torch.einsum("skp,sk->p", self.left, torch.einsum("skn,sn->sk", self.right, q))


@dataclass(frozen=True)
class InnerBatch:
    """One minibatch of the inner objective, evaluated at a point (u, v).

    Attributes:
        gradient: (S, n) its mean stochastic gradient.
        scores: (d, m) whose outer products have the Fisher information as expectation.
        residual: estimate of the dual norm of the inner residual, from this batch.
        step: the natural-gradient step with which the mean-square error contracts fastest
            if the inverse is exact.
        hessian: w (S, n) -> product (S, n) with the batch's stochastic Hessian (its Fisher form).
        cross: q (S, n) -> product (p,) with the transpose of the batch's stochastic cross derivative d2 / dv du.
        inflation: how many times too large the scores make the Fisher information in the direction of the
            residual, less one; positive where the scores contain the residual besides the noise.
        cross_factors: the cross derivative as factors; None where it is not known as such.
        cross_point: (S, n) u, where the cross derivative is its expectation at u, and affine in u; else None. With one
            of both, the mean of many batches takes little memory (see `running_cross`).
    """

    gradient: Tensor
    scores: Tensor
    residual: float
    step: float
    hessian: Callable[[Tensor], Tensor]
    cross: Callable[[Tensor], Tensor]
    inflation: float = 0.0
    cross_factors: Callable[[], CrossFactors] | None = None
    cross_point: Tensor | None = None

    def pulled_back(self, pull_back: Callable[[Tensor], Tensor]) -> InnerBatch:
        """The batch for outer variables on which the present ones depend linearly.

        Args:
            pull_back: the transpose of this map; derivative (p,) -> derivative (p',).
        """

        def factors() -> CrossFactors:
            assert self.cross_factors is not None
            found = self.cross_factors()
            left = torch.stack([torch.stack([pull_back(x) for x in each]) for each in found.left])
            return CrossFactors(left, found.right)

        cross_factors = None if self.cross_factors is None else factors
        return replace(self, cross=lambda q: pull_back(self.cross(q)), cross_factors=cross_factors)


class FisherFactors(Protocol):
    """A structured inverse A of the Fisher information at one point.

    Where the inner gradient is J^T K^-1 R and A = J^-1 K J^-T, the natural-gradient direction is Newton's,

        A (J^T K^-1 R) = J^-1 R,

    and the adjoint variable of the estimator q = A grad_u f, through which alone q enters the hypergradient, is

        K^-1 J q = K^-1 J A grad_u f = J^-T grad_u f :

    one solve each instead of three. K cancels in both.
    """

    def solve(self, g: Tensor) -> Tensor:
        """A g for covectors (k, n)."""
        ...

    def newton_step(self, residual: Tensor) -> Tensor:
        """A times the inner gradient that belongs to a residual (k, n): J^-1 R."""
        ...

    def adjoint(self, g: Tensor) -> Tensor:
        """The adjoint variable of q = A g for covectors (k, n): J^-T g."""
        ...

    @property
    def description(self) -> str: ...


class StateFactors(Protocol):
    """The derivative of the inner residual, factorised at one point."""

    def solve(self, b: Tensor) -> Tensor: ...
    def solve_transposed(self, b: Tensor) -> Tensor: ...


class OuterProblem(Protocol):
    """A problem as the outer loop sees it; its oracle knows how to find the inner variables.

    Attributes:
        inner_shape: (S, n).
        outer_size: p.
        outer_metric: the inner product of the outer space.
        bounds: lower and upper bound (p,) of v.
        quadratic: u* is affine and Phi quadratic in v.
        counts: counters of the work done.
    """

    @property
    def inner_shape(self) -> tuple[int, int]: ...
    @property
    def outer_size(self) -> int: ...
    @property
    def outer_metric(self) -> RieszMap: ...
    @property
    def bounds(self) -> tuple[Tensor, Tensor] | None: ...
    @property
    def quadratic(self) -> bool: ...
    @property
    def counts(self) -> Counts: ...

    def start(self) -> tuple[Tensor, Tensor]:
        """First inner (S, n) and outer (p,) variables."""
        ...

    def outer_value(self, u: Tensor, v: Tensor) -> float: ...


@runtime_checkable
class InnerEquation(Protocol):
    """A problem whose inner variables solve an equation R(u, v) = 0.

    Attributes:
        linear: R(u, v) is affine in u, so that J depends on v only, if at all, and there is one u*.
    """

    @property
    def linear(self) -> bool: ...


class BilevelProblem(OuterProblem, InnerEquation, Protocol):
    """The bilevel interface.

    Attributes:
        inner_metric: the inner product of the inner space, for one scenario.
    """

    @property
    def inner_metric(self) -> RieszMap: ...

    def cold_start(self, v: Tensor) -> Tensor:
        """First inner variables (S, n) for outer variables (p,), without any earlier solution."""
        ...

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        """Draw `count` terms of the inner objective."""
        ...

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        """Evaluate the terms drawn at (u, v)."""
        ...

    def inner_gradient(self, u: Tensor, v: Tensor) -> Tensor:
        """Expected inner gradient (S, n)."""
        ...

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        """R (S, n), which vanishes at the inner solution; the inner gradient where a problem has no equation."""
        ...

    def inner_error(self, u: Tensor, v: Tensor, tolerance: float) -> float:
        """Certificate of u: a bound of the residual's relative dual norm, sharp unless below `tolerance`."""
        ...

    def residual_error(self, residual: Tensor, u: Tensor, v: Tensor, tolerance: float) -> float:
        """The same from the residual at u."""
        ...

    def state_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """J w (S, n), J = dR/du."""
        ...

    def state_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """J^T w (S, n)."""
        ...

    def control_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """R_v^T w (p,) for w (S, n)."""
        ...

    def inner_length(self, u: Tensor, v: Tensor) -> float:
        """The norm of the state, including the coefficients that v fixes, to which `inner_error` is relative."""
        ...

    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """H w (S, n), H the Fisher information, which is the Hessian at the inner solution."""
        ...

    def cross_product(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        """(d2 / dv du)^T q, (p,), for q (S, n)."""
        ...

    def inner_patches(self, size: int) -> Tensor:
        """(d,) long: the patch, 0, 1, ..., of every inner unknown; patches have at most `size` unknowns, which are
        neighbours.

        No patch has unknowns of two scenarios.
        """
        ...

    def fisher_factors(self, u: Tensor, v: Tensor) -> FisherFactors: ...

    def outer_derivatives(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """df/du (S, n) and df/dv (p,)."""
        ...


class ImplicitProblem(BilevelProblem, Protocol):
    """A bilevel problem that factorises the J of every scenario, as exact adjoint methods need."""

    def state_factors(self, u: Tensor, v: Tensor) -> StateFactors: ...


class SecondOrderProblem(BilevelProblem, Protocol):
    """A bilevel problem whose inner solution is the root of a residual R that is known with its second derivatives."""

    def control_product(self, u: Tensor, v: Tensor, d: Tensor) -> Tensor:
        """R_v d (S, n) for d (p,)."""
        ...

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of (J^T w, R_v^T w), w (S, n) held fixed, in the direction (du, dv); (S, n) and (p,)."""
        ...

    def outer_second_derivatives(self, u: Tensor, v: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of (df/du, df/dv) in the direction (du, dv); (S, n) and (p,)."""
        ...

    def inner_covector(self, u: Tensor, v: Tensor, b: Tensor) -> Tensor:
        """H x, (S, n), for the solution x of J x = b."""
        ...

    def adjoint_state(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        """The solution p of J^T p = g, (S, n), where H q = g."""
        ...


class Constraint(Protocol):
    """One inequality g(v) <= 0 of the outer variables alone, nonlinear in general."""

    @property
    def description(self) -> str:
        """A few words for people."""
        ...

    def value(self, v: Tensor) -> float:
        """g(v); feasible where it is at most 0."""
        ...

    def derivative(self, v: Tensor) -> Tensor:
        """g'(v), a covector (p,)."""
        ...


@runtime_checkable
class ConstrainedProblem(Protocol):
    """A further attribute of a bilevel problem with a constraint."""

    @property
    def constraint(self) -> Constraint | None: ...


@runtime_checkable
class SparseProblem(Protocol):
    """A further attribute of a bilevel problem whose objective is Phi(v) + sum_i w_i |v_i|.

    `outer_value` and its derivatives are those of Phi alone: the engine adds the term to the values it reports.
    """

    @property
    def l1_weights(self) -> Tensor | None:
        """w (p,), at least 0, in the units of a derivative: the integral of |v| has the weights of a lumped mass."""
        ...


def constraint_of(problem: OuterProblem) -> Constraint | None:
    return problem.constraint if isinstance(problem, ConstrainedProblem) else None


def l1_weights_of(problem: OuterProblem) -> Tensor | None:
    return problem.l1_weights if isinstance(problem, SparseProblem) else None


def relative_dual_error(
    metric: RieszMap, residual: Tensor, scale: float, tolerance: float, worth: float = math.inf
) -> float:
    """|residual| / scale in the dual norm: a cheap bound where that is below the tolerance, else exact.

    A bound above `worth` times the tolerance is returned as well, as it is not worth a solve.
    """
    if not math.isfinite(scale) or not torch.isfinite(residual).all():
        return math.nan
    if not torch.count_nonzero(residual):
        return 0.0
    if scale <= 0.0:
        return math.inf
    bound = metric.dual_norm_bound(residual) / scale
    return bound if bound <= tolerance or bound > worth * tolerance else metric.dual_norm(residual) / scale


def dual_scale(metric: RieszMap, covector: Tensor, vector: Tensor) -> float:
    """A lower bound of the dual norm of a covector: its pairing with a vector, over the norm of that vector.

    Sharp where the vector is the covector's Riesz representative, and valid for any vector.
    """
    length, size, unit = metric.norm(vector), magnitude(covector), magnitude(vector)
    if length == 0.0 or size == 0.0:
        return 0.0
    if not math.isfinite(size) or not math.isfinite(length):
        return math.nan
    return size * (abs(dot(covector / size, vector / unit)) / (length / unit))


def rough_vector(u: Tensor) -> Tensor:
    """A vector of the shape of u with a share of every other one."""
    return torch.sin(torch.arange(1, u.numel() + 1, dtype=u.dtype, device=u.device) ** 2).reshape(u.shape)


def inner_spectrum(
    problem: BilevelProblem, u: Tensor, v: Tensor, represented: Callable[[Tensor], Tensor] | None = None
) -> tuple[float, float]:
    """The ends (mu, L) of the spectrum of K^-1 H, by a few Lanczos steps in the inner product in which H is symmetric.

    Args:
        represented: K^-1, from covectors to vectors; None for that of the inner space.
    """
    gradient = represented or problem.inner_metric.gradient

    def operator(w: Tensor) -> Tensor:
        return gradient(problem.hessian_product(u, v, w))

    return extreme_eigenvalues(operator, problem.inner_metric.inner, rough_vector(u))
