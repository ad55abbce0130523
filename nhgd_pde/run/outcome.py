"""Builds the solution and the content of summary.json from a run that has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..engine.loop import Iterate, Minimum
from ..engine.oracle import Oracle
from ..engine.scenarios.team import Team
from ..linalg.counts import Counts
from ..output.provenance import commit, peak_memory, versions
from .drawing import control_numbers
from .outer_problem import nominal_of
from .solution import Certificate, Solution

if TYPE_CHECKING:
    from ..problem import Problem
    from .judgement import Judgement
    from .outer_problem import OuterProblem
    from .records import Records


@dataclass(frozen=True, eq=False)
class Outcome:
    """A run that has ended.

    Attributes:
        solved: the outer problem that was minimised last.
        found: its result, with the first and the last iterate of the run.
        text: the resolved problem file.
    """

    problem: Problem
    solved: OuterProblem
    found: Minimum
    records: Records
    counts: Counts
    seconds: float
    roles: Mapping[str, float | int]
    ranks: Mapping[str, float | int]
    judgement: Judgement | None
    text: str

    def solution(self) -> Solution:
        """The solution that is handed over."""
        last, evaluation = self.found.last, self.found.last.evaluation
        state = self.solved.state(last.oracle.u, evaluation.v).cpu().numpy()
        return Solution(
            status=self.found.status,
            message=self.found.message,
            objective=self._objective,
            control=evaluation.v.cpu().numpy(),
            state=state,
            adjoint=self._adjoint(len(state)),
            gradient=evaluation.gradient.cpu().numpy(),
            certificate=self._certificate,
            history=tuple(self.records.rows),
            stats=self.summary(),
            problem=nominal_of(self.solved),
            problem_yaml=self.text,
            judgement=self.judgement,
            threshold=self.problem.file.spec.output.exceedance,
        )

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        pde, last = nominal_of(self.solved), self.found.last
        scenarios, unknowns = self.solved.inner_shape
        named = self.problem.file.spec.devices.curvature
        return {
            **self._results(),
            "state_dofs": unknowns,
            "control_dofs": pde.outer_size,
            "scenarios": scenarios,
            "controls": control_numbers(pde, last.evaluation.v.cpu().numpy()),
            "solves": self.counts.as_dict(),
            "seconds": self.seconds,
            "seconds_output": 0.0,
            "peak_memory_bytes": peak_memory(),
            "warnings": list(self.records.warnings),
            "roles": dict(self.roles),
            "ranks": dict(self.ranks),
            **({} if self.judgement is None else {"uncertainty": self.judgement.summary()}),
            "devices": {"inner": str(pde.equation.lift.device), "curvature": "cpu" if named == "auto" else named},
            "model": pde.model.name,
            "curvature": last.oracle.description,
            "seed": self.problem.file.spec.seed,
            "versions": versions(),
            "commit": commit(),
        }

    def _results(self) -> dict[str, Any]:
        """What was found, and how well."""
        first, last, evaluation = self.found.first, self.found.last, self.found.last.evaluation
        return {
            "name": self.problem.name,
            "method": self.problem.file.spec.method,
            "status": self.found.status,
            "message": self.found.message,
            "objective": self._objective,
            "objective_initial": first.evaluation.objective,
            "gradient_norm": last.gradient_norm,
            "gradient_norm_initial": first.gradient_norm,
            "outer_iterations": last.iteration,
            "evaluations": last.evaluations,
            **_constraints(self.solved, last),
            **asdict(self._certificate),
            "gradient_error_parts": {
                "inner": evaluation.sensitivity * evaluation.state_error,
                "adjoint": evaluation.sensitivity * evaluation.adjoint_error,
                "sampling": evaluation.left_out,
            },
        }

    @property
    def _objective(self) -> float:
        evaluation = self.found.last.evaluation
        return evaluation.objective if self.judgement is None else self.judgement.objective(evaluation)

    @property
    def _certificate(self) -> Certificate:
        evaluation = self.found.last.evaluation
        return Certificate(evaluation.state_error, evaluation.adjoint_error, evaluation.gradient_error)

    def _adjoint(self, scenarios: int) -> np.ndarray:
        """(scenarios, N) the adjoint variable; zeros where the run failed before there was one."""
        pde, last = nominal_of(self.solved), self.found.last
        p: torch.Tensor | None = getattr(last.oracle, "p", None)
        if p is None and last.oracle.q is not None:
            p = pde.adjoint_state(last.oracle.u, last.evaluation.v, last.oracle.q)
        adjoint = np.zeros((scenarios, pde.equation.size))
        if p is not None and math.isfinite(last.evaluation.value):
            adjoint[:, pde.equation.free] = p.cpu().numpy()
        return adjoint


def _constraints(problem: OuterProblem, last: Iterate) -> dict[str, Any]:
    """For summary.json: how well the constraints of the file are satisfied; nothing without constraints."""
    v, reports = last.evaluation.v, nominal_of(problem).reports
    if not reports:
        return {}
    state = problem.state(last.oracle.u, v)
    return {"constraints": [dict(each.report(state, v)) for each in reports]}


def satisfied(problem: OuterProblem, last: Iterate) -> str:
    """How well the constraints of the file are satisfied, as a part of the last sentence of a run."""
    v, reports = last.evaluation.v, nominal_of(problem).reports
    if not reports:
        return ""
    state = problem.state(last.oracle.u, v)
    return "".join(f"; {each.sentence(state, v)}" for each in reports)


def roles_of(oracle: Oracle) -> dict[str, float | int]:
    """For summary.json: how long the curvature role has worked, and how long the inner role has waited for it."""
    link = getattr(getattr(oracle, "curvature", None), "link", None)
    if link is None:
        return {"count": 1}
    busy, waited, sent = link.traffic.peer_busy, link.traffic.waited, link.traffic.sent
    return {"count": 2, "seconds_curvature": busy, "seconds_waited": waited, "bytes_sent": sent}


def traffic_of(team: Team, evaluations: int) -> dict[str, float | int]:
    """For summary.json: the number of ranks, and what rank 0 has sent.

    An evaluation is one sweep over its scenarios, or two or three of them; `bytes_a_sweep` is the most that one took.
    """
    if team.size == 1:
        return {"count": 1}
    from ..engine.roles.ranks import Ranks

    assert isinstance(team, Ranks)
    traffic = team.traffic
    return {
        "count": team.size,
        "hosts": len({member.host for member in team.members}),
        "bytes": traffic.total,
        "bytes_an_evaluation": round(traffic.sums / max(evaluations, 1)),
        "bytes_a_sweep": traffic.largest,
        "bytes_of_values": traffic.values,
        "messages": traffic.messages,
        "seconds_waited": traffic.waited,
    }
