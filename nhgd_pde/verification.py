"""Derivative tests of a problem, for its author: the numbers that say whether a gradient can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .engine.curvature.factored import Factored
from .engine.inner import InnerOptions
from .engine.nhgd import NHGD, HypergradientOptions
from .engine.oracle import Accuracy
from .linalg.factorisation import SingularMatrixError
from .linalg.krylov import dot
from .methods.adjoint import Adjoint
from .pde_problem import PDEProblem

_TIGHT = Accuracy(1e-12, 1e-12)
_DIRECTIONS = 16
_SCORES = 512


@dataclass(frozen=True)
class Check:
    """One test.

    Attributes:
        name: what was tested.
        value: what came out.
        expected: what should have, in words.
        passed: whether it did.
    """

    name: str
    value: float
    expected: str
    passed: bool


@dataclass(frozen=True)
class Verification:
    """All tests of a problem; prints as a table with a verdict."""

    problem: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        lines = [
            f"  {'ok  ' if check.passed else 'FAIL'} {check.name:<{width}}  {check.value:10.3g}   {check.expected}"
            for check in self.checks
        ]
        failed = sum(not check.passed for check in self.checks)
        verdict = "every derivative is right" if not failed else f"{failed} of {len(self.checks)} tests failed"
        return "\n".join([f"{self.problem}:", *lines, verdict])


def verify_problem(problem: PDEProblem, seed: int = 0) -> Verification:
    """Run every test at a random state and control."""
    generator = torch.Generator().manual_seed(seed)
    u, v = problem.start()
    v, room = _inside(problem, v, _smooth(problem, generator))
    u = torch.randn(u.shape, generator=generator, dtype=u.dtype).to(u.device)

    def direction() -> Tensor:
        return _admissible(problem, v, room * _smooth(problem, generator))

    checks = [
        *_adjoint_tests(problem, u, v, direction(), generator),
        _residual_taylor(problem, u, v, direction(), generator),
        *_constraint_test(problem, v, direction()),
    ]
    try:
        checks += [*_hypergradient_tests(problem, v, direction), _fisher_test(problem, u, v, generator)]
    except SingularMatrixError as singular:
        checks.append(Check("hypergradient", math.nan, f"the state cannot be solved: {singular}", False))
    return Verification(problem.name, tuple(checks))


def _smooth(problem: PDEProblem, generator: torch.Generator) -> Tensor:
    """A random smooth direction (p,) of size one: a few waves in space and time."""
    found = []
    for part in problem.control.parts:
        steps = part.steps or 1
        nodes = torch.from_numpy(part.nodes)
        where = torch.cat([nodes.repeat(1, steps), torch.linspace(0, 1, steps).repeat_interleave(part.columns)[None]])
        waves = 3.0 * torch.randn((4, len(where)), generator=generator, dtype=nodes.dtype)
        phases = 6.0 * torch.rand((4, 1), generator=generator, dtype=nodes.dtype)
        found.append(torch.cos(waves @ where.to(nodes.dtype) + phases).sum(0))
    return torch.cat(found).to(problem.equation.lift.device)


def _inside(problem: PDEProblem, v: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """A control (p,) near v + shift where the equation makes sense, well within the bounds, and how far it may move.

    Without bounds the shift is halved until every coefficient that must be positive is.
    """
    room = torch.ones_like(v)
    lower, upper = problem.bounds or (torch.full_like(v, -math.inf), torch.full_like(v, math.inf))
    margin = (0.25 * (upper - lower)).minimum(0.5 * (1.0 + torch.where(lower.isfinite(), lower, upper).abs()))
    margin = torch.where(lower.isfinite() | upper.isfinite(), margin, 0.0)
    u, _ = problem.start()
    for _ in range(20):
        moved = torch.minimum(torch.maximum(v + room * shift, lower + margin), upper - margin)
        try:
            problem.residual(u, moved)
            break
        except SingularMatrixError:
            room = 0.5 * room
    distance = torch.minimum(moved - lower, upper - moved)
    # Directions are sums of four waves of size one.
    return moved, torch.minimum(room, 0.2 * distance)


def _admissible(problem: PDEProblem, v: Tensor, direction: Tensor) -> Tensor:
    """The direction, short enough for the equation to make sense at both its ends."""
    for _ in range(60):
        if not (problem.refusal(v + direction) or problem.refusal(v - direction)):
            break
        direction = 0.5 * direction
    return direction


def _gap(a: float, b: float, scale: float) -> float:
    return abs(a - b) / scale if scale > 0.0 else abs(a - b)


def _adjoint_tests(problem: PDEProblem, u: Tensor, v: Tensor, dv: Tensor, generator: torch.Generator) -> list[Check]:
    """<J w, z> = <w, J^T z> and <R_v w, z> = <w, R_v^T z>, relative to the product of the lengths."""
    equation = problem.equation
    w, z = (torch.randn(u.shape, generator=generator, dtype=u.dtype).to(u.device) for _ in range(2))
    forward, backward = equation.state_product(u, v, w), equation.state_product_transposed(u, v, z)
    gap = _gap(dot(forward, z), dot(w, backward), float(forward.norm() * z.norm()))
    checks = [Check("adjoint of dR/du", gap, "at most 1e-12", gap <= 1e-12)]
    if equation.symmetric:
        # Of the matrix itself: products with a transpose that is known to be equal say nothing.
        matrix = equation.linearise(u, v).whole.host()
        gap = float(abs(matrix - matrix.T).max() / abs(matrix).max())
        checks.append(Check("symmetry of dR/du", gap, "at most 1e-12", gap <= 1e-12))
    pushed, pulled = equation.control_product(u, v, dv), equation.control_product_transposed(u, v, z)
    gap = _gap(dot(pushed, z), dot(dv, pulled), float(pushed.norm() * z.norm()))
    checks.append(Check("adjoint of dR/dv", gap, "at most 1e-12", gap <= 1e-12))
    return checks


def _residual_taylor(problem: PDEProblem, u: Tensor, v: Tensor, dv: Tensor, generator: torch.Generator) -> Check:
    """R against its derivatives: the remainder of first order vanishes, or falls with the square of the step."""
    equation = problem.equation
    du = torch.randn(u.shape, generator=generator, dtype=u.dtype).to(u.device)
    base = equation.residual(u, v)
    linear = equation.state_product(u, v, du) + equation.control_product(u, v, dv)
    scale = float(base.norm() + linear.norm())
    # A rough state is far from where the second order dominates; down from there as far as rounding allows.
    steps = [0.5**k for k in range(2, 20)]
    remainders = [float((equation.residual(u + t * du, v + t * dv) - base - t * linear).norm()) for t in steps]
    if max(remainders) <= 1e-11 * scale:
        return Check("Taylor remainder of R (affine)", max(remainders) / scale, "at most 1e-11", True)
    clear = max(sum(remainder > 1e-10 * scale for remainder in remainders), 5)
    rate = _rate(steps[clear - 5 : clear], remainders[clear - 5 : clear])
    return Check("Taylor rate of R", rate, "at least 1.9", rate >= 1.9)


def _constraint_test(problem: PDEProblem, v: Tensor, step: Tensor) -> list[Check]:
    """The derivative of the constraint, where there is one: filter and projection of a design are in it."""
    constraint = problem.constraint
    if constraint is None:
        return []
    base, slope = constraint.value(v), dot(constraint.derivative(v), step)
    scale = abs(base) + abs(slope)
    steps = [0.5**k for k in range(3, 9)]
    remainders = [abs(constraint.value(v + t * step) - base - t * slope) for t in steps]
    if max(remainders) <= 1e-11 * scale:
        value = max(remainders) / scale
        return [Check("Taylor remainder of the constraint (affine)", value, "at most 1e-11", True)]
    rate = _rate(steps, remainders)
    return [Check("Taylor rate of the constraint", rate, "at least 1.9", rate >= 1.9)]


def _rate(steps: list[float], remainders: list[float]) -> float:
    """Least-squares slope of log remainder against log step."""
    x = torch.log(torch.tensor(steps, dtype=torch.float64))
    y = torch.log(torch.tensor(remainders, dtype=torch.float64).clamp(min=1e-300))
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())


def _hypergradient_tests(problem: PDEProblem, v: Tensor, along: Callable[[], Tensor]) -> list[Check]:
    """The hypergradient against the exact adjoint, and against differences of the objective."""
    u, _ = problem.start()
    nhgd = NHGD(InnerOptions(), Factored(), HypergradientOptions(tolerance=1e-12))
    adjoint = Adjoint()
    ours, _ = nhgd.evaluate(problem, v, nhgd.init(problem, u, v), _TIGHT)
    exact, known = adjoint.evaluate(problem, v, adjoint.init(problem, u, v), _TIGHT)
    if not (ours.finite and exact.finite):
        message = ours.message or exact.message or "not finite"
        return [Check("hypergradient", math.nan, f"the state could not be solved: {message}", False)]
    metric = problem.outer_metric
    gap = metric.norm((ours.gradient - exact.gradient)[None]) / max(metric.norm(exact.gradient[None]), 1e-300)
    checks = [Check("hypergradient against exact adjoint", gap, "at most 1e-8", gap <= 1e-8)]

    direction = along()
    slope = dot(ours.derivative, direction)

    def remainder(t: float) -> float:
        moved, _ = adjoint.evaluate(problem, v + t * direction, known, _TIGHT)
        return abs(moved.value - exact.value - t * slope)

    rate = _taylor_rate(remainder, exact.value, 1.0 if problem.bounds is not None else math.inf)
    checks.append(Check("Taylor rate of the objective", rate, "at least 1.9", rate >= 1.9))
    hessian = adjoint.hessian(problem, v, known)
    other = along()
    image, across = hessian(direction), hessian(other)
    gap = _gap(dot(image, other), dot(across, direction), float(image.norm() * other.norm()))
    checks.append(Check("symmetry of the reduced Hessian", gap, "at most 1e-10", gap <= 1e-10))

    def difference(t: float) -> float:
        """Central difference of the derivative against the Hessian, relative."""
        ends = [adjoint.evaluate(problem, v + sign * t * direction, known, _TIGHT)[0] for sign in (1.0, -1.0)]
        if not all(end.finite for end in ends):
            # Where the equation has no solution, or makes no sense.
            return math.inf
        error = (ends[0].derivative - ends[1].derivative) / (2.0 * t) - image
        return float(error.norm() / image.norm())

    # Of order t^2, and rounding over t: the best of a range of steps has few digits of neither.
    gap = min(difference(8.0**-k) for k in range(7))
    checks.append(Check("reduced Hessian against differences", gap, "at most 1e-6", gap <= 1e-6))
    return checks


def _taylor_rate(remainder: Callable[[float], float], value: float, longest: float = math.inf) -> float:
    """The rate at which the remainder falls, the smallest of the last three steps that stand clear of rounding.

    The first ones may be too long for the second order to dominate. Steps begin where the remainder is small against
    the objective and go down to where a relative error of about 1e-4 in the gradient would show as a rate of one.
    """
    t, size = 1.0, remainder(1.0)
    for _ in range(60):
        if not math.isfinite(size) or size > 1e-3 * abs(value):
            t *= 0.25
        elif size < 1e-5 * abs(value) and 4.0 * t <= longest:
            t *= 4.0
        else:
            break
        size = remainder(t)
    rates = []
    for _ in range(8):
        t *= 0.25
        smaller = remainder(t)
        if smaller < 1e-11 * abs(value):
            break
        rates.append(math.log(size / smaller, 4.0))
        size = smaller
    return min(rates[-3:], default=math.nan)


def _fisher_test(problem: PDEProblem, u: Tensor, v: Tensor, generator: torch.Generator) -> Check:
    """Covariance of sampled scores against the Hessian, along random directions z: mean <s, z>^2 over <z, H z>."""
    scenarios, n = u.shape
    directions = torch.randn((_DIRECTIONS, scenarios, n), generator=generator, dtype=u.dtype).to(u.device)
    squares = torch.zeros(_DIRECTIONS, dtype=u.dtype, device=u.device)
    batch = 32
    for _ in range(_SCORES // batch):
        scores = problem.batch(u, v, problem.sample(batch, generator)).scores
        squares += (directions.reshape(_DIRECTIONS, -1) @ scores).square().sum(1)
    expected = torch.stack([(z * problem.hessian_product(u, v, z)).sum() for z in directions])
    deviation = float((squares / _SCORES / expected - 1.0).mean())
    bound = 5.0 * math.sqrt(2.0 / (_SCORES * min(_DIRECTIONS, scenarios * n)))
    return Check(
        "Fisher against Hessian",
        deviation,
        f"at most {bound:.2g} (five standard errors)",
        abs(deviation) <= bound,
    )
