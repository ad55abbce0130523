"""Checks a problem file without running its code: simple functions replace those of its Python files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ..pde_problem import PDEProblem
from ..problem_file.data_spec import DataSpec
from ..problem_file.errors import ProblemError
from ..problem_file.fields import Function
from ..problem_file.loading import ProblemFile
from .blueprint import build
from .limits import limits_told
from .python_code import shown

# Values of data that stand in for those of a function. Each may be out of the range of the place where the data are
# used, such as a conductivity, which has to be positive, or Poisson's ratio, which is below a half.
_DATA_VALUES = (1.0, 0.25, 0.0)


def report_without_code(file: ProblemFile) -> str:
    """Check the parts of a problem that need no code of users; report its sizes and what was not checked.

    Raises:
        ProblemError: the mistakes that were found.
    """
    reduced, left = without_code(file)
    problem = _built(reduced)
    lines = [
        f"{problem.name}: {problem.inner_shape[1]:,} state and {problem.outer_size:,} control unknowns",
        f"mesh: {problem.space.domain}",
        *(left or ("the problem names no code",)),
    ]
    if left:
        lines.append("not checked: these functions, and what equation, control and objective are with them")
    return "\n".join(lines)


def _built(file: ProblemFile) -> PDEProblem:
    """The problem with the first values of data with which it can be built.

    Raises:
        ProblemError: the mistakes that there are with all of these values.
    """
    found: list[ProblemError] = []
    for value in _DATA_VALUES:
        data = {name: _with_value(each, value) for name, each in file.spec.data.items()}
        tried = replace(file, spec=file.spec.model_copy(update={"data": data}))
        try:
            with limits_told(tried):
                return build(tried)
        except ProblemError as error:
            found.append(error)
            if data == file.spec.data:
                break
    always = [each for each in found[0].issues if all(each.key in {one.key for one in error.issues} for error in found)]
    raise ProblemError(always or found[0].issues)


def _with_value(data: DataSpec, value: float) -> DataSpec:
    return data.model_copy(update={"python": partial(_data, value)}) if _code(data) is _data else data


def without_code(file: ProblemFile) -> tuple[ProblemFile, tuple[str, ...]]:
    """The problem with simple functions in place of those of Python files, and a sentence for each of these.

    An equation is -lap u + u = source, a term of the objective the integral of u^2, a control adds to the source, and
    data are constant: names, expressions and sizes can be checked with these, but not what the functions make of them.
    """
    spec, left = file.spec, []
    changes: dict[str, Any] = {}

    def left_out(key: str, given: object) -> bool:
        if not isinstance(given, str):
            return False
        name = given.rpartition(":")[0]
        path = file.resolve(name)
        where = "which is not there" if path is None else shown(file, path)
        left.append(f"not run: {key} {Function.written(given)} ({where})")
        return True

    if left_out("pde.python", _code(spec.pde)):
        changes["pde"] = spec.pde.model_copy(update={"python": _equation})
    controls = tuple(
        each.model_copy(update={"python": _control}) if left_out(f"{key}.python", _code(each)) else each
        for key, each in spec.keyed_controls
    )
    if controls != spec.controls:
        changes["control"] = controls if isinstance(spec.control, tuple) else controls[0]
    changes["objective"] = tuple(
        each.model_copy(update={"python": _density}) if left_out(f"objective.{k}.python", _code(each)) else each
        for k, each in enumerate(spec.objective)
    )
    changes["data"] = {
        name: each.model_copy(update={"python": _data}) if left_out(f"data.{name}.python", _code(each)) else each
        for name, each in spec.data.items()
    }
    return replace(file, spec=spec.model_copy(update=changes)), tuple(left)


def _code(section: object) -> object:
    return getattr(section, "python", None)


def _equation(u: Tensor, grad: Tensor, c: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    return u - c["source"], grad


def _density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Tensor:
    """The sum of the squares of all components, (rows, points)."""
    return u.reshape(-1, *u.shape[-2:]).square().sum(0)


def _data(value: float, x: np.ndarray) -> np.ndarray:
    return np.full(x.shape[1], value)


def _control(coefficients: Mapping[str, Tensor], v: Tensor) -> Mapping[str, Tensor]:
    if "source" not in coefficients:
        return coefficients
    return {**coefficients, "source": coefficients["source"] + v}
