"""Controls: the space they live in, their bounds, and how they enter the coefficients of a PDE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .fem.evaluation import Evaluation
from .fem.spaces import Space
from .linalg.riesz import RieszMap
from .pde.form import Coefficients


def source_control(coefficients: Coefficients, v: Tensor) -> Coefficients:
    """Add gain * v to the source."""
    return {**coefficients, "source": coefficients["source"] + coefficients["gain"] * v}


@dataclass(frozen=True, eq=False)
class ControlSpace:
    """The discrete control.

    Attributes:
        space: its finite element space on the whole mesh.
        dofs: (p,) the degrees of freedom that are controlled.
        cells: evaluation of the p functions on the cells.
        riesz: the inner product in which gradients, steps and projections are taken.
        initial: (p,) starting value.
        lower, upper: (p,) bounds, -inf and inf where there are none; None without any bound.
        region: (1, elements, points) one where the control acts, zero elsewhere.
    """

    space: Space
    dofs: np.ndarray
    cells: Evaluation
    riesz: RieszMap
    initial: Tensor
    lower: Tensor | None
    upper: Tensor | None
    region: Tensor

    @property
    def size(self) -> int:
        return len(self.dofs)

    def on_mesh(self, v: np.ndarray) -> np.ndarray:
        """(p,) -> values of all the degrees of freedom of the space, zero where there is no control."""
        values = np.zeros(self.space.size)
        values[self.dofs] = v
        return values
