"""A backend whose inverse is in the process of the curvature role."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...linalg.counts import Counts
from ...linalg.factorisation import SingularMatrixError
from ..bilevel import BilevelProblem, InnerBatch
from ..running_cross import LocalCross, RunningCross, cross_data
from .failures import RemoteError, RemoteStorageError, RoleLostError
from .link import Link, Message, tensor_text, text_tensor
from .service import STEM, Files


@dataclass(frozen=True)
class RemoteState:
    """A handle of the inverse that the curvature role owns.

    Attributes:
        anticipated: the point where the curvature role has begun to rebuild its inverse.
        _last: the last report of the curvature role, and the point of a pointwise inverse. All handles share it, as
            they share the inverse.
    """

    link: Link
    counts: Counts
    anticipated: tuple[Tensor, Tensor] | None = None
    _last: dict[str, Any] = field(default_factory=lambda: {"trust": 0.0})

    def solve(self, g: Tensor) -> Tensor:
        return self.ask(Message.SOLVE, g)[0]

    def begin(self, g: Tensor) -> Callable[[], Tensor]:
        self.link.send(Message.SOLVE, (g,))
        return lambda: self._answer()[0]

    def estimate(self, g: Tensor) -> Tensor:
        return self.ask(Message.ESTIMATE, g)[0]

    def newton_step(self, residual: Tensor) -> Tensor:
        return self.ask(Message.NEWTON_STEP, residual)[0]

    def adjoint(self, g: Tensor) -> Tensor:
        return self.ask(Message.ADJOINT, g)[0]

    @property
    def point(self) -> tuple[Tensor, Tensor]:
        """The point of the inverse as it is in the curvature role, the same for all handles."""
        return self._last["point"]

    @property
    def trust(self) -> float:
        """The trust of the inverse when it answered last."""
        return self._last["trust"]

    @property
    def description(self) -> str:
        try:
            return tensor_text(self.ask(Message.DESCRIBE)[0])
        except RoleLostError:
            return "lost with its role"

    def ask(self, kind: Message, *tensors: Tensor) -> list[Tensor]:
        """Send a question and wait for its answer."""
        self.link.send(kind, tensors)
        return self._answer()

    def _answer(self) -> list[Tensor]:
        answer, found = self.link.receive()
        if answer == Message.FAILURE:
            name, _, text = tensor_text(found[0]).partition(": ")
            if name == "singular":
                raise SingularMatrixError(text)
            if name == "storage":
                raise RemoteStorageError(text)
            raise RemoteError(f"the curvature role failed: {text}")
        *found, state = found
        self._last["trust"] = float(state[0])
        self.link.traffic.peer_busy = float(state[1])
        for name, more in zip(self.counts.as_dict(), state[2:].tolist(), strict=True):
            setattr(self.counts, name, getattr(self.counts, name) + int(more))
        return found


@dataclass(frozen=True)
class RemoteCross:
    """The running mean of the cross derivatives, kept by the curvature role.

    The batches are sent and are added there while the inner role goes on. The curvature role also forms the
    hypergradient, as device 2 does in Figure 1 of the paper.
    """

    state: RemoteState

    def add(self, batch: InnerBatch) -> None:
        self.state.link.send(Message.CROSS_ADD, cross_data(batch))

    def __call__(self, q: Tensor) -> Tensor:
        return self.state.ask(Message.CROSS_PRODUCT, q)[0]

    def hypergradient(self, by_u: Tensor, by_v: Tensor, debias: bool) -> tuple[Tensor, Tensor, Tensor]:
        q, indirect, h = self.state.ask(Message.HYPERGRADIENT, by_u, by_v, torch.tensor([int(debias)]))
        return q, indirect, h


@dataclass(frozen=True)
class Remote:
    """The backend of the inner role, which asks the curvature role.

    Batches of scores are sent and are absorbed there while the inner role goes on. Only a question waits for its
    answer; by then every batch that was sent before it has been absorbed.

    Attributes:
        link: to the curvature role, which knows the options of the backend.
        files: where the inverse of a checkpoint of a run of one role is written, for the curvature role to read.
    """

    link: Link
    pointwise: bool = False
    iterated: bool = False
    files: Files | None = None

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> RemoteState:
        state = RemoteState(self.link, problem.counts)
        state.ask(Message.INIT, u, v)
        state._last["point"] = (u, v)
        return state

    def absorb(self, state: RemoteState, scores: Tensor) -> RemoteState:
        self.link.send(Message.ABSORB, (scores,))
        return state

    def refresh(self, state: RemoteState, problem: BilevelProblem, u: Tensor, v: Tensor) -> RemoteState:
        point = state.anticipated
        if point is not None and torch.equal(point[0], u) and torch.equal(point[1], v):
            state.ask(Message.ADOPT)
        else:
            state.ask(Message.REFRESH, u, v)
        state._last["point"] = (u, v)
        return replace(state, anticipated=None)

    def anticipate(self, state: RemoteState, problem: BilevelProblem, u: Tensor, v: Tensor) -> RemoteState:
        self.link.send(Message.ANTICIPATE, (u, v))
        return replace(state, anticipated=(u, v))

    def running_cross(self, problem: BilevelProblem, v: Tensor, first: InnerBatch, steps: int) -> RunningCross:
        """In the curvature role, unless the problem gives cross derivatives as functions only, which are not sent."""
        if first.cross_point is None and first.cross_factors is None:
            return LocalCross(problem, v, steps)
        self.link.send(Message.CROSS_BEGIN, (v, torch.tensor([steps])))
        return RemoteCross(RemoteState(self.link, problem.counts))

    def save(self, state: RemoteState) -> dict[str, Any]:
        """The name and the checksum of the file that the curvature role writes its inverse to."""
        name, _, checksum = tensor_text(state.ask(Message.SAVE)[0]).partition(" ")
        return {"file": name, "sha256": checksum}

    def restore(self, problem: BilevelProblem, saved: dict[str, Any]) -> RemoteState:
        name, checksum = saved.get("file"), saved.get("sha256")
        if name is None:
            if self.files is None:
                raise ValueError("the inverse of a run of one role needs a folder to go to the curvature role")
            name = f"{STEM}0.pt"
            checksum = self.files.write(name, saved)
        state = RemoteState(self.link, problem.counts)
        state._last["point"] = tuple(state.ask(Message.RESTORE, text_tensor(f"{name} {checksum}")))
        return state
