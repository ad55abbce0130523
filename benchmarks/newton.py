"""States from afar: Newton steps judged by the next step (the library's) and by the dual norm of the residual.

Prints the table of docs/verification.md: python -m benchmarks.newton
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.control import source_control
from nhgd_pde.engine.bilevel import StateFactors
from nhgd_pde.engine.newton import newton
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.spaces import space
from nhgd_pde.inner.model import Observation
from nhgd_pde.inner.residual import residual_model
from nhgd_pde.linalg.factorisation import SingularMatrixError
from nhgd_pde.pde.equation import StateEquation
from nhgd_pde.pde.form import Coefficients, Integral
from nhgd_pde.pde_problem import PDEProblem

TOLERANCE, STEPS = 1e-9, 200


@dataclass(frozen=True)
class Factors:
    """Newton directions by the factors of J at u."""

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
    """Steps taken; None where they lead nowhere."""
    first = Factors(problem, v, u, problem.state_factors(u, v))
    found = newton(problem, v, u, first, TOLERANCE, STEPS)
    return found.steps if found.error <= TOLERANCE else None


def by_the_residual(problem: PDEProblem, v: Tensor, u: Tensor) -> int | None:
    """New factors in every step, which is halved until the dual norm of the residual falls."""
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
        if left <= TOLERANCE * problem.inner_length(u):
            return taken
    return None


def semilinear(nonlinearity: str, source: str, cells: int) -> PDEProblem:
    return nhgd.load(
        {
            "name": "state",
            "mesh": {"kind": "rectangle", "size": [1, 1], "cells": [cells, cells]},
            "pde": {
                "kind": "semilinear",
                "nonlinearity": nonlinearity,
                "source": source,
                "boundary": {"all": {"dirichlet": 0}},
            },
            "control": {"kind": "source"},
            "objective": [{"kind": "tracking", "target": 0}, {"kind": "regularisation", "weight": 1}],
        }
    ).pde


def burgers(viscosity: float, source: Callable[[Tensor], Tensor], cells: int = 400) -> PDEProblem:
    """-viscosity u'' + u u' = source on the unit interval, u = 0 at its ends."""

    def form(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
        return u * grad[0] - c["source"], viscosity * grad

    state = space(meshes.domain(meshes.interval(cells=cells)), "P1", torch.device("cpu"))
    x = torch.as_tensor(np.asarray(state.cells.quadrature.x)).reshape(-1)
    coefficients = {"source": source(x), "gain": torch.ones_like(x)}
    ends = np.union1d(*(state.facet_dofs(state.domain.boundaries[name]) for name in ("left", "right")))
    equation = StateEquation(
        integrals=(Integral(state.cells, form, coefficients, source_control, state.cells),),
        size=state.size,
        controls=state.size,
        free=np.setdiff1d(np.arange(state.size), ends),
        lift=torch.zeros(state.size, dtype=x.dtype),
    )
    model = residual_model(state, equation, Observation())
    return PDEProblem("burgers", state, equation, None, None, model)  # type: ignore[arg-type]


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
    *(("-0.01 u'' + u u' = 1", start, lambda: burgers(0.01, torch.ones_like)) for start in (0.0, 10.0)),
    ("-0.002 u'' + u u' = 1", -1.0, lambda: burgers(0.002, torch.ones_like)),
    ("-0.01 u'' + u u' = sin(2 pi x)", 1.0, lambda: burgers(0.01, lambda x: torch.sin(2 * math.pi * x))),
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
                steps = solve(problem, torch.zeros(problem.equation.controls, dtype=u.dtype), u)
            except SingularMatrixError:
                steps = None
            done = problem.counts - before
            work = f" ({done.solves} + {done.factorisations})"
            cells.append(f"{steps}{work}" if steps is not None else f"not found{work}")
        print(f"| {name} | {start:g} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
