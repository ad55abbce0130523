"""The memory that scenarios take: numbers from which every oracle over scenarios estimates its bytes.

Fitted to the peaks of runs with 1e3 and 2e3 unknowns in 64 to 4096 scenarios, 8 to 128 of them at once. States and
adjoints are there at the iterate, at a trial point and in the output, hypergradients twice; weights of a batch that
grows, and their error, are made from matrices of all pairs of scenarios in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Footprint:
    """
    Attributes:
        count: scenarios.
        unknowns, controls: numbers of inner and of outer variables.
        at_once: scenarios that are worked on at once.
        entries: number of entries of the matrix of one scenario.
        points: quadrature points.
        factors: bytes of the sparse factors of one scenario.
    """

    count: int
    unknowns: int
    controls: int
    at_once: int
    entries: float
    points: int
    factors: float

    @property
    def rows(self) -> float:
        """Bytes of the states, adjoints and hypergradients of all scenarios."""
        return 8.0 * self.count * (6.0 * self.unknowns + 2.0 * self.controls)

    @property
    def matrix(self) -> float:
        """Bytes of the matrix of one scenario and of its coefficients, where they are kept."""
        return 8.0 * (self.entries + 4.0 * self.points)

    def working(self, batch: int | None = None) -> float:
        """Bytes of the matrices of the scenarios that are worked on at once, `batch` of them or `at_once`."""
        together = min(self.at_once if batch is None else batch, self.count)
        return together * 8.0 * (self.entries + 8.0 * self.points)


@runtime_checkable
class OverScenarios(Protocol):
    """An oracle that goes through the scenarios of random inputs."""

    def scenario_bytes(self, footprint: Footprint) -> float:
        """Bytes that grow with the number of scenarios, or with the number of those that are worked on at once."""
        ...
