"""Objective terms that are integrals of a pointwise density of state and control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..fem.evaluation import Evaluation
from ..linalg.sparse import SparseMatrix
from ..pde.checked import NOT_ITS_DERIVATIVE
from ..pde.rows import ControlRows

# (u, grad, v, grad_v, x) -> density (S, P): values u (S, P) and gradients grad (dim, S, P) of a state of one field,
# with a leading axis of several; of the controls v (R, P) and grad_v (dim, R, P) likewise; points x (dim, P).
Density = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class IntegralTerm:
    """int density(u, grad u, v, grad v, x); implements `JointTerm`.

    In time the density is summed over the points at which the integrals of the equation are taken.

    Attributes:
        density: see there; differentiable twice, at least almost everywhere.
        evaluation: the state's functions at the points of the region.
        controls: the controls' functions at the same points, a field each, with the columns of all controls; None where
            the density does not depend on them.
        rows: how the controls vary in time.
        weight: (elements, points) factor of the density, zero outside a region.
        stages: (steps * size, N) coefficients of the state at those points in time; None of a steady problem.
        measure: length of a time step.
    """

    density: Density
    evaluation: Evaluation
    controls: Evaluation | None
    rows: ControlRows
    weight: Tensor
    stages: SparseMatrix | None = None
    measure: float = 1.0
    quadratic: bool = False

    def value(self, u: Tensor, v: Tensor) -> Tensor:
        density = self._density(*self._fields(u, v))
        return self._per_scenario((density * self._weights).sum(-1), u)

    def derivative(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._pulled_back(*self._by_fields(*self._fields(u, v)), u, v)

    def derivatives(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.stages is not None:
            state, control = self.derivative(u, v)
            return state, control[None]
        fields = self._fields(u, v)
        # A copy of the control a scenario, whose derivatives are not summed.
        fields[1:] = [each.expand(-1, u.shape[0], -1) for each in fields[1:]]
        by_state, by_control = self._by_fields(*fields)
        for_u, for_v = self._pulled_back(by_state, None, u, v)
        rows = for_v.expand(u.shape[0], -1)
        if by_control is not None and self.controls is not None:
            rows = self.controls.test(by_control / self.evaluation.quadrature.weights.reshape(-1))
        return for_u, rows

    def _by_fields(self, *fields: Tensor) -> tuple[Tensor | None, Tensor | None]:
        with torch.enable_grad():
            at = [each.detach().clone().requires_grad_(True) for each in fields]
            return self._grad((self._density(*at) * self._weights).sum(), at)

    def second_derivative(self, u: Tensor, v: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        steps = self._fields(du, dv)
        with torch.enable_grad():
            at = [each.detach().clone().requires_grad_(True) for each in self._fields(u, v)]
            total = (self._density(*at) * self._weights).sum()
            if not total.requires_grad:
                return torch.zeros_like(u), torch.zeros_like(v)
            first = torch.autograd.grad(total, at, create_graph=True, allow_unused=True)
            parts = [(g * step).sum() for g, step in zip(first, steps, strict=True) if g is not None]
            state, control = self._grad(sum(parts[1:], parts[0]), at)
        return self._pulled_back(state, control, u, v)

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

    def _density(self, state: Tensor, control: Tensor | None = None) -> Tensor:
        quadrature = self.evaluation.quadrature
        dim = quadrature.x.shape[0]
        x = quadrature.flat
        nothing = state.new_zeros(1 + dim, 1, state.shape[-1])
        u, grad = _values_and_gradients(state, dim)
        v, grad_v = _values_and_gradients(nothing if control is None else control, dim)
        return self.density(u, grad, v, grad_v, x).expand(state.shape[1:])

    @staticmethod
    def _grad(total: Tensor, at: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        if not total.requires_grad:
            return None, None
        found = torch.autograd.grad(total, at, allow_unused=True)
        return found[0], found[1] if len(found) > 1 else None

    def _pulled_back(self, state: Tensor | None, control: Tensor | None, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives by the values at the points -> by the coefficients; the weights are in them already."""
        for_u, for_v = torch.zeros_like(u), torch.zeros_like(v)
        weights = self.evaluation.quadrature.weights.reshape(-1)
        if state is not None:
            rows = self.evaluation.test(state / weights)
            for_u = rows if self.stages is None else self.stages.rmv(rows.reshape(1, -1))
        if control is not None and self.controls is not None:
            for_v = self.rows.gather(self.controls.test(control / weights))
        return for_u, for_v

    def _per_scenario(self, rows: Tensor, u: Tensor) -> Tensor:
        return rows if self.stages is None else rows.sum().expand(u.shape[0])


def _values_and_gradients(components: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    fields = components.reshape(-1, 1 + dim, *components.shape[1:])
    return (fields[0, 0], fields[0, 1:]) if len(fields) == 1 else (fields[:, 0], fields[:, 1:])


def trial_of_density(name: str, term: IntegralTerm) -> str:
    """What is wrong with a user's density, in a sentence; empty where nothing is."""
    evaluation = term.evaluation
    generator = torch.Generator().manual_seed(0)
    like = evaluation.quadrature.weights
    shape = (evaluation.components, 1, evaluation.quadrature.points)
    at = [torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)]
    if term.controls is not None:
        at.append(
            torch.rand((term.controls.components, *shape[1:]), generator=generator, dtype=like.dtype).to(like.device)
        )
    try:
        value = term._density(*at)
    except Exception as error:
        return f"{name} raised {type(error).__name__}: {error}; expected a density of shape {shape[1:]}"
    step = torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
    with torch.enable_grad():
        leaf = at[0].clone().requires_grad_(True)
        total = term._density(leaf, *at[1:])
        slope = torch.zeros_like(value)
        if total.requires_grad:
            (found,) = torch.autograd.grad(total.sum(), leaf, allow_unused=True)
            slope = slope if found is None else (found * step).sum(0)
    t = 1e-6
    ends = [term._density(at[0] + sign * t * step, *at[1:]) for sign in (1.0, -1.0)]
    difference = (ends[0] - ends[1]) / (2.0 * t)
    size = float(difference.abs().max()) + float(slope.abs().max())
    if float(((difference - slope).abs() > 1e-3 * size + 1e-9 * float(value.abs().max()) / t).double().mean()) > 0.01:
        return f"{name}: {NOT_ITS_DERIVATIVE}"
    return ""
