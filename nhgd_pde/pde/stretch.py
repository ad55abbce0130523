"""A stretch of an evolution: some steps in a row, with the state and its derivative carried from their start to their
end.

With u_k the coefficients of the state and Z_k = du_k/dv, a step

    R_k(u_k, u_{k-1}, v) = 0   gives   D_k Z_k = -(B_k Z_{k-1} + dR_k/dv),   D_k = dR_k/du_k,   B_k = dR_k/du_{k-1}

(forward-mode differentiation, as in Micaelli and Storkey 2021, arXiv 2007.07869). Nothing of the steps before a
stretch is needed but u and Z at its start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..linalg.corrected_solves import refined
from ..linalg.factorisation import SingularMatrixError
from .evolution import EvolutionEquation
from .linearisation import Linearisation
from .rows import ControlRows

# The relative length of a Newton correction after which the next one would be a rounding error, and the largest number
# of corrections.
_CORRECTION = 1e-10
_MOST_STEPS = 20


@dataclass(frozen=True)
class Excerpt:
    """The part of the controls of a whole evolution that acts in some of its steps.

    Attributes:
        whole: the layout of the controls v (p,) of the evolution.
        before: the number of steps before these.
        steps: the number of these steps.
    """

    whole: ControlRows
    before: int
    steps: int

    @cached_property
    def indices(self) -> Tensor:
        """(p of these steps,) for every entry of the controls of these steps, the entry of v that it equals."""
        found = []
        layout = zip(self.whole.offsets, self.whole.columns, self.whole.copies, self.whole.varying, strict=False)
        steps = torch.arange(self.before, self.before + self.steps)
        for first, columns, copies, varies in layout:
            own = steps * copies // self.whole.steps if varies else torch.zeros(1, dtype=torch.int64)
            found.append((first + own[:, None] * columns + torch.arange(columns)).reshape(-1))
        return torch.cat(found)

    def local(self, v: Tensor) -> Tensor:
        """The controls (..., p) of the evolution -> those of these steps, with a value in every step."""
        return v[..., self.indices.to(v.device)]

    def gathered(self, covector: Tensor) -> Tensor:
        """The transpose of `local`, of one covector."""
        return covector.new_zeros(self.whole.size).index_add(0, self.indices.to(covector.device), covector)

    @property
    def acting(self) -> Tensor:
        """The entries of v that act in these steps, sorted."""
        return self.indices.unique()

    @property
    def begun(self) -> Tensor:
        """The entries of v that act in these steps or before them, sorted; the state depends on no others."""
        last = self.before + self.steps - 1
        layout = zip(self.whole.offsets, self.whole.columns, self.whole.copies, strict=False)
        ends = ((first, columns * (last * copies // self.whole.steps + 1)) for first, columns, copies in layout)
        return torch.cat([torch.arange(first, first + count) for first, count in ends])


@dataclass(frozen=True)
class Passage:
    """The passage through a stretch.

    Attributes:
        levels: (steps + 1, N) coefficients of the state at the start and at the end of each step.
        derivatives: (p, steps + 1, N) their derivatives by v.
        state_error: the norm of the residual, relative to those of its parts.
        derivative_error: the same of the equations of the derivatives, the largest one.
    """

    levels: Tensor
    derivatives: Tensor
    state_error: float
    derivative_error: float


@dataclass(frozen=True, eq=False)
class Stretch:
    """Some steps of an evolution.

    Attributes:
        equation: of these steps; no coefficient of the state at their start follows from controls.
        excerpt: the controls in these steps.
    """

    equation: EvolutionEquation
    excerpt: Excerpt

    def passed(self, v: Tensor, start: Tensor, derivative: Tensor) -> Passage:
        """The states of all steps and their derivatives, from the state (N,) and its derivative (p, N) at the start.

        Raises:
            InadmissibleError: a coefficient leaves its range at the controls v (p,).
            SingularMatrixError: the matrix of a step is singular.
        """
        controls, width = self.excerpt.local(v), len(start)
        here = self.starting(start)
        u, linear = self._solved(here, controls)
        load = here.integrated(torch.zeros_like(u), controls)
        error = _relative(here.integrated(u, controls), linear.state.mv(u), load)
        levels = here.embed(u).reshape(-1, width)
        columns = self.excerpt.begun
        carried = derivative.new_zeros(len(derivative), len(levels), width)
        carried[:, 0] = derivative
        found, worst = self._derivatives(linear, controls, derivative[columns], columns)
        steps = carried[columns]
        steps[:, 1:, self._spatial] = found
        carried[columns] = steps
        return Passage(levels, carried, error, worst)

    def starting(self, start: Tensor) -> EvolutionEquation:
        """The equation of these steps with the state (N,) at their start."""
        lift = self.equation.lift.clone()
        lift[: len(start)] = start
        return replace(self.equation, lift=lift)

    def states(self, v: Tensor, start: Tensor) -> Tensor:
        """(steps, N) the states at the ends of the steps, from the state (N,) at the start.

        Raises:
            InadmissibleError, SingularMatrixError: as of `passed`.
        """
        controls, here = self.excerpt.local(v), self.starting(start)
        u, _ = self._solved(here, controls)
        return here.embed(u, controls)[0, len(start) :].reshape(-1, len(start)).clone()

    def linearised(self, here: EvolutionEquation, u: Tensor, controls: Tensor) -> Linearisation:
        """The derivatives at unknowns (1, n); those of an affine equation belong to every state at the start."""
        known = self._from_zero if here.affine else here
        return known.linearise(u, controls)

    def residual(self, here: EvolutionEquation, u: Tensor, controls: Tensor) -> Tensor:
        """R (1, n); that of an affine equation by products with its matrices."""
        if not here.affine:
            return here.integrated(u, controls)
        own, free = self._from_zero, self._spatial
        found = own.residual(u, controls).clone()
        start = here.lift[: self._width]
        found[:, : len(free)] += own.before(controls, own.constant_linearisation).mv(start[None])[:, free]
        return found

    @cached_property
    def _from_zero(self) -> EvolutionEquation:
        """The equation with the state zero at the start, beside which other states may be arbitrarily small."""
        return self.starting(self.equation.lift.new_zeros(self._width))

    @cached_property
    def _spatial(self) -> Tensor:
        return torch.from_numpy(np.asarray(self.equation.spatial_free, dtype=np.int64))

    def _solved(self, here: EvolutionEquation, controls: Tensor) -> tuple[Tensor, Linearisation]:
        """The unknowns (1, n) and the derivatives of the equation there."""
        zero = here.lift.new_zeros(1, here.unknowns)
        if not here.linear:
            u = self._nonlinear(here, controls)
            return u, here.linearise(u, controls)
        # The factors of an affine equation belong to every state at the start, and to all passages.
        known = self.linearised(here, zero, controls)
        u, before = zero, math.inf
        for k in range(_MOST_STEPS):
            change = known.factors.solve(self.residual(here, u, controls))
            u, length = u - change, float(change.norm())
            # The second correction removes rounding errors; more of them are for solves that are rough.
            if k > 0 and not _CORRECTION * float(u.norm()) < length <= 0.5 * before:
                break
            before = length
        return u, known if here.affine else here.linearise(u, controls)

    def _nonlinear(self, here: EvolutionEquation, controls: Tensor) -> Tensor:
        """The unknowns (1, n) by Newton's method for all steps at once, from the state at the start.

        Over a stretch the state changes little. Where the corrections do not shrink, each step is solved by itself.
        """
        u = here.restrict(here.lift[: self._width].repeat(here.steps + 1)[None])
        before = math.inf
        for _ in range(_MOST_STEPS):
            try:
                linear = here.linearise(u, controls)
                change, _ = refined(linear.factors.solve, linear.state.mv, here.integrated(u, controls))
            except SingularMatrixError:
                break
            length = float(change.norm())
            if not length <= 0.5 * before:
                break
            u, before = u - change, length
            if length <= _CORRECTION * float(u.norm()):
                return u
        return here.march(controls, rtol=_CORRECTION)

    @property
    def _width(self) -> int:
        return len(self.equation.lift) // (self.equation.steps + 1)

    def _derivatives(
        self, linear: Linearisation, controls: Tensor, start: Tensor, columns: Tensor
    ) -> tuple[Tensor, float]:
        """(columns, steps, free coefficients) the derivatives by some entries of v, and their largest relative error.

        Args:
            start: (columns, N) the derivatives at the start.
        """
        equation, count = self.equation, len(columns)
        right = start.new_zeros(count, equation.unknowns)
        unit = torch.zeros(self.excerpt.whole.size, dtype=start.dtype, device=start.device)
        acting = set(self.excerpt.acting.tolist())
        for k, column in enumerate(columns.tolist()):
            if column in acting:
                unit[column] = 1.0
                right[k] = -linear.control.mv(self.excerpt.local(unit))[0]
                unit[column] = 0.0
        free, below = self._spatial, equation.before(controls, linear)
        right[:, : len(free)] -= below.mv(start[:, None])[:, 0][:, free]
        found, residual = refined(linear.factors.solve, linear.state.mv, right)
        left = residual.norm(dim=1)
        errors = [_quotient(a, b) for a, b in zip(left.tolist(), right.norm(dim=1).tolist(), strict=True)]
        return found.reshape(count, equation.steps, -1), max(errors, default=0.0)


def _relative(residual: Tensor, *parts: Tensor) -> float:
    """The norm of a residual relative to those of its parts; NaN where it is not finite."""
    return _quotient(float(residual.norm()), sum(float(part.norm()) for part in parts))


def _quotient(part: float, whole: float) -> float:
    if not math.isfinite(part):
        return math.nan
    return part / whole if whole > 0.0 else (0.0 if part == 0.0 else math.inf)
