"""Integrals over parts of the boundary and at points: those that a problem file names, and those that controls need."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor

from ..fem.state_space import StateSpace
from ..pde.boundary import neumann, robin
from ..pde.form import Integral, Pointwise
from ..problem_file.catalogue import EQUATIONS, found_at
from ..problem_file.equation_parts import Vector
from ..problem_file.expressions import Expression
from .boundary_facets import fixed_facets
from .entry import Entry
from .families.base import equation_of
from .integrals import POINTS, guarded_integral
from .points import point_of_mesh
from .values import Values


def boundary_conditions(
    values: Values, state: StateSpace, facets: Mapping[str, np.ndarray], entries: list[Entry]
) -> dict[str, Integral]:
    """The integrals over sides and at points by the names of their conditions, without controls."""
    pde = values.file.spec.pde
    found: dict[str, Integral] = {}

    def add(name: str, made: partial[Integral | None]) -> None:
        integral = values.kept(("condition", name), values.names.in_integral(name), made)
        if integral is not None:
            found[name] = integral

    for name, indices in facets.items():
        if pde.boundary[name].dirichlet is None and len(indices):
            add(name, partial(side_condition, values, state, name, indices))
    found |= values.once("controlled sides", partial(_controlled_sides, values, state, dict(found), entries, facets))
    for number, point in enumerate(pde.points):
        if point.load is not None:
            add(f"{POINTS}{number}", partial(point_load, values, state, number))
    return found


def side_condition(values: Values, state: StateSpace, name: str, indices: np.ndarray) -> Integral | None:
    """The condition of the file on a side with facets `indices`, if not a Dirichlet one; None after a complaint."""
    condition, key = values.file.spec.pde.boundary[name], f"pde.boundary.{name}"
    evaluation = values.once(("facets", name), lambda: state.facets(indices))
    x = evaluation.quadrature.flat

    def integral(form: Pointwise, coefficients: dict[str, Tensor], keys: dict[str, str]) -> Integral:
        return guarded_integral(
            values, evaluation, form, coefficients | values.companions(key, evaluation.quadrature), keys, name
        )

    if condition.neumann is not None:
        flux = _data(values, state, key, "flux", f"{key}.neumann", condition.neumann, x)
        return integral(neumann, {"flux": flux}, {"flux": f"{key}.neumann"})
    if condition.robin is not None:
        keys = {each: f"{key}.robin.{each}" for each in ("coefficient", "value")}
        transfer = values.coefficient("coefficient", keys["coefficient"], condition.robin.coefficient, x, key)
        value = _data(values, state, key, "value", keys["value"], condition.robin.value, x)
        return integral(robin, {"coefficient": values.tensor(transfer), "value": value}, keys)
    pde = equation_of(values.file)
    if not pde.absorbs:
        known = " or ".join(kind for kind, place in EQUATIONS.items() if found_at(place).absorbs)
        message = f"expected an equation of kind {known} for an absorbing boundary, found {pde.kind!r}"
        values.complain(f"{key}.absorbing", message)
        return None
    form, coefficients = pde.absorbing(values, x, np.asarray(state.domain.mesh.f2t[0, indices]), key)
    return integral(form, coefficients, {each: f"pde.{each}" for each in coefficients})


def point_load(values: Values, state: StateSpace, number: int) -> Integral | None:
    """The load at one of the points of the file; None after a complaint."""
    load, name = values.file.spec.pde.points[number].load, f"{POINTS}{number}"
    where = values.once(("point", number), lambda: point_of_mesh(values, state, number))
    if where is None or load is None:
        return None
    evaluation = values.once(("functions at point", number), lambda: state.points(where))
    x = evaluation.quadrature.flat
    flux = _data(values, state, name, "flux", f"{name}.load", load, x)
    coefficients = {"flux": flux} | values.companions(name, evaluation.quadrature)
    return guarded_integral(values, evaluation, neumann, coefficients, {"flux": f"{name}.load"}, name)


def _data(
    values: Values, state: StateSpace, place: str, name: str, key: str, value: Expression | Vector, x: Tensor
) -> Tensor:
    """(P,) or (rows, P) of a scalar state, (components, rows, P) of a vector."""
    count = state.groups[0].components
    if count == 1:
        return values.tensor(values.coefficient(name, key, values.single(key, value), x, place))
    return values.tensor(values.components(key, value, count, x, place=place, name=name))


def _controlled_sides(
    values: Values,
    state: StateSpace,
    conditions: Mapping[str, Integral],
    entries: list[Entry],
    facets: Mapping[str, np.ndarray],
) -> dict[str, Integral]:
    """Integrals that controls act in and the file does not name, by side; complain of controls that cannot act."""
    everywhere = reduce(np.intersect1d, fixed_facets(values, state, facets))
    found: dict[str, Integral] = {}
    for entry in entries:
        name, indices = entry.side, entry.facets
        if name is None or indices is None or name not in state.domain.facets:
            continue
        if entry.data is not None:
            _check_only_fixed(values, entry, facets)
            continue
        fixing = _fixing(values, entry, entries, facets, everywhere)
        if fixing is not None:
            hint = f"; give {name} a condition of its own" if fixing == "pde.boundary.all" and name != "all" else ""
            message = f"expected a part of the boundary where u is free, found {name!r}, where {fixing} fixes it{hint}"
            values.complain(f"{entry.key}.on", message)
            continue
        given = {**conditions, **found}.get(name)
        _check_condition(values, entry, given, name in facets)
        if given is None and name not in facets and "flux" in entry.acts_on:
            found[name] = _no_flux(values, state, name, indices)
    return found


def _fixing(
    values: Values, entry: Entry, entries: list[Entry], facets: Mapping[str, np.ndarray], everywhere: np.ndarray
) -> str | None:
    """The key of the condition or control that fixes the state where a control acts; None if the state is free there.

    Args:
        everywhere: the facets on which the file fixes every component.
    """
    indices = entry.facets
    other = next((each.key for each in entries if each.data is not None and _meet(each.facets, indices)), None)
    if not _meet(everywhere, indices) and other is None:
        return None
    boundary = values.file.spec.pde.boundary
    given = (name for name in facets if boundary[name].dirichlet is not None and _meet(facets[name], indices))
    return next((f"pde.boundary.{name}" for name in given), other)


def _meet(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether two sets of facets have some in common."""
    return one is not None and other is not None and len(np.intersect1d(one, other)) > 0


def _check_condition(values: Values, entry: Entry, given: Integral | None, named: bool) -> None:
    """Complain of the condition on a side, whose integral is `given`, if the control of that side cannot act there.

    `named` tells whether the file has a condition for the side.
    """
    name, wanted = entry.side, neumann if "flux" in entry.acts_on else robin
    if (given is None and named) or (given is not None and given.form is not wanted):
        kind = "neumann" if wanted is neumann else "robin"
        message = f"expected a {kind} condition or none on {name!r}, which a {kind} control acts on"
        values.complain(f"pde.boundary.{name}", message)
    elif wanted is robin and given is None:
        message = f"expected a robin condition on {name!r}, whose value a robin control changes; found none"
        values.complain(f"{entry.key}.on", message)
    elif wanted is robin and given is not None and not torch.count_nonzero(given.coefficients["coefficient"]):
        message = "expected a coefficient that is not zero everywhere, as a robin control acts through it"
        values.complain(f"pde.boundary.{name}.robin.coefficient", message)


def _no_flux(values: Values, state: StateSpace, name: str, indices: np.ndarray) -> Integral:
    """The integral over a side without a condition, to which a control adds a flux."""
    evaluation, count = state.facets(indices), state.groups[0].components
    shape = (count, 1) if count > 1 else ()
    zero = evaluation.quadrature.weights.new_zeros(*shape, evaluation.quadrature.points)
    return guarded_integral(values, evaluation, neumann, {"flux": zero}, {}, name)


def _check_only_fixed(values: Values, entry: Entry, facets: Mapping[str, np.ndarray]) -> None:
    """Complain of a flux or an exchange where a control fixes the state, which would have no effect."""
    for name, indices in facets.items():
        condition = values.file.spec.pde.boundary[name]
        if condition.dirichlet is None and not condition.no_flux and _meet(indices, entry.facets):
            message = f"expected a dirichlet condition or none on {entry.side!r}, whose values {entry.key} controls"
            values.complain(f"pde.boundary.{name}", f"{message}; found {condition.condition}")
