"""The vocabulary of `constraints`: what must hold besides the bounds of the controls."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nhgd_pde.problem.control_spec import OptionalScalar
from nhgd_pde.problem.fields import Number, OneOf, Section, issue
from nhgd_pde.problem.mesh_spec import PartName


class VolumeSpec(Section):
    """The material of a density takes at most a fraction of its region."""

    kind: Literal["volume"]
    fraction: Annotated[float, Number(above=0)] = Field(description="Most of the region that it may take.")
    control: str | None = Field(default=None, description="Name of the density, where there are several.")


class StateSpec(Section):
    """lower <= u <= upper, by a penalty/2 int of the squared excess that grows tenfold from stage to stage."""

    kind: Literal["state"]
    upper: OptionalScalar = Field(default=None, description="Upper bound, an expression; null for none.")
    lower: OptionalScalar = Field(default=None, description="Lower bound, an expression; null for none.")
    on: PartName | None = Field(
        default=None, description="Subdomain or part of the boundary where it must hold; null for the whole domain."
    )
    component: Annotated[int, Number(whole=True, least=0)] = Field(
        default=0, description="Component of a vector, from 0."
    )
    penalty: Annotated[float, Number(above=0)] = Field(
        default=1e6, description="Factor of the penalty in the last stage; the excess falls in inverse proportion."
    )
    stages: Annotated[int, Number(whole=True, least=1)] = Field(
        default=6, description="Stages of the continuation, each with ten times the penalty of the one before."
    )

    @model_validator(mode="after")
    def _some_bound(self) -> StateSpec:
        if self.upper is None and self.lower is None:
            raise issue("expected upper, lower or both, found neither")
        return self


ConstraintSpec = Annotated[VolumeSpec | StateSpec, OneOf()]
