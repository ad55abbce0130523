"""Data distillation: a few images per class are tuned so that a model trained on them alone does well on real data.

Wang, Zhu, Torralba, Efros 2018 (arXiv 1811.10959). The outer loss is that of the training examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ..problem_file.mesh_spec import Count, Natural
from .base import LearningTask

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..problem_file.loading import ProblemFile
    from .classification import Classification, Examples
    from .splitting import Split


class DataDistillation(LearningTask):
    """Tune the pixels of a few images per class, from which a model is trained, on all training examples."""

    defaults: ClassVar = {"outer": {"method": "adam", "step": 0.05, "iterations": 100}}

    kind: Literal["data_distillation"]
    validation: Natural = Field(default=0, description="Number of examples that are left out; the test takes the rest.")
    images_per_class: Count = Field(default=5, description="Number of images of every class.")
    start: Literal["real", "noise"] = Field(
        default="real", description="The first images: training examples drawn at random, or uniform noise."
    )

    def build(self, file: ProblemFile) -> tuple[Classification, Split]:
        from .classification import Classification
        from .splitting import some_of_every_class, split_data
        from .training_sets import TunedImages

        split = split_data(self, file)
        first = some_of_every_class(split, self.images_per_class, self.start == "noise", file)
        problem = Classification.of(
            split.classifier(file), TunedImages(first), split.training, self.ridge, **self.options(file)
        )
        return problem, split

    def outcome(self, problem: Classification, split: Split, u: Tensor, v: Tensor) -> dict[str, float]:
        """The accuracy on the test examples, and that of a model trained on the first images."""
        found = super().outcome(problem, split, u, v)
        if found:
            found["test_accuracy_first"] = problem.accuracy(problem.trained(problem.training.start), split.test)
        return found

    def arrays(self, split: Split, v: Tensor) -> dict[str, np.ndarray]:
        """The images and their labels, in the shape of the data."""
        labels = split.labels_of(self.images_per_class)
        return {"images": v.reshape(len(labels), *split.image_shape).numpy(), "labels": labels.numpy()}

    def pictured(self, split: Split, v: Tensor) -> Examples | None:
        from .classification import Examples

        labels = split.labels_of(self.images_per_class)
        return Examples(v.reshape(len(labels), -1), labels)
