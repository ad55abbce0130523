"""The state at a control, and the derivatives of a function of both, with the factors of J at that point.

    R(u, v) = 0,   J^T p = f_u,   Phi'(v) = f_v - R_v^T p

The product with the second derivative takes two more systems, see `engine.reduced_hessian`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..engine.admissible import RestrictedProblem
from ..engine.bilevel import StateFactors
from ..engine.reduced_hessian import ReducedHessian
from ..engine.state_newton import solve_from_anywhere
from ..linalg.factorisation import SingularMatrixError
from ..methods.adjoint import ExactDirections, TwiceImplicitProblem

# Relative dual norm of the residual above which a state is no solution, whatever Newton's method says about it.
_USELESS = 1e-6
# Default goals of that norm. One solve of a linear equation is as good as it gets, and reaches the first. The second
# makes the result of Newton's method independent of its start, to rounding, for one to three more solves.
_LINEAR, _NONLINEAR = 1e-12, 1e-14


class StateUnsolvedError(ArithmeticError):
    """The state equation could not be solved at a control; the message says why."""


@dataclass(frozen=True)
class StateOptions:
    """How states are solved for, and how many are kept.

    Attributes:
        tolerance: relative dual norm of the residual of a state to reach; None: what makes the state exact to rounding.
        steps: largest number of Newton steps.
        kept: number of points whose states and factors stay in memory.
        derivatives: those of a linear equation are prepared with its state, as its factors exist then.
    """

    tolerance: float | None = None
    steps: int = 50
    kept: int = 2
    derivatives: bool = True

    def __post_init__(self) -> None:
        if self.tolerance is not None and not 0.0 < self.tolerance < _USELESS:
            raise ValueError(f"tolerance: expected a number between 0 and {_USELESS:g}, found {self.tolerance!r}")
        for name in ("steps", "kept"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a number of at least 1, found {getattr(self, name)!r}")

    def goal(self, linear: bool) -> float:
        """The tolerance for a linear or a nonlinear equation."""
        return self.tolerance or (_LINEAR if linear else _NONLINEAR)


@dataclass(frozen=True, eq=False)
class SolvedState:
    """The state u at a control v.

    Attributes:
        problem: the problem, whose objective is f.
        u: (S, n) the state; not to be used where there is a `message`.
        v: (p,) the control.
        message: why there is no state, a sentence; empty where there is one.
    """

    problem: TwiceImplicitProblem
    u: Tensor
    v: Tensor
    message: str = ""

    @cached_property
    def value(self) -> float:
        """Phi(v); infinite where there is no state."""
        if self.message:
            return math.inf
        found = self.problem.outer_value(self.u, self.v)
        return found if math.isfinite(found) else math.inf

    @cached_property
    def derivative(self) -> Tensor:
        """Phi'(v), a covector (p,); NaN where there is no state, or where J is singular."""
        return self._nothing if math.isinf(self.value) else self.derivative_of(self.problem, self._adjoint)

    def hessian(self, d: Tensor) -> Tensor:
        """Phi''(v) d, a covector (p,); NaN as `derivative`."""
        return self._nothing if math.isinf(self.value) else self._hessian(d)

    def derivative_of(self, problem: TwiceImplicitProblem, adjoint: Tensor | None = None) -> Tensor:
        """The derivative (p,) of the objective of another problem with the same state."""
        inner, outer = problem.outer_derivatives(self.u, self.v)
        p = self.adjoint(inner) if adjoint is None else adjoint
        return outer - problem.control_product_transposed(self.u, self.v, p)

    def hessian_of(self, problem: TwiceImplicitProblem) -> ReducedHessian:
        """d -> the second derivative of the objective of another problem with the same state, applied to d."""

        def adjoint() -> Tensor:
            return self.adjoint(problem.outer_derivatives(self.u, self.v)[0])

        return ReducedHessian(problem, self.u, self.v, adjoint, lambda: self.factors)

    def tangent(self, d: Tensor) -> Tensor:
        """The change -J^-1 R_v d of u, (S, n), for a change d (p,) of v."""
        return -self.factors.solve(self.problem.control_product(self.u, self.v, d))

    def adjoint(self, g: Tensor) -> Tensor:
        """The solution p of J^T p = g, (S, n), NaN where J is singular.

        One step of iterative refinement follows where a coefficient with large contrasts leaves a large residual.
        """
        problem, u, v = self.problem, self.u, self.v
        try:
            p = self.factors.solve_transposed(g)
            left = g - problem.state_product_transposed(u, v, p)
            large = problem.inner_metric.dual_norm_estimate(left)
            if large > _LINEAR * problem.inner_metric.dual_norm_estimate(g):
                p = p + self.factors.solve_transposed(left)
        except SingularMatrixError:
            return torch.full_like(g, math.nan)
        return p

    @cached_property
    def factors(self) -> StateFactors:
        return self.problem.state_factors(self.u, self.v)

    @cached_property
    def _adjoint(self) -> Tensor:
        return self.adjoint(self.problem.outer_derivatives(self.u, self.v)[0])

    @cached_property
    def _hessian(self) -> ReducedHessian:
        return ReducedHessian(self.problem, self.u, self.v, lambda: self._adjoint, lambda: self.factors)

    @property
    def _nothing(self) -> Tensor:
        return torch.full_like(self.v, math.nan)


class StateSolver:
    """Solves for states and keeps the last ones.

    A linear equation is solved from zero, so that results do not depend on what was solved before. A nonlinear one
    starts from the last state.

    Args:
        problem: the problem.
        options: see `StateOptions`.
    """

    def __init__(self, problem: TwiceImplicitProblem, options: StateOptions) -> None:
        self.problem, self.options = problem, options
        self._points: OrderedDict[bytes, SolvedState] = OrderedDict()
        self._last: Tensor | None = None

    def at(self, v: Tensor) -> SolvedState:
        """The state at v (p,)."""
        key = _key(v)
        point = self._points.pop(key, None) or self._solved(v.clone())
        return self._keep(key, point)

    def known(self, u: Tensor, v: Tensor) -> SolvedState:
        """The point of a state u (S, n) that was solved for at v (p,) before."""
        key = _key(v)
        point = self._points.pop(key, None)
        if point is None or not torch.equal(point.u, u):
            point = SolvedState(self.problem, u.clone(), v.clone())
        return self._keep(key, point)

    def _keep(self, key: bytes, point: SolvedState) -> SolvedState:
        self._points[key] = point
        while len(self._points) > self.options.kept:
            self._points.popitem(last=False)
        return point

    def _solved(self, v: Tensor) -> SolvedState:
        problem, options = self.problem, self.options
        nothing = v.new_full(problem.inner_shape, math.nan)
        message = self._refusal(v)
        if message:
            return SolvedState(problem, nothing, v, message)
        try:
            start = self._start(v)
            directions = ExactDirections(problem, v, start)
            root = solve_from_anywhere(problem, v, start, directions, options.goal(problem.linear), options.steps)
            message = root.message if root.failed or not root.error <= _USELESS else ""
            point = SolvedState(problem, root.u, v, message)
            if problem.linear and options.derivatives and not message:
                # The factors of this J exist already, and only those of the last point are kept below.
                _ = point.factors
        except SingularMatrixError as singular:
            return SolvedState(problem, nothing, v, str(singular))
        if message:
            return point
        if not math.isfinite(problem.outer_value(point.u, v)):
            message = "the objective is not finite"
            return SolvedState(problem, nothing, v, message)
        self._last = point.u
        return point

    def _start(self, v: Tensor) -> Tensor:
        if self.problem.linear:
            return v.new_zeros(self.problem.inner_shape)
        return self.problem.cold_start(v) if self._last is None else self._last

    def _refusal(self, v: Tensor) -> str:
        """Why no state can be solved for at v, a sentence; empty where one can."""
        bad = int((~torch.isfinite(v)).sum())
        if bad:
            return f"{bad:,} of {v.numel():,} numbers of the control are not finite"
        return self.problem.refusal(v) if isinstance(self.problem, RestrictedProblem) else ""


def _key(v: Tensor) -> bytes:
    return v.detach().cpu().numpy().tobytes()
