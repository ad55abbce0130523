"""Bounds of the state at nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ...problem_file.control_spec import OptionalScalar
from ...problem_file.fields import AutoPositive, Number, issue
from ...problem_file.mesh_spec import PartName
from .base import Condition

if TYPE_CHECKING:
    from ..constraint_builder import ConstraintBuilder


class StateSpec(Condition):
    """lower <= u <= upper at the nodes of the state's elements, by multipliers and a penalty that grows as needed."""

    kind: Literal["state"]
    upper: OptionalScalar = Field(default=None, description="Upper bound, an expression; null for none.")
    lower: OptionalScalar = Field(default=None, description="Lower bound, an expression; null for none.")
    on: PartName | None = Field(
        default=None, description="Subdomain or part of the boundary where it must hold; null for the whole domain."
    )
    component: Annotated[int, Number(whole=True, least=0)] = Field(
        default=0, description="Component of a vector, from 0."
    )
    tolerance: Annotated[float, Number(above=0)] = Field(
        default=1e-6,
        description="Largest excess at a node that is converged, relative to the largest bound and state.",
    )
    penalty: AutoPositive = Field(
        default="auto",
        description="Factor of the penalty at the end of the path of stages; auto is 1e6 times the curvature of the "
        "objective. The path ends as soon as the bounds hold, and goes on where they do not.",
    )
    stages: Annotated[int, Number(whole=True, least=1)] = Field(
        default=6, description="Stages of that path, each with up to ten times the penalty of the one before."
    )

    @model_validator(mode="after")
    def _some_bound(self) -> StateSpec:
        if self.upper is None and self.lower is None:
            raise issue("expected upper, lower or both, found neither")
        return self

    of_state: ClassVar[bool] = True

    def build(self, key: str, builder: ConstraintBuilder) -> None:
        from ..nodal_bounds import NodalBounds

        builder.states.append(NodalBounds(builder).of(key, self))
