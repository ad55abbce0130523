"""The keys of a study file: what is varied, over which problem, and what is made of the runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, GetCoreSchemaHandler, field_validator
from pydantic_core import CoreSchema, core_schema

from ..problem_file.errors import suggest
from ..problem_file.fields import Number, Section, expectation, found, issue, raise_issues
from ..problem_file.mesh_spec import Count, Natural

# What a study may be made of, and its folder, are limited by what a folder can hold.
MOST_RUNS = 10_000
_LEAST_LEVELS, _LEAST_WEIGHTS = 3, 4
# The keys that make a mesh or a time step finer.
_REFINED = ("mesh.cells", "mesh.refine", "mesh.file", "mesh", "time.steps")


@dataclass(frozen=True)
class Variation:
    """The values of one setting: some values, or a range of numbers.

    Attributes:
        values: the values one by one; empty for a range without a count.
        ends: the ends of a range; None for values that are listed.
        logarithmic: the range is even in the logarithm.
        written: as it was given.
    """

    values: tuple[Any, ...]
    ends: tuple[float, float] | None = None
    logarithmic: bool = False
    written: Any = None

    @property
    def sample(self) -> tuple[Any, ...]:
        """Values that stand for all where these are not known yet: those that are listed, or the ends."""
        return self.values or self.ends or ()

    def at(self, share: float) -> Any:
        """The value at a share of the way, from 0 to 1."""
        if self.ends is None:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        a, b = self.ends
        if self.logarithmic:
            return math.exp(math.log(a) + share * (math.log(b) - math.log(a)))
        return a + share * (b - a)


def variation(value: object) -> Variation:
    """The values that `values`, `linear`, `log` or a list stand for."""
    if isinstance(value, list | tuple):
        if not value:
            raise expectation("a list of at least one value", value)
        return Variation(tuple(value), written=value)
    known = ("values", "linear", "log")
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in known:
        near = suggest(str(next(iter(value), "")), known) if isinstance(value, Mapping) and len(value) == 1 else ""
        raise expectation(
            "a list of values, or one of {values: [...]}, {linear: [from, to, count]}, {log: [from, to, count]}",
            value,
            (f" with {', '.join(map(str, value)) or 'no key'}" if isinstance(value, Mapping) else "") + near,
        )
    kind, given = next(iter(value.items()))
    if kind == "values":
        if not isinstance(given, list | tuple) or not given:
            raise expectation("a list of at least one value", given)
        return Variation(tuple(given), written=value)
    return _range(str(kind), given, value)


def _range(kind: str, given: object, written: object) -> Variation:
    if not isinstance(given, list | tuple) or len(given) not in (2, 3):
        raise expectation(f"{kind}: [from, to, count], or [from, to] where samples are drawn", given)
    limit = Number(above=0) if kind == "log" else Number()
    a, b = (float(limit.check(each)) for each in given[:2])  # type: ignore[arg-type]
    if a == b:
        raise issue(f"expected two different ends, found {found(given[0])} twice")
    whole = Variation((), (a, b), kind == "log", written)
    if len(given) == 2:
        return whole
    count = int(Number(whole=True, least=2, below=MOST_RUNS + 1).check(given[2]))  # type: ignore[arg-type]
    inner = [_short(whole.at(k / (count - 1))) for k in range(1, count - 1)]
    return Variation((_plain(given[0]), *inner, _plain(given[1])), (a, b), kind == "log", written)


def _short(value: float) -> float:
    """The value to 12 digits, so that a range has the 0.001 that its reader expects."""
    return _plain(float(f"{value:.12g}"))


def _plain(value: float) -> Any:
    return int(value) if float(value).is_integer() and abs(value) < 2**53 and isinstance(value, int) else float(value)


@dataclass(frozen=True)
class Varied:
    """A mapping of dotted keys of the problem file to their values."""

    def check(self, value: object) -> dict[str, Variation]:
        if not isinstance(value, Mapping) or not value:
            raise expectation("a mapping of keys of the problem file, such as objective.1.weight, to values", value)
        good: dict[str, Variation] = {}
        bad = []
        for key, given in value.items():
            try:
                good[str(key)] = variation(given)
            except Exception as error:
                if not hasattr(error, "message_template"):
                    raise
                bad.append(((str(key),), error))
        if bad:
            raise_issues("vary", bad)  # type: ignore[arg-type]
        return good

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        dumped = core_schema.plain_serializer_function_ser_schema(
            lambda value: {key: each.written for key, each in value.items()}
        )
        return core_schema.no_info_plain_validator_function(self.check, serialization=dumped)


Vary = Annotated[dict[str, Variation], Varied()]


class StudySpec(Section):
    """What studies of all kinds have."""

    # Ranges need a count where every value is a run.
    counted: ClassVar[bool] = True

    study: str = Field(
        description="A name of letters, digits, '_', '-' and '.': the study is written to outputs/NAME.",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
    )
    problem: Any = Field(description="The problem file, relative to the study file; in Python also its content.")
    kind: str = Field(description="What is made of the runs.")
    overrides: dict[str, Any] = Field(default={}, description="Settings of all runs, by dotted key.")
    processes: Count = Field(default=1, description="Processes that share the runs.")

    @field_validator("problem")
    @classmethod
    def _named(cls, value: object) -> object:
        if not isinstance(value, str | Mapping) or not value:
            raise expectation("the path of a problem file", value)
        return value


class VaryingSpec(StudySpec):
    """A study whose runs differ in settings that are varied."""

    vary: Vary = Field(description="The settings that are varied, by dotted key, and their values.")

    @field_validator("vary")
    @classmethod
    def _counted(cls, value: dict[str, Variation]) -> dict[str, Variation]:
        if cls.counted:
            bad = [
                ((key,), issue("expected a count of values: [from, to, count]"))
                for key, each in value.items()
                if not each.values
            ]
            if bad:
                raise_issues("vary", bad)
        return value


class GridSpec(VaryingSpec):
    """Every combination of values; the last key varies fastest."""

    kind: Literal["grid"] = "grid"


class ListSpec(StudySpec):
    """Runs that are listed, each with its settings."""

    kind: Literal["list"] = "list"
    runs: tuple[dict[str, Any], ...] = Field(min_length=1, description="The settings of each run, by dotted key.")


class HypercubeSpec(VaryingSpec):
    """Latin hypercube samples: of every setting, each of as many equal shares as there are samples is met once."""

    counted = False

    kind: Literal["latin_hypercube"] = "latin_hypercube"
    samples: Annotated[int, Number(whole=True, least=1, below=MOST_RUNS + 1)] = Field(description="Number of runs.")
    seed: Natural = Field(default=0, description="Seed of the samples.")


class OptunaSpec(VaryingSpec):
    """Settings that Optuna proposes from the results of earlier runs."""

    counted = False

    kind: Literal["optuna"] = "optuna"
    trials: Annotated[int, Number(whole=True, least=1, below=MOST_RUNS + 1)] = Field(description="Number of runs.")
    minimise: str = Field(default="objective", description="The column of the table that is minimised.")
    sampler: Literal["tpe", "random"] = Field(default="tpe", description="The sampler of Optuna.")
    batch: Count = Field(
        default=4, description="Runs that are proposed together, so that the study does not depend on `processes`."
    )
    seed: Natural = Field(default=0, description="Seed of the sampler.")


class ContinuationSpec(VaryingSpec):
    """Each run starts from the control of the run before: along the first key, for every combination of the others."""

    kind: Literal["continuation"] = "continuation"


Start = Literal["cold", "neighbour"]


class OneKeySpec(VaryingSpec):
    """A study with one setting that is varied."""

    least: ClassVar[int] = 1

    @field_validator("vary")
    @classmethod
    def _one_key(cls, value: dict[str, Variation]) -> dict[str, Variation]:
        if len(value) != 1:
            raise issue(f"expected one key, found {len(value)}: {', '.join(value)}")
        key, values = next(iter(value.items()))
        if len(values.values) < cls.least:
            raise_issues("vary", [((key,), issue(f"expected at least {cls.least} values, found {len(values.values)}"))])
        return value


class RefinementSpec(OneKeySpec):
    """Meshes, or time steps, from coarse to fine: observed orders of the objective and of the norm of the control."""

    least = _LEAST_LEVELS

    kind: Literal["refinement"] = "refinement"

    @field_validator("vary")
    @classmethod
    def _levels(cls, value: dict[str, Variation]) -> dict[str, Variation]:
        key = next(iter(value))
        if key not in _REFINED:
            raise_issues("vary", [((key,), issue(f"expected one of {', '.join(_REFINED)}, found {key!r}"))])
        return value


class LCurveSpec(OneKeySpec):
    """Weights of a regularisation: the misfit against the regularisation term, and the corner of the curve."""

    least = _LEAST_WEIGHTS

    kind: Literal["l_curve"] = "l_curve"
    start: Start = Field(
        default="cold", description="neighbour: each run starts from that with the next larger weight."
    )

    @field_validator("vary")
    @classmethod
    def _weights(cls, value: dict[str, Variation]) -> dict[str, Variation]:
        key, values = next(iter(value.items()))
        parts = key.split(".")
        if len(parts) != 3 or parts[0] != "objective" or not parts[1].isdigit() or parts[2] != "weight":
            raise_issues("vary", [((key,), issue("expected the weight of a term, objective.N.weight"))])
        for each in values.values:
            Number(above=0).check(each)
        if len(set(values.values)) < len(values.values):
            raise_issues("vary", [((key,), issue("expected different weights, found one twice"))])
        return value


class ParetoSpec(VaryingSpec):
    """Runs that trade terms of the objective against each other: those that no other one is better than in all."""

    kind: Literal["pareto"] = "pareto"
    of: tuple[str, ...] = Field(
        default=(), description="Columns of the table, such as terms without their weights; by default all terms."
    )
    start: Start = Field(default="cold", description="neighbour: as in a continuation.")

    @field_validator("of")
    @classmethod
    def _several(cls, value: Sequence[str]) -> Sequence[str]:
        if len(value) == 1:
            raise issue(f"expected at least two columns, found {value[0]!r} alone")
        return value


KINDS: dict[str, type[StudySpec]] = {
    str(each.model_fields["kind"].default): each
    for each in (
        GridSpec,
        ListSpec,
        HypercubeSpec,
        OptunaSpec,
        ContinuationSpec,
        RefinementSpec,
        LCurveSpec,
        ParetoSpec,
    )
}
