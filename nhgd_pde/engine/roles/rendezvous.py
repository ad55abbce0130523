"""How two roles find each other, and make sure of it before either waits for the other without limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .link import Link, Message, RoleLostError

INNER, CURVATURE = 0, 1
NAMES = {INNER: "inner", CURVATURE: "curvature"}
# An answer may take as long as the update of a very large inverse; a peer that dies is noticed at once.
_LONGEST_ANSWER = timedelta(minutes=20)
_LONGEST_START = 300.0


class RoleFailedError(RuntimeError):
    """The other role ended before the two had met, for the reason it gives."""


def meet(store: dist.Store, rank: int, device: torch.device, alive: Callable[[], str | None] = lambda: None) -> Link:
    """Connect the two roles; returns this one's end of the link.

    Args:
        store: reached by both.
        rank: `INNER` or `CURVATURE`.
        device: of this role.
        alive: asked while waiting: None, or a sentence on why the other role will not come any more.

    Raises:
        RoleFailedError: the other role gave up, with its reason.
        RoleLostError: the other role did not come.
    """
    peer = 1 - rank
    name = NAMES[peer]
    store.set(f"nhgd/ready/{rank}", str(device))
    theirs = torch.device(_wait(store, f"nhgd/ready/{peer}", peer, alive))
    try:
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=_LONGEST_ANSWER)
        # Two GPUs of one host, or GPUs of two hosts; one GPU cannot be two NCCL ranks.
        host = _exchange(store, rank, peer, alive)
        direct = device.type == theirs.type == "cuda" and (device != theirs or not host)
        ways = [_groups(direct) for _ in (INNER, CURVATURE)]
        wire = device if direct else torch.device("cpu")
        link = Link(peer, name, ways[rank], ways[peer], device, wire)
        _warm_up(link, rank)
    except RuntimeError as error:
        raise RoleLostError(f"the {name} role did not connect: {str(error).splitlines()[0]}") from error
    return link


def give_up(store: dist.Store, rank: int | str, reason: str) -> None:
    """Tell the others why this role or rank will not come."""
    store.set(f"nhgd/failed/{rank}", reason)


def part() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _wait(store: dist.Store, key: str, peer: int, alive: Callable[[], str | None]) -> str:
    end = time.monotonic() + _LONGEST_START
    while not store.check([key]):
        if store.check([f"nhgd/failed/{peer}"]):
            raise RoleFailedError(store.get(f"nhgd/failed/{peer}").decode())
        gone = alive()
        if gone is not None:
            raise RoleLostError(gone)
        if time.monotonic() > end:
            raise RoleLostError(f"the {NAMES[peer]} role did not come within {_LONGEST_START:.0f} s")
        time.sleep(0.01)
    return store.get(key).decode()


def _exchange(store: dist.Store, rank: int, peer: int, alive: Callable[[], str | None]) -> bool:
    """Whether both roles run on one host."""
    import socket

    store.set(f"nhgd/host/{rank}", socket.gethostname())
    return _wait(store, f"nhgd/host/{peer}", peer, alive) == socket.gethostname()


def _groups(direct: bool) -> tuple[Any, Any]:
    """A Gloo group, and between two GPUs an NCCL group."""
    return dist.new_group(backend="gloo"), dist.new_group(backend="nccl") if direct else None


def _warm_up(link: Link, rank: int) -> None:
    """The first message of a pair sets up its connections, in an order that cannot block."""
    one: list[Tensor] = [torch.ones(1, dtype=torch.float64)]
    if rank == INNER:
        link.send(Message.ANSWER, one)
        link.receive()
    else:
        link.receive()
        link.send(Message.ANSWER, one)
    link.flush()
