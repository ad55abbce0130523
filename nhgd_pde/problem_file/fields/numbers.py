"""Numbers and truth values."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, SupportsFloat, TypeGuard

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from ..errors import suggest
from .mistakes import each_of, expectation, issue

Schema = dict[str, Any]


def is_number(value: object) -> TypeGuard[SupportsFloat]:
    """Whether a value is a real number; a truth value is not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def plain_number(value: SupportsFloat) -> int | float:
    """Python's own int or float; a whole number too large for a float is infinite."""
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    return int(value) if isinstance(value, numbers.Integral) else number


@dataclass(frozen=True)
class Number:
    """A finite number within bounds, or one of some `words`, or null."""

    whole: bool = False
    least: float | None = None
    above: float | None = None
    below: float | None = None
    words: tuple[str, ...] = ()
    null: bool = False

    @property
    def expected(self) -> str:
        limits = [
            f"{name} {limit:g}"
            for name, limit in (("of at least", self.least), ("above", self.above), ("below", self.below))
            if limit is not None
        ]
        number = "a whole number" if self.whole else "a number"
        others = [*self.words, *(["null"] if self.null else [])]
        return ", or ".join([" ".join([number, " and ".join(limits)]).strip(), *others])

    def check(self, value: object) -> float | str | None:
        if value is None and self.null:
            return None
        if isinstance(value, str) and value in self.words:
            return value
        if not is_number(value):
            raise expectation(self.expected, value, self._hint(value))
        number = self._converted(plain_number(value))
        if not self._allowed(number):
            raise expectation(self.expected, value)
        return number

    def _converted(self, number: int | float) -> int | float:
        if not self.whole:
            return float(number)
        # 1e6 is a whole number, too, for YAML as for JSON schemas.
        return int(number) if isinstance(number, int) or number.is_integer() else number

    def _allowed(self, number: int | float) -> bool:
        if not math.isfinite(number) or (self.whole and isinstance(number, float)):
            return False
        bounds = ((self.least, operator.ge), (self.above, operator.gt), (self.below, operator.lt))
        return all(limit is None or holds(number, limit) for limit, holds in bounds)

    def _hint(self, value: object) -> str:
        if value is False and "off" in self.words:
            return " (to switch it off, write off)"
        if not isinstance(value, str):
            return ""
        try:
            float(value)
        except ValueError:
            return suggest(value, self.words)
        return " (a number is written without quotes)"

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        number: dict[str, Any] = {"type": "integer" if self.whole else "number"}
        names = {"minimum": self.least, "exclusiveMinimum": self.above, "exclusiveMaximum": self.below}
        number.update({name: limit for name, limit in names.items() if limit is not None})
        others: list[dict[str, Any]] = [{"enum": list(self.words)}] if self.words else []
        others += [{"type": "null"}] if self.null else []
        return {"anyOf": [number, *others]} if others else number


AutoCount = Annotated[int | Literal["auto"], Number(whole=True, least=1, words=("auto",))]
AutoPositive = Annotated[float | Literal["auto"], Number(above=0, words=("auto",))]


@dataclass(frozen=True)
class Numbers:
    """A list of at least one number; where `single` is true, one number without a list, too."""

    entry: Number
    single: bool = True

    def check(self, value: object) -> Any:
        if not isinstance(value, list | tuple):
            if not self.single:
                raise expectation("a list of numbers", value)
            return self.entry.check(value)
        if not value:
            raise expectation("a list of at least one number", value)
        return tuple(each for _, each in each_of("numbers", enumerate(value), self.entry.check))

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        entry = self.entry.__get_pydantic_json_schema__(schema, handler)
        listed: Schema = {"type": "array", "items": entry, "minItems": 1}
        return {"anyOf": [entry, listed]} if self.single else listed


@dataclass(frozen=True)
class Flag:
    """True or false; with `only`, true alone."""

    only: bool = False

    def check(self, value: object) -> bool | None:
        if not isinstance(value, bool) or (self.only and not value):
            raise expectation("true" if self.only else "true or false", value)
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: None if value is None and self.only else self.check(value)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return {"const": True} if self.only else {"type": "boolean"}


@dataclass(frozen=True)
class PerAxis:
    """A list with one entry an axis; a single value stands for all axes."""

    dim: int

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def spread(value: object) -> object:
            if isinstance(value, list | tuple):
                if len(value) != self.dim:
                    raise expectation(f"{self.dim} value{'s' * (self.dim > 1)}, one an axis", value)
                return value
            return (value,) * self.dim

        return core_schema.no_info_wrap_validator_function(
            lambda value, inner: _first_if_scalar(value, inner, spread(value)), handler(source)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        listed = handler(schema)
        single = handler.resolve_ref_schema(listed)["prefixItems"][0]
        return {"anyOf": [single, listed]}


def _first_if_scalar(value: object, inner: Callable[[object], object], entries: object) -> object:
    # A single value is checked once for every axis, but its mistake is reported once, at the value itself.
    try:
        return inner(entries)
    except ValidationError as error:
        if entries is value:
            raise
        raise issue(error.errors(include_url=False)[0]["msg"]) from None
