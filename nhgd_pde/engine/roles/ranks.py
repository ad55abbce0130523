"""A team of ranks by torch.distributed: how they meet, and how they exchange data.

Every exchange begins with a short header in which each rank says what it is about to do. So a rank that has failed, or
that does something else, ends the run with a sentence, and the others do not wait for it.
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
from .failures import RankLostError, RanksPartedError, RoleError
from .rendezvous import LONGEST_ANSWER, await_value

# Seconds after which a process whose connections are closed has ended as well.
_LAST_WORDS = 3.0
# Seconds after the first of its threads, by which the last thread of a process that was killed has ended.
_LAST_THREADS = 1.0
# Relative difference up to which two ranks are at the same point, except for rounding.
_SAME = 1e-9


class _Purpose(IntEnum):
    """The purpose of an exchange."""

    CHECK = 1
    MESSAGE = 2
    SUM = 3
    VALUES = 4
    ROWS = 5
    DECISION = 6


@dataclass
class RankTraffic:
    """The traffic of this rank; bytes are those that it has sent.

    Attributes:
        sums: bytes of sums, which have the size of controls and states, whatever the number of scenarios.
        largest: bytes of the largest sum.
        values: bytes of values, one number for each scenario.
        rows: bytes of states and adjoints, for checkpoints and fields.
        waited: seconds spent in exchanges, most of them waiting for other ranks.
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
    """The host, the process and the device of a rank."""

    host: str
    process: int
    device: str

    def ended(self) -> bool:
        """Whether the process has ended; False if it is on another host."""
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
    """The team of this rank.

    Attributes:
        members: where each rank runs.
        group: an NCCL group, if every rank has its own GPU; None: sums go by Gloo.
        explain: how another rank has ended, as a sentence; None if this is not known.
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
        if not bool(self._header(_Purpose.CHECK, flag=failure is not None)[:, 2].any()):
            return
        raise next(each for each in self._objects(failure) if each is not None)

    def first_message(self, message: str) -> str:
        if not bool(self._header(_Purpose.MESSAGE, flag=bool(message))[:, 2].any()):
            return message
        return next(each for each in self._objects(message) if each)

    def summed(self, parts: Sequence[Tensor], v: Tensor | None = None) -> list[Tensor]:
        flat = torch.cat([part.reshape(-1) for part in parts])
        size = flat.numel() * flat.element_size()
        self._header(_Purpose.SUM, size, mark=0.0 if v is None else float(v.norm()))
        self.traffic.sums += size
        self.traffic.largest = max(self.traffic.largest, size)
        pieces = torch.split(self._sum(flat), [part.numel() for part in parts])
        return [piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True)]

    def joined(self, values: Tensor, where: Tensor, count: int) -> Tensor:
        found = super().joined(values, where, count)
        size = found.numel() * found.element_size()
        self._header(_Purpose.VALUES, size)
        self.traffic.values += size
        return self._sum(found.clone())

    def collected(self, rows: Tensor) -> Tensor:
        counts = self._header(_Purpose.ROWS, len(rows))[:, 1].long().tolist()
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
        return bool(self._header(_Purpose.DECISION, flag=choice)[0, 2])

    def _header(self, what: _Purpose, size: int = 0, flag: bool = False, mark: float = 0.0) -> Tensor:
        """(ranks, 4) what every rank is about to do: purpose, size, a flag, and a mark of the point it is at."""
        mine = torch.tensor([what, size, flag, mark], dtype=torch.float64)
        every = [torch.empty_like(mine) for _ in range(self.size)]
        with self._watched():
            dist.all_gather(every, mine)
        self.traffic.headers += mine.numel() * mine.element_size()
        self.traffic.messages += 1
        table = torch.stack(every)
        kinds, sizes, marks = table[:, 0], table[:, 1], table[:, 3]
        apart = (kinds != what) | ((sizes != size) & (what != _Purpose.ROWS))
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
        """The objects of all ranks, by their numbers; used rarely, as it is slow."""
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
        """The exception that names the rank whose process has ended, or else the ranks on other hosts."""
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
        here = self.members[self.rank].host
        elsewhere = [f"{rank} on {member.host}" for rank, member in enumerate(self.members) if member.host != here]
        reason = str(error).splitlines()[0].rpartition("] ")[2].rstrip(". ")
        which = f"one of ranks {', '.join(elsewhere)}" if elsewhere else "another rank"
        return RankLostError(f"{which} is gone ({reason})")


def _text(header: Tensor) -> str:
    what, size, _, mark = header.tolist()
    return f"{_Purpose(int(what)).name.lower()} of {size:.0f} bytes at |v| = {mark:.15g}"


def meet_ranks(
    store: dist.Store, rank: int, size: int, device: torch.device, ended: Callable[[], str | None] = lambda: None
) -> Ranks:
    """Connects the ranks; returns the team of this rank.

    Args:
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
