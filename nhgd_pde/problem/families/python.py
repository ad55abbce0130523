"""Equations of the user's own."""

from __future__ import annotations

import torch
from torch import Tensor

from ...fem.state_space import FieldGroup, StateSpace
from ...inner.residual import TestNorm
from ...pde.checked import CheckedForm, FormError, examine
from ...pde.form import Integral
from ..fields import Function
from ..pde_spec import PythonSpec
from ..python_code import load_function
from ..values import Values
from .base import Family, Interior, points


def _groups(spec: PythonSpec, dim: int, element: str) -> tuple[FieldGroup, ...]:
    return (FieldGroup("state", spec.components, element),)


def _python(values: Values, pde: PythonSpec, space: StateSpace) -> Interior:
    x = points(space)
    function = values.once("pde.python", lambda: load_function(values.file, "pde.python", pde.python))
    form = CheckedForm(Function.written(pde.python), function)
    coefficients: dict[str, Tensor] = {}
    for name, value in pde.coefficients.items():
        key = f"pde.coefficients.{name}"
        if isinstance(value, tuple):
            coefficients[name] = values.tensor(values.components(key, value, len(value), x))
        else:
            coefficients[name] = values.tensor(values.regional(key, value, x))
    vector = pde.components if pde.components > 1 else None
    source = values.regional("pde.source", pde.source, x) if vector is None else None  # type: ignore[arg-type]
    if source is None:
        source = values.components("pde.source", pde.source, pde.components, x)
    coefficients["source"] = values.tensor(source)
    try:
        rows = values.rows if values.times is None else len(values.times)
        integral = Integral(space.cells, form, coefficients)
        nature = examine(form.name, integral, rows, torch.Generator().manual_seed(0))
    except FormError as error:
        raise values.file.error("pde.python", str(error)) from error
    norms: tuple[TestNorm, ...] = tuple("h1" for _ in range(pde.components))
    capacity = values.positive("pde.capacity", values.regional("pde.capacity", pde.capacity, x), x)
    return Interior(
        form,
        coefficients,
        nature.affine,
        nature.symmetric,
        nature.coercive,
        nature.absorbing or values.times is not None,
        values.tensor(capacity),
        norms,
        vector,
    )


PYTHON = Family(_groups, _python, time="may")
