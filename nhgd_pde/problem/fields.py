"""What a value in the problem file may be: numbers, words, expressions, one of several kinds.

Each marker here goes into an `Annotated` type of the schema and brings its check, its wording of what was
expected and found, and its JSON schema. `Section` is the base of every mapping in the file.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, SupportsFloat, TypeGuard, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from nhgd_pde.problem.errors import suggest
from nhgd_pde.problem.expressions import Expression, ExpressionError

Location = tuple[int | str, ...]
Schema = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What the rest of a file makes known to its expressions.

    Attributes:
        time: the problem evolves in time.
        parameters: names of the controls of kind parameter.
    """

    time: bool = False
    parameters: tuple[str, ...] = ()


def found(value: object) -> str:
    """A value as a reader of the file knows it: `null`, `true`, `'abc'`, `a mapping`, `a list of 3`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence):
        return f"a list of {len(value)}"
    return str(value)


def issue(message: str) -> PydanticCustomError:
    """A mistake in our own words, to be raised by a validator."""
    return PydanticCustomError("issue", "{message}", {"message": message})


def expectation(expected: str, value: object, hint: str = "") -> PydanticCustomError:
    return issue(f"expected {expected}, found {found(value)}{hint}")


def is_number(value: object) -> TypeGuard[SupportsFloat]:
    """Whether it is a real number; a truth value is none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def plain_number(value: SupportsFloat) -> int | float:
    """Python's own int or float; a whole number too large for a float is infinite."""
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    return int(value) if isinstance(value, numbers.Integral) else number


def raise_issues(title: str, issues: Iterable[tuple[Location, PydanticCustomError]]) -> NoReturn:
    """Raise several mistakes at once, each with its place below the value being checked."""
    lines = [InitErrorDetails(type=error, loc=location, input=None) for location, error in issues]
    raise ValidationError.from_exception_data(title, lines)


def words_of(annotation: object) -> tuple[str, ...]:
    """The words a `Literal` lists."""
    return tuple(str(word) for word in get_args(annotation)) if get_origin(annotation) is Literal else ()


class Section(BaseModel):
    """A mapping of the problem file: immutable, without unknown keys, with errors in the file's terms."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: object, handler: ModelWrapValidatorHandler[Section]) -> Section:
        if not isinstance(value, Mapping | cls):
            raise expectation(f"a mapping with {', '.join(cls.model_fields)}", value)
        try:
            return handler(value)
        except ValidationError as error:
            details = error.errors(include_url=False)
        # The other keys cannot be judged while the kind is unknown.
        kind_wrong = [each for each in details if each["loc"] == ("kind",)]
        raise_issues(
            cls.__name__,
            ((each["loc"], issue(cls._message(each, value))) for each in kind_wrong or details),
        )

    @classmethod
    def _message(cls, details: Any, value: object) -> str:
        kind, location = details["type"], details["loc"]
        if kind == "issue":
            return str(details["msg"])
        if kind == "extra_forbidden":
            known = list(cls.model_fields)
            return f"unknown key{suggest(str(location[-1]), known)}; known: {', '.join(known)}"
        if kind == "missing":
            field = cls.model_fields[str(location[-1])]
            words = words_of(field.annotation)
            return f"missing; expected {one_of(words) if words else _phrase(field.description)}"
        if kind == "literal_error":
            words = tuple(re.findall(r"'([^']*)'", details["ctx"]["expected"]))
            hint = suggest(details["input"], words) if isinstance(details["input"], str) else ""
            return f"expected {one_of(words)}, found {found(details['input'])}{hint}"
        if kind == "string_pattern_mismatch":
            description = cls.model_fields[str(location[0])].description
            return f"expected {_phrase(description)}, found {found(details['input'])}"
        expected = {
            "string_type": "text",
            "string_too_short": "text",
            "dict_type": "a mapping",
            "tuple_type": "a list",
            "list_type": "a list",
        }.get(kind)
        if expected:
            return f"expected {expected}, found {found(details['input'])}"
        return f"{details['msg']}, found {found(details['input'])}"


def _phrase(description: str | None) -> str:
    """A field's description in the middle of a sentence."""
    text = description or "a value"
    return text[:1].lower() + text[1:].rstrip(".")


def one_of(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"


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
        number = plain_number(value)
        if self.whole and isinstance(number, float):
            raise expectation(self.expected, value)
        number = number if self.whole else float(number)
        if (
            not math.isfinite(number)
            or (self.least is not None and number < self.least)
            or (self.above is not None and number <= self.above)
            or (self.below is not None and number >= self.below)
        ):
            raise expectation(self.expected, value)
        return number

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


@dataclass(frozen=True)
class Numbers:
    """A number, or where `single` is allowed to be one of many a list of at least one."""

    entry: Number
    single: bool = True

    def check(self, value: object) -> Any:
        if not isinstance(value, list | tuple):
            if not self.single:
                raise expectation("a list of numbers", value)
            return self.entry.check(value)
        if not value:
            raise expectation("a list of at least one number", value)
        return tuple(each for _, each in _each("numbers", enumerate(value), self.entry.check))

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        entry = self.entry.__get_pydantic_json_schema__(schema, handler)
        listed: Schema = {"type": "array", "items": entry, "minItems": 1}
        return {"anyOf": [entry, listed]} if self.single else listed


@dataclass(frozen=True)
class Flag:
    """True or false; with `only`, no more than true."""

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
    # A single value is checked once an axis: its mistake is reported once, at the value itself.
    try:
        return inner(entries)
    except ValidationError as error:
        if entries is value:
            raise
        raise issue(error.errors(include_url=False)[0]["msg"]) from None


@dataclass(frozen=True)
class Formula:
    """An expression in the coordinates and further `names`, written as a number or a text.

    Attributes:
        null: null is allowed.
        names: further names.
        vector: so is a list of expressions, one a component.
        null_entries: null is allowed in such a list.
    """

    null: bool = False
    names: tuple[str, ...] = ()
    vector: bool = False
    null_entries: bool = False

    def check(self, value: object, context: Context | None = None) -> Expression | tuple[Expression | None, ...] | None:
        context = context or Context()
        if value is None and self.null:
            return None
        if isinstance(value, Expression):
            return value
        if self.vector and isinstance(value, list | tuple):
            if not value:
                raise expectation("a list with an expression a component", value)
            entry = replace(self, vector=False, null=self.null_entries)
            return tuple(each for _, each in _each("list", enumerate(value), lambda each: entry.check(each, context)))
        if not isinstance(value, str) and not is_number(value):
            single = "a number, an expression or a list of expressions" if self.vector else "a number or an expression"
            raise expectation(f"{single}{' or null' * self.null}", value)
        names = (*self.names, *(name for name in context.parameters if name not in self.names))
        try:
            expression = Expression(value if isinstance(value, str) else plain_number(value), names)
        except ExpressionError as error:
            raise issue(str(error)) from None
        if "t" in expression.variables and not context.time:
            raise issue("uses the time 't', but the problem does not depend on time")
        return expression

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            lambda value, info: self.check(value, info.context),
            serialization=core_schema.plain_serializer_function_ser_schema(_written),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        types = ["number", "string", *(["null"] if self.null else [])]
        if not self.vector:
            return {"type": types}
        entry = ["number", "string", *(["null"] if self.null_entries else [])]
        return {"anyOf": [{"type": types}, {"type": "array", "items": {"type": entry}, "minItems": 1}]}


def _written(value: Any) -> Any:
    """A value with every expression as it stood in the file."""
    if isinstance(value, Expression):
        return value.original
    if isinstance(value, Mapping):
        return {key: _written(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_written(each) for each in value]
    return value


@dataclass(frozen=True)
class RegionFormula:
    """An expression, one for each subdomain (`{core: 10, default: 1}`), a list of them, or a square matrix."""

    matrix: bool = False
    vector: bool = False

    def check(self, value: object, context: Context | None = None) -> Any:
        scalar = Formula()
        if isinstance(value, Mapping):
            if not value:
                raise expectation("an expression for at least one subdomain", value, " without entries")
            return dict(_each("subdomains", value.items(), lambda each: scalar.check(each, context)))
        if isinstance(value, list | tuple) and self.vector:
            return Formula(vector=True).check(value, context)
        if isinstance(value, list | tuple) and self.matrix:
            size = len(value)
            if not 1 <= size <= 3 or any(not isinstance(row, list | tuple) or len(row) != size for row in value):
                raise issue("expected a square matrix, a list of 1 to 3 rows with as many expressions each")
            row = Formula(vector=True)
            return tuple(each for _, each in _each("matrix", enumerate(value), lambda each: row.check(each, context)))
        try:
            return scalar.check(value, context)
        except PydanticCustomError:
            if isinstance(value, str) or is_number(value):
                raise
            more = ", or a matrix as a list of rows" * self.matrix + ", or a list of expressions" * self.vector
            raise expectation(f"a number, an expression or a mapping by subdomain{more}", value) from None

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            lambda value, info: self.check(value, info.context),
            serialization=core_schema.plain_serializer_function_ser_schema(_written),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        formula: dict[str, Any] = {"type": ["number", "string"]}
        row = {"type": "array", "items": formula, "minItems": 1, "maxItems": 3}
        shapes = [formula, {"type": "object", "additionalProperties": formula, "minProperties": 1}]
        if self.vector:
            shapes.append({"type": "array", "items": formula, "minItems": 1})
        if self.matrix:
            shapes.append({"type": "array", "items": row, "minItems": 1, "maxItems": 3})
        return {"anyOf": shapes}


def _each(title: str, items: Iterable[tuple[Any, Any]], check: Callable[[Any], Any]) -> list[tuple[Any, Any]]:
    """Every item checked; all mistakes are raised together, each with its key."""
    good: list[tuple[Any, Any]] = []
    bad: list[tuple[Location, PydanticCustomError]] = []
    for key, value in items:
        try:
            good.append((key, check(value)))
        except PydanticCustomError as error:
            bad.append(((key,), error))
        except ValidationError as error:
            bad += [((key, *each["loc"]), issue(each["msg"])) for each in error.errors(include_url=False)]
    if bad:
        raise_issues(title, bad)
    return good


@dataclass(frozen=True)
class Function:
    """A function of the user's own: `file.py:name`, or from Python the function itself."""

    def check(self, value: object) -> Any:
        if callable(value) or (isinstance(value, str) and re.fullmatch(r".+\.py:[A-Za-z_][A-Za-z0-9_]*", value)):
            return value
        raise expectation("a function as file.py:name", value)

    @staticmethod
    def written(value: Any) -> str:
        return value if isinstance(value, str) else f"{getattr(value, '__module__', '?')}.py:{value.__qualname__}"

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.check, serialization=core_schema.plain_serializer_function_ser_schema(self.written)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return {"type": "string", "pattern": r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$"}


@dataclass(frozen=True)
class OneOf:
    """One of several sections, told apart by their `kind`, or by their first key where they have none."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        members: tuple[type[Section], ...] = get_args(source)
        by_kind = {
            word: member
            for member in members
            if "kind" in member.model_fields
            for word in words_of(member.model_fields["kind"].annotation)
        }
        by_key = {next(iter(member.model_fields)): member for member in members if "kind" not in member.model_fields}
        kinds = ", ".join(by_kind)
        expected = " or ".join([f"kind: one of {kinds}", *(f"{key}: ..." for key in by_key)])

        def choose(value: object, _: Callable[[object], object], info: ValidationInfo) -> object:
            if isinstance(value, members):
                return value
            if not isinstance(value, Mapping):
                raise expectation(f"a mapping with {expected}", value)
            if "kind" not in value:
                for key, member in by_key.items():
                    if key in value:
                        return member.model_validate(value, context=info.context)
                raise_issues("kind", [(("kind",), issue(f"missing; expected {expected}"))])
            kind = value["kind"]
            if not isinstance(kind, str) or kind not in by_kind:
                hint = suggest(kind, by_kind) if isinstance(kind, str) else ""
                raise_issues("kind", [(("kind",), expectation(f"one of {kinds}", kind, hint))])
            return by_kind[kind].model_validate(value, context=info.context)

        return core_schema.with_info_wrap_validator_function(choose, handler(source))


@dataclass(frozen=True)
class OneOrMore:
    """A section, or a list of at least one; mistakes are told of what was written."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        single = handler.generate_schema(get_args(source)[0])

        def choose(value: object, inner: Callable[[object], object]) -> object:
            if not isinstance(value, list | tuple):
                return inner(value)
            if not value:
                raise expectation("a mapping, or a list of at least one", value)
            return tuple(each for _, each in _each("list", enumerate(value), inner))

        def dumped(value: Any) -> Any:
            several = isinstance(value, tuple)
            return [each.model_dump(mode="json") for each in value] if several else value.model_dump(mode="json")

        serialization = core_schema.plain_serializer_function_ser_schema(dumped)
        return core_schema.no_info_wrap_validator_function(choose, single, serialization=serialization)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        single = handler(schema)
        return {"anyOf": [single, {"type": "array", "items": single, "minItems": 1}]}
