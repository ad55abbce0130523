"""The discrete state equation R(u, v) = 0: residual, derivatives and their products for all scenarios."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..fem.evaluation import Blocks, Evaluation
from ..linalg.counts import Counts
from ..linalg.factorisation import ScenarioFactorisation
from ..linalg.sparse import ScenarioMatrix
from .form import Integral


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The derivatives of R at one point (u, v).

    Attributes:
        state: J = dR/du, (n, n) a scenario.
        control: R_v = dR/dv, (n, p) a scenario.
        whole: dR/du before Dirichlet rows and columns are cut out, (N, N) a scenario.
        blocks: the derivative of each integrand at its points, of which J is assembled.
        counts: where factorisations and solves are counted.
    """

    state: ScenarioMatrix
    control: ScenarioMatrix
    whole: ScenarioMatrix
    blocks: tuple[Blocks, ...]
    counts: Counts

    @cached_property
    def factors(self) -> ScenarioFactorisation:
        """The factors of every scenario's J, computed once.

        Raises:
            SingularMatrixError: one of them is singular.
        """
        return ScenarioFactorisation(self.state, self.counts)


@dataclass(frozen=True, eq=False)
class StateEquation:
    """R(u, v) = sum of integrals, tested with the free functions of the state space.

    Dirichlet values are condensed: the unknowns are the free coefficients, the others are the constant
    `lift`, and J stays symmetric where the form is.

    Attributes:
        integrals: what R is the sum of; all with the same state space.
        size: N, functions of the state space.
        controls: p.
        free: (n,) indices of the unknowns.
        lift: (N,) Dirichlet values, zero at the unknowns.
        scenarios: S.
        affine: R is affine in (u, v) jointly; its derivatives are then assembled once.
        symmetric: J is symmetric.
        counts: where work is counted.
    """

    integrals: tuple[Integral, ...]
    size: int
    controls: int
    free: np.ndarray
    lift: Tensor
    scenarios: int = 1
    affine: bool = False
    symmetric: bool = False
    counts: Counts = field(default_factory=Counts)

    @property
    def unknowns(self) -> int:
        """n."""
        return len(self.free)

    def embed(self, u: Tensor) -> Tensor:
        """Unknowns (S, n) -> all coefficients (S, N), Dirichlet values included."""
        full = self.lift.expand(u.shape[0], -1).clone()
        full[:, self._free] = u
        return full

    def extend(self, w: Tensor) -> Tensor:
        """A function of the unknowns (S, n) by zero, (S, N)."""
        full = w.new_zeros(w.shape[0], self.size)
        full[:, self._free] = w
        return full

    def restrict(self, covector: Tensor) -> Tensor:
        """A covector (S, N) on the whole space -> (S, n) on the unknowns."""
        return covector[:, self._free]

    @cached_property
    def _free(self) -> Tensor:
        return torch.from_numpy(np.asarray(self.free, dtype=np.int64)).to(self.lift.device)

    @property
    def tests(self) -> tuple[Evaluation, ...]:
        """The free functions of the state space, at the points of each integral."""
        return tuple(integral.evaluation.columns(self.free) for integral in self.integrals)

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        """R(u, v), a dual vector (S, n)."""
        self.counts.residuals += u.shape[0]
        if self.affine:
            derivative, constant = self._affine_parts
            return derivative.state.mv(u) + derivative.control.mv(v.expand(u.shape[0], -1)) + constant
        return self._integrate(u, v)

    def _integrate(self, u: Tensor, v: Tensor) -> Tensor:
        full = self.embed(u)
        total = torch.zeros_like(full)
        for integral in self.integrals:
            density = integral.density(integral.evaluation.evaluate(full), integral.control_values(v))
            total = total + integral.evaluation.test(density)
        return self.restrict(total)

    def linearise(self, u: Tensor, v: Tensor) -> Linearisation:
        """J and R_v at (u, v). Those of the last point are kept, with their factors."""
        if self.affine:
            return self._affine_parts[0]
        for at_u, at_v, derivative in self._last:
            if torch.equal(at_u, u) and torch.equal(at_v, v):
                return derivative
        derivative = self._linearise(u, v)
        self._last[:] = [(u.clone(), v.clone(), derivative)]
        return derivative

    @cached_property
    def _last(self) -> list[tuple[Tensor, Tensor, Linearisation]]:
        return []

    @property
    def constant_linearisation(self) -> Linearisation:
        """The derivatives of an affine equation."""
        return self._affine_parts[0]

    @cached_property
    def _affine_parts(self) -> tuple[Linearisation, Tensor]:
        u = self.lift.new_zeros(self.scenarios, self.unknowns)
        v = self.lift.new_zeros(self.controls)
        return self._linearise(u, v), self._integrate(u, v)

    def _linearise(self, u: Tensor, v: Tensor) -> Linearisation:
        full = self.embed(u)
        state: ScenarioMatrix | None = None
        control: ScenarioMatrix | None = None
        blocks = []
        for integral in self.integrals:
            test = integral.evaluation
            at_points, control_at_points = integral.evaluation.evaluate(full), integral.control_values(v)
            blocks.append(integral.state_blocks(at_points, control_at_points))
            state = _sum(state, test.assemble(test, _shared(blocks[-1]), self.symmetric))
            if integral.control_evaluation is not None:
                part = integral.control_blocks(at_points, control_at_points)
                control = _sum(control, test.assemble(integral.control_evaluation, _shared(part)))
        assert state is not None
        if control is None:
            raise ValueError("the control does not enter the equation")
        # One pattern on the whole space serves every matrix; Dirichlet rows and columns are cut out of it.
        return Linearisation(
            state.restrict(self.free, self.free),
            control.restrict(self.free, np.arange(self.controls)),
            state,
            tuple(blocks),
            self.counts,
        )

    def state_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """J w, (S, n)."""
        self.counts.products += w.shape[0]
        return self.linearise(u, v).state.mv(w)

    def state_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """J^T w, (S, n)."""
        self.counts.products += w.shape[0]
        return self.linearise(u, v).state.rmv(w)

    def control_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """R_v w for a control direction w (p,); (S, n)."""
        return self.linearise(u, v).control.mv(w.expand(u.shape[0], -1))

    def control_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """R_v^T w for w (S, n), summed over the scenarios; (p,)."""
        return self.linearise(u, v).control.rmv(w).sum(0)

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of (J^T w, R_v^T w), w (S, n) held fixed, in the direction (du, dv); (S, n) and (p,)."""
        state, control = torch.zeros_like(self.lift.expand(u.shape[0], -1)), torch.zeros_like(v)
        if self.affine:
            return self.restrict(state), control
        full, step, test = self.embed(u), self.extend(du), self.extend(w)
        for integral in self.integrals:
            evaluate, controls = integral.evaluation.evaluate, integral.control_evaluation
            for_state, for_control = integral.second_derivative(
                evaluate(full), integral.control_values(v), evaluate(test), evaluate(step), integral.control_values(dv)
            )
            if for_state is not None:
                state = state + integral.evaluation.test(for_state)
            if for_control is not None and controls is not None:
                density = for_control.new_zeros(controls.components, *for_control.shape)
                density[0] = for_control
                control = control + controls.test(density)[0]
        return self.restrict(state), control


def _shared(blocks: Blocks) -> Blocks:
    """One scenario for all where the blocks of the scenarios agree, so that one matrix serves them."""
    return {
        key: block[:1] if block.shape[0] > 1 and (block == block[:1]).all() else block for key, block in blocks.items()
    }


def _sum(a: ScenarioMatrix | None, b: ScenarioMatrix) -> ScenarioMatrix:
    return b if a is None else a + b
