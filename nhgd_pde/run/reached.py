"""The last iterate of a run, from its checkpoint or its saved solution, without its problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..output.names import CHECKPOINT, SOLUTION
from ..output.sealed import read_sealed
from ..output.storage import OutputError
from .checkpoint import origin_of
from .saved_solution import read_saved

if TYPE_CHECKING:
    from ..problem import Problem
    from ..task_problem import TaskProblem


@dataclass(frozen=True)
class Reached:
    """The iterate of a checkpoint.

    Attributes:
        v: (p,) its control.
        u: (S, n) its state; None where the method saves it in another form.
        iteration: its number, counted from the beginning of the run.
        origin: by what the run is recognised, see `origin_of`.
    """

    v: torch.Tensor
    u: torch.Tensor | None
    iteration: int
    origin: Mapping[str, Any]

    def has_mesh_of(self, problem: Problem | TaskProblem) -> bool:
        """Whether the run had the mesh of a problem, maybe of another size or at another place."""
        ours, theirs = origin_of(problem), self.origin
        sections = [dict(each["spec"].get("mesh", {}), size=None, origin=None) for each in (ours, theirs)]
        checksums = [each["fingerprint"].get("the mesh") for each in (ours, theirs)]
        return sections[0] == sections[1] or checksums[0] == checksums[1]


def read_reached(folder: Path) -> Reached | None:
    """The last iterate that a run has written down, or that of a saved solution; None where there is neither.

    Raises:
        OutputError: the checkpoint or the saved solution is damaged, or of another version of the package.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return _saved(folder / SOLUTION)
    content = read_sealed(path)
    try:
        current, state = content["current"], content["state"]
        v, iteration = current["evaluation"]["v"], int(current["iteration"]) + int(content["before"])
        u = _state_of(state)
        origin = {part: dict(content[part]) for part in ("spec", "fingerprint")}
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{path}: the checkpoint is of another version of the package ({error})") from error
    if not isinstance(v, torch.Tensor):
        raise OutputError(f"{path}: expected the control of the last iterate, found {type(v).__name__}")
    return Reached(v, u, iteration, origin)


def _saved(path: Path) -> Reached | None:
    if not path.is_file():
        return None
    saved = read_saved(path)
    # The state is that with given values, from which not every family gets back its unknowns to the last digit.
    return Reached(torch.from_numpy(saved.common["control"]), None, saved.iteration, saved.origin)


def _state_of(saved: Any) -> torch.Tensor | None:
    """The state in the saved data of an oracle; over scenarios the state of the nominal problem."""
    if isinstance(saved, list) and saved:
        return _state_of(saved[0])
    if not isinstance(saved, dict):
        return None
    for key in ("nominal", "state", "inner"):
        found = _state_of(saved.get(key))
        if found is not None:
            return found
    u = saved.get("u")
    return u if isinstance(u, torch.Tensor) else None
