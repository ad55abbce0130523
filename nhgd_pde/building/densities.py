"""From the section of a density to its design variables, its filter and the stages of its continuation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from ..control.controls import ControlSpace, Filter
from ..control.density import Interpolation, Projection
from ..control.filters import cone_filter, helmholtz_filter, sensitivity_filter
from ..pde.form import Coefficients
from ..problem_file.control_spec import DensityControl
from .control_spaces import ControlSpaces
from .entry import Entry
from .values import Values


def density_entry(
    spaces: ControlSpaces, coefficients: Coefficients, key: str, spec: DensityControl, suffix: str
) -> Entry:
    """A density with the stages of its continuation; its coefficients have names that end in the suffix."""
    name = _material(spaces.values, coefficients, key)
    if spec.low >= spec.high:
        spaces.values.complain(f"{key}.low", f"expected less than high, {spec.high:g}, found {spec.low:g}")
    part, functions, weight = spaces.in_cells(key, spec, 1, varying=False)
    _check_bounds(spaces.values, key, part)
    projection = None if spec.projection is None else Projection(spec.projection.threshold)
    density = Interpolation(name, spec.low, spec.high, f"density penalty{suffix}", f"density slope{suffix}", projection)
    stages = tuple(
        {density.penalty: part.initial.new_tensor(penalty), density.slope: part.initial.new_tensor(slope)}
        for penalty, slope in _continuation(spec)
    )
    last = stages[-1][density.slope]
    part = replace(
        part,
        filter=_filter(spaces, key, spec, part, weight),
        material=lambda v: density.material(v, last),
    )
    if spec.filter == "sensitivity" and spec.filter_radius is not None and _cellwise(spaces, key, spec):
        smoothing = sensitivity_filter(spec.filter_radius, part.nodes, part.riesz.matrix.diagonal())
        part = replace(part, smoothing=smoothing)
    region = None if spec.on is None else weight.reshape(-1)
    return Entry(
        key,
        part,
        None,
        (density.map(region),),
        functions,
        stages[-1],
        frozenset({name}),
        additive=False,
        stages=stages,
        density=density,
        certain=True,
    )


def _material(values: Values, coefficients: Coefficients, key: str) -> str:
    """The coefficient that a density makes."""
    names = [name for name in ("young", "conductivity") if name in coefficients and coefficients[name].ndim <= 2]
    if not names:
        message = "expected an equation with a scalar conductivity or Young's modulus, found one without"
        values.complain(f"{key}.kind", message)
    return names[0] if names else "conductivity"


def _check_bounds(values: Values, key: str, part: ControlSpace) -> None:
    """Complain of bounds that are missing or let a density leave the interval from 0 to 1."""
    lowest = -np.inf if part.lower is None else float(part.lower.min())
    highest = np.inf if part.upper is None else float(part.upper.max())
    for side, worst, outside in (("a lower", lowest, lowest < 0.0), ("an upper", highest, highest > 1.0)):
        if outside:
            found = f"{worst:g}" if np.isfinite(worst) else "null"
            message = f"expected lower and upper bounds from 0 to 1, found {side} bound of {found}"
            values.complain(f"{key}.bounds", message)


def _continuation(spec: DensityControl) -> list[tuple[float, float]]:
    """Penalty and slope of the projection in every stage: first the penalties of the file, then slopes that double."""
    penalties = spec.penalty if isinstance(spec.penalty, tuple) else (spec.penalty,)
    slopes: tuple[float, ...] = (1.0,)
    if spec.projection is not None:
        doublings = int(np.ceil(np.log2(max(spec.projection.slope, 1.0))))
        slopes = (*(2.0**k for k in range(doublings)), spec.projection.slope)
    return [(penalty, slopes[0]) for penalty in penalties] + [(penalties[-1], slope) for slope in slopes[1:]]


def _filter(spaces: ControlSpaces, key: str, spec: DensityControl, part: ControlSpace, weight: Tensor) -> Filter | None:
    if spec.filter_radius is None or spaces.values.issues or spec.filter == "sensitivity":
        return None
    if spec.filter == "cone":
        if not _cellwise(spaces, key, spec):
            return None
        volumes = part.riesz.matrix.diagonal().cpu().numpy()
        return cone_filter(spec.filter_radius, part.nodes, volumes, spaces.state.device)
    if spec.space == "P1":
        return helmholtz_filter(spec.filter_radius, part.evaluation, weight)
    nodal = spaces.state.parts[0] if spaces.state.element == "P1" else spaces.finite_elements("P1")
    cells = np.flatnonzero(weight.reshape(weight.shape[1], -1)[:, 0].cpu().numpy() > 0.0)
    functions = nodal.cells.columns(nodal.cell_dofs(cells))
    return helmholtz_filter(spec.filter_radius, functions, weight, part.evaluation)


def _cellwise(spaces: ControlSpaces, key: str, spec: DensityControl) -> bool:
    if spec.space != "P0":
        message = f"expected helmholtz for a {spec.space} density, found {spec.filter!r}"
        spaces.values.complain(f"{key}.filter", message)
    return spec.space == "P0"
