"""First and second derivatives of numbers by tensors, with torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradient_of(total: Callable[..., Tensor], arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The derivatives of a number by its arguments, zero where it does not depend on them."""
    with torch.enable_grad():
        at = leaves(arguments)
        value = total(*at)
        if not value.requires_grad:
            return tuple(torch.zeros_like(each) for each in at)
        return torch.autograd.grad(value, at, materialize_grads=True)


def leaves(arguments: Sequence[Tensor]) -> list[Tensor]:
    """Copies of tensors by which derivatives can be taken."""
    return [each.detach().clone().requires_grad_(True) for each in arguments]


def gradient_along(total: Tensor, at: Sequence[Tensor], steps: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The derivative of the gradient of a number in a direction; None where it vanishes.

    Reverse mode is used twice, because the first use of forward mode imports torch's compiler.

    Args:
        total: a number that was computed from `at` with gradients enabled.
        at: the tensors of the gradient.
        steps: the direction, which broadcasts to the shapes of `at`.
    """
    with torch.enable_grad():
        if not total.requires_grad:
            return (None,) * len(at)
        first = torch.autograd.grad(total, at, create_graph=True, allow_unused=True)
        parts = [(g * step).sum() for g, step in zip(first, steps, strict=True) if g is not None]
        along = sum(parts[1:], parts[0])
        if not along.requires_grad:
            return (None,) * len(at)
        return torch.autograd.grad(along, at, allow_unused=True)
