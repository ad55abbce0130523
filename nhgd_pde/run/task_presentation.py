"""How the answer of a task is shown: as arrays, and as a picture where it consists of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..engine.loop import Iterate
from ..task_problem import TaskProblem
from ..tasks.classification import Examples
from .answer import Answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .judgement import Judgement
    from .outcome import Outcome


# Largest relative residual of the state and the adjoint with which a task is complete.
_KNOWN = 1e-2


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TaskSolution(Answer):
    """The result of `solve`, for a task.

    Attributes:
        parameters: (d,) the parameters of the classifier that is trained with `control`.
        found: the arrays of result.npz, see the task.
        pictured: the images that are the answer; None for none.
        image_shape: rows and columns of an image.
        iterations: the largest number of outer iterations.
    """

    parameters: np.ndarray
    found: Mapping[str, np.ndarray]
    pictured: Examples | None
    image_shape: tuple[int, ...]
    iterations: int

    @property
    def complete(self) -> bool:
        """A task ends early on purpose: it is complete after all outer iterations if state and adjoint are known."""
        certificate = self.certificate
        known = certificate.state_residual <= _KNOWN and certificate.adjoint_residual <= _KNOWN
        ended = self.status == "stopped" and len(self.history) > self.iterations
        return self.status == "converged" or (ended and known)

    def state_arrays(self) -> Mapping[str, np.ndarray]:
        return {"parameters": self.parameters}

    def arrays(self) -> Mapping[str, np.ndarray]:
        return {**self.found, "v": self.control, "parameters": self.parameters}

    def images(self) -> Figure | None:
        """The images in rows of ten, with their labels."""
        if self.pictured is None or not self._drawn:
            return None
        from ..output.pictures import gallery

        return gallery(self.pictured.images.numpy().reshape(-1, *self.image_shape), self.pictured.labels.numpy())

    @property
    def _drawn(self) -> bool:
        """The images have rows and columns."""
        return len(self.image_shape) == 2

    def where(self, series: bool, picture: bool = False) -> str:
        if self.pictured is None:
            return "result.npz has the answer"
        shown = "images.png shows it" if self._drawn else "a picture needs square images"
        return f"result.npz has the answer, {shown}"


@dataclass(frozen=True, eq=False)
class TaskPresentation:
    """The presentation of a task; iterates are not drawn."""

    problem: TaskProblem

    def frame(self, solved: Any, iterate: Iterate) -> None:
        return None

    def terms(self, solved: Any, iterate: Iterate) -> dict[str, float]:
        return {}

    def entries(self, outcome: Outcome) -> dict[str, Any]:
        """The measures of the task."""
        last = outcome.found.last
        if not last.evaluation.finite:
            return {"measures": {}}
        task, split = self.problem.task, self.problem.split
        return {"measures": task.outcome(self.problem.bilevel, split, last.oracle.u, last.evaluation.v)}

    def answer(self, outcome: Outcome) -> TaskSolution:
        parameters = outcome.found.last.oracle.u[0].numpy()
        return self.answer_of({**outcome.common(), "parameters": parameters}, outcome.solved, outcome.judgement)

    def answer_of(self, values: Mapping[str, Any], solved: Any, judgement: Judgement | None) -> TaskSolution:
        task, split, v = self.problem.task, self.problem.split, torch.from_numpy(values["control"])
        return TaskSolution(
            **values,
            found=task.arrays(split, v),
            pictured=task.pictured(split, v),
            image_shape=split.image_shape,
            iterations=self.problem.file.spec.outer.iterations,
        )
