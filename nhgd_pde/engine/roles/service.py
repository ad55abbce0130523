"""The curvature role: it owns the inverse, absorbs scores while the inner role goes on, and answers its questions."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ...linalg.factorisation import SingularMatrixError
from ..bilevel import BilevelProblem
from ..curvature.base import Curvature
from ..running_cross import LocalCross
from .link import Link, Message, tensor_text, text_tensor


class Files(Protocol):
    """The files of a run that have checkpoints of the inverse; both methods may raise an OSError."""

    def write(self, name: str, content: dict[str, Any]) -> str:
        """Write a file; returns its checksum."""
        ...

    def read(self, name: str, checksum: str) -> dict[str, Any]:
        """The content of a file, which has to have this checksum."""
        ...


# How the names of these files begin: checkpoint-curvature-1.pt, checkpoint-curvature-2.pt, ...
STEM = "checkpoint-curvature-"


# Work that nobody waits for.
_UNANSWERED = (Message.ABSORB, Message.ANTICIPATE, Message.CROSS_BEGIN, Message.CROSS_ADD)
# The messages that put one question to the state of the inverse, which has a method of the same name for each.
_QUESTIONS = (Message.SOLVE, Message.ESTIMATE, Message.NEWTON_STEP, Message.ADJOINT)


@dataclass
class CurvatureRole:
    """The state of the role.

    Attributes:
        problem: the bilevel problem; only the parts that the inverse is made from are used.
        busy: seconds spent on the inverse.
    """

    problem: BilevelProblem
    curvature: Curvature[Any]
    link: Link
    files: Files
    busy: float = 0.0
    _state: Any = None
    _cross: LocalCross | None = None
    _later: Future[Any] | None = None
    _background: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _failure: Exception | None = None
    _saved: int = 0

    def serve(self) -> None:
        """Answers messages until one says to stop; raises `RoleLostError` if the inner role is gone."""
        reported = replace(self.problem.counts)
        while True:
            kind, tensors = self.link.receive()
            start = time.perf_counter()
            if kind == Message.STOP:
                return
            answer: list[Tensor] | None = None
            if self._failure is None:
                try:
                    answer = self._handle(kind, tensors)
                except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, OSError) as error:
                    self._failure = error
            self.busy += time.perf_counter() - start
            if kind in _UNANSWERED:
                continue
            # A failure of work that nobody waits for is reported with the next answer.
            if self._failure is not None:
                self.link.send(Message.FAILURE, (text_tensor(_failure_text(self._failure)),))
                self._failure = None
                continue
            done = self.problem.counts - reported
            reported = replace(self.problem.counts)
            trust = float(self._state.trust) if self._state is not None else 0.0
            report = torch.tensor([trust, self.busy, *done.as_dict().values()], dtype=torch.float64)
            self.link.send(Message.ANSWER, (*(answer or ()), report))

    def _handle(self, kind: Message, tensors: list[Tensor]) -> list[Tensor] | None:
        match kind:
            case Message.INIT:
                self._state = self.curvature.init(self.problem, *tensors)
            case Message.ABSORB:
                self._state = self.curvature.absorb(self._state, tensors[0])
            case kind if kind in _QUESTIONS:
                return [getattr(self._state, kind.name.lower())(tensors[0])]
            case Message.REFRESH:
                self._state = self.curvature.refresh(self._state, self.problem, *tensors)
            case Message.ANTICIPATE:
                # The old state goes on answering; sparse factorisations release the lock of the interpreter.
                self._later = self._background.submit(self.curvature.refresh, self._state, self.problem, *tensors)
            case Message.ADOPT:
                assert self._later is not None
                self._state = self._later.result()
            case Message.CROSS_BEGIN | Message.CROSS_ADD | Message.CROSS_PRODUCT | Message.HYPERGRADIENT:
                return self._handle_cross(kind, tensors)
            case Message.DESCRIBE:
                return [text_tensor(self._state.description)]
            case Message.SAVE:
                # A new name each time: that of the last checkpoint stays whole until the next one is.
                self._saved += 1
                name = f"{STEM}{self._saved}.pt"
                checksum = self.files.write(name, self.curvature.save(self._state))
                return [text_tensor(f"{name} {checksum}")]
            case Message.RESTORE:
                name, _, checksum = tensor_text(tensors[0]).partition(" ")
                content = self.files.read(name, checksum)
                self._saved = int(Path(name).stem.removeprefix(STEM))
                self._state = self.curvature.restore(self.problem, content)
                return list(self._state.point) if self.curvature.pointwise else None
            case _:
                raise ValueError(f"the curvature role does not know message {kind!r}")
        return None

    def _handle_cross(self, kind: Message, tensors: list[Tensor]) -> list[Tensor] | None:
        """L_t, the running mean of the cross derivatives of one inner loop, and the hypergradient grad_v f - L_t q."""
        if kind == Message.CROSS_BEGIN:
            v, steps = tensors
            self._cross = LocalCross(self.problem, v, int(steps))
            return None
        assert self._cross is not None
        if kind == Message.CROSS_ADD:
            self._cross.add_data(*tensors)
            return None
        if kind == Message.CROSS_PRODUCT:
            return [self._cross(tensors[0])]
        by_u, by_v, debias = tensors
        q = self._state.estimate(by_u) if bool(debias) else self._state.solve(by_u)
        indirect = -self._cross(q)
        return [q, indirect, by_v + indirect]


def _failure_text(error: Exception) -> str:
    kind = "singular" if isinstance(error, SingularMatrixError) else "failed"
    # A file that cannot be written says nothing against the inverse.
    kind = "storage" if isinstance(error, OSError) else kind
    return f"{kind}: {error}"
