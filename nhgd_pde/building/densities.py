"""Densities: from their section to the design variables, their filter and the stages of a continuation."""

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


def density_entry(
    spaces: ControlSpaces, coefficients: Coefficients, key: str, spec: DensityControl, suffix: str
) -> Entry:
    """A density, with the stages of its continuation; the suffix tells the coefficients of several apart."""
    names = [name for name in ("young", "conductivity") if name in coefficients and coefficients[name].ndim <= 2]
    if not names:
        message = "expected an equation with a scalar conductivity or Young's modulus, found one without"
        spaces.values.complain(f"{key}.kind", message)
    if spec.low >= spec.high:
        spaces.values.complain(f"{key}.low", f"expected less than high, {spec.high:g}, found {spec.low:g}")
    part, functions, weight = spaces.in_cells(key, spec, 1, varying=False)
    for bound, side, sign in ((part.lower, "a lower", 1.0), (part.upper, "an upper", -1.0)):
        limit = 0.0 if sign > 0 else 1.0
        worst = None if bound is None else float((sign * bound).min()) * sign
        if worst is None or sign * worst < sign * limit:
            found = "null" if worst is None or not np.isfinite(worst) else f"{worst:g}"
            message = f"expected lower and upper bounds from 0 to 1, found {side} bound of {found}"
            spaces.values.complain(f"{key}.bounds", message)
    penalties = spec.penalty if isinstance(spec.penalty, tuple) else (spec.penalty,)
    projection: Projection | None = None
    slopes: tuple[float, ...] = (1.0,)
    if spec.projection is not None:
        projection = Projection(spec.projection.threshold)
        doublings = int(np.ceil(np.log2(max(spec.projection.slope, 1.0))))
        slopes = (*(2.0**k for k in range(doublings)), spec.projection.slope)
    name = names[0] if names else "conductivity"
    density = Interpolation(name, spec.low, spec.high, f"penalty{suffix}", f"slope{suffix}", projection)
    numbers = [(penalty, slopes[0]) for penalty in penalties] + [(penalties[-1], slope) for slope in slopes[1:]]
    stages = tuple(
        {density.penalty: part.initial.new_tensor(penalty), density.slope: part.initial.new_tensor(slope)}
        for penalty, slope in numbers
    )
    last = stages[-1][density.slope]
    material = None if projection is None else lambda v: density.material(v, last)
    part = replace(part, filter=_filter(spaces, key, spec, part, weight), material=material)
    if spec.filter == "sensitivity" and spec.filter_radius is not None and _cellwise(spaces, key, spec):
        smoothing = sensitivity_filter(spec.filter_radius, part.nodes, part.riesz.matrix.diagonal())
        part = replace(part, smoothing=smoothing)
    region = None if spec.on is None else weight.reshape(-1)
    maps = (density.map(region),)
    return Entry(
        key,
        part,
        None,
        maps,
        functions,
        stages[-1],
        frozenset({name}),
        additive=False,
        stages=stages,
        density=density,
        certain=True,
    )


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
