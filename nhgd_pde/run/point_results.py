"""Results on points and facets in place of the whole mesh: sensors with their misfits, controls of the boundary."""

from __future__ import annotations

import numpy as np
import torch

from ..control.controls import ControlSpace
from ..fem.cells import CELLS
from ..horizon_problem import HorizonProblem
from ..objective.sensor_terms import Readings
from ..output.fields import FieldData, Grid
from ..pde_problem import PDEProblem
from .drawing import split_controls, time_of

Fields = dict[str, np.ndarray]


def sensor_points(
    problem: PDEProblem, state: np.ndarray, control: np.ndarray, weights: np.ndarray | None = None
) -> tuple[Grid, FieldData]:
    """The sensors of all terms of the objective, of which there are some, as points.

    If the sensors are read over time and the states of the evolution are not all kept, its steps are made once more.

    `measured` and `computed` are values of the state, and `misfit` is computed - measured: a term is the sum of
    weight/2 misfit^2. `term` is the number of the term in the objective, and `time` that of a measurement. Components
    of a state that a sensor does not measure are NaN.

    Args:
        state: (S, N) coefficients.
        control: (p,) the control that they belong to.
        weights: (S,) of several scenarios, over which `computed` is the mean and `computed_std` the deviation.
    """
    group = problem.space.groups[0]
    shares = np.full(len(state), 1.0 / len(state)) if weights is None else weights
    parts: dict[str, list[np.ndarray]] = {}
    readings = _readings(problem, state, control)
    for term in readings:
        values = term.computed
        mean = np.tensordot(shares, values, 1)
        found = {"measured": term.measured, "computed": mean, "misfit": mean - term.measured}
        if len(state) > 1:
            found["computed_std"] = np.sqrt(np.maximum(np.tensordot(shares, (values - mean) ** 2, 1), 0.0))
        for name, some in found.items():
            whole = np.full((group.components, some.shape[1]), np.nan)
            whole[list(term.components)] = some
            parts.setdefault(name, []).append(whole)
        parts.setdefault("weight", []).append(term.weights)
        if any(each.times is not None for each in readings):
            times = np.full(len(term.weights), np.nan) if term.times is None else term.times
            parts.setdefault("time", []).append(times)
        parts.setdefault("term", []).append(np.full(len(term.weights), term.number, dtype=np.int32))
    points = np.concatenate([term.points for term in readings], axis=1).T
    fields: Fields = {}
    for name, each in parts.items():
        values = np.concatenate(each, axis=-1)
        if values.ndim == 1 or len(values) == 1:
            fields[name] = values.reshape(-1)
        elif group.labels:
            fields |= {f"{name}_{label}": own for label, own in zip(group.labels, values, strict=True)}
        else:
            fields |= _vector(name, values)
    return Grid(points, np.arange(len(points))[:, None], "vertex"), FieldData(fields)


def _readings(problem: PDEProblem, state: np.ndarray, control: np.ndarray) -> list[Readings]:
    over_time = any(term.times is not None for term in problem.sensors)
    if over_time and isinstance(problem, HorizonProblem):
        return problem.readings(torch.from_numpy(control).to(problem.control.initial))
    return [term.readings(state) for term in problem.sensors]


def _vector(name: str, values: np.ndarray) -> Fields:
    """(components, points) as a vector, or one by one where there are more than three."""
    return {name: values.T} if len(values) <= 3 else {f"{name}_{k}": own for k, own in enumerate(values)}


def boundary_controls(
    problem: PDEProblem, control: np.ndarray, gradient: np.ndarray, level: int = -1
) -> tuple[Grid, FieldData]:
    """The facets that some controls act on, with control and sensitivity, of an evolution at one of its times.

    The fields have the names of final.vtu. Values in P1 are those of points, others those of facets; NaN stands where
    a control does not act. A control that is one number there has this number on all its facets.
    """
    acting = [part for part in problem.control.parts if part.facets is not None]
    mesh, cell = problem.space.domain.mesh, problem.space.domain.cell
    facets = np.unique(np.concatenate([np.asarray(part.facets) for part in acting]))
    corners = _corners(problem, facets)
    nodes, cells = np.unique(corners, return_inverse=True)
    steps = problem.control.steps
    step = (level if level < 0 else max(level - 1, 0)) % steps
    points: Fields = {}
    values: Fields = {}
    for name, coefficients in (("control", control), ("sensitivity", gradient)):
        for key, own in split_controls(problem, coefficients).items():
            part = next(each for each in problem.control.parts if each.name == key)
            if part.facets is None:
                continue
            label = name if len(problem.control.parts) == 1 else f"{name}_{key}"
            row = own if part.steps is None else own[step * len(own) // steps]
            where, found = _placed(problem, part, row, nodes, facets)
            (points if where == "points" else values)[label] = found
    grid = Grid(mesh.p.T[nodes], cells.reshape(corners.shape), CELLS[cell].facet)
    return grid, FieldData(points, values, time_of(problem, level))


def _corners(problem: PDEProblem, facets: np.ndarray) -> np.ndarray:
    """(facets, corners) the vertices of facets, around each facet."""
    mesh, cell = problem.space.domain.mesh, problem.space.domain.cell
    corners = np.asarray(mesh.facets)[:, facets].T
    if cell != "hexahedron":
        return corners
    # The numbers of the corners of a quadrilateral are sorted; around it they follow one another by their angle.
    x = mesh.p.T[corners]
    middle = x.mean(axis=1, keepdims=True)
    first = x[:, 0] - middle[:, 0]
    normal = np.cross(first, x[:, 1] - middle[:, 0])
    flat = np.linalg.norm(normal, axis=1) <= 1e-9 * (first**2).sum(axis=1)
    normal[flat] = np.cross(first, x[:, 2] - middle[:, 0])[flat]
    across = np.cross(normal, first)
    angle = np.arctan2(
        np.einsum("fcx,fx->fc", x - middle, across) / np.linalg.norm(across, axis=1, keepdims=True),
        np.einsum("fcx,fx->fc", x - middle, first) / np.linalg.norm(first, axis=1, keepdims=True),
    )
    return np.take_along_axis(corners, np.argsort(angle, axis=1), axis=1)


def _placed(
    problem: PDEProblem, part: ControlSpace, row: np.ndarray, nodes: np.ndarray, facets: np.ndarray
) -> tuple[str, np.ndarray]:
    """A control in one step at the vertices `nodes`, or on the facets; NaN where it does not act."""
    assert part.facets is not None
    count, own = part.components, np.isin(facets, part.facets)
    if part.space is None:
        values = np.full((count, len(facets)), np.nan)
        values[:, own] = row.reshape(count, -1)[:, :1]
        return "facets", _columns(values)
    whole = part.on_mesh(row)
    if part.space.element == "P0":
        inner = np.asarray(problem.space.domain.mesh.f2t)[0, facets[own]]
        values = np.full((count, len(facets)), np.nan)
        values[:, own] = whole[:, np.asarray(part.space.basis.element_dofs)[0, inner]]
        return "facets", _columns(values)
    assert part.dofs is not None
    # A Dirichlet control leaves out nodes that have the value of another side.
    acts = np.isin(np.arange(part.space.size), part.dofs)
    dofs = np.asarray(part.space.on_mesh.basis.nodal_dofs)[0, nodes]
    reached = np.isin(nodes, _corners(problem, facets[own])) & part.space.spread(acts[None])[0, dofs]
    values = np.full((count, len(nodes)), np.nan)
    values[:, reached] = part.space.spread(whole)[:, dofs[reached]]
    return "points", _columns(values)


def _columns(values: np.ndarray) -> np.ndarray:
    return values[0] if len(values) == 1 else values.T
