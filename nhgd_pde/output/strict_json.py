"""Strict JSON: what numbers, arrays and mappings become in it, and what is refused."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping

from .storage import OutputError


def json_text(content: Mapping[str, object], place: str) -> str:
    """Strict JSON in the given order, with null for what is not finite; `place` names the file in messages."""
    return json.dumps(plain_value(content, place), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def plain_value(value: object, place: str, finite: bool = True) -> object:
    """The value in the types of JSON; with `finite`, NaN and infinities, which JSON does not have, become None."""
    if isinstance(value, Mapping):
        return {str(key): plain_value(item, f"{place}.{key}", finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item, f"{place}[{at}]", finite) for at, item in enumerate(value)]
    to_list = getattr(value, "tolist", None)  # numpy and torch, arrays and scalars alike
    if callable(to_list):
        return plain_value(to_list(), place, finite)
    if isinstance(value, float):
        return None if finite and not math.isfinite(value) else value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    raise OutputError(f"{place}: expected numbers, text, lists or mappings, found {type(value).__name__}")
