"""Generalised conjugate residuals for P A x = P b (Eisenstat, Elman and Schultz, 1983), for any A near P^-1.

Each step minimises the norm of P (b - A x) over the directions tried. One iteration serves both entry points: its rows
are systems with steps of their own, and a single system of any shape is one row.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .krylov import BatchedResult, KrylovResult, Metric, Operator, RowGoals, as_row, row_goals, row_units, usual_unit
from .safe_lengths import quotient, row_dots, row_lengths


class _Iteration:
    """Conjugate residuals for A_s x_s = b_s in the rows (S, n).

    Attributes:
        x, r, s: (S, n) iterates, residuals b - A x, and P r.
        applied: number of applications of P so far.
        directions: (S, n) each, tried so far; K times the last one is `last`.
    """

    def __init__(self, operator: Operator, preconditioner: Operator, gram: Operator, x: Tensor, r: Tensor) -> None:
        self._operator, self._preconditioner, self._gram = operator, preconditioner, gram
        self.x, self.r, self.s, self.applied = x, r, preconditioner(r), 1
        self.directions: list[Tensor] = []
        # For every direction d: w = P A d, which are orthonormal in the inner product K, then K w and A d.
        self._images: list[tuple[Tensor, Tensor, Tensor]] = []
        self._image: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """(S,) the lengths of P r."""
        return row_lengths(self.s, self._gram)

    @property
    def image(self) -> Tensor:
        """(S, n) A P r."""
        if self._image is None:
            self._image = self._operator(self.s)
        return self._image

    def step(self, moving: Tensor) -> bool:
        """Move some rows (S,) by one step along P r, made conjugate; false, and no step, where no row can move."""
        d, moved = self.s, self.image
        # P A P r as a difference: with P near the inverse of A, its rounding errors are relative to what P A - 1 leaves
        # of P r, and those of P applied to A P r would be relative to the condition number.
        w = self.s - self._preconditioner(self.r - moved)
        self.applied, self._image = self.applied + 1, None
        for direction, (before, covector, image) in zip(self.directions, self._images, strict=True):
            share = row_dots(covector, w)[:, None]
            d, w, moved = d - share * direction, w - share * before, moved - share * image
        length = row_lengths(w, self._gram)
        moving = moving & length.isfinite() & (length > 0.0)
        if not bool(moving.any()):
            return False
        scale = torch.where(moving, 1.0 / length, 0.0)[:, None]
        d, w, moved = scale * d, scale * w, scale * moved
        covector = self._gram(w)
        self.directions.append(d)
        self._images.append((w, covector, moved))
        share = row_dots(covector, self.s)[:, None]
        self.x, self.r, self.s = self.x + share * d, self.r - share * moved, self.s - share * w
        return True


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
    """Solve A x = b for any A near P^-1.

    Each step first tries the point of iterative refinement, x + P (b - A x), so that an exact P is applied once.

    Args:
        operator: x -> A x, shapes as b.
        b: right-hand side, any shape.
        preconditioner: P, which need not be symmetric.
        metric: the inner product K of the space of x.
        start: first iterate; zero by default.
        rtol: stop at an error of at most this.
        iterations: largest number of applications of P.
        error: (x, b - A x) -> relative error; by default |P (b - A x)| / |x|.
        hopeless: (contraction by the last step, error before it, applications of P) -> whether to give up.
    """
    if not torch.count_nonzero(b):
        return KrylovResult(torch.zeros_like(b), torch.zeros_like(b), 0, 0.0, True, "the right-hand side is zero")
    unit = usual_unit(b)
    right, x = b / unit, torch.zeros_like(b) if start is None else start / unit
    r = right if start is None else right - operator(x)
    known = math.inf
    if start is not None and error is not None:
        known = error(start, unit * r)
        if known <= rtol:
            return KrylovResult(start, unit * r, 0, known, True, "the start is good enough")
    gram = as_row(metric.covector, b)
    row = _Iteration(as_row(operator, b), as_row(preconditioner, b), gram, x.reshape(1, -1), r.reshape(1, -1))

    def refined(x: Tensor, r: Tensor, before: float) -> float:
        if error is not None:
            return error(unit * x.reshape(b.shape), unit * r.reshape(b.shape))
        return before if torch.count_nonzero(r) else 0.0

    def stepped(before: float) -> float:
        return before if error is not None else quotient(float(row.lengths), metric.norm(row.x.reshape(b.shape)))

    x, r, relative = _run(row, known, refined, stepped, rtol, iterations, hopeless)
    message = f"{row.applied} steps {'to' if relative <= rtol else 'left'} an error of {relative:.1e}"
    solution, residual = unit * x.reshape(b.shape), unit * r.reshape(b.shape)
    return KrylovResult(solution, residual, row.applied, relative, relative <= rtol, message)


def _run(
    row: _Iteration,
    known: float,
    refined: Callable[[Tensor, Tensor, float], float],
    stepped: Callable[[float], float],
    rtol: float,
    iterations: int,
    hopeless: Callable[[float, float, int], bool],
) -> tuple[Tensor, Tensor, float]:
    """Step until the relative error is small enough, or no more steps are worth while: iterate, residual and error.

    `refined` gives the error at a point of iterative refinement, and `stepped` the error after a step, both from the
    error known before.
    """
    every = torch.ones(1, dtype=torch.bool, device=row.x.device)
    while True:
        x, r = row.x + row.s, row.r - row.image
        known = refined(x, r, known)
        if known <= rtol:
            return x, r, known
        before = float(row.lengths)
        if row.applied >= iterations or not 0.0 < before < math.inf or not row.step(every):
            return row.x, row.r, known
        known = stepped(known)
        if known <= rtol or hopeless(float(row.lengths) / before, known, row.applied):
            return row.x, row.r, known


def batched_residuals(
    operator: Operator,
    b: Tensor,
    preconditioner: Operator,
    gram: Operator,
    start: Tensor | None = None,
    atol: RowGoals = 0.0,
    iterations: int = 60,
    residual: Tensor | None = None,
    gain: Tensor | None = None,
) -> BatchedResult:
    """Solve A_s x_s = b_s for any A_s near P^-1, each row with steps of its own.

    Rows that have reached their goal stay as they are.

    Args:
        operator: x (S, n) -> A_s x_s, (S, n).
        b: (S, n) right-hand sides.
        preconditioner: r (S, n) -> P r, which need not be symmetric.
        gram: x (S, n) -> K x, of the inner product of the space of x.
        start: (S, n) first iterates; zero by default.
        atol: goals of |P (b - A x)|_K, as in `batched_conjugate_gradients`.
        iterations: largest number of applications of P.
        residual: (S, n) b - A x at the start, where it is known.
        gain: (S,) lower bounds of |(P A)^-1| that are known before, 1 without any. With them the errors of solutions,
            |x - x*|_K <= |(P A)^-1| |P (b - A x)|_K, take the place of |P (b - A x)|_K. The bounds are raised to what
            the directions tried show: the norm of (P A)^-1 on P A times their span, which takes no further solves.
    """
    x = torch.zeros_like(b) if start is None else start
    r = residual if residual is not None else b if start is None else b - operator(x)
    units = row_units(r, start)
    if usual := bool((units == 1.0).all()):
        solver = _Iteration(operator, preconditioner, gram, x, r)
    else:
        solver = _Iteration(operator, preconditioner, gram, x / units, r / units)
    products = b.new_zeros(len(b), 0, 0)
    first = solver.lengths
    goal = row_goals(atol, first, units).expand(len(b))
    error, message = first if gain is None else gain * first, ""
    while True:
        left = error > goal
        if not bool(torch.isfinite(error).all()):
            message = "a residual is not finite"
        elif not bool(left.any()):
            break
        elif solver.applied >= iterations:
            message = f"{iterations} steps were not enough for {int(left.sum())} rows"
        elif not solver.step(left):
            message = "the iteration has broken down"
        if message:
            break
        if gain is not None:
            products = _bordered(products, gram(solver.directions[-1]), solver.directions)
            # The images w are orthonormal, so that |(P A)^-1| on their span is the length of the longest combination.
            gain = torch.maximum(gain, torch.linalg.eigvalsh(products)[:, -1].clamp(min=0.0).sqrt())
        error = solver.lengths if gain is None else gain * solver.lengths
    x, r = (solver.x, solver.r) if usual else (units * solver.x, units * solver.r)
    return BatchedResult(x, r, units[:, 0] * error, solver.applied, not message, message, gain)


def _bordered(products: Tensor, covectors: Tensor, directions: list[Tensor]) -> Tensor:
    """The products (S, k, k) of directions with each other, with those of the last one, K times which is given."""
    count = len(directions)
    found = covectors.new_zeros(len(covectors), count, count)
    found[:, :-1, :-1] = products
    found[:, -1] = torch.stack([(covectors * each).sum(1) for each in directions], 1)
    found[:, :, -1] = found[:, -1]
    return found
