"""States from far starts: Newton steps judged by the next step, as in the library, or by the norm of the residual.

Prints the table of docs/verification.md: python -m benchmarks.newton
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.bilevel import StateFactors
from nhgd_pde.engine.state_newton import newton
from nhgd_pde.linalg.factorisation import SingularMatrixError
from nhgd_pde.pde_problem import PDEProblem

TOLERANCE, STEPS = 1e-9, 200


@dataclass(frozen=True)
class Factors:
    """Newton directions with the factors of J at u."""

    problem: PDEProblem
    v: Tensor
    u: Tensor
    factors: StateFactors

    def direction(self, u: Tensor, residual: Tensor) -> Tensor:
        return self.factors.solve(residual)

    def belongs(self, u: Tensor) -> bool:
        return torch.equal(u, self.u)

    def renewed(self, u: Tensor) -> Factors:
        return replace(self, u=u, factors=self.problem.state_factors(u, self.v))


def by_the_next_step(problem: PDEProblem, v: Tensor, u: Tensor) -> int | None:
    """The number of steps; None where they do not converge."""
    first = Factors(problem, v, u, problem.state_factors(u, v))
    found = newton(problem, v, u, first, TOLERANCE, STEPS)
    return found.steps if found.error <= TOLERANCE else None


def by_the_residual(problem: PDEProblem, v: Tensor, u: Tensor) -> int | None:
    """The number of steps with new factors in each, which is halved until the dual norm of the residual decreases."""
    norm = problem.inner_metric.dual_norm
    left = norm(problem.residual(u, v))
    for taken in range(1, STEPS + 1):
        d = problem.state_factors(u, v).solve(problem.residual(u, v))
        for k in range(14):
            candidate = u - 0.5**k * d
            reduced = norm(problem.residual(candidate, v))
            if reduced < left:
                break
        else:
            return None
        u, left = candidate, reduced
        if left <= TOLERANCE * problem.inner_length(u, v):
            return taken
    return None


def state(mesh: dict[str, Any], pde: dict[str, Any]) -> PDEProblem:
    """An equation with u = 0 on the boundary; its control and objective have no effect."""
    return nhgd.load(
        {
            "name": "state",
            "mesh": mesh,
            "pde": {**pde, "boundary": {"all": {"dirichlet": 0}}},
            "control": {"kind": "source"},
            "objective": [{"kind": "tracking", "target": 0}, {"kind": "regularisation", "weight": 1}],
        }
    ).pde


def semilinear(nonlinearity: str, source: str, cells: int) -> PDEProblem:
    mesh = {"kind": "rectangle", "size": [1, 1], "cells": [cells, cells]}
    return state(mesh, {"kind": "semilinear", "nonlinearity": nonlinearity, "source": source})


def burgers(viscosity: float, source: str, cells: int = 400) -> PDEProblem:
    """-viscosity u'' + u u' = source on the unit interval, u = 0 at its ends."""
    mesh = {"kind": "interval", "cells": [cells]}
    return state(mesh, {"kind": "burgers", "viscosity": viscosity, "source": source})


EXPONENTIAL = "-lap u + exp(u) = 1e4 sin(pi x) sin(pi y)"
CASES: list[tuple[str, float, Callable[[], PDEProblem]]] = [
    *(
        (EXPONENTIAL, start, lambda: semilinear("exp(u)", "1e4*sin(pi*x)*sin(pi*y)", 64))
        for start in (0.0, 100.0, -100.0)
    ),
    (
        "-lap u + exp(u) - exp(-u) = 1e4 sin(2 pi x) sin(pi y)",
        0.0,
        lambda: semilinear("exp(u) - exp(-u)", "1e4*sin(2*pi*x)*sin(pi*y)", 64),
    ),
    *(
        ("-lap u + u^3 = 1e5 sin(3 pi x) sin(pi y)", start, lambda: semilinear("u**3", "1e5*sin(3*pi*x)*sin(pi*y)", 64))
        for start in (0.0, 100.0)
    ),
    *(("-0.01 u'' + u u' = 1", start, lambda: burgers(0.01, "1")) for start in (0.0, 10.0)),
    ("-0.002 u'' + u u' = 1", -1.0, lambda: burgers(0.002, "1")),
    ("-0.01 u'' + u u' = sin(2 pi x)", 1.0, lambda: burgers(0.01, "sin(2*pi*x)")),
]


def main() -> None:
    print("| equation | first u | by the next step | by the residual |\n|---|---|---|---|")
    for name, start, make in CASES:
        cells = []
        for solve in (by_the_next_step, by_the_residual):
            problem = make()
            u = torch.full(problem.inner_shape, start, dtype=torch.float64)
            before = replace(problem.counts)
            try:
                steps = solve(problem, torch.zeros(problem.outer_size, dtype=u.dtype), u)
            except SingularMatrixError:
                steps = None
            done = problem.counts - before
            work = f" ({done.solves} + {done.factorisations})"
            cells.append(f"{steps}{work}" if steps is not None else f"not found{work}")
        print(f"| {name} | {start:g} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
