"""Mass matrices of terms and inner products, which mostly differ by a number: each is assembled once."""

from __future__ import annotations

from collections.abc import Iterable

import scipy.sparse as sp
import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from .values import Values


def mass_matrix(
    values: Values, functions: EvaluationOperator, density: Tensor, components: Iterable[int]
) -> sp.csr_matrix:
    """The sum over some components of int density phi_i phi_j, (size, size).

    Matrices of a constant density are multiples of one that is kept, and share its pattern.

    Args:
        density: (1, elements, points).
        components: numbers of the values, or of the partial derivatives, of the fields.
    """
    chosen = tuple(components)

    def assembled(weight: Tensor) -> sp.csr_matrix:
        return functions.assemble(functions, {(i, i): weight for i in chosen}, symmetric=True).host()

    first = float(density.reshape(-1)[0])
    if not bool((density == first).all()):
        return assembled(density)
    # The functions are kept as well, so that their number is not that of others later.
    _, unit = values.once(("mass", id(functions), chosen), lambda: (functions, assembled(torch.ones_like(density))))
    return unit if first == 1.0 else sp.csr_matrix((first * unit.data, unit.indices, unit.indptr), shape=unit.shape)
