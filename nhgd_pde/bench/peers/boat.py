"""BOAT: its conjugate-gradient hypergradient through one gradient step of the inner problem."""

from __future__ import annotations

import torch
from torch import Tensor

from ...engine.bilevel import BilevelProblem
from .bridge import inner_loss, load, outer_loss

MODULE = "boat_torch.utils.op_utils"
NAME = "boat-torch"
SETTING = "conjugate_gradient, inner step 1, tolerance 1e-14 of the right-hand side"
NOTE = "returns the iterate before the one that converged; its solvers then turn NaN gradients into zeros"


def hypergradient(problem: BilevelProblem, u: Tensor, v: Tensor, steps: int) -> Tensor:
    """The hypergradient (p,) after at most some steps."""
    operations = load(MODULE)
    tolerance = 1e-14 * float(problem.outer_derivatives(u, v)[0].norm())
    u, v = u.detach().requires_grad_(), v.detach().requires_grad_()

    def step(parameters: list[Tensor], loss: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        return [parameter - gradient for parameter, gradient in zip(parameters, gradients, strict=True)]

    upper, lower = outer_loss(problem, u, v), inner_loss(problem, u, v)
    found = operations.conjugate_gradient([u], [v], upper, lower, steps, step, tolerance)
    return found[0].detach()
