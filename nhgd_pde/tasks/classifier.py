"""Classifiers: softmax regression, and fully connected networks with a softmax at the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Classifier:
    """The logits of images, as a function of one vector of parameters.

    Layer k maps its inputs a to W_k a + b_k; between two layers stands tanh. Without hidden layers this is softmax
    regression. A row of [W_k, b_k] belongs to one output, and the parameters are these rows, layer by layer.

    Attributes:
        features: f, number of inputs.
        classes: c, number of classes.
        hidden: sizes of the hidden layers.
    """

    features: int
    classes: int
    hidden: tuple[int, ...] = ()

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """The shapes of [W_k, b_k]: number of outputs, and of inputs with the constant input 1."""
        return tuple((outputs, inputs + 1) for inputs, outputs in pairwise((self.features, *self.hidden, self.classes)))

    @property
    def size(self) -> int:
        """d, number of parameters."""
        return sum(math.prod(shape) for shape in self.layers)

    @property
    def linear(self) -> bool:
        """The logits are linear in the parameters, so that the Fisher information is the Hessian."""
        return not self.hidden

    def matrices(self, u: Tensor) -> Iterator[Tensor]:
        """The matrices [W_k, b_k] of the parameters u (d,)."""
        for shape, part in zip(self.layers, u.split([math.prod(shape) for shape in self.layers]), strict=True):
            yield part.reshape(shape)

    def logits(self, u: Tensor, images: Tensor) -> Tensor:
        """The logits (N, c) of images (N, f) for parameters u (d,)."""
        values = images
        for k, matrix in enumerate(self.matrices(u)):
            values = values.tanh() if k else values
            values = values @ matrix[:, :-1].T + matrix[:, -1]
        return values

    def start(self, generator: torch.Generator) -> Tensor:
        """First parameters (d,): zero for softmax regression, whose losses are convex; else Glorot's random ones."""
        if self.linear:
            return torch.zeros(self.size, dtype=torch.float64)
        parts = []
        for outputs, inputs in self.layers:
            limit = math.sqrt(6.0 / (inputs - 1 + outputs))
            weights = limit * (2.0 * torch.rand(outputs, inputs - 1, generator=generator, dtype=torch.float64) - 1.0)
            parts.append(torch.cat([weights, torch.zeros(outputs, 1, dtype=torch.float64)], 1).reshape(-1))
        return torch.cat(parts)

    def inputs(self, u: Tensor, images: Tensor) -> list[Tensor]:
        """The inputs (N, inputs + 1) of every layer, the constant input 1 last."""
        one = images.new_ones(len(images), 1)
        found = [torch.cat([images, one], 1)]
        for matrix in list(self.matrices(u))[:-1]:
            found.append(torch.cat([(found[-1] @ matrix.T).tanh(), one], 1))
        return found

    def errors(self, u: Tensor, inputs: list[Tensor], outputs: Tensor) -> list[Tensor]:
        """The derivatives (N, outputs) by the outputs of every layer, for those by the logits (N, c)."""
        found = [outputs]
        for matrix, values in zip(list(self.matrices(u))[:0:-1], inputs[:0:-1], strict=True):
            found.append((found[-1] @ matrix[:, :-1]) * (1.0 - values[:, :-1].square()))
        return found[::-1]

    def example_gradients(self, u: Tensor, images: Tensor, outputs: Tensor) -> Tensor:
        """J_i^T e_i (N, d) of every image i, for derivatives e (N, c) by its logits."""
        inputs = self.inputs(u, images)
        layers = zip(self.errors(u, inputs, outputs), inputs, strict=True)
        return torch.cat([(e[:, :, None] * a[:, None, :]).flatten(1) for e, a in layers], 1)
