"""The scenarios in which derivatives are tested: those whose random inputs are the most unlike the nominal ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..pde_problem import PDEProblem
from ..scenario_problem import ScenarioProblem

# Largest number of scenarios, and number of standard variables whose largest and smallest values are looked at.
_MOST, _VARIABLES = 4, 2


def extreme_scenarios(problem: ScenarioProblem) -> Iterator[tuple[PDEProblem, str]]:
    """Problems of one scenario each, and descriptions of the scenarios.

    A derivative that is wrong for some random inputs only is right in the nominal scenario. The scenarios of the sample
    with the longest vector of standard variables, and with the largest and smallest value of the first variables,
    are taken.
    """
    for number in _extremes(problem.z):
        inputs = ", ".join(f"{value:.3g}" for value in problem.z[number][:_MOST])
        more = ", ..." if problem.z.shape[1] > _MOST else ""
        told = f"in scenario {number}, with the standard variables ({inputs}{more})"
        yield problem.part(torch.tensor([number])), told


def _extremes(z: np.ndarray) -> list[int]:
    """Numbers of rows of z (S, m), each once."""
    found = [int(np.linalg.norm(z, axis=1).argmax())]
    for column in z.T[:_VARIABLES]:
        found += [int(column.argmax()), int(column.argmin())]
    return list(dict.fromkeys(found))[:_MOST]
