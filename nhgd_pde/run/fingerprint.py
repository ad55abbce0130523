"""The fingerprint of a problem, by which its checkpoints are recognised: sizes, the mesh, and other files it names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..problem import Problem
from .drawing import output_grid

if TYPE_CHECKING:
    from ..task_problem import TaskProblem


def fingerprint(problem: Problem | TaskProblem) -> dict[str, Any]:
    """Sizes, and checksums of the mesh and of the files that the problem file names."""
    content = {}
    for key, value in problem.file.named_files.items():
        path = problem.file.resolve(value.partition(":")[0])
        if path is not None:
            content[key] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return {
        "state unknowns": list(problem.inner_shape),
        "control unknowns": problem.outer_size,
        **_input(problem),
        "the content of": content,
    }


def _input(problem: Problem | TaskProblem) -> dict[str, str]:
    """The checksum of the mesh, or of the data of a task."""
    if isinstance(problem, Problem):
        grid = output_grid(problem.pde)
        curved = problem.pde.space.domain.curved
        return {"the mesh": _checksum(grid.points, grid.cells, *([] if curved is None else [curved.doflocs]))}
    return {"the data": _checksum(*problem.split.arrays)}


def _checksum(*arrays: np.ndarray) -> str:
    checksum = hashlib.sha256()
    for array in arrays:
        checksum.update(np.ascontiguousarray(array).tobytes())
    return checksum.hexdigest()[:16]


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys whose values differ, with both."""
    old, new = flat(then), flat(now)
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield key, old.get(key), new.get(key)


def within(key: str, names: Iterable[str]) -> bool:
    """Whether a dotted key is one of these, or below one of them."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as values by dotted keys."""
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)  # type: ignore[assignment]
    else:
        return {prefix: value}
    found: dict[str, Any] = {prefix: type(value).__name__} if not value else {}
    for name, each in items:
        found.update(flat(each, f"{prefix}.{name}" if prefix else str(name)))
    return found
