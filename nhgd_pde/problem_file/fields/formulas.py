"""Expressions, and functions and meshes of the user."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ..expressions import Expression, ExpressionError
from .mistakes import each_of, expectation, issue
from .numbers import Schema, is_number, plain_number

# What `described_mesh.description` writes.
_DESCRIPTION = r"^(skfem|meshio) \w+ in memory, [0-9,]+ points, [0-9,]+ cells, sha256 [0-9a-f]{16}$"


@dataclass(frozen=True)
class Context:
    """What other parts of a file tell about the names in its expressions.

    Attributes:
        time: whether the problem evolves in time.
        parameters: names of the controls of kind parameter, of random inputs and of data.
        left_out: places of the file whose values have been left out, because of mistakes there.
        folder: the folder of the file; None for a problem that is no file.
    """

    time: bool = False
    parameters: tuple[str, ...] = ()
    left_out: frozenset[tuple[int | str, ...]] = frozenset()
    folder: Path | None = None


@dataclass(frozen=True)
class Formula:
    """An expression in the coordinates and further `names`, written as a number or a text.

    Attributes:
        null: whether null is allowed.
        names: further names.
        vector: whether a list of expressions is allowed, one for each component.
        null_entries: whether null is allowed in such a list.
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
            return self._components(value, context)
        if not isinstance(value, str) and not is_number(value):
            single = "a number, an expression or a list of expressions" if self.vector else "a number or an expression"
            raise expectation(f"{single}{' or null' * self.null}", value)
        return self._expression(value if isinstance(value, str) else plain_number(value), context)

    def _components(self, value: Sequence[object], context: Context) -> tuple[Expression | None, ...]:
        if not value:
            raise expectation("a list with an expression a component", value)
        entry = replace(self, vector=False, null=self.null_entries)
        return tuple(each for _, each in each_of("list", enumerate(value), lambda each: entry.check(each, context)))

    def _expression(self, value: str | float, context: Context) -> Expression:
        names = (*self.names, *(name for name in context.parameters if name not in self.names))
        try:
            expression = Expression(value, names)
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
    """A value in which every expression is replaced by the number or text in the file."""
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
            return dict(each_of("subdomains", value.items(), lambda each: scalar.check(each, context)))
        if isinstance(value, list | tuple) and self.vector:
            return Formula(vector=True).check(value, context)
        if isinstance(value, list | tuple) and self.matrix:
            size = len(value)
            if not 1 <= size <= 3 or any(not isinstance(row, list | tuple) or len(row) != size for row in value):
                raise issue("expected a square matrix, a list of 1 to 3 rows with as many expressions each")
            row = Formula(vector=True)
            return tuple(each for _, each in each_of("matrix", enumerate(value), lambda each: row.check(each, context)))
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


@dataclass(frozen=True)
class Function:
    """A function of the user: `file.py:name`, or in Python the function itself."""

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
class MeshValue:
    """A mesh of scikit-fem or meshio, or in the problem.yaml of a run folder the description of the mesh beside it.

    The libraries themselves are not loaded to recognise a mesh.
    """

    def check(self, value: object, context: Context | None = None) -> Any:
        if library_class(value) is not None:
            return value
        if not isinstance(value, str) or not re.fullmatch(_DESCRIPTION, value):
            raise expectation("a scikit-fem Mesh or a meshio.Mesh, in Python", value)
        if context is None or context.folder is None:
            hint = " (that describes a mesh beside the problem.yaml of a run folder: load that folder)"
            raise expectation("a scikit-fem Mesh or a meshio.Mesh, in Python", value, hint)
        # Problems without such a mesh are read without loading this.
        from ..described_mesh import described_mesh

        return described_mesh(context.folder, value)

    @staticmethod
    def written(value: Any) -> str:
        from ..described_mesh import description

        return description(value)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            lambda value, info: self.check(value, info.context),
            serialization=core_schema.plain_serializer_function_ser_schema(self.written),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Schema:
        return {"type": "string", "pattern": _DESCRIPTION}


def library_class(value: object) -> type | None:
    """The class of scikit-fem or meshio that a mesh is of; None for another value."""
    own = [kind for kind in type(value).__mro__ if kind.__module__.partition(".")[0] in ("skfem", "meshio")]
    return own[0] if any(kind.__name__ == "Mesh" for kind in own) else None
