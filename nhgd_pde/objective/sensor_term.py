"""Where the sensors of a term of the objective are, and what they have measured, for output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..linalg.sparse import SparseMatrix


@dataclass(frozen=True, eq=False)
class SensorTerm:
    """The sensors of the term sum of weights/2 (u - measured)^2.

    Attributes:
        number: the number of the term in the objective.
        points: (dim, count) the places of the sensors.
        components: the components of the state that they measure.
        measured: (components, count).
        weights: (count,) the factors of the squared misfits over 2, that of the term included.
        rows: (components * count, N) the values of the state at the sensors; an evolution that keeps no states has
            those of its last coefficients only.
    """

    number: int
    points: np.ndarray
    components: tuple[int, ...]
    measured: np.ndarray
    weights: np.ndarray
    rows: SparseMatrix

    def computed(self, state: np.ndarray) -> np.ndarray:
        """State (S, N) -> its values (S, components, count) at the sensors."""
        missing = self.rows.shape[1] - state.shape[1]
        # An evolution that keeps no states has its last one alone; the rows are zero for the states before.
        whole = np.pad(state, ((0, 0), (max(missing, 0), 0)))
        found = self.rows.mv(torch.from_numpy(whole).to(self.rows.device))
        return found.cpu().numpy().reshape(len(state), *self.measured.shape)
