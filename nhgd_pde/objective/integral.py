"""Objective terms that are integrals of a pointwise density of state and control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from ..linalg.differences import PointFunction
from ..linalg.sparse import SparseMatrix
from ..pde.derivatives import gradient_along, gradient_of, leaves
from ..pde.pointwise import field_groups
from ..pde.rows import ControlRows

# (u, grad, v, grad_v, x) -> density (S, P). A state of one field has values u (S, P) and gradients grad (dim, S, P);
# with several fields both have a leading axis. For controls these are v (R, P) and grad_v (dim, R, P). x (dim, P) are
# points.
Density = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class IntegralTerm:
    """int density(u, grad u, v, grad v, x): a term of state and control together.

    In time the density is summed over the times of the integrals of the equation.

    Attributes:
        density: the integrand, which is twice differentiable at least almost everywhere.
        evaluation: the functions of the state at the points of the region.
        controls: the functions of the controls at the same points, one field for each control, with the columns of all
            controls; None where the density does not depend on controls.
        rows: maps controls to their values in the time steps.
        weight: (elements, points) factor of the density, zero outside the region.
        stages: (steps * size, N) the map to the coefficients of the state at these times; None in a steady problem.
        measure: length of a time step.
        quadratic: the second derivative is constant.
        name: name in messages.
    """

    density: Density
    evaluation: EvaluationOperator
    controls: EvaluationOperator | None
    rows: ControlRows
    weight: Tensor
    stages: SparseMatrix | None = None
    measure: float = 1.0
    quadratic: bool = False
    name: str = "integral"

    def value(self, u: Tensor, v: Tensor) -> Tensor:
        """(S, N), (p,) -> (S,)."""
        density = self.values(*self._fields(u, v))
        rows = (density * self._weights).sum(-1)
        return rows if self.stages is None else rows.sum().expand(u.shape[0])

    def derivative(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives by u (S, N), and by v (p,) summed over the scenarios."""
        return self._pulled_back(*self._by_fields(*self._fields(u, v)), u, v)

    def derivatives(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives by u (S, N), and by v (S, p) for each scenario."""
        if self.stages is not None:
            state, control = self.derivative(u, v)
            return state, control[None]
        fields = self._fields(u, v)
        # Every scenario has its own copy of the control, so that their derivatives are not summed.
        fields[1:] = [each.expand(-1, u.shape[0], -1) for each in fields[1:]]
        by_state, by_control = self._by_fields(*fields)
        for_u, for_v = self._pulled_back(by_state, None, u, v)
        rows = for_v.expand(u.shape[0], -1)
        if by_control is not None and self.controls is not None:
            rows = self.controls.test(by_control / self.evaluation.quadrature.weights.reshape(-1))
        return for_u, rows

    def _by_fields(self, *fields: Tensor) -> tuple[Tensor | None, Tensor | None]:
        with torch.enable_grad():
            at = leaves(fields)
            total = (self.values(*at) * self._weights).sum()
            if not total.requires_grad:
                return None, None
            return _state_and_control(torch.autograd.grad(total, at, allow_unused=True))

    def second_derivative(self, u: Tensor, v: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        state, control = self._second(self._weights, self._fields(u, v), self._fields(du, dv))
        return self._pulled_back(state, control, u, v)

    def _second(
        self, tests: Tensor, fields: Sequence[Tensor], steps: Sequence[Tensor]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The derivatives of (density * tests).sum() by the fields, differentiated in the direction `steps`."""
        with torch.enable_grad():
            at = leaves(fields)
            return _state_and_control(gradient_along((self.values(*at) * tests).sum(), at, steps))

    @property
    def groups(self) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
        """The groups of values and gradients of state and controls: name, number of the argument, components."""
        groups = field_groups(self.evaluation.components, self.evaluation.stride, 0, "u")
        if self.controls is None:
            return groups
        return groups + field_groups(self.controls.components, self.evaluation.stride, 1, "v")

    def integrand(self, u: Tensor, v: Tensor) -> PointFunction:
        """The density at a state (S, N) and controls (p,) as a function of values at points."""
        state, *controls = self._fields(u, v)
        # Every row has its own copy of the control, so that the derivatives of the rows are not summed.
        at = (state, *(each.expand(-1, state.shape[1], -1) for each in controls))

        def first(steps: tuple[Tensor, ...]) -> Tensor:
            slopes = gradient_of(lambda *each: self.values(*each).sum(), at)
            total = torch.zeros_like(at[0][0])
            for slope, step in zip(slopes, steps, strict=True):
                # The derivative by an argument that does not change may be infinite or NaN, and must not count.
                total = total + torch.where(step == 0.0, 0.0, slope * step).sum(0)
            return total

        def gradient(arguments: tuple[Tensor, ...], tests: Tensor) -> tuple[Tensor, ...]:
            return gradient_of(lambda *each: (self.values(*each) * tests).sum(), arguments)

        def second(tests: Tensor, steps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            found = self._second(tests, at, steps)
            return tuple(torch.zeros_like(each) if own is None else own for own, each in zip(found, at, strict=False))

        def of_controls(change: Tensor) -> Tensor:
            assert self.controls is not None
            return self.controls.evaluate(self.rows.spread(change)).expand(-1, state.shape[1], -1)

        return PointFunction(
            name=f"objective {self.name}",
            x=self.evaluation.quadrature.flat,
            at=at,
            groups=self.groups,
            value=self.values,
            first=first,
            gradient=gradient,
            second=second,
            kept=self.weight.reshape(-1) != 0.0,
            of_controls=None if self.controls is None else of_controls,
        )

    @property
    def _weights(self) -> Tensor:
        return self.measure * (self.evaluation.quadrature.weights * self.weight).reshape(-1)

    def _fields(self, u: Tensor, v: Tensor) -> list[Tensor]:
        """Values and gradients of the state, and of the controls, at the points: (components, rows, P) each."""
        coefficients = u if self.stages is None else self.stages.mv(u).reshape(self.rows.steps, -1)
        state = self.evaluation.evaluate(coefficients)
        if self.controls is None:
            return [state]
        return [state, self.controls.evaluate(self.rows.spread(v))]

    def values(self, state: Tensor, control: Tensor | None = None) -> Tensor:
        """The density (rows, P) at values and gradients of the state and of the controls, (components, rows, P)."""
        x = self.evaluation.quadrature.flat
        dim = len(x)
        nothing = state.new_zeros(1 + dim, 1, state.shape[-1])
        u, grad = _values_and_gradients(state, dim)
        v, grad_v = _values_and_gradients(nothing if control is None else control, dim)
        return self.density(u, grad, v, grad_v, x).expand(state.shape[1:])

    def _pulled_back(self, state: Tensor | None, control: Tensor | None, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives by weighted values at the points -> derivatives by the coefficients of state and controls."""
        for_u, for_v = torch.zeros_like(u), torch.zeros_like(v)
        weights = self.evaluation.quadrature.weights.reshape(-1)
        if state is not None:
            rows = self.evaluation.test(state / weights)
            for_u = rows if self.stages is None else self.stages.rmv(rows.reshape(1, -1))
        if control is not None and self.controls is not None:
            for_v = self.rows.gather(self.controls.test(control / weights))
        return for_u, for_v


def _state_and_control(derivatives: tuple[Tensor | None, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Derivatives by the fields as a pair; None by the controls where the density does not depend on them."""
    return derivatives[0], derivatives[1] if len(derivatives) > 1 else None


def _values_and_gradients(components: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    fields = components.reshape(-1, 1 + dim, *components.shape[1:])
    return (fields[0, 0], fields[0, 1:]) if len(fields) == 1 else (fields[:, 0], fields[:, 1:])
