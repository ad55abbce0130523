"""Reading the data of a task, and splitting them into training, validation and test examples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..linalg.memory import available_bytes
from ..problem_file.room import size_text
from .base import IdxFiles
from .classification import Examples
from .classifier import Classifier
from .data_sets import DataError, arrays, idx_files, packaged

if TYPE_CHECKING:
    import numpy as np

    from ..problem_file.loading import ProblemFile
    from .base import LearningTask

PACKAGED = ("digits", "mnist")


@dataclass(frozen=True)
class Split:
    """The data of a task, shuffled and split.

    Attributes:
        training, validation, test: the examples; all that are left over are for the test.
        wrong: (N,) truth values: the labels of the training examples that were replaced.
        order: the numbers of all examples in the data, in the order of training, validation and test.
        classes: number of classes.
        image_shape: rows and columns of square images; else the number of pixels.
        generator: source of further random numbers.
    """

    training: Examples
    validation: Examples
    test: Examples
    wrong: Tensor
    order: Tensor
    classes: int
    image_shape: tuple[int, ...]
    generator: torch.Generator

    def classifier(self, file: ProblemFile) -> Classifier:
        """The classifier of the images.

        Raises:
            ProblemError: it does not fit into memory.
        """
        found, memory = Classifier(self.training.images.shape[1], self.classes), file.spec.devices.memory
        needed = bytes_needed(found, self)
        there = available_bytes(torch.device("cpu")) if memory == "auto" else float(memory)
        if needed > there:
            sizes = f"{found.size:,} parameters and {len(self.training):,} training images"
            message = f"{sizes} take about {size_text(needed)}, there are {size_text(there)}"
            raise file.error("task.training", f"{message}; expected fewer or smaller images")
        return found

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The images and labels that a run uses, by which its checkpoints are recognised."""
        parts = self.training, self.validation, self.test
        return tuple(array.numpy() for each in parts for array in (each.images, each.labels))

    def labels_of(self, per_class: int) -> Tensor:
        """The labels (classes per_class,) of images that are ordered by class."""
        return torch.arange(self.classes).repeat_interleave(per_class)


def bytes_needed(classifier: Classifier, split: Split) -> float:
    """A rough bound of the bytes that a run takes: images, vectors, and twice the smaller matrix of `root_factors`."""
    d, rows = classifier.size, len(split.training) * classifier.classes
    root = min(rows, d) ** 2 + (rows * d if rows < d else 0)
    examples = len(split.training) + len(split.validation) + len(split.test)
    return 8.0 * (2.0 * root + 20.0 * d + 4.0 * examples * classifier.features)


def split_data(task: LearningTask, file: ProblemFile) -> Split:
    """The data of a task, shuffled by the seed of the file.

    Raises:
        ProblemError: at `task.data` or the number of examples.
    """
    images, labels = (torch.from_numpy(each) for each in _read(task, file))
    wanted = task.training + task.validation
    if wanted > len(labels):
        found = f"{task.training:,} + {task.validation:,} = {wanted:,}"
        raise file.error("task.training", f"expected at most {len(labels):,} with task.validation, found {found}")
    generator = torch.Generator().manual_seed(file.spec.seed)
    order = torch.randperm(len(labels), generator=generator)
    whole, pixels = Examples(images, labels), images.shape[1]
    training, validation, test = (whole.subset(part) for part in torch.tensor_split(order, (task.training, wanted)))
    side = math.isqrt(pixels)
    return Split(
        training,
        validation,
        test,
        wrong=torch.zeros(task.training, dtype=torch.bool),
        order=order,
        classes=int(labels.max()) + 1,
        image_shape=(side, side) if side * side == pixels else (pixels,),
        generator=generator,
    )


def with_wrong_labels(split: Split, share: float) -> Split:
    """The data with a share of the training labels replaced by another class, drawn at random."""
    count, training = round(share * len(split.training)), split.training
    chosen = torch.randperm(len(training), generator=split.generator)[:count]
    moved = torch.randint(1, split.classes, (count,), generator=split.generator)
    labels, wrong = training.labels.clone(), split.wrong.clone()
    labels[chosen] = (labels[chosen] + moved) % split.classes
    wrong[chosen] = True
    return replace(split, training=replace(training, labels=labels), wrong=wrong)


def some_of_every_class(split: Split, count: int, noise: bool, file: ProblemFile) -> Examples:
    """A number of training examples of every class, ordered by class; or uniform noise in their place.

    Raises:
        ProblemError: a class has too few.
    """
    labels = split.labels_of(count)
    if noise:
        shape = len(labels), split.training.images.shape[1]
        return Examples(torch.rand(shape, generator=split.generator, dtype=torch.float64), labels)
    numbers = []
    for label in range(split.classes):
        own = torch.nonzero(split.training.labels == label)[:, 0]
        if len(own) < count:
            message = (
                f"expected at most {len(own):,}, the number of training examples of class {label}, found {count:,}"
            )
            raise file.error("task.images_per_class", message)
        numbers.append(own[:count])
    return Examples(split.training.images[torch.cat(numbers)], labels)


def _read(task: LearningTask, file: ProblemFile) -> tuple[np.ndarray, np.ndarray]:
    data = task.data
    try:
        if isinstance(data, IdxFiles):
            return idx_files(_path(file, "task.data.images", data.images), _path(file, "task.data.labels", data.labels))
        if data in PACKAGED:
            return packaged(data)
        return arrays(_path(file, "task.data", data))
    except DataError as error:
        raise file.error("task.data", str(error)) from error


def _path(file: ProblemFile, key: str, name: str) -> Path:
    path = file.resolve(name)
    if path is None:
        words = f"{', '.join(PACKAGED)} or a .npz file" if key == "task.data" else "an IDX file"
        raise file.error(
            key, f"expected {words}, found nothing at {name!r}; nothing is downloaded: put it beside the problem file"
        )
    return path
