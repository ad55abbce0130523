"""Products with the derivative of a state equation that are more accurate than those with an assembled matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from ..fem.pattern import Blocks
from ..linalg.sparse import ScenarioMatrix

if TYPE_CHECKING:
    from .equation import StateEquation

# If the largest diagonal entry is below this multiple of the smallest one, rounding errors of products with the
# assembled matrix are far below every tolerance.
_CONTRAST = 1e4


def loses_digits(matrix: ScenarioMatrix) -> bool:
    """Whether products with the assembled matrix of one scenario lose many digits, because its entries differ widely.

    In a region of large coefficients with a nearly constant state the terms of a product cancel. Their rounding errors
    act as a load on the region, to which small coefficients around it respond with a large change of the state.
    """
    sizes = np.abs(matrix.host().diagonal())
    sizes = sizes[sizes > 0.0]
    return bool(len(sizes)) and float(sizes.max()) > _CONTRAST * float(sizes.min())


@dataclass(frozen=True, eq=False)
class UnassembledDerivative:
    """E^T W D E with the values and gradients E of the state at the points and the derivative D of the integrands.

    Its rounding errors are errors of fluxes, whose sum over a region vanishes; errors of matrix entries do not cancel.
    `parts` has for each integral its evaluation at the points, and the blocks of D.
    """

    equation: StateEquation
    parts: Sequence[tuple[EvaluationOperator, Blocks]]

    def mv(self, w: Tensor) -> Tensor:
        """J w, (S, n)."""
        return self._product(w, transposed=False)

    def rmv(self, w: Tensor) -> Tensor:
        """J^T w, (S, n)."""
        return self._product(w, transposed=True)

    def _product(self, w: Tensor, transposed: bool) -> Tensor:
        full = self.equation.extend(w)
        total = torch.zeros_like(full)
        for evaluation, blocks in self.parts:
            values = evaluation.evaluate(full)
            density = torch.zeros_like(values)
            for (i, j), block in blocks.items():
                row, column = (j, i) if transposed else (i, j)
                density[row] += block.reshape(len(block), -1) * values[column]
            total = total + evaluation.test(density)
        return self.equation.restrict(total)
