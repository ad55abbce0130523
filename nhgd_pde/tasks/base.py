"""The base of tasks. The files of tasks import torch, and modules that need it, inside functions only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from ..problem_file.catalogue import METHODS, found_at
from ..problem_file.fields import Number, Section, expectation
from ..problem_file.mesh_spec import Count

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..problem_file.loading import ProblemFile
    from .classification import Classification, Examples
    from .splitting import Split


class IdxFiles(Section):
    """Two IDX files, as MNIST and FashionMNIST have them."""

    images: str = Field(min_length=1, description="The file of images, such as train-images-idx3-ubyte.gz.")
    labels: str = Field(min_length=1, description="The file of labels, such as train-labels-idx1-ubyte.gz.")


def _data(value: object) -> object:
    """A name as it is, and a mapping as `IdxFiles`, whose messages name its keys."""
    if isinstance(value, Mapping):
        return IdxFiles.model_validate(value)
    if isinstance(value, IdxFiles) or (isinstance(value, str) and value):
        return value
    raise expectation("digits, mnist, a .npz file, or a mapping with images and labels", value)


class LearningTask(Section):
    """The base of tasks: a section `task` in a problem file, which can build its bilevel problem.

    Attributes:
        defaults: values of other sections that the task has in place of the usual defaults.
    """

    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    data: Annotated[str | IdxFiles, BeforeValidator(_data)] = Field(
        description="Labelled images: digits, mnist, a .npz file with arrays images and labels, or a mapping of two "
        "IDX files with images and labels."
    )
    training: Count = Field(default=1000, description="Number of training examples.")
    validation: Count = Field(default=400, description="Number of examples of the outer objective.")
    ridge: Annotated[float, Number(above=0)] = Field(
        default=0.01, description="Weight lambda of lambda/2 times the squared length of the classifier's parameters."
    )

    def build(self, file: ProblemFile) -> tuple[Classification, Split]:
        """The bilevel problem, and the data that it is made of.

        Raises:
            ProblemError: data that are missing, or too few.
        """
        raise NotImplementedError

    def outcome(self, problem: Classification, split: Split, u: Tensor, v: Tensor) -> dict[str, float]:
        """Measures of an answer besides the objective, for the summary."""
        return {"test_accuracy": problem.accuracy(u, split.test)} if len(split.test) else {}

    def arrays(self, split: Split, v: Tensor) -> dict[str, np.ndarray]:
        """The answer as arrays, for result.npz."""
        raise NotImplementedError

    def pictured(self, split: Split, v: Tensor) -> Examples | None:
        """The images that are drawn; None for none."""
        return None

    def options(self, file: ProblemFile) -> dict[str, Any]:
        """Further arguments of `Classification.of`, from other sections of the file."""
        spec = file.spec
        stochastic = spec.method in METHODS and found_at(METHODS[spec.method]).stochastic
        return {"scores": spec.curvature.scores, "drawn": stochastic or spec.inner.optimiser == "sgd"}
