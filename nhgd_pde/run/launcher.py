"""Processes that work on one run together: starts them, or finds the place that a launcher has given to this one.

The processes share the scenarios of a problem (ranks), or take a role each. Those that are started here run on this
machine and end with this process; a launcher such as torchrun starts processes on several hosts.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist

from ..engine.roles.failures import RoleFailedError
from ..engine.roles.ranks import Ranks, meet_ranks
from ..engine.roles.rendezvous import CURVATURE, give_up, part
from ..problem_file.errors import ProblemError
from .child import LEADER_GONE, ending, helper
from .meeting import VARIABLE, Meeting, on_loopback, private_meeting
from .signals import ignore_stops

if TYPE_CHECKING:
    from ..problem_file.loading import ProblemFile

Connection = TypeVar("Connection")

# How long a process waits for the store of a launcher.
_STORE_TIMEOUT = timedelta(seconds=60)
# Seconds between two looks at whether a process has ended.
_PAUSE = 0.02


@dataclass(frozen=True, eq=False)
class ProcessPlace:
    """The place of this process among several.

    Attributes:
        local: number of this process among those on this host.
        beside: number of processes on this host.
        store: makes the store where the processes meet.
        ended: (seconds to wait) -> how another process has ended, as a sentence; None if none has, or it is not known.
    """

    rank: int
    size: int
    local: int
    beside: int
    store: Callable[[], dist.Store]
    ended: Callable[[float], str | None] = lambda patience: None

    @property
    def threads(self) -> int:
        """Number of threads of this process: a share of the cores of the host, unless the launcher has set it."""
        cores = torch.get_num_threads()
        return cores if "OMP_NUM_THREADS" in os.environ else max(cores // self.beside, 1)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Tells the other processes, which wait for this one, about bad input that only this one may have found."""
        try:
            yield
        except ProblemError as error:
            # They may be gone already, for the same reason.
            with suppress(Exception):
                give_up(self.store(), f"rank/{self.rank}", str(error))
            raise

    @contextmanager
    def connected(self, meet: Callable[[], Connection]) -> Iterator[Connection]:
        """The connection to the other processes that `meet` makes, closed at the end of the `with` block."""
        if self.rank:
            # Launchers pass Ctrl-C and their own end on to every process; rank 0 decides when to stop.
            ignore_stops()
        with on_loopback() if self.beside == self.size else nullcontext():
            try:
                yield meet()
            finally:
                part()

    @contextmanager
    def team(self, device: torch.device) -> Iterator[Ranks]:
        """The team of ranks, once all of them have come.

        Raises:
            RoleFailedError: another rank could not be set up, with its reason.
            RankLostError: another rank died before all had met.
        """
        meet = partial(meet_ranks, rank=self.rank, size=self.size, device=device, ended=lambda: self.ended(0.0))
        with self.connected(lambda: meet(self.store())) as team:
            yield team


def launched_place() -> ProcessPlace | None:
    """The place that a launcher such as torchrun has given to this process; None if there is no launcher."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if VARIABLE in os.environ:
        meeting = Meeting(Path(os.environ[VARIABLE]), size)
        return ProcessPlace(rank, size, local, beside, cache(meeting.store), lambda patience: meeting.ended())
    store = cache(lambda: next(dist.rendezvous("env://", timeout=_STORE_TIMEOUT))[0])
    return ProcessPlace(rank, size, local, beside, store)


def launched_role() -> ProcessPlace | None:
    """The place that a launcher has given to this process as one of two roles; None if there is no launcher.

    Raises:
        RoleFailedError: a launcher has started another number of processes.
    """
    place = launched_place()
    if place is not None and place.size != 2:
        message = f"expected 2 processes, one a role, or random inputs to share; found {place.size} and none"
        raise RoleFailedError(message)
    return place


@contextmanager
def started(
    size: int, arguments: Sequence[str], module: str = "nhgd_pde", work: str = "", name: str = "rank {rank}"
) -> Iterator[ProcessPlace]:
    """Rank 0's place among `size` processes on this host, the others of which are started.

    None of them outlives the `with` block by much.

    Args:
        work: a line that is written to their standard input.
        name: what a process is called, with its rank.
    """
    with private_meeting(size) as meeting, ExitStack() as stack:
        children: dict[int, subprocess.Popen[str]] = {}
        for rank in range(1, size):
            environment = {**os.environ, **_environment(meeting, rank)}
            children[rank] = stack.enter_context(helper([module, *arguments], environment, work))
        try:
            yield ProcessPlace(0, size, 0, size, cache(meeting.store), partial(_ended, children, name))
        except BaseException:
            for child in children.values():
                child.kill()
            raise


def _environment(meeting: Meeting, rank: int) -> dict[str, str]:
    """Where a started process finds its place, see `launched_place`."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(meeting.size),
        "LOCAL_WORLD_SIZE": str(meeting.size),
        VARIABLE: str(meeting.path),
        "OMP_NUM_THREADS": str(max(torch.get_num_threads() // meeting.size, 1)),
    }


def _ended(children: dict[int, subprocess.Popen[str]], name: str, patience: float) -> str | None:
    end = time.monotonic() + patience
    while True:
        gone = {rank: child for rank, child in children.items() if child.poll() not in (None, 0)}
        # A process that has ended because another one did is not the one to name.
        for rank, child in sorted(gone.items(), key=lambda each: each[1].returncode == LEADER_GONE):
            return f"{name.format(rank=rank)} {ending(child)}"
        if time.monotonic() >= end:
            return None
        time.sleep(_PAUSE)


@dataclass(frozen=True, eq=False)
class Assignment:
    """The part of this process in a run.

    Attributes:
        place: its place among the ranks that share the scenarios; None in a run without ranks.
        curvature: this process is the curvature role.
        device: the inner device, where the file asks for any GPU of several; empty else.
    """

    place: ProcessPlace | None = None
    roles: int = 1
    curvature: bool = False
    device: str = ""


@contextmanager
def taking_part(file: ProblemFile, arguments: Sequence[str], ranks: int, roles: int) -> Iterator[Assignment]:
    """The part of this process in a run; other ranks are started if no launcher has done so.

    Raises:
        RoleFailedError: a launcher has started the wrong number of processes.
    """
    place = launched_place()
    if place is None and ranks > 1:
        with started(ranks, arguments) as place:
            yield Assignment(place)
    elif place is None:
        yield Assignment(roles=roles)
    elif ranks > 1 or file.spec.parameters:
        gpus = torch.cuda.device_count() if file.spec.devices.inner == "cuda" else 0
        with place.refusing():
            yield Assignment(place, device=f"cuda:{place.local % gpus}" if gpus else "")
    else:
        launched_role()
        yield Assignment(roles=2, curvature=place.rank == CURVATURE)
