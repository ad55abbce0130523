"""Integrals over parts of the boundary and at points: those a problem file names, and those controls act in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor

from ..control.controls import Controls
from ..fem.evaluation import Evaluation, side_by_side
from ..fem.state_space import StateSpace
from ..pde.boundary import neumann, robin
from ..pde.evolution import inertia
from ..pde.form import ClosedForm, ControlMap, Integral, Pointwise
from ..pde.ranges import Guard, Range
from ..problem_file.expressions import Expression
from ..problem_file.pde_spec import Vector
from .boundary_facets import fixed_facets
from .control_spaces import one_number
from .dependence import CELLS, INERTIA, parameter_coefficient, parameter_maps, random_coefficient
from .entry import Entry
from .families import FAMILIES, Interior
from .points import point_of_mesh
from .values import Values

# Coefficients of the cells that are computed from others and have no key in the file.
_MADE = ("slope", "cell_length")


@dataclass(frozen=True)
class Condition:
    """An integral over a part of the boundary or the cells, before controls are added.

    Attributes:
        evaluation: the state's functions there.
        form: the integrand.
        coefficients: the coefficients that the form uses.
        closed: see `Interior`.
        place: the key of the condition in the file, under which the dependence on parameters is kept.
        keys: coefficient -> its key in the file.
        controlled: controls other than parameters may act in it.
    """

    evaluation: Evaluation
    form: Pointwise
    coefficients: dict[str, Tensor]
    closed: ClosedForm | None = None
    place: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    controlled: bool = True


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


def cells_condition(values: Values, state: StateSpace, interior: Interior) -> Condition:
    """The integral over the cells."""
    inner = "pde.coefficients." if values.file.spec.pde.kind == "python" else "pde."
    keys = {
        name: ("pde." if name == "source" else inner) + name.replace(" ", ".")
        for name in interior.coefficients
        if name not in (*_MADE, *values.dependence.exposed)
        and not name.startswith((parameter_coefficient(""), random_coefficient("")))
    }
    evaluation = interior.evaluation or state.cells
    return Condition(evaluation, interior.form, interior.coefficients, interior.closed, CELLS, keys)


def inertia_condition(values: Values, state: StateSpace, interior: Interior) -> Condition:
    """The integral with the time derivative."""
    assert interior.capacity is not None
    x = state.cells.quadrature.flat
    coefficients = {"capacity": interior.capacity} | values.companions(INERTIA, x)
    return Condition(state.cells, inertia, coefficients, None, INERTIA, {"capacity": "pde.capacity"}, controlled=False)


def side_condition(
    values: Values, state: StateSpace, name: str, indices: np.ndarray, evaluation: Evaluation
) -> Condition | None:
    """What the file says of a side, its facets `indices`, besides Dirichlet values; None after a complaint."""
    condition, key = values.file.spec.pde.boundary[name], f"pde.boundary.{name}"
    x = evaluation.quadrature.flat

    def of(form: Pointwise, coefficients: dict[str, Tensor], keys: dict[str, str]) -> Condition:
        return Condition(evaluation, form, coefficients | values.companions(key, x), None, key, keys)

    if condition.neumann is not None:
        flux = _data(values, state, key, "flux", f"{key}.neumann", condition.neumann, x)
        return of(neumann, {"flux": flux}, {"flux": f"{key}.neumann"})
    if condition.robin is not None:
        keys = {name: f"{key}.robin.{name}" for name in ("coefficient", "value")}
        transfer = values.coefficient("coefficient", keys["coefficient"], condition.robin.coefficient, x, key)
        value = _data(values, state, key, "value", keys["value"], condition.robin.value, x)
        return of(robin, {"coefficient": values.tensor(transfer), "value": value}, keys)
    pde = values.file.spec.pde
    make = FAMILIES[pde.kind].absorbing
    if make is None:
        known = ", ".join(kind for kind, family in FAMILIES.items() if family.absorbing is not None)
        message = f"expected an equation of kind {known} for an absorbing boundary, found {pde.kind!r}"
        values.complain(f"{key}.absorbing", message)
        return None
    form, coefficients = make(values, pde, x, np.asarray(state.domain.mesh.f2t[0, indices]), key)
    return of(form, coefficients, {each: f"pde.{each}" for each in coefficients})


def point_load(values: Values, state: StateSpace, number: int, evaluation: Evaluation) -> Condition:
    """The load at one of the points of the file."""
    load, x = values.file.spec.pde.points[number].load, evaluation.quadrature.flat
    place, key = f"pde.points.{number}", f"pde.points.{number}.load"
    assert load is not None
    flux = _data(values, state, place, "flux", key, load, x)
    return Condition(evaluation, neumann, {"flux": flux} | values.companions(place, x), None, place, {"flux": key})


def _data(
    values: Values, state: StateSpace, place: str, name: str, key: str, value: Expression | Vector, x: Tensor
) -> Tensor:
    """(P,) or (rows, P) of a scalar state, (components, rows, P) of a vector."""
    count = state.groups[0].components
    if count == 1:
        return values.tensor(values.coefficient(name, key, values.single(key, value), x, place))
    return values.tensor(values.components(key, value, count, x, place=place, name=name))


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


def integral_of(
    values: Values, condition: Condition, name: str | None, entries: list[Entry], controls: Controls
) -> Integral:
    """An integral with the controls that act in it: parameters of its expressions first."""
    coefficients, rows = dict(condition.coefficients), controls.rows
    maps: list[ControlMap] = []
    functions: list[Evaluation] = []
    names, rules = values.dependence.names_at(condition.place), values.dependence.at(condition.place)
    placed = list(zip(entries, rows.column_offsets, strict=False))
    parameters = [(entry.parameter, first) for entry, first in placed if entry.parameter in names]
    maps += parameter_maps([each for each, _ in parameters], rules, names, values.dependence.exposed)
    functions += [one_number(condition.evaluation).shifted(first, rows.width) for _, first in parameters]
    acting = [(entry, first) for entry, first in placed if entry.maps and entry.where == name and condition.controlled]
    for entry, first in sorted(acting, key=lambda each: each[0].order):
        coefficients.update(entry.coefficients)
        maps += entry.maps
        functions.append(entry.placed(first, rows.width))
    evaluation = side_by_side(functions) if functions else None
    certain = not parameters and all(entry.certain or entry.additive for entry, _ in acting)
    guard = None if certain else guard_of(values, condition, values.ranges)
    place = "" if name is None else f"at {name}" if name.startswith("pde.points.") else f"on {name}"
    return Integral(
        condition.evaluation, condition.form, coefficients, tuple(maps), evaluation, condition.closed, guard, place
    )


def guard_of(values: Values, condition: Condition, ranges: Mapping[str, Range]) -> Guard:
    """The ranges of the coefficients of a condition, for the values that controls give to them."""
    x = condition.evaluation.quadrature.flat
    return Guard(condition.keys, ranges, partial(values.place_text, x))
