"""The mappings of a problem file, and the choice between several kinds of mappings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ..errors import suggest
from .mistakes import each_of, expectation, found, issue, one_of, raise_issues, words_of
from .numbers import Schema


class Section(BaseModel):
    """A mapping of the problem file: immutable, without unknown keys, with messages about the keys of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def meaning(cls, content: Mapping[str, Any]) -> str:
        """What a section with this content stands for, as a sentence; by default the first line of the docstring.

        Args:
            content: the section as it is in a resolved problem file.
        """
        return (cls.__doc__ or "").strip().splitlines()[0]

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


class Alternatives(Section):
    """A mapping with exactly one of its optional keys; the others are not written."""

    @classmethod
    def check_one(cls, names: Iterable[str]) -> None:
        """Raise a mistake unless exactly one name is given."""
        given = list(names)
        if len(given) != 1:
            known = ", ".join(name for name, info in cls.model_fields.items() if not info.is_required())
            raise issue(f"expected exactly one of {known}; found {' and '.join(given) or 'none'}")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        optional = [name for name, info in type(self).model_fields.items() if not info.is_required()]
        self.check_one(name for name in optional if getattr(self, name) is not None)
        return self

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


def _phrase(description: str | None) -> str:
    """The description of a field in the form that fits into a sentence."""
    text = description or "a value"
    return text[:1].lower() + text[1:].rstrip(".")


@dataclass(frozen=True)
class _Choice:
    """The sections and the words that one key may have.

    Attributes:
        words: words in place of a section.
        by_kind, by_key: the sections by their kinds; those without a kind by their first key.
    """

    words: tuple[str, ...]
    by_kind: Mapping[str, type[Section]]
    by_key: Mapping[str, type[Section]]

    @classmethod
    def of(cls, choices: Iterable[Any]) -> _Choice:
        """The choice between annotations, which are sections or literal words."""
        words: list[str] = []
        by_kind: dict[str, type[Section]] = {}
        by_key: dict[str, type[Section]] = {}
        for each in choices:
            if words_of(each):
                words += words_of(each)
            elif "kind" in each.model_fields:
                by_kind |= dict.fromkeys(words_of(each.model_fields["kind"].annotation), each)
            else:
                by_key[next(iter(each.model_fields))] = each
        return cls(tuple(words), by_kind, by_key)

    @property
    def _kinds(self) -> str:
        return ", ".join(self.by_kind)

    @property
    def _expected(self) -> str:
        kinds = [f"kind: one of {self._kinds}"] if self.by_kind else []
        return " or ".join([*kinds, *(f"{key}: ..." for key in self.by_key)])

    def _refusal(self, value: object, near: str) -> PydanticCustomError:
        either = "".join(f"{word}, " for word in self.words) + ("or " if self.words else "")
        return expectation(f"{either}a mapping with {self._expected}", value, near)

    def chosen(self, value: object, handler: Callable[[object], object], info: ValidationInfo) -> object:
        """The checked section, or the word."""
        if isinstance(value, (*self.by_kind.values(), *self.by_key.values())):
            return value
        if isinstance(value, Mapping):
            return self._member(value).model_validate(value, context=info.context)
        if isinstance(value, str) and value in self.words:
            return value
        near = suggest(value, (*self.words, *self.by_key)) if self.words and isinstance(value, str) else ""
        raise self._refusal(value, near)

    def _member(self, value: Mapping[str, Any]) -> type[Section]:
        """The section that a mapping is."""
        if "kind" in value:
            return self._of_kind(value["kind"])
        for key, member in self.by_key.items():
            if key in value:
                return member
        if not self.by_kind:
            near = suggest(str(next(iter(value), "")), self.by_key)
            raise self._refusal(value, f" with {', '.join(value)}{near}")
        raise_issues("kind", [(("kind",), issue(f"missing; expected {self._expected}"))])

    def _of_kind(self, kind: object) -> type[Section]:
        if isinstance(kind, str) and kind in self.by_kind:
            return self.by_kind[kind]
        others = [f"{key}: ..." for key in self.by_key]
        hint = suggest(kind, [*self.by_kind, *others]) if isinstance(kind, str) else ""
        raise_issues("kind", [(("kind",), expectation(f"one of {self._kinds}", kind, hint))])


@dataclass(frozen=True)
class OneOf:
    """One of several sections, or a word. A section is recognised by its `kind`, or without it by its first key."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        choice = _Choice.of(get_args(source))
        return core_schema.with_info_wrap_validator_function(choice.chosen, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        """The choice as conditions, of which one applies, so that editors name what is wrong in the chosen section."""
        found = handler(schema)
        members = found.get("anyOf", [found])
        words = [each for each in members if "$ref" not in each]
        by_kind, by_key, texts = {}, {}, {}
        for each in members:
            if "$ref" in each:
                section = handler.resolve_ref_schema(each)
                kind = section["properties"].get("kind", {}).get("const")
                if kind is None:
                    by_key[next(iter(section["properties"]))] = each
                else:
                    by_kind[kind], texts[kind] = each, section.get("description", "")
        mapping: Schema = {"type": "object"}
        if by_kind:
            mapping["properties"] = {
                "kind": {
                    "enum": list(by_kind),
                    "description": f"One of {', '.join(by_kind)}.",
                    "enumDescriptions": list(texts.values()),
                }
            }
        required = [{"required": [key]} for key in [*(["kind"] if by_kind else []), *by_key]]
        mapping |= required[0] if len(required) == 1 else {"anyOf": required}
        chosen = [({"required": ["kind"], "properties": {"kind": {"const": kind}}}, by_kind[kind]) for kind in by_kind]
        chosen += [({"required": [key]}, each) for key, each in by_key.items()]
        mapping["allOf"] = [{"if": condition, "then": section} for condition, section in chosen]
        return {"if": {"type": "object"}, "then": mapping, "else": {"anyOf": words}} if words else mapping


@dataclass(frozen=True)
class OneOrMore:
    """A section, or a list of at least one section; messages use the keys as they are written in the file."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        single = handler.generate_schema(get_args(source)[0])

        def choose(value: object, inner: Callable[[object], object]) -> object:
            if not isinstance(value, list | tuple):
                return inner(value)
            if not value:
                raise expectation("a mapping, or a list of at least one", value)
            return tuple(each for _, each in each_of("list", enumerate(value), inner))

        def dumped(value: Any) -> Any:
            several = isinstance(value, tuple)
            return [each.model_dump(mode="json") for each in value] if several else value.model_dump(mode="json")

        serialization = core_schema.plain_serializer_function_ser_schema(dumped)
        return core_schema.no_info_wrap_validator_function(choose, single, serialization=serialization)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        single = handler(schema)
        several = {"type": "array", "items": single, "minItems": 1}
        return {"if": {"type": "array"}, "then": several, "else": single}
