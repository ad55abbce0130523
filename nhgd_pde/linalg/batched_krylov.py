"""Conjugate gradients for many systems at once, a row each: one product and one preconditioner for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .krylov import Operator


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
    """

    solution: Tensor
    residual: Tensor
    error: Tensor
    iterations: int
    converged: bool
    message: str = ""


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
