"""PDE-constrained optimisation and inverse design by natural hypergradient descent.

import nhgd_pde as nhgd
problem = nhgd.load("problems/poisson_control.yaml")
solution = nhgd.solve(problem, output="outputs/poisson_control")
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Problem, load, place_sensors, solve, verify
    from .bridges.objective_function import ReducedObjective, reduced
    from .bridges.solved_state import StateUnsolvedError
    from .bridges.torch_functions import TorchFunctions, as_torch
    from .discretisation import ErrorEstimate, NoEstimateError, estimate_error
    from .inference.chain import Chain
    from .inference.intervals import PredictedInterval
    from .inference.posterior import Posterior
    from .output.storage import OutputError
    from .problem_file.errors import ProblemError
    from .run.placing import Placement
    from .run.solution import Solution
    from .run.troubles import ResultsLostError
    from .studies.conducting import study
    from .studies.study_result import Study
    from .tasks.loss_problem import LossProblem
    from .tasks.solving import BilevelOptions, BilevelSolution, solve_bilevel
    from .verification import Verification

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("Problem", "load", "place_sensors", "solve", "verify"), "api"),
    **dict.fromkeys(("BilevelOptions", "BilevelSolution", "solve_bilevel"), "tasks.solving"),
    **dict.fromkeys(("ErrorEstimate", "NoEstimateError", "estimate_error"), "discretisation"),
    "LossProblem": "tasks.loss_problem",
    "OutputError": "output.storage",
    "Placement": "run.placing",
    "ProblemError": "problem_file.errors",
    "ReducedObjective": "bridges.objective_function",
    "ResultsLostError": "run.troubles",
    "Solution": "run.solution",
    "Chain": "inference.chain",
    "PredictedInterval": "inference.intervals",
    "Posterior": "inference.posterior",
    "StateUnsolvedError": "bridges.solved_state",
    "Study": "studies.study_result",
    "TorchFunctions": "bridges.torch_functions",
    "Verification": "verification",
    "as_torch": "bridges.torch_functions",
    "reduced": "bridges.objective_function",
    "study": "studies.conducting",
}

__all__ = [
    "BilevelOptions",
    "BilevelSolution",
    "Chain",
    "ErrorEstimate",
    "LossProblem",
    "NoEstimateError",
    "OutputError",
    "Placement",
    "Posterior",
    "PredictedInterval",
    "Problem",
    "ProblemError",
    "ReducedObjective",
    "ResultsLostError",
    "Solution",
    "StateUnsolvedError",
    "Study",
    "TorchFunctions",
    "Verification",
    "__version__",
    "as_torch",
    "estimate_error",
    "load",
    "place_sensors",
    "reduced",
    "solve",
    "solve_bilevel",
    "study",
    "verify",
]


def _objects() -> ModuleType:
    """The sections of a problem file as Python objects, such as `Rectangle`, `Poisson`, `SourceControl`, `Tracking`."""
    from .problem_file import objects

    return objects


def __dir__() -> list[str]:
    return [*__all__, *_objects().OBJECTS]


def __getattr__(name: str) -> Any:
    # Loaded on first use: the command line imports this package to print its help.
    from importlib import import_module

    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _objects().OBJECTS:
        value = _objects().object_class(name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
