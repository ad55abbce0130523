"""What is known of a run that has ended: the content of summary.json, and what every answer has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..engine.loop import Iterate, Minimum
from ..engine.oracle import Oracle
from ..engine.scenarios.team import Team
from ..linalg.counts import Counts
from ..output.provenance import commit, peak_memory, versions
from .answer import Certificate, Source
from .outer_problem import nominal_of
from .rounds import saved

if TYPE_CHECKING:
    from ..problem import Problem
    from ..task_problem import TaskProblem
    from .judgement import Judgement
    from .outer_problem import OuterProblem
    from .presentation import Presentation
    from .records import Records


@dataclass(frozen=True, eq=False)
class Outcome:
    """A run that has ended.

    Attributes:
        solved: the outer problem that was minimised last.
        found: its result, with the first and the last iterate of the run.
        search: entries of summary.json on the search for the start; empty where there was none.
        text: the resolved problem file; None for a run without a folder.
        stage: number of the stage of a continuation that was solved last.
    """

    problem: Problem | TaskProblem
    presentation: Presentation
    solved: OuterProblem
    found: Minimum
    records: Records
    counts: Counts
    seconds: float
    roles: Mapping[str, float | int]
    ranks: Mapping[str, float | int]
    judgement: Judgement | None
    search: Mapping[str, Any]
    text: str | None
    stage: int

    def common(self) -> dict[str, Any]:
        """What the answers of all kinds of problems have, by the names of the attributes of `Answer`."""
        evaluation = self.found.last.evaluation
        return {
            "status": self.found.status,
            "message": self.found.message,
            "objective": self._objective,
            "control": evaluation.v.cpu().numpy(),
            "gradient": evaluation.gradient.cpu().numpy(),
            "certificate": self._certificate,
            "history": tuple(self.records.rows),
            "stats": self.summary(),
            "written_yaml": self.text,
            "source": Source(self.problem, self.stage, saved(self.solved) if self.solved.relaxations else None),
        }

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        last = self.found.last
        named = self.problem.file.spec.devices.curvature
        return {
            **self._results(),
            "state_dofs": self.problem.state_unknowns,
            "control_dofs": self.problem.outer_size,
            "scenarios": self.solved.inner_shape[0],
            **self.presentation.entries(self),
            "solves": self.counts.as_dict(),
            "seconds": self.seconds,
            "seconds_output": 0.0,
            "peak_memory_bytes": peak_memory(),
            "warnings": [*self.records.warnings, *self.solved.counts.notes],
            "roles": dict(self.roles),
            "ranks": dict(self.ranks),
            **({} if self.judgement is None else {"uncertainty": self.judgement.summary()}),
            **self.search,
            "devices": {"inner": str(self.problem.device), "curvature": "cpu" if named == "auto" else named},
            "model": self.problem.form,
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
