"""A weighted integral of the state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ...problem_file.equation_parts import Vector
from ...problem_file.expressions import Expression
from ...problem_file.fields import Formula
from ...problem_file.mesh_spec import PartName
from .base import Term

if TYPE_CHECKING:
    from ...objective.terms import Objective
    from ..objective_builder import ObjectiveBuilder


class LinearStateTerm(Term):
    """int weight u."""

    kind: Literal["linear_state"]
    weight: Annotated[Expression | Vector, Formula(vector=True)] = Field(
        default=Expression(1), description="Factor of the state, an expression; of a vector a list."
    )
    on: PartName | None = Field(
        default=None, description="Subdomain or part of the boundary of the integral; null for the whole domain."
    )
    time: Literal["final", "all"] = Field(
        default="all", description="Of an evolution: at the end, or integrated over time."
    )

    def build(self, key: str, builder: ObjectiveBuilder) -> Objective:
        from ...objective.terms import LinearState, Objective

        chosen = builder.chosen(key, None)
        evaluation, region = builder.region(f"{key}.on", self.on)
        x = evaluation.quadrature.flat
        times = builder.times(self.time)
        weight = builder.values.components(f"{key}.weight", self.weight, len(chosen), x, times) * region.reshape(-1)
        return Objective((LinearState(builder.over_levels(builder.tested(evaluation, weight), self.time)),), ())
