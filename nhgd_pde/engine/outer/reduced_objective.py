"""Evaluations of the reduced objective at one outer point."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.safe_lengths import dot, paired_length


@dataclass(frozen=True)
class Evaluation:
    """The reduced objective at one outer point.

    Attributes:
        v: (p,) the point.
        value: Phi(v).
        derivative: (p,) the hypergradient, a covector.
        gradient: (p,) its Riesz representative.
        state_error, adjoint_error: certificates, relative.
        sensitivity: estimate of the norm of the gradient's error for a relative error of one in state or
            adjoint.
        inner_steps, refinement_steps: numbers of steps of both solves.
        message: a sentence if something went wrong.
        warning: a sentence on options that make the result worse than necessary.
        blended: the point was not evaluated; its data are interpolated from two evaluations of a quadratic function.
        measured: the errors are those of this point; otherwise they are those of the last evaluation.
        sampling_error: standard error of the gradient because scenarios were left out, in its norm.
        scenarios: number of scenarios used; 0 in a problem without scenarios.
        coarse_scenarios: number of scenarios used on a coarser mesh.
        sampling_bound: bound of the sampling error of the gradient, from scenarios that were not used for any step;
            None: twice the standard error takes its place.
        validated: no scenario was left out, or there were enough scenarios that were not used for any step.
        smoothing_gap: the risk measure without smoothing, minus the smoothed one that `value` is.
        rounding: estimate of the norm of the error of the gradient by rounding alone.
    """

    v: Tensor
    value: float
    derivative: Tensor
    gradient: Tensor
    state_error: float
    adjoint_error: float
    sensitivity: float
    inner_steps: int = 0
    refinement_steps: int = 0
    message: str = ""
    warning: str = ""
    blended: bool = False
    measured: bool = True
    sampling_error: float = 0.0
    scenarios: int = 0
    coarse_scenarios: int = 0
    smoothing_gap: float = 0.0
    sampling_bound: float | None = None
    validated: bool = True
    rounding: float = 0.0

    @property
    def objective(self) -> float:
        """The reported objective: the value with the risk measure without smoothing in place of the smoothed one."""
        return self.value + self.smoothing_gap

    @property
    def gradient_error(self) -> float:
        """Norm of the gradient's error: the sum of the errors of solves, of scenarios left out and of rounding."""
        return self.sensitivity * (self.state_error + self.adjoint_error) + self.left_out + self.rounding

    @property
    def left_out(self) -> float:
        """Norm of the error that the gradient may have because scenarios were left out."""
        return 2.0 * self.sampling_error if self.sampling_bound is None else self.sampling_bound

    @property
    def finite(self) -> bool:
        numbers = (self.value, self.state_error, self.adjoint_error)
        return all(map(math.isfinite, numbers)) and bool(torch.isfinite(self.gradient).all())

    @property
    def norm(self) -> float:
        """The norm of the gradient, in the inner product of the outer space."""
        return paired_length(self.derivative, self.gradient)


def blend(a: Evaluation, b: Evaluation, share: float) -> Evaluation:
    """The evaluation at a.v + share (b.v - a.v) of a quadratic function that was evaluated at both ends.

    Its derivative is affine, and so are the residuals behind the certificates, which add up at worst. The value is
    integrated by the slopes from the end with the smaller certificates.
    """
    start, end = dot(a.derivative, b.v - a.v), dot(b.derivative, b.v - a.v)
    value, rest = (
        (a.value, 0.0) if a.state_error + a.adjoint_error < b.state_error + b.adjoint_error else (b.value, 1.0)
    )
    near, far = abs(1.0 - share), abs(share)
    return Evaluation(
        v=a.v + share * (b.v - a.v),
        value=value + (share - rest) * start + 0.5 * (share**2 - rest) * (end - start),
        derivative=a.derivative + share * (b.derivative - a.derivative),
        gradient=a.gradient + share * (b.gradient - a.gradient),
        state_error=near * a.state_error + far * b.state_error,
        adjoint_error=near * a.adjoint_error + far * b.adjoint_error,
        sensitivity=max(a.sensitivity, b.sensitivity),
        inner_steps=b.inner_steps,
        refinement_steps=b.refinement_steps,
        message=b.message,
        warning=b.warning,
        blended=True,
        measured=a.measured and b.measured,
        sampling_error=max(a.sampling_error, b.sampling_error),
        scenarios=b.scenarios,
        coarse_scenarios=b.coarse_scenarios,
        sampling_bound=max(a.left_out, b.left_out),
        validated=a.validated and b.validated and a.sampling_error == b.sampling_error == 0.0,
        rounding=max(a.rounding, b.rounding),
    )


def extrapolate(best: Evaluation, end: Tensor, product: Tensor, represented: Tensor) -> Evaluation:
    """The evaluation of a quadratic function at another point (p,), from a product with its Hessian.

    Args:
        product: (p,) of the Hessian with the step, the change of the derivative.
        represented: (p,) its Riesz representative, the change of the gradient.
    """
    step = end - best.v
    return replace(
        best,
        v=end,
        value=best.value + dot(best.derivative, step) + 0.5 * dot(product, step),
        derivative=best.derivative + product,
        gradient=best.gradient + represented,
        inner_steps=1,
        refinement_steps=1,
        blended=True,
        measured=False,
    )


def failed_evaluation(v: Tensor, message: str) -> Evaluation:
    """The evaluation that an oracle returns where the inner problem could not be solved, as after a step that was too
    long."""
    nan = float("nan")
    nothing = torch.full_like(v, nan)
    return Evaluation(v, nan, nothing, nothing, nan, nan, nan, message=message)


def value_noise(a: Evaluation, b: Evaluation) -> float:
    """The possible error of the difference of two values, by rounding and by the errors of the inner solutions.

    A sum with cancellation is known less well than its own last digit; 1e-9 of the value allows for seven
    digits lost (Hager and Zhang 2005 allow 1e-6).
    """
    relative = 1e-9 + 2.0 * min(a.state_error + b.state_error, 0.1)
    return relative * max(abs(a.value), abs(b.value))
