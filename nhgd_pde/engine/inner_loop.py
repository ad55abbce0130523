"""The inner loop: steps on the inner objective, each of which also renews the inverse Fisher information."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..linalg.conjugate_gradients import conjugate_gradients
from ..linalg.conjugate_residuals import preconditioned_residuals
from ..linalg.factorisation import SingularMatrixError
from ..linalg.safe_lengths import dot, magnitude
from .bilevel import BilevelProblem, InnerBatch, Sample, inner_spectrum
from .curvature.base import Curvature, CurvatureState, begin_solve, belongs
from .running_cross import RunningCross
from .state_newton import solve_from_anywhere, solved_already

# Relative error of a Newton direction that is found by iteration.
_INEXACT = 1e-2
# A residual that grows by more than this in one sampled step shows a step that was too long.
_GROWTH = 10.0
# A warning is given where observed scores inflate the Fisher information by more than this factor in a batch.
_INFLATION = 10.0

_DIVERGED = "the sampled inner steps diverged"


@dataclass(frozen=True)
class InnerOptions:
    """Options of the inner loop.

    Attributes:
        tests: number of scores per batch; None takes expectations over all tests, which makes a natural-gradient step a
            Newton step on the state equation.
        steps: largest number of steps per loop; with sampled tests, a fixed tolerance may end the loop earlier.
        tolerance: relative residual to reach; None ties it to the progress of the outer iteration.
        optimiser: `natural` steps along A g, `sgd` along the Riesz representative of g.
        metric: the inner product in which `sgd` represents gradients: that of the space, or that of the coefficients.
        schedule: steps of `sgd`; `paper` is eta_t = 4 / (mu (t + 8 L^2 / mu^2)), t = 1, 2, ... in every loop, a number
            is a constant step.
        keep_cross: keep the mean of the batches' cross derivatives, which the hypergradient takes.
        lag: number of batches of scores that the inverse may lag behind at the end of an inner loop. They are absorbed
            during the next loop.
    """

    tests: int | None = None
    steps: int = 50
    tolerance: float | None = None
    optimiser: Literal["natural", "sgd"] = "natural"
    metric: Literal["riesz", "identity"] = "riesz"
    schedule: float | Literal["paper"] = "paper"
    keep_cross: bool = False
    lag: int = 0

    def represented(self, problem: BilevelProblem) -> Callable[[Tensor], Tensor]:
        """The map from covectors to the vectors that represent them in the inner product of `sgd`."""
        return problem.inner_metric.gradient if self.metric == "riesz" else Tensor.clone


@dataclass(frozen=True)
class InnerState:
    """Data that the inner loop carries from one outer iteration to the next.

    Attributes:
        u: (S, n) inner variables.
        curvature: the inverse Fisher information.
        steps: inner steps taken since the start of the run.
        spectrum: estimates (mu, L) of the ends of the inner spectrum, made when a schedule first needs them.
        held: batches of scores that the inverse has still to absorb.
        sample: the sample that is already drawn for the next step.
    """

    u: Tensor
    curvature: CurvatureState
    steps: int = 0
    spectrum: tuple[float, float] | None = None
    held: tuple[Tensor, ...] = ()
    sample: Sample | None = None


@dataclass(frozen=True)
class InnerResult:
    """The result of an inner loop.

    Attributes:
        state: the state after the loop.
        error: its certificate, see `inner_error`.
        converged: the error is at most the tolerance.
        message: a sentence on a failure.
        warning: a sentence on options that make the inverse wrong.
        cross: the mean of the cross derivatives of the batches, where it is kept.
        residual: R where the loop has ended, if it is known.
    """

    state: InnerState
    error: float
    converged: bool
    message: str = ""
    warning: str = ""
    cross: RunningCross | None = None
    residual: Tensor | None = None


def solve_inner(
    problem: BilevelProblem,
    v: Tensor,
    state: InnerState,
    curvature: Curvature,
    options: InnerOptions,
    tolerance: float,
    generator: torch.Generator,
    followed: bool = False,
) -> InnerResult:
    """Bring u close to u*(v), starting from the u of the last loop.

    Natural-gradient steps on the expected inner objective are Newton steps, with an inverse that may be older.

    Args:
        followed: that u may be the solution, so that its residual is looked at first.
    """
    if options.tests is not None:
        return _sampled_steps(problem, v, state, curvature, options, tolerance, generator)
    kind = _Pointwise if curvature.pointwise else _Iterated if curvature.iterated else _Natural
    directions = kind(problem, v, curvature, state.curvature, tolerance)
    known = solved_already(problem, v, state.u, directions, tolerance) if followed else None
    root = known or solve_from_anywhere(problem, v, state.u, directions, tolerance, options.steps)
    last = root.directions
    assert isinstance(last, _Natural)
    if curvature.iterated and torch.isfinite(root.u).all():
        # The hypergradient, and the next inner loop, take a preconditioner of this point.
        last = last.renewed(root.u)
    done = InnerState(root.u, last.state, state.steps + root.steps, state.spectrum)
    error = math.nan if root.failed else root.error
    return InnerResult(done, error, error <= tolerance, root.message, residual=root.residual)


@dataclass(frozen=True)
class _Natural:
    """Natural-gradient directions A g, g the inner gradient, as `Directions`."""

    problem: BilevelProblem
    v: Tensor
    curvature: Curvature
    state: Any
    tolerance: float

    def direction(self, u: Tensor, residual: Tensor) -> Tensor:
        return self.state.solve(self.problem.inner_gradient(u, self.v))

    def belongs(self, u: Tensor) -> bool:
        return False

    def renewed(self, u: Tensor) -> _Natural:
        return replace(self, state=self.curvature.refresh(self.state, self.problem, u, self.v))


@dataclass(frozen=True)
class _Pointwise(_Natural):
    """The same for factors of J at one point: there A g = J^-1 R, elsewhere this is the better direction.

    A belongs to the mean of the scenarios' J; with several scenarios it preconditions the system of each.
    """

    def direction(self, u: Tensor, residual: Tensor) -> Tensor:
        problem, v = self.problem, self.v
        if u.shape[0] == 1:
            return self.state.newton_step(residual)

        def product(w: Tensor) -> Tensor:
            return problem.state_product(u, v, w)

        rtol = 0.1 * self.tolerance if problem.linear else _INEXACT
        step, metric = self.state.newton_step, problem.inner_metric
        return preconditioned_residuals(product, residual, step, metric, rtol=rtol).solution

    def belongs(self, u: Tensor) -> bool:
        return belongs(self.state, self.problem, u, self.v)


@dataclass(frozen=True)
class _Iterated(_Natural):
    """Newton directions H d = g by conjugate gradients, which the inverse preconditions."""

    def direction(self, u: Tensor, residual: Tensor) -> Tensor:
        problem, v = self.problem, self.v

        def hessian(w: Tensor) -> Tensor:
            return problem.hessian_product(u, v, w)

        rtol = 0.1 * self.tolerance if problem.linear else _INEXACT
        return conjugate_gradients(hessian, problem.inner_gradient(u, v), self.state.solve, rtol=rtol).solution

    def belongs(self, u: Tensor) -> bool:
        """The directions are those of u wherever the preconditioner was made."""
        return True


def _sampled_steps(
    problem: BilevelProblem,
    v: Tensor,
    state: InnerState,
    curvature: Curvature,
    options: InnerOptions,
    tolerance: float,
    generator: torch.Generator,
) -> InnerResult:
    """Stochastic steps on fresh tests, whose scores renew the inverse (Algorithm 1, lines 4 to 8).

    Raises:
        SingularMatrixError: the inverse has broken down; with the reason where the scores show it.
    """
    assert options.tests is not None
    natural = options.optimiser == "natural"
    u, inverse, spectrum, held = state.u, state.curvature, state.spectrum, list(state.held)
    taken, damping, before, residual, inflation = 0, 1.0, u, 0.0, 0.0
    cross: RunningCross | None = None
    sample = state.sample or problem.sample(options.tests, generator)

    def reached(u: Tensor) -> InnerState:
        return InnerState(u, inverse, state.steps + taken, spectrum, tuple(held), sample)

    for taken in range(1, options.steps + 1):
        batch = problem.batch(u, v, sample)
        message = _not_finite(batch, state.steps + taken)
        if message:
            return InnerResult(reached(before), math.nan, False, message)
        if 0.0 < _GROWTH * residual < batch.residual and natural:
            # The inverse knows nothing about a point so far away: take the step back before its scores are absorbed.
            u, damping, sample = before, max(0.25 * damping, 1e-6), problem.sample(options.tests, generator)
            continue
        before, residual, inflation = u, batch.residual, max(inflation, batch.inflation)
        asked = inverse
        answer = begin_solve(asked, batch.gradient) if natural else None
        # Neither these scores nor the next sample depend on the step: an inverse in another process absorbs them while
        # this one draws.
        held.append(batch.scores)
        while len(held) > options.lag:
            inverse = _absorbed(curvature, inverse, held.pop(0), inflation)
        sample = problem.sample(options.tests, generator)
        if answer is None:
            represented = options.represented(problem)
            spectrum = spectrum or inner_spectrum(problem, u, v, represented)
            step = _scheduled(options.schedule, spectrum, batch.step, taken)
            u = u - step * represented(batch.gradient)
        else:
            direction = answer()
            step = min(batch.step * asked.trust, 1.5 * _cauchy_step(batch, direction))
            u, damping = u - damping * step * direction, min(2.0 * damping, 1.0)
        cross = _with_cross(cross, curvature, problem, v, batch, options)
        if not torch.isfinite(u).all():
            return InnerResult(reached(u), math.nan, False, _DIVERGED)
        if batch.residual <= tolerance * problem.inner_length(u, v):
            break
    error = problem.inner_error(u, v, tolerance)
    message = "" if error <= tolerance else f"{taken} sampled inner steps left a relative residual of {error:.1e}"
    return InnerResult(reached(u), error, error <= tolerance, message, _inflated(inflation), cross)


def _with_cross(
    cross: RunningCross | None,
    curvature: Curvature,
    problem: BilevelProblem,
    v: Tensor,
    batch: InnerBatch,
    options: InnerOptions,
) -> RunningCross | None:
    """The mean of the cross derivatives with one batch more."""
    if options.keep_cross:
        cross = cross or curvature.running_cross(problem, v, batch, options.steps)
        cross.add(batch)
    return cross


def _not_finite(batch: InnerBatch, step: int) -> str:
    """A sentence on a batch of an inner step with numbers that are not finite; empty where all are."""
    bad = int((~torch.isfinite(batch.scores)).sum())
    if bad:
        where = f"the scores of inner step {step}"
        return f"{_DIVERGED}: {bad:,} of {batch.scores.numel():,} numbers in {where} are not finite"
    return "" if torch.isfinite(batch.gradient).all() else _DIVERGED


def _absorbed(curvature: Curvature, inverse: CurvatureState, scores: Tensor, inflation: float) -> CurvatureState:
    try:
        return curvature.absorb(inverse, scores)
    except SingularMatrixError as broken:
        raise SingularMatrixError("; ".join(filter(None, (str(broken), _inflated(inflation))))) from broken


def _inflated(inflation: float) -> str:
    """Observed scores are those of the model only while the tested residual is small against the noise."""
    if inflation <= _INFLATION:
        return ""
    return (
        f"observed scores show a residual whose square is {inflation:.1e} times that of the noise, and make the "
        "Fisher information too large by as much: set inner.noise to matched, or curvature.scores to model"
    )


def _cauchy_step(batch: InnerBatch, direction: Tensor) -> float:
    """The minimiser along -direction of the quadratic with the gradient and empirical Fisher of a batch.

    The inverse is a mean over points that the inner loop has left; where the Fisher information has grown
    since, a full natural step diverges.
    """
    size = magnitude(direction)
    if size == 0.0 or not math.isfinite(size):
        return math.inf
    unit = direction / size
    curvature = float((batch.scores.T @ unit.reshape(-1)).square().mean())
    return dot(batch.gradient, unit) / curvature / size if curvature > 0.0 else math.inf


def _scheduled(
    schedule: float | Literal["paper"], spectrum: tuple[float, float], batch_step: float, iteration: int
) -> float:
    """The step eta_t = 4 / (mu (t + 8 L^2 / mu^2)) of arXiv 2602.10905, or a constant one.

    L is the mean-square smoothness of a batch: that of the expectation divided by the stable step of the batch.
    """
    if schedule != "paper":
        return schedule
    mu, largest = spectrum
    if not (mu > 0.0 and batch_step > 0.0):
        return math.nan
    condition = largest / batch_step / mu
    return 4.0 / (mu * (iteration + 8.0 * condition * condition))
