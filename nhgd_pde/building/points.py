"""Loads and supports at single points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..fem.state_space import StateSpace
from ..problem_file.expressions import Expression
from .evaluator import point_text
from .values import Values


def point_of_mesh(values: Values, state: StateSpace, number: int) -> np.ndarray | None:
    """One of the points of the file, (dim, 1); None after a complaint about a point outside of the mesh."""
    key, point = f"pde.points.{number}.at", values.file.spec.pde.points[number].at
    dim = state.domain.dim
    if len(point) != dim:
        values.complain(key, f"expected {dim} coordinates, found {len(point)}")
        return None
    where = np.array(point)[:, None]
    if not state.contains(where):
        values.complain(key, f"expected a point of the mesh, found {point_text(where, 0)}, which is outside")
        return None
    return where


def fix_point(
    values: Values, state: StateSpace, number: int, give: Callable[[str, Expression, np.ndarray, np.ndarray], None]
) -> None:
    """Give the Dirichlet values of the file at a node, by calls `give(key, expression, dofs, all nodes)`."""
    count, key = state.groups[0].components, f"pde.points.{number}"
    given, where = values.file.spec.pde.points[number].dirichlet, point_of_mesh(values, state, number)
    if where is None:
        return
    if isinstance(given, tuple) != (count > 1) or (isinstance(given, tuple) and len(given) != count):
        expected = f"a list of {count} values, one a component" if count > 1 else "one value"
        found = f"a list of {len(given)}" if isinstance(given, tuple) else "one"
        values.complain(f"{key}.dirichlet", f"expected {expected}, found {found}")
        return
    for i in range(count):
        value = given[i] if isinstance(given, tuple) else given
        if value is None:
            continue
        nodes = state.parts[i].on_mesh.nodes
        distances = np.linalg.norm(nodes - where, axis=0)
        nearest = int(np.argmin(distances))
        if distances[nearest] > 1e-8 * np.ptp(nodes, axis=1).max():
            message = f"expected a node of the mesh, found none at {point_text(where, 0)}; "
            values.complain(f"{key}.at", message + f"the nearest is {point_text(nodes, nearest)}")
            return
        at = f"{key}.dirichlet.{i}" if isinstance(given, tuple) else f"{key}.dirichlet"
        part = state.parts[i]
        dof = state.offsets[i] + (nearest if part.unglued is None else part.numbers[nearest])
        give(at, value, np.array([dof]), state.nodes)
