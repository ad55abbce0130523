"""The `data` section of a problem file: fields from files, arrays and functions, which expressions name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from nhgd_pde.problem_file.fields import Function, OneOf, Section, expectation, issue

# The largest number of values that a file or a mapping may have in place of a file of its own.
_MOST_NUMBERS = 5_000
# The form of a box, as messages give it.
_CORNERS = "two opposite corners, [[x0, y0], [x1, y1]]"


@dataclass(frozen=True)
class NumberTable:
    """Numbers in so many axes, as lists or as an array of NumPy; kept as tuples. With `null`, null is allowed.

    Attributes:
        form: what is expected, for messages; empty: a list of numbers, or of coordinates for each point.
    """

    axes: int
    null: bool = False
    form: str = ""

    def check(self, value: object) -> Any:
        if value is None and self.null:
            return None
        shape = "a list of numbers" if self.axes == 1 else "a list of lists of coordinates, one for each point"
        shape = self.form or shape
        try:
            numbers = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise expectation(shape, value) from None
        if isinstance(value, str) or numbers.ndim != self.axes or not numbers.size:
            raise expectation(shape, value)
        if numbers.size > _MOST_NUMBERS:
            raise issue(
                f"expected at most {_MOST_NUMBERS:,} numbers, found {numbers.size:,}: write them to a file with "
                "numpy.savez('NAME.npz', points=..., values=...) and name it as file: NAME.npz"
            )
        if not np.isfinite(numbers).all():
            raise issue(f"expected finite numbers, found {numbers[~np.isfinite(numbers)][0]}")
        return tuple(map(tuple, numbers.tolist())) if self.axes == 2 else tuple(numbers.tolist())

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        one: dict[str, Any] = {"type": "array", "items": {"type": "number"}, "minItems": 1}
        whole = one if self.axes == 1 else {"type": "array", "items": one, "minItems": 1}
        return {"anyOf": [whole, {"type": "null"}]} if self.null else whole


Interpolation = Annotated[
    Literal["linear", "nearest"],
    Field(description="Values between the points, pixels or nodes: linear, or those of the nearest one."),
]


class FileData(Section):
    """A field from a file: values at points, an image, an array on a grid, or a field on a mesh."""

    file: str = Field(
        min_length=1,
        description="A table of points (.csv, .txt, .dat, .npz), an image (.png, .jpg, .tif ...), an array on a grid "
        "(.npy), or a mesh with fields (.vtu and whatever else meshio reads).",
    )
    field: str | None = Field(
        default=None,
        min_length=1,
        description="Name of the column, array or field in the file; null where there is only one.",
    )
    method: Interpolation = "linear"
    box: Annotated[tuple[tuple[float, ...], ...] | None, NumberTable(2, null=True, form=_CORNERS)] = Field(
        default=None,
        description="Of an image or an array: two opposite corners of its place, [[x0, y0], [x1, y1]]; null: those of "
        "the mesh.",
    )


class PointData(Section):
    """A field from values at points."""

    points: Annotated[tuple[tuple[float, ...], ...], NumberTable(2)] = Field(
        description="Coordinates, a list for each point, or an array (points, dim)."
    )
    values: Annotated[tuple[float, ...], NumberTable(1)] = Field(description="One value for each point.")
    method: Interpolation = "linear"


class FunctionData(Section):
    """A field from a function in Python."""

    python: Annotated[str | Callable[..., Any], Function()] = Field(
        description="The function as file.py:name; x (dim, points) -> values (points,), arrays of NumPy."
    )


DataSpec = Annotated[FileData | PointData | FunctionData, OneOf()]
Data = Annotated[
    Mapping[str, DataSpec],
    Field(
        default_factory=dict,
        description="Names of fields that expressions may use, each with its file, its points or its function.",
    ),
]
