"""The estimate of the discretisation error of a solution, and where it comes from."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..building.blueprint import Blueprint
from ..fem.nesting import parents
from ..pde_problem import PDEProblem
from ..problem_file.loading import ProblemFile
from .dual_weighted import contributions
from .finer import Finer, NoEstimateError, finer


class Posed(Protocol):
    """What an estimate needs of a problem, which `load` returns."""

    @property
    def file(self) -> ProblemFile: ...
    @property
    def scenarios(self) -> Blueprint | None: ...


class Solved(Protocol):
    """What an estimate needs of a solution, which `solve` returns."""

    @property
    def status(self) -> str: ...
    @property
    def objective(self) -> float: ...
    @property
    def control(self) -> np.ndarray: ...
    @property
    def state(self) -> np.ndarray: ...
    @property
    def adjoint(self) -> np.ndarray: ...
    @property
    def problem(self) -> PDEProblem: ...


@dataclass(frozen=True, eq=False)
class ErrorEstimate:
    """An estimate of the discretisation error of the objective.

    Attributes:
        value: estimate of the objective of the continuous problem minus the objective that was found, in its unit.
        indicator: (cells,) what each cell contributes to it, not negative: the absolute values of the products of
            residuals and weights at the nodes of the refined mesh, each divided among the cells around it.
        data: the part of `value` from quadrature, boundary values and curved boundaries.
        control: the part of `value` from the control.
        seconds: the time that the estimate took.
    """

    value: float
    indicator: np.ndarray
    data: float
    control: float
    seconds: float


def estimate_error(problem: Posed, solution: Solved) -> ErrorEstimate:
    """Estimates the discretisation error of a solution by dual-weighted residuals; see `dual_weighted`.

    Args:
        problem: the problem, from `load`.
        solution: its solution, near enough to the optimum that its gradient is small.

    Raises:
        NoEstimateError: there is no estimate for this kind of problem; the message says why.
    """
    start = time.perf_counter()
    _check(problem, solution)
    fine = finer(problem.file, solution.problem)
    found = contributions(fine, solution.state, solution.adjoint, solution.control, solution.objective)
    order = 2 * int(solution.problem.space.element[1:])
    share = 1.0 / (1.0 - 2.0**-order)
    indicator = share * _on_cells(fine, np.abs(found.nodes))
    value = share * found.total
    if not math.isfinite(value):
        raise NoEstimateError("the residuals on the refined mesh are not finite")
    return ErrorEstimate(value, indicator, share * found.data, share * found.control, time.perf_counter() - start)


def _check(problem: Posed, solution: Solved) -> None:
    pde = solution.problem
    if solution.status == "failed" or not math.isfinite(solution.objective):
        raise NoEstimateError("the run failed")
    if problem.scenarios is not None:
        raise NoEstimateError("the problem has random inputs")
    if pde.state_bounds:
        raise NoEstimateError("the state has bounds")
    if pde.equation.size != solution.state.size or not solution.adjoint.any():
        raise NoEstimateError("the run kept no state and no adjoint variable of all times")


def _on_cells(fine: Finer, nodes: np.ndarray) -> np.ndarray:
    """(cells of the coarse mesh,) values at the coefficients of the fine space, divided among the cells around them."""
    mesh = fine.coarse.space.domain.mesh
    found, of_cell = np.zeros(mesh.nelements), parents(mesh)
    for values, part in zip(fine.problem.space.split(nodes), fine.problem.space.parts, strict=True):
        dofs = np.asarray(part.basis.element_dofs)
        count = np.bincount(dofs.reshape(-1), minlength=part.size)
        of_cells = (values / np.maximum(count, 1))[dofs].sum(axis=0)
        found += np.bincount(of_cell, weights=of_cells, minlength=len(found))
    return found
