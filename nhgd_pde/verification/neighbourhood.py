"""The point at which derivatives are tested, and how states and controls move in its neighbourhood."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation
from ..engine.state_newton import solve_from_anywhere
from ..linalg.factorisation import SingularMatrixError
from ..linalg.safe_lengths import dot
from ..methods.adjoint import Adjoint, AdjointState, ExactDirections
from ..pde_problem import PDEProblem
from .reach import makes_sense, room_at

TIGHT = Accuracy(1e-12, 1e-12)
# Largest number of named boundaries, and of named subdomains, to which directions are restricted.
_NAMED = 6
# Largest numbers of reductions of the step of controls: until the objective is as expected, and the state is solved.
_SHORTER, _NEARER = 12, 6
# Least change of the state by a step of the controls, relative to the state.
_SHARE = 1e-2
# Of the size that disturbances of the equation make of a field: less is rounding.
_ZERO = 1e-8
# Largest number of Newton steps for a state at which something is not finite.
_MOST_STEPS = 50
# Binary digits of a number that steps of differences leave to its direction: 53, less 2 for the longest step of 1/4, 16
# for eight ratios of 1/4, and 2 for the other set of steps.
_BITS = 53 - 20

# Named options of a difference: `sided` and `blur`.
DifferenceOptions = dict[str, Any]


class UnsolvedError(ValueError):
    """The state equation has no solution that could be found; the message says why."""


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """A control, its state, their units, and directions in which they move.

    Attributes:
        problem: the problem to test.
        v: (p,) the control.
        solution: (S, n) its state.
        u: (S, n) the state that derivatives are tested at: the solution, or one near it that solves nothing.
        unit: (n,) the size of each unknown of the state.
        room: (p,) how far each control may move.
        side: (p,) 1 or -1 for a control that may increase, or decrease, by this much, but not the other way, because
            it is at a bound or at the edge of an admissible range; 0 for others.
        exact: the objective and its gradient at v by the exact adjoint.
        known: the state and the adjoint variable of `exact`.
        generator: source of random directions.
    """

    problem: PDEProblem
    v: Tensor
    solution: Tensor
    u: Tensor
    unit: Tensor
    room: Tensor
    side: Tensor
    exact: Evaluation
    known: AdjointState
    generator: torch.Generator

    @property
    def ended(self) -> bool:
        """Whether the tests are made at the end of a run, which may be an optimum."""
        return self.u is self.solution

    def row(self, number: int, count: int) -> str:
        """The time step that a row of values at points belongs to, at the end of a sentence; empty where it is none."""
        steps = self.problem.equation.repeats
        return f" in time step {number % steps + 1} of {steps}" if steps > 1 and count % steps == 0 else ""

    def noise(self, shape: tuple[int, ...] | torch.Size) -> Tensor:
        """Independent normal numbers."""
        return torch.randn(shape, generator=self.generator, dtype=self.v.dtype).to(self.v.device)

    @property
    def sided(self) -> bool:
        """Whether controls may move along a direction, but not against it."""
        return bool(self.side.any())

    @property
    def options(self) -> DifferenceOptions:
        """How differences by the controls are taken here."""
        return {"sided": self.sided, "blur": self.blur}

    @cached_property
    def blur(self) -> float:
        """The largest ratio of a control to its room, unless the sums of both are exact."""
        inexact = (self.room > 0.0) & ~self._exact
        return float((self.v.abs() / self.room)[inexact].max()) if bool(inexact.any()) else 0.0

    @cached_property
    def _exact(self) -> Tensor:
        """(p,) mask of the controls whose directions are rounded, so that v and all steps have exact sums.

        These are numbers: the values of fields at points are rounded in any case.
        """
        numbers = [torch.full((part.size,), part.space is None) for part in self.problem.control.parts]
        return torch.cat(numbers).to(self.v.device) & (self.room > 64.0 * _grain(self.v))

    def _admissible(self, direction: Tensor) -> Tensor:
        """A direction (p,) in units of the room of each control, turned inwards where a control is at an edge."""
        moved = self.room * torch.where(self.side == 0.0, direction, self.side * direction.abs())
        grain = torch.where(self._exact, _grain(self.v), 1.0)
        return torch.where(self._exact & (grain > 0.0), (moved / grain).round() * grain, moved)

    # Directions of states (S, n) and of controls (p,)

    def state_direction(self) -> Tensor:
        return self.unit * self.noise(self.u.shape)

    def control_direction(self) -> Tensor:
        return self._admissible(self.noise(self.v.shape))

    def smooth_control_direction(self) -> Tensor:
        return self._admissible(smooth(self.problem, self.generator))

    def smooth_state_direction(self) -> Tensor:
        copies = self.problem.equation.size // self.problem.space.size
        nodes = torch.from_numpy(np.tile(self.problem.space.nodes, copies)[:, self.problem.equation.free])
        return (self.unit * _waves(nodes, self.generator).to(self.u.device)).expand(self.u.shape)

    def state_directions(self) -> Iterator[Tensor]:
        """Smooth, rough, and rough ones on parts of the domain."""
        yield self.smooth_state_direction()
        whole = self.state_direction()
        yield whole
        yield from (whole * part for part in self._state_parts())

    def control_directions(self) -> Iterator[Tensor]:
        yield self.smooth_control_direction()
        whole = self.control_direction()
        yield whole
        yield from (whole * part for part in self._control_parts() if torch.count_nonzero(whole * part))

    def _state_parts(self) -> Iterator[Tensor]:
        problem = self.problem
        free = np.asarray(problem.equation.free) % problem.space.size
        fields = range(len(problem.space.parts))
        domain = problem.space.domain
        named = [facets for facets in domain.boundaries.values() if len(facets)][:_NAMED]
        found = [np.concatenate([problem.space.facet_dofs(facets, k) for k in fields]) for facets in named]
        found += [problem.space.cell_dofs(cells) for cells in domain.subdomains.values() if len(cells)][:_NAMED]
        masks = [np.isin(free, dofs) for dofs in found]
        masks = [mask for mask in masks if mask.any() and not mask.all()]
        for mask in (*masks, *_divided(problem.space.nodes[:, free])):
            yield torch.from_numpy(mask).to(self.u.device)

    def _control_parts(self) -> Iterator[Tensor]:
        offsets = self.problem.control.rows.offsets
        for part, first in zip(self.problem.control.parts, offsets, strict=False):
            for mask in _divided(np.tile(part.nodes, part.steps or 1)):
                whole = torch.zeros(len(self.v), dtype=torch.bool)
                whole[first : first + part.size] = torch.from_numpy(mask)
                yield whole.to(self.v.device)


def _grain(v: Tensor) -> Tensor:
    """(p,) powers of two: v plus a multiple of one, times any step of a difference, is exact."""
    return torch.ldexp(torch.ones_like(v), torch.frexp(v.abs()).exponent - _BITS)


def _divided(nodes: np.ndarray) -> Iterator[np.ndarray]:
    """Masks of the two halves across every axis."""
    for axis in nodes:
        if np.ptp(axis) > 0.0:
            low = axis <= np.median(axis)
            if low.any() and not low.all():
                yield low
                yield ~low


def _waves(where: Tensor, generator: torch.Generator) -> Tensor:
    """A random smooth function at points (dim, k), of size one: a few waves."""
    waves = 3.0 * torch.randn((4, len(where)), generator=generator, dtype=where.dtype)
    phases = 6.0 * torch.rand((4, 1), generator=generator, dtype=where.dtype)
    lengths = where - where.amin(1, keepdim=True)
    extent = float(lengths.max()) or 1.0
    return torch.cos(waves @ (lengths / extent) + phases).sum(0)


def smooth(problem: PDEProblem, generator: torch.Generator) -> Tensor:
    """A random smooth control (p,) of size one: a few waves in space and time."""
    found = []
    for part in problem.control.parts:
        steps = part.steps or 1
        nodes = torch.from_numpy(part.nodes)
        extent = float(nodes.max() - nodes.min()) or 1.0
        times = torch.linspace(0, extent, steps, dtype=nodes.dtype).repeat_interleave(part.columns)[None]
        found.append(_waves(torch.cat([nodes.repeat(1, steps), times]), generator))
    return torch.cat(found).to(problem.equation.lift.device)


def placed(problem: PDEProblem, generator: torch.Generator, at: tuple[Tensor | None, Tensor] | None) -> Neighbourhood:
    """A random control near the first one and a state near its own; or exactly a state (S, n) and a control (p,).

    Raises:
        UnsolvedError: the state equation could not be solved there.
    """
    u, v = problem.start()
    if problem.bounds is not None:
        v = v.clamp(*problem.bounds)
    if at is not None:
        u, v = problem.cold_start(at[1]) if at[0] is None else at[0], at[1]
    unit, adjoint = _control_unit(problem, u, v), Adjoint()
    start, shift = v, smooth(problem, generator) if at is None else torch.zeros_like(v)
    for _ in range(_NEARER):
        if at is None:
            v = _inside(problem, start, unit * shift, unit)
            u = problem.cold_start(v)
        exact, known = adjoint.evaluate(problem, v, adjoint.init(problem, u, v), TIGHT)
        if exact.finite or at is not None:
            break
        # The control is too far from those whose state can be solved.
        unit = 0.25 * unit
    if not exact.finite:
        said = exact.message or _not_finite(problem, u, v)
        raise UnsolvedError(f"the state could not be solved: {said or 'it is not finite'}")
    room, side = room_at(problem, known.u, v, unit)
    size = _state_unit(problem, known.u, v, room * smooth(problem, generator))
    near = Neighbourhood(problem, v, known.u, known.u, size, room, side, exact, known, generator)
    return near if at is not None else _beside(near)


def _not_finite(problem: PDEProblem, u: Tensor, v: Tensor) -> str:
    """A sentence on the first integrand that is not finite at the state of v, or whose derivatives are not."""
    found = solve_from_anywhere(problem, v, u, ExactDirections(problem, v, u), TIGHT.state, _MOST_STEPS)
    if found.failed:
        return found.message
    for function in problem.integrands(found.u, v):
        value = function.value(*function.at)[..., function.kept]
        slopes = function.gradient(function.at, torch.ones_like(function.value(*function.at)))
        parts = {"values": [value], "derivatives": [each[..., function.kept] for each in slopes]}
        for what, tensors in parts.items():
            wrong = torch.stack([~each.reshape(-1, each.shape[-1]).isfinite().all(0) for each in tensors]).any(0)
            if bool(wrong.any()):
                where = function.x[:, function.kept][:, int(wrong.int().argmax())]
                point = ", ".join(f"{float(axis):.4g}" for axis in where)
                share = 100.0 * float(wrong.double().mean())
                return f"{function.name}: its {what} are not finite at {share:.2g} % of the points, as at ({point})"
    return ""


def _beside(near: Neighbourhood) -> Neighbourhood:
    """The neighbourhood of a rough state near the solution, as far away as equation and objective are finite."""
    problem, shift = near.problem, near.state_direction()
    for k in range(20):
        moved = near.solution + 0.5**k * shift
        try:
            values = [problem.residual(moved, near.v), *problem.outer_derivatives(moved, near.v)]
        except SingularMatrixError:
            continue
        if all(bool(value.isfinite().all()) for value in values):
            return replace(near, u=moved)
    return near


def _inside(problem: PDEProblem, v: Tensor, shift: Tensor, unit: Tensor) -> Tensor:
    """A control (p,) near v + shift where the equation makes sense, well within the bounds.

    The shift is halved until every coefficient is in its range.
    """
    lower, upper = problem.bounds or (torch.full_like(v, -math.inf), torch.full_like(v, math.inf))
    both = torch.where(lower.isfinite() & upper.isfinite(), 0.25 * (upper - lower), torch.inf)
    margin = torch.where(lower.isfinite() | upper.isfinite(), both.minimum(0.5 * unit), 0.0)
    moved, (u, _) = v, problem.start()
    for _ in range(20):
        moved = torch.minimum(torch.maximum(v + shift, lower + margin), upper - margin)
        if makes_sense(problem, u, moved):
            break
        shift = 0.5 * shift
    return moved


def _control_unit(problem: PDEProblem, u: Tensor, v: Tensor) -> Tensor:
    """(p,) the size of each control: its own, or where it is zero that of a step along the gradient."""
    found = []
    steps, least = _steps(problem, u, v)
    for number, (part, own) in enumerate(zip(problem.control.parts, problem.control.split(v), strict=True)):
        # A step hardly changes the state if the gradient is zero to rounding, or if a penalty is large.
        size = float(own.abs().max()) or max(steps[number], _SHARE * least[number])
        room = math.inf
        if part.lower is not None and part.upper is not None:
            room = float((part.upper - part.lower).max())
        size = min(size, room) if math.isfinite(size) and size > 0.0 else min(1.0, room)
        found.append(torch.full_like(own, size))
    return torch.cat(found)


def _steps(problem: PDEProblem, u: Tensor, v: Tensor) -> tuple[list[float], list[float]]:
    """For each control the length of the Cauchy step -<g, g> / <g, H g> g, and of a step that changes the whole state.

    Lengths are in the unit of the control; they are zero where there is no such step.
    """
    adjoint = Adjoint()
    try:
        exact, known = adjoint.evaluate(problem, v, adjoint.init(problem, u, v), TIGHT)
    except SingularMatrixError:
        exact = None
    if exact is None or not exact.finite:
        return [0.0] * len(problem.control.parts), [0.0] * len(problem.control.parts)
    hessian, lengths, changes = adjoint.hessian(problem, v, known), [], []
    whole = float(problem.state(known.u, v).abs().max())
    offsets = problem.control.rows.offsets
    for first, end in pairwise(offsets):
        own = torch.zeros_like(v)
        own[first:end] = 1.0
        change = problem.state_factors(known.u, v).solve(problem.control_product(known.u, v, own))
        effect = float(change.abs().max())
        changes.append(whole / effect if effect > 0.0 and math.isfinite(whole / effect) else 0.0)
        own[first:end] = exact.gradient[first:end]
        largest = float(own.abs().max())
        if not (math.isfinite(largest) and largest > 0.0):
            lengths.append(0.0)
            continue
        own = own / largest
        bend = abs(dot(hessian(own), own))
        length = abs(dot(exact.derivative, own)) / bend if bend > 0.0 else 0.0
        # Where the quadratic model gives too long a step, the objective grows, and the step is shortened.
        for _ in range(_SHORTER if length > 0.0 else 0):
            there, _ = adjoint.evaluate(problem, v - length * own, known, TIGHT)
            expected = abs(exact.value) + length * abs(dot(exact.derivative, own))
            if there.finite and there.value <= exact.value + 10.0 * expected:
                break
            length *= 0.25
        lengths.append(length if math.isfinite(length) else 0.0)
    return lengths, changes


def _response(problem: PDEProblem, u: Tensor, v: Tensor, rows: Callable[[], Tensor]) -> Tensor:
    """The change of the fields when the equation changes by some rows (S, n); zero if it is singular."""
    try:
        return problem.equation.extend(problem.state_factors(u, v).solve(rows()))
    except SingularMatrixError:
        return torch.zeros_like(problem.state(u, v))


def _state_unit(problem: PDEProblem, u: Tensor, v: Tensor, change: Tensor) -> Tensor:
    """(n,) the size of the field of each unknown: of its values, or of their change with a change of the controls."""
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(u.shape, generator=generator, dtype=u.dtype).to(u.device) for _ in range(2))
    full, width, sizes = problem.state(u, v), problem.space.size, []
    response = _response(problem, u, v, lambda: problem.control_product(u, v, change))
    # Every row of the equation is off by the size of its terms.
    rough = _response(problem, u, v, lambda: second * problem.state_product(u, v, first * u))
    for first, end in zip(problem.space.offsets[:-1], problem.space.offsets[1:], strict=True):
        own, other, disturbed = (
            float(each.reshape(-1, width)[:, first:end].abs().max()) for each in (full, response, rough)
        )
        size = max(each for each in (own, other) if math.isfinite(each))
        # A field that is zero to rounding, as a pressure may be, has the size that disturbances make of it.
        sizes.append(disturbed if math.isfinite(disturbed) and size < _ZERO * disturbed else size)
    largest = max(sizes) or 1.0
    sizes = [size or largest for size in sizes]
    fields = np.searchsorted(problem.space.offsets, np.asarray(problem.equation.free) % width, side="right") - 1
    return torch.tensor([sizes[k] for k in fields], dtype=u.dtype, device=u.device)
