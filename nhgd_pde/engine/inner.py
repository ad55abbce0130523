"""The inner loop: steps on the inner objective, each of which also renews the inverse Fisher information."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..linalg.krylov import extreme_eigenvalues
from .bilevel import BilevelProblem
from .curvature.base import Curvature, CurvatureState

_MOST_HALVINGS = 12


@dataclass(frozen=True)
class InnerOptions:
    """Options of the inner loop.

    Attributes:
        tests: scores a batch; None takes expectations over all tests, which makes a natural-gradient step a Newton
            step on the state equation.
        steps: most steps a loop; with sampled tests a fixed tolerance may end it earlier.
        tolerance: relative residual to reach; None ties it to the progress of the outer iteration.
        optimiser: `natural` steps along A g, `sgd` along the Riesz representative of g.
        schedule: of `sgd`; `paper` is eta_t = 4 / (mu (t + 8 L^2 / mu^2)), a number is a constant step.
    """

    tests: int | None = None
    steps: int = 50
    tolerance: float | None = None
    optimiser: Literal["natural", "sgd"] = "natural"
    schedule: float | Literal["paper"] = "paper"


@dataclass(frozen=True)
class InnerState:
    """What the inner loop carries from one outer iteration to the next.

    Attributes:
        u: (S, n) inner variables.
        curvature: the inverse Fisher information.
        steps: inner steps taken since the start of the run.
        spectrum: estimates (mu, L) of the ends of the inner spectrum, made when a schedule first needs them.
    """

    u: Tensor
    curvature: CurvatureState
    steps: int = 0
    spectrum: tuple[float, float] | None = None


@dataclass(frozen=True)
class InnerResult:
    """The state after a loop, its certificate (relative dual norm of the residual) and a sentence on a failure."""

    state: InnerState
    error: float
    converged: bool
    message: str = ""


def solve_inner(
    problem: BilevelProblem,
    v: Tensor,
    state: InnerState,
    curvature: Curvature,
    options: InnerOptions,
    tolerance: float,
    generator: torch.Generator,
) -> InnerResult:
    """Bring u close to u*(v), starting from the u of the last loop."""
    if options.tests is None:
        return _expected_steps(problem, v, state, curvature, options, tolerance)
    return _sampled_steps(problem, v, state, curvature, options, tolerance, generator)


def _expected_steps(
    problem: BilevelProblem,
    v: Tensor,
    state: InnerState,
    curvature: Curvature,
    options: InnerOptions,
    tolerance: float,
) -> InnerResult:
    """Natural-gradient steps on the expected inner objective: Newton steps with a lagged inverse."""
    u, inverse, fresh = state.u, state.curvature, False
    error = float("inf")
    for step in range(options.steps):
        direction = inverse.solve(problem.inner_gradient(u, v))
        candidate = u - direction
        reduced = problem.inner_error(candidate, v, tolerance)
        if not reduced <= tolerance:
            if error == float("inf"):
                error = problem.inner_error(u, v, tolerance)
            if not reduced <= 0.3 * error and not fresh:
                # The inverse belongs to an earlier point: renew it here and try again before damping.
                inverse, fresh = curvature.refresh(inverse, problem, u, v), True
                continue
            length = 1.0
            while not reduced < error and length > 0.5**_MOST_HALVINGS:
                length *= 0.5
                candidate = u - length * direction
                reduced = problem.inner_error(candidate, v, tolerance)
            if not reduced < error:
                message = f"no step reduces the inner residual {error:.1e}"
                return InnerResult(InnerState(u, inverse, state.steps + step, state.spectrum), error, False, message)
        u, error, fresh = candidate, reduced, False
        if error <= tolerance:
            break
    done = InnerState(u, inverse, state.steps + step + 1, state.spectrum)
    message = "" if error <= tolerance else f"{options.steps} inner steps left a relative residual of {error:.1e}"
    return InnerResult(done, error, error <= tolerance, message)


def _sampled_steps(
    problem: BilevelProblem,
    v: Tensor,
    state: InnerState,
    curvature: Curvature,
    options: InnerOptions,
    tolerance: float,
    generator: torch.Generator,
) -> InnerResult:
    """Stochastic steps, each on a batch of fresh tests whose scores renew the inverse (Algorithm 1, lines 4 to 8)."""
    assert options.tests is not None
    u, inverse, spectrum = state.u, state.curvature, state.spectrum
    taken = 0
    for taken in range(1, options.steps + 1):
        batch = problem.batch(u, v, options.tests, generator)
        if options.optimiser == "sgd":
            spectrum = spectrum or inner_spectrum(problem, u, v)
            step = _scheduled(options.schedule, spectrum, batch.step, state.steps + taken)
            u = u - step * problem.inner_metric.gradient(batch.gradient)
        else:
            u = u - batch.step * inverse.trust * inverse.solve(batch.gradient)
        inverse = curvature.absorb(inverse, batch.scores)
        length = problem.inner_metric.norm(u)
        if length > 0.0 and batch.residual <= tolerance * length:
            break
    error = problem.inner_error(u, v, tolerance)
    done = InnerState(u, inverse, state.steps + taken, spectrum)
    message = "" if error <= tolerance else f"{taken} sampled inner steps left a relative residual of {error:.1e}"
    return InnerResult(done, error, error <= tolerance, message)


def inner_spectrum(problem: BilevelProblem, u: Tensor, v: Tensor) -> tuple[float, float]:
    """The ends (mu, L) of the spectrum of K^-1 H, by a few Lanczos steps in the K-inner product."""
    rough = torch.sin(torch.arange(1, u.numel() + 1, dtype=u.dtype, device=u.device) ** 2).reshape(u.shape)

    def operator(w: Tensor) -> Tensor:
        return problem.inner_metric.gradient(problem.hessian_product(u, v, w))

    return extreme_eigenvalues(operator, problem.inner_metric.inner, rough)


def _scheduled(
    schedule: float | Literal["paper"], spectrum: tuple[float, float], batch_step: float, iteration: int
) -> float:
    """The step eta_t = 4 / (mu (t + 8 L^2 / mu^2)) of arXiv 2602.10905, or a constant one.

    L is the smoothness that a batch has in mean square: that of the expectation over the batch's stable step.
    """
    if schedule != "paper":
        return schedule
    mu, largest = spectrum
    smoothness = largest / batch_step
    return 4.0 / (mu * (iteration + 8.0 * (smoothness / mu) ** 2))
