"""`nhgd.as_torch`: the state and the objective as differentiable functions of torch.

With a covector g of the state, and R(u(v), v) = 0, the first derivatives are those of the adjoint method,

    Phi'(v)    and    u'(v)^T g, the derivative of v -> <g, u(v)>,

and the second ones are those of `ReducedHessian`, with two systems each,

    Phi''(v) c    and, of <c, u'(v)^T g>, by v the second derivative of v -> <g, u(v)> applied to c, by g u'(v) c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..objective.terms import LinearState, Objective
from ..pde_problem import PDEProblem
from .objective_function import StagedProblem, last_stage
from .solved_state import SolvedState, StateOptions, StateSolver, StateUnsolvedError


def as_torch(
    problem: StagedProblem | PDEProblem, *, tolerance: float | None = None, steps: int = 50, kept: int = 8
) -> TorchFunctions:
    """The state and the objective of a problem as functions of torch that can be differentiated twice.

    Args:
        problem: from `nhgd.load`. Of a continuation it is the last stage.
        tolerance: relative dual norm of the residual of a state to reach; None: what makes the state exact to rounding.
        steps: largest number of Newton steps for a state.
        kept: number of points whose factors stay in memory; others are factorised again for their derivatives.

    Raises:
        ValueError: the problem has random inputs or bounds of the state; or an option out of its range.
    """
    last = last_stage(problem)
    if not isinstance(last, PDEProblem):
        raise ValueError(
            f"problem: expected a PDE problem without random inputs, found {type(last).__name__}: take "
            "nhgd.reduced(problem), which has value and derivative over the whole sample"
        )
    return TorchFunctions(last, StateOptions(tolerance, steps, kept))


class TorchFunctions:
    """`state(v)` and `objective(v)` for controls v of shape (..., p): each row is a control of its own.

    Results have the dtype and the device of v; in between everything is computed in double precision on the device of
    the problem. States of a nonlinear equation start from the last one. Backward passes take one solve a row with the
    transposed Jacobian; double backward passes take two more, and a third derivative raises an error of torch.
    """

    def __init__(self, problem: PDEProblem, options: StateOptions) -> None:
        self.problem = problem
        self._solver = StateSolver(problem, options)

    @property
    def size(self) -> int:
        """p, the number of entries of a control."""
        return self.problem.outer_size

    @property
    def start(self) -> Tensor:
        """(p,) the initial control of the problem."""
        return self.problem.control.initial.clone()

    @property
    def nodes(self) -> np.ndarray:
        """(dim, nodes) the place of every coefficient of the state at one time, field by field."""
        return self.problem.space.nodes

    @property
    def times(self) -> np.ndarray:
        """(levels,) the times of an evolution, 0 and the ends of its steps; [0] for a steady problem."""
        equation = self.problem.equation
        return equation.measure * np.arange(equation.size // self.problem.space.size)

    @property
    def l1_weights(self) -> Tensor | None:
        """(p,) the weights w of the part sum w |v| of the objective that is not in `objective`; None without one."""
        return self.problem.l1_weights

    def state(self, v: Tensor) -> Tensor:
        """All coefficients of the state, given ones included, (..., N) for v (..., p).

        With P1 elements a coefficient is the value at its node in `nodes`. Of an evolution, the levels in time follow
        one after the other: state(v).unflatten(-1, (len(times), -1)).

        Raises:
            ValueError: the shape of v.
            StateUnsolvedError: the state equation has no solution for a row, or a coefficient leaves its range.
        """
        rows = self._rows(v)
        found, _ = _State.apply(rows, self._solver)
        return found.reshape(*v.shape[:-1], self.problem.equation.size).to(v)

    def objective(self, v: Tensor) -> Tensor:
        """Phi(v) = f(u(v), v), of shape (...) for v (..., p), without terms of the norm l1.

        Raises:
            ValueError: the shape of v.
            StateUnsolvedError: the state equation has no solution for a row, or a coefficient leaves its range.
        """
        rows = self._rows(v)
        found, _ = _Objective.apply(rows, self._solver)
        return found.reshape(v.shape[:-1]).to(v)

    def _rows(self, v: Tensor) -> Tensor:
        if not isinstance(v, Tensor) or v.ndim == 0 or v.shape[-1] != self.size:
            found = f"the shape {tuple(v.shape)}" if isinstance(v, Tensor) else type(v).__name__
            raise ValueError(f"v: expected a tensor (..., {self.size}), found {found}")
        return v.reshape(-1, self.size).to(self.problem.control.initial)

    def __repr__(self) -> str:
        return f"TorchFunctions of {self.problem.name}: {self.size:,} entries of the control"


def _solved(solver: StateSolver, v: Tensor) -> list[SolvedState]:
    """The states of the rows of v (B, p).

    Raises:
        StateUnsolvedError: a row has none.
    """
    points = []
    for number, row in enumerate(v):
        point = solver.at(row)
        if point.message:
            place = f"row {number} of {len(v)}: " if len(v) > 1 else ""
            raise StateUnsolvedError(f"{place}{point.message}")
        points.append(point)
    return points


def _each(function: Callable[..., Tensor], solver: StateSolver, u: Tensor, v: Tensor, *others: Tensor) -> Tensor:
    """function(point, ...) of every row, whose states u (B, S, n) are known; (B, ...).

    Raises:
        StateUnsolvedError: a result is not finite, as where J is singular.
    """
    found = [function(solver.known(own_u, own_v), *rest) for own_u, own_v, *rest in zip(u, v, *others, strict=True)]
    result = _stacked(found, v, v.shape[1:])
    if not bool(torch.isfinite(result).all()):
        raise StateUnsolvedError("a derivative is not finite: the derivative of the state equation is singular")
    return result


def _tested(problem: PDEProblem, g: Tensor) -> PDEProblem:
    """The problem with the objective <g, u> for a covector g (N,) of all coefficients of the state."""
    return replace(problem, objective=Objective(state=(LinearState(g),), control=()))


class _State(torch.autograd.Function):
    """v (B, p) -> all coefficients of the states (B, N), and the unknowns (B, S, n) for later passes."""

    @staticmethod
    def forward(v: Tensor, solver: StateSolver) -> tuple[Tensor, Tensor]:
        points = _solved(solver, v)
        problem: Any = solver.problem
        whole = [problem.state(point.u, point.v)[0] for point in points]
        return _stacked(whole, v, (problem.equation.size,)), _unknowns(points, solver, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        v, ctx.solver = inputs
        ctx.save_for_backward(v, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        v, u = ctx.saved_tensors
        return _PulledBack.apply(v, gradients[0], u, ctx.solver), None


class _PulledBack(torch.autograd.Function):
    """v (B, p), covectors g (B, N) of the state -> u'(v)^T g (B, p)."""

    @staticmethod
    def forward(v: Tensor, g: Tensor, u: Tensor, solver: StateSolver) -> Tensor:
        return _each(lambda point, own: point.derivative_of(_tested(point.problem, own)), solver, u, v, g)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        v, g, u, ctx.solver = inputs
        ctx.save_for_backward(v, g, u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, c: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        v, g, u = ctx.saved_tensors
        by_v = by_g = None
        if ctx.needs_input_grad[0]:
            by_v = _each(lambda at, own, d: at.hessian_of(_tested(at.problem, own))(d), ctx.solver, u, v, g, c)
        if ctx.needs_input_grad[1]:
            by_g = _each(_moved, ctx.solver, u, v, c)
        return by_v, by_g, None, None


def _moved(point: SolvedState, d: Tensor) -> Tensor:
    """The change u'(v) d of all coefficients of the state (N,)."""
    problem: Any = point.problem
    physical = problem.control.physical
    return problem.equation.extend(point.tangent(d), physical(point.v), physical(d))[0]


class _Objective(torch.autograd.Function):
    """v (B, p) -> Phi (B,), and the unknowns (B, S, n) for later passes."""

    @staticmethod
    def forward(v: Tensor, solver: StateSolver) -> tuple[Tensor, Tensor]:
        points = _solved(solver, v)
        return v.new_tensor([point.value for point in points]), _unknowns(points, solver, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        v, ctx.solver = inputs
        ctx.save_for_backward(v, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        v, u = ctx.saved_tensors
        slopes = _Derivative.apply(v, u, ctx.solver)
        return gradients[0][:, None] * slopes, None


class _Derivative(torch.autograd.Function):
    """v (B, p) -> Phi'(v) (B, p)."""

    @staticmethod
    def forward(v: Tensor, u: Tensor, solver: StateSolver) -> Tensor:
        return _each(lambda point: point.derivative, solver, u, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        v, u, ctx.solver = inputs
        ctx.save_for_backward(v, u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, c: Tensor) -> tuple[Tensor, None, None]:
        v, u = ctx.saved_tensors
        return _each(lambda point, d: point.hessian(d), ctx.solver, u, v, c), None, None


def _unknowns(points: list[SolvedState], solver: StateSolver, v: Tensor) -> Tensor:
    return _stacked([point.u for point in points], v, solver.problem.inner_shape)


def _stacked(rows: list[Tensor], like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, *shape), also where there are no rows."""
    return torch.stack(rows) if rows else like.new_zeros(0, *shape)
