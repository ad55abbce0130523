"""The results of a benchmark on one problem, as far as they are known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .grid import TunedSteps
from .hypergradients import HypergradientError
from .peers import PeerError
from .trials import TrialPoint
from .truth import Judged, Reference

# The relative gaps to which work is measured.
GAPS = (1e-2, 1e-4, 1e-6)


@dataclass(frozen=True)
class Errors:
    """Errors of the hypergradient of one contender with one seed, against its inner steps."""

    label: str
    seed: int
    errors: tuple[HypergradientError, ...]


@dataclass(frozen=True)
class ProblemResults:
    """The results on one problem.

    Attributes:
        reference: start and optimum.
        labels: of the contenders, in the order they were named.
        runs: every finished run and the truth about it.
        errors: of hypergradients at one point.
        choices: by label, the steps that the grid search has chosen.
        peers: errors of the hypergradients of other libraries, and of ours beside them.
    """

    name: str
    description: str
    reference: Reference
    labels: tuple[str, ...]
    runs: tuple[Judged, ...] = ()
    errors: tuple[Errors, ...] = ()
    choices: Mapping[str, TunedSteps] = field(default_factory=dict)
    peers: tuple[PeerError, ...] = ()

    def of(self, label: str) -> list[Judged]:
        """The runs of one contender."""
        return [judged for judged in self.runs if judged.run.contender.label == label]

    def gaps(self, judged: Judged) -> list[float]:
        """The relative gap of every point of a run; NaN where it has no state."""
        return [self.reference.gap(truth.objective) for truth in judged.truths]

    def reached(self, judged: Judged, gap: float) -> TrialPoint | None:
        """The first point of a run with at most this gap."""
        pairs = zip(judged.run.points, self.gaps(judged), strict=True)
        return next((point for point, found in pairs if found <= gap), None)

    def share(self, label: str, gap: float) -> tuple[int, int]:
        """How many runs of a contender get to a gap, and how many there are."""
        runs = self.of(label)
        return sum(self.reached(judged, gap) is not None for judged in runs), len(runs)

    def median_to(self, label: str, gap: float, what: Callable[[TrialPoint], float]) -> float:
        """Median over the seeds of what it takes to a gap; a run that does not get there counts as infinite."""
        points = [self.reached(judged, gap) for judged in self.of(label)]
        return median([what(point) if point is not None else math.inf for point in points])

    def final_gap(self, label: str) -> float:
        """Median over the seeds of the last gap; NaN counts as infinite."""
        last = [self.gaps(judged)[-1] if judged.truths else math.inf for judged in self.of(label)]
        return median([math.inf if math.isnan(gap) else gap for gap in last])


def median(values: list[float]) -> float:
    """The median; NaN of nothing, infinite where one of the two in the middle is."""
    return statistics.median(values) if values else math.nan
