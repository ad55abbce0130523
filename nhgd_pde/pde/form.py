"""Weak forms: pointwise functions, integrated over the cells or over a part of the boundary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..fem.evaluation import Blocks, Evaluation

Coefficients = Mapping[str, Tensor]

# (u, grad, coefficients, x) -> (f0, f1), the integrand f0 phi + f1 . grad phi of the residual. u (S, P)
# values and grad (dim, S, P) gradients of the state, coefficients that broadcast against (S, P), x (dim, P)
# points. f1 is None where the gradient of the test function does not appear, as on a boundary.
Pointwise = Callable[[Tensor, Tensor, Coefficients, Tensor], tuple[Tensor, Tensor | None]]

# (coefficients, control values (1, P)) -> coefficients: how a control enters them.
ControlMap = Callable[[Coefficients, Tensor], Coefficients]


@dataclass(frozen=True, eq=False)
class Integral:
    """One integral of a residual: int f0(u, v) phi + f1(u, v) . grad phi.

    Attributes:
        evaluation: every function of the state space, at the quadrature points of the region.
        form: the integrand.
        coefficients: name -> values at the points, (P,), (1, P) or (S, P).
        control: how the control enters the coefficients; None where it does not.
        control_evaluation: the control's functions at the same points.
    """

    evaluation: Evaluation
    form: Pointwise
    coefficients: Coefficients
    control: ControlMap | None = None
    control_evaluation: Evaluation | None = None

    def density(self, state: Tensor, control: Tensor | None) -> Tensor:
        """The integrand (components, S, P) at a state (components, S, P) and control values (1, P)."""
        coefficients = self.coefficients
        if self.control is not None and control is not None:
            coefficients = self.control(coefficients, control)
        x = self.evaluation.quadrature.x.reshape(self.evaluation.quadrature.x.shape[0], -1)
        value, flux = self.form(state[0], state[1:], coefficients, x)
        value = value.expand(state[0].shape)
        if flux is None:
            return torch.cat([value[None], torch.zeros_like(state[1:])])
        return torch.cat([value[None], flux.expand(state[1:].shape)])

    def control_values(self, v: Tensor) -> Tensor | None:
        """The control (p,) at the points, (1, P)."""
        return None if self.control_evaluation is None else self.control_evaluation.evaluate(v[None])[0]

    def state_blocks(self, state: Tensor, control: Tensor | None) -> Blocks:
        """dF/d(u, grad u) at the points, block by block, zero blocks left out."""
        return self._blocks(lambda s: self.density(s, control), state)

    def control_blocks(self, state: Tensor, control: Tensor | None) -> Blocks:
        """dF/dv at the points."""
        if self.control is None or control is None:
            return {}
        scenarios = state.shape[1]
        # The control is shared by the scenarios; its derivative is not.
        return self._blocks(lambda c: self.density(state, c[0]), control[None].expand(1, scenarios, -1))

    def second_derivative(
        self, state: Tensor, control: Tensor | None, tests: Tensor, state_step: Tensor, control_step: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The derivatives of dF/d(state, control)^T tests in a direction, at the points.

        Args:
            state, control: values, as in `density`.
            tests: values (components, S, P) of the function that the integrand is tested with.
            state_step, control_step: the direction, of the shapes of `state` and `control`.

        Returns:
            (components, S, P) and (1, P), the scenarios summed; None where they vanish.
        """
        with torch.enable_grad():
            # Reverse over reverse mode, for the same reason as in `_blocks`.
            at = [each.detach().clone().requires_grad_(True) for each in (state, control) if each is not None]
            steps = [each for each in (state_step, control_step) if each is not None]
            value = self.density(at[0], at[1] if len(at) > 1 else None)
            if not value.requires_grad:
                return None, None
            first = torch.autograd.grad((value * tests).sum(), at, create_graph=True, allow_unused=True)
            parts = [(g * step).sum() for g, step in zip(first, steps, strict=True) if g is not None]
            along = sum(parts[1:], parts[0])
            if not along.requires_grad:
                return None, None
            second = torch.autograd.grad(along, at, allow_unused=True)
        return second[0], second[1] if len(second) > 1 else None

    def _blocks(self, density: Callable[[Tensor], Tensor], point: Tensor) -> Blocks:
        # The integrand acts point by point, so that one sweep with a constant cotangent a component of the
        # integrand gives a whole row of its derivative at all the points. Reverse mode, because the first use
        # of torch.func or of forward mode imports a second's worth of torch's compiler.
        blocks: dict[tuple[int, int], Tensor] = {}
        shape = self.evaluation.quadrature.weights.shape
        with torch.enable_grad():
            argument = point.detach().clone().requires_grad_(True)
            value = density(argument)
            if not value.requires_grad:
                return blocks
            for i, component in enumerate(value):
                (row,) = torch.autograd.grad(component.sum(), argument, retain_graph=True, allow_unused=True)
                for j, entry in enumerate(row if row is not None else ()):
                    if torch.count_nonzero(entry):
                        blocks[i, j] = entry.reshape(-1, *shape)
        return blocks
