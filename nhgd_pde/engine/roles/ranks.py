"""A team of processes by torch.distributed: how its members meet, and what goes between them.

Every exchange begins with a short header in which the ranks say what they are about to do, so that one that has failed,
or has gone another way, ends the run with a sentence and not with processes that wait for each other.
"""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..scenarios.team import Team
from .link import RoleError
from .rendezvous import LONGEST_ANSWER, await_value

# Seconds after which a process whose connections are closed has ended as well.
_LAST_WORDS = 3.0
# Seconds after the first of its threads, by which the last thread of a process that was killed has ended.
_LAST_THREADS = 1.0
# Relative difference of the points that two ranks are at which is rounding; beyond, they have parted.
_SAME = 1e-9


class RankLostError(RoleError):
    """The process of another rank is gone."""


class RanksPartedError(RoleError):
    """The ranks do not do the same any more."""


class _What(IntEnum):
    """What an exchange is about."""

    CHECK = 1
    MESSAGE = 2
    SUM = 3
    VALUES = 4
    ROWS = 5
    DECISION = 6


@dataclass
class RankTraffic:
    """Bytes that this rank has handed over, by what they are.

    Attributes:
        sums: of the size of controls and states, whatever the number of scenarios.
        largest: of the largest such message.
        values: one number a scenario.
        rows: states and adjoints, for checkpoints and fields.
        headers: of all messages.
        messages: their number.
        waited: seconds spent waiting for other ranks and for the way.
    """

    sums: int = 0
    largest: int = 0
    values: int = 0
    rows: int = 0
    headers: int = 0
    messages: int = 0
    waited: float = 0.0

    @property
    def total(self) -> int:
        return self.sums + self.values + self.rows + self.headers


@dataclass(frozen=True)
class Member:
    """Where a rank runs."""

    host: str
    process: int
    device: str

    def ended(self) -> bool:
        """It runs on this host no more; False where it is on another."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.process, 0)
            stat = Path(f"/proc/{self.process}/stat")
            return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            return True


@dataclass(frozen=True, eq=False)
class Ranks(Team):
    """
    Attributes:
        members: of every rank.
        device: of this rank.
        group: of NCCL, where every rank has a GPU of its own; else None: sums go by Gloo.
        traffic: what this rank has handed over.
        explain: how another rank has ended, as a sentence, where that is known.
    """

    members: tuple[Member, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    group: Any = None
    traffic: RankTraffic = field(default_factory=RankTraffic)
    explain: Callable[[], str | None] = lambda: None

    @contextmanager
    def together(self) -> Iterator[None]:
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        if not bool(self._header(_What.CHECK, flag=failure is not None)[:, 2].any()):
            return
        raise next(each for each in self._objects(failure) if each is not None)

    def told(self, message: str) -> str:
        if not bool(self._header(_What.MESSAGE, flag=bool(message))[:, 2].any()):
            return message
        return next(each for each in self._objects(message) if each)

    def summed(self, parts: Sequence[Tensor], v: Tensor | None = None) -> list[Tensor]:
        flat = torch.cat([part.reshape(-1) for part in parts])
        size = flat.numel() * flat.element_size()
        self._header(_What.SUM, size, mark=0.0 if v is None else float(v.norm()))
        self.traffic.sums += size
        self.traffic.largest = max(self.traffic.largest, size)
        pieces = torch.split(self._sum(flat), [part.numel() for part in parts])
        return [piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True)]

    def joined(self, values: Tensor, where: Tensor, count: int) -> Tensor:
        found = super().joined(values, where, count)
        size = found.numel() * found.element_size()
        self._header(_What.VALUES, size)
        self.traffic.values += size
        return self._sum(found.clone())

    def collected(self, rows: Tensor) -> Tensor:
        counts = self._header(_What.ROWS, len(rows))[:, 1].long().tolist()
        with self._watched():
            if self.rank:
                if len(rows):
                    dist.send(rows.detach().cpu().contiguous(), 0)
                    self.traffic.rows += rows.numel() * rows.element_size()
                return rows[:0]
            found = rows.new_empty(sum(counts), rows.shape[1])
            found[:: self.size] = rows
            for rank, count in enumerate(counts[1:], start=1):
                if count:
                    theirs = torch.empty(count, rows.shape[1], dtype=rows.dtype)
                    dist.recv(theirs, rank)
                    found[rank :: self.size] = theirs.to(rows.device)
        return found

    def decided(self, choice: bool) -> bool:
        return bool(self._header(_What.DECISION, flag=choice)[0, 2])

    def _header(self, what: _What, size: int = 0, flag: bool = False, mark: float = 0.0) -> Tensor:
        """(ranks, 4) what every rank is about to do: kind, size, a flag, and a mark of where it is."""
        mine = torch.tensor([what, size, flag, mark], dtype=torch.float64)
        every = [torch.empty_like(mine) for _ in range(self.size)]
        with self._watched():
            dist.all_gather(every, mine)
        self.traffic.headers += mine.numel() * mine.element_size()
        self.traffic.messages += 1
        table = torch.stack(every)
        kinds, sizes, marks = table[:, 0], table[:, 1], table[:, 3]
        apart = (kinds != what) | ((sizes != size) & (what != _What.ROWS))
        apart |= ~((marks - mark).abs() <= _SAME * abs(mark)) & ~(marks.isnan() & torch.isnan(mine[3]))
        if bool(apart.any()):
            other = int(torch.nonzero(apart)[0])
            raise RanksPartedError(
                f"ranks {self.rank} and {other} have parted, one at {_text(mine)}, the other at {_text(table[other])}: "
                "all ranks need the same files, the same versions and processors of one kind"
            )
        return table

    def _sum(self, flat: Tensor) -> Tensor:
        with self._watched():
            if self.group is not None:
                dist.all_reduce(flat, group=self.group)
                return flat
            there = flat.cpu()
            dist.all_reduce(there)
        return there.to(flat.device)

    def _objects(self, mine: Any) -> list[Any]:
        """One of every rank; rare, and as long as it takes."""
        try:
            packed = pickle.dumps(mine)
            pickle.loads(packed)
        except Exception:
            packed = pickle.dumps(RuntimeError(f"rank {self.rank}: {type(mine).__name__}: {mine}"))
        every: list[Any] = [None] * self.size
        with self._watched():
            dist.all_gather_object(every, packed)
        # One's own stays the object that it is, with its traceback.
        return [mine if rank == self.rank else pickle.loads(each) for rank, each in enumerate(every)]

    @contextmanager
    def _watched(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        except RuntimeError as error:
            raise self._lost(error) from error
        finally:
            self.traffic.waited += time.perf_counter() - start

    def _lost(self, error: RuntimeError) -> RankLostError:
        """Which rank is gone: its process has ended; a rank on another host is told by its connection alone."""
        end, gone = time.monotonic() + _LAST_WORDS, ""
        while time.monotonic() < end:
            known = self.explain()
            if known is not None:
                return RankLostError(known)
            ended = [rank for rank, member in enumerate(self.members) if rank != self.rank and member.ended()]
            if ended and not gone:
                # How a process has ended is known once the last of its threads has, which is a little later.
                gone = f"rank {ended[0]} (process {self.members[ended[0]].process}) is gone"
                end = min(end, time.monotonic() + _LAST_THREADS)
            time.sleep(0.02)
        if gone:
            return RankLostError(gone)
        elsewhere = [
            f"{rank} on {member.host}"
            for rank, member in enumerate(self.members)
            if member.host != self.members[self.rank].host
        ]
        reason = str(error).splitlines()[0].rpartition("] ")[2].rstrip(". ")
        which = f"one of ranks {', '.join(elsewhere)}" if elsewhere else "another rank"
        return RankLostError(f"{which} is gone ({reason})")


def _text(header: Tensor) -> str:
    what, size, _, mark = header.tolist()
    return f"{_What(int(what)).name.lower()} of {size:.0f} bytes at |v| = {mark:.15g}"


def meet_ranks(
    store: dist.Store, rank: int, size: int, device: torch.device, ended: Callable[[], str | None] = lambda: None
) -> Ranks:
    """Connect the ranks; returns this one's team.

    Args:
        store: reached by all.
        rank: of this process.
        size: number of ranks.
        device: of this rank.
        ended: asked while waiting: None, or a sentence on which rank will not come any more.

    Raises:
        RoleFailedError: a rank gave up, with its reason.
        RankLostError: a rank did not come.
    """
    host = socket.gethostname()
    store.set(f"nhgd/rank/{rank}", f"{device} {os.getpid()} {host}")
    everybody = [f"rank/{other}" for other in range(size)]
    members = []
    for other in range(size):
        who = f"rank {other} of {size}"
        found = await_value(store, f"nhgd/rank/{other}", everybody, who, ended, RankLostError)
        where, process, there = found.split(" ", 2)
        members.append(Member(there, int(process), where))
    try:
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=LONGEST_ANSWER)
        places = {(member.host, member.device) for member in members}
        direct = len(places) == size and all(member.device.startswith("cuda") for member in members)
        group = dist.new_group(backend="nccl") if direct else None
        team = Ranks(rank, size, tuple(members), device, group, explain=ended)
        # The first message sets up the connections.
        team.decided(True)
    except RoleError:
        raise
    except RuntimeError as error:
        raise RankLostError(f"the {size} ranks did not connect: {str(error).splitlines()[0]}") from error
    return team
