"""Amounts of memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from .mistakes import expectation
from .numbers import is_number, plain_number

_UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_PATTERN = r"^([0-9]+(?:\.[0-9]+)?) ?(B|kB|MB|GB|TB)$"
_EXPECTED = "a positive number of bytes, or one with a unit such as 500 MB or 4 GB"


@dataclass(frozen=True)
class Bytes:
    """A positive number of bytes, also written with a unit; or null."""

    def check(self, value: object) -> float | None:
        if value is None:
            return None
        if is_number(value):
            count = float(plain_number(value))
        else:
            found = re.match(_PATTERN, value) if isinstance(value, str) else None
            count = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if not 0.0 < count < float("inf"):
            raise expectation(f"{_EXPECTED}, or null", value)
        return count

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        text = {"type": "string", "pattern": _PATTERN}
        return {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, text, {"type": "null"}]}
