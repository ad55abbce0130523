"""`nhgd.reduced`: the objective as a function of the control alone, for SciPy and for optimisers of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, overload

import numpy as np
from torch import Tensor

from ..horizon_problem import HorizonProblem
from ..linalg.counts import Counts
from ..linalg.safe_lengths import dot
from ..methods.adjoint import TwiceImplicitProblem
from ..pde_problem import PDEProblem
from ..scenario_problem import ScenarioProblem
from .arrays import entered
from .sampled_values import SampledState, SampleSolver
from .solved_state import SolvedState, StateOptions, StateSolver, StateUnsolvedError

if TYPE_CHECKING:
    from scipy.optimize import Bounds

Vector = TypeVar("Vector", np.ndarray, Tensor)
AnyProblem = TwiceImplicitProblem | PDEProblem | ScenarioProblem


class StagedProblem(Protocol):
    """What `nhgd.load` returns, as far as it is needed here."""

    @property
    def stages(self) -> Sequence[PDEProblem | ScenarioProblem]: ...


def reduced(
    problem: StagedProblem | TwiceImplicitProblem, *, tolerance: float | None = None, steps: int = 50, kept: int = 2
) -> ReducedObjective:
    """The reduced objective of a problem.

    Args:
        problem: from `nhgd.load`, or a bilevel problem of one's own with second derivatives. Of a continuation it is
            the last stage.
        tolerance: relative dual norm of the residual of a state to reach; None: what makes the state exact to rounding.
        steps: largest number of Newton steps for a state.
        kept: number of points whose states and factors stay in memory.

    Raises:
        ValueError: the problem has bounds of the state, which are no part of a function; or an option out of its range.
    """
    return ReducedObjective(last_stage(problem), StateOptions(tolerance, steps, kept))


def last_stage(problem: StagedProblem | TwiceImplicitProblem) -> AnyProblem:
    """The problem whose objective is meant.

    Raises:
        ValueError: it has bounds of the state.
    """
    stages = getattr(problem, "stages", None)
    last: Any = stages[-1] if stages else problem
    if isinstance(last, HorizonProblem):
        if last.room:
            raise ValueError("time.memory: expected none: this function needs the states of all steps")
        raise ValueError("method: expected nhgd or adjoint, found fds: this function needs the states of all steps")
    if getattr(last, "state_bounds", ()) and not getattr(last, "relaxations", ()):
        raise ValueError(
            f"constraints: expected no bounds of the state, found {len(last.state_bounds)}: `nhgd.solve` enforces them "
            "in rounds, and they are no part of one function; remove them, and add a penalty of state(v) of your own"
        )
    return cast(AnyProblem, last)


class ReducedObjective:
    """Phi(v) = f(u(v), v), where the state u(v) solves the equation, with exact first and second derivatives.

    Every method takes v (p,) as an array of NumPy or a tensor of torch, and answers in kind. The last points are kept:
    at one v, value, derivative and Hessian products take one state solve, one adjoint solve and two solves a product.

    Where the state equation cannot be solved, or a coefficient leaves its range, the value is infinite, so that a line
    search takes a shorter step; derivatives are NaN, and `message(v)` is a sentence on the reason. `state(v)` raises.

    **What the value contains.** All terms of the objective except those with `norm: l1`, which have no derivative at
    zero: `l1_weights` has their weights, and `objective(v)` is the sum of all terms. Bounds and constraints of the
    control are no part of it, and a control outside its bounds is evaluated like any other. With random inputs it is
    the risk measure over the whole sample, and there are no Hessian products.
    """

    def __init__(self, problem: AnyProblem, options: StateOptions) -> None:
        self.problem = problem
        self._solver: StateSolver | SampleSolver
        if isinstance(problem, ScenarioProblem):
            self._solver = SampleSolver(problem, options)
        else:
            self._solver = StateSolver(problem, options)

    @property
    def size(self) -> int:
        """p, the number of entries of a control."""
        return self.problem.outer_size

    @cached_property
    def start(self) -> np.ndarray:
        """(p,) the initial control of the problem, moved into its bounds."""
        v = self._first if self.problem.bounds is None else self._first.clamp(*self.problem.bounds)
        return v.cpu().numpy().copy()

    @cached_property
    def bounds(self) -> Bounds | None:
        """Lower and upper bounds, `lb` and `ub` (p,), as SciPy takes them; None without bounds."""
        if self.problem.bounds is None:
            return None
        from scipy.optimize import Bounds

        lower, upper = (each.cpu().numpy().copy() for each in self.problem.bounds)
        return Bounds(lower, upper)

    @property
    def counts(self) -> Counts:
        """The work done so far, for this and every other use of the problem."""
        return self.problem.counts

    @overload
    def value(self, v: np.ndarray) -> float: ...
    @overload
    def value(self, v: Tensor) -> Tensor: ...
    def value(self, v: Any) -> Any:
        """Phi(v), without l1 terms; infinite where there is no state."""
        x, form = self._entered(v)
        return form.number(self._at(x).value)

    def derivative(self, v: Vector) -> Vector:
        """Phi'(v), the covector (p,) of partial derivatives, which SciPy and torch call the gradient; NaN where there
        is no state."""
        x, form = self._entered(v)
        return cast(Vector, form.vector(self._at(x).derivative))

    def gradient(self, v: Vector) -> Vector:
        """(p,) the Riesz representative of the derivative in the inner product of the control.

        Steps along it do not depend on the mesh. Optimisers of other libraries expect `derivative` instead.
        """
        x, form = self._entered(v)
        return cast(Vector, form.vector(self._represented(self._at(x).derivative)))

    def hessian_product(self, v: Vector, d: Vector) -> Vector:
        """Phi''(v) d, a covector (p,), by two solves; NaN where there is no state.

        Raises:
            NotImplementedError: the problem has random inputs.
        """
        x, form = self._entered(v)
        step, _ = entered("d", d, self._first)
        return cast(Vector, form.vector(self._at(x).hessian(step)))

    def state(self, v: Vector) -> Vector:
        """(S, N) all coefficients of the state, one row a scenario, as `Solution.state` has them.

        Raises:
            StateUnsolvedError: there is no state.
        """
        x, form = self._entered(v)
        point = self._at(x)
        if point.message:
            raise StateUnsolvedError(point.message)
        whole = getattr(self.problem, "state", lambda u, v: u)
        return cast(Vector, form.vector(whole(point.u, x)))

    def message(self, v: Vector) -> str:
        """Why there is no state at v; empty where there is one."""
        x, _ = self._entered(v)
        return self._at(x).message

    @overload
    def objective(self, v: np.ndarray) -> float: ...
    @overload
    def objective(self, v: Tensor) -> Tensor: ...
    def objective(self, v: Any) -> Any:
        """`value(v)` plus the l1 terms: the objective of the problem file."""
        x, form = self._entered(v)
        weights = self._weights
        return form.number(self._at(x).value + (0.0 if weights is None else dot(weights, x.abs())))

    @property
    def l1_weights(self) -> np.ndarray | None:
        """(p,) the weights w of the part sum w |v| of the objective that is not in `value`; None without one."""
        return None if self._weights is None else self._weights.cpu().numpy().copy()

    # The inner product of the control

    def inner(self, a: Vector, b: Vector) -> float:
        """<a, b> of two controls (p,), such as the integral of a b."""
        x, _ = entered("a", a, self._first)
        y, _ = entered("b", b, self._first)
        return self.problem.outer_metric.inner(x[None], y[None])

    def covector(self, a: Vector) -> Vector:
        """(p,) the covector b -> <a, b>, so that covector(gradient(v)) is derivative(v)."""
        x, form = entered("a", a, self._first)
        return cast(Vector, form.vector(self.problem.outer_metric.covector(x[None])[0]))

    def representative(self, g: Vector) -> Vector:
        """(p,) the control that represents a covector, so that representative(derivative(v)) is gradient(v)."""
        x, form = entered("g", g, self._first)
        return cast(Vector, form.vector(self._represented(x)))

    def _represented(self, derivative: Tensor) -> Tensor:
        return self.problem.outer_metric.gradient(derivative[None])[0]

    def _at(self, x: Tensor) -> SolvedState | SampledState:
        return self._solver.at(x)

    def _entered(self, v: Any) -> Any:
        return entered("v", v, self._first)

    @cached_property
    def _first(self) -> Tensor:
        nominal: Any = getattr(self.problem, "nominal", self.problem)
        found: Tensor = nominal.control.initial if isinstance(nominal, PDEProblem) else nominal.start()[1]
        return found

    @property
    def _weights(self) -> Tensor | None:
        return getattr(self.problem, "l1_weights", None)

    def __repr__(self) -> str:
        name = getattr(self.problem, "name", type(self.problem).__name__)
        return f"ReducedObjective of {name}: {self.size:,} entries of the control"
