"""Tests of residual, objective and their parts, with the derivatives that the methods use."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

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
    for tests in (_residual, _integrals, _objective, _terms, _constraint):
        yield from filter(None, tests(near))


def _or_nothing(make: Callable[[], Tensor], like: Tensor) -> Tensor:
    """The tensor that is made, or NaN in its shape where the equation makes no sense."""
    try:
        return make()
    except SingularMatrixError:
        return torch.full_like(like, math.nan)


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
    products = (
        (problem.state_product, problem.state_product_transposed),
        (problem.control_product, problem.control_product_transposed),
    )
    # Tests are in the reciprocal units of the residual, row by row.
    weights = 1.0 / _row_sizes(near, _parts(near, u))
    for directions in zip(near.state_directions(), [*near.control_directions()] * 20, strict=False):
        z = weights * near.noise(u.shape)
        for name, d, (product, transposed) in zip(worst, directions, products, strict=True):
            pushed, pulled = product(u, v, d), transposed(u, v, z)
            sizes = float((pushed * z).abs().sum() + (d * pulled).abs().sum())
            worst[name] = max(worst[name], gap(dot(pushed, z), dot(d, pulled), sizes))
    checks = [Check(name, value, "at most 1e-12", value <= _EXACT) for name, value in worst.items()]
    if problem.equation.symmetric:
        # The matrix itself is tested: products would use the same matrix for a transpose that is assumed to be equal.
        matrix = problem.equation.linearise(u, problem.control.physical(v)).whole.host()
        value = float(abs(matrix - matrix.T).max() / abs(matrix).max())
        checks.insert(1, Check("symmetry of dR/du", value, "at most 1e-12", value <= _EXACT))
    return checks


# The equation


def _residual(near: Neighbourhood) -> Iterator[Check | None]:
    """First and second derivatives of the residual."""
    problem, u, v, solution = near.problem, near.u, near.v, near.solution

    def along_state(d: Tensor, t: float) -> Tensor:
        return _or_nothing(lambda: problem.residual(u + t * d, v), u)

    def along_control(d: Tensor, t: float) -> Tensor:
        return _or_nothing(lambda: problem.residual(solution, v + t * d), u)

    steps = [near.smooth_state_direction(), *(near.state_direction() for _ in range(3))]
    claims, parts = [problem.state_product(u, v, d) for d in steps], _parts(near, u)
    found = [central_difference(partial(along_state, d), parts=parts) for d in steps]
    yield compared("dR/du against differences", claims, found, together=True)
    # The test is made at the solution: relative to the residual of a rough state the changes would have few digits.
    moves = [near.smooth_control_direction(), *(near.control_direction() for _ in range(3))]
    claims, parts = [problem.control_product(solution, v, d) for d in moves], _parts(near, solution)
    found = [central_difference(partial(along_control, d), parts=parts, **near.options) for d in moves]
    yield compared("dR/dv against differences", claims, found, together=True)
    if problem.equation.affine:
        return
    test = near.state_direction()

    def slopes(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return problem.state_product_transposed(u, v, test), problem.control_product_transposed(u, v, test)

    yield _bends(near, "second derivatives of R", slopes, partial(problem.second_derivative, u, v, test), levels=_FEW)


def _bends(
    near: Neighbourhood,
    name: str,
    slopes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    second: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    **options: Any,
) -> Check | None:
    """Second derivatives in the directions of the state alone and of the controls alone, against differences."""
    u, v = near.u, near.v
    nothing = torch.cat([u.reshape(-1), v])
    pairs = (near.state_direction(), torch.zeros_like(v)), (torch.zeros_like(u), near.control_direction())
    claims, found = [], []
    for du, dv in pairs:

        def moved(t: float, du: Tensor = du, dv: Tensor = dv) -> Tensor:
            return _or_nothing(lambda: _in_one_unit(near, *slopes(u + t * du, v + t * dv)), nothing)

        claims.append(_in_one_unit(near, *second(du, dv)))
        of_controls = near.options if bool(torch.count_nonzero(dv)) else {}
        found.append(central_difference(moved, **options, **of_controls))
    return compared(name, claims, found)


def _in_one_unit(near: Neighbourhood, by_state: Tensor, by_control: Tensor) -> Tensor:
    """Derivatives by unknowns (S, n) and controls (p,), times the sizes of these."""
    return torch.cat([(near.unit * by_state).reshape(-1), near.room * by_control])


def _integrals(near: Neighbourhood) -> Iterator[Check]:
    """The residual of an affine equation, computed from its derivatives, must equal that from its integrals."""
    problem, v = near.problem, near.v
    if not problem.equation.affine:
        return
    # The test is not made at a solution, where both are zero to rounding.
    u = near.solution + near.state_direction()
    direct, made = problem.integrated(u, v), problem.residual(u, v)
    # Terms of a row may cancel, so errors are relative to the size of these terms.
    size = torch.maximum((direct - made).abs(), direct.abs()).max()
    value = float((direct - made).abs().max() / size) if float(size) else 0.0
    yield Check("R against its integrals", value, "at most 1e-10", value <= 1e-10)


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


def _objective(near: Neighbourhood) -> Iterator[Check | None]:
    """First and second derivatives of the objective."""
    problem, u, v = near.problem, near.u, near.v
    by_state, by_control = problem.outer_derivatives(u, v)
    yield _slopes("objective by u", by_state, near.state_directions(), lambda d, t: _values(near, u + t * d, v, True))
    yield _slopes(
        "objective by v",
        by_control,
        near.control_directions(),
        lambda d, t: _values(near, u, v + t * d, False),
        near.options,
    )
    second = partial(problem.outer_second_derivatives, u, v)
    yield _bends(near, "second derivatives of the objective", problem.outer_derivatives, second)


def _slopes(
    name: str,
    slope: Tensor,
    directions: Iterable[Tensor],
    along: Callable[[Tensor, float], Tensor],
    options: DifferenceOptions | None = None,
) -> Check | None:
    """The derivative of a sum in some directions against differences of its summands along (direction, step)."""
    directions = [*directions]
    found = []
    for d in directions:
        terms = central_difference(partial(along, d), **(options or {}))
        found.append(EstimatedDerivative(terms.value.sum(), terms.doubt.sum(), terms.kinks.any()))
    return compared(name, [torch.as_tensor(dot(slope, d)).to(slope) for d in directions], found)


def _terms(near: Neighbourhood) -> Iterator[Check | None]:
    """Test every term alone: errors of a small term may be hidden by a large term."""
    problem, objective = near.problem, near.problem.objective
    if len(objective.state) + len(objective.control) + len(objective.joint) < 2:
        return
    m = problem.control.physical(near.v)
    full = problem.equation.embed(near.u, m)
    steps = [problem.equation.extend(d) for d in near.state_directions()]
    moves = [problem.control.physical(d) for d in near.control_directions()]
    numbers: Counter[str] = Counter()

    def name(term: object) -> str:
        kind = type(term).__name__
        numbers[kind] += 1
        words = getattr(term, "name", _WORDS.get(kind, kind))
        return f"term {words} {numbers[kind]}" if numbers[kind] > 1 else f"term {words}"

    for own in objective.state:
        along = partial(_along, own.value, (full,), 0)
        yield _slopes(f"{name(own)} by u", own.derivative(full), steps, along)
    for joint in objective.joint:
        slopes, label = joint.derivative(full, m), name(joint)
        yield _slopes(f"{label} by u", slopes[0], steps, partial(_along, joint.value, (full, m), 0))
        yield _slopes(f"{label} by v", slopes[1], moves, partial(_along, joint.value, (full, m), 1), near.options)
    for cost in objective.control:
        along = partial(_along, cost.value, (m,), 0)
        yield _slopes(f"{name(cost)} by v", cost.derivative(m), moves, along, near.options)


def _along(
    value: Callable[..., Tensor | float], at: tuple[Tensor, ...], number: int, direction: Tensor, t: float
) -> Tensor:
    """A value, summed over the scenarios, where one of its arguments has moved."""
    moved = [each + t * direction if k == number else each for k, each in enumerate(at)]
    return torch.as_tensor(value(*moved), dtype=at[0].dtype).sum()


_WORDS = {
    "Tracking": "tracking",
    "LinearState": "linear in u",
    "Regularisation": "regularisation",
    "TotalVariation": "total variation",
    "LinearControl": "linear in v",
}


def _constraint(near: Neighbourhood) -> Iterator[Check | None]:
    """Test the derivative of the constraint, which includes filter and projection of a design."""
    constraint, v = near.problem.constraint, near.v
    if constraint is not None:
        along = partial(_along, constraint.value, (v,), 0)
        yield _slopes("constraint", constraint.derivative(v), near.control_directions(), along, near.options)
