"""What a process that searches for members of a population begins with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..building.blueprint import blueprint_of
from ..choice.method import build_method
from ..choice.population_method import local_search
from ..engine.search import outer_space
from ..population.members import LocalSearch
from ..problem_file.loading import read_problem
from .signals import ignore_stops


def member_search(content: Mapping[str, Any], path: str | None) -> LocalSearch:
    """The local search of a problem that has been read and checked already.

    Args:
        content: the problem file as a mapping.
        path: where the file is; None for a problem that was given as a mapping.
    """
    # Ctrl-C reaches every process of a terminal; the process that has started this one decides when to stop.
    ignore_stops()
    file = read_problem(content, place=None if path is None else Path(path))
    problem = blueprint_of(file).nominal
    device, space = problem.equation.lift.device, outer_space(problem)
    method = build_method(file, problem.inner_shape, device, space, problem.control.smoothing)
    return local_search(problem, method, file.spec.population.rtol)
