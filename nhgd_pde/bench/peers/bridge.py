"""A bilevel problem as torch's automatic differentiation sees it: what other libraries ask for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ...engine.bilevel import BilevelProblem


def inner_loss(problem: BilevelProblem, u: Tensor, v: Tensor) -> Tensor:
    """A scalar whose first derivative in u and whose second ones are those of the inner objective at (u, v).

    Its value is zero. The second derivatives are exact at the inner solution, where Hessian and Fisher agree.
    """
    return _InnerLoss.apply(u, v, problem)


def outer_loss(problem: BilevelProblem, u: Tensor, v: Tensor) -> Tensor:
    """f(u, v), once differentiable."""
    return _OuterLoss.apply(u, v, problem)


class _InnerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, problem: BilevelProblem) -> Tensor:
        ctx.save_for_backward(u, v)
        ctx.problem = problem
        return u.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        u, v = ctx.saved_tensors
        return outer[0] * _InnerGradient.apply(u, v, ctx.problem), None, None


class _InnerGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, problem: BilevelProblem) -> Tensor:
        ctx.save_for_backward(u, v)
        ctx.problem = problem
        return problem.inner_gradient(u, v)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        u, v = ctx.saved_tensors
        w = outer[0].contiguous()
        by_u = ctx.problem.hessian_product(u, v, w) if ctx.needs_input_grad[0] else None
        by_v = ctx.problem.cross_product(u, v, w) if ctx.needs_input_grad[1] else None
        return by_u, by_v, None


class _OuterLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor, problem: BilevelProblem) -> Tensor:
        ctx.save_for_backward(u, v)
        ctx.problem = problem
        return u.new_tensor(problem.outer_value(u, v))

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None]:
        inner, direct = ctx.problem.outer_derivatives(*ctx.saved_tensors)
        return outer[0] * inner, outer[0] * direct, None


def hessian(problem: BilevelProblem, u: Tensor, v: Tensor) -> Callable[[Tensor], Tensor]:
    """w (S, n) -> H w, which can be transposed by differentiation."""
    return lambda w: _HessianProduct.apply(w, lambda x: problem.hessian_product(u, v, x))


class _HessianProduct(torch.autograd.Function):
    # The form that function transforms such as `vjp` can see through.
    @staticmethod
    def forward(w: Tensor, product: Callable[[Tensor], Tensor]) -> Tensor:
        return product(w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.product = inputs[1]

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        return _HessianProduct.apply(outer[0], ctx.product), None


def load(module: str) -> ModuleType:
    """Import a library without the warnings that it gives about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(module)


def missing(module: str, distribution: str) -> str | None:
    """Why a library cannot be used; None where it can."""
    try:
        load(module)
    except ImportError as error:
        return f"{distribution} cannot be imported: {error}"
    return None


def version(distribution: str) -> str:
    """`torchopt 0.7.3`."""
    return f"{distribution} {metadata.version(distribution)}"
