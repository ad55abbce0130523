"""Measurements at points, and maybe at times, from a text file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from ..fem.interpolation import at_points
from ..fem.state_space import StateSpace
from ..linalg.products import row_wise_kronecker
from .clock import Clock
from .text_table import TableError, TextTable, read_text_table


@dataclass(frozen=True)
class Sensors:
    """Measurements at points.

    Attributes:
        points: (dim, count).
        values: (components, count).
        weights: (count,) factors of the squared misfits.
        lines: (count,) the line of each sensor in the file, from 1.
        times: (count,) of each measurement; None where the file has no times.
    """

    points: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    lines: tuple[int, ...]
    times: np.ndarray | None = None

    def __getitem__(self, chosen: np.ndarray) -> Sensors:
        """Some of the measurements, by a mask (count,) or by numbers."""
        lines = tuple(np.array(self.lines, dtype=int)[chosen].tolist())
        times = None if self.times is None else self.times[chosen]
        return Sensors(self.points[:, chosen], self.values[:, chosen], self.weights[chosen], lines, times)


def observation(state: StateSpace, clock: Clock | None, sensors: Sensors, chosen: range) -> sp.csr_matrix:
    """The map of the coefficients of the state to its values at sensors, one field after the other.

    In an evolution these are the values at the times of the measurements, linear between the levels, or at the end.

    Raises:
        OutsideMeshError: a sensor is in no cell.
    """
    rows = []
    for k in chosen:
        one = at_points(state.parts[k], sensors.points)
        before, after = state.offsets[k], state.size - state.offsets[k + 1]
        empty = [sp.csr_matrix((one.shape[0], int(width))) for width in (before, after)]
        rows.append(sp.hstack([empty[0], one, empty[1]], format="csr"))
    seen = sp.csr_matrix(sp.vstack(rows))
    if clock is None:
        return seen
    if sensors.times is None:
        return sp.csr_matrix(sp.kron(clock.last, seen))
    return row_wise_kronecker(clock.at(np.tile(sensors.times, len(chosen))), seen)


def no_sensors(dim: int, components: int) -> Sensors:
    """A table without rows, which stands for one that cannot be used."""
    return Sensors(np.zeros((dim, 0)), np.zeros((components, 0)), np.zeros(0), ())


def read_sensors(path: Path, dim: int, components: int) -> Sensors:
    """Read a table with one row for each measurement: coordinates, values and maybe a weight.

    A first line may name the columns: x, y, z, then maybe t, then the values by any names, then maybe weight.

    Raises:
        TableError: not such a table; the message names the line.
    """
    axes = ("x", "y", "z")[:dim]
    listed = f"{', '.join(axes)}, {components} value{'s' * (components > 1)}, maybe a weight"
    wanted = dim + components
    try:
        table = read_text_table(path)
    except TableError as error:
        if "found none" in str(error):
            columns = f"{wanted} or {wanted + 1} columns ({listed})"
            raise TableError(f"expected rows of {columns}, found none") from None
        raise
    found = table.rows.shape[1]
    if not table.names and found not in (wanted, wanted + 1):
        raise TableError(f"line {table.lines[0]}: expected {wanted} or {wanted + 1} columns ({listed}), found {found}")
    timed = False
    if table.names:
        timed = table.names[dim : dim + 1] == ("t",)
        wanted += timed
        if table.names[:dim] != axes or found not in (wanted, wanted + 1):
            some = f"{components} value{'s' * (components > 1)}"
            expected = f"{', '.join(axes)}, maybe t, {some} by any names, maybe weight"
            raise TableError(f"expected columns named {expected}; found {', '.join(table.names)}")
        if found > wanted and table.names[-1] != "weight":
            raise TableError(f"expected a last column named weight, found {table.names[-1]!r}")
    return _sensors(table, dim, components, timed)


def _sensors(table: TextTable, dim: int, components: int, timed: bool) -> Sensors:
    columns, first = table.rows.T, dim + timed
    weights = columns[first + components] if len(columns) > first + components else np.ones(columns.shape[1])
    if (weights < 0.0).any():
        row = int(np.argmax(weights < 0.0))
        raise TableError(f"line {table.lines[row]}: expected a weight of at least 0, found {weights[row]:g}")
    times = columns[dim] if timed else None
    return Sensors(columns[:dim], columns[first : first + components], weights, table.lines, times)
