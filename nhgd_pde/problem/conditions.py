"""Integrals over parts of the boundary and at points: those a problem file names, and those controls act in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from ..control.spaces import Controls
from ..fem.evaluation import Evaluation, side_by_side
from ..fem.state_space import StateSpace
from ..pde.boundary import neumann, robin
from ..pde.form import ClosedForm, ControlMap, Integral, Pointwise
from .boundary import fixed_facets
from .entry import Entry
from .families import FAMILIES
from .points import point_of_mesh
from .values import Values


@dataclass(frozen=True)
class Condition:
    """An integral over a part of the boundary or the cells, before controls are added.

    Attributes:
        evaluation: the state's functions there.
        form: the integrand.
        coefficients: what it uses.
        closed: see `Interior`.
    """

    evaluation: Evaluation
    form: Pointwise
    coefficients: dict[str, Tensor]
    closed: ClosedForm | None = None


def boundary_conditions(
    values: Values, state: StateSpace, facets: dict[str, np.ndarray], entries: list[Entry]
) -> tuple[dict[str, Condition], bool, bool]:
    """Integrals over the boundary; whether one fixes the level of u; whether all have positive energy."""
    conditions: dict[str, Condition] = {}
    for name, indices in facets.items():
        if values.file.spec.pde.boundary[name].dirichlet is None and len(indices):
            found = side_condition(values, state, name, indices, state.facets(indices))
            if found is not None:
                conditions[name] = found
    exchange = [each.coefficients["coefficient"] for each in conditions.values() if each.form is robin]
    absorbing = any(bool((transfer != 0.0).any()) for transfer in exchange)
    coercive = all(bool((transfer >= 0.0).all()) for transfer in exchange)
    _controlled(values, state, conditions, entries, facets)
    for k, point in enumerate(values.file.spec.pde.points):
        where = None if point.load is None else point_of_mesh(values, state, k)
        if where is not None:
            conditions[f"pde.points.{k}"] = point_load(values, state, k, state.points(where))
    return conditions, absorbing, coercive


def side_condition(
    values: Values, state: StateSpace, name: str, indices: np.ndarray, evaluation: Evaluation
) -> Condition | None:
    """What the file says of a side, its facets `indices`, besides Dirichlet values; None after a complaint."""
    condition, key = values.file.spec.pde.boundary[name], f"pde.boundary.{name}"
    x = evaluation.quadrature.flat
    if condition.neumann is not None:
        return Condition(evaluation, neumann, {"flux": _data(values, state, f"{key}.neumann", condition.neumann, x)})
    if condition.robin is not None:
        transfer = values.formula(f"{key}.robin.coefficient", condition.robin.coefficient, x)
        value = _data(values, state, f"{key}.robin.value", condition.robin.value, x)
        return Condition(evaluation, robin, {"coefficient": values.tensor(transfer), "value": value})
    pde = values.file.spec.pde
    make = FAMILIES[pde.kind].absorbing
    if make is None:
        known = ", ".join(kind for kind, family in FAMILIES.items() if family.absorbing is not None)
        message = f"expected an equation of kind {known} for an absorbing boundary, found {pde.kind!r}"
        values.complain(f"{key}.absorbing", message)
        return None
    return Condition(evaluation, *make(values, pde, x, np.asarray(state.domain.mesh.f2t[0, indices])))


def point_load(values: Values, state: StateSpace, number: int, evaluation: Evaluation) -> Condition:
    """The load at one of the points of the file."""
    load = values.file.spec.pde.points[number].load
    flux = _data(values, state, f"pde.points.{number}.load", load, evaluation.quadrature.flat)
    return Condition(evaluation, neumann, {"flux": flux})


def _data(values: Values, state: StateSpace, key: str, value: object, x: Tensor) -> Tensor:
    """(P,) or (rows, P) of a scalar state, (components, rows, P) of a vector."""
    count = state.groups[0].components
    if count == 1:
        return values.tensor(values.formula(key, value, x))  # type: ignore[arg-type]
    return values.tensor(values.components(key, value, count, x))  # type: ignore[arg-type]


def _controlled(
    values: Values,
    state: StateSpace,
    conditions: dict[str, Condition],
    entries: list[Entry],
    facets: dict[str, np.ndarray],
) -> None:
    """Add the integrals that controls act in and the file does not name; complain where they cannot act."""
    fixing = {each.key: each.facets for each in entries if each.data is not None and each.facets is not None}
    fixed = fixed_facets(values, state, facets)
    everywhere = reduce(np.intersect1d, fixed)
    for entry in entries:
        name, indices = entry.side, entry.facets
        if name is None or indices is None or name not in state.domain.facets:
            continue
        if entry.data is not None:
            _only_fixed(values, entry, facets)
            continue
        wanted = neumann if "flux" in entry.acts_on else robin
        given = conditions.get(name)
        kind = "neumann" if wanted is neumann else "robin"
        other = next((key for key, its in fixing.items() if len(np.intersect1d(its, indices))), None)
        if len(np.intersect1d(indices, everywhere)) or other is not None:
            by = next((f"pde.boundary.{n}" for n in facets if _fixes(values, n, facets, indices)), other)
            hint = f"; give {name} a condition of its own" if by == "pde.boundary.all" and name != "all" else ""
            message = f"expected a part of the boundary where u is free, found {name!r}, where {by} fixes it{hint}"
            values.complain(f"{entry.key}.on", message)
        elif (given is not None and given.form is not wanted) or (given is None and name in facets):
            message = f"expected a {kind} condition or none on {name!r}, which a {kind} control acts on"
            values.complain(f"pde.boundary.{name}", message)
        elif given is None and wanted is robin:
            message = f"expected a robin condition on {name!r}, whose value a robin control changes; found none"
            values.complain(f"{entry.key}.on", message)
        elif wanted is robin and given is not None and not torch.count_nonzero(given.coefficients["coefficient"]):
            message = "expected a coefficient that is not zero everywhere, as a robin control acts through it"
            values.complain(f"pde.boundary.{name}.robin.coefficient", message)
        elif given is None:
            evaluation = state.facets(indices)
            count = state.groups[0].components
            zero = evaluation.quadrature.weights.new_zeros(
                *([count, 1] if count > 1 else []), evaluation.quadrature.points
            )
            conditions[name] = Condition(evaluation, neumann, {"flux": zero})


def _fixes(values: Values, name: str, facets: dict[str, np.ndarray], indices: np.ndarray) -> bool:
    given = values.file.spec.pde.boundary[name].dirichlet
    return given is not None and len(np.intersect1d(facets[name], indices)) > 0


def _only_fixed(values: Values, entry: Entry, facets: dict[str, np.ndarray]) -> None:
    """A flux or an exchange where a control fixes the state would have no effect."""
    assert entry.facets is not None
    for name, indices in facets.items():
        condition = values.file.spec.pde.boundary[name]
        nothing = condition.neumann is not None and getattr(condition.neumann, "constant", None) == 0.0
        if condition.dirichlet is None and not nothing and len(np.intersect1d(indices, entry.facets)):
            kind = next(each for each in ("neumann", "robin", "absorbing") if getattr(condition, each) is not None)
            message = f"expected a dirichlet condition or none on {entry.side!r}, whose values {entry.key} controls"
            values.complain(f"pde.boundary.{name}", f"{message}; found {kind}")


def integral_of(condition: Condition, name: str | None, entries: list[Entry], controls: Controls) -> Integral:
    """An integral with the controls that act in it."""
    coefficients, rows = dict(condition.coefficients), controls.rows
    maps: list[ControlMap] = []
    functions: list[Evaluation] = []
    acting: list[tuple[Entry, Evaluation]] = []
    for entry, first in zip(entries, rows.column_offsets, strict=False):
        placed = entry.placed(first, rows.width)
        if placed is not None and entry.where == name:
            acting.append((entry, placed))
    for entry, placed in sorted(acting, key=lambda each: each[0].order):
        coefficients.update(entry.coefficients)
        maps += entry.maps
        functions.append(placed)
    evaluation = side_by_side(functions) if functions else None
    return Integral(condition.evaluation, condition.form, coefficients, tuple(maps), evaluation, condition.closed)
