"""A task of machine learning that is ready to be solved: what `load` returns for a file with a `task`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from .choice.method import Method, build_method
from .engine.search import outer_space
from .linalg.counts import Counts
from .linalg.memory import available_bytes
from .output.provenance import stamped
from .problem_file.loading import ProblemFile
from .tasks.base import LearningTask
from .tasks.classification import Classification
from .tasks.splitting import Split


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
    def outer_size(self) -> int:
        return self.bilevel.outer_size

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
        d, p = self.inner_shape[1], self.bilevel.outer_size
        return f"{self.name}: {d:,} parameters of {self.bilevel.form} and {p:,} outer unknowns; {self.method.description}"

    def report(self) -> str:
        """What `check` says besides the first line: the data, and the memory."""
        split, (_, d) = self.split, self.inner_shape
        sizes = f"{len(split.training):,} training, {len(split.validation):,} validation, {len(split.test):,} test examples"
        needed, there = bytes_needed(self.bilevel), available_bytes(torch.device("cpu"))
        return (
            f"data: {sizes} of {split.training.images.shape[1]:,} pixels in {split.classes} classes\n"
            f"memory: about {1e-6 * needed:,.0f} MB of {1e-6 * there:,.0f} MB for {d:,} parameters"
        )

    def yaml(self) -> str:
        """The resolved problem file, with what made it in comments."""
        return stamped(self.file.dump())


def bytes_needed(problem: Classification) -> float:
    """A rough bound of the bytes that a run takes: the images, and the smaller matrix of `root_factors` twice."""
    examples, d = problem.training.at(problem.training.start), problem.inner_shape[1]
    rows = len(examples) * problem.classifier.classes
    root = min(rows, d) ** 2 + (rows * d if rows < d else 0)
    return 8.0 * (2.0 * root + 20.0 * d + 4.0 * (examples.images.numel() + problem.validation.images.numel()))


def build_task(file: ProblemFile) -> TaskProblem:
    """The problem of a file with a `task`.

    Raises:
        ProblemError: data that are missing or wrong, or options that contradict each other.
    """
    start = time.perf_counter()
    spec: Any = file.spec
    bilevel, split = spec.task.build(file)
    method = build_method(file, bilevel.inner_shape, bilevel.device, outer_space(bilevel))
    return TaskProblem(file, bilevel, split, method, time.perf_counter() - start)
