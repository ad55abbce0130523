"""Dense matrices, exact answers and errors for tests of hypergradients."""

from __future__ import annotations

from typing import Any

import torch
from bilevel_problems import Explicit, normal, seeded
from torch import Tensor

from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.reduced_objective import Evaluation

EXACT = Accuracy(0.0, 0.0)


def dense(problem: Explicit, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """K, H (d, d) and the eigenvalues of K^-1 H, ascending."""
    scenarios, n = problem.inner_shape
    gram = problem.inner_metric.covector(torch.eye(n, dtype=torch.float64))
    whole = torch.block_diag(*[gram] * scenarios)
    matrix = torch.stack(
        [
            problem.hessian_product(u, v, column.reshape(scenarios, n)).reshape(-1)
            for column in torch.eye(scenarios * n, dtype=torch.float64)
        ],
        dim=1,
    )
    root = torch.linalg.inv(torch.linalg.cholesky(whole))
    return whole, matrix, torch.linalg.eigvalsh(root @ matrix @ root.T)


def adjoint(problem: Explicit, u: Tensor, v: Tensor) -> Tensor:
    """The solution of H q = df/du at (u, v)."""
    right = problem.outer_derivatives(u, v)[0]
    return torch.linalg.solve(dense(problem, u, v)[1], right.reshape(-1)).reshape(u.shape)


def at(problem: Explicit, oracle: Any, v: Tensor, u: Tensor, times: int = 1) -> tuple[Evaluation, Any]:
    """The last of several evaluations at v that start at u."""
    state = oracle.init(problem, u, v)
    for _ in range(times):
        evaluation, state = oracle.evaluate(problem, v, state, EXACT)
    return evaluation, state


def error(problem: Explicit, evaluation: Evaluation) -> float:
    """Relative error of the hypergradient."""
    exact = problem.exact(evaluation.v)[1]
    return float((evaluation.derivative - exact).norm() / exact.norm())


def solved(problem: Explicit) -> tuple[Tensor, Tensor]:
    """A control v, and u*(v)."""
    v = normal(seeded(7), problem.outer_size)
    return v, problem.solution(v)


def gap(problem: Explicit, v: Tensor) -> float:
    """The norm of the exact gradient at v, relative to the norm at the start."""
    norm = problem.outer_metric.dual_norm
    return norm(problem.exact(v)[1][None]) / norm(problem.exact(problem.start()[1])[1][None])
