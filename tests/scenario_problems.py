"""Problems over scenarios without random inputs: a deterministic problem with factors for each scenario."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.inner_loop import InnerOptions
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.newton_cg import NewtonCG
from nhgd_pde.engine.outer.reduced_objective import Evaluation
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.objective.risk import Mean, RiskMeasure
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.scenario_problem import ScenarioProblem


def scenarios_of(
    nominal: PDEProblem,
    factors: Tensor,
    weights: Tensor | None = None,
    risk: RiskMeasure | None = None,
    at_once: int = 16,
    seed: int = 0,
) -> ScenarioProblem:
    """Scenarios whose conductivity is the nominal one times factors (S, P) or (S, 1).

    The stream draws from these scenarios with equal probability, so that its expectation is known.
    """
    equation = nominal.equation
    control = equation.constant_linearisation.control.direct if equation.affine else None

    def make(z: np.ndarray, numbers: np.ndarray) -> PDEProblem:
        first, *others = equation.integrals
        conductivity = first.coefficients["conductivity"] * factors[torch.from_numpy(z[:, 0]).long()]
        integrals = (replace(first, coefficients={**first.coefficients, "conductivity": conductivity}), *others)
        some = replace(equation, integrals=integrals, scenarios=len(z), known_control=control)
        return replace(nominal, equation=some, model=replace(nominal.model, equation=some))

    count = len(factors)

    def stream(first: int, size: int) -> np.ndarray:
        drawn = [np.random.default_rng([seed, k]).integers(count) for k in range(first, first + size)]
        return np.array(drawn, dtype=float)[:, None]

    weights = torch.full((count,), 1.0 / count, dtype=torch.float64) if weights is None else weights
    own = np.arange(count, dtype=float)[:, None]
    return ScenarioProblem(nominal, own, weights, risk or Mean(), make, at_once, stream)


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


def field_problem(modes: int, seed: int) -> ScenarioProblem:
    """128 scenarios of a log-normal conductivity, from a file."""
    field = {"covariance": "matern", "length": 0.3, "std": 0.5, "smoothness": 1.5, "modes": modes}
    data = {
        "name": "field",
        "mesh": {"kind": "rectangle", "cells": [8, 8]},
        "parameters": {"k": {"field": field}},
        "pde": {"kind": "poisson", "conductivity": "exp(k)", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [
            {"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)*(1+x)"},
            {"kind": "regularisation", "norm": "l2", "weight": 1e-4},
        ],
        "scenarios": {"count": 128, "sampling": "monte_carlo"},
        "seed": seed,
    }
    scenarios = nhgd.load(data).scenarios
    assert scenarios is not None
    return scenarios.problem


def natural() -> NHGD:
    """The NHGD method for the nominal scenario."""
    return NHGD(InnerOptions(), Factored(), HypergradientOptions())


def whole(problem: ScenarioProblem) -> PDEProblem:
    """The sample as one problem, whose inner variables are the states of all scenarios, with equal weights."""
    return problem.part(torch.arange(problem.inner_shape[0]))


def exact(problem: ScenarioProblem, v: Tensor) -> Evaluation:
    """The value and the derivative of the mean over the sample, with exact solves for each scenario."""
    every, adjoint = whole(problem), Adjoint()
    return adjoint.evaluate(every, v, adjoint.init(every, every.start()[0], v), Accuracy(1e-12, 1e-12))[0]


def optimum(problem: ScenarioProblem) -> Evaluation:
    found = minimise(whole(problem), Adjoint(), NewtonCG(), Stopping(rtol=1e-11))
    assert found.status == "converged", found.message
    return found.last.evaluation


def restored(oracle: Any, problem: ScenarioProblem, state: Any) -> Any:
    """A state after saving it and restoring it."""
    file = io.BytesIO()
    torch.save(oracle.save(state), file)
    file.seek(0)
    return oracle.restore(problem, torch.load(file, weights_only=True))
