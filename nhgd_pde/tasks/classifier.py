"""Softmax regression: the logits of images are linear in one vector of parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Classifier:
    """The logits of images are W a + b, with a the pixels; the parameters are the rows of [W, b], class by class.

    Attributes:
        features: f, number of pixels.
        classes: c, number of classes.
    """

    features: int
    classes: int

    @property
    def size(self) -> int:
        """d, number of parameters."""
        return self.classes * (self.features + 1)

    def logits(self, u: Tensor, images: Tensor) -> Tensor:
        """The logits (N, c) of images (N, f) for parameters u (d,)."""
        matrix = u.reshape(self.classes, self.features + 1)
        return images @ matrix[:, :-1].T + matrix[:, -1]

    def example_gradients(self, images: Tensor, errors: Tensor) -> Tensor:
        """J_i^T e_i (N, d) of every image i, for derivatives e (N, c) by its logits."""
        return (errors[:, :, None] * with_constant(images)[:, None, :]).flatten(1)


def with_constant(images: Tensor) -> Tensor:
    """Images (N, f) with the constant input 1 as the last one, (N, f + 1)."""
    return torch.cat([images, images.new_ones(len(images), 1)], 1)
