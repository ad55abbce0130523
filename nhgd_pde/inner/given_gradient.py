"""The length of a field of which the state is the deviation: its gradient is given, and it is no part of the state."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..fem.state_space import StateSpace
from ..linalg.sparse import SparseMatrix
from ..pde.equation import StateEquation

# The name of the given gradient among the coefficients of an integral over the cells.
GIVEN = "mean_gradient"


def given_gradient(equation: StateEquation) -> Tensor | None:
    """(dim, rows, P) the given gradient at the quadrature points of the cells; None without."""
    return equation.integrals[0].coefficients.get(GIVEN)


def given_length(space: StateSpace, equation: StateEquation, gram: SparseMatrix) -> float:
    """|G|_K of a given gradient G, zero without: errors of a deviation are relative to the whole field.

    The loads of G cancel where the equation has constant coefficients, up to rounding. The deviation is then zero, to
    which nothing can be relative.

    Args:
        gram: the Gram matrix of K on the whole state space, of which the size counts.
    """
    given = given_gradient(equation)
    if given is None:
        return 0.0
    cells = space.cells
    weights = cells.quadrature.weights
    one = torch.ones_like(weights)[None]
    plain = cells.assemble(cells, {(k, k): one for k in range(1, cells.stride)}, symmetric=True).host().diagonal()
    size = float(gram.diagonal().sum()) / float(plain.sum())
    squares = given.square().sum(0).mean(0).expand(weights.numel())
    return math.sqrt(size * float((squares * weights.reshape(-1)).sum()))
