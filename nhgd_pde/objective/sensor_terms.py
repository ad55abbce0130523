"""What sensors have measured, beside what they would show at a state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

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
        rows: (components * count, N) the values of the state at the sensors.
        lines: (count,) the line of each measurement in the file of the sensors.
        times: (count,) the times of the measurements; None where they have none.
    """

    number: int
    points: np.ndarray
    components: tuple[int, ...]
    measured: np.ndarray
    weights: np.ndarray
    rows: SparseMatrix
    lines: tuple[int, ...]
    times: np.ndarray | None = None

    def readings(self, state: np.ndarray) -> Readings:
        """What the sensors show at a state (S, N); of an evolution that keeps no states, N may be that of the last one.

        This is enough for measurements without times, which are made at the end.
        """
        found = np.asarray((self.rows.host[:, self.rows.shape[1] - state.shape[1] :] @ state.T).T)
        computed = found.reshape(len(state), *self.measured.shape)
        return Readings(
            self.number, self.points, self.components, self.measured, computed, self.weights, self.lines, self.times
        )


@dataclass(frozen=True, eq=False)
class Readings:
    """What sensors have measured, and what they would measure at a state.

    Attributes:
        computed: (S, components, count) the values of the state.
        number, points, components, measured, weights, lines, times: see `SensorTerm`.
    """

    number: int
    points: np.ndarray
    components: tuple[int, ...]
    measured: np.ndarray
    computed: np.ndarray
    weights: np.ndarray
    lines: tuple[int, ...]
    times: np.ndarray | None

    @classmethod
    def joined(cls, parts: Sequence[Readings]) -> Readings:
        """The readings of the same sensors in several parts of an evolution, in the order of their file."""
        lines = np.concatenate([np.array(each.lines, dtype=int) for each in parts])
        order = np.argsort(lines, kind="stable")

        def whole(name: str) -> np.ndarray:
            return np.concatenate([getattr(each, name) for each in parts], axis=-1)[..., order]

        return replace(
            parts[0],
            points=whole("points"),
            measured=whole("measured"),
            computed=whole("computed"),
            weights=whole("weights"),
            lines=tuple(lines[order].tolist()),
            times=None if parts[0].times is None else whole("times"),
        )
