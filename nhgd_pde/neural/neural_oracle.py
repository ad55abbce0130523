"""Natural hypergradient descent with a network as the state.

    theta* = argmin |R(u(theta), v)|_{K^-1},   F q = grad_theta f,   h = grad_v f - R_v^T K^-1 B q

The inner variables are the parameters of the network, and F is their Fisher information: see `tangent`. The oracle
works on an ordinary problem, whose state u(theta) it keeps beside theta, so that certificates, fields and the outer
loop are the same as for finite elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from ..engine.bilevel import dual_scale, relative_dual_error
from ..engine.certificate import Sensitivity
from ..engine.oracle import Accuracy, blended, finite
from ..engine.outer.reduced_objective import Evaluation, failed_evaluation
from ..engine.scales import UNKNOWN, GradientScales
from ..linalg.safe_lengths import dot
from ..pde_problem import PDEProblem
from .ansatz import Ansatz, coordinates
from .levenberg_marquardt import LevenbergMarquardt
from .network import Network
from .tangent import Tangent

# Arrays of parameters times unknowns that are kept at once: see `Tangent`, and copies for the solves with K.
ARRAYS = 5


@dataclass(frozen=True)
class NeuralState:
    """What is carried from one evaluation to the next.

    Attributes:
        u: (1, n) the state of the network.
        theta: (d,) its parameters.
        scale: (c,) see `Ansatz`; None before the equation has asked for a state that is not zero.
        p: (1, n) the adjoint variable.
        damping: of the last step of the inner solver.
        sensitivity: see `Evaluation`.
    """

    u: Tensor
    theta: Tensor
    scale: Tensor | None = None
    p: Tensor | None = None
    damping: float | None = None
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    description: str = "Fisher information of the network"

    @property
    def q(self) -> Tensor | None:
        """The adjoint variable itself."""
        return self.p

    def blend(self, other: NeuralState, share: float) -> NeuralState:
        """The state and the adjoint variable between both, and the parameters of the other one, to start from:
        parameters between those of two states have nothing to do with the states between."""
        return replace(other, u=torch.lerp(self.u, other.u, share), p=blended(self.p, other.p, share))


@dataclass(frozen=True)
class NeuralStates:
    """Options; an `Oracle` for a `PDEProblem` of one scenario.

    Attributes:
        layers: the widths of the hidden layers.
        steps: the largest number of steps of the inner solver in an evaluation.
        seed: of the first parameters.
    """

    layers: tuple[int, ...]
    steps: int = 200
    seed: int = 0
    name: str = "nhgd"

    def network(self, problem: PDEProblem) -> Network:
        points, _ = coordinates(problem)
        return Network(points.shape[1], self.layers, len(problem.space.parts))

    def tangent_bytes(self, problem: PDEProblem) -> float:
        """Bytes of the arrays of parameters times unknowns that an evaluation keeps at once."""
        return ARRAYS * 8.0 * self.network(problem).size * problem.inner_shape[1]

    def init(self, problem: PDEProblem, u: Tensor, v: Tensor) -> NeuralState:
        return NeuralState(torch.zeros_like(u), self.network(problem).initial(self.seed).to(u.device))

    def evaluate(
        self, problem: PDEProblem, v: Tensor, state: NeuralState, accuracy: Accuracy
    ) -> tuple[Evaluation, NeuralState]:
        if said := problem.refusal(v):
            return failed_evaluation(v, said), state
        state = state if state.scale is not None else replace(state, scale=_natural_sizes(problem, v))
        ansatz = self.ansatz(problem, state)
        solver = LevenbergMarquardt(problem, ansatz, v)
        fit = solver.solved(state.theta, accuracy.state, self.steps, state.damping)
        u = fit.u
        error = problem.residual_error(fit.residual, u, v, accuracy.state)
        inner, outer = problem.outer_derivatives(u, v)
        if not (finite(u, fit.residual, inner) and math.isfinite(fit.loss)):
            return failed_evaluation(v, "the state of the network is not finite"), state
        p = Tangent.at(problem, ansatz, fit.theta, v).adjoint(inner)
        missing = inner - problem.state_product_transposed(u, v, p)
        scale = dual_scale(problem.inner_metric, inner, p)
        adjoint_error = relative_dual_error(problem.inner_metric, missing, scale, accuracy.adjoint)
        indirect = -problem.control_product_transposed(u, v, p)
        derivative = outer + indirect
        sensitivity = state.sensitivity.updated(problem, u, p, indirect, max(error, adjoint_error))
        evaluation = Evaluation(
            v=v,
            # f(u*, v) = f(u, v) - p . R + O(errors of u and p): without the second term values contradict the slopes.
            value=problem.outer_value(u, v) - dot(p, fit.residual),
            derivative=derivative,
            gradient=problem.outer_metric.gradient(derivative[None])[0],
            state_error=error,
            adjoint_error=adjoint_error,
            sensitivity=sensitivity.value,
            inner_steps=fit.steps,
        )
        if not evaluation.finite:
            return evaluation, state
        reached = replace(state, u=u, theta=fit.theta, p=p, damping=fit.damping, sensitivity=sensitivity)
        # The size is not known where the state is zero.
        return evaluation, reached if bool(u.count_nonzero()) else replace(reached, scale=None)

    def scales(self, problem: PDEProblem, v: Tensor, state: NeuralState, evaluation: Evaluation) -> GradientScales:
        """Not known: rounding errors are far below the errors of the network."""
        return UNKNOWN

    def ansatz(self, problem: PDEProblem, state: NeuralState) -> Ansatz:
        points, fields = coordinates(problem)
        start = self.init(problem, state.u, state.u).theta
        assert state.scale is not None
        return Ansatz(self.network(problem), points, fields, start, state.scale)


def _natural_sizes(problem: PDEProblem, v: Tensor) -> Tensor:
    """(c,) the largest values of each field among its given values and x = K^-1 R(0), which is the solution where K is
    the derivative of R. A field for which these are zero, such as the pressure of a flow by a force, takes its values
    in K^-1 J x, which have its unit; one where these are zero, too.
    """
    zero = torch.zeros(problem.inner_shape, dtype=v.dtype, device=v.device)
    x = problem.inner_metric.gradient(problem.residual(zero, v))
    later = problem.inner_metric.gradient(problem.state_product(zero, v, x))
    given = problem.state(zero, v).abs()
    sizes = [_largest(problem, given.maximum(problem.equation.extend(x).abs()))]
    sizes += [_largest(problem, problem.equation.extend(later).abs()), torch.ones_like(sizes[0])]
    found = sizes[-1]
    for each in reversed(sizes[:-1]):
        found = torch.where(each == 0.0, found, each)
    return found


def _largest(problem: PDEProblem, full: Tensor) -> Tensor:
    """(c,) the largest coefficient of each field in (1, N), over all times."""
    offsets = problem.space.offsets
    levels = full.reshape(-1, problem.space.size)
    return torch.stack([levels[:, first:end].max() for first, end in pairwise(offsets)])
