"""A task of machine learning that is ready to be solved: what `load` returns for a file with a `task`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .choice.method import Method, build_method
from .engine.search import outer_space
from .linalg.counts import Counts
from .linalg.memory import available_bytes
from .output.provenance import stamped
from .problem_file.loading import ProblemFile
from .problem_file.room import size_text
from .tasks.base import LearningTask
from .tasks.classification import Classification
from .tasks.splitting import Split, bytes_needed


@dataclass(frozen=True, eq=False)
class TaskProblem:
    """A task that is ready to be solved; the counterpart of `Problem`.

    Attributes:
        file: the checked problem file.
        bilevel: the bilevel problem that the engine solves.
        split: the data.
        method: what `solve` will use.
        seconds: time it took to read and build.
    """

    file: ProblemFile
    bilevel: Classification
    split: Split
    method: Method
    seconds: float
    scenarios: None = None
    population: None = None

    @property
    def task(self) -> LearningTask:
        """The section `task` of the file."""
        spec: Any = self.file.spec
        return spec.task

    @property
    def stages(self) -> tuple[Classification]:
        return (self.bilevel,)

    @property
    def inner_shape(self) -> tuple[int, int]:
        """(1, d)."""
        return self.bilevel.inner_shape

    @property
    def state_unknowns(self) -> int:
        """d, the number of parameters."""
        return self.inner_shape[1]

    @property
    def outer_size(self) -> int:
        return self.bilevel.outer_size

    @property
    def device(self) -> torch.device:
        return self.bilevel.device

    @property
    def form(self) -> str:
        """The name of the classifier."""
        return "softmax regression"

    @property
    def name(self) -> str:
        return self.file.spec.name

    @property
    def counts(self) -> Counts:
        return self.bilevel.counts

    @property
    def notices(self) -> tuple[str, ...]:
        return ()

    def __str__(self) -> str:
        sizes = f"{self.inner_shape[1]:,} parameters of {self.form} and {self.outer_size:,} outer unknowns"
        return f"{self.name}: {sizes}; {self.method.description}"

    def report(self) -> str:
        """What `check` says besides the first line: the data, and the memory."""
        split, (_, d) = self.split, self.inner_shape
        parts = {"training": split.training, "validation": split.validation, "test": split.test}
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
        needed, there = bytes_needed(self.bilevel.classifier, self.split), available_bytes(self.device)
        return (
            f"data: {sizes} examples of {split.training.images.shape[1]:,} pixels in {split.classes} classes\n"
            f"memory: about {size_text(needed)} of {size_text(there)} for {d:,} parameters"
        )

    def _repr_html_(self) -> str:
        """The task in a notebook."""
        from .reports.notebook_views import problem_view

        return problem_view(str(self), "", self.file.dump())

    def yaml(self, folder: Path | None = None) -> str:
        """The resolved problem file, with what made it in comments; `folder` is where it will be, if not beside it."""
        return stamped(self.file.dump() if folder is None else self.file.dump_for(folder))


def build_task(file: ProblemFile) -> TaskProblem:
    """The problem of a file with a `task`.

    Raises:
        ProblemError: data that are missing or wrong, or options that contradict each other.
    """
    start = time.perf_counter()
    spec: Any = file.spec
    for role in ("inner", "curvature"):
        name = getattr(spec.devices, role)
        if name not in ("auto", "cpu"):
            raise file.error(f"devices.{role}", f"expected auto or cpu, where tasks run; found {name!r}")
    bilevel, split = spec.task.build(file)
    method = build_method(file, bilevel.inner_shape, bilevel.device, outer_space(bilevel))
    return TaskProblem(file, bilevel, split, method, time.perf_counter() - start)
