"""What a run found, and how well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .engine.minimise import Status
from .fem.mesh import CELLS
from .output.fields import FieldData, Grid
from .output.run_folder import RunFolder
from .pde_problem import PDEProblem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, float | int | str | None]


@dataclass(frozen=True)
class Certificate:
    """How far the answer is from satisfying its equations.

    Attributes:
        state_residual: |R|_{K^-1} / |u|_K; over the inf-sup constant a bound of the relative error of the state.
        adjoint_residual: relative dual norm of the residual of the adjoint system.
        gradient_error: estimate of the error of the gradient that these two leave.
    """

    state_residual: float
    adjoint_residual: float
    gradient_error: float


@dataclass(frozen=True, eq=False)
class Solution:
    """The result of `solve`.

    Attributes:
        status: `converged`, `stopped`, `interrupted` or `failed`.
        message: a sentence that says why.
        objective: the value reached.
        control: (p,) the control's coefficients.
        state: (S, N) coefficients of the state, one row a scenario, Dirichlet values included.
        adjoint: (S, N) coefficients of the adjoint variable; zeros where the run failed before there was one.
        gradient: (p,) the gradient in the control's inner product.
        certificate: how good state and gradient are.
        history: a mapping an outer iteration, the rows of history.csv.
        stats: the content of summary.json.
        problem: what was solved.
        problem_yaml: the resolved problem file.
    """

    status: Status
    message: str
    objective: float
    control: np.ndarray
    state: np.ndarray
    adjoint: np.ndarray
    gradient: np.ndarray
    certificate: Certificate
    history: tuple[Row, ...]
    stats: Mapping[str, Any]
    problem: PDEProblem
    problem_yaml: str

    def fields(self) -> tuple[Grid, FieldData]:
        """Everything for ParaView: state, control, target, adjoint, sensitivity."""
        return final_fields(self.problem, self.state, self.control, self.adjoint, self.gradient)

    def save(self, folder: str | Path) -> Path:
        """Write a run folder of this solution (without the fields of earlier iterations); returns its path."""
        with RunFolder.create(folder, self.problem_yaml) as run:
            for row in self.history:
                run.append_history(row)
            grid, data = self.fields()
            run.fields.add(int(self.stats["outer_iterations"]), float(self.stats["outer_iterations"]), grid, data)
            run.write_final(grid, data)
            run.log(f"{self.status}: {self.message}")
            run.write_summary(self.stats)
            return run.path

    def plot(self) -> Figure:
        """State, control and target side by side, in one or two dimensions; needs the extra `plot`.

        Raises:
            ValueError: a three-dimensional problem; open its final.vtu in ParaView.
        """
        from .output.pictures import picture

        grid, data = self.fields()
        return picture(grid, data, ("state", "control", "target"), f"{self.problem.name}: {self.status}")


# By kind of cell: its name with the nodes of P2, and scikit-fem's number of each node in VTK's order.
_P2_CELLS = {
    "line": ("line3", tuple(range(3))),
    "triangle": ("triangle6", tuple(range(6))),
    "quad": ("quad9", tuple(range(9))),
    "tetra": ("tetra10", tuple(range(10))),
    "hexahedron": (
        "hexahedron27",
        # Vertices; edges of the bottom, of the top, upright ones; facets left, right, front, back, bottom, top.
        (*CELLS["hexahedron"].order, 10, 16, 14, 9, 12, 18, 17, 11, 8, 15, 19, 13, 20, 25, 22, 23, 21, 24, 26),
    ),
}


def output_grid(problem: PDEProblem) -> Grid:
    """The mesh with the nodes of the state space: its P2 nodes too."""
    basis, domain = problem.space.basis, problem.space.domain
    if problem.space.element == "P2":
        kind, order = _P2_CELLS[domain.cell]
        return Grid(np.asarray(basis.doflocs).T, np.asarray(basis.element_dofs)[list(order)].T, kind)
    return Grid(domain.mesh.p.T, domain.mesh.t[list(CELLS[domain.cell].order)].T, domain.cell)


def state_fields(problem: PDEProblem, state: np.ndarray, name: str = "state") -> dict[str, np.ndarray]:
    """(S, N) as named point fields; several scenarios are numbered."""
    if len(state) == 1:
        return {name: state[0]}
    return {f"{name}_{s:04d}": row for s, row in enumerate(state)}


def control_fields(
    problem: PDEProblem, control: np.ndarray, name: str = "control"
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(p,) as a point field or, for P0, a cell field: (point fields, cell fields)."""
    values = problem.control.on_mesh(control)
    space = problem.control.space
    if space.element == "P0":
        return {}, {name: values[np.asarray(space.basis.element_dofs)[0]]}
    if problem.space.element == space.element:
        return {name: values}, {}
    # A P1 control on the nodes of a P2 state.
    dofs = np.asarray(problem.space.basis.element_dofs)
    corners = values[np.asarray(space.basis.element_dofs)]
    reference = np.asarray(problem.space.basis.elem.doflocs).T
    functions = np.stack([space.basis.elem.lbasis(reference, c)[0] for c in range(len(corners))])
    nodes = np.zeros(problem.space.size)
    nodes[dofs] = np.einsum("ck,ce->ke", functions, corners)
    return {name: nodes}, {}


def final_fields(
    problem: PDEProblem, state: np.ndarray, control: np.ndarray, adjoint: np.ndarray, gradient: np.ndarray
) -> tuple[Grid, FieldData]:
    """The fields of final.vtu. The sensitivity is the gradient: what the objective gains a unit of control there."""
    control_points, control_cells = control_fields(problem, control)
    gradient_points, gradient_cells = control_fields(problem, gradient, "sensitivity")
    point = {
        **state_fields(problem, state),
        **control_points,
        **problem.fields,
        **state_fields(problem, adjoint, "adjoint"),
        **gradient_points,
    }
    return output_grid(problem), FieldData(point=point, cell={**control_cells, **gradient_cells})
