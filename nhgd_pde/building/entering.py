"""Checks that controls enter the equation with right derivatives, before anything is solved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..control.controls import Controls
from ..linalg.factorisation import SingularMatrixError
from ..pde.form import Coefficients, ControlMap, Integral
from ..pde.probing import SCALES, Probe, changed_in_place, probe
from ..problem_file.control_spec import ParameterControl, PythonControl
from ..problem_file.fields import Function
from .dependence import GIVEN, INERTIA
from .entry import Entry
from .families.python import PythonSpec
from .integrals import place_of
from .values import Values


class EnteringError(ValueError):
    """A function without a right derivative by a control; `key` is the key of the function in the file."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def check_entering(
    values: Values,
    entries: Sequence[Entry],
    controls: Controls,
    integrals: Mapping[str | None, Integral],
    joint: bool,
) -> None:
    """Complain of controls without a derivative, or without an effect, in formulas and functions of users.

    Args:
        values: the values, with the file and the list of mistakes.
        entries: the controls, and how they enter the equation.
        controls: the same controls, as one vector.
        integrals: the integrals of the equation that controls act in, by name; None names the integral over the cells.
        joint: a term of the objective depends on controls and state alike.
    """
    spec = values.file.spec
    for entry, kind in zip(entries, spec.controls, strict=True):
        if not isinstance(spec.pde, PythonSpec) and not isinstance(kind, PythonControl | ParameterControl):
            continue
        try:
            if isinstance(kind, PythonControl):
                _check_map(values, entries, controls, entry, integrals, Function.written(kind.python))
            elsewhere = values.dependence.names_at(GIVEN) | values.dependence.names_at(INERTIA)
            enters = entry.data is not None or joint or entry.parameter in elsewhere
            enters = _enters_integrals(values, entries, controls, entry, integrals) or enters
        except EnteringError as found:
            values.complain(found.key, str(found))
            continue
        if not enters:
            message = f"the control does not enter: no value of the equation changes with {_told(entry)}"
            values.complain(entry.key, message)


def _enters_integrals(
    values: Values,
    entries: Sequence[Entry],
    controls: Controls,
    entry: Entry,
    integrals: Mapping[str | None, Integral],
) -> bool:
    """Whether one of the integrals depends on a control, whose derivatives are checked in all of them.

    Raises:
        EnteringError: a derivative is wrong.
    """
    pde, enters = values.file.spec.pde, False
    for name, integral in integrals.items():
        names = values.dependence.names_at(place_of(name))
        acts = entry.parameter in names if entry.parameter is not None else entry.maps and entry.where == name
        if acts:
            form, key = "the equation", entry.key
            if isinstance(pde, PythonSpec) and name is None:
                form, key = Function.written(pde.python), "pde.python"
            components = _components(integral, entries, entry, names)
            free = entry.parameter is None
            enters = _check_integral(integral, entry, controls, components, key, form, free) or enters
    return enters


def _told(entry: Entry) -> str:
    return "the control" if entry.part.name == "control" else f"the control {entry.part.name!r}"


def _samples(controls: Controls, integral: Integral) -> list[tuple[Tensor, float]]:
    """Values (controls, R, P) of several sizes, within the bounds, at the points of an integral; and the sizes."""
    generator = torch.Generator().manual_seed(1)
    found = []
    start = controls.initial if controls.bounds is None else controls.initial.clamp(*controls.bounds)
    size = float(start.abs().max()) or 1.0
    for scale in SCALES:
        v = start + scale * size * torch.randn(start.shape, generator=generator, dtype=start.dtype).to(start.device)
        if controls.bounds is not None:
            v = v.clamp(*controls.bounds)
        at = integral.control_values(controls.rows.spread(controls.physical(v)))
        if at is not None:
            length = float(at.abs().max())
            found.append((at, length if length > 0.0 else size))
    return found


def _components(integral: Integral, entries: Sequence[Entry], entry: Entry, names: set[str]) -> range:
    """The indices of the maps of an integral that belong to a control.

    The parameters that the coefficients of the integral use come first; other controls follow in the order of
    `Entry.order`.
    """
    parameters = [each for each in entries if each.parameter in names]
    if entry.parameter is not None:
        first = [each is entry for each in parameters].index(True)
        return range(first, first + 1)
    acting = sorted((each for each in entries if each.maps and each.where == entry.where), key=lambda each: each.order)
    before = acting[: [each is entry for each in acting].index(True)]
    first = len(parameters) + sum(len(each.maps) for each in before)
    return range(first, first + len(entry.maps))


def _probed(
    value: Callable[[Tensor], Tensor], at: Tensor, components: range, size: float, segments: bool = True
) -> Probe | None:
    try:
        return probe(value, at, components, size, torch.Generator().manual_seed(2), segments)
    except SingularMatrixError:
        # The control brings its coefficient out of the range.
        return None


def _check_map(
    values: Values,
    entries: Sequence[Entry],
    controls: Controls,
    entry: Entry,
    integrals: Mapping[str | None, Integral],
    name: str,
) -> None:
    """Compare the derivatives of the coefficients in a user's map by the control with their values."""
    place, integral = place_of(entry.where), integrals[entry.where]
    (enter,) = entry.maps
    (component,) = _components(integral, entries, entry, values.dependence.names_at(place))
    coefficients = _with_parameters(values, entries, place, integral)
    for at, size in _samples(controls, integral):
        own = at[component : component + 1]
        given = {"the control": own} | {f"c[{key!r}]": each for key, each in coefficients.items()}
        try:
            changed = changed_in_place(lambda own=own: enter(dict(coefficients), own[0]), given)  # type: ignore[misc]
            if changed:
                told = f"{name} changes {changed}, which it is given, in place: expected new tensors"
                raise EnteringError(f"{entry.key}.python", told)
            found = _probed(lambda each: _stacked(enter, coefficients, each), own, range(1), size)
        except EnteringError:
            raise
        except Exception as error:
            raise EnteringError(f"{entry.key}.python", f"{name} raised {type(error).__name__}: {error}") from error
        if found is not None and found.wrong:
            raise EnteringError(f"{entry.key}.python", f"{name}: {found.sentence('the control')}")


def _with_parameters(values: Values, entries: Sequence[Entry], place: str, integral: Integral) -> Coefficients:
    """The coefficients that functions of the user's own are given, with the starting values of the parameters."""
    names = values.dependence.names_at(place)
    acting = [each.parameter for each in entries if each.parameter is not None and each.parameter in names]
    coefficients = integral.coefficients
    like = integral.evaluation.quadrature.weights.reshape(1, -1)
    for name, enter in zip(acting, integral.controls, strict=False):
        coefficients = enter(coefficients, torch.full_like(like, values.parameters[name]))
    return coefficients


def _stacked(enter: ControlMap, coefficients: Coefficients, control: Tensor) -> Tensor:
    """All coefficients that a map computes from control values (1, R, P), stacked: (any, R, P)."""
    rows = []
    for name, value in enter(dict(coefficients), control[0]).items():
        if not isinstance(value, Tensor):
            if name in coefficients:
                raise TypeError(f"c[{name!r}] is a {type(value).__name__} in the result; expected a torch tensor")
            continue
        whole = value.expand(*value.shape[:-2], *control.shape[1:]) if value.shape[-2:-1] in ((), (1,)) else value
        rows.append(whole.reshape(-1, *whole.shape[-2:]))
    steps = max(len(each[0]) for each in rows)
    return torch.cat([each.expand(-1, steps, -1) for each in rows])


def _check_integral(
    integral: Integral, entry: Entry, controls: Controls, components: range, key: str, name: str, free: bool
) -> bool:
    """Whether an integrand depends on a control; its derivative by the control has to be that of its values."""
    generator, depends = torch.Generator().manual_seed(3), False
    like = integral.evaluation.quadrature.weights
    rows = max((each.shape[-2] for each in integral.coefficients.values() if each.ndim > 1), default=1)
    for at, size in _samples(controls, integral):
        shape = (integral.evaluation.components, max(rows, at.shape[1]), integral.evaluation.quadrature.points)
        for scale in SCALES[:2]:
            state = scale * torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
            spread = at.expand(-1, shape[1], -1)
            try:
                found = _probed(lambda each, state=state: integral.density(state, each), spread, components, size, free)  # type: ignore[misc]
            except ValueError as error:
                raise EnteringError(key, str(error)) from error
            if found is not None and found.wrong:
                raise EnteringError(key, f"{name}: {found.sentence(_told(entry))}")
            depends = depends or found is None or found.depends
    return depends
