"""A fully connected network, as a function of one vector of parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.func import grad, vmap

# Points whose derivatives by the parameters are found at once, so that the layers of all of them fit into the caches.
_AT_ONCE = 2048


@dataclass(frozen=True)
class Network:
    """x -> W_L tanh(... tanh(W_1 x + b_1) ...) + b_L.

    The parameters theta (d,) are W_1 row by row, b_1, W_2, ...

    Attributes:
        inputs: k, the number of coordinates.
        layers: the widths of the hidden layers.
        outputs: c, the number of fields.
    """

    inputs: int
    layers: tuple[int, ...]
    outputs: int = 1

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.inputs, *self.layers, self.outputs)

    @property
    def size(self) -> int:
        """d."""
        return sum((a + 1) * b for a, b in pairwise(self.widths))

    def initial(self, seed: int) -> Tensor:
        """(d,) random parameters: weights as in Glorot and Bengio (2010), and offsets for which the steep parts of the
        activations lie all over [-1, 1]."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        found = []
        for a, b in pairwise(self.widths):
            found += [math.sqrt(2.0 / (a + b)) * normal(b, a).reshape(-1), 0.5 * normal(b)]
        return torch.cat(found)

    def fields(self, theta: Tensor, x: Tensor) -> Tensor:
        """The values (..., c) of all fields at points (..., k)."""
        for weights, offsets in self._layers(theta)[:-1]:
            x = torch.tanh(x @ weights.T + offsets)
        weights, offsets = self._layers(theta)[-1]
        return x @ weights.T + offsets

    def _layers(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """W (b, a) and b (b,) of every layer."""
        found, first = [], 0
        for a, b in pairwise(self.widths):
            end = first + a * b
            found.append((theta[first:end].reshape(b, a), theta[end : end + b]))
            first = end + b
        return found

    def values(self, theta: Tensor, x: Tensor, field: Tensor) -> Tensor:
        """(n,) at each point of x (n, k) the field of a number (n,)."""
        return self.fields(theta, x).gather(-1, field[:, None])[:, 0]

    def derivatives(self, theta: Tensor, x: Tensor, field: Tensor) -> Tensor:
        """(n, d) the derivatives of `values` by the parameters."""
        chosen = torch.nn.functional.one_hot(field, self.outputs).to(x.dtype)

        def value(theta: Tensor, x: Tensor, chosen: Tensor) -> Tensor:
            return self.fields(theta, x) @ chosen

        each = vmap(grad(value), (None, 0, 0), chunk_size=_AT_ONCE)
        return each(theta, x, chosen)
