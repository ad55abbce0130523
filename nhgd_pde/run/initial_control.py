"""The control that a run starts from in place of that of the file: what it has to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..output.run_folder import OutputError, read_ended
from .answer import Answer
from .reached import read_reached

if TYPE_CHECKING:
    from ..problem import Problem
    from ..task_problem import TaskProblem

_OTHER_MESH = "from another mesh, name a field of final.vtu under data, and that name under control.initial"


@dataclass(frozen=True, eq=False)
class Start:
    """Where a run starts in place of the start of the file.

    Attributes:
        v: (p,) the control.
        u: (1, n) an estimate of its state; None where it is not known.
        gradient_norm: the norm of the gradient at the start of the file, to which `outer.rtol` is relative; 0 where it
            has to be evaluated.
    """

    v: Tensor
    u: Tensor | None = None
    gradient_norm: float = 0.0


def checked_start(problem: Problem | TaskProblem, initial: np.ndarray | Answer | str | Path | Start) -> Start:
    """The start with a control (p,): an array, that of a solution, or that at the end of the run in a folder.

    Raises:
        ProblemError: it has another length or type, a value that is not finite, or the method searches for its start.
        OutputError: the folder is not that of a run that has ended.
    """
    if isinstance(initial, Start):
        return initial
    if isinstance(initial, str | Path):
        read_ended(initial)
        reached = read_reached(Path(initial))
        if reached is None:
            raise OutputError(f"{initial}: expected the checkpoint of a run, found none")
        if reached.v.numel() == problem.outer_size and not reached.has_mesh_of(problem):
            message = f"expected a run on the mesh of this problem, found another one in {initial}; {_OTHER_MESH}"
            raise problem.file.error("initial", message)
        initial = reached.v.cpu().numpy()
    elif isinstance(initial, Answer):
        initial = initial.control
    if problem.population is not None:
        raise problem.file.error("method", "expected a method that starts from one control, found 'hpm'")
    try:
        if np.iscomplexobj(initial):
            raise TypeError
        values = np.array(initial, dtype=float)
    except (TypeError, ValueError):
        raise problem.file.error("initial", f"expected real numbers, found {_described(initial)}") from None
    if values.shape != (problem.outer_size,):
        shape = "x".join(map(str, values.shape)) or "one number"
        message = f"expected ({problem.outer_size},) values of the control, found {shape}; {_OTHER_MESH}"
        raise problem.file.error("initial", message)
    if not np.isfinite(values).all():
        raise problem.file.error("initial", "expected finite values, found one that is not")
    return Start(torch.from_numpy(values))


def _described(value: object) -> str:
    return f"an array of the type {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
