"""Controls that enter an equation by rows of their own inner product, as a source in the space of the state does."""

from __future__ import annotations

import numpy as np

from ..linalg.sparse import ScenarioMatrix
from ..pde.equation import StateEquation
from .controls import Controls

# Entries are equal up to rounding where they differ by less than this share of the largest one.
_EQUAL = 1e-12


def share_of_metric(equation: StateEquation, control: Controls) -> float | None:
    """The number c where R_v is c times the rows of the inner product of the controls at the unknowns; None elsewhere.

    R_v^T w is then c times the inner product with the function that has w at the unknowns and zero elsewhere.
    """
    metric = control.riesz
    steady = equation.affine and equation.scenarios == equation.repeats == 1 and equation.data is None
    filtered = any(part.filter is not None for part in control.parts)
    if not steady or filtered or metric.diagonal or metric.matrix.shape[0] != equation.size:
        return None
    direct = equation.constant_linearisation.control.direct
    if not isinstance(direct, ScenarioMatrix):
        return None
    mine, gram = direct.host(), metric.matrix.host[equation.free]
    if not (np.array_equal(mine.indptr, gram.indptr) and np.array_equal(mine.indices, gram.indices)):
        return None
    share = float(mine.data @ gram.data) / float(gram.data @ gram.data)
    largest = np.abs(mine.data).max(initial=0.0)
    return share if np.abs(mine.data - share * gram.data).max(initial=0.0) <= _EQUAL * largest else None
