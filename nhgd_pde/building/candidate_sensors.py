"""From the section `placement` of a problem file to candidate sensors and the values that they would measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from ..fem.interpolation import OutsideMeshError
from ..fem.state_space import StateSpace
from ..problem_file.placement_spec import PlacementSpec
from .clock import Clock, clock_of
from .evaluator import point_text
from .issue_collector import IssueCollector
from .sensors import Sensors, observation
from .text_table import TableError, read_text_table

# Points of a grid that are looked for one by one in the mesh; more take long.
_MOST = 100_000


@dataclass(frozen=True, eq=False)
class CandidateSensors:
    """Sensors that could be built.

    Attributes:
        points: (m, dim) their places.
        components: the components of the state that each of them measures.
        times: the times at which it does; None of a steady problem, and at the end of an evolution.
        rows: (m * b, N) the values of the state that they measure: b numbers of the first candidate, then of the next.
    """

    points: np.ndarray
    components: tuple[int, ...]
    times: tuple[float, ...] | None
    rows: sp.csr_matrix

    @property
    def values(self) -> int:
        """b, how many numbers each of them measures."""
        return len(self.components) * len(self.times or (0,))


@dataclass(frozen=True, eq=False)
class CandidateBuilder:
    """Makes the candidates of a file.

    Attributes:
        mistakes: collects mistakes.
        state: the state space.
        spec: the section of the file.
    """

    mistakes: IssueCollector
    state: StateSpace
    spec: PlacementSpec

    def build(self, points: np.ndarray | None = None) -> CandidateSensors | None:
        """The candidates, at given points (m, dim) or at those of the file; None after a complaint."""
        group = self.state.groups[0]
        component = self.spec.component
        if component is not None and component >= group.components:
            self._complain("component", f"expected a component below {group.components}, found {component}")
            return None
        components = tuple(range(group.components)) if component is None else (component,)
        lines: tuple[int, ...] = ()
        key = self.key(points)
        if points is None:
            points, lines = self._places()
        if points is None:
            return None
        if self.spec.count is not None and self.spec.count > len(points):
            self._complain(
                "count", f"expected at most {len(points):,}, the number of candidates; found {self.spec.count:,}"
            )
            return None
        times = None if self.spec.times is None else tuple(np.atleast_1d(self.spec.times).tolist())
        try:
            rows = self._rows(points, components, times, clock_of(self.mistakes.file.spec))
        except OutsideMeshError as outside:
            index = outside.index % (len(points) * len(times or (0,))) // len(times or (0,))
            where = f"{self.spec.at}: line {lines[index]}: " if lines else f"candidate {index}: "
            self.mistakes.complain(key, f"{where}{outside}")
            return None
        return CandidateSensors(points, components, times, rows)

    def key(self, points: np.ndarray | None) -> str:
        """The key that candidates come from: arrays have none in the file."""
        own = "placement.grid" if self.spec.at is None else "placement.at"
        return own if points is None else "candidates"

    def _complain(self, key: str, message: str) -> None:
        self.mistakes.complain(f"placement.{key}", message)

    def _rows(
        self, points: np.ndarray, components: tuple[int, ...], times: tuple[float, ...] | None, clock: Clock | None
    ) -> sp.csr_matrix:
        repeats = len(times or (0,))
        every = np.repeat(points.T, repeats, axis=1)
        moments = None if times is None else np.tile(times, len(points))
        count = every.shape[1]
        sensors = Sensors(every, np.zeros((len(components), count)), np.ones(count), (0,) * count, moments)
        seen = observation(self.state, clock, sensors, range(components[0], components[-1] + 1))
        # The rows of one component follow one another; those of one candidate are wanted together.
        order = np.arange(seen.shape[0]).reshape(len(components), len(points), repeats).transpose(1, 0, 2)
        return sp.csr_matrix(seen[order.reshape(-1)])

    def _places(self) -> tuple[np.ndarray | None, tuple[int, ...]]:
        """The candidates of the file (m, dim), and the lines of those in a table."""
        if self.spec.at is not None:
            return self._of_file()
        if self.spec.grid is not None:
            return self._of_grid(), ()
        self._complain("grid", "missing; expected a grid of candidates, or their file under at")
        return None, ()

    def _of_file(self) -> tuple[np.ndarray | None, tuple[int, ...]]:
        assert self.spec.at is not None
        path, dim = self.mistakes.file.resolve(self.spec.at), self.state.domain.dim
        if path is None:
            self._complain("at", f"expected a file of candidates, found nothing at {self.spec.at!r}")
            return None, ()
        try:
            return _places(path, dim)
        except TableError as error:
            self._complain("at", f"{self.spec.at}: {error}")
            return None, ()

    def _of_grid(self) -> np.ndarray | None:
        """The middles of the fields of a grid, without those outside the mesh."""
        dim, counts = self.state.domain.dim, np.atleast_1d(self.spec.grid)
        if len(counts) != dim:
            self._complain("grid", f"expected {dim} numbers, one an axis, found {len(counts)}")
            return None
        if int(np.prod(counts)) > _MOST:
            self._complain("grid", f"expected at most {_MOST:,} points, found {int(np.prod(counts)):,}")
            return None
        nodes = self.state.domain.mesh.p
        low, high = nodes.min(axis=1), nodes.max(axis=1)
        axes = [a + (np.arange(n) + 0.5) / n * (b - a) for a, b, n in zip(low, high, counts, strict=True)]
        points = np.stack([axis.reshape(-1) for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
        inside = [self.state.contains(point[:, None]) for point in points]
        if not any(inside):
            self._complain("grid", f"expected points of the mesh, found none; the first is {point_text(points.T, 0)}")
            return None
        return points[inside]


def _places(path: Path, dim: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The coordinates (m, dim) in a file, and the line of each.

    Raises:
        TableError: not a table with coordinates.
    """
    table, axes = read_text_table(path), ("x", "y", "z")[:dim]
    if table.names and table.names[:dim] != axes:
        raise TableError(f"expected first columns named {', '.join(axes)}; found {', '.join(table.names)}")
    if table.names[dim : dim + 1] == ("t",):
        raise TableError("expected no column t: every candidate measures at the times of placement.times")
    if table.rows.shape[1] < dim:
        raise TableError(f"expected at least {dim} columns ({', '.join(axes)}), found {table.rows.shape[1]}")
    return table.rows[:, :dim], table.lines
