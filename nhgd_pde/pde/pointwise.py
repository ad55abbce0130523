"""The integrands of an equation as functions of values at points, with which their derivatives are tested."""

from __future__ import annotations

import torch
from torch import Tensor

from ..fem.pattern import Blocks
from ..linalg.differences import PointFunction
from .derivatives import gradient_of
from .form import Integral
from .rows import ControlRows

Groups = tuple[tuple[str, int, tuple[int, ...]], ...]


def field_groups(components: int, stride: int, argument: int, letter: str) -> Groups:
    """The values and the gradients of fields as groups of components of an argument."""
    values = tuple(range(0, components, stride))
    gradients = tuple(i for i in range(components) if i % stride)
    return (letter, argument, values), (f"grad {letter}", argument, gradients)


def integrand(
    integral: Integral, blocks: Blocks, stages: Tensor, v: Tensor, layout: ControlRows, affine: bool
) -> PointFunction:
    """The integrand of an integral at coefficients of the state and at controls v, with scenarios or steps as rows.

    `blocks` are the derivatives of the integrand by the state at the coefficients `stages` (S, size of the space), from
    which J is assembled. Second derivatives are zero in an `affine` equation.
    """
    state, controls = integral.evaluation.evaluate(stages), integral.control_values(layout.spread(v))
    stride = integral.evaluation.stride
    at: tuple[Tensor, ...] = (state,)
    groups = field_groups(integral.evaluation.components, stride, 0, "u")
    if controls is not None:
        # Every row has its own copy of the control, so that the derivatives of the rows are not summed.
        controls = controls.expand(-1, state.shape[1], -1)
        at = (state, controls)
        groups += (("the control", 1, tuple(range(len(controls)))),)
    by_control = integral.control_blocks(state, controls)

    def first(steps: tuple[Tensor, ...]) -> Tensor:
        total = torch.zeros_like(state)
        for (i, j), block in blocks.items():
            total[i] += block.reshape(-1, state.shape[-1]) * steps[0][j]
        for (i, j), block in by_control.items():
            total[i] += block.reshape(-1, state.shape[-1]) * steps[1][j // stride]
        return total

    def second(tests: Tensor, steps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if affine:
            return tuple(torch.zeros_like(each) for each in at)
        found = integral.second_derivative(state, controls, tests, steps[0], steps[1] if len(steps) > 1 else None)
        return tuple(torch.zeros_like(each) if own is None else own for own, each in zip(found, at, strict=False))

    def value(state: Tensor, controls: Tensor | None = None) -> Tensor:
        return integral.density(state, controls)

    def of_controls(change: Tensor) -> Tensor:
        values = integral.control_values(layout.spread(change))
        assert values is not None
        return values.expand(-1, state.shape[1], -1)

    return PointFunction(
        name=f"equation {integral.name or 'in the cells'}",
        x=integral.evaluation.quadrature.flat,
        at=at,
        groups=groups,
        value=value,
        first=first,
        gradient=lambda arguments, tests: gradient_of(lambda *each: (value(*each) * tests).sum(), arguments),
        second=second,
        kept=torch.ones(state.shape[-1], dtype=torch.bool, device=state.device),
        of_controls=None if controls is None else of_controls,
    )
