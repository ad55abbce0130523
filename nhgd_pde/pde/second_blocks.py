"""The second derivative of an integrand at one point, which many products with a Hessian share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .derivatives import leaves
from .form import Integral

# (state step (components, S, P), control step (controls, R, P)) -> the same shapes; None where nothing changes.
SecondProduct = Callable[[Tensor, Tensor | None], tuple[Tensor | None, Tensor | None]]


@dataclass(frozen=True, eq=False)
class SecondBlocks:
    """The second derivative of t . F(state, controls) at the points, block by block, without zero blocks.

    Attributes:
        components: number of components of the state.
        blocks: (i, j) -> (1, P), numbering the components of the state first and then those of the controls.
    """

    components: int
    blocks: dict[tuple[int, int], Tensor]

    def __call__(self, state_step: Tensor, control_step: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The product with a step; see `Integral.second_derivative`."""
        found: list[Tensor | None] = [None, None]
        for (i, j), block in self.blocks.items():
            step = state_step[j] if j < self.components else _given(control_step)[j - self.components]
            kind, k = (0, i) if i < self.components else (1, i - self.components)
            total = found[kind]
            if total is None:
                total = found[kind] = torch.zeros_like(state_step if kind == 0 else _given(control_step))
            total[k].addcmul_(block, step)
        return found[0], found[1]


def second_product(integral: Integral, state: Tensor, controls: Tensor | None, tests: Tensor) -> SecondProduct:
    """The second derivative at a state, controls and tests as in `Integral.second_derivative`, for many products.

    With one row its blocks are computed here, once, by one backward pass for each component. More rows are not worth
    their memory: every product differentiates anew.
    """
    if state.shape[1] > 1:
        return partial(integral.second_derivative, state, controls, tests)
    blocks: dict[tuple[int, int], Tensor] = {}
    with torch.enable_grad():
        at = leaves([each for each in (state, controls) if each is not None])
        total = (integral.density(at[0], at[1] if len(at) > 1 else None) * tests).sum()
        if total.requires_grad:
            first = torch.autograd.grad(total, at, create_graph=True, materialize_grads=True)
            for i, own in enumerate(component for each in first for component in each):
                if own.requires_grad:
                    rows = torch.autograd.grad(own.sum(), at, retain_graph=True, materialize_grads=True)
                    entries = enumerate(entry for row in rows for entry in row)
                    blocks |= {(i, j): entry for j, entry in entries if torch.count_nonzero(entry)}
    return SecondBlocks(len(state), blocks)


def _given(step: Tensor | None) -> Tensor:
    assert step is not None
    return step
