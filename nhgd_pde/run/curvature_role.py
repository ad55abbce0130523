"""The two ends of a run of two roles: the inner role's link, and the curvature role in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..engine.roles.failures import RoleLostError
from ..engine.roles.link import Link, Message
from ..engine.roles.rendezvous import CURVATURE, INNER, give_up, meet
from ..engine.roles.service import CurvatureRole
from ..linalg.threads import at_most_threads
from ..output.sealed import read_sealed, write_sealed
from ..output.storage import writing
from .launcher import launched_role, started
from .signals import ignore_stops

if TYPE_CHECKING:
    from ..problem_file.loading import ProblemFile

# Seconds in which a process ends whose connections are closed.
_LAST_WORDS = 5.0


@contextmanager
def curvature_role(file: ProblemFile, folder: Path | None, device: torch.device) -> Iterator[Link]:
    """The inner role's link to the curvature role, which is started unless a launcher has done so.

    Raises:
        RoleFailedError: the curvature role could not be set up, with its reason.
        RoleLostError: it died before the two had met.
    """
    work = {
        "problem": file.spec.model_dump(mode="json"),
        "path": str(file.path) if file.path is not None else None,
        "folder": str(folder.resolve()) if folder is not None else None,
    }
    with ExitStack() as stack:
        place = launched_role() or stack.enter_context(
            started(2, (), "nhgd_pde.run.curvature_process", json.dumps(work), "the curvature role")
        )

        def met() -> Link:
            link = meet(place.store(), INNER, device, lambda: place.ended(0.0))
            link.explain = lambda: place.ended(_LAST_WORDS)
            return link

        link = stack.enter_context(place.connected(met))
        yield link
        with suppress(RoleLostError):
            link.send(Message.STOP)
            link.flush()


def serve_curvature(file: ProblemFile, folder: Path | None) -> None:
    """Be the curvature role, at the place that this process was given, until the inner role is done.

    Raises:
        RoleLostError: the inner role died.
        ProblemError: this role could not be set up; the inner role has been told.
    """
    from ..choice.method import build_method
    from ..problem_file.errors import ProblemError

    # Launchers pass Ctrl-C and their own end on to every process; the inner role decides when to stop.
    ignore_stops()
    place = launched_role()
    assert place is not None
    try:
        with at_most_threads(1):
            problem, device = _bilevel(file)
        method = build_method(file, problem.inner_shape, device)
        curvature: Any = getattr(method.oracle, "curvature", None)
        if curvature is None:
            raise file.error("method", f"expected nhgd in a run of two roles, found {file.spec.method!r}")
    except ProblemError as error:
        give_up(place.store(), CURVATURE, str(error))
        raise
    with (
        at_most_threads(place.threads),
        place.connected(lambda: meet(place.store(), CURVATURE, device, lambda: place.ended(0.0))) as link,
    ):
        CurvatureRole(problem, curvature, link, CheckpointFiles(folder)).serve()


def _bilevel(file: ProblemFile) -> tuple[Any, torch.device]:
    """The bilevel problem of a file on the device of the curvature role, and this device."""
    spec: Any = file.spec
    if hasattr(spec, "task"):
        task, _ = spec.task.build(file)
        return task, task.device
    from ..building.blueprint import build

    problem = build(file, "curvature")
    return problem, problem.equation.lift.device


@dataclass(frozen=True)
class CheckpointFiles:
    """The curvature role's part of checkpoints, in the run folder; `folder` is None for a run without one."""

    folder: Path | None

    def write(self, name: str, content: dict[str, Any]) -> str:
        folder = self._given()
        # The curvature role may be on a host of its own, where the inner role has made no folder.
        if not folder.exists():
            with writing(folder, "made"):
                folder.mkdir(parents=True, exist_ok=True)
        return write_sealed(folder / name, content)

    def read(self, name: str, checksum: str) -> dict[str, Any]:
        return read_sealed(self._given() / name, checksum)

    def _given(self) -> Path:
        if self.folder is None:
            raise OSError("a run without a folder has no checkpoints")
        return self.folder
