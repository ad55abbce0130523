"""The preconditioned conjugate gradient method, for operators given as functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .safe_lengths import dot as dot
from .safe_lengths import magnitude, quotient, root

Operator = Callable[[Tensor], Tensor]

# Range of lengths of vectors whose squares neither underflow nor overflow.
USUAL = 1e-100, 1e100


class Metric(Protocol):
    """An inner product."""

    def inner(self, x: Tensor, y: Tensor) -> float: ...
    def norm(self, x: Tensor) -> float: ...


@dataclass(frozen=True)
class KrylovResult:
    """What a Krylov method found.

    Attributes:
        solution: the last iterate, of the shape of the right-hand side.
        residual: right-hand side minus operator times solution, as recurred.
        iterations: steps taken.
        error: relative residual of the solution, as measured by the caller's function, or in the
            preconditioner's norm.
        converged: the tolerance was reached.
        message: a sentence.
    """

    solution: Tensor
    residual: Tensor
    iterations: int
    error: float
    converged: bool
    message: str


def conjugate_gradients(
    operator: Operator,
    b: Tensor,
    preconditioner: Operator,
    start: Tensor | None = None,
    rtol: float = 1e-10,
    iterations: int = 200,
    error: Callable[[Tensor, Tensor], float] | None = None,
) -> KrylovResult:
    """Solve A x = b for a symmetric positive definite A (Hestenes and Stiefel, 1952, preconditioned).

    Args:
        operator: x -> A x, shapes as b.
        b: right-hand side, any shape.
        preconditioner: r -> P r, symmetric positive definite.
        start: first iterate; zero by default.
        rtol: stop at an error of at most this.
        iterations: most steps.
        error: (x, b - A x) -> relative error, asked from the first step on; by default |b - A x|_P / |b|_P
            with |r|_P = sqrt(r . P r). A function that is cheaper than the preconditioner saves its last
            application.
    """
    scale = magnitude(b)
    if not math.isfinite(scale):
        message = "the right-hand side has numbers that are not finite"
        return KrylovResult(torch.full_like(b, math.nan), torch.full_like(b, math.nan), 0, math.nan, False, message)
    if scale != 0.0 and not USUAL[0] <= scale <= USUAL[1]:
        # The squares below would overflow or underflow.
        found = conjugate_gradients(
            operator,
            b / scale,
            preconditioner,
            None if start is None else start / scale,
            rtol,
            iterations,
            None if error is None else lambda x, r: error(scale * x, scale * r),
        )
        return replace(found, solution=scale * found.solution, residual=scale * found.residual)
    x = torch.zeros_like(b) if start is None else start
    r = b if start is None else b - operator(x)
    z: Tensor | None = None
    if error is None:
        z = preconditioner(r)
        squared_scale = dot(b, z) if start is None else dot(b, preconditioner(b))
    else:
        squared_scale = 1.0
    if scale == 0.0:
        return KrylovResult(torch.zeros_like(b), torch.zeros_like(b), 0, 0.0, True, "the right-hand side is zero")
    if start is not None and not torch.count_nonzero(r):
        return KrylovResult(x, r, 0, 0.0, True, "the start is the solution")

    previous, rz = 1.0, 0.0
    direction = torch.zeros_like(b)
    for step in range(iterations + 1):
        if error is not None:
            relative = error(x, r) if step else math.inf
        else:
            assert z is not None
            # The square is negative where the preconditioner is not definite.
            rz = dot(r, z)
            square = rz / squared_scale if squared_scale != 0.0 else math.nan
            relative = math.sqrt(square) if square >= 0.0 else math.nan
        if relative <= rtol:
            return KrylovResult(x, r, step, relative, True, f"{step} steps to a relative residual of {relative:.1e}")
        if step == iterations:
            break
        if z is None:
            z = preconditioner(r)
            rz = dot(r, z)
        direction = torch.add(z, direction, alpha=rz / previous) if step else z
        image = operator(direction)
        curvature = dot(direction, image)
        if not (math.isfinite(curvature) and math.isfinite(rz)):
            message = "the conjugate gradient method met a number that is not finite"
            return KrylovResult(x, r, step, relative, False, message)
        if curvature <= 0.0 or rz <= 0.0:
            message = "the operator or its preconditioner is not positive definite"
            return KrylovResult(x, r, step, relative, False, message)
        alpha = rz / curvature
        x = torch.add(x, direction, alpha=alpha)
        r = torch.sub(r, image, alpha=alpha)
        previous, z = rz, preconditioner(r) if error is None else None
    message = f"{iterations} steps left a relative residual of {relative:.1e}"
    return KrylovResult(x, r, iterations, relative, False, message)


def preconditioned_residuals(
    operator: Operator,
    b: Tensor,
    preconditioner: Operator,
    metric: Metric,
    start: Tensor | None = None,
    rtol: float = 1e-2,
    iterations: int = 30,
    error: Callable[[Tensor, Tensor], float] | None = None,
    hopeless: Callable[[float, float, int], bool] = lambda contraction, error, step: False,
) -> KrylovResult:
    """Solve A x = b for any A near P^-1, by generalised conjugate residuals for P A x = P b.

    The method of Eisenstat, Elman and Schultz (1983), which minimises |P (b - A x)| in the norm of a space over the
    directions tried. Each step first tries that of iterative refinement, x + P (b - A x), so that an exact P takes
    one application.

    Args:
        operator: x -> A x, shapes as b.
        b: right-hand side, any shape.
        preconditioner: P, which need not be symmetric.
        metric: of the space of x.
        start: first iterate; zero by default.
        rtol: stop at an error of at most this.
        iterations: most applications of P.
        error: (x, b - A x) -> relative error; by default |P (b - A x)| / |x|.
        hopeless: (contraction by the last step, error before it, applications of P) -> give up.
    """
    x = torch.zeros_like(b) if start is None else start
    r = b if start is None else b - operator(x)
    if not torch.count_nonzero(b):
        return KrylovResult(torch.zeros_like(b), torch.zeros_like(b), 0, 0.0, True, "the right-hand side is zero")
    relative = math.inf
    if start is not None and error is not None:
        relative = error(x, r)
        if relative <= rtol:
            return KrylovResult(x, r, 0, relative, True, "the start is good enough")
    tried: list[tuple[Tensor, Tensor, Tensor]] = []
    s, step = preconditioner(r), 1
    while True:
        image, size = operator(s), metric.norm(s)
        near, left = x + s, r - image
        if error is not None:
            relative = error(near, left)
            if relative <= rtol:
                return KrylovResult(near, left, step, relative, True, f"{step} steps to an error of {relative:.1e}")
        elif not torch.count_nonzero(left):
            return KrylovResult(near, left, step, 0.0, True, f"{step} steps to the solution")
        if step >= iterations or not math.isfinite(size) or size == 0.0:
            break
        beyond = preconditioner(left)
        step += 1
        d, w = s, s - beyond
        for direction, product, moved in tried:
            share = metric.inner(product, w)
            d, w, image = d - share * direction, w - share * product, image - share * moved
        length = metric.norm(w)
        if not (math.isfinite(length) and length > 0.0):
            break
        d, w, image = d / length, w / length, image / length
        tried.append((d, w, image))
        share = metric.inner(w, s)
        x, r, s = x + share * d, r - share * image, s - share * w
        if error is None:
            relative = quotient(metric.norm(s), metric.norm(x))
            if relative <= rtol:
                return KrylovResult(x, r, step, relative, True, f"{step} steps to an error of {relative:.1e}")
        if hopeless(metric.norm(s) / size, relative, step):
            break
    return KrylovResult(x, r, step, relative, False, f"{step} steps left an error of {relative:.1e}")


def extreme_eigenvalues(
    operator: Operator, inner: Callable[[Tensor, Tensor], float], start: Tensor, steps: int = 20
) -> tuple[float, float]:
    """Estimates of the smallest and largest eigenvalue of an operator that is symmetric in an inner product.

    The extreme Ritz values of `steps` steps of the Lanczos method, with full reorthogonalisation: inside the
    spectrum, and close to its ends after few steps where the condition number is moderate; NaN where the
    operator's values are not finite.
    """
    square = inner(start, start)
    if not 0.0 < square < math.inf:
        return math.nan, math.nan
    basis = [start / math.sqrt(square)]
    diagonal: list[float] = []
    off: list[float] = []
    for _ in range(min(steps, start.numel())):
        image = operator(basis[-1])
        diagonal.append(inner(basis[-1], image))
        # The latest first: what is left of it would otherwise come back through the older ones.
        for vector in reversed(basis):
            image = image - inner(vector, image) * vector
        length = root(inner(image, image), lambda: diagonal[0] * diagonal[0])
        if length <= 1e-12 * abs(diagonal[0]):
            break
        off.append(length)
        basis.append(image / length)
    k = len(diagonal)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if k > 1:
        side = torch.tensor(off[: k - 1], dtype=torch.float64)
        tridiagonal = tridiagonal + torch.diag(side, 1) + torch.diag(side, -1)
    if not torch.isfinite(tridiagonal).all():
        return math.nan, math.nan
    values = torch.linalg.eigvalsh(tridiagonal)
    return float(values[0]), float(values[-1])
