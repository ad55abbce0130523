"""How processes find each other: each waits for the others, but not without limit."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from .failures import RoleError, RoleFailedError, RoleLostError
from .link import Link, Message

INNER, CURVATURE = 0, 1
NAMES = {INNER: "inner", CURVATURE: "curvature"}
# An answer may take as long as the update of a very large inverse; a peer that dies is noticed at once.
LONGEST_ANSWER = timedelta(minutes=20)
# Seconds that a process waits for another one to come, and between two looks.
_LONGEST_START, _PAUSE = 300.0, 0.01


def meet(store: dist.Store, rank: int, device: torch.device, alive: Callable[[], str | None] = lambda: None) -> Link:
    """Connects the two roles; returns the end of the link of this role.

    Args:
        alive: asked while waiting: None, or a sentence on why the other role will not come any more.

    Raises:
        RoleFailedError: the other role gave up, with its reason.
        RoleLostError: the other role did not come.
    """
    peer, host = 1 - rank, socket.gethostname()
    name = NAMES[peer]
    store.set(f"nhgd/ready/{rank}", f"{device} {host}")
    found = await_value(store, f"nhgd/ready/{peer}", [peer], f"the {name} role", alive, RoleLostError)
    device_name, there = found.split(" ", 1)
    theirs = torch.device(device_name)
    try:
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=LONGEST_ANSWER)
        # Two GPUs of one host, or GPUs of two hosts; one GPU cannot be two NCCL ranks.
        direct = device.type == theirs.type == "cuda" and (device != theirs or host != there)
        # Each way has a Gloo group, and between two GPUs an NCCL group.
        ways = [(dist.new_group(backend="gloo"), dist.new_group(backend="nccl") if direct else None) for _ in NAMES]
        wire = device if direct else torch.device("cpu")
        link = Link(peer, name, ways[rank], ways[peer], device, wire)
        _warm_up(link, rank)
    except RuntimeError as error:
        raise RoleLostError(f"the {name} role did not connect: {str(error).splitlines()[0]}") from error
    return link


def give_up(store: dist.Store, rank: int | str, reason: str) -> None:
    """Tells the other processes why this role or rank will not come."""
    store.set(f"nhgd/failed/{rank}", reason)


def part() -> None:
    """Leaves the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def await_value(
    store: dist.Store,
    key: str,
    others: Sequence[int | str],
    who: str,
    ended: Callable[[], str | None],
    lost: Callable[[str], RoleError],
) -> str:
    """Waits for the value of a key that another process sets.

    Args:
        others: the processes that may give up, as they say so to `give_up`.
        who: what the process that sets the key is called, for messages.
        ended: asked while waiting: None, or a sentence on which process will not come any more.
        lost: makes the exception if a process does not come.

    Raises:
        RoleFailedError: a process gave up, with its reason.
    """
    end = time.monotonic() + _LONGEST_START
    while not store.check([key]):
        for other in others:
            if store.check([f"nhgd/failed/{other}"]):
                raise RoleFailedError(store.get(f"nhgd/failed/{other}").decode())
        gone = ended()
        if gone is not None:
            raise lost(gone)
        if time.monotonic() > end:
            raise lost(f"{who} did not come within {_LONGEST_START:.0f} s")
        time.sleep(_PAUSE)
    return store.get(key).decode()


def _warm_up(link: Link, rank: int) -> None:
    """The first message of a pair sets up its connections, in an order that cannot block."""
    if rank == CURVATURE:
        link.receive()
    link.send(Message.ANSWER, [torch.ones(1, dtype=torch.float64)])
    if rank == INNER:
        link.receive()
    link.flush()
