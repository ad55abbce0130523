"""Data cleaning: weights of training examples, some of which have wrong labels, are tuned on clean validation data.

Franceschi, Frasconi, Salzo, Grazzi, Pontil 2018 (arXiv 1806.04910) call it hyper-cleaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..problem_file.fields import Number
from .base import LearningTask

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..problem_file.loading import ProblemFile
    from .classification import Classification
    from .splitting import Split


class DataCleaning(LearningTask):
    """Tune the weights sigmoid(v_i) of training examples on validation examples whose labels are right."""

    defaults: ClassVar = {"outer": {"method": "adam", "step": 0.3, "iterations": 60}}

    kind: Literal["data_cleaning"]
    wrong_labels: Annotated[float, Number(least=0, below=1)] = Field(
        default=0.5, description="Share of the training examples whose label is replaced by another one, at random."
    )

    def build(self, file: ProblemFile) -> tuple[Classification, Split]:
        from .classification import Classification
        from .splitting import split_data, with_wrong_labels
        from .training_sets import WeightedExamples

        split = with_wrong_labels(split_data(self, file), self.wrong_labels)
        problem = Classification.of(
            split.classifier(file),
            WeightedExamples(split.training),
            split.validation,
            self.ridge,
            **self.options(file),
        )
        return problem, split

    def outcome(self, problem: Classification, split: Split, u: Tensor, v: Tensor) -> dict[str, float]:
        """The accuracy on the test examples, and how well the weights tell right labels from wrong ones."""
        from .measures import auroc

        found = super().outcome(problem, split, u, v)
        if 0 < int(split.wrong.sum()) < len(split.wrong):
            found["auroc"] = auroc(v, ~split.wrong)
        return found

    def arrays(self, split: Split, v: Tensor) -> dict[str, np.ndarray]:
        """Of every training example its weight, its label, whether that is wrong, and its number in the data."""
        return {
            "weights": v.sigmoid().numpy(),
            "labels": split.training.labels.numpy(),
            "wrong": split.wrong.numpy(),
            "examples": split.order[: len(split.training)].numpy(),
        }
