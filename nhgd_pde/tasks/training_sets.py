"""Training sets as functions of the outer variables."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .classification import Examples


@dataclass(frozen=True)
class WeightedExamples:
    """Training examples whose losses have the weights sigmoid(v_i): one outer variable per example."""

    examples: Examples

    @property
    def start(self) -> Tensor:
        """Zeros (N,): all weights are one half."""
        return torch.zeros(len(self.examples), dtype=torch.float64)

    def at(self, v: Tensor) -> Examples:
        return Examples(self.examples.images, self.examples.labels, v.sigmoid())


@dataclass(frozen=True)
class TunedImages:
    """Training images whose pixels are the outer variables, image by image; their labels are fixed.

    Attributes:
        first: the images to start from.
    """

    first: Examples

    @property
    def start(self) -> Tensor:
        """(N f,) the pixels of the first images."""
        return self.first.images.reshape(-1).clone()

    def at(self, v: Tensor) -> Examples:
        return Examples(v.reshape(self.first.images.shape), self.first.labels)
