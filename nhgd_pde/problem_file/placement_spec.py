"""The section `placement` of a problem file: candidate sensors, of which the best are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from nhgd_pde.problem_file.fields import Number, Numbers, Section, issue

Positive = Annotated[float, Number(above=0)]


class PlacementSpec(Section):
    """The best of many candidate sensors for the posterior of `inference`: see `nhgd-pde place`."""

    at: str | None = Field(
        default=None,
        min_length=1,
        description="A text file of candidates: a row each of coordinates; further columns, such as the values in a "
        "file of sensors, are not used.",
    )
    grid: Annotated[Any, Numbers(Number(whole=True, least=1, null=True))] = Field(
        default=None,
        description="Candidates on a grid in place of a file: their number along each axis of the smallest box around "
        "the mesh. Those outside the mesh are left out.",
    )
    count: Annotated[int | None, Number(whole=True, least=1, null=True)] = Field(
        default=None, description="Number of sensors to choose; null with a penalty."
    )
    penalty: Annotated[float | None, Number(above=0, null=True)] = Field(
        default=None,
        description="In place of count, the least that a sensor has to add to the criterion: nats of information (D), "
        "or a share of the integrated variance (A).",
    )
    criterion: Literal["D", "A"] = Field(
        default="D",
        description="D: the largest information gain; A: the smallest posterior variance, integrated over the domain.",
    )
    noise: Annotated[float | None, Number(above=0, null=True)] = Field(
        default=None, description="Standard deviation of the values of new sensors; null for that of inference."
    )
    existing: Literal["keep", "replace"] = Field(
        default="keep",
        description="keep: the sensors of the objective stay, and new ones are added; replace: the new ones are alone.",
    )
    component: Annotated[int | None, Number(whole=True, least=0, null=True)] = Field(
        default=None, description="Component of the state that new sensors measure, from 0; null for all of them."
    )
    times: Annotated[Any, Numbers(Number(least=0, null=True))] = Field(
        default=None, description="Of an evolution: the times at which every new sensor measures; null for the end."
    )

    @field_validator("grid", "times")
    @classmethod
    def _numbers_alone(cls, value: Any) -> Any:
        if isinstance(value, tuple) and None in value:
            raise issue(f"expected numbers, found {list(value)}")
        return value

    @model_validator(mode="after")
    def _one_each(self) -> PlacementSpec:
        if self.at is not None and self.grid is not None:
            raise issue("expected one of at, grid; found both")
        if (self.count is None) == (self.penalty is None):
            found = "none" if self.count is None else "both"
            raise issue(f"expected exactly one of count, penalty; found {found}")
        return self


def placement_complaints(spec: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What the choice of sensors needs of the other sections: places in the file, and messages."""
    placement = spec.placement
    if spec.inference is None:
        yield ("placement",), "expected a section inference beside it, whose prior and noise the choice is based on"
        return
    if placement.noise is None and isinstance(spec.inference.noise, tuple | list):
        message = "missing; expected the noise of the new sensors, as inference.noise has several"
        yield ("placement", "noise"), message
    if placement.times is None:
        return
    if spec.time is None:
        yield ("placement", "times"), "expected none in a steady problem"
        return
    times = placement.times if isinstance(placement.times, tuple | list) else (placement.times,)
    if max(times) > spec.time.end:
        message = f"expected times from 0 to {spec.time.end:g}, found {max(times):g}"
        yield ("placement", "times"), message
