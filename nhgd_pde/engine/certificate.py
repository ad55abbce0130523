"""How far certified errors of the state and of the adjoint let the hypergradient be off."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .bilevel import BilevelProblem


@dataclass(frozen=True)
class Sensitivity:
    """The norm of the gradient's error for relative errors of one in u and q, learnt as the run goes.

    The indirect part of the derivative, -(d2_vu g)^T q with H q = grad_u f(u), is off by what errors of u and
    q change in it. Its own norm does not tell: towards an optimum it cancels against grad_v f, and with
    little regularisation it all but vanishes. What u and q change in it along the steps of the run does: the
    largest secant seen.

    Attributes:
        value: the estimate.
        u, q, indirect: of the last evaluation.
        error: the larger of its certificates.
    """

    value: float = 0.0
    u: Tensor | None = None
    q: Tensor | None = None
    indirect: Tensor | None = None
    error: float = 0.0

    def updated(self, problem: BilevelProblem, u: Tensor, q: Tensor, indirect: Tensor, error: float) -> Sensitivity:
        """Take in an evaluation: its u, q, indirect part (p,) and the larger of its certificates."""
        norm, dual_norm = problem.inner_metric.norm, problem.outer_metric.dual_norm_estimate
        value = max(self.value, dual_norm(indirect[None]))
        if self.u is not None and self.q is not None and self.indirect is not None:
            change = dual_norm((indirect - self.indirect)[None])
            for new, old in ((u, self.u), (q, self.q)):
                length, moved = norm(new), norm(new - old)
                # A move that is not larger than the errors says nothing.
                if moved > 10.0 * (error + self.error) * length:
                    value = max(value, change * length / moved)
        return Sensitivity(value, u, q, indirect, error)
