"""Equations that evolve in time, all steps at once.

    M (u_k - u_{k-1}) + dt F(theta u_k + (1 - theta) u_{k-1}, v_k) = 0,   k = 1, ..., steps

M is the mass matrix of the terms under the time derivative, F the sum of the integrals, taken at the time
t_{k-1} + theta dt. theta = 1 is the implicit Euler method, theta = 1/2 the implicit midpoint rule, which for linear
equations with constant coefficients is the method of Crank and Nicolson. Controls that vary in time are constant in
each step, so that what is optimised is exactly what is solved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..linalg.bidiagonal import BidiagonalMatrix
from ..linalg.sparse import ScenarioMatrix, SparseMatrix
from .equation import Jacobian, Linearisation, StateEquation
from .rows import ControlRows


@dataclass(frozen=True, eq=False)
class EvolutionEquation(StateEquation):
    """A state equation whose unknowns are the free coefficients at the times t_1, t_2, ...

    All coefficients (N,) are those at t_0, t_1, ..., each of the size of the state space; those at t_0 are initial
    values. Rows of the integrals are steps in time. One scenario.

    Attributes:
        mass: M, one matrix (size of the space, the same).
        theta: in (0, 1].
        step: dt.
    """

    mass: ScenarioMatrix | None = None
    theta: float = 1.0
    step: float = 1.0

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

    @property
    def stage_times(self) -> np.ndarray:
        """Times at which the integrals are taken."""
        return (np.arange(self.steps) + self.theta) * self.step

    def _levels(self, full: Tensor) -> Tensor:
        return full.reshape(self.steps + 1, self._width)

    def _stages(self, full: Tensor) -> Tensor:
        levels = self._levels(full)
        if self.theta == 1.0:
            return levels[1:]
        return self.theta * levels[1:] + (1.0 - self.theta) * levels[:-1]

    def _stages_transposed(self, covector: Tensor) -> Tensor:
        after = torch.cat([torch.zeros_like(covector[:1]), self.theta * covector])
        before = torch.cat([(1.0 - self.theta) * covector, torch.zeros_like(covector[:1])])
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

    def march(self, v: Tensor, rtol: float = 1e-8, iterations: int = 30) -> Tensor:
        """A state (1, n) by Newton's method step by step; as far as it goes, the last step's values from there on."""
        assert self.mass is not None
        full = self.embed(self.lift.new_zeros(1, self.unknowns), v)
        levels = self._levels(full).clone()
        for k in range(self.steps):
            alone = self._single_step(k)
            start = levels[k : k + 2].clone()
            start[1, self._spatial] = levels[k, self._spatial]
            u, moved = start[1, self._spatial][None], math.inf
            for _ in range(iterations):
                pair = start.reshape(1, -1).clone()
                pair[0, self._width + self._spatial] = u[0]
                row = self.rows.spread(v)
                piece = row[min(k, len(row) - 1)]
                residual = alone._residual(pair, piece)
                step = alone._linearise(pair, piece).factors.solve(residual)
                moved = float(step.norm())
                if not math.isfinite(moved):
                    break
                u = u - step
                if moved <= rtol * float(u.norm()):
                    break
            if math.isfinite(moved):
                levels[k + 1, self._spatial] = u[0]
            else:
                levels[k + 1, self._spatial] = levels[k, self._spatial]
        return levels[1:, self._spatial].reshape(1, -1)

    def _single_step(self, k: int) -> EvolutionEquation:
        """The equation of one step, from level k, with the controls of that step."""
        return replace(
            self,
            integrals=tuple(integral.row(k) for integral in self.integrals),
            size=2 * self._width,
            rows=ControlRows((self.rows.width,), (False,), 1),
            free=self._width + self.spatial_free,
            lift=self.lift[k * self._width : (k + 2) * self._width],
            data=None,
            counts=self.counts,
        )

    def _linearise(self, full: Tensor, v: Tensor) -> Linearisation:
        assert self.mass is not None
        state, control, blocks = self._assemble(self._stages(full), v)
        diagonal = self.mass + state.scaled(self.theta * self.step)
        below = self.mass.scaled(-1.0)
        if self.theta < 1.0:
            below = below + state.scaled((1.0 - self.theta) * self.step)
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
