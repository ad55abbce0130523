"""Messages between two roles: a short header and tensors, by torch.distributed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .failures import RoleLostError

# Bytes of a frame, the first piece of every message: a header of integers (kind, number of tensors, then for each
# of them its type, its number of axes and their lengths), and the tensors, as far as they all fit in.
_FRAME = 2**15
_HEADER = 32
_MOST_AXES = 4
_TYPES = (torch.float64, torch.float32, torch.int64, torch.uint8)


class Message(IntEnum):
    """The kinds of messages: requests of the inner role to the curvature role, and the answers."""

    INIT = 1
    ABSORB = 2
    SOLVE = 3
    ESTIMATE = 4
    REFRESH = 5
    ANTICIPATE = 6
    ADOPT = 7
    DESCRIBE = 8
    SAVE = 9
    RESTORE = 10
    STOP = 11
    NEWTON_STEP = 12
    ADJOINT = 13
    CROSS_BEGIN = 14
    CROSS_ADD = 15
    CROSS_PRODUCT = 16
    HYPERGRADIENT = 17
    ANSWER = 20
    FAILURE = 21


@dataclass
class Traffic:
    """The traffic over a link.

    Attributes:
        waited: seconds spent waiting for the other role.
        peer_busy: seconds that the other role has worked, from its last answer.
    """

    sent: int = 0
    messages: int = 0
    waited: float = 0.0
    peer_busy: float = 0.0


@dataclass
class Link:
    """One end of the connection between two roles.

    Sends return at once; at most `ring` messages are on their way, so that memory stays bounded. Each direction has a
    process group, because two NCCL ranks that send to each other in one group can block each other.

    Attributes:
        peer: rank of the other role.
        name: name of the other role, for messages.
        outgoing, incoming: process groups of the two directions.
        wire: device that tensors travel on: the GPU between two GPUs (NCCL), else the CPU (Gloo).
        device: where received tensors are wanted.
        ring: largest number of messages on their way.
        explain: how the other role has ended, as a sentence; None if this is not known.
    """

    peer: int
    name: str
    outgoing: Any
    incoming: Any
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wire: torch.device = field(default_factory=lambda: torch.device("cpu"))
    ring: int = 8
    traffic: Traffic = field(default_factory=Traffic)
    explain: Callable[[], str | None] = lambda: None
    _flying: deque[tuple[list[Any], list[Tensor]]] = field(default_factory=deque)

    def send(self, kind: Message, tensors: Sequence[Tensor] = ()) -> None:
        """Send tensors, which must not be changed afterwards; raises `RoleLostError` if the other role is gone."""
        frame = torch.zeros(_FRAME, dtype=torch.uint8)
        header = frame[: 8 * _HEADER].view(torch.int64)
        header[0], header[1] = int(kind), len(tensors)
        place = 2
        for tensor in tensors:
            entry = [_TYPES.index(tensor.dtype), tensor.ndim, *tensor.shape]
            header[place : place + len(entry)] = torch.tensor(entry)
            place += 2 + _MOST_AXES
        payload = [tensor.detach().contiguous().to(self.wire) for tensor in tensors]
        if self._framed(payload):
            for part, raw in _parts(frame, payload):
                part.copy_(raw)
            payload = []
        try:
            while len(self._flying) >= self.ring:
                self._landed()
            # Gloo takes the frame even where tensors go by NCCL, so that reading it needs no GPU.
            works = [dist.isend(frame, self.peer, group=self.outgoing[0])]
            works += [dist.isend(tensor, self.peer, group=self._group(self.outgoing)) for tensor in payload]
        except RuntimeError as error:
            raise self._lost(error) from error
        self._flying.append((works, [frame, *payload]))
        self.traffic.messages += 1
        self.traffic.sent += sum(tensor.numel() * tensor.element_size() for tensor in (frame, *payload))

    def receive(self) -> tuple[Message, list[Tensor]]:
        """Wait for the next message; raises `RoleLostError` if the other role is gone."""
        start = time.perf_counter()
        frame = torch.empty(_FRAME, dtype=torch.uint8)
        try:
            dist.recv(frame, self.peer, group=self.incoming[0])
            self.traffic.waited += time.perf_counter() - start
            kind, count, *entries = frame[: 8 * _HEADER].view(torch.int64).tolist()
            tensors = []
            for k in range(count):
                which, axes, *shape = entries[k * (2 + _MOST_AXES) : (k + 1) * (2 + _MOST_AXES)]
                tensors.append(torch.empty(shape[:axes], dtype=_TYPES[which], device=self.wire))
            if self._framed(tensors):
                for part, raw in _parts(frame, tensors):
                    raw.copy_(part)
            else:
                for tensor in tensors:
                    dist.recv(tensor, self.peer, group=self._group(self.incoming))
        except RuntimeError as error:
            raise self._lost(error) from error
        return Message(kind), [t if t.dtype == torch.uint8 else t.to(self.device) for t in tensors]

    def flush(self) -> None:
        """Wait until everything sent has arrived."""
        try:
            while self._flying:
                self._landed()
        except RuntimeError as error:
            raise self._lost(error) from error

    def _landed(self) -> None:
        works, _ = self._flying.popleft()
        # A second wait on a Gloo send hangs: each is waited for once.
        for work in works:
            work.wait()

    def _framed(self, tensors: Sequence[Tensor]) -> bool:
        """Whether all tensors fit into the frame, so that the message is one piece."""
        size = sum(_padded(tensor.numel() * tensor.element_size()) for tensor in tensors)
        return self.wire.type == "cpu" and 8 * _HEADER + size <= _FRAME

    def _group(self, groups: Any) -> Any:
        return groups[1] if self.wire.type == "cuda" else groups[0]

    def _lost(self, error: RuntimeError) -> RoleLostError:
        self._flying.clear()
        reason = str(error).splitlines()[0].rpartition("] ")[2].rstrip(". ")
        return RoleLostError(self.explain() or f"the {self.name} role is gone ({reason})")


def _parts(frame: Tensor, tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """For each tensor its place in the frame, and its bytes."""
    place = 8 * _HEADER
    for tensor in tensors:
        raw = tensor.view(-1).view(torch.uint8)
        yield frame[place : place + raw.numel()], raw
        place += _padded(raw.numel())


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def text_tensor(text: str) -> Tensor:
    return torch.tensor(list(text.encode()) or [32], dtype=torch.uint8)


def tensor_text(tensor: Tensor) -> str:
    return bytes(tensor.tolist()).decode()
