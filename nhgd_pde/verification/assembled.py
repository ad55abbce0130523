"""Tests of residual, objective and their parts, with the derivatives that the methods use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..linalg.differences import EstimatedDerivative, central_difference
from ..linalg.factorisation import SingularMatrixError
from ..linalg.safe_lengths import dot
from .checks import Check, compared
from .neighbourhood import DifferenceOptions, Neighbourhood

_EXACT = 1e-12
# Number of steps of differences where every step assembles the equation anew.
_FEW = 6


def assembled_checks(near: Neighbourhood) -> Iterator[Check]:
    """All tests of assembled quantities."""
    yield from _transposes(near)
    yield from filter(None, [_by_state(near), _by_control(near), _bent(near), _integrals(near)])
    yield from filter(None, [_objective_by_state(near), _objective_by_control(near), _objective_bent(near)])
    yield from filter(None, _terms(near))
    yield from filter(None, [_constraint(near)])


def _or_nothing(make: Callable[[], Tensor], like: Tensor) -> Tensor:
    """The tensor that is made, or NaN in its shape where the equation makes no sense."""
    try:
        return make()
    except SingularMatrixError:
        return torch.full_like(like, math.nan)


def _number(value: float, like: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


# Transposes


def gap(a: float, b: float, size: float) -> float:
    """The difference of two numbers, relative to a size that has their unit."""
    return abs(a - b) / size if size > 0.0 else abs(a - b)


def _parts(near: Neighbourhood, u: Tensor) -> Tensor:
    """(S, n) the size of the terms that are summed in each row of the residual, at a state."""
    rough = [near.problem.state_product(u, near.v, near.state_direction()) for _ in range(4)]
    return torch.stack(rough).abs().amax(0)


def _row_sizes(near: Neighbourhood, parts: Tensor) -> Tensor:
    """(S, n) the sizes of the rows, but at least a thousandth of the largest of the same field.

    A row that is zero by cancellation is made of rounding errors, which must not be divided by their own size. Rows of
    different fields have different units.
    """
    space, free = near.problem.space, np.asarray(near.problem.equation.free)
    field = torch.from_numpy(np.searchsorted(space.offsets, free % space.size, side="right")).to(parts.device)
    sizes = torch.ones_like(parts)
    for each in field.unique():
        own = parts[:, field == each]
        largest = float(own.max())
        if largest > 0.0:
            sizes[:, field == each] = own.clamp(min=1e-3 * largest)
    return sizes


def _transposes(near: Neighbourhood) -> list[Check]:
    """<J w, z> = <w, J^T z> and <R_v d, z> = <d, R_v^T z>, relative to the sums of the absolute values."""
    problem, u, v = near.problem, near.u, near.v
    worst = {"adjoint of dR/du": 0.0, "adjoint of dR/dv": 0.0}
    # Tests are in the reciprocal units of the residual, row by row.
    weights = 1.0 / _row_sizes(near, _parts(near, u))
    for w, d in zip(near.state_directions(), [*near.control_directions()] * 20, strict=False):
        pushed = problem.state_product(u, v, w)
        z = weights * near.noise(u.shape)
        pulled = problem.state_product_transposed(u, v, z)
        sizes = float((pushed * z).abs().sum() + (w * pulled).abs().sum())
        name = "adjoint of dR/du"
        worst[name] = max(worst[name], gap(dot(pushed, z), dot(w, pulled), sizes))
        pushed, pulled = problem.control_product(u, v, d), problem.control_product_transposed(u, v, z)
        sizes = float((pushed * z).abs().sum() + (d * pulled).abs().sum())
        name = "adjoint of dR/dv"
        worst[name] = max(worst[name], gap(dot(pushed, z), dot(d, pulled), sizes))
    checks = [Check(name, value, "at most 1e-12", value <= _EXACT) for name, value in worst.items()]
    if problem.equation.symmetric:
        # The matrix itself is tested: products would use the same matrix for a transpose that is assumed to be equal.
        matrix = problem.equation.linearise(u, problem.control.physical(v)).whole.host()
        value = float(abs(matrix - matrix.T).max() / abs(matrix).max())
        checks.insert(1, Check("symmetry of dR/du", value, "at most 1e-12", value <= _EXACT))
    return checks


# The equation


def _by_state(near: Neighbourhood) -> Check | None:
    problem, u, v = near.problem, near.u, near.v

    def residual(direction: Tensor, t: float) -> Tensor:
        return _or_nothing(lambda: problem.residual(u + t * direction, v), u)

    directions = [near.smooth_state_direction(), *(near.state_direction() for _ in range(3))]
    claims = [problem.state_product(u, v, d) for d in directions]
    parts = _parts(near, u)
    found = [central_difference(partial(residual, d), parts=parts) for d in directions]
    return compared("dR/du against differences", claims, found, together=True)


def _by_control(near: Neighbourhood) -> Check | None:
    # The test is made at the solution: relative to the residual of a rough state the changes would have few digits.
    problem, u, v = near.problem, near.solution, near.v

    def residual(direction: Tensor, t: float) -> Tensor:
        return _or_nothing(lambda: problem.residual(u, v + t * direction), u)

    directions = [near.smooth_control_direction(), *(near.control_direction() for _ in range(3))]
    claims = [problem.control_product(u, v, d) for d in directions]
    parts = _parts(near, u)
    found = [central_difference(partial(residual, d), parts=parts, **near.options) for d in directions]
    return compared("dR/dv against differences", claims, found, together=True)


def _integrals(near: Neighbourhood) -> Check | None:
    """The residual of an affine equation, computed from its derivatives, must equal that from its integrals."""
    problem, v = near.problem, near.v
    if not problem.equation.affine:
        return None
    # The test is not made at a solution, where both are zero to rounding.
    u = near.solution + near.state_direction()
    direct, made = problem.integrated(u, v), problem.residual(u, v)
    # Terms of a row may cancel, so errors are relative to the size of these terms.
    size = torch.maximum((direct - made).abs(), direct.abs()).max()
    value = float((direct - made).abs().max() / size) if float(size) else 0.0
    return Check("R against its integrals", value, "at most 1e-10", value <= 1e-10)


def _in_one_unit(near: Neighbourhood, by_state: Tensor, by_control: Tensor) -> Tensor:
    """Derivatives by unknowns (S, n) and controls (p,), times the sizes of these."""
    return torch.cat([(near.unit * by_state).reshape(-1), near.room * by_control])


def _pairs(near: Neighbourhood) -> tuple[tuple[Tensor, Tensor], ...]:
    """A direction (S, n) of the state alone, and one (p,) of the controls alone."""
    u, v = near.u, near.v
    return (near.state_direction(), torch.zeros_like(v)), (torch.zeros_like(u), near.control_direction())


def _options(near: Neighbourhood, dv: Tensor) -> DifferenceOptions:
    """How differences in a direction that changes the controls by dv (p,) are taken."""
    return near.options if bool(torch.count_nonzero(dv)) else {}


def _bent(near: Neighbourhood) -> Check | None:
    """D(J^T w, R_v^T w) against differences of the two."""
    problem, u, v = near.problem, near.u, near.v
    if problem.equation.affine:
        return None
    w = near.state_direction()
    claims, found = [], []
    for du, dv in _pairs(near):

        def slopes(t: float, du: Tensor = du, dv: Tensor = dv) -> Tensor:
            def both() -> Tensor:
                at = (u + t * du, v + t * dv)
                parts = problem.state_product_transposed(*at, w), problem.control_product_transposed(*at, w)
                return _in_one_unit(near, *parts)

            return _or_nothing(both, torch.cat([u.reshape(-1), v]))

        claims.append(_in_one_unit(near, *problem.second_derivative(u, v, w, du, dv)))
        found.append(central_difference(slopes, levels=_FEW, **_options(near, dv)))
    return compared("second derivatives of R", claims, found)


# The objective


def _values(near: Neighbourhood, u: Tensor, v: Tensor, by_state: bool) -> Tensor:
    """The terms of the objective that depend on the state, or on the control, one by one.

    In the sum of all terms the changes of small terms would be lost.
    """
    problem, objective = near.problem, near.problem.objective
    m = problem.control.physical(v)
    full = problem.equation.embed(u, m)
    values = [float(term.value(full, m).mean()) for term in objective.joint]
    if by_state or problem.equation.data is not None:
        values += [float(term.value(full).mean()) for term in objective.state]
    if not by_state:
        values += [term.value(m) for term in objective.control]
    return torch.tensor([*values, 0.0], dtype=u.dtype)


def _summed(terms: EstimatedDerivative) -> EstimatedDerivative:
    return EstimatedDerivative(terms.value.sum(), terms.doubt.sum(), terms.kinks.any())


def _objective_by_state(near: Neighbourhood) -> Check | None:
    u, v = near.u, near.v
    slope, _ = near.problem.outer_derivatives(u, v)
    directions = [*near.state_directions()]
    found = [_summed(central_difference(partial(_along_state, near, u, d))) for d in directions]
    return compared("objective by u", [_number(dot(slope, d), u) for d in directions], found)


def _along_state(near: Neighbourhood, u: Tensor, direction: Tensor, t: float) -> Tensor:
    return _values(near, u + t * direction, near.v, True)


def _objective_by_control(near: Neighbourhood) -> Check | None:
    u, v = near.u, near.v
    _, slope = near.problem.outer_derivatives(u, v)
    directions = [*near.control_directions()]
    found = [_summed(central_difference(partial(_along_control, near, u, d), **near.options)) for d in directions]
    return compared("objective by v", [_number(dot(slope, d), u) for d in directions], found)


def _along_control(near: Neighbourhood, u: Tensor, direction: Tensor, t: float) -> Tensor:
    return _values(near, u, near.v + t * direction, False)


def _objective_bent(near: Neighbourhood) -> Check | None:
    problem, u, v = near.problem, near.u, near.v
    claims, found = [], []
    for du, dv in _pairs(near):

        def slopes(t: float, du: Tensor = du, dv: Tensor = dv) -> Tensor:
            return _in_one_unit(near, *problem.outer_derivatives(u + t * du, v + t * dv))

        claims.append(_in_one_unit(near, *problem.outer_second_derivatives(u, v, du, dv)))
        found.append(central_difference(slopes, **_options(near, dv)))
    return compared("second derivatives of the objective", claims, found)


def _terms(near: Neighbourhood) -> Iterator[Check | None]:
    """Test every term alone: errors of a small term may be hidden by a large term."""
    problem, objective = near.problem, near.problem.objective
    if len(objective.state) + len(objective.control) + len(objective.joint) < 2:
        return
    m = problem.control.physical(near.v)
    full = problem.equation.embed(near.u, m)
    steps = [problem.equation.extend(d) for d in near.state_directions()]
    moves = [problem.control.physical(d) for d in near.control_directions()]
    numbers: dict[str, int] = {}

    def name(term: object) -> str:
        kind = type(term).__name__
        numbers[kind] = numbers.get(kind, 0) + 1
        words = getattr(term, "name", _WORDS.get(kind, kind))
        return f"{words} {numbers[kind]}" if numbers[kind] > 1 else words

    for own in objective.state:
        found = [_along(own.value, (full,), (d,)) for d in steps]
        yield compared(f"term {name(own)} by u", [_number(dot(own.derivative(full), d), full) for d in steps], found)
    nothing = torch.zeros_like(full), torch.zeros_like(m)
    for joint in objective.joint:
        by_u, by_v = joint.derivative(full, m)
        label = name(joint)
        found = [_along(joint.value, (full, m), (d, nothing[1])) for d in steps]
        yield compared(f"term {label} by u", [_number(dot(by_u, d), full) for d in steps], found)
        found = [_along(joint.value, (full, m), (nothing[0], d), near.options) for d in moves]
        yield compared(f"term {label} by v", [_number(dot(by_v, d), full) for d in moves], found)
    for cost in objective.control:
        found = [_along(cost.value, (m,), (d,), near.options) for d in moves]
        yield compared(f"term {name(cost)} by v", [_number(dot(cost.derivative(m), d), full) for d in moves], found)


def _along(
    value: Callable[..., Tensor | float],
    at: tuple[Tensor, ...],
    steps: tuple[Tensor, ...],
    options: DifferenceOptions | None = None,
) -> EstimatedDerivative:
    """The derivative of a term, summed over the scenarios, in one direction."""

    def moved(t: float) -> Tensor:
        found = value(*(each + t * step for each, step in zip(at, steps, strict=True)))
        return torch.as_tensor(found, dtype=at[0].dtype).sum()

    return central_difference(moved, **(options or {}))


_WORDS = {
    "Tracking": "tracking",
    "LinearState": "linear in u",
    "Regularisation": "regularisation",
    "TotalVariation": "total variation",
    "LinearControl": "linear in v",
}


def _constraint(near: Neighbourhood) -> Check | None:
    """Test the derivative of the constraint, which includes filter and projection of a design."""
    constraint, v = near.problem.constraint, near.v
    if constraint is None:
        return None
    slope = constraint.derivative(v)
    directions = [*near.control_directions()]
    claims = [_number(dot(slope, d), v) for d in directions]
    found = [_along(constraint.value, (v,), (d,), near.options) for d in directions]
    return compared("constraint", claims, found)
