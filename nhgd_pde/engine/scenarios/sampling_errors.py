"""Errors of the gradient because scenarios were left out: estimates of them, and a bound from fresh scenarios."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.riesz import RieszMap
from .extremes import beyond
from .mesh_levels import TwoMeshEstimate
from .scenario_hypergradients import Hypergradients
from .scenario_state import MeshLevel
from .scenario_sum import ScenarioSum
from .unseen import fresh_enough, unseen
from .weighted_risk import WeightedRisk


@dataclass(frozen=True)
class SamplingErrors:
    """Estimates of the norm of the gradient's error because scenarios were left out.

    Attributes:
        fine: error of the difference between the meshes, or the whole error where there is one mesh.
        coarse: error of the part that is known from the coarse mesh.
        alone: the error `fine` without the coarse mesh.
        bound: bound of the whole error, from fresh scenarios; infinite where there are too few of them.
    """

    fine: float
    coarse: float = 0.0
    alone: float = math.inf
    bound: float = math.inf

    @property
    def useless(self) -> bool:
        """The coarse mesh does not make the error smaller."""
        return self.fine >= self.alone

    @property
    def total(self) -> float:
        return math.hypot(self.fine, self.coarse)

    def scale(self, before: float) -> float:
        """The factor by which errors estimated from fresh scenarios exceed the total; `before` where it is unknown."""
        known = self.total > 0.0 and math.isfinite(self.bound)
        return max(0.5 * self.bound / self.total, 1.0) if known else before


def sampling_errors(found: TwoMeshEstimate) -> SamplingErrors:
    """The errors of an estimate from all of its scenarios, and the bound from the fresh ones among them."""
    return replace(_own_errors(found), bound=_bound(found.fine, found.coarse))


def _own_errors(found: TwoMeshEstimate) -> SamplingErrors:
    metric, few = found.fine.level.problem.outer_metric, found.fine.measured[0]
    own = _contrasted(found.fine.hypergradients, few)
    smoothness, coarse = _smoothness(metric, found.derivative[None]), found.coarse
    if coarse is None:
        return SamplingErrors(smoothness * metric.dual_norm_estimate(own))
    many, same = coarse.measured
    differences = own - coarse.level.pulled_back(_contrasted(coarse.hypergradients, same, many.balance.count))
    below = _contrasted(coarse.hypergradients, many)
    below_metric = coarse.level.problem.outer_metric
    return SamplingErrors(
        smoothness * metric.dual_norm_estimate(differences),
        _smoothness(below_metric, coarse.derivative[None]) * below_metric.dual_norm_estimate(below),
        smoothness * metric.dual_norm_estimate(own),
    )


def _contrasted(hypergradients: Hypergradients, measured: WeightedRisk, count: int = 0) -> Tensor:
    """(k, p) combinations of hypergradients that show the sampling error; k = 0 where no scenario was left out."""
    if measured.balance.factor == 0.0:
        return hypergradients.nominal.new_zeros(0, len(hypergradients.nominal))
    contrasts = measured.contrasts()
    missing = max(count + 1 - len(contrasts), 0)
    return hypergradients.combined(torch.nn.functional.pad(contrasts, (0, 0, 0, missing)))


def _bound(fine: ScenarioSum, coarse: ScenarioSum | None) -> float:
    """Bound of the error of the sum of both levels; the error of each level is estimated by its own fresh scenarios."""
    few, rows, metric = fine.measured[0], fine.hypergradients, fine.level.problem.outer_metric
    if few.balance.factor == 0.0:
        return 0.0
    if not fresh_enough(few.balance, fine.level.state.used):
        return math.inf
    if coarse is None:
        return _bound_of_one(fine)
    many, same = coarse.measured
    all_below = many.balance.factor == 0.0
    if not (all_below or fresh_enough(many.balance, coarse.level.state.used)):
        return math.inf
    below, pulled_back = coarse.hypergradients, coarse.level.pulled_back
    squares = replace(rows, rows=rows.rows - pulled_back(below.rows[: len(rows.rows)])).squares(metric)
    without = _offsets(fine.level, same, below, squares, many.balance.count)
    offsets = _offsets(fine.level, few, rows, squares) - pulled_back(without)
    bound = _length(metric, offsets, _beyond(fine.level, squares))
    return bound if all_below else math.hypot(bound, _bound_of_one(coarse))


def _bound_of_one(found: ScenarioSum) -> float:
    """Bound of the error of one level, without any other one."""
    metric, rows = found.level.problem.outer_metric, found.hypergradients
    squares = rows.squares(metric)
    return _length(metric, _offsets(found.level, found.measured[0], rows, squares), _beyond(found.level, squares))


def _beyond(level: MeshLevel, squares: Tensor) -> float:
    """The part of scenarios left out that exceeds the largest fresh one, from squared distances (b,)."""
    return beyond(level.problem.variables, level.problem.weights, squares.sqrt(), level.state.used)


def _offsets(
    level: MeshLevel, measured: WeightedRisk, hypergradients: Hypergradients, squares: Tensor, count: int = 0
) -> Tensor:
    """(1 + k, p): the difference from an unbiased estimate, and k rows whose squares add up as in `Unseen.spread`.

    Args:
        level: the level, some of whose scenarios are fresh.
        measured: the risk measure over b scenarios of the level.
        hypergradients: hypergradients of these scenarios, and of more scenarios where `count` is larger than b.
        squares: (b,) squared distances of the hypergradients from their mean.
        count: number of scenarios with hypergradients, without the nominal one.
    """
    comparison = unseen(level.problem.variables, level.problem.weights, measured.balance, level.state.used, squares)
    coefficients = measured.slopes[:, None] * torch.cat([comparison.offset, comparison.spread], 1)
    missing = max(count + 1 - len(coefficients), 0)
    return hypergradients.combined(torch.nn.functional.pad(coefficients, (0, 0, 0, missing)))


def _length(metric: RieszMap, offsets: Tensor, tail: float) -> float:
    """The norm of the first row plus the root of the estimated sum of squared norms of the others, and a tail."""
    first = metric.dual_norm(offsets[:1])
    return first + _smoothness(metric, offsets[:1]) * (metric.dual_norm_estimate(offsets[1:]) + tail)


def _smoothness(metric: RieszMap, typical: Tensor) -> float:
    """The norm of the gradient of a typical covector (1, p), relative to that by the diagonal of the Riesz map.

    The norm by the diagonal takes no solves, and is wrong by a factor that depends on the smoothness of a covector.
    """
    rough = metric.dual_norm_estimate(typical)
    return metric.dual_norm(typical) / rough if rough > 0.0 else 1.0
