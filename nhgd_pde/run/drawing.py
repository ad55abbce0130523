"""The fields of a problem for ParaView and for pictures: values at the nodes of the mesh."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..control.controls import ControlSpace
from ..fem.cells import CELLS
from ..fem.interpolation import interpolation
from ..fem.state_space import FieldGroup
from ..output.fields import FieldData, Grid
from ..pde_problem import PDEProblem
from .result_fields import cell_fields, with_magnitudes

Fields = dict[str, np.ndarray]

# For each kind of cell: its name with the nodes of P2, and scikit-fem's number of each node in VTK's order.
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
    """The mesh with the nodes of the first field of the state, P2 nodes included."""
    basis, domain = problem.space.parts[0].on_mesh.basis, problem.space.domain
    if problem.space.element == "P2":
        kind, order = _P2_CELLS[domain.cell]
        return Grid(np.asarray(basis.doflocs).T, np.asarray(basis.element_dofs)[list(order)].T, kind)
    return Grid(domain.mesh.p.T, domain.mesh.t[list(CELLS[domain.cell].order)].T, domain.cell)


def levels(problem: PDEProblem) -> int:
    """Number of times at which an evolution has a state; 1 for a steady problem."""
    return problem.equation.size // problem.space.size


def state_fields(problem: PDEProblem, state: np.ndarray, name: str = "state", level: int = -1) -> Fields:
    """Coefficients (S, N) as named point fields, of an evolution at one of its levels; several scenarios are numbered.

    The state is called by the names of its groups of fields, such as `displacement`, or `velocity` and `pressure`.
    Other coefficients are called `name`, or, with several groups, `name_velocity` and `name_pressure`.
    """
    found: Fields = {}
    for s, row in enumerate(state.reshape(len(state), -1, problem.space.size)[:, level]):
        suffix = "" if len(state) == 1 else f"_{s:04d}"
        parts, first = problem.space.split(row), 0
        for group in problem.space.groups:
            components = [_on_nodes(problem, first + i, parts[first + i]) for i in range(group.components)]
            first += group.components
            for label, values in _named(_title(group, name, len(problem.space.groups)), group, components):
                found[label + suffix] = values
    return found


def _title(group: FieldGroup, name: str, groups: int) -> str:
    if name == "state":
        return group.name
    return name if groups == 1 else f"{name}_{group.name}"


def _named(name: str, group: FieldGroup, components: list[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    if group.labels:
        yield from ((f"{name}_{label}", values) for label, values in zip(group.labels, components, strict=True))
    elif len(components) == 1:
        yield name, components[0]
    else:
        yield name, np.stack(components, axis=-1)


def _on_nodes(problem: PDEProblem, field: int, values: np.ndarray) -> np.ndarray:
    """Values of one field at the nodes of the grid."""
    space, first = problem.space.parts[field], problem.space.parts[0]
    on_mesh = space.spread(values)
    same = space is first or space.element == first.element
    return on_mesh if same else interpolation(space.on_mesh, first.on_mesh) @ on_mesh


def split_controls(problem: PDEProblem, control: np.ndarray) -> Fields:
    """(p,) as the coefficients of each control by its name, (m,), or (steps or windows, m) where it varies in time."""
    pieces = zip(problem.control.parts, np.split(control, problem.control.rows.offsets[1:-1]), strict=True)
    return {part.name: own.reshape(part.steps, -1) if part.steps else own for part, own in pieces}


def control_numbers(problem: PDEProblem, control: np.ndarray) -> dict[str, list[float]]:
    """The values of the controls that are numbers and not fields."""
    numbers = {part.name for part in problem.control.parts if part.space is None}
    return {name: own.reshape(-1).tolist() for name, own in split_controls(problem, control).items() if name in numbers}


def control_fields(
    problem: PDEProblem, control: np.ndarray, name: str = "control", step: int = -1
) -> tuple[Fields, Fields]:
    """A control (p,) as (point fields, cell fields); one that varies in time, in one step.

    Controls that are numbers are left out.
    """
    points: Fields = {}
    cells: Fields = {}
    for part, own in zip(problem.control.parts, split_controls(problem, control).values(), strict=True):
        if part.space is None:
            continue
        own = own.reshape(part.steps or 1, part.columns)
        label = name if len(problem.control.parts) == 1 else f"{name}_{part.name}"
        steps = problem.control.steps
        values, on_cells = _control_values(problem, part, own[step % steps * len(own) // steps])
        (cells if on_cells else points)[label] = values[0] if len(values) == 1 else values.T
    return points, cells


def density_fields(problem: PDEProblem, control: np.ndarray) -> tuple[Fields, Fields]:
    """The densities, filtered and projected, as they enter the equation, as (point fields, cell fields)."""
    points: Fields = {}
    cells: Fields = {}
    densities = [part for part in problem.control.parts if part.material is not None]
    if not densities:
        return points, cells
    v = torch.from_numpy(control).to(problem.equation.lift.device)
    physical = problem.control.split(problem.control.physical(v))
    for part, values in zip(problem.control.parts, physical, strict=True):
        if part.material is not None:
            label = "density" if len(densities) == 1 else f"density_{part.name}"
            found, on_cells = _control_values(problem, part, part.material(values).cpu().numpy())
            (cells if on_cells else points)[label] = found[0]
    return points, cells


def _control_values(problem: PDEProblem, part: ControlSpace, row: np.ndarray) -> tuple[np.ndarray, bool]:
    """(components, nodes or cells), and whether they are values of cells."""
    values, space = part.on_mesh(row), part.space
    assert space is not None
    if space.element == "P0":
        return values[:, np.asarray(space.basis.element_dofs)[0]], True
    on_mesh = space.spread(values)
    if problem.space.element == space.element:
        return on_mesh, False
    return (interpolation(space.on_mesh, problem.space.parts[0].on_mesh) @ on_mesh.T).T, False


def target_fields(problem: PDEProblem, step: int = -1) -> Fields:
    """The targets that the objective compares the state with; those that vary in time, in one step."""
    found: Fields = {}
    group = problem.space.groups[0]
    for name, rows in problem.fields.items():
        parts = problem.space.split(rows[min(step, len(rows) - 1)])[: group.components]
        components = [space.spread(part) for space, part in zip(problem.space.parts, parts, strict=False)]
        found.update(_named(name, group, components))
    return found


def multiplier_fields(problem: PDEProblem, level: int = -1) -> Fields:
    """The multipliers of the bounds of the state, of several bounds added up: densities, positive at upper bounds.

    Their unit is that of the objective over those of the state and of the measure of the region.
    """
    if not problem.relaxations:
        return {}
    whole = np.zeros((1, problem.equation.size))
    for each in problem.relaxations:
        whole[0, each.bounds.indices.cpu().numpy()] += each.multiplier.mean(0).cpu().numpy()
    return state_fields(problem, whole, "multiplier", level)


def final_fields(
    problem: PDEProblem,
    state: np.ndarray,
    control: np.ndarray,
    adjoint: np.ndarray,
    gradient: np.ndarray,
    level: int = -1,
    states: Fields | None = None,
) -> tuple[Grid, FieldData]:
    """The fields of final.vtu, of an evolution at one of its levels.

    `states` are the fields of the state if it has several scenarios; the adjoint is then their mean. The sensitivity is
    the gradient: the change of the objective by a unit of the control there. Coefficients of the equation and
    quantities such as a stress are means over the cells; see `cell_fields`.
    """
    step = level if level < 0 else max(level - 1, 0)
    control_points, control_cells = control_fields(problem, control, step=step)
    density_points, density_cells = density_fields(problem, control)
    gradient_points, gradient_cells = control_fields(problem, gradient, "sensitivity", step)
    point = {
        **with_magnitudes(state_fields(problem, state, level=level) if states is None else states),
        **control_points,
        **density_points,
        **with_magnitudes(target_fields(problem, step)),
        **multiplier_fields(problem, level),
        **with_magnitudes(state_fields(problem, adjoint, "adjoint", level)),
        **gradient_points,
    }
    cell = {**control_cells, **density_cells, **gradient_cells}
    # Quantities such as a stress are not those of the mean of several states.
    one = state.reshape(levels(problem), -1)[level] if states is None and len(state) == 1 else None
    further, left_out = cell_fields(problem, one, control, step, {*point, *cell})
    return output_grid(problem), FieldData(point, {**cell, **further}, time_of(problem, level), left_out)


def time_of(problem: PDEProblem, level: int) -> float:
    """The time of a level of an evolution, that of the end where only this state is kept; 0 for a steady problem."""
    count = levels(problem)
    return problem.equation.measure * (level % count) if count > 1 else getattr(problem, "end", 0.0)
