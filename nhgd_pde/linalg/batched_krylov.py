"""Conjugate gradients for many systems at once, a row each: one product and one preconditioner for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .krylov import USUAL, Operator
from .safe_lengths import row_lengths


@dataclass(frozen=True)
class BatchedResult:
    """What the iteration found.

    Attributes:
        solution: (S, n) the last iterates.
        residual: (S, n) right-hand sides minus operator times solution, as recurred.
        error: (S,) |residual|_P of the iterate before the last step of each row, which is smaller; see there.
        iterations: of the row that took most.
        converged: every row has reached its tolerance.
        message: a sentence where a row broke down.
        gain: (S,) factor by which solutions with an operator are larger than with the preconditioner, which errors
            include; None where it was not asked for.
    """

    solution: Tensor
    residual: Tensor
    error: Tensor
    iterations: int
    converged: bool
    message: str = ""
    gain: Tensor | None = None


def batched_conjugate_gradients(
    operator: Operator,
    b: Tensor,
    preconditioner: Operator,
    start: Tensor | None = None,
    atol: Tensor | Callable[[Tensor], Tensor] | float = 0.0,
    iterations: int = 200,
    residual: Tensor | None = None,
) -> BatchedResult:
    """Solve A_s x_s = b_s for symmetric positive definite A_s, each row with steps of its own.

    Rows leave the iteration one by one: the preconditioner P is applied to those that are left. The last step of a
    row costs no application of P: it goes along the preconditioned residual that has shown the tolerance to be met.
    A row that meets its tolerance at the start still takes that step.

    Args:
        operator: x (S, n) -> A_s x_s, (S, n).
        b: (S, n) right-hand sides.
        preconditioner: r (k, n) -> P r for any rows, symmetric positive definite.
        start: (S, n) first iterates; zero by default.
        atol: of |b - A x|_P = sqrt(r . P r): for every row (S,) or for all. A function is given |b - A x|_P at the
            start.
        iterations: most applications of P a row.
        residual: (S, n) b - A x at the start, where it is known.
    """
    x = torch.zeros_like(b) if start is None else start
    r = residual if residual is not None else b if start is None else b - operator(x)
    largest = r.abs().amax(1)
    if bool(((largest > 0.0) & largest.isfinite() & ((largest < USUAL[0]) | (largest > USUAL[1]))).any()):
        return _scaled(operator, b, preconditioner, x, atol, iterations, r, largest)
    active = torch.arange(b.shape[0], device=b.device)
    error = b.new_zeros(b.shape[0])
    direction = torch.zeros_like(b)
    previous = b.new_ones(b.shape[0])
    goal: Tensor | None = None
    for step in range(1, iterations + 1):
        whole = len(active) == b.shape[0]
        near = r if whole else r[active]
        z = preconditioner(near)
        square = (near * z).sum(1)
        if not bool(torch.isfinite(square).all()) or bool((square < 0.0).any()):
            message = "the preconditioner is not positive definite, or the residual is not finite"
            return BatchedResult(x, r, error, step, False, message)
        error[active] = square.sqrt()
        if goal is None:
            goal = torch.as_tensor(atol(error.clone()) if callable(atol) else atol, dtype=b.dtype, device=b.device)
            goal = goal.expand(b.shape[0])
        share = square / previous[active] if step > 1 else torch.zeros_like(square)
        if whole:
            direction = torch.addcmul(z, direction, share[:, None])
        else:
            direction[active] = z + share[:, None] * direction[active]
        previous[active] = square
        image = operator(direction)
        curvature = (direction * image).sum(1)
        length = b.new_zeros(b.shape[0])
        moving = torch.zeros(b.shape[0], dtype=torch.bool, device=b.device)
        moving[active] = square > 0.0
        if bool((moving & ~(curvature > 0.0)).any()):
            return BatchedResult(x, r, error, step, False, "an operator is not positive definite")
        length[moving] = previous[moving] / curvature[moving]
        x = torch.addcmul(x, direction, length[:, None])
        r = torch.addcmul(r, image, length[:, None], value=-1.0)
        active = active[square.sqrt() > goal[active]]
        if not len(active):
            return BatchedResult(x, r, error, step, True)
    return BatchedResult(x, r, error, iterations, False, f"{iterations} steps were not enough for {len(active)} rows")


def _scaled(
    operator: Operator,
    b: Tensor,
    preconditioner: Operator,
    start: Tensor,
    atol: Tensor | Callable[[Tensor], Tensor] | float,
    iterations: int,
    residual: Tensor,
    largest: Tensor,
) -> BatchedResult:
    """Conjugate gradients for rows whose squares overflow or underflow: each is divided by its `largest` entry (S,)."""
    size = torch.where((largest > 0.0) & largest.isfinite(), largest, 1.0)

    def scaled(error: Tensor) -> Tensor:
        goal = atol(error * size) if callable(atol) else atol
        return torch.as_tensor(goal, dtype=b.dtype, device=b.device) / size

    rows = size[:, None]
    found = batched_conjugate_gradients(
        operator, b / rows, preconditioner, start / rows, scaled, iterations, residual / rows
    )
    return replace(found, solution=rows * found.solution, residual=rows * found.residual, error=size * found.error)


def batched_residuals(
    operator: Operator,
    b: Tensor,
    preconditioner: Operator,
    gram: Operator,
    start: Tensor | None = None,
    atol: Tensor | Callable[[Tensor], Tensor] | float = 0.0,
    iterations: int = 60,
    residual: Tensor | None = None,
    gain: Tensor | None = None,
) -> BatchedResult:
    """Solve A_s x_s = b_s for any A_s near P^-1, each row with steps of its own.

    Generalised conjugate residuals for P A x = P b (Eisenstat, Elman and Schultz 1983): every step minimises the norm
    of P (b - A x) over the directions tried. Rows that are good enough stay as they are.

    Args:
        operator: x (S, n) -> A_s x_s, (S, n).
        b: (S, n) right-hand sides.
        preconditioner: r (S, n) -> P r, which need not be symmetric.
        gram: x (S, n) -> K x, of the inner product of the space of x.
        start: (S, n) first iterates; zero by default.
        atol: of |P (b - A x)|_K, as in `batched_conjugate_gradients`.
        iterations: most applications of P.
        residual: (S, n) b - A x at the start, where it is known.
        gain: (S,) lower bounds of |(P A)^-1| that are known before, 1 without any. With them the errors of solutions,
            |x - x*|_K <= |(P A)^-1| |P (b - A x)|_K, take the place of |P (b - A x)|_K. The bounds are raised to what
            the directions tried show: the norm of (P A)^-1 on P A times their span, which takes no further solves.
    """
    x = torch.zeros_like(b) if start is None else start
    r = residual if residual is not None else b if start is None else b - operator(x)
    s = preconditioner(r)
    tried: list[tuple[Tensor, Tensor, Tensor]] = []
    products = b.new_zeros(len(b), 0, 0)
    factor: Tensor | float = 1.0 if gain is None else gain
    first = row_lengths(s, gram)
    goal = torch.as_tensor(atol(first) if callable(atol) else atol, dtype=b.dtype, device=b.device).expand(len(b))
    error, step = factor * first, 1
    while True:
        if not bool(torch.isfinite(error).all()):
            return BatchedResult(x, r, error, step, False, "a residual is not finite", gain)
        left = error > goal
        if not bool(left.any()):
            return BatchedResult(x, r, error, step, True, gain=gain)
        if step >= iterations:
            message = f"{iterations} steps were not enough for {int(left.sum())} rows"
            return BatchedResult(x, r, error, step, False, message, gain)
        image = operator(s)
        d, w = s, preconditioner(image)
        step += 1
        for direction, product, moved in tried:
            share = (gram(product) * w).sum(1, keepdim=True)
            d, w, image = d - share * direction, w - share * product, image - share * moved
        length = row_lengths(w, gram)
        moving = left & (length > 0.0)
        if not bool(moving.any()):
            return BatchedResult(x, r, error, step, False, "the iteration has broken down", gain)
        scale = torch.where(moving, 1.0 / length, 0.0)[:, None]
        d, w, image = scale * d, scale * w, scale * image
        tried.append((d, w, image))
        if gain is not None:
            products = _bordered(products, gram(d), [direction for direction, _, _ in tried])
            # The images w are orthonormal, so that |(P A)^-1| on their span is the length of the longest combination.
            gain = torch.maximum(gain, torch.linalg.eigvalsh(products)[:, -1].clamp(min=0.0).sqrt())
            factor = gain
        share = (gram(w) * s).sum(1, keepdim=True)
        x, r, s = x + share * d, r - share * image, s - share * w
        error = factor * row_lengths(s, gram)


def _bordered(products: Tensor, covectors: Tensor, directions: list[Tensor]) -> Tensor:
    """The products (S, k, k) of directions with each other, with those of the last one, K times which is given."""
    count = len(directions)
    found = covectors.new_zeros(len(covectors), count, count)
    found[:, :-1, :-1] = products
    found[:, -1] = torch.stack([(covectors * each).sum(1) for each in directions], 1)
    found[:, :, -1] = found[:, -1]
    return found
