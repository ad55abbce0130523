"""The record of one mesh of an adaptive run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeshRecord:
    """What was found on one mesh of an adaptive run, a row of levels.csv.

    Attributes:
        level: number of the mesh, from 1.
        cells: number of its cells.
        unknowns, controls: numbers of unknowns of state and control.
        smallest_angle: in degrees, between two facets of a cell; 180 in one dimension.
        objective: the objective found on this mesh.
        estimated_error: estimate of the objective of the continuous problem minus `objective`; None where the run did
            not get to it.
        contributions: the sum of the sizes of what the cells contribute to it, with both signs; None as above.
        relative_error: its size relative to that of the objective.
        iterations: outer iterations.
        solves: linear systems solved.
        seconds: time of the run on this mesh, its building and the estimate included.
        status: how this run ended.
        reference: the norm of the gradient to which `outer.rtol` is relative: that at the start of the file on the
            first mesh. None where every mesh has its own, as the first run did not start there.
    """

    level: int
    cells: int
    unknowns: int
    controls: int
    smallest_angle: float
    objective: float
    estimated_error: float | None
    contributions: float | None
    relative_error: float | None
    iterations: int
    solves: int
    seconds: float
    status: str
    reference: float | None
