"""The noise model of measured values: independent and normal, with a known standard deviation each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..linalg.sparse import SparseMatrix
from ..objective.sensor_terms import SensorTerm


@dataclass(frozen=True, eq=False)
class SensorNoise:
    """Measured values d_i = (C u)_i + e_i, e_i ~ N(0, 1/precision_i).

    The values of all tracking terms follow one another; in a term the values of one component do.

    Attributes:
        rows: the matrices C (values, N) of the terms, with N all coefficients of the state.
        measured: (q,) the measured values.
        precision: (q,) 1/variance of each; 0 of a value that does not count.
    """

    rows: Sequence[SparseMatrix]
    measured: Tensor
    precision: Tensor

    @classmethod
    def of(cls, sensors: Sequence[SensorTerm]) -> SensorNoise:
        """The noise model of the sensors of an objective whose weights are precisions."""
        device = sensors[0].rows.device
        measured = np.concatenate([each.measured.reshape(-1) for each in sensors])
        precision = np.concatenate([np.tile(each.weights, len(each.components)) for each in sensors])
        matrices = [each.rows for each in sensors]
        return cls(matrices, torch.from_numpy(measured).to(device), torch.from_numpy(precision).to(device))

    @property
    def size(self) -> int:
        """q, the number of measured values."""
        return len(self.measured)

    @property
    def root(self) -> Tensor:
        """(q,) the square roots of the precisions."""
        return self.precision.sqrt()

    def observed(self, state: Tensor) -> Tensor:
        """C u for every row of coefficients (k, N); (k, q)."""
        return torch.cat([rows.mv(state) for rows in self.rows], dim=1)

    def spread(self, covectors: Tensor) -> Tensor:
        """C^T y for every row (k, q); (k, N)."""
        pieces = torch.split(covectors, [rows.shape[0] for rows in self.rows], dim=1)
        total = self.rows[0].rmv(pieces[0])
        for rows, piece in zip(self.rows[1:], pieces[1:], strict=True):
            total = total + rows.rmv(piece)
        return total

    def misfit(self, state: Tensor) -> float:
        """sum (C u - d)^2 / (2 noise^2) of a state (1, N)."""
        return float((self.precision * (self.observed(state)[0] - self.measured).square()).sum()) / 2.0
