"""How far certified errors of the state and of the adjoint let the hypergradient be off."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .bilevel import BilevelProblem

_SAME_SIZE = 10.0
"""States longer than the present one by more than this factor are not of its size."""


@dataclass(frozen=True)
class Sensitivity:
    """The norm of the gradient's error for relative errors of one in u and q, learnt as the run goes.

    The indirect part of the derivative, -(d2_vu g)^T q with H q = grad_u f(u), is off by what errors of u and
    q change in it. Its own norm does not tell: towards an optimum it cancels against grad_v f, and with
    little regularisation it all but vanishes. What u and q change in it along the steps of the run does: the
    largest secant seen between states of about the size of the present one. A trial step too long may have had a state
    larger by orders of magnitude, whose secants say nothing of the points that the run goes on from.

    Attributes:
        value: the estimate.
        secants: (length, secant) of what was seen, by the length of the larger state: longer ones have larger secants.
        u, q, indirect: of the last evaluation.
        error: the larger of its certificates.
    """

    value: float = 0.0
    secants: tuple[tuple[float, float], ...] = ()
    u: Tensor | None = None
    q: Tensor | None = None
    indirect: Tensor | None = None
    error: float = 0.0

    def updated(self, problem: BilevelProblem, u: Tensor, q: Tensor, indirect: Tensor, error: float) -> Sensitivity:
        """Take in an evaluation: its u, q, indirect part (p,) and the larger of its certificates."""
        norm, dual_norm = problem.inner_metric.norm, problem.outer_metric.dual_norm_estimate
        size = norm(u)
        found = [(size, dual_norm(indirect[None]))]
        if self.u is not None and self.q is not None and self.indirect is not None:
            change = dual_norm((indirect - self.indirect)[None])
            for new, old in ((u, self.u), (q, self.q)):
                length, moved = norm(new), norm(new - old)
                # A move that is not larger than the errors says nothing.
                if moved > 10.0 * (error + self.error) * length:
                    found.append((max(size, norm(self.u)), change * length / moved))
        secants = _largest((*self.secants, *found))
        value = max((secant for length, secant in secants if length <= _SAME_SIZE * size), default=self.value)
        return Sensitivity(value, secants, u, q, indirect, error)


def _largest(secants: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """Those larger than all of states that are no longer, in the order of the lengths."""
    kept: list[tuple[float, float]] = []
    known = [each for each in secants if not math.isnan(each[1])]
    for length, secant in sorted(known, key=lambda each: (each[0], -each[1])):
        if not kept or secant > kept[-1][1]:
            kept.append((length, secant))
    return tuple(kept)
