"""Equations in time, solved for all steps at once.

    M (u_k - u_{k-1}) + dt F(theta u_k + (1 - theta) u_{k-1}, v_k) = 0,   k = 1, ..., steps

M is the mass matrix of the terms under the time derivative, and F is the sum of the integrals at the time
t_{k-1} + theta dt. theta = 1 is the implicit Euler method. theta = 1/2 is the implicit midpoint rule, which for linear
equations with constant coefficients is the method of Crank and Nicolson. Controls that vary in time are constant in
each step, so that the optimised problem is exactly the discrete one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from ..linalg.bidiagonal import BidiagonalMatrix, KeptFactors, LevelMatrix
from ..linalg.factorisation import Factorisation
from ..linalg.newton import newton
from ..linalg.sparse import ScenarioMatrix, added
from .equation import StateEquation
from .form import Coefficients, Integral
from .linearisation import ControlDerivative, Jacobian, Linearisation


@dataclass(frozen=True, eq=False)
class EvolutionEquation(StateEquation):
    """A state equation whose unknowns are the free coefficients at the times t_1, t_2, ...

    The N coefficients are those at the times t_0, t_1, ...; those at t_0 are initial values. The rows of the integrals
    are the steps in time. There is one scenario.

    Attributes:
        mass: M, one matrix (size of the space, size of the space) for all steps or one for each.
        symmetric_steps: the derivatives of the integrals are symmetric; J is not.
        theta: the parameter of the scheme, in (0, 1].
        first: theta of the first step; None if it is that of the other steps.
        step: dt, the length of a time step.
        inertia: the integral of capacity u phi in place of `mass`, with the coefficient `capacity` (P,) or (steps, P),
            where controls change the factor of the time derivative; else None.
        multipliers: indices of the coefficients of one time that have no time derivative, such as pressures: they
            belong to a step as a whole, and enter its integrals with their value at its end; None without any.
        kept: the factors of the last steps, for equal matrices of other equations; None where there are no others.
    """

    mass: ScenarioMatrix | None = None
    theta: float = 1.0
    first: float | None = None
    step: float = 1.0
    symmetric_steps: bool = False
    inertia: Integral | None = None
    multipliers: np.ndarray | None = None
    kept: KeptFactors | None = None

    @property
    def _symmetric_integrals(self) -> bool:
        return self.symmetric_steps

    @property
    def steps(self) -> int:
        return self.rows.steps

    @property
    def measure(self) -> float:
        return self.step

    @property
    def _width(self) -> int:
        return self.size // (self.steps + 1)

    @cached_property
    def spatial_free(self) -> np.ndarray:
        """The unknowns of one step."""
        return self.free[: len(self.free) // self.steps] - self._width

    @cached_property
    def _share(self) -> Tensor | float:
        """theta of every step, (steps, 1), or one number if it is the same for all."""
        if self.first is None or self.first == self.theta:
            return self.theta
        share = self.lift.new_full((self.steps, 1), self.theta)
        share[0] = self.first
        return share

    def _levels(self, full: Tensor) -> Tensor:
        return full.reshape(self.steps + 1, self._width)

    def _stages(self, full: Tensor) -> Tensor:
        levels = self._levels(full)
        if self.theta == 1.0:
            return levels[1:]
        found = self._share * levels[1:] + (1.0 - self._share) * levels[:-1]
        return found if self.multipliers is None else self._with_ends(found, levels[1:])

    def _stages_transposed(self, covector: Tensor) -> Tensor:
        after, before = self._share * covector, (1.0 - self._share) * covector
        if self.multipliers is not None:
            after, before = self._with_ends(after, covector), self._with_ends(before, torch.zeros_like(before))
        none = torch.zeros_like(covector[:1])
        return (torch.cat([none, after]) + torch.cat([before, none])).reshape(1, -1)

    def _with_ends(self, values: Tensor, ends: Tensor) -> Tensor:
        """Values (..., size of the space), those of multipliers from `ends`."""
        found = values.clone()
        found[..., self.multipliers] = ends[..., self.multipliers]
        return found

    def at_end(self, state: ScenarioMatrix, share: Tensor | float) -> ScenarioMatrix:
        """dt times the part of the derivative `state` of the integrals that belongs to the end of each step."""
        return self._of_levels(state, share, 1.0)

    def at_start(self, state: ScenarioMatrix, share: Tensor | float) -> ScenarioMatrix:
        """dt times the part of the derivative `state` of the integrals that belongs to the start of each step."""
        return self._of_levels(state, 1.0 - share, 0.0)

    def _of_levels(self, state: ScenarioMatrix, share: Tensor | float, of_multipliers: float) -> ScenarioMatrix:
        if self.multipliers is None:
            return state.scaled(share * self.step)
        return state.scaled(self.step).with_columns(share, self.multipliers, of_multipliers)

    def _tests(self, w: Tensor) -> Tensor:
        whole = w.new_zeros(self.steps, self._width)
        whole[:, self._spatial] = self.step * w.reshape(self.steps, -1)
        return whole

    @cached_property
    def _spatial(self) -> Tensor:
        return torch.from_numpy(np.asarray(self.spatial_free, dtype=np.int64)).to(self.lift.device)

    @property
    def guarded(self) -> tuple[Integral, ...]:
        return self.integrals if self.inertia is None else (*self.integrals, self.inertia)

    @property
    def _controlled(self) -> bool:
        return super()._controlled or self.inertia is not None

    def mass_at(self, v: Tensor) -> ScenarioMatrix:
        """M at the controls v (p,)."""
        if self.inertia is None:
            assert self.mass is not None
            return self.mass
        if not (self._masses and torch.equal(self._masses[0][0], v)):
            capacity = self.inertia.entered(self.rows.spread(v))["capacity"]
            self._masses[:] = [(v.clone(), capacity_matrix(self.inertia.evaluation, range(self.fields), capacity))]
        return self._masses[0][1]

    @cached_property
    def _masses(self) -> list[tuple[Tensor, ScenarioMatrix]]:
        return []

    def before(self, v: Tensor, derivative: Linearisation) -> ScenarioMatrix:
        """(N of a time, N of a time) the derivative of the first step by the coefficients at time t_0."""
        return self._known_before if self.affine else self._before(v, derivative)

    @cached_property
    def _known_before(self) -> ScenarioMatrix:
        return self._before(self.lift.new_zeros(self.controls), self.constant_linearisation)

    def _before(self, v: Tensor, derivative: Linearisation) -> ScenarioMatrix:
        theta = self.theta if self.first is None else self.first
        found = self.mass_at(v).row(0).scaled(-1.0)
        return found + self.at_start(derivative.whole.row(0), theta) if theta < 1.0 else found

    def _residual(self, full: Tensor, v: Tensor) -> Tensor:
        levels = self._levels(full)
        total = self.mass_at(v).mv(levels[1:] - levels[:-1]) + self.step * self._integrate(self._stages(full), v)
        return total[:, self._spatial].reshape(1, -1)

    def march(self, v: Tensor, rtol: float = 1e-10, iterations: int = 50) -> Tensor:
        """A first state (1, n) of a nonlinear evolution, by Newton's method in each step from the state before it.

        Where the method fails, the march goes on from its last iterate: the result is only a start for the equations of
        all steps at once, and its residual is checked there.
        """
        levels = self._levels(self.embed(self.lift.new_zeros(1, self.unknowns), v)[0]).clone()
        mass = self.mass_at(v)
        rows, free = self.rows.spread(v), self._spatial
        integrals = [integral.with_controls(rows) for integral in self.integrals]
        for k in range(self.steps):
            own = tuple(integral.row(k) for integral in integrals)
            theta = self.theta if k or self.first is None else self.first
            step = _Step(self, mass.row(k), own, levels[k], levels[k + 1], theta)
            levels[k + 1, free] = newton(step.residual, step.solver, levels[k, free], rtol, iterations).solution
        return levels[1:, free].reshape(1, -1)

    def _constant(self, full: Tensor, v: Tensor, derivative: Linearisation) -> Tensor:
        return self._residual(full, v)

    @property
    def stiffness(self) -> None:
        """J has blocks of its own for the steps in time."""
        return None

    def _linearise(self, full: Tensor, v: Tensor) -> Linearisation:
        state, control, blocks = self._assemble(self._stages(full), v)
        direct = None if control is None else control.scaled(self.step)
        if self.inertia is not None:
            direct = self._changed_inertia(full, v, direct)
        mass = self.mass_at(v)
        diagonal = mass + self.at_end(state, self._share)
        below = mass.scaled(-1.0)
        if self.theta < 1.0:
            below = below + self.at_start(state, self._share)
        free, every, cut = self.spatial_free, np.arange(self._width), self._cuts.of
        matrix = BidiagonalMatrix(cut(diagonal, free, free), cut(below, free, free), self.steps, self.kept)
        entering = None if direct is None else direct.restrict(free, np.arange(self.rows.width))
        derivative = ControlDerivative(self.rows, entering)
        if self.data is not None:
            through = LevelMatrix(diagonal.restrict(free, every), below.restrict(free, every), self.steps)
            derivative = ControlDerivative(self.rows, entering, through, self.data.at(v))
        return Linearisation(Jacobian(matrix, lambda: state, self.counts, self.solver), derivative, lambda: blocks)

    def _changed_inertia(self, full: Tensor, v: Tensor, direct: ScenarioMatrix | None) -> ScenarioMatrix | None:
        """The derivative `direct` by the controls plus the derivative of M (u_k - u_{k-1})."""
        inertia = self.inertia
        assert inertia is not None and inertia.control_evaluation is not None
        levels, controls = self._levels(full), inertia.control_values(self.rows.spread(v))
        blocks = inertia.control_blocks(inertia.evaluation.evaluate(levels[1:] - levels[:-1]), controls)
        return added(direct, inertia.evaluation.assemble(inertia.control_evaluation, blocks)) if blocks else direct

    def second_parts(self, full: Tensor, v: Tensor, w: Tensor, step: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        state, control = super().second_parts(full, v, w, step, dv)
        if self.inertia is None:
            return state, control
        inertia, evaluate = self.inertia, self.inertia.evaluation.evaluate
        levels, moves = self._levels(full), self._levels(step)
        for_state, for_control = inertia.second_derivative(
            evaluate(levels[1:] - levels[:-1]),
            inertia.control_values(self.rows.spread(v)),
            evaluate(self._tests(w)) / self.step,
            evaluate(moves[1:] - moves[:-1]),
            inertia.control_values(self.rows.spread(dv)),
        )
        if for_state is not None:
            tested = inertia.evaluation.test(for_state)
            none = torch.zeros_like(tested[:1])
            state = state + (torch.cat([none, tested]) - torch.cat([tested, none])).reshape(1, -1)
        if for_control is not None:
            control = control + self.rows.gather(inertia.control_test(for_control))
        return state, control

    @property
    def fields(self) -> int:
        """The number of fields under the time derivative with a capacity, which are all fields of such an equation."""
        return self.integrals[0].evaluation.fields


def capacity_matrix(
    cells: EvaluationOperator, derived: Sequence[int], capacity: Tensor, carrier: Tensor | None = None
) -> ScenarioMatrix:
    """The matrix of int capacity u (phi + carrier . grad phi).

    Args:
        derived: for the first test functions, field by field, the number of the field u.
        capacity: (P,) or (steps, P).
        carrier: (dim, 1 or steps, P); None for zero, with which this is a mass matrix.
    """
    shape, stride = cells.quadrature.weights.shape, cells.stride
    places = [(k * stride, field * stride) for k, field in enumerate(derived)]
    blocks = {place: capacity.reshape(-1, *shape) for place in places}
    if carrier is not None:
        weighted = (carrier * capacity).reshape(len(carrier), -1, *shape)
        blocks |= {(i + 1 + j, k): each for i, k in places for j, each in enumerate(weighted)}
    mutual = all((k, i) in places for i, k in places)
    return cells.assemble(cells, blocks, symmetric=carrier is None and mutual)


def inertia(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, None]:
    """The form int capacity u phi of all fields."""
    return c["capacity"] * u, None


@dataclass(frozen=True, eq=False)
class _Step:
    """The equation of one step for the unknowns (n of a step,) at its end, with M and the integrals of this step.

    `before` are all coefficients at the beginning of the step, and `given` those at its end that are not unknowns.
    """

    equation: EvolutionEquation
    mass: ScenarioMatrix
    integrals: tuple[Integral, ...]
    before: Tensor
    given: Tensor
    theta: float

    def residual(self, u: Tensor) -> Tensor:
        equation = self.equation
        equation.counts.residuals += 1
        after, stage = self._end_and_stage(u)
        total = self.mass.mv((after - self.before)[None])
        for integral in self.integrals:
            density = integral.density(integral.evaluation.evaluate(stage), None)
            total = total + equation.step * integral.evaluation.test(density)
        return total[0, equation._spatial]

    def solver(self, u: Tensor) -> Callable[[Tensor], Tensor]:
        equation = self.equation
        (_, stage), total = self._end_and_stage(u), self.mass
        for integral in self.integrals:
            test = integral.evaluation
            blocks = integral.state_blocks(test.evaluate(stage), None)
            total = total + equation.at_end(test.assemble(test, blocks, equation.symmetric_steps), self.theta)
        free = equation.spatial_free
        matrix = equation._cuts.of(total, free, free)
        factors = Factorisation(matrix.host(), equation.counts, total.symmetric, equation.solver)
        return lambda b: factors.solve(b[None])[0]

    def _end_and_stage(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients at the end of the step, and those (1, size) at which the integrals are evaluated."""
        after = self.given.clone()
        after[self.equation._spatial] = u
        stage = torch.lerp(self.before, after, self.theta)
        if self.equation.multipliers is not None:
            stage = self.equation._with_ends(stage, after)
        return after, stage[None]
