"""A trial solve with a known solution, which tells good factors from those of a singular matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

# Factors are not used where a trial solve with them has a larger relative error than this.
LEAST_ACCURACY = 1e-3


def recovers(
    solve: Callable[[np.ndarray], np.ndarray], matrix: sp.csr_matrix, accuracy: float = LEAST_ACCURACY
) -> bool:
    """Whether a known vector is recovered from its image.

    Direct solvers notice only pivots that are exactly zero. In a pure Neumann problem the last pivot is a rounding
    error.

    Args:
        solve: b (n,) -> A^-1 b.
        matrix: A.
        accuracy: largest error, relative to the largest component of the vector.
    """
    known = np.random.default_rng(0).standard_normal(matrix.shape[0])
    error = np.abs(solve(matrix @ known) - known).max()
    # An error that is not a number is not small.
    return bool(error <= accuracy * np.abs(known).max())
