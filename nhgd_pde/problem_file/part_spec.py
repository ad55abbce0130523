"""The `parts` section of a problem file: parts of the mesh that conditions on the coordinates describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo, model_validator
from pydantic_core import CoreSchema, core_schema

from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.fields import Formula, Section, issue


class PartSpec(Section):
    """A part of the boundary, a subdomain, or both, by conditions on the coordinates."""

    boundary: Annotated[Expression | None, Formula(null=True)] = Field(
        default=None, description="Condition that holds at the midpoints of the facets of the boundary in the part."
    )
    cells: Annotated[Expression | None, Formula(null=True)] = Field(
        default=None, description="Condition that holds at the midpoints of the cells in the part."
    )

    @model_validator(mode="after")
    def _some(self) -> PartSpec:
        if self.boundary is None and self.cells is None:
            raise issue("expected a condition such as 'x < 0.1 and y > 0.4', or a mapping with boundary or cells")
        return self

    @property
    def conditions(self) -> dict[str, Expression]:
        """The conditions that are given, by their keys."""
        given = {"boundary": self.boundary, "cells": self.cells}
        return {name: condition for name, condition in given.items() if condition is not None}


@dataclass(frozen=True)
class OrCondition:
    """A text in place of a mapping: one condition for the boundary and for the cells."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def mapping(value: object, info: ValidationInfo) -> object:
            if not isinstance(value, str):
                return value
            # A mistake in the text is reported once.
            condition = Formula().check(value, info.context)
            return {"boundary": condition, "cells": condition}

        return core_schema.with_info_before_validator_function(mapping, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(schema)]}


Parts = Annotated[
    Mapping[str, Annotated[PartSpec, OrCondition()]],
    Field(
        default_factory=dict,
        description="Names of parts of the mesh by a condition on the coordinates: {inlet: 'x < 1e-9 and y > 0.4'}, or "
        "{core: {cells: 'r < 0.1'}}. They may stand wherever the name of a boundary or of a subdomain may.",
    ),
]
