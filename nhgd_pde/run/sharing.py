"""How the work of a run is shared by processes: what can be shared, and the oracle that shares it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..engine.nhgd import NHGD
from ..engine.oracle import Oracle
from ..engine.scenarios.team import ALONE, Team

if TYPE_CHECKING:
    from ..problem import Problem
    from ..problem_file.loading import ProblemFile
    from .launcher import ProcessPlace


@dataclass(frozen=True, eq=False)
class Sharing:
    """The processes of a run, as the outer loop sees them.

    Attributes:
        oracle: the oracle, which passes work on to other processes.
        threads: most threads of this process; None for as many as there are.
    """

    oracle: Oracle
    team: Team
    threads: int | None


@contextmanager
def sharing(problem: Problem, roles: int, place: ProcessPlace | None, folder: Path | None) -> Iterator[Sharing]:
    """Connects this process with the others that work on a run.

    Args:
        place: the place of this process among the ranks; None without ranks.
    """
    method, device = problem.method, problem.device
    # Without other processes, nothing of what they need is loaded.
    if roles == 2:
        from ..engine.roles.remote import Remote
        from .curvature_role import CheckpointFiles, curvature_role

        assert isinstance(method.oracle, NHGD)
        half = max(torch.get_num_threads() // 2, 1)
        with curvature_role(problem.file, folder, device) as link:
            curvature = method.oracle.curvature
            remote = Remote(link, curvature.pointwise, curvature.iterated, CheckpointFiles(folder))
            yield Sharing(replace(method.oracle, curvature=remote), ALONE, _fewer(method.threads, half))
    elif place is not None:
        check_ranks(problem.file, method.oracle, place.size)
        threads = _fewer(method.threads, place.threads)
        if place.size == 1:
            yield Sharing(method.oracle, ALONE, threads)
            return
        with place.team(device) as team:
            oracle: Any = method.oracle
            yield Sharing(replace(oracle, team=team), team, threads)
    else:
        yield Sharing(method.oracle, ALONE, method.threads)


def _fewer(threads: int | None, most: int) -> int:
    return min(threads or most, most)


def check_roles(problem: Problem, roles: int) -> None:
    """Refuses a number of roles that does not go with the method or the devices.

    Raises:
        ProblemError: with what would be right.
    """
    if roles not in (1, 2):
        raise ValueError(f"roles: expected 1 or 2, found {roles}")
    if problem.population is not None and problem.population.processes > 1:
        _check_files(problem.file)
    if roles == 2:
        _check_two_roles(problem)
        _check_files(problem.file)
        return
    names = problem.file.spec.devices
    inner = "cpu" if names.inner == "auto" else names.inner
    if names.curvature not in ("auto", inner):
        message = f"expected auto or {inner!r}, the inner device, in a run of one role; found {names.curvature!r}"
        raise problem.file.error("devices.curvature", message + " (--roles 2 uses both)")


def _check_files(file: ProblemFile) -> None:
    """Refuses functions and meshes in memory, which other processes cannot read."""
    for key in file.in_memory:
        found = "a mesh" if key == "mesh.mesh" else "a function"
        expected = "mesh.file" if key == "mesh.mesh" else "file.py:name"
        message = f"expected {expected} in a run of several processes, found {found} in memory"
        raise file.error(key, f"{message}: each process reads the problem for itself")


def check_one_process(file: ProblemFile, roles: int, ranks: int) -> None:
    """Refuses several processes with adaptive meshes, which the other processes do not know.

    Raises:
        ProblemError: there are several.
    """
    if roles > 1 or ranks > 1:
        found = "two roles" if roles > 1 else f"{ranks} ranks"
        raise file.error("mesh.adapt", f"expected none in a run of {found}: one process makes the meshes")


def _check_two_roles(problem: Problem) -> None:
    file = problem.file
    if file.spec.parameters:
        reason = "as all scenarios share one inverse: --ranks shares the scenarios"
        raise file.error("parameters", f"expected none in a run of two roles, {reason}")
    if file.spec.state is not None:
        raise file.error("state", "expected none in a run of two roles: a network's Fisher information has one owner")
    if not isinstance(problem.method.oracle, NHGD) or problem.population is not None:
        raise file.error("method", f"expected nhgd in a run of two roles, found {file.spec.method!r}")
    last = problem.stages[-1]
    stages = len(problem.stages) + len(last.state_bounds)
    if stages > 1:
        # The curvature role builds the last stage only.
        why = "continuations and bounds of the state take several"
        message = f"expected a problem of one stage in a run of two roles, found {stages}: {why}, use one role"
        raise file.error("name", message)


def check_ranks(file: ProblemFile, oracle: object, size: int) -> None:
    """Refuses several ranks for a problem or a method that cannot be shared by them.

    Raises:
        ProblemError: with what would be right.
    """
    if size == 1:
        return
    from ..engine.scenarios.saga import SAGA
    from ..engine.scenarios.scenario_nhgd import ScenarioNHGD
    from ..engine.scenarios.streaming import Streaming

    if not file.spec.parameters:
        raise file.error("parameters", f"expected random inputs in a run of {size} ranks, which share scenarios")
    if file.spec.bounds_state:
        message = f"expected no bounds of the state in a run of {size} ranks, as one process has the multipliers"
        raise file.error("constraints", message)
    if isinstance(oracle, SAGA):
        message = f"expected growing, all or streaming in a run of {size} ranks, found 'saga'"
        raise file.error("scenarios.strategy", message)
    if not isinstance(oracle, ScenarioNHGD | Streaming):
        raise file.error("method", f"expected nhgd in a run of {size} ranks, found {file.spec.method!r}")
    if isinstance(oracle, Streaming) and oracle.batch < size:
        message = f"expected at least one scenario a rank, {size}, found {oracle.batch}"
        raise file.error("scenarios.batch", message)
