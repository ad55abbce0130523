"""Several processes for the scenarios of one problem: those that a launcher has started, or that this one starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from ..engine.roles.ranks import Ranks, meet_ranks
from ..engine.roles.rendezvous import give_up, part
from ..engine.scenarios.saga import SAGA
from ..engine.scenarios.scenario_nhgd import ScenarioNHGD
from ..engine.scenarios.streaming import Streaming
from ..engine.scenarios.team import Team
from ..problem_file.constraint_spec import StateSpec
from ..problem_file.errors import ProblemError
from .child import LEADER_GONE, ending, helper
from .meeting import VARIABLE, Meeting, on_loopback, private_meeting
from .signals import ignore_stops

if TYPE_CHECKING:
    from ..problem_file.loading import ProblemFile

_STORE_TIMEOUT = timedelta(seconds=60)


@dataclass(frozen=True, eq=False)
class Place:
    """This process' place among several.

    Attributes:
        rank: of this process.
        size: number of processes, on all hosts.
        local: rank among those on this host.
        beside: those on this host.
        store: where they meet.
        ended: how another one has ended, where this one has started it.
    """

    rank: int
    size: int
    local: int
    beside: int
    store: Callable[[], dist.Store]
    ended: Callable[[], str | None] = lambda: None

    @property
    def threads(self) -> int:
        """Of this process: the cores of a host are shared, unless the launcher has done so."""
        cores = torch.get_num_threads()
        return cores if "OMP_NUM_THREADS" in os.environ else max(cores // self.beside, 1)

    @property
    def gpus(self) -> int:
        """Of this host."""
        return torch.cuda.device_count()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Bad input that this rank alone may have found ends the others, which wait for it, with its reason."""
        try:
            yield
        except ProblemError as error:
            # They may be gone already, for the same reason.
            with suppress(Exception):
                give_up(self.store(), f"rank/{self.rank}", str(error))
            raise

    @contextmanager
    def team(self, device: torch.device) -> Iterator[Ranks]:
        """The team, once all have come.

        Raises:
            RoleFailedError: another rank could not be set up, with its reason.
            RankLostError: another rank died before all had met.
        """
        if self.rank:
            # Launchers pass Ctrl-C and their own end on to every process; when to stop is for rank 0 to say.
            ignore_stops()
        with on_loopback() if self.beside == self.size else nullcontext():
            try:
                yield meet_ranks(self.store(), self.rank, self.size, device, self.ended)
            finally:
                part()


def launched_place() -> Place | None:
    """The place that a launcher such as torchrun has given this process; None where none did."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if VARIABLE in os.environ:
        meeting = Meeting(Path(os.environ[VARIABLE]), size)
        return Place(rank, size, local, beside, _once(meeting.store), meeting.ended)
    return Place(rank, size, local, beside, _once(lambda: next(dist.rendezvous("env://", timeout=_STORE_TIMEOUT))[0]))


def _once(make: Callable[[], dist.Store]) -> Callable[[], dist.Store]:
    made: list[dist.Store] = []

    def store() -> dist.Store:
        if not made:
            made.append(make())
        return made[0]

    return store


@contextmanager
def started(size: int, arguments: Sequence[str]) -> Iterator[Place]:
    """Rank 0's place among `size` processes on this host, the others of which run `nhgd-pde` with the arguments."""
    with private_meeting(size) as meeting, _children(meeting, arguments) as children:

        def ended() -> str | None:
            gone = {rank: child for rank, child in children.items() if child.poll() not in (None, 0)}
            # One that has ended because another one did is not the one to name.
            for rank, child in sorted(gone.items(), key=lambda each: each[1].returncode == LEADER_GONE):
                return f"rank {rank} {ending(child)}"
            return None

        yield Place(0, size, 0, size, _once(meeting.store), ended)


@contextmanager
def _children(meeting: Meeting, arguments: Sequence[str]) -> Iterator[dict[int, subprocess.Popen[str]]]:
    """Ranks 1, 2, ... by their numbers; none outlives the `with` block by much."""
    common = {
        "WORLD_SIZE": meeting.size,
        "LOCAL_WORLD_SIZE": meeting.size,
        VARIABLE: meeting.path,
        "OMP_NUM_THREADS": max(torch.get_num_threads() // meeting.size, 1),
    }
    with ExitStack() as stack:
        children = {}
        for rank in range(1, meeting.size):
            more = {name: str(value) for name, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()}
            children[rank] = stack.enter_context(helper(["nhgd_pde", *arguments], {**os.environ, **more}))
        try:
            yield children
        except BaseException:
            for child in children.values():
                child.kill()
            raise


def check_ranks(file: ProblemFile, oracle: object, size: int) -> None:
    """Refuse several ranks for what is not shared by them.

    Raises:
        ProblemError: with what would be right.
    """
    if size == 1:
        return
    if not file.spec.parameters:
        raise file.error("parameters", f"expected random inputs in a run of {size} ranks, which share scenarios")
    if any(isinstance(each, StateSpec) for each in file.spec.constraints):
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


def shared(oracle: Any, team: Team) -> Any:
    """The oracle with its scenarios spread over a team."""
    return replace(oracle, team=team)


def report(team: Team, evaluations: int) -> dict[str, float | int]:
    """For summary.json: the number of ranks, and what rank 0 has handed over.

    An evaluation is one sweep over its scenarios, or two or three of them; `bytes_a_sweep` is the most that one took.

    Args:
        team: the ranks.
        evaluations: of the run.
    """
    if not isinstance(team, Ranks):
        return {"count": 1}
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
