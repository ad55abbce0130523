"""The integrals of an equation: their coefficients guarded by keys of the file, and the controls that enter them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..control.controls import Controls
from ..fem.evaluation_operator import EvaluationOperator, side_by_side
from ..fem.state_space import StateSpace
from ..pde.cell_fields import CellFields
from ..pde.evolution import inertia
from ..pde.form import ClosedForm, ControlMap, Integral, Pointwise
from ..pde.ranges import Guard
from .control_spaces import one_number
from .dependence import CELLS, INERTIA, parameter_coefficient, parameter_maps, random_coefficient
from .entry import Entry
from .evaluator import place_text
from .families.base import Interior
from .values import Values

# Names of the integrals at points begin with it; the names of other integrals are those of parts of the boundary.
POINTS = "pde.points."


def place_of(name: str | None) -> str:
    """The key of an integral in `Dependence`; the integral over the cells has no name."""
    if name is None:
        return CELLS
    return name if name.startswith(POINTS) else f"pde.boundary.{name}"


def guarded_integral(
    values: Values,
    evaluation: EvaluationOperator,
    form: Pointwise,
    coefficients: Mapping[str, Tensor],
    keys: Mapping[str, str],
    name: str | None = None,
    closed: ClosedForm | None = None,
    scale: str = "",
) -> Integral:
    """An integral without controls, whose coefficients are guarded by their keys in the file (coefficient -> key)."""
    quadrature = evaluation.quadrature
    guard = Guard(keys, values.ranges, lambda index: place_text(values.random, quadrature.flat, index))
    region = "" if name is None else f"at {name}" if name.startswith(POINTS) else f"on {name}"
    return Integral(evaluation, form, coefficients, closed=closed, guard=guard, name=region, scale=scale)


def cells_integral(values: Values, state: StateSpace, interior: Interior) -> Integral:
    """The integral over the cells, without controls."""
    inner = "pde.coefficients." if values.file.spec.pde.kind == "python" else "pde."
    keys = {
        name: ("pde." if name == "source" else inner) + name.replace(" ", ".")
        for name in coefficients_of_file(values, interior)
    }
    evaluation = interior.evaluation or state.cells
    form, coefficients = interior.form, interior.coefficients
    found = guarded_integral(values, evaluation, form, coefficients, keys, closed=interior.closed, scale=interior.scale)
    return replace(found, flux_blocks=interior.flux_blocks)


def coefficients_of_file(values: Values, interior: Interior) -> tuple[str, ...]:
    """The coefficients of the cells that have keys in the file; others are computed from these, or are parameters."""
    companions = (parameter_coefficient(""), random_coefficient(""))
    others = {*interior.computed, *values.dependence.exposed}
    return tuple(name for name in interior.coefficients if name not in others and not name.startswith(companions))


def cell_fields(values: Values, interior: Interior) -> CellFields:
    """What the output shows of the equation in the cells besides its state."""
    capacity = interior.capacity
    constant = {}
    if capacity is not None and bool((capacity != capacity.reshape(-1)[0]).any()):
        constant["capacity"] = capacity
    return CellFields(coefficients_of_file(values, interior), interior.quantities, constant)


def inertia_integral(values: Values, state: StateSpace, interior: Interior) -> Integral:
    """The integral with the time derivative, without controls."""
    assert interior.capacity is not None
    coefficients = {"capacity": interior.capacity} | values.companions(INERTIA, state.cells.quadrature)
    return guarded_integral(values, state.cells, inertia, coefficients, {"capacity": "pde.capacity"})


@dataclass(frozen=True, eq=False)
class ActingControls:
    """The controls that act in one integral: first the parameters of its expressions, then the others.

    Attributes:
        maps: how each component of the controls enters the coefficients.
        evaluation: the functions of these components at the points of the integral; None without controls.
        coefficients: further coefficients that the maps need.
        certain: no admissible control brings a coefficient out of its range.
    """

    maps: tuple[ControlMap, ...]
    evaluation: EvaluationOperator | None
    coefficients: Mapping[str, Tensor]
    certain: bool

    def enter(self, integral: Integral, stage: Mapping[str, Tensor]) -> Integral:
        """The integral with these controls, in a stage of a continuation that has other values of coefficients."""
        own = {name: stage.get(name, value) for name, value in self.coefficients.items()}
        return replace(
            integral,
            coefficients={**integral.coefficients, **own},
            controls=self.maps,
            control_evaluation=self.evaluation,
            guard=None if self.certain else integral.guard,
        )


def acting_controls(
    values: Values,
    place: str,
    like: EvaluationOperator,
    entries: Sequence[Entry],
    controls: Controls,
    acting: Sequence[Entry],
) -> ActingControls:
    """The controls that act in the integral at a place.

    Args:
        values: the values, which know the coefficients that follow from parameters.
        place: the key of the integral there.
        like: the state's functions at the points of the integral.
        entries: all controls.
        controls: the same controls side by side.
        acting: the controls that act in the integral, besides parameters.
    """
    width, dependence = controls.rows.width, values.dependence
    first = dict(zip((entry.key for entry in entries), controls.rows.column_offsets, strict=False))
    names = dependence.names_at(place)
    parameters = {entry.parameter: first[entry.key] for entry in entries if entry.parameter in names}
    maps = [*parameter_maps(list(parameters), dependence.at(place), names, dependence.exposed)]
    functions = [one_number(like).shifted(column, width) for column in parameters.values()]
    coefficients: dict[str, Tensor] = {}
    for entry in sorted(acting, key=lambda each: each.order):
        maps += entry.maps
        functions.append(entry.placed(first[entry.key], width))
        coefficients |= entry.coefficients
    certain = not parameters and all(entry.certain or entry.additive for entry in acting)
    return ActingControls(tuple(maps), side_by_side(functions) if functions else None, coefficients, certain)
