"""States of one or many scenarios as fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..engine.loop import Iterate
from ..pde_problem import PDEProblem
from .drawing import Fields, state_fields

if TYPE_CHECKING:
    from .outer_problem import OuterProblem


def iterate_fields(problem: OuterProblem, iterate: Iterate, threshold: float | None) -> Fields:
    """The fields of the state at an iterate; over scenarios their statistics, see `statistics_fields`."""
    state = problem.state(iterate.oracle.u, iterate.evaluation.v).cpu().numpy()
    if isinstance(problem, PDEProblem):
        return state_fields(problem, state)
    weights = problem.weights[: len(state)].cpu().numpy()
    return statistics_fields(problem.nominal, state, weights / weights.sum(), threshold)


def statistics_fields(
    problem: PDEProblem, states: np.ndarray, weights: np.ndarray, threshold: float | None, level: int = -1
) -> Fields:
    """Named point fields of states (S, N) with weights (S,).

    `state` is the mean and `state_std` the standard deviation; `state_exceedance` the probability of more than a
    threshold, in absolute value where the state is a vector.
    """
    mean = weights @ states
    deviation = np.sqrt(np.maximum(weights @ (states - mean) ** 2, 0.0))
    means = state_fields(problem, mean[None], level=level)
    spreads = state_fields(problem, deviation[None], level=level)
    shares = {name: np.zeros(len(values)) for name, values in means.items()} if threshold is not None else {}
    for weight, state in zip(weights, states, strict=True) if threshold is not None else ():
        for name, values in state_fields(problem, state[None], level=level).items():
            size = values if values.ndim == 1 else np.linalg.norm(values, axis=-1)
            shares[name] += weight * (size > threshold)
    more = {f"{name}_std": values for name, values in spreads.items()}
    return means | more | {f"{name}_exceedance": share for name, share in shares.items()}


def named_fields(problem: PDEProblem, states: np.ndarray, values: np.ndarray, level: int = -1) -> Fields:
    """The states (S, N) of the scenarios with the best, the median and the worst objective (S,)."""
    order = np.argsort(values)
    chosen = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    return {
        f"{name}_{label}": field
        for label, which in chosen.items()
        for name, field in state_fields(problem, states[which : which + 1], level=level).items()
    }
