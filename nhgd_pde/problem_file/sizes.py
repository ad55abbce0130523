"""The numbers of cells, nodes and unknowns of a problem, computed from its file alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .control_spec import ParameterControl, SideControl
from .mesh_spec import BoxMesh, DiskMesh, IntervalMesh, LShapeMesh, MeshSpec, RectangleMesh
from .schema import ProblemSpec

# Largest exponent of two that is computed; larger sizes are far beyond any memory.
_HIGHEST = 300
# Steps that fds makes at once: at most so many, and so many coefficients of all states and of all their derivatives.
_STEPS, _STATES, _DERIVATIVES = 64, 16_000, 12_000_000
# Nodes of one cell, by the number of its vertices (by dimension) and the element.
_NODES = {
    (1, 2): {"P1": 2, "P2": 3},
    (2, 3): {"P1": 3, "P2": 6},
    (2, 4): {"P1": 4, "P2": 9},
    (3, 4): {"P1": 4, "P2": 10},
    (3, 8): {"P1": 8, "P2": 27},
}


@dataclass(frozen=True)
class MeshSize:
    """The size of a mesh. The numbers are floats, because a file may ask for more cells than an integer type can hold.

    Attributes:
        dim: dimension of the cells.
        corners: number of vertices of a cell.
        cells: number of cells.
        vertices: number of vertices, the nodes of P1 elements.
        nodes: number of the nodes of P2 elements.
    """

    dim: int
    corners: int
    cells: float
    vertices: float
    nodes: float

    def refined(self, times: int) -> MeshSize:
        """The approximate size after refinement, in which all numbers grow by the same factor."""
        factor = two_to(self.dim * times)
        return MeshSize(self.dim, self.corners, self.cells * factor, self.vertices * factor, self.nodes * factor)

    def nodes_of(self, element: str) -> float:
        return self.nodes if element == "P2" else self.vertices

    def nodes_per_cell(self, element: str) -> int:
        return _NODES[self.dim, self.corners][element]


def two_to(exponent: int) -> float:
    return 2.0 ** min(exponent, _HIGHEST)


def real(number: float) -> float:
    """A number of a file as a float; infinite where it is too large for one."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def mesh_size(spec: MeshSpec) -> MeshSize | None:
    """The size of a mesh of a built-in shape; None for a mesh file."""
    match spec:
        case IntervalMesh() | RectangleMesh() | BoxMesh():
            counts = [real(count) * two_to(spec.refine) for count in spec.cells]
            kind = getattr(spec, "cell", "")
            corners = {"triangle": 3, "tetrahedron": 4}.get(kind, 2 ** len(counts))
            split = {"triangle": 2, "tetrahedron": 6}.get(kind, 1)
            vertices = math.prod(count + 1.0 for count in counts)
            nodes = math.prod(2.0 * count + 1.0 for count in counts)
            return MeshSize(len(counts), corners, split * math.prod(counts), vertices, nodes)
        case DiskMesh():
            return _triangles(4.0, 4.0, spec.refine)
        case LShapeMesh():
            return _triangles(6.0, 8.0, spec.refine)
    return None


def _triangles(cells: float, sides: float, refine: int) -> MeshSize:
    """The size of a refined triangulation without holes, from its triangles and boundary edges before refinement.

    By Euler's formula: vertices - edges + triangles = 1, and 3 triangles + sides = 2 edges.
    """
    cells, sides = cells * two_to(2 * refine), sides * two_to(refine)
    edges = 0.5 * (3.0 * cells + sides)
    vertices = 1.0 + 0.5 * (cells + sides)
    return MeshSize(2, 3, cells, vertices, vertices + edges)


def fields(spec: ProblemSpec, dim: int) -> float:
    """The number of components of the fields that sources act on."""
    return real(spec.pde.components_of_source(dim))


def state_size(spec: ProblemSpec, mesh: MeshSize) -> float:
    """The number of coefficients of the state at one time, including those that conditions fix."""
    count = real(spec.pde.initial_fields(mesh.dim))
    if spec.pde.mixed:
        return count * mesh.nodes + mesh.vertices
    return count * mesh.nodes_of(spec.element)


def control_size(spec: ProblemSpec, mesh: MeshSize) -> float:
    """The approximate number of coefficients of the controls."""
    total = 0.0
    steps = 1.0 if spec.time is None else real(spec.time.steps)
    for control in spec.controls:
        space = getattr(control, "space", "constant")
        count = {"P0": mesh.cells, "P1": mesh.vertices}.get(space, 1.0)
        if isinstance(control, SideControl):
            # The number of nodes on all sides is an upper bound of the number on one.
            count = 2.0 * mesh.dim * count ** ((mesh.dim - 1) / mesh.dim)
        varies = space != "constant" and control.kind in ("source", "neumann", "robin", "dirichlet", "python")
        total += count * (1.0 if isinstance(control, ParameterControl) else fields(spec, mesh.dim))
        windows = getattr(control, "windows", None)
        copies = steps if windows is None else min(real(windows), steps)
        total += count * (copies - 1.0) * fields(spec, mesh.dim) if varies else 0.0
    return total


def steps_at_once(steps: float, size: float, controls: float) -> int:
    """The number of steps that fds makes and passes at once; it does not depend on the number of all steps.

    Args:
        steps: number of all steps.
        size: number of coefficients of the state at one time.
        controls: number of control unknowns.
    """
    most = min(_STEPS, steps, _STATES / max(size, 1.0), _DERIVATIVES / max(size * controls, 1.0))
    return max(int(most), 1)


def recomputed_at_once(steps: float, size: float, room: float) -> int:
    """The number of steps that are made at once where states are made again, which all fit into the room several times.

    Args:
        steps: number of all steps.
        size: number of coefficients of the state at one time.
        room: number of states that can be kept.
    """
    return max(int(min(_STEPS, steps, _STATES / max(size, 1.0), room / 8.0)), 1)
