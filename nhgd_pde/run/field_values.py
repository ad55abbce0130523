"""Values of the fields of an answer at points, and integrals of expressions in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import skfem

from ..fem.interpolation import OutsideMeshError, at_points
from ..fem.spaces import Space, space
from ..output.fields import FieldData
from ..pde_problem import PDEProblem
from ..problem_file.expressions import COORDINATES, Expression, ExpressionError


def values_at(problem: PDEProblem, data: FieldData, points: np.ndarray, name: str) -> np.ndarray:
    """Values (k,), (k, components) or (k, 3, 3) of a field of final.vtu at points (k, dim).

    The name `state` stands for the first field of any state: a displacement, a velocity, a complex field.

    Raises:
        ValueError: there is no such field, the points have another dimension, or one is outside the mesh.
    """
    dim = problem.space.domain.dim
    x = np.asarray(points, dtype=float)
    x = x.reshape(-1, 1) if dim == 1 and x.ndim < 2 else np.atleast_2d(x)
    if x.ndim != 2 or x.shape[1] != dim or not np.isfinite(x).all():
        raise ValueError(f"points: expected finite coordinates of shape (k, {dim}), found shape {np.shape(points)}")
    where, values = _field(problem, data, name)
    try:
        found = np.asarray(at_points(where, np.ascontiguousarray(x.T)) @ values.reshape(len(values), -1))
    except OutsideMeshError as outside:
        raise ValueError(f"points: row {outside.index}: {outside}") from None
    return found.reshape(len(found), *values.shape[1:])


def _field(problem: PDEProblem, data: FieldData, name: str) -> tuple[Space, np.ndarray]:
    """The space and the values of a field; `state` is the first field of every state, whatever its name is."""
    first = problem.space.parts[0].on_mesh
    if name in data.point:
        return first, data.point[name]
    if name in data.cell:
        return space(first.domain, "P0", first.device), data.cell[name]
    group = problem.space.groups[0]
    if name == "state" and group.complex:
        real, imaginary = (data.point[f"{group.name}_{label}"] for label in group.labels)
        return first, real + 1j * imaginary
    if name == "state" and group.name in data.point:
        return first, data.point[group.name]
    raise ValueError(f"expected one of {', '.join([*data.point, *data.cell])}, found {name!r}")


def integral(problem: PDEProblem, data: FieldData, expression: str | float, on: str | None) -> float:
    """The integral of an expression in x, y, z, r, t and the names of fields over the domain or a part of it.

    Components of vectors are `name_x`, `name_y`, `name_z`, and those of matrices `name_xx`, ... Points are those of a
    rule that is exact for polynomials of degree four, and of degree six in P2.

    Raises:
        ValueError: there is no such part; the expression is wrong.
    """
    basis = _basis(problem, on)
    fields = {label: own for name in (*data.point, *data.cell) for label, own in _components(data, name)}
    try:
        parsed = Expression(expression, fields)
        used = {label: own.at(basis) for label, own in fields.items() if label in parsed.variables}
        values = parsed.numpy(np.asarray(basis.global_coordinates()), t=data.time, **used)
    except ExpressionError as error:
        raise ValueError(f"{expression!r}: {error}") from None
    return float((values * basis.dx).sum())


def _basis(problem: PDEProblem, on: str | None) -> skfem.CellBasis | skfem.FacetBasis:
    domain, first = problem.space.domain, problem.space.parts[0]
    order = 6 if first.element == "P2" else 4
    if on is None:
        return skfem.CellBasis(domain.geometry, first.basis.elem, intorder=order)
    if on in domain.subdomains:
        return skfem.CellBasis(domain.geometry, first.basis.elem, elements=domain.subdomains[on], intorder=order)
    if on in domain.facets:
        return skfem.FacetBasis(domain.geometry, first.basis.elem, facets=domain.facets[on], intorder=order)
    known = ", ".join([*domain.subdomains, *domain.facets])
    raise ValueError(f"expected a subdomain or a part of the boundary ({known}), found {on!r}")


@dataclass(frozen=True, eq=False)
class _Component:
    """One component of a field, and whether its values are those of cells."""

    values: np.ndarray
    of_cells: bool

    def at(self, basis: skfem.CellBasis | skfem.FacetBasis) -> np.ndarray:
        """The values (cells, points) at the points of a basis."""
        if not self.of_cells:
            return np.asarray(basis.interpolate(self.values))
        # A facet between two cells takes the values of the first.
        own = self.values if basis.tind is None else self.values[np.asarray(basis.tind)]
        return np.repeat(own[:, None], basis.dx.shape[1], axis=1)


def _components(data: FieldData, name: str) -> Iterator[tuple[str, _Component]]:
    """The components of a field by their names: `name`, `name_x` of a vector, `name_xy` of a matrix."""
    of_cells = name not in data.point
    values = data.cell[name] if of_cells else data.point[name]
    axes = product(COORDINATES, repeat=values.ndim - 1)
    for axis, labels in zip(product(range(3), repeat=values.ndim - 1), axes, strict=True):
        if all(i < count for i, count in zip(axis, values.shape[1:], strict=True)):
            suffix = f"_{''.join(labels)}" if labels else ""
            yield name + suffix, _Component(np.moveaxis(values, 0, -1)[axis], of_cells)
