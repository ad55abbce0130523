"""Tests of integrands at points: every point is a test of its own, so that an error in one corner is seen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..linalg.differences import EstimatedDerivative, PointFunction, sure_difference
from .checks import Check, compared, worst_of_each
from .neighbourhood import Neighbourhood

# A component that is smaller than this share of rough states is moved by the size of rough states, else by its own.
_LEAST = 1e-3
# Sizes whose reciprocals would overflow together with random factors.
_TINY = 1e-300


def local_checks(near: Neighbourhood) -> list[Check]:
    """Tests of all integrands, at the solution and at a rough state near it."""
    found: list[Check] = []
    rough = near.problem.integrands(near.solution + near.state_direction(), near.v)
    states = [near.solution] if near.ended else [near.solution, near.u]
    for u in states:
        for function, other in zip(near.problem.integrands(u, near.v), rough, strict=True):
            found += _checks(near, function, other.at[0])
    return worst_of_each(found)


def _checks(near: Neighbourhood, function: PointFunction, rough: Tensor) -> list[Check]:
    """First derivatives by each argument, and second ones against differences of the first ones."""
    checks, claims, found = [], [], []
    tests = _tests(near, function)
    compare = partial(compared, places=function.x[:, function.kept], row=near.row)

    def difference(argument: int, steps: tuple[Tensor, ...], of: Callable[..., Tensor]) -> EstimatedDerivative:
        def moved(t: float) -> Tensor:
            return of(*(each + t * step for each, step in zip(function.at, steps, strict=True)))

        return sure_difference(moved, **(near.options if argument == 1 else {}))

    def value(*at: Tensor) -> Tensor:
        return function.value(*at)[..., function.kept]

    for label, argument, components in function.groups:
        steps = _steps(near, function, argument, components, rough)
        claim = function.first(steps)[..., function.kept]
        checks.append(compare(f"{function.name} by {label}", [claim], [difference(argument, steps, value)]))
    units = _units(near, function, rough)

    def slopes(*at: Tensor) -> Tensor:
        return _kept(function, function.gradient(at, tests), units)

    # The arguments are changed one after the other.
    for _, argument, components in function.groups:
        steps = _steps(near, function, argument, components, rough)
        claims.append(_kept(function, function.second(tests, steps), units))
        found.append(difference(argument, steps, slopes))
    checks.append(compare(f"second derivatives of {function.name}", claims, found))
    return [*filter(None, checks)]


def _kept(function: PointFunction, parts: tuple[Tensor, ...], units: tuple[Tensor, ...]) -> Tensor:
    """Derivatives by all arguments in one unit, that of the function."""
    return torch.cat([(unit * part)[..., function.kept] for part, unit in zip(parts, units, strict=True)])


def _units(near: Neighbourhood, function: PointFunction, rough: Tensor) -> tuple[Tensor, ...]:
    """(components, 1, 1) the sizes of the components of every argument."""
    steps = (_steps(near, function, k, tuple(range(len(each))), rough)[k] for k, each in enumerate(function.at))
    return tuple(torch.stack([_size(step) for step in own])[:, None, None] for own in steps)


def _steps(
    near: Neighbourhood, function: PointFunction, argument: int, components: tuple[int, ...], rough: Tensor
) -> tuple[Tensor, ...]:
    """A change of some components of one argument, with a direction of its own at every point."""
    steps = [torch.zeros_like(each) for each in function.at]
    if argument == 0:
        for i in components:
            size = torch.maximum(_size(function.at[0][i]), _LEAST * _size(rough[i]))
            steps[0][i] = size * near.noise(steps[0][i].shape)
    else:
        assert function.of_controls is not None
        whole = function.of_controls(near.problem.control.physical(near.control_direction()))
        for i in components:
            steps[1][i] = whole[i]
    return tuple(steps)


def _size(values: Tensor) -> Tensor:
    """The root mean square of numbers, computed so that squares do not overflow."""
    largest = values.abs().max()
    return largest * (values / largest).square().mean().sqrt() if float(largest) else largest


def _tests(near: Neighbourhood, function: PointFunction) -> Tensor:
    """Random factors of the components of the function, in the reciprocals of the units of these."""
    value = function.value(*function.at)
    tests = near.noise(value.shape)
    if value.ndim < 3:
        return tests
    sizes = torch.zeros(len(value), dtype=value.dtype, device=value.device)
    for _, argument, components in function.groups:
        claim = function.first(_steps(near, function, argument, components, function.at[0]))
        sizes = torch.maximum(sizes, torch.stack([_size(each) for each in claim]))
    return tests / torch.where(sizes > _TINY, sizes, 1.0)[:, None, None]
