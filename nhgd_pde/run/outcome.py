"""What a run hands over: the solution, and the numbers of its summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..engine.loop import Iterate, Minimum
from ..engine.oracle import Oracle
from ..engine.roles.remote import Remote
from ..linalg.counts import Counts
from ..output.provenance import commit, peak_memory, versions
from ..pde_problem import PDEProblem
from ..scenario_problem import ScenarioProblem
from .drawing import control_numbers
from .judgement import Judgement
from .solution import Certificate, Row, Solution

if TYPE_CHECKING:
    from ..problem import Problem


def nominal_of(problem: PDEProblem | ScenarioProblem) -> PDEProblem:
    """The problem itself where nothing is random."""
    return problem.nominal if isinstance(problem, ScenarioProblem) else problem


def solution_of(
    solved: PDEProblem | ScenarioProblem,
    problem: Problem,
    found: Minimum,
    rows: tuple[Row, ...],
    counts: Counts,
    seconds: float,
    text: str,
    more: Mapping[str, Any],
    judged: Judgement | None,
) -> Solution:
    spec, pde = problem.file.spec, nominal_of(solved)
    last, evaluation = found.last, found.last.evaluation
    scenarios, unknowns = solved.inner_shape
    objective = evaluation.objective if judged is None else judged.objective(evaluation)
    certificate = Certificate(evaluation.state_error, evaluation.adjoint_error, evaluation.gradient_error)
    stats = {
        "name": problem.name,
        "method": spec.method,
        "status": found.status,
        "message": found.message,
        "objective": objective,
        "objective_initial": found.first.evaluation.objective,
        "gradient_norm": last.gradient_norm,
        "gradient_norm_initial": found.first.gradient_norm,
        "outer_iterations": last.iteration,
        "evaluations": last.evaluations,
        **_constraints(solved, last),
        "state_residual": certificate.state_residual,
        "adjoint_residual": certificate.adjoint_residual,
        "gradient_error": certificate.gradient_error,
        "gradient_error_parts": {
            "inner": evaluation.sensitivity * evaluation.state_error,
            "adjoint": evaluation.sensitivity * evaluation.adjoint_error,
            "sampling": evaluation.left_out,
        },
        "state_dofs": unknowns,
        "control_dofs": pde.outer_size,
        "scenarios": scenarios,
        "controls": control_numbers(pde, evaluation.v.cpu().numpy()),
        "solves": counts.as_dict(),
        "seconds": seconds,
        "seconds_output": 0.0,
        "peak_memory_bytes": peak_memory(),
        **more,
        "devices": {"inner": str(pde.equation.lift.device), "curvature": _curvature_device(problem)},
        "model": pde.model.name,
        "curvature": last.oracle.description,
        "seed": spec.seed,
        "versions": versions(),
        "commit": commit(),
    }
    state = solved.state(last.oracle.u, evaluation.v).cpu().numpy()
    adjoint = np.zeros((len(state), pde.equation.size))
    variable = _adjoint_variable(pde, last)
    if variable is not None and math.isfinite(evaluation.value):
        adjoint[:, pde.equation.free] = variable.cpu().numpy()
    return Solution(
        status=found.status,
        message=found.message,
        objective=objective,
        control=evaluation.v.cpu().numpy(),
        state=state,
        adjoint=adjoint,
        gradient=evaluation.gradient.cpu().numpy(),
        certificate=certificate,
        history=rows,
        stats=stats,
        problem=pde,
        problem_yaml=text,
        judgement=judged,
        threshold=spec.output.exceedance,
    )


def _constraints(problem: PDEProblem | ScenarioProblem, last: Iterate) -> dict[str, Any]:
    """How well the constraints of the file are satisfied; nothing without them."""
    v, reports = last.evaluation.v, nominal_of(problem).reports
    if not reports:
        return {}
    state = problem.state(last.oracle.u, v)
    return {"constraints": [dict(each.report(state, v)) for each in reports]}


def satisfied(problem: PDEProblem | ScenarioProblem, last: Iterate) -> str:
    """The same as a part of the last sentence."""
    v, reports = last.evaluation.v, nominal_of(problem).reports
    if not reports:
        return ""
    state = problem.state(last.oracle.u, v)
    return "".join(f"; {each.sentence(state, v)}" for each in reports)


def roles_of(oracle: Oracle) -> dict[str, float | int]:
    """How the work was shared: seconds of the curvature role, and those the inner role waited for it."""
    curvature = getattr(oracle, "curvature", None)
    if not isinstance(curvature, Remote):
        return {"count": 1}
    traffic = curvature.link.traffic
    return {
        "count": 2,
        "seconds_curvature": traffic.peer_busy,
        "seconds_waited": traffic.waited,
        "bytes_sent": traffic.sent,
    }


def _curvature_device(problem: Problem) -> str:
    name = problem.file.spec.devices.curvature
    return "cpu" if name == "auto" else name


def _adjoint_variable(pde: PDEProblem, last: Iterate) -> torch.Tensor | None:
    """The adjoint variable (S, n) behind the last gradient; None where the run failed before there was one."""
    known: torch.Tensor | None = getattr(last.oracle, "p", None)
    if known is not None or last.oracle.q is None:
        return known
    return pde.adjoint_state(last.oracle.u, last.evaluation.v, last.oracle.q)
