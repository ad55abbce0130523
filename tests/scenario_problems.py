"""Problems over scenarios, made by hand: a deterministic problem with other coefficients in every scenario."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.objective.risk import Mean, Risk
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.scenario_problem import ScenarioProblem


def scenarios_of(
    nominal: PDEProblem, factors: Tensor, weights: Tensor | None = None, risk: Risk | None = None, at_once: int = 16
) -> ScenarioProblem:
    """Scenarios whose conductivity is that of the nominal problem times factors (S, P) or (S, 1)."""
    equation = nominal.equation
    control = equation.constant_linearisation.control.direct if equation.affine else None

    def make(z: np.ndarray, numbers: np.ndarray) -> PDEProblem:
        first, *others = equation.integrals
        conductivity = first.coefficients["conductivity"] * factors[torch.from_numpy(numbers)]
        integrals = (replace(first, coefficients={**first.coefficients, "conductivity": conductivity}), *others)
        some = replace(equation, integrals=integrals, scenarios=len(z), known_control=control)
        return replace(nominal, equation=some, model=replace(nominal.model, equation=some))

    count = len(factors)
    weights = torch.full((count,), 1.0 / count, dtype=torch.float64) if weights is None else weights
    return ScenarioProblem(nominal, np.zeros((count, 1)), weights, risk or Mean(), make, at_once)


def waves(nominal: PDEProblem, count: int, size: float, seed: int = 0, modes: int = 4) -> Tensor:
    """(count, P) factors exp(size * k), k a sum of random plane waves."""
    x = nominal.equation.integrals[0].evaluation.quadrature.flat
    generator = torch.Generator().manual_seed(seed)
    k = torch.zeros(count, x.shape[1], dtype=torch.float64)
    for _ in range(modes):
        direction = 2.0 * torch.randn(len(x), generator=generator, dtype=torch.float64)
        phase, amplitude = torch.rand(2, generator=generator, dtype=torch.float64), None
        amplitude = torch.randn(count, 1, generator=generator, dtype=torch.float64)
        k += amplitude * torch.cos(np.pi * direction @ x + 2.0 * np.pi * phase[0])
    return torch.exp(size * k / modes**0.5)


def poisson_2d(cells: int = 8, weight: float = 1e-4, **overrides: object) -> PDEProblem:
    problem = nhgd.load(
        {
            "name": "uncertain",
            "mesh": {"kind": "rectangle", "size": [1, 1], "cells": [cells, cells]},
            "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
            "control": {"kind": "source"},
            "objective": [
                {"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)*(1+x)"},
                {"kind": "regularisation", "norm": "l2", "weight": weight},
            ],
            **overrides,
        }
    )
    return problem.pde
