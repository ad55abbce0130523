"""The control that a run starts from in place of that of the file: what it has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..problem import Problem
    from ..task_problem import TaskProblem


def checked_start(problem: Problem | TaskProblem, initial: np.ndarray) -> Tensor:
    """The control (p,) as a tensor.

    Raises:
        ProblemError: it has another length or type, a value that is not finite, or the method searches for its start.
    """
    if problem.population is not None:
        raise problem.file.error("method", "expected a method that starts from one control, found 'hpm'")
    try:
        values = np.array(initial, dtype=float)
    except (TypeError, ValueError):
        raise problem.file.error("initial", f"expected numbers, found {type(initial).__name__}") from None
    if values.shape != (problem.outer_size,):
        shape = "x".join(map(str, values.shape)) or "one number"
        raise problem.file.error("initial", f"expected ({problem.outer_size},) values of the control, found {shape}")
    if not np.isfinite(values).all():
        raise problem.file.error("initial", "expected finite values, found one that is not")
    return torch.from_numpy(values)
