"""Equations that evolve in time, all steps at once.

    M (u_k - u_{k-1}) + dt F(theta u_k + (1 - theta) u_{k-1}, v_k) = 0,   k = 1, ..., steps

M is the mass matrix of the terms under the time derivative, F the sum of the integrals, taken at the time
t_{k-1} + theta dt. theta = 1 is the implicit Euler method, theta = 1/2 the implicit midpoint rule, which for linear
equations with constant coefficients is the method of Crank and Nicolson. Controls that vary in time are constant in
each step, so that what is optimised is exactly what is solved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..linalg.bidiagonal import BidiagonalMatrix
from ..linalg.factorisation import Factorisation
from ..linalg.newton import newton
from ..linalg.sparse import ScenarioMatrix, SparseMatrix
from .equation import StateEquation
from .form import Integral
from .linearisation import Jacobian, Linearisation
from .rows import ControlRows


@dataclass(frozen=True, eq=False)
class EvolutionEquation(StateEquation):
    """A state equation whose unknowns are the free coefficients at the times t_1, t_2, ...

    All coefficients (N,) are those at t_0, t_1, ..., each of the size of the state space; those at t_0 are initial
    values. Rows of the integrals are steps in time. One scenario.

    Attributes:
        mass: M (size of the space, the same), one matrix or one a step.
        symmetric_steps: the derivatives of the integrals are symmetric; J is not.
        theta: in (0, 1].
        first: theta of the first step; None for the same.
        step: dt.
    """

    mass: ScenarioMatrix | None = None
    theta: float = 1.0
    first: float | None = None
    step: float = 1.0
    symmetric_steps: bool = False

    @property
    def _symmetric_integrals(self) -> bool:
        return self.symmetric_steps

    @property
    def steps(self) -> int:
        return self.rows.steps

    @property
    def repeats(self) -> int:
        return self.steps

    @property
    def measure(self) -> float:
        return self.step

    @property
    def _width(self) -> int:
        return self.size // (self.steps + 1)

    @cached_property
    def spatial_free(self) -> np.ndarray:
        """Unknowns of one step."""
        return self.free[: len(self.free) // self.steps] - self._width

    @cached_property
    def _share(self) -> Tensor | float:
        """theta of every step, (steps, 1); one number where it is the same."""
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
        return self._share * levels[1:] + (1.0 - self._share) * levels[:-1]

    def _stages_transposed(self, covector: Tensor) -> Tensor:
        after = torch.cat([torch.zeros_like(covector[:1]), self._share * covector])
        before = torch.cat([(1.0 - self._share) * covector, torch.zeros_like(covector[:1])])
        return (after + before).reshape(1, -1)

    def _tests(self, w: Tensor) -> Tensor:
        whole = w.new_zeros(self.steps, self._width)
        whole[:, self._spatial] = self.step * w.reshape(self.steps, -1)
        return whole

    @cached_property
    def _spatial(self) -> Tensor:
        return torch.from_numpy(np.asarray(self.spatial_free, dtype=np.int64)).to(self.lift.device)

    def _residual(self, full: Tensor, v: Tensor) -> Tensor:
        assert self.mass is not None
        levels = self._levels(full)
        total = self.mass.mv(levels[1:] - levels[:-1]) + self.step * self._integrate(self._stages(full), v)
        return total[:, self._spatial].reshape(1, -1)

    def march(self, v: Tensor, rtol: float = 1e-10, iterations: int = 50) -> Tensor:
        """A first state (1, n) of a nonlinear evolution, by Newton's method step by step from the state before.

        A step in which that fails leaves its last iterate, from where the march goes on: what comes of it is a start
        for the equations of all steps at once, whose residual shows what is missing.
        """
        assert self.mass is not None
        levels = self._levels(self.embed(self.lift.new_zeros(1, self.unknowns), v)[0]).clone()
        rows, free = self.rows.spread(v), self._spatial
        integrals = [integral.with_controls(rows) for integral in self.integrals]
        for k in range(self.steps):
            own = tuple(integral.row(k) for integral in integrals)
            theta = self.theta if k or self.first is None else self.first
            step = _Step(self, self.mass.row(k), own, levels[k], levels[k + 1], theta)
            levels[k + 1, free] = newton(step.residual, step.solver, levels[k, free], rtol, iterations).solution
        return levels[1:, free].reshape(1, -1)

    def _constant(self, full: Tensor, v: Tensor, derivative: Linearisation) -> Tensor:
        return self._residual(full, v)

    def _linearise(self, full: Tensor, v: Tensor) -> Linearisation:
        assert self.mass is not None
        state, control, blocks = self._assemble(self._stages(full), v)
        diagonal = self.mass + state.scaled(self._share * self.step)
        below = self.mass.scaled(-1.0)
        if self.theta < 1.0:
            below = below + state.scaled((1.0 - self._share) * self.step)
        free, every = self.spatial_free, np.arange(self._width)
        matrix = BidiagonalMatrix(diagonal.restrict(free, free), below.restrict(free, free), self.steps)
        derivative = EvolutionControlDerivative(
            self.rows,
            None if control is None else control.restrict(free, np.arange(self.rows.width)).scaled(self.step),
            None if self.data is None else (diagonal.restrict(free, every), below.restrict(free, every)),
            self.data,
        )
        return Linearisation(Jacobian(matrix, state, self.counts), derivative, blocks)


@dataclass(frozen=True, eq=False)
class _Step:
    """The equation of one step, for the unknowns (n of a step,) at its end.

    Attributes:
        equation: of all steps.
        mass: M in this step.
        integrals: those of this step, controls included.
        before: (size of the space,) coefficients at its beginning.
        given: (size of the space,) what is given of those at its end.
        theta: of this step.
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
        after = self._end(u)
        stage = self._stage(after)
        total = self.mass.mv((after - self.before)[None])
        for integral in self.integrals:
            density = integral.density(integral.evaluation.evaluate(stage), None)
            total = total + equation.step * integral.evaluation.test(density)
        return total[0, equation._spatial]

    def solver(self, u: Tensor) -> Callable[[Tensor], Tensor]:
        equation = self.equation
        stage, total = self._stage(self._end(u)), self.mass
        for integral in self.integrals:
            test = integral.evaluation
            blocks = integral.state_blocks(test.evaluate(stage), None)
            total = total + test.assemble(test, blocks, equation.symmetric_steps).scaled(self.theta * equation.step)
        free = equation.spatial_free
        factors = Factorisation(total.restrict(free, free).host(), equation.counts, total.symmetric)
        return lambda b: factors.solve(b[None])[0]

    def _end(self, u: Tensor) -> Tensor:
        after = self.given.clone()
        after[self.equation._spatial] = u
        return after

    def _stage(self, after: Tensor) -> Tensor:
        return torch.lerp(self.before, after, self.theta)[None]


@dataclass(frozen=True, eq=False)
class EvolutionControlDerivative:
    """
    Attributes:
        rows: the controls.
        direct: (n of a step, width), what the controls change in each step; None where they do not.
        through: what changes of the coefficients at the end and at the beginning of a step change in it; used with
            `data` only.
        data: (N, p) the coefficients that controls fix.
    """

    rows: ControlRows
    direct: ScenarioMatrix | None
    through: tuple[ScenarioMatrix, ScenarioMatrix] | None
    data: SparseMatrix | None

    def mv(self, d: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        if self.direct is not None:
            total = self.direct.mv(self.rows.spread(d).expand(self.rows.steps, -1))
        if self.data is not None and self.through is not None:
            levels = self.data.mv(d[None]).reshape(self.rows.steps + 1, -1)
            total = total + self.through[0].mv(levels[1:]) + self.through[1].mv(levels[:-1])
        assert isinstance(total, Tensor)
        return total.reshape(1, -1)

    def each_rmv(self, w: Tensor) -> Tensor:
        return self.rmv(w)[None]

    def rmv(self, w: Tensor) -> Tensor:
        steps = w.reshape(self.rows.steps, -1)
        total: Tensor | float = 0.0
        if self.direct is not None:
            total = self.rows.gather(self.direct.rmv(steps))
        if self.data is not None and self.through is not None:
            after, before = self.through[0].rmv(steps), self.through[1].rmv(steps)
            none = torch.zeros_like(after[:1])
            levels = torch.cat([none, after]) + torch.cat([before, none])
            total = total + self.data.rmv(levels.reshape(1, -1))[0]
        assert isinstance(total, Tensor)
        return total
