"""Weights between 0 and 1 in place of sets: a concave problem whose value bounds that of every set of sensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..engine.outer.mma import MMA
from ..tasks.solving import BilevelOptions, solve_bilevel
from .design_problem import DesignProblem
from .information import SensorInformation


@dataclass(frozen=True, eq=False)
class RelaxedDesign:
    """The best weights that were found.

    Attributes:
        weights: (m,).
        value: the criterion, less the penalty times the sum of the weights.
        bound: no weights and no set of sensors have a larger value.
        iterations: of the outer method.
    """

    weights: Tensor
    value: float
    bound: float
    iterations: int


def relaxed_design(
    information: SensorInformation, count: int | None, penalty: float = 0.0, iterations: int = 300, rtol: float = 1e-6
) -> RelaxedDesign:
    """Solve the relaxed problem by NHGD with the method of moving asymptotes.

    Args:
        information: candidates and criterion.
        count: largest sum of the weights; None with a penalty.
        penalty: of the sum of the weights.
        iterations, rtol: see `BilevelOptions`. The bound holds wherever the iteration ends.

    Raises:
        ArithmeticError: the criterion has no value.
    """
    problem = DesignProblem(information, count, penalty)
    found = solve_bilevel(problem, BilevelOptions(outer=MMA(), iterations=iterations, rtol=rtol))
    if found.status == "failed" and not found.iterations:
        raise ArithmeticError(f"the weights of the sensors were not found: {found.message}")
    weights = torch.from_numpy(found.v).to(information.rows).clamp(0.0, 1.0)
    value = information.value(weights) - penalty * float(weights.sum())
    bound = upper_bound(information, weights, count, penalty)
    if count is None:
        # Where no sensor is worth the penalty, the weights fall to zero, which they do not quite reach.
        bound = min(bound, upper_bound(information, torch.zeros_like(weights), None, penalty))
    return RelaxedDesign(weights, value, bound, found.iterations)


def upper_bound(information: SensorInformation, weights: Tensor, count: int | None, penalty: float = 0.0) -> float:
    """A bound of the criterion of all designs: the tangent plane at any weights, above which no concave function is.

    Where the weights are optimal the bound is their value: these are the conditions of Kiefer and Atwood (Atwood 1969,
    Ann. Math. Stat. 40), in the form of the gap of Frank and Wolfe.
    """
    slopes = information.gradient(weights) - penalty
    allowed = slopes.clamp(min=0.0) if count is None else torch.topk(slopes, count).values.clamp(min=0.0)
    value = information.value(weights) - penalty * float(weights.sum())
    return value + float(allowed.sum() - slopes @ weights)
