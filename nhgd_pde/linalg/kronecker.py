"""Inverses of Kronecker-factored curvature, one block per layer of a network.

The parameters of a layer with g outputs and a inputs are the matrix [W, b] (g, a), row by row, whose last input is the
constant one if there is a bias. In this order the block of a layer with the second moments A (a, a) of its inputs and G
(g, g) of the derivatives by its outputs is

    G kron A + lambda I,     (G kron A) vec(X) = vec(G X A).

With A = U diag(s) U^T and G = V diag(t) V^T its inverse divides the entries of V^T X U by t_i s_j + lambda. Martens and
Grosse 2015 (arXiv 1503.05671, section 6.3) split the damping between the factors instead,

    (G + sqrt(lambda) / pi I) kron (A + pi sqrt(lambda) I),     pi^2 = (tr A / a) / (tr G / g),

for which they need no eigenvalues. The divisors are then (t_i + sqrt(lambda) / pi) (s_j + pi sqrt(lambda)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from .factorisation import SingularMatrixError

Damping = Literal["whole", "split"]


@dataclass(frozen=True)
class KroneckerBlock:
    """The block of one layer in the eigenvectors of its factors.

    Attributes:
        inputs: (a, a) eigenvectors U of A, in columns.
        outputs: (g, g) eigenvectors V of G, in columns.
        values: (g, a) eigenvalues of the damped block, positive: those below the rounding errors of the largest one are
            raised to these, as they are not known.
    """

    inputs: Tensor
    outputs: Tensor
    values: Tensor

    @classmethod
    def of(cls, inputs: Tensor, outputs: Tensor, damping: float, kind: Damping = "split") -> Self:
        """The block with the factors A (a, a) and G (g, g), symmetric and positive semidefinite, and lambda = damping.

        Args:
            kind: `whole` adds lambda to the product of the factors, `split` shares it between them.

        Raises:
            SingularMatrixError: a factor is not finite, or the damped block is zero.
        """
        s, a_axes = _eigen(inputs)
        t, g_axes = _eigen(outputs)
        if kind == "whole":
            values = t[:, None] * s + damping
        else:
            root, share = math.sqrt(damping), _share(inputs, outputs)
            values = (t + root / share)[:, None] * (s + root * share)
        largest = float(values.max())
        if not 0.0 < largest < math.inf:
            raise SingularMatrixError(f"the eigenvalues of a Kronecker-factored block are at most {largest:.1e}")
        return cls(a_axes, g_axes, values.clamp(min=max(values.shape) * torch.finfo(values.dtype).eps * largest))

    @property
    def size(self) -> int:
        """g a, number of parameters."""
        return self.values.numel()

    def mapped(self, x: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """x (..., g a) with a function of the coefficients (..., g, a) in the eigenvectors and of `values`."""
        matrix = x.reshape(*x.shape[:-1], *self.values.shape)
        found = function(self.outputs.mT @ matrix @ self.inputs, self.values)
        return (self.outputs @ found @ self.inputs.mT).reshape(x.shape)


@dataclass(frozen=True)
class KroneckerBlocks:
    """A block-diagonal matrix B, one `KroneckerBlock` per layer, in the order of the parameters.

    Attributes:
        blocks: the blocks.
    """

    blocks: tuple[KroneckerBlock, ...]

    @classmethod
    def of(cls, layers: Sequence[tuple[Tensor, Tensor]], damping: float, kind: Damping = "split") -> Self:
        """The matrix of layers with the factors (A (a, a), G (g, g)) of their inputs and outputs.

        Args:
            layers: the factors, in the order of the parameters.
            damping: lambda >= 0.
            kind: see `KroneckerBlock.of`.

        Raises:
            ValueError: a negative damping, or factors that are not square matrices.
            SingularMatrixError: a factor is not finite, or a damped block is zero.
        """
        if not damping >= 0.0:
            raise ValueError(f"damping: expected a number of at least 0, found {damping!r}")
        for k, layer in enumerate(layers):
            for name, factor in zip(("inputs", "outputs"), layer, strict=True):
                if factor.ndim != 2 or factor.shape[0] != factor.shape[1]:
                    raise ValueError(f"layer {k}, {name}: expected a square matrix, found {tuple(factor.shape)}")
        return cls(tuple(KroneckerBlock.of(*layer, damping, kind) for layer in layers))

    @property
    def size(self) -> int:
        """d, number of parameters."""
        return sum(block.size for block in self.blocks)

    def solve(self, x: Tensor) -> Tensor:
        """B^-1 x for x (..., d)."""
        return self._mapped(x, torch.div)

    def multiply(self, x: Tensor) -> Tensor:
        """B x for x (..., d)."""
        return self._mapped(x, torch.mul)

    def _mapped(self, x: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        parts = x.split([block.size for block in self.blocks], dim=-1)
        found = [block.mapped(part, function) for block, part in zip(self.blocks, parts, strict=True)]
        return torch.cat(found, dim=-1)

    def __str__(self) -> str:
        shapes = ", ".join(" x ".join(f"{n:,}" for n in block.values.shape) for block in self.blocks)
        return f"{self.size:,} parameters in layers of {shapes}"


def _eigen(factor: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (n,), those below zero by rounding set to zero, and eigenvectors (n, n) of a symmetric factor."""
    if not bool(torch.isfinite(factor).all()):
        raise SingularMatrixError("a Kronecker factor is not finite")
    values, axes = torch.linalg.eigh(0.5 * (factor + factor.mT))
    return values.clamp(min=0.0), axes


def _share(inputs: Tensor, outputs: Tensor) -> float:
    """pi; one where a factor is zero."""
    mean_a, mean_g = (float(factor.diagonal().mean()) for factor in (inputs, outputs))
    return math.sqrt(mean_a / mean_g) if mean_a > 0.0 and mean_g > 0.0 else 1.0
