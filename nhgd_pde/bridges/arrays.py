"""Vectors of the caller, NumPy arrays or torch tensors, as tensors of a problem, and results in the form of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Form:
    """The kind of array that the caller has given.

    Attributes:
        like: a tensor with the dtype and the device of the caller; None for NumPy.
    """

    like: Tensor | None

    def vector(self, x: Tensor) -> Any:
        """A tensor of the problem as an array that the caller may change."""
        return x.cpu().numpy().copy() if self.like is None else x.to(self.like, copy=True)

    def number(self, x: float) -> Any:
        """A float, or a tensor without dimensions."""
        return x if self.like is None else self.like.new_tensor(x)


def entered(name: str, x: Any, like: Tensor) -> tuple[Tensor, Form]:
    """A vector of the caller as a tensor, and its form.

    Args:
        name: its name in messages.
        x: array, list or tensor (p,).
        like: (p,) a tensor with the dtype and the device of the problem.

    Raises:
        ValueError: x has another shape, or is a tensor whose gradient would be lost.
        TypeError: x has no real numbers.
    """
    if isinstance(x, Tensor):
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{name}: expected a tensor without a gradient, found one that requires it: take "
                f"nhgd.as_torch(problem), through which gradients flow, or give {name}.detach()"
            )
        form, given = Form(x.detach()), x.detach()
    else:
        array = np.asarray(x)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name}: expected real numbers, found an array of {array.dtype}")
        form, given = Form(None), torch.from_numpy(np.array(array, dtype=np.float64))
    if given.shape != like.shape:
        raise ValueError(f"{name}: expected {like.numel():,} numbers in one row, found the shape {tuple(given.shape)}")
    return given.to(like), form
