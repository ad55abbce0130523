"""Sharing over windows of time: the error of the hypergradient against its bound by bias and variance.

    python -m benchmarks.sharing                    # the table of docs/forward_mode.md

The targets have independent noise in every step. g_k is then the noisy hypergradient of step k (per unit of time) with
mean mu_k and covariance S, and a control that is shared by the n steps of a window has their mean in place of each g_k.
The mean square error of that is

    mean_k (mean of mu over the window of k - mu_k)^2 + mean over windows of 1^T S 1 / n^2
        <= eps^2 (n^2 - 1) / 12 + sigma^2 (1 + (n - 1) c) / n

with eps the largest change of mu from a step to the next, sigma^2 the mean variance, and c the mean correlation of two
steps of a window, relative to sigma^2. With c = 0 this is the bound of Micaelli and Storkey (2021, arXiv 2007.07869;
`theorem4_checker_simple.py` of the authors' code); the second term is the variance of a mean. The covariance is exact:
g is affine in the targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import nhgd_pde as nhgd
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.objective.terms import Tracking
from nhgd_pde.pde.evolution import EvolutionEquation

STEPS = 480
NOISE = 4.0
SHAPE = "sin(pi*x)"
EQUATIONS: dict[str, dict[str, Any]] = {
    "heat": {"kind": "heat", "conductivity": 8, "boundary": {"all": {"dirichlet": 0}}},
    "burgers": {"kind": "burgers", "viscosity": 4, "boundary": {"all": {"dirichlet": 0}}},
}


def problem(equation: str, windows: int | None = None, method: str = "adjoint", steps: int = STEPS) -> nhgd.Problem:
    control = {"kind": "source", "space": "time", "gain": SHAPE, "windows": windows}
    return nhgd.load(
        {
            "name": equation,
            "method": method,
            "mesh": {"kind": "interval", "cells": 8},
            "pde": EQUATIONS[equation],
            "time": {"end": 1, "steps": steps, "initial": SHAPE},
            "control": control,
            "objective": [{"kind": "tracking", "target": f"(1 + sin(2*pi*t) + t**2)*{SHAPE}"}],
        }
    )


def derivative_of(loaded: nhgd.Problem, v: torch.Tensor) -> np.ndarray:
    """The derivative of the objective at v by the method of the problem."""
    pde, oracle = loaded.pde, loaded.method.oracle
    found, _ = oracle.evaluate(pde, v, oracle.init(pde, pde.start()[0], v), Accuracy(1e-12, 1e-12))
    return np.asarray(found.derivative)


@dataclass(frozen=True)
class Hypergradients:
    """Attributes:
    mean: (H,) mu.
    responses: (H, H) the change of g by the noise of each step; S is its square.
    """

    mean: np.ndarray
    responses: np.ndarray

    def drawn(self, count: int, seed: int) -> np.ndarray:
        """(count, H) samples of g."""
        noise = np.random.default_rng(seed).standard_normal((count, len(self.mean)))
        return self.mean + noise @ self.responses.T


def hypergradients(equation: str, steps: int = STEPS) -> Hypergradients:
    """mu and the responses to the noise, at v = 0."""
    loaded = problem(equation, steps=steps)
    pde, v = loaded.pde, torch.zeros(steps, dtype=torch.float64)
    mean = steps * derivative_of(loaded, v)
    term, state = pde.objective.state[0], pde.equation
    assert isinstance(term, Tracking) and term.rows is not None and isinstance(state, EvolutionEquation)
    u = state.march(v, rtol=1e-12)
    linear = state.linearise(u, v)
    shape = NOISE * torch.sin(torch.pi * torch.from_numpy(pde.space.nodes[0]))
    noisy = torch.kron(torch.eye(steps, dtype=torch.float64), shape[None])
    changes = -state.restrict(term.rows.rmv(term.mass.mv(noisy)))
    adjoints = linear.factors.solve_transposed(changes)
    found = torch.stack([-linear.control.rmv(each[None]) for each in adjoints])
    return Hypergradients(mean, steps * found.numpy().T)


@dataclass(frozen=True)
class Errors:
    """Mean square errors of shared hypergradients with n steps in a window.

    Attributes:
        bias, variance: both parts of the error, exact.
        sampled, doubt: the error of samples, and the standard error of that.
        drift: the bound eps^2 (n^2 - 1) / 12 of the bias.
        noise: sigma^2 (1 + (n - 1) c) / n.
    """

    n: int
    bias: float
    variance: float
    sampled: float
    doubt: float
    drift: float
    noise: float

    @property
    def bound(self) -> float:
        return self.drift + self.noise


def errors(given: Hypergradients, n: int, samples: int = 400) -> Errors:
    mean, steps = given.mean, len(given.mean)

    def shared(g: np.ndarray) -> np.ndarray:
        return g.reshape(*g.shape[:-1], steps // n, n).mean(-1).repeat(n, -1)

    squares = ((shared(given.drawn(samples, seed=n)) - mean) ** 2).mean(-1)
    covariance = given.responses @ given.responses.T
    blocks = [covariance[k : k + n, k : k + n] for k in range(0, steps, n)]
    sigma = float(np.trace(covariance)) / steps
    pairs = sum(float(block.sum() - np.trace(block)) for block in blocks) / max(steps * (n - 1), 1)
    return Errors(
        n=n,
        bias=float(((shared(mean) - mean) ** 2).mean()),
        variance=float(np.mean([block.sum() for block in blocks])) / n**2,
        sampled=float(squares.mean()),
        doubt=float(squares.std(ddof=1)) / samples**0.5,
        drift=float(np.abs(np.diff(mean)).max()) ** 2 * (n**2 - 1) / 12.0,
        noise=sigma * (1.0 + (n - 1) * pairs / sigma) / n,
    )


def slope(sizes: list[int], values: list[float]) -> float:
    """The fitted exponent of values in the sizes."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


if __name__ == "__main__":
    for name in EQUATIONS:
        known = hypergradients(name)
        rows = [errors(known, n) for n in (1, 2, 4, 8, 16, 32, 48, 80, 120, 160, 240)]
        print(f"{name}: | n | bias | variance | bias + variance | sampled | bound |")
        for row in rows:
            numbers = row.bias, row.variance, row.bias + row.variance, row.sampled, row.bound
            print(f"| {row.n} | " + " | ".join(f"{number:.2e}" for number in numbers) + " |")
        small, large = [row for row in rows if 4 <= row.n <= 16], [row for row in rows if row.n >= 80]
        print("slope of the bias", slope([row.n for row in small], [row.bias for row in small]))
        print("slope of the variance", slope([row.n for row in large], [row.variance for row in large]))
