"""Values of the fields of an answer at points, and integrals of expressions in them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import skfem

from ..fem.interpolation import OutsideMeshError, at_points
from ..fem.spaces import space
from ..output.fields import FieldData
from ..pde_problem import PDEProblem
from ..problem_file.expressions import COORDINATES, Expression, ExpressionError


def values_at(problem: PDEProblem, data: FieldData, points: np.ndarray, name: str) -> np.ndarray:
    """Values (k,) or (k, components) of a field of final.vtu at points (k, dim).

    Raises:
        ValueError: there is no such field, the points have another dimension, or one is outside the mesh.
    """
    first, dim = problem.space.parts[0].on_mesh, problem.space.domain.dim
    x = np.asarray(points, dtype=float)
    x = x.reshape(-1, 1) if dim == 1 and x.ndim < 2 else np.atleast_2d(x)
    if x.ndim != 2 or x.shape[1] != dim or not np.isfinite(x).all():
        raise ValueError(f"points: expected finite coordinates of shape (k, {dim}), found shape {np.shape(points)}")
    if name in data.point:
        where, values = first, data.point[name]
    elif name in data.cell:
        where, values = space(first.domain, "P0", first.device), data.cell[name]
    else:
        raise ValueError(f"expected one of {', '.join([*data.point, *data.cell])}, found {name!r}")
    try:
        return np.asarray(at_points(where, np.ascontiguousarray(x.T)) @ values)
    except OutsideMeshError as outside:
        raise ValueError(f"points: row {outside.index}: {outside}") from None


def integral(problem: PDEProblem, data: FieldData, expression: str | float, on: str | None) -> float:
    """The integral of an expression in x, y, z, r, t and the names of fields over the domain or a part of it.

    Components of vectors are `name_x`, `name_y`, `name_z`. Points are those of a rule that is exact for polynomials of
    degree four, and of degree six in P2.

    Raises:
        ValueError: there is no such part; the expression is wrong.
    """
    basis = _basis(problem, on)
    named = dict(_fields(problem, data, basis))
    try:
        parsed = Expression(expression, named)
        values = parsed.numpy(np.asarray(basis.global_coordinates()), t=data.time, **named)
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


def _fields(problem: PDEProblem, data: FieldData, basis: skfem.CellBasis) -> Mapping[str, np.ndarray]:
    """The components of every field at the points (cells, points) of a basis, by their names."""
    found: dict[str, np.ndarray] = {}
    cells = np.arange(problem.space.domain.mesh.nelements)
    # A facet between two cells takes the values of the first.
    cells = cells if basis.tind is None else np.asarray(basis.tind)
    for name, values in (*data.point.items(), *data.cell.items()):
        for label, own in _components(name, values):
            if name in data.point:
                found[label] = np.asarray(basis.interpolate(own))
            else:
                found[label] = np.repeat(own[cells][:, None], basis.dx.shape[1], axis=1)
    return found


def _components(name: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    if values.ndim == 1:
        return [(name, values)]
    return [(f"{name}_{axis}", own) for axis, own in zip(COORDINATES, values.T, strict=False)]
