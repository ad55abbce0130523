"""Minibatches of a finite sum with a table of hypergradients that takes their variance away (SAGA).

    h = h_0 + sum_s w_s d_s + (S/b) sum_{s in B} w_s (h_s - h_0 - d_s),   then d_s <- h_s - h_0 for s in B

Defazio, Bach and Lacoste-Julien 2014 (NeurIPS 27). h_0 is the hypergradient of the nominal scenario at the same
control. The table has the differences of hypergradients, states and adjoints from the nominal ones. So its entries move
with the nominal scenario, with no solve and no work on the table, and only the differences have to be updated.
Scenarios enter when they are first drawn. In this first epoch the mean of those seen stands for all, as in the paper's
section on implementation. Scenarios drawn at the starting point do not enter: the first step is longer than all others,
and entries from before it would be wrong by as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..nhgd import NHGDState
from ..oracle import Accuracy
from ..outer.reduced_objective import Evaluation, failed_evaluation
from .footprint import Footprint
from .gradient_spread import deviation
from .minibatches import Minibatches, beside_nominal, next_batch
from .nominal_point import NominalPoint, solve_nominal
from .part_solution import PartSolution, solve_part
from .scenario_bilevel import ScenarioBilevelProblem


@dataclass(frozen=True)
class Seen:
    """A scenario when it was last drawn, as differences from the nominal one at the same control.

    Attributes:
        u, p: (n,) state and adjoint.
        h: (p,) hypergradient.
        value: f_s minus the nominal value.
    """

    u: Tensor
    p: Tensor
    h: Tensor
    value: float


@dataclass(frozen=True)
class SAGAState:
    """Data that are carried from one evaluation to the next.

    Attributes:
        nominal: the state of the nominal scenario.
        table: entries of all scenarios; None for scenarios that have not been drawn.
        mean, value: weighted sums over the table of h (p,) and of the values.
        left: numbers of the scenarios that the epoch has not drawn yet.
        generator: draws the order of an epoch.
        sampling_error: standard error of the gradient of the last evaluation; infinite before the first.
        taken: number of evaluations.
    """

    nominal: NHGDState
    table: tuple[Seen | None, ...]
    mean: Tensor
    value: float
    left: Tensor
    generator: torch.Generator
    sampling_error: float = math.inf
    taken: int = 0
    q: ClassVar[Tensor | None] = None

    @property
    def u(self) -> Tensor:
        """(S, n) states; the nominal state for scenarios that have not been drawn."""
        nominal = self.nominal.u[0]
        return torch.stack([nominal if seen is None else nominal + seen.u for seen in self.table])

    @property
    def description(self) -> str:
        return f"{self.nominal.description}, shared by the scenarios, with a table of hypergradients"

    def blend(self, other: SAGAState, share: float) -> SAGAState:
        """The table stays as it is, because it has differences from the nominal scenario."""
        return replace(other, nominal=self.nominal.blend(other.nominal, share))


@dataclass(frozen=True)
class SAGA(Minibatches[SAGAState]):
    """Options; an `Oracle`.

    Attributes:
        batch: largest b.
        share: allowed error of state and adjoint equations, as a share of the sampling error.
        roughest: largest relative error of a state or an adjoint.
        seed: seed of the order.
    """

    batch: int = 8
    share: float = 0.2
    roughest: float = 0.1
    seed: int = 0
    name: str = "saga"

    def scenario_bytes(self, footprint: Footprint) -> float:
        return footprint.rows + footprint.working(self.batch)

    def init(self, problem: ScenarioBilevelProblem, u: Tensor, v: Tensor) -> SAGAState:
        """Raises: ValueError: the risk is not the mean."""
        if not problem.risk.linear:
            raise ValueError(
                "a table of hypergradients (saga) sums over scenarios with weights that are known beforehand: expected "
                "the mean as risk measure, found one whose weights depend on all values; take all scenarios, or the "
                "stream for cvar"
            )
        nominal = self.base.init(problem.nominal, problem.nominal.start()[0], v)
        generator = torch.Generator().manual_seed(self.seed)
        table: tuple[Seen | None, ...] = (None,) * problem.inner_shape[0]
        return SAGAState(nominal, table, torch.zeros_like(v), 0.0, torch.arange(0), generator)

    def _evaluate(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: SAGAState, accuracy: Accuracy
    ) -> tuple[Evaluation, SAGAState]:
        nominal_point, own, _ = solve_nominal(self.base, problem, v, state.nominal, accuracy)
        if nominal_point is None:
            return own, state
        batch, left = next_batch(state.left, problem.inner_shape[0], self.batch, state.generator)
        old, zero = [state.table[s] for s in batch.tolist()], torch.zeros_like(nominal_point.u[0])
        u = nominal_point.u + torch.stack([zero if seen is None else seen.u for seen in old])
        p = nominal_point.p + torch.stack([zero if seen is None else seen.p for seen in old])
        tolerances = nominal_point.tolerances(problem, accuracy, (self.share, state.sampling_error), self.roughest)
        found = solve_part(problem.part(batch), v, u, p, nominal_point.inverse, tolerances)
        if found.message:
            return failed_evaluation(v, found.message), state
        h, value, error, reached = self._estimate(problem, state, nominal_point, batch, found)
        evaluation = beside_nominal(problem, v, nominal_point, found, (h, value), error, len(batch))
        if not evaluation.finite:
            return evaluation, state
        if not state.taken:
            # The scenarios of the first batch are drawn again at the end of the epoch.
            blank = replace(state, nominal=reached.nominal, sampling_error=error)
            return evaluation, replace(blank, left=torch.cat([left, batch]), taken=1)
        return evaluation, replace(reached, left=left, taken=state.taken + 1)

    def _estimate(
        self,
        problem: ScenarioBilevelProblem,
        state: SAGAState,
        nominal_point: NominalPoint,
        batch: Tensor,
        found: PartSolution,
    ) -> tuple[Tensor, float, float, SAGAState]:
        """Estimates of sum_s w_s (h_s - h_0) and of this sum for values, the error of the first, and the state
        afterwards."""
        count, size = problem.inner_shape[0], len(batch)
        weights = problem.weights[batch]
        h, values = found.rows - nominal_point.derivative, found.values - nominal_point.value
        old = [state.table[s] for s in batch.tolist()]
        first = any(seen is None for seen in old)
        zero = torch.zeros_like(state.mean)
        change = h - torch.stack([zero if seen is None else seen.h for seen in old])
        moved = values - values.new_tensor([0.0 if seen is None else seen.value for seen in old])
        step, shift = weights @ change, float(weights @ moved)
        table = list(state.table)
        for k, s in enumerate(batch.tolist()):
            # Entries are copies, because a view of a row would keep the whole batch in memory.
            u, p = (found.u[k] - nominal_point.u[0]), (found.p[k] - nominal_point.p[0])
            table[s] = Seen(u, p, h[k].clone(), float(values[k]))
        mean, value = state.mean + step, state.value + shift
        if first:
            share, drawn = _share_of_all(problem.weights, table)
            error = deviation(problem.outer_metric, h) / math.sqrt(drawn)
            estimate, estimated = mean / share, value / share
        else:
            terms = count * weights[:, None] * change
            error = deviation(problem.outer_metric, terms) * math.sqrt(max(1.0 / size - 1.0 / count, 0.0))
            estimate, estimated = state.mean + count / size * step, state.value + count / size * shift
        if not math.isfinite(error):  # of one scenario
            error = problem.outer_metric.dual_norm_estimate(count * weights[:, None] * change)
        reached = replace(
            state, nominal=nominal_point.state, table=tuple(table), mean=mean, value=value, sampling_error=error
        )
        return estimate, estimated, error, reached


def _share_of_all(weights: Tensor, table: list[Seen | None]) -> tuple[float, int]:
    """The share of the scenarios drawn so far in all, by which a sum over them is divided, and their number.

    It is the sum of their weights where all weights have one sign; else, as with sparse quadrature, their share in
    number.
    """
    seen = torch.tensor([each is not None for each in table])
    drawn = int(seen.sum())
    if bool((weights >= 0.0).all()) and float(weights[seen].sum()) > 0.0:
        return float(weights[seen].sum()), drawn
    return drawn / len(table), drawn
