"""The runs of a study: their settings, and the run from whose control each of them starts."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from .study_file import StudyFile
from .study_spec import (
    MOST_RUNS,
    ContinuationSpec,
    HypercubeSpec,
    LCurveSpec,
    ListSpec,
    OptunaSpec,
    ParetoSpec,
    StudySpec,
    Variation,
    VaryingSpec,
)

Settings = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """A run that is to be made.

    Attributes:
        number: from 1.
        settings: by dotted key.
        after: the number of the run from whose control it starts; None: it starts from the control of its file.
    """

    number: int
    settings: Settings
    after: int | None = None


# Yields the runs that can be made now, and receives their rows.
Rounds = Generator[list[PlannedRun], list[Row], None]


def settings_to_check(study: StudyFile) -> list[Settings]:
    """The settings of all runs; where these are not known yet, those that show mistakes.

    Raises:
        ProblemError: there are too many runs.
    """
    spec = study.spec
    if isinstance(spec, OptunaSpec):
        # One setting after the other, at its ends or at each of its values.
        first = {key: each.sample[0] for key, each in spec.vary.items()}
        return [first, *({**first, key: value} for key, each in spec.vary.items() for value in each.sample[1:])]
    if isinstance(spec, VaryingSpec) and not isinstance(spec, HypercubeSpec):
        count = prod(len(each.values) for each in spec.vary.values())
        if count > MOST_RUNS:
            raise study.error("vary", f"expected at most {MOST_RUNS:,} runs, found {count:,} combinations")
    return [run.settings for run in planned(spec)]


def rounds(spec: StudySpec) -> Rounds:
    """The runs of a study, round by round: all at once, unless later ones depend on the results of earlier ones."""
    if isinstance(spec, OptunaSpec):
        from .proposals import proposed

        yield from proposed(spec)
    else:
        yield planned(spec)


def planned(spec: StudySpec) -> list[PlannedRun]:
    """The runs of a study that does not depend on results."""
    if isinstance(spec, ListSpec):
        return [PlannedRun(k, dict(each)) for k, each in enumerate(spec.runs, start=1)]
    if isinstance(spec, HypercubeSpec):
        return [PlannedRun(k, each) for k, each in enumerate(hypercube(spec), start=1)]
    assert isinstance(spec, VaryingSpec)
    settings = list(combinations(spec.vary))
    before: Mapping[int, int] = {}
    if isinstance(spec, LCurveSpec) and spec.start == "neighbour":
        # A large weight makes an easy problem.
        order = sorted(range(len(settings)), key=lambda k: -float(next(iter(settings[k].values()))))
        before = dict(zip(order[1:], order[:-1], strict=True))
    elif isinstance(spec, ContinuationSpec) or (isinstance(spec, ParetoSpec) and spec.start == "neighbour"):
        chain = len(settings) // len(next(iter(spec.vary.values())).values)
        before = {k: k - chain for k in range(chain, len(settings))}
    return [PlannedRun(k + 1, each, before[k] + 1 if k in before else None) for k, each in enumerate(settings)]


def combinations(vary: Mapping[str, Variation]) -> Iterator[Settings]:
    """Every combination of values; the last key varies fastest."""
    for values in product(*(each.values for each in vary.values())):
        yield dict(zip(vary, values, strict=True))


def hypercube(spec: HypercubeSpec) -> list[Settings]:
    """Latin hypercube samples, of values that are listed as well."""
    import numpy as np
    from scipy.stats.qmc import LatinHypercube

    # The name of the argument for the generator has changed in SciPy 1.15.
    shares = LatinHypercube(len(spec.vary), **_generator(np.random.default_rng(spec.seed))).random(spec.samples)
    return [
        {key: _rounded(each, share) for (key, each), share in zip(spec.vary.items(), row, strict=True)}
        for row in shares.tolist()
    ]


def _generator(rng: Any) -> dict[str, Any]:
    from inspect import signature

    from scipy.stats.qmc import LatinHypercube

    return {"rng" if "rng" in signature(LatinHypercube).parameters else "seed": rng}


def _rounded(each: Variation, share: float) -> Any:
    value = each.at(share)
    return value if each.ends is None else float(f"{value:.6g}")


def numbered(runs: Sequence[Settings], first: int) -> list[PlannedRun]:
    """Runs that start from the controls of their files."""
    return [PlannedRun(k, each) for k, each in enumerate(runs, start=first)]
