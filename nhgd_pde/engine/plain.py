"""Frozen dataclasses of tensors as nested mappings, and back, for checkpoints.

Mappings of tensors, numbers and strings can be read back without running code from the file, unlike pickled
objects.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import torch
from torch import Tensor

# The keys that mark a dataclass, a tuple and a random generator among mappings.
CLASS, TUPLE, GENERATOR = "__class__", "__tuple__", "__generator__"


def to_plain(value: Any) -> Any:
    """Nested mappings, lists, tensors, numbers and strings.

    Raises:
        TypeError: the value contains an object of another kind.
    """
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value.detach() if isinstance(value, Tensor) else value
    if isinstance(value, torch.Generator):
        return {GENERATOR: value.get_state()}
    if isinstance(value, tuple):
        return {TUPLE: [to_plain(each) for each in value]}
    if isinstance(value, dict):
        return {str(name): to_plain(each) for name, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        fields = {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {CLASS: f"{kind.__module__}:{kind.__qualname__}", **fields}
    raise TypeError(f"expected tensors, numbers, strings and dataclasses of these, found {type(value).__name__}")


def from_plain(plain: Any, device: torch.device | None = None) -> Any:
    """The value that `to_plain` was given, its tensors on `device`.

    Raises:
        ValueError: the value has a class that this package does not have.
    """
    if isinstance(plain, Tensor):
        return plain.to(device) if device is not None else plain
    if not isinstance(plain, dict):
        return plain
    if GENERATOR in plain:
        generator = torch.Generator()
        generator.set_state(plain[GENERATOR].cpu())
        return generator
    if TUPLE in plain:
        return tuple(from_plain(each, device) for each in plain[TUPLE])
    content = {name: from_plain(each, device) for name, each in plain.items() if name != CLASS}
    return class_named(plain[CLASS])(**content) if CLASS in plain else content


def class_named(name: str) -> Any:
    """A dataclass, by its name, of a module that is loaded already; a checkpoint does not import modules.

    Raises:
        ValueError: there is none.
    """
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module) if module.split(".")[0] == __name__.split(".")[0] else None
    for part in path.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ValueError(f"expected a class of this version of the package, found {name!r}")
    return found
