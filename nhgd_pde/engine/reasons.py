"""Why the outer loop ended, in a sentence for people."""

from __future__ import annotations

import math
import sys

from .loop import Iterate, Stopping, worst_residual
from .outer.reduced_objective import Evaluation
from .scales import UNKNOWN, GradientScales

# Squares below this have lost digits by underflow.
_LEAST_SQUARE = sys.float_info.min / sys.float_info.epsilon


def _relative(value: float, unit: float) -> str:
    return f"{value / unit:.1e}" if unit > 0.0 else "0"


def out_of_range(evaluation: Evaluation) -> str:
    """A sentence on numbers of a problem that are too small or too large for double precision; empty where all fit.

    The objective, its slopes and its curvatures have the size of squares.
    """
    norm = evaluation.norm
    if norm == 0.0 or _LEAST_SQUARE < norm * norm < math.inf:
        return ""
    beyond = "below the smallest" if norm < 1.0 else "above the largest"
    return (
        f"the gradient has the norm {norm:.1e}, whose square is {beyond} numbers of double precision: choose "
        "other units for the objective, the state or the control"
    )


def converged(
    current: Iterate, first: Iterate, goal: float, stopping: Stopping, scales: GradientScales = UNKNOWN
) -> str:
    reason = _gradient(current, first, goal, stopping)
    if not stopping.small(current, goal) and stopping.nearness is not None and stopping.near(current):
        nearness = stopping.nearness(current)
        reason = (
            f"the objective is about {nearness.gap:.1e} above its optimum (goal {nearness.goal:.1e}); its "
            f"gradient is {_relative(current.gradient_norm, stopping.unit(first.gradient_norm))} of the first one"
        )
    elif not stopping.small(current, goal):
        settled = max(current.change, current.change_before)
        share = _relative(current.gradient_norm, first.gradient_norm)
        reason = (
            f"the control has settled: the last two steps changed no value by more than {settled:.1e} (goal "
            f"{stopping.change:.0e}); its gradient is {share} of the first one"
        )
    elif current.iteration == 0:
        reason = _at_the_start(first, goal, stopping, scales) or reason
    return (
        f"{reason}, objective {current.evaluation.objective:.9e}, "
        f"error of the gradient about {current.evaluation.gradient_error:.0e}"
    )


def _at_the_start(first: Iterate, goal: float, stopping: Stopping, scales: GradientScales) -> str:
    """A sentence on why the start is a solution; empty where the goals in the options are reason enough."""
    if first.gradient_norm <= scales.rounding:
        if first.evaluation.norm <= scales.rounding:
            return "the gradient at the start is zero to rounding (the objective may not depend on the control)"
        return "the start is a solution: bounds, constraints or the l1 term balance its gradient"
    if not goal > max(stopping.rtol * stopping.unit(first.gradient_norm), stopping.atol):
        return ""
    share = first.gradient_norm / scales.natural
    return (
        f"the start is a solution: its gradient is {share:.1e} of the size of the terms that it is the sum of "
        f"(goal {goal / scales.natural:.0e})"
    )


def _gradient(current: Iterate, first: Iterate, goal: float, stopping: Stopping) -> str:
    unit = stopping.unit(first.gradient_norm)
    relative = f"{goal / unit:.0e}" if unit > 0.0 else "0"
    of = " of that at the start of the file" if stopping.reference else ""
    norm = _relative(current.gradient_norm, unit)
    return f"relative gradient {norm}{_left_out(current, unit)}{of} (goal {relative})"


def _left_out(current: Iterate, unit: float) -> str:
    """The possible error of the gradient because scenarios were left out."""
    error = current.evaluation.left_out
    if error == 0.0 or not unit > 0.0:
        return ""
    return f" + {error / unit:.1e} for scenarios left out"


def standing(current: Iterate, first: Iterate, goal: float, stopping: Stopping) -> str:
    return _gradient(current, first, goal, stopping) + _doubt(current, stopping)


def _doubt(current: Iterate, stopping: Stopping) -> str:
    if worst_residual(current.evaluation) <= stopping.certificate:
        return ""
    return f"; {_residuals(current.evaluation)}: the gradient is only as good as these"


def _residuals(evaluation: Evaluation) -> str:
    return f"state residual {evaluation.state_error:.1e}, adjoint residual {evaluation.adjoint_error:.1e}"


def out_of_iterations(current: Iterate, goal: float, stopping: Stopping) -> str:
    error = current.evaluation.left_out
    left_out = f" + {error:.1e} for scenarios left out" if error > 0.0 else ""
    norms = f"gradient norm {current.gradient_norm:.1e}{left_out} (goal {goal:.1e})"
    done = f"{stopping.iterations} outer iterations ended, all that were asked for"
    if current.iteration > stopping.iterations:
        done = f"{current.iteration} outer iterations were made before, and {stopping.iterations} were asked for"
    return f"{done}, with {norms}{_doubt(current, stopping)}"


def uncertified(current: Iterate, stopping: Stopping) -> str:
    if current.evaluation.blended:
        return "the gradient is small, but the point it was extrapolated to could not be evaluated"
    small = "change of v" if stopping.unchanged(current) else "gradient"
    return (
        f"the {small} is small but not certified: {_residuals(current.evaluation)} "
        f"(goal {stopping.certificate:.0e} for both)"
    )


def diverged(evaluation: Evaluation, first: Iterate) -> str:
    if not evaluation.finite:
        return evaluation.message or "the objective or its gradient is not finite"
    grown = f"from {first.evaluation.value:.3e} to {evaluation.value:.3e}"
    return f"the objective grew {grown}: a smaller step is needed"
