"""A first state of an equation that is too nonlinear for Newton's method from afar, by a path of easier equations."""

from __future__ import annotations

from torch import Tensor

from ..linalg.newton import newton
from ..linalg.riesz import RieszMap
from ..pde.equation import StateEquation

# Largest number of Newton steps on one equation; if more are needed, an easier equation in between is better.
_STEPS = 15


def followed(
    equation: StateEquation, metric: RieszMap, v: Tensor, start: Tensor, rtol: float = 1e-6, least: float = 1.0 / 64
) -> Tensor:
    """The state (S, n) at the end of a path of equations with shares 0 to 1 of their nonlinear terms.

    After the linear equation, the whole equation is tried first; where Newton's method fails, half the path is tried.

    Args:
        equation: an equation with `easier`.
        start: (S, n) where the linear equation is solved from.
        rtol: relative length of the step that ends Newton's method.
        least: length of a part of the path below which the state reached is returned, which is then not a solution.
    """
    found = root(equation.eased(0.0), metric, v, start, rtol)
    if found is None:
        return start
    u, share, target = found, 0.0, 1.0
    while share < 1.0 and target - share >= least:
        found = root(equation.eased(target), metric, v, u, rtol)
        if found is None:
            target = 0.5 * (share + target)
        else:
            # The next part of the path is twice as long as the last one.
            u, share, target = found, target, min(1.0, 3.0 * target - 2.0 * share)
    return u


def root(equation: StateEquation, metric: RieszMap, v: Tensor, start: Tensor, rtol: float) -> Tensor | None:
    """A root of R(., v) by damped Newton steps, or None where they do not arrive."""
    found = newton(
        lambda u: equation.residual(u, v),
        lambda u: equation.linearise(u, v).factors.solve,
        start,
        rtol,
        _STEPS,
        metric.norm,
    )
    return found.solution if found.converged else None
