"""The natural size of a gradient, and the size of its rounding errors.

A gradient that vanishes is a small difference of large numbers. The size of these numbers is estimated from the change
of the gradient when every component of the state changes by a share of itself: all components by the same share, as in
a state of another size, or each component by a share with a sign of its own, as rounding does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ..linalg.riesz import RieszMap
from ..linalg.safe_lengths import paired_length
from .bilevel import rough_vector
from .outer.reduced_objective import Evaluation

_EPSILON = 2.0**-52
# Relative change of the state, which is small enough for nonlinear equations and far above rounding errors.
_SHARE = 2.0**-10
# Assumed rounding errors of sums and products, in units in the last place.
_UNITS = 16.0
# Safety factor of the errors of solutions, whose distribution over the components is not known.
_SPREAD = 4.0
# Relative residuals of state and adjoint above this come from an inexact solver and not from rounding.
_SOLVED = 1e-12


@dataclass(frozen=True)
class GradientScales:
    """Norms in the outer space, in the unit of the gradient norm.

    Attributes:
        natural: sum of the norms of the parts of the gradient, before these cancel.
        rounding: norm of the error of the gradient by rounding.
    """

    natural: float = 0.0
    rounding: float = 0.0

    @classmethod
    def of_parts(cls, natural: float, error: float) -> GradientScales:
        """The scales of a sum whose parts have norms that add up to `natural`, each with at most a relative error."""
        return cls(natural, natural * (_UNITS * _EPSILON + min(error, _SOLVED)))


UNKNOWN = GradientScales()


@runtime_checkable
class ScalesOracle(Protocol):
    """An oracle that can compute the scales of the gradient of its last evaluation."""

    def scales(self, problem: Any, v: Tensor, state: Any, evaluation: Evaluation) -> GradientScales: ...


def gradient_scales(
    metric: RieszMap, u: Tensor, direct: Tensor, evaluation: Evaluation, derivative_at: Callable[[Tensor], Tensor]
) -> GradientScales:
    """The scales of a gradient.

    Args:
        metric: the inner product of the outer space.
        direct: (p,) the part of the derivative that has no adjoint variable in it.
        derivative_at: another u (S, n) -> the derivative (p,) with the adjoint variable of that u, up to errors that
            are small compared with the change of u.
    """

    def norm(derivative: Tensor) -> float:
        return paired_length(derivative, metric.gradient(derivative[None])[0])

    def response(shares: Tensor | float) -> float:
        return norm(derivative_at(u * (1.0 + _SHARE * shares)) - evaluation.derivative) / _SHARE

    alone = not bool(direct.count_nonzero())
    parts = evaluation.norm if alone else norm(direct) + norm(evaluation.derivative - direct)
    if not bool(u.count_nonzero()):
        return GradientScales(parts, _UNITS * _EPSILON * parts)
    smooth, rough = response(1.0), response(rough_vector(u).sign())
    error = min(evaluation.state_error + evaluation.adjoint_error, _SOLVED)
    return GradientScales(parts + smooth, _UNITS * _EPSILON * (parts + rough) + _SPREAD * error * (smooth + rough))
