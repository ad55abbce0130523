"""The JSON schema of problem files (draft 2020-12), with which editors complete and check them."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.schema import ProblemSpec
from nhgd_pde.problem_file.task_schema import TaskSpec


class _Generator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        return dft.original if isinstance(dft, Expression) else super().encode_default(dft)


def json_schema() -> dict[str, Any]:
    """The schema of a problem file; `problem_file/schema.json` and `problems/schema.json` are copies of it."""
    both = TypeAdapter(ProblemSpec | TaskSpec).json_schema(schema_generator=_Generator)
    equation, task = (each for each in both["anyOf"])
    # Editors name an unknown key only if one of the two vocabularies is chosen first.
    chosen = {"if": {"required": ["task"]}, "then": task, "else": equation}
    sections = both["$defs"]
    for section in sections.values():
        for key, value in section["properties"].items():
            if key == "kind":
                value.setdefault("description", section["description"])
            elif "$ref" in value:
                value.setdefault("description", sections[value["$ref"].rpartition("/")[2]]["description"])
    return {"$defs": sections, **chosen, "$schema": _Generator.schema_dialect, "title": "nhgd-pde problem"}


def json_schema_text() -> str:
    """The content of `schema.json`."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
