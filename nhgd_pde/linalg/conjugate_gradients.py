"""The preconditioned conjugate gradient method (Hestenes and Stiefel, 1952), for one system or for many at once.

Operators are functions. One iteration serves both entry points: its rows are systems with steps of their own, and a
single system of any shape is one row.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .krylov import BatchedResult, KrylovResult, Operator, RowGoals, as_row, row_goals, row_units, usual_unit
from .safe_lengths import dot, magnitude, row_dots

_NOT_FINITE = "the conjugate gradient method met a number that is not finite"


class _Iteration:
    """Conjugate gradients for A_s x_s = b_s in the rows (S, n), of which only the active ones move.

    The operator takes all rows, and the preconditioner P any of them. r is b - A x at the first iterates x, and z is
    P r where it is known.
    """

    def __init__(
        self, operator: Operator, preconditioner: Operator, x: Tensor, r: Tensor, z: Tensor | None = None
    ) -> None:
        self._operator, self._preconditioner = operator, preconditioner
        self.x, self.r, self.steps = x, r, 0
        self.active = torch.arange(len(r), device=r.device)
        self._direction, self._before = torch.zeros_like(r), r.new_ones(len(r))
        self._preconditioned = None if z is None else (z, row_dots(r, z))

    @property
    def _whole(self) -> bool:
        return len(self.active) == len(self.r)

    def _residual(self) -> tuple[Tensor, Tensor]:
        """P r (k, n) and r . P r (k,) of the active rows; P is applied at most once an iterate."""
        if self._preconditioned is None:
            r = self.r if self._whole else self.r[self.active]
            z = self._preconditioner(r)
            self._preconditioned = z, row_dots(r, z)
        return self._preconditioned

    @property
    def squares(self) -> Tensor:
        """(k,) r . P r of the active rows."""
        return self._residual()[1]

    def step(self) -> str:
        """Move the active rows by one step; a sentence, and no step, where that is impossible."""
        z, squares = self._residual()
        if len(self.r) == len(squares) == 1 and 0.0 < float(squares) < math.inf:
            return self._single_step(z, squares)
        if not bool(((squares >= 0.0) & (squares < math.inf)).all()):
            finite = bool(squares.isfinite().all())
            return "the preconditioner is not positive definite" if finite else _NOT_FINITE
        self._turn(z, squares)
        image = self._operator(self._direction)
        curvature = row_dots(self._direction, image)
        if self._whole:
            moving = squares > 0.0
        else:
            moving = torch.zeros_like(curvature, dtype=torch.bool)
            moving[self.active] = squares > 0.0
        if bool((moving & ~((curvature > 0.0) & (curvature < math.inf))).any()):
            return (
                _NOT_FINITE if not bool(curvature[moving].isfinite().all()) else "the operator is not positive definite"
            )
        length = torch.where(moving, self._before / torch.where(moving, curvature, 1.0), 0.0)[:, None]
        self.x = torch.addcmul(self.x, self._direction, length)
        self.r = torch.addcmul(self.r, image, length, value=-1.0)
        self.steps, self._preconditioned = self.steps + 1, None
        return ""

    def _single_step(self, z: Tensor, squares: Tensor) -> str:
        """The step of a single row, with numbers in place of small tensors, which take longer."""
        self._turn(z, squares)
        image = self._operator(self._direction)
        curvature = float(row_dots(self._direction, image))
        if not 0.0 < curvature < math.inf:
            return "the operator is not positive definite" if math.isfinite(curvature) else _NOT_FINITE
        length = float(squares) / curvature
        self.x = torch.add(self.x, self._direction, alpha=length)
        self.r = torch.sub(self.r, image, alpha=length)
        self.steps, self._preconditioned = self.steps + 1, None
        return ""

    def _turn(self, z: Tensor, squares: Tensor) -> None:
        """Make the directions of the active rows conjugate to those before, from P r (k, n) and r . P r (k,)."""
        if self._whole:
            shares = squares / self._before if self.steps else torch.zeros_like(squares)
            self._direction, self._before = torch.addcmul(z, self._direction, shares[:, None]), squares
            return
        shares = squares / self._before[self.active]
        self._direction[self.active] = z + shares[:, None] * self._direction[self.active]
        self._before[self.active] = squares


def conjugate_gradients(
    operator: Operator,
    b: Tensor,
    preconditioner: Operator,
    start: Tensor | None = None,
    rtol: float = 1e-10,
    iterations: int = 200,
    error: Callable[[Tensor, Tensor], float] | None = None,
    known: Tensor | None = None,
) -> KrylovResult:
    """Solve A x = b for a symmetric positive definite A.

    Args:
        operator: x -> A x, shapes as b.
        b: right-hand side, any shape.
        preconditioner: r -> P r, symmetric positive definite.
        start: first iterate; zero by default.
        rtol: stop at an error of at most this.
        iterations: largest number of steps.
        error: (x, b - A x) -> relative error, asked for from the first step on; by default |b - A x|_P / |b|_P with
            |r|_P = sqrt(r . P r). A function that is cheaper than the preconditioner saves its last application.
        known: P b, where it is known and there is no start.
    """
    scale = magnitude(b)
    if not math.isfinite(scale):
        message = "the right-hand side has numbers that are not finite"
        return KrylovResult(torch.full_like(b, math.nan), torch.full_like(b, math.nan), 0, math.nan, False, message)
    if scale == 0.0:
        return KrylovResult(torch.zeros_like(b), torch.zeros_like(b), 0, 0.0, True, "the right-hand side is zero")
    unit = usual_unit(b)
    right, x = b / unit, torch.zeros_like(b) if start is None else start / unit
    r = right if start is None else right - operator(x)
    if start is not None and not torch.count_nonzero(r):
        return KrylovResult(start, unit * r, 0, 0.0, True, "the start is the solution")
    first = None if known is None else (known / unit).reshape(1, -1)
    row = _Iteration(as_row(operator, b), as_row(preconditioner, b), x.reshape(1, -1), r.reshape(1, -1), first)

    def iterate() -> tuple[Tensor, Tensor]:
        x, r = row.x.reshape(b.shape), row.r.reshape(b.shape)
        return (x, r) if unit == 1.0 else (unit * x, unit * r)

    if error is None:
        whole = float(row.squares) if start is None else dot(right, preconditioner(right))
        relative, message = _run(row, lambda: _root_of_ratio(float(row.squares), whole), rtol, iterations)
    else:
        measured = error
        relative, message = _run(row, lambda: measured(*iterate()) if row.steps else math.inf, rtol, iterations)
    return KrylovResult(*iterate(), row.steps, relative, relative <= rtol, message)


def _run(row: _Iteration, relative_error: Callable[[], float], rtol: float, iterations: int) -> tuple[float, str]:
    """Step until the relative error is small enough; the last error, and a sentence on why the steps have ended."""
    while True:
        relative = relative_error()
        if relative <= rtol:
            return relative, f"{row.steps} steps to a relative residual of {relative:.1e}"
        if row.steps == iterations:
            return relative, f"{iterations} steps left a relative residual of {relative:.1e}"
        message = row.step() if float(row.squares) != 0.0 else "the preconditioner is not positive definite"
        if message:
            return relative, message


def _root_of_ratio(square: float, whole: float) -> float:
    """sqrt(square / whole); NaN where a preconditioner that is not definite has made one of them negative or zero."""
    ratio = square / whole if whole != 0.0 else math.nan
    return math.sqrt(ratio) if ratio >= 0.0 else math.nan


def batched_conjugate_gradients(
    operator: Operator,
    b: Tensor,
    preconditioner: Operator,
    start: Tensor | None = None,
    atol: RowGoals = 0.0,
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
        atol: goals of |b - A x|_P = sqrt(r . P r), which a function is given for the start.
        iterations: largest number of applications of P to a row.
        residual: (S, n) b - A x at the start, where it is known.
    """
    x = torch.zeros_like(b) if start is None else start
    r = residual if residual is not None else b if start is None else b - operator(x)
    units = row_units(r, start)
    if usual := bool((units == 1.0).all()):
        rows = _Iteration(operator, preconditioner, x, r)
    else:
        rows = _Iteration(operator, preconditioner, x / units, r / units)
    error, goal, message = b.new_zeros(len(b)), None, ""
    while rows.steps < iterations and len(rows.active) and not message:
        error[rows.active] = rows.squares.sqrt()
        goal = row_goals(atol, error.clone(), units).expand(len(b)) if goal is None else goal
        unfinished = rows.active[error[rows.active] > goal[rows.active]]
        message = rows.step()
        rows.active = unfinished if not message else rows.active
    if len(rows.active) and not message:
        message = f"{iterations} steps were not enough for {len(rows.active)} rows"
    x, r = (rows.x, rows.r) if usual else (units * rows.x, units * rows.r)
    return BatchedResult(x, r, units[:, 0] * error, rows.steps, not message, message)
