"""Weak forms: pointwise functions, integrated over the cells or over a part of the boundary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from ..fem.pattern import Blocks
from .derivatives import gradient_along, leaves
from .ranges import Guard

Coefficients = Mapping[str, Tensor]
_Found = dict[tuple[int, int], Tensor]

# (u, grad, coefficients, x) -> (f0, f1), the integrand f0 phi + f1 . grad phi of the residual. A state of one field has
# values u (S, P) and gradients grad (dim, S, P); a state of several fields has values (fields, S, P) and gradients
# (fields, dim, S, P). Coefficients broadcast against (S, P), and x (dim, P) are the points. f1 is None where the
# gradient of the test function does not appear, as on a boundary.
Pointwise = Callable[[Tensor, Tensor, Coefficients, Tensor], tuple[Tensor, Tensor | None]]

# (coefficients, control values (R, P)) -> coefficients: how a control enters them.
ControlMap = Callable[[Coefficients, Tensor], Coefficients]


@dataclass(frozen=True)
class ClosedForm:
    """The parts of an integrand that is affine in (u, grad u), so that nothing has to be differentiated.

    Attributes:
        blocks: (coefficients, dim) -> (component of the test function, component of u) -> factor (rows, P).
        load: coefficients -> the factor (rows, P) of phi where u and grad u vanish; the factor of grad phi is zero
            there.
    """

    blocks: Callable[[Coefficients, int], dict[tuple[int, int], Tensor]]
    load: Callable[[Coefficients], Tensor]


@dataclass(frozen=True, eq=False)
class Integral:
    """One integral of a residual: int f0(u, v) phi + f1(u, v) . grad phi.

    The S rows are scenarios, or the time steps of an evolution.

    Attributes:
        evaluation: every function of the state space, at the quadrature points of the region.
        form: the integrand.
        coefficients: name -> values at the points, (P,), (1, P) or (S, P), with leading axes for vectors and matrices.
        controls: the map into the coefficients of each control that acts here.
        control_evaluation: the functions of these controls at the same points, one field for each control; its columns
            are those of all controls of the equation.
        closed: the same integrand in closed form; None where it is not affine or has no closed form.
        guard: the ranges of the coefficients that controls change; None where all their values are admissible.
        name: name of the region in messages, such as `on right`; empty for the cells.
        scale: name of a scalar coefficient in which the part of the integrand with u is affine, and which the rest does
            not contain; empty where there is none or it is not known.
        flux_blocks: as `ClosedForm.blocks`, the derivative of f1 alone, which depends on nothing but the coefficients
            where it is linear in (u, grad u); None where it is not, or not known.
    """

    evaluation: EvaluationOperator
    form: Pointwise
    coefficients: Coefficients
    controls: tuple[ControlMap, ...] = ()
    control_evaluation: EvaluationOperator | None = None
    closed: ClosedForm | None = None
    guard: Guard | None = None
    name: str = ""
    scale: str = ""
    flux_blocks: Callable[[Coefficients, int], dict[tuple[int, int], Tensor]] | None = None

    def refusal(self, rows: Tensor) -> str:
        """A sentence on a coefficient that leaves its range at controls (R, columns); empty where there is none."""
        if self.guard is None:
            return ""
        with torch.enable_grad():
            controls = self.control_values(rows)
            assert controls is not None
            controls = controls.detach().requires_grad_(True)
            after = self._entered(controls)
            return self.guard.refusal(self.coefficients, after) or self.guard.steep(self.coefficients, after, controls)

    def guarded_values(self, rows: Tensor) -> dict[str, Tensor]:
        """The values (n,) of the coefficients that controls (R, columns) change, by their keys in the problem file."""
        if self.guard is None:
            return {}
        return self.guard.values(self.coefficients, self.entered(rows))

    def entered(self, rows: Tensor) -> Coefficients:
        """The coefficients with control coefficients (R, columns)."""
        return self._entered(self.control_values(rows))

    def row(self, k: int) -> Integral:
        """This integral with the coefficients of row k."""

        def own(values: Tensor) -> Tensor:
            return values if values.ndim < 2 else values.narrow(-2, min(k, values.shape[-2] - 1), 1)

        return replace(self, coefficients={name: own(values) for name, values in self.coefficients.items()})

    def piece(self, first: int, end: int) -> Integral:
        """This integral over the elements from `first` to before `end` alone."""
        whole, points = self.evaluation.quadrature.points, self.evaluation.quadrature.weights.shape[1]

        def own(values: Tensor) -> Tensor:
            return values[..., first * points : end * points] if values.shape[-1:] == (whole,) else values

        return replace(
            self,
            evaluation=self.evaluation.piece(first, end),
            coefficients={name: own(values) for name, values in self.coefficients.items()},
            control_evaluation=None if self.control_evaluation is None else self.control_evaluation.piece(first, end),
        )

    def with_controls(self, rows: Tensor) -> Integral:
        """This integral with fixed control coefficients (R, columns), which become coefficients of the integral."""
        return replace(self, coefficients=self.entered(rows), controls=(), control_evaluation=None)

    def _entered(self, controls: Tensor | None) -> Coefficients:
        """The coefficients with control values (controls, R, P)."""
        coefficients = self.coefficients
        if controls is not None:
            for enter, values in zip(self.controls, controls, strict=True):
                coefficients = enter(coefficients, values)
        return coefficients

    def density(self, state: Tensor, controls: Tensor | None) -> Tensor:
        """The integrand (components, S, P) at a state (components, S, P) and control values (controls, R, P)."""
        u, grad = self._u_and_grad(state)
        value, flux = self.form(u, grad, self._entered(controls), self.x)
        flux = torch.zeros_like(grad) if flux is None else flux.expand(grad.shape)
        axis = u.ndim - 2
        return torch.cat([value.expand(u.shape).unsqueeze(axis), flux], dim=axis).reshape(state.shape)

    @cached_property
    def x(self) -> Tensor:
        """(dim, P) the points, which an integral keeps whose integrand is evaluated again and again.

        An integrand with a closed form, which knows no points, gets none, (dim, 0): it does not depend on them.
        """
        quadrature = self.evaluation.quadrature
        return quadrature.flat if self.closed is None else quadrature.weights.new_empty(quadrature.dim, 0)

    def _u_and_grad(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The values and the gradients in a state (components, S, P), as a `Pointwise` takes them."""
        fields = state.reshape(self.evaluation.fields, -1, *state.shape[1:])
        fields = fields[0] if len(fields) == 1 else fields.movedim(1, 0)
        return fields[0], fields[1:] if fields.ndim == 3 else fields[1:].movedim(0, 1)

    @property
    def controlled(self) -> bool:
        """Whether controls act in this integral."""
        return self.control_evaluation is not None and bool(self.controls)

    def control_values(self, rows: Tensor) -> Tensor | None:
        """Control coefficients (R, columns) at the points, (controls, R, P); the last ones with one row are kept."""
        if self.control_evaluation is None or not self.controls:
            return None
        if not (self._last_controls and torch.equal(self._last_controls[0][0], rows)):
            found = self.control_evaluation.values(rows)
            if len(rows) > 1:
                return found
            self._last_controls[:] = [(rows.clone(), found)]
        return self._last_controls[0][1]

    @cached_property
    def _last_controls(self) -> list[tuple[Tensor, Tensor]]:
        return []

    def state_blocks(self, state: Tensor, controls: Tensor | None) -> Blocks:
        """dF/d(u, grad u) at the points, block by block, without zero blocks."""
        return self._derivatives(state, controls, True, False)[0]

    def control_blocks(self, state: Tensor, controls: Tensor | None) -> Blocks:
        """dF/dv at the points."""
        return self._derivatives(state, controls, False, controls is not None)[1]

    def blocks(self, state: Tensor, controls: Tensor | None, acts: bool) -> tuple[Blocks, Blocks]:
        """`state_blocks`, and `control_blocks` where they are wanted, from one evaluation of the integrand."""
        return self._derivatives(state, controls, True, acts and controls is not None)

    def control_test(self, densities: Tensor) -> Tensor:
        """Integrates densities (controls, R, P) against the functions of the controls: (R, columns)."""
        assert self.control_evaluation is not None
        whole = densities.new_zeros(self.control_evaluation.components, *densities.shape[1:])
        whole[:: self.evaluation.stride] = densities
        return self.control_evaluation.test(whole)

    def second_derivative(
        self, state: Tensor, controls: Tensor | None, tests: Tensor, state_step: Tensor, control_step: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The derivatives of dF/d(state, controls)^T tests in a direction (state_step, control_step), at the points.

        State and controls are values as in `density`, and the test function has values (components, S, P).

        Returns:
            (components, S, P), and (controls, R, P) summed over the scenarios; None where a derivative vanishes.
        """
        with torch.enable_grad():
            at = leaves([each for each in (state, controls) if each is not None])
            value = self.density(at[0], at[1] if len(at) > 1 else None)
            steps = [each for each in (state_step, control_step) if each is not None]
            second = gradient_along((value * tests).sum(), at, steps)
        return second[0], second[1] if len(second) > 1 else None

    def closed_blocks(self) -> Blocks:
        """dF/d(u, grad u) in closed form without controls, without zero blocks."""
        assert self.closed is not None
        return self._nonzero(self.closed.blocks(self.coefficients, self.evaluation.quadrature.dim))

    def _nonzero(self, found: dict[tuple[int, int], Tensor]) -> Blocks:
        """Factors (rows, P) as blocks, without those that are zero."""
        shape = self.evaluation.quadrature.weights.shape
        # A coefficient may stand in several blocks.
        each = {id(block): block for block in found.values()}
        nonzero = {key: bool(torch.count_nonzero(block)) for key, block in each.items()}
        return {key: block.reshape(-1, *shape) for key, block in found.items() if nonzero[id(block)]}

    def closed_control_blocks(self, rows: int) -> Blocks:
        """dF/dv of an integrand in closed form that is affine in the state and the controls together, in some rows."""
        assert self.closed is not None
        found: _Found = {}
        quadrature = self.evaluation.quadrature
        with torch.enable_grad():
            (controls,) = leaves([quadrature.weights.new_zeros(len(self.controls), rows, quadrature.points)])
            load = self.closed.load(self._entered(controls)).expand(rows, -1)
        every = range(0, self.evaluation.stride * len(controls), self.evaluation.stride)
        self._differentiate([(0, load)], [controls], [(found, every)])
        return found

    def closed_load(self) -> Tensor:
        """The integral at the zero state without controls, tested with every function; (rows, size)."""
        assert self.closed is not None
        load = self.closed.load(self.coefficients).reshape(-1, self.evaluation.quadrature.points)
        if not torch.count_nonzero(load):
            return load.new_zeros(1, self.evaluation.size)
        total = load.new_zeros(len(load), self.evaluation.size)
        points = self.evaluation.quadrature.weights.shape[1]
        for first, end in self.evaluation.pieces():
            own = load[:, first * points : end * points]
            density = own.new_zeros(self.evaluation.components, *own.shape)
            density[0] = own
            total += self.evaluation.piece(first, end).test(density)
        return total

    def _derivatives(
        self, state: Tensor, controls: Tensor | None, by_state: bool, by_control: bool
    ) -> tuple[Blocks, Blocks]:
        # The integrand acts point by point. So one backward pass for each component of the integrand, with a constant
        # cotangent, gives a row of the derivatives at all points. Reverse mode is used because the first use of
        # torch.func or of forward mode imports torch's compiler, which takes a second. Values and gradients are leaves
        # of their own, so that nothing is computed for those that a component does not depend on.
        stride = self.evaluation.stride
        values = range(0, len(state), stride)
        gradients = [i for i in range(len(state)) if i % stride]
        u, grad = self._u_and_grad(state)
        at: list[Tensor] = []
        columns: list[tuple[_Found, Sequence[int]]] = []
        found: tuple[_Found, _Found] = ({}, {})
        with torch.enable_grad():
            if by_state:
                u, grad = at = leaves([u, grad])
                columns = [(found[0], values), (found[0], gradients)]
            if by_control and controls is not None:
                # All scenarios have the same control, but each has its own derivative.
                (controls,) = leaves([controls.expand(-1, state.shape[1], -1)])
                at, columns = [*at, controls], [*columns, (found[1], range(0, stride * len(controls), stride))]
            coefficients = self._entered(controls)
            value, flux = self.form(u, grad, coefficients, self.x)
            known = {} if self.flux_blocks is None else self.flux_blocks(coefficients, stride - 1)
            if known and not any(block.requires_grad for block in known.values()):
                found[0].update(self._nonzero(known) if by_state else {})
                flux = None
            self._differentiate(zip(values, _split(value.expand(u.shape)), strict=True), at, columns)
            if flux is not None:
                self._differentiate(zip(gradients, _split(flux.expand(grad.shape)), strict=True), at, columns)
        return found

    def _differentiate(
        self,
        rows: Iterable[tuple[int, Tensor]],
        at: Sequence[Tensor],
        columns: Sequence[tuple[_Found, Sequence[int]]],
    ) -> None:
        """Enter the blocks of some numbered components by leaves; for each leaf their place and their columns."""
        shape = self.evaluation.quadrature.weights.shape
        for i, component in rows:
            if not component.requires_grad:
                continue
            # A given cotangent would import torch's symbolic shapes, which takes a second; that of a sum is the same.
            derivatives = torch.autograd.grad(component.sum(), at, retain_graph=True, allow_unused=True)
            for derivative, (blocks, numbers) in zip(derivatives, columns, strict=True):
                for j, entry in zip(numbers, () if derivative is None else _split(derivative), strict=False):
                    if torch.count_nonzero(entry):
                        blocks[i, j] = _packed(entry).reshape(-1, *shape)


def _split(values: Tensor) -> Tensor:
    """Values (..., S, P) -> (components, S, P)."""
    return values.reshape(-1, *values.shape[-2:])


def _packed(values: Tensor) -> Tensor:
    """The same values, as one number in memory where they are all equal; the first values are compared first."""
    first = values.reshape(-1)[:1]
    if any(bool((each != first).any()) for each in (values[..., :64], values)):
        return values
    return first.clone().expand(values.shape)
