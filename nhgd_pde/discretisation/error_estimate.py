"""The estimate of the discretisation error of a solution, and where it comes from."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..building.blueprint import Blueprint
from ..fem.nesting import parents
from ..linalg.factorisation import SingularMatrixError
from ..pde.ranges import InadmissibleError
from ..pde_problem import PDEProblem
from ..problem_file.errors import ProblemError
from ..problem_file.loading import ProblemFile
from .dual_weighted import Contributions, contributions
from .enriched import Enriched, NoEstimateError
from .finer_mesh import FinerMesh, finer_mesh
from .finer_steps import FinerSteps


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
        data: the part of `value` from quadrature, boundary values, curved boundaries and references of controls.
        control: the part of `value` from the control.
        uncertainty: how far `value` itself may be from the true error, not negative: what a second recovery changes, in
            absolute values node by node, and a share of the other parts.
        time: the part of `value` from the steps in time; 0 for a steady problem. The other parts are of the mesh.
        seconds: the time that the estimate took.
    """

    value: float
    indicator: np.ndarray
    data: float
    control: float
    time: float
    uncertainty: float
    seconds: float


def estimate_error(problem: Posed, solution: Solved) -> ErrorEstimate:
    """Estimates the discretisation error of a solution by dual-weighted residuals; see `dual_weighted`.

    Args:
        problem: the problem, from `load`.
        solution: its solution, or another control with its state and adjoint variable.

    Raises:
        NoEstimateError: there is no estimate for this kind of problem; the message says why.
    """
    return Estimator(problem).estimate(solution)


@dataclass(eq=False)
class Estimator:
    """Estimates for several controls of one problem, for which the finer problems are built once."""

    problem: Posed

    def estimate(self, solution: Solved) -> ErrorEstimate:
        """See `estimate_error`."""
        point = (solution.problem, solution.control, solution.state, solution.adjoint)
        if self._last is not None and _same(self._last[0], point):
            return self._last[1]
        found = self._estimated(solution)
        self._last = point, found
        return found

    def _estimated(self, solution: Solved) -> ErrorEstimate:
        start = time.perf_counter()
        _check(self.problem, solution)
        try:
            found = _found(self._mesh(solution.problem), solution)
            of_time, uncertainty = 0.0, found.uncertainty
            if solution.problem.equation.repeats > 1:
                halved = _found(self._steps(solution.problem), solution)
                of_time, uncertainty = halved.total, uncertainty + halved.uncertainty
        except (ProblemError, SingularMatrixError, InadmissibleError) as error:
            raise NoEstimateError(f"with half the width {error}") from None
        indicator = _on_cells(self._mesh(solution.problem), np.abs(found.nodes))
        value = found.total + of_time
        if not (math.isfinite(value) and math.isfinite(uncertainty) and np.isfinite(indicator).all()):
            raise NoEstimateError("the residuals on the refined mesh are not finite")
        seconds = time.perf_counter() - start
        data = found.data + found.costs
        return ErrorEstimate(value, indicator, data, found.control, of_time, uncertainty, seconds)

    def _mesh(self, pde: PDEProblem) -> FinerMesh:
        if self._kept_mesh is None or self._kept_mesh.coarse is not pde:
            self._kept_mesh = finer_mesh(self.problem.file, pde)
        return self._kept_mesh

    def _steps(self, pde: PDEProblem) -> FinerSteps:
        if self._kept_steps is None or self._kept_steps.coarse is not pde:
            self._kept_steps = FinerSteps(self.problem.file, pde)
        return self._kept_steps

    _kept_mesh: FinerMesh | None = None
    _kept_steps: FinerSteps | None = None
    # The point of the last estimate, and that estimate: the end of a run is asked for more than once.
    _last: tuple[tuple[Any, ...], ErrorEstimate] | None = None


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two points are the same, to the last digit: a problem, a control, a state and an adjoint variable."""
    return one[0] is other[0] and all(map(np.array_equal, one[1:], other[1:]))


def _found(finer: Enriched, solution: Solved) -> Contributions:
    """The contributions to the error of J."""
    found = contributions(finer, solution.state, solution.adjoint, solution.control, solution.objective)
    return found.extrapolated(finer.orders)


def _check(problem: Posed, solution: Solved) -> None:
    pde = solution.problem
    if solution.status == "failed" or not math.isfinite(solution.objective):
        raise NoEstimateError("the run failed")
    if problem.file.spec.state is not None:
        raise NoEstimateError("the state is a network")
    if problem.scenarios is not None:
        raise NoEstimateError("the problem has random inputs")
    if pde.state_bounds:
        raise NoEstimateError("the state has bounds")
    if any(part.prior is not None and part.space is not None for part in pde.control.parts):
        # The operator of a prior acts on jumps of the gradient, so that the term of the prior grows on a finer mesh.
        raise NoEstimateError("the control has a prior, whose term has no limit for a control of piecewise degree one")
    if pde.equation.size != solution.state.size or not solution.adjoint.any():
        raise NoEstimateError("the run kept no state and no adjoint variable of all times")


def _on_cells(fine: FinerMesh, nodes: np.ndarray) -> np.ndarray:
    """(cells of the coarse mesh,) values at the coefficients of the fine space, divided among the cells around them."""
    mesh = fine.coarse.space.domain.mesh
    found, of_cell = np.zeros(mesh.nelements), parents(mesh)
    for values, part in zip(fine.problem.space.split(nodes), fine.problem.space.parts, strict=True):
        dofs = np.asarray(part.basis.element_dofs)
        count = np.bincount(dofs.reshape(-1), minlength=part.size)
        of_cells = (values / np.maximum(count, 1))[dofs].sum(axis=0)
        found += np.bincount(of_cell, weights=of_cells, minlength=len(found))
    return found
