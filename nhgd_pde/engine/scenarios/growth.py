"""The number of scenarios in use, and the accuracy of their equations.

The first scenarios stand for all until the gradient falls below the error of their mean: progressive batching (Byrd,
Chin, Nocedal and Wu 2012, Math. Program. 134; Bollapragada et al. 2018, ICML).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# From this share of all scenarios on, all of them are used.
_NEARLY = 0.75


@dataclass(frozen=True)
class GrowthOptions:
    """Options of the growth of batches of scenarios, and of the accuracy of their equations.

    Attributes:
        first: number of scenarios in the first evaluation that uses any; None uses all scenarios always.
        nominal: the gradient of the nominal problem is reduced by this factor before any scenario is used, which costs
            next to nothing; 1 skips this.
        ratio: a batch grows once the gradient is below this multiple of its sampling error.
        settled: the same while all scenarios are used on the coarser mesh, and none on the mesh of the problem: steps
            cost next to nothing there.
        least, most: smallest and largest factor by which a batch grows.
        share: allowed error of state and adjoint equations, as a share of the sampling error.
        visible: the same as a share of the gradient; the larger of both errors is allowed.
        roughest: largest relative error of a state or an adjoint.
        coarse: number of scenarios used first on a coarser mesh, as control variates; 0 for none.
        coarse_most: largest factor by which the batch on the coarser mesh grows.
    """

    first: int | None = 16
    nominal: float = 0.05
    ratio: float = 1.5
    settled: float = 0.3
    least: float = 2.0
    most: float = 2.0
    share: float = 0.5
    visible: float = 0.1
    roughest: float = 0.5
    coarse: int = 32
    coarse_most: float = 4.0

    def enough(
        self,
        active: int,
        stationarity: float,
        sampling_error: float,
        goal: float,
        *,
        doubt: float = math.inf,
        settled: bool = False,
    ) -> bool:
        """Whether the scenarios in use show the direction of the optimum, or that the optimum is near enough.

        Args:
            active: number of scenarios on the mesh of the problem.
            stationarity: norm of the gradient.
            sampling_error: standard error of the gradient, in its norm.
            goal: norm of the gradient at which the run ends.
            doubt: bound of the error of the gradient, from scenarios that were not used for any step.
            settled: all scenarios on the coarser mesh are in use.
        """
        if active and stationarity + doubt <= goal:
            return True
        ratio = self.settled if settled and not active else self.ratio
        return stationarity > max(ratio * sampling_error, goal)

    def following(
        self,
        active: int,
        count: int,
        stationarity: float,
        sampling_error: float,
        most: float | None = None,
        *,
        ending: bool = False,
    ) -> int:
        """Number of scenarios of the next batch, at most `most` times as many as now.

        The variance of a mean over b of S scenarios is proportional to 1/b - 1/S. Where a run may be `ending`, three
        quarters of the scenarios are tried before all of them, because the equations of all would have to be solved to
        the last digits.
        """
        most = self.most if most is None else most
        if active == 0:
            return min(self.first or count, count)
        wanted = (stationarity / (self.ratio * sampling_error)) ** 2 if sampling_error > 0.0 else 1.0
        enough = 1.0 / (wanted * (1.0 / active - 1.0 / count) + 1.0 / count) if active < count else count
        found = max(math.ceil(self.least * active), min(math.ceil(enough), math.ceil(most * active)))
        if found <= _NEARLY * count:
            return found
        nearly = math.floor(_NEARLY * count)
        return nearly if ending and active < nearly else count
