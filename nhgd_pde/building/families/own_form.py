"""The equation that a function of the user gives, and its nature (linear, symmetric, coercive) by its derivatives."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...fem.state_space import StateSpace
from ...inner.residual import TestNorm
from ...pde.checked import CheckedForm, FormError, FormProperties, examine
from ...pde.form import Coefficients, Integral
from ...problem_file.fields import Function
from ..dependence import CELLS, Recorded, parameter_maps
from ..python_code import load_function
from ..values import Values
from .base import Interior
from .coefficients import capacity_of, points
from .python import PythonSpec

# A form is classified at the starting values of parameters and at these multiples of them (of 1 for a value of zero).
_ELSEWHERE = (0.7, -1.3)


def python_interior(values: Values, pde: PythonSpec, space: StateSpace) -> Interior:
    """The equation in the cells."""
    x = points(space)
    function = values.once("pde.python", lambda: load_function(values.file, "pde.python", pde.python))
    form = CheckedForm(Function.written(pde.python), function)
    coefficients: dict[str, Tensor] = {}
    for name, value in pde.coefficients.items():
        key = f"pde.coefficients.{name}"
        if isinstance(value, tuple):
            coefficients[name] = values.tensor(values.components(key, value, len(value), x, place=CELLS, name=name))
        else:
            coefficients[name] = values.tensor(values.regional(key, value, x))
    vector = pde.components if pde.components > 1 else None
    if vector is None and not isinstance(pde.source, tuple):
        source = values.regional("pde.source", pde.source, x)
    else:
        source = values.components("pde.source", pde.source, pde.components, x, place=CELLS)
    coefficients["source"] = values.tensor(source)
    coefficients |= values.exposed(coefficients)
    rows = values.rows if values.times is None else len(values.times)
    nature = _nature(values, Integral(space.cells, form, Recorded(coefficients), ()), rows)
    norms: tuple[TestNorm, ...] = tuple("h1" for _ in range(pde.components))
    return Interior(
        form,
        coefficients,
        nature.affine,
        nature.symmetric,
        nature.coercive,
        nature.absorbing or values.times is not None,
        capacity_of(values, pde.capacity, space),
        norms,
        vector,
    )


def _nature(values: Values, integral: Integral, rows: int) -> FormProperties:
    """The nature of the form at the starting values of the parameters, and at other values if it depends on them."""
    assert isinstance(integral.form, CheckedForm)
    name, given = integral.form.name, integral.coefficients
    assert isinstance(given, Recorded)
    generator = torch.Generator().manual_seed(0)
    try:
        nature = examine(name, integral, rows, generator)
    except FormError as error:
        raise values.file.error("pde.python", str(error)) from error
    values.dependence.use(CELLS, given.asked & values.parameters.keys())
    acting = sorted(values.dependence.names_at(CELLS) & values.parameters.keys())
    if not acting:
        return nature
    maps = parameter_maps(
        acting, values.dependence.at(CELLS), values.dependence.names_at(CELLS), values.dependence.exposed
    )
    start = {**given, **values.companions(CELLS, integral.evaluation.quadrature)}
    for factor in _ELSEWHERE:
        moved: Coefficients = start
        for each, enter in zip(acting, maps, strict=True):
            value = values.parameters[each]
            moved = enter(moved, integral.evaluation.quadrature.weights.new_full((1, 1), factor * (value or 1.0)))
        try:
            there = examine(name, replace(integral, coefficients=moved), rows, generator)
        except FormError:
            # A run cannot use parameters at which the form is not finite.
            continue
        nature = FormProperties(
            nature.affine and there.affine,
            nature.symmetric and there.symmetric,
            nature.coercive and there.coercive,
            nature.absorbing or there.absorbing,
        )
    return nature
