"""How far the printed objective may be from the optimum of the continuous problem, and where the error comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..engine.optimality_gap import gap_of
from ..engine.search import outer_space
from ..linalg.safe_lengths import dot
from ..objective.convexity import convexity
from ..output.counting_digits import counting_digits
from ..output.sealed import first_line

if TYPE_CHECKING:
    from ..discretisation import ErrorEstimate, Estimator
    from ..engine.loop import Iterate
    from ..pde_problem import PDEProblem
    from ..problem import Problem
    from .answer import Row
    from .solution import Solution

# The largest number of cells of the refined mesh up to which `output.estimate: auto` makes an estimate: building the
# problem there takes as long as for a problem with as many cells, which is seconds up to this number.
LARGEST = 400_000


def wanted(problem: Problem, kept: bool) -> bool:
    """Whether a run makes an estimate of the discretisation error at its end; `kept`: it has a run folder."""
    choice, mesh = problem.file.spec.output.estimate, problem.pde.space.domain.mesh
    small = mesh.nelements * 2 ** int(mesh.dim()) <= LARGEST
    return choice == "always" or (choice == "auto" and kept and small)


def with_trust(estimator: Estimator, solution: Solution, last: Iterate) -> Solution:
    """The solution with an estimate of its discretisation error, beside the other errors of the objective."""
    estimate, reason = _estimate(estimator, solution)
    bound = bounded_gap(solution.problem, last)
    errors = {
        "optimisation": optimisation_error(solution.history) if bound is None else bound,
        "algebraic": algebraic_error(solution.problem, last),
        "sampling": sampling_error(solution),
        "discretisation": None if estimate is None else abs(estimate.value),
        "estimate": None if estimate is None else estimate.uncertainty,
    }
    digits = None if estimate is None else digits_that_count(solution.objective, errors, solution.status == "converged")
    entries: dict[str, Any] = {
        "discretisation_error": None if estimate is None else estimate.value,
        "digits": digits,
        "errors": errors,
    }
    if reason:
        entries["discretisation_missing"] = reason
    if estimate is not None:
        entries["seconds_estimate"] = estimate.seconds
    return replace(solution, estimate=estimate, stats={**solution.stats, **entries})


def digits_that_count(objective: float, errors: Mapping[str, float | None], converged: bool) -> int:
    """The number of digits of an objective that all its errors leave; none where one of them is not finite.

    The error of the optimiser may be any number where it is not known and the run has not converged.
    """
    if errors["optimisation"] is None and not converged:
        return 0
    return counting_digits(objective, sum(each for each in errors.values() if each is not None))


def _estimate(estimator: Estimator, solution: Solution) -> tuple[ErrorEstimate | None, str]:
    """The estimate of the discretisation error, or why there is none."""
    from ..discretisation import NoEstimateError

    try:
        return estimator.estimate(solution), ""
    except NoEstimateError as missing:
        return None, str(missing)
    except (Exception, KeyboardInterrupt) as error:
        # Code of the user may fail on the refined mesh. Whatever goes wrong, the run has ended and its results count.
        return None, f"it failed ({first_line(error)})"


def bounded_gap(problem: PDEProblem, last: Iterate) -> float | None:
    """A bound of the objective minus its optimum on the mesh, where the regularisation makes it strictly convex."""
    space = outer_space(problem)
    if not (space.quadratic and space.smooth):
        return None
    mu = convexity(problem.objective, problem.outer_metric, last.evaluation.v)
    norm = last.evaluation.norm + last.evaluation.gradient_error
    return 0.5 * norm * norm / mu if mu > 0.0 and math.isfinite(norm) else None


def optimisation_error(history: Sequence[Row]) -> float | None:
    """An estimate of the objective minus its optimum on the mesh, from the last iterates; None for too few."""
    pairs = [(row.get("objective"), row.get("gradient_norm")) for row in history]
    trail = [(float(a), float(b)) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float)]
    # The objective decreases, so that an estimate for one of the iterates before holds as well.
    estimates = (gap_of(trail[: len(trail) - k]) for k in range(3))
    return next((found for found in estimates if math.isfinite(found)), None)


def algebraic_error(problem: PDEProblem, last: Iterate) -> float | None:
    """|p . R(u, v)|: how far the objective at the computed state is from that at the exact discrete state."""
    u, p = getattr(last.oracle, "u", None), getattr(last.oracle, "p", None)
    if u is None or p is None or p.shape != u.shape or u.shape[1] != problem.equation.unknowns:
        return None
    try:
        found = abs(dot(p, problem.residual(u, last.evaluation.v)))
    except Exception:
        # Code of the user may fail here, though it did not before. The results of the run count.
        return None
    return found if math.isfinite(found) else None


def sampling_error(solution: Solution) -> float | None:
    """Half the width of the interval of the objective over fresh scenarios; None without random inputs."""
    judged = solution.judgement
    if judged is None or not len(judged.fresh):
        return None
    low, high = judged.interval
    return 0.5 * (high - low)
