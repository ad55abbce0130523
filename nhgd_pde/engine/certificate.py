"""The error of the hypergradient that certified errors of the state and of the adjoint allow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .bilevel import BilevelProblem

_SAME_SIZE = 10.0
"""Secants between states that are longer than the present one by more than this factor are not used."""


@dataclass(frozen=True)
class Sensitivity:
    """The norm of the gradient's error for relative errors of one in u and q, estimated during the run.

    The indirect part of the derivative, -(d2_vu g)^T q with H q = grad_u f(u), has an error by those of u and q. Its
    own norm does not show how large: towards an optimum it cancels against grad_v f, and with little regularisation it
    all but vanishes. The estimate is the largest change of the indirect part relative to that of u and q, between
    states of about the size of the present one. A trial step that was too long may have had a state larger by orders of
    magnitude, whose secants do not belong to the points of the run.

    Attributes:
        value: the estimate.
        secants: (length of the larger state, secant), sorted by length; longer states have larger secants.
        u, q, indirect: data of the last evaluation.
        error: the larger of its certificates.
    """

    value: float = 0.0
    secants: tuple[tuple[float, float], ...] = ()
    u: Tensor | None = None
    q: Tensor | None = None
    indirect: Tensor | None = None
    error: float = 0.0

    def updated(self, problem: BilevelProblem, u: Tensor, q: Tensor, indirect: Tensor, error: float) -> Sensitivity:
        """The estimate after an evaluation with u, q, the indirect part (p,) and the larger of its certificates."""
        norm, dual_norm = problem.inner_metric.norm, problem.outer_metric.dual_norm_estimate
        size = norm(u)
        found = [(size, dual_norm(indirect[None]))]
        if self.u is not None and self.q is not None and self.indirect is not None:
            change, before = dual_norm((indirect - self.indirect)[None]), norm(self.u)
            # An adjoint variable that is a multiple of u changes as u does.
            pairs = ((u, self.u),) if q is u and self.q is self.u else ((u, self.u), (q, self.q))
            for new, old in pairs:
                length, moved = size if new is u else norm(new), norm(new - old)
                # A change that is not larger than the errors shows nothing.
                if moved > 10.0 * (error + self.error) * length:
                    found.append((max(size, before), change * length / moved))
        secants = _largest((*self.secants, *found))
        value = max((secant for length, secant in secants if length <= _SAME_SIZE * size), default=self.value)
        return Sensitivity(value, secants, u, q, indirect, error)


def _largest(secants: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """The secants that are larger than those of all shorter states, in the order of the lengths."""
    kept: list[tuple[float, float]] = []
    known = [each for each in secants if not math.isnan(each[1])]
    for length, secant in sorted(known, key=lambda each: (each[0], -each[1])):
        if not kept or secant > kept[-1][1]:
            kept.append((length, secant))
    return tuple(kept)
