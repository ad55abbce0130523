"""Starts the curvature role beside this process, or takes this process' place among those a launcher started."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from ..engine.nhgd import NHGD
from ..engine.roles.link import Link, Message, RoleLostError
from ..engine.roles.rendezvous import CURVATURE, INNER, give_up, meet, part
from ..engine.roles.service import CurvatureRole
from ..linalg.threads import at_most_threads
from ..output.sealed import read_sealed, write_sealed
from ..output.storage import writing
from .child import ending, helper
from .meeting import Meeting, on_loopback, private_meeting
from .signals import ignore_stops

if TYPE_CHECKING:
    from ..problem_file.loading import ProblemFile

_STORE_TIMEOUT = timedelta(seconds=60)
_LAST_WORDS = 5.0


def launched_rank() -> int | None:
    """This process' rank where a launcher such as torchrun started it as one of two; None where none did.

    Raises:
        ValueError: a launcher started another number of processes.
    """
    size = os.environ.get("WORLD_SIZE")
    if size is None or "RANK" not in os.environ:
        return None
    if size != "2":
        raise ValueError(f"expected 2 processes, one a role, or random inputs to share; found {size} and none")
    return int(os.environ["RANK"])


def check_roles(file: ProblemFile, oracle: object, roles: int, stages: int = 1) -> None:
    """Refuse a number of roles that the method or the devices do not go with.

    Raises:
        ProblemError: with what would be right.
    """
    names = file.spec.devices
    inner = "cpu" if names.inner == "auto" else names.inner
    if roles not in (1, 2):
        raise ValueError(f"roles: expected 1 or 2, found {roles}")
    if roles == 2 and file.spec.parameters:
        raise file.error(
            "parameters",
            "expected none in a run of two roles, as all scenarios share one inverse: --ranks shares the scenarios",
        )
    if roles == 2 and not isinstance(oracle, NHGD):
        raise file.error("method", f"expected nhgd in a run of two roles, found {file.spec.method!r}")
    if roles == 2 and stages > 1:
        # The curvature role builds the last of them only.
        why = "continuations and bounds of the state take several"
        message = f"expected a problem of one stage in a run of two roles, found {stages}: {why}, use one role"
        raise file.error("name", message)
    if roles == 1 and names.curvature not in ("auto", inner):
        message = f"expected auto or {inner!r}, the inner device, in a run of one role; found {names.curvature!r}"
        raise file.error("devices.curvature", message + " (--roles 2 uses both)")


def threads_of_a_role() -> int:
    """Half of the cores, at least one."""
    return max(torch.get_num_threads() // 2, 1)


@contextmanager
def curvature_role(file: ProblemFile, folder: Path | None, device: torch.device) -> Iterator[Link]:
    """The inner role's link to the curvature role, which is started unless a launcher has done so.

    Args:
        file: the problem file, which the curvature role builds for itself.
        folder: where that role writes its part of a checkpoint.
        device: of this role.

    Raises:
        RoleFailedError: the curvature role could not be set up, with its reason.
        RoleLostError: it died before the two had met.
    """
    if launched_rank() == INNER:
        store, _, _ = next(dist.rendezvous("env://", timeout=_STORE_TIMEOUT))
        with _connected(store, device, None) as link:
            yield link
        return
    with (
        private_meeting(2) as meeting,
        _child(file, folder, meeting) as child,
        on_loopback(),
        _connected(meeting.store(), device, child) as link,
    ):
        yield link


@contextmanager
def _child(file: ProblemFile, folder: Path | None, meeting: Meeting) -> Iterator[subprocess.Popen[str]]:
    """The process of the curvature role, which ends with the `with` block."""
    work = {
        "problem": file.spec.model_dump(mode="json"),
        "path": str(file.path) if file.path is not None else None,
        "folder": str(folder.resolve()) if folder is not None else None,
        "meeting": str(meeting.path),
        "threads": threads_of_a_role(),
    }
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads_of_a_role())}
    for name in ("RANK", "WORLD_SIZE"):
        environment.pop(name, None)
    with helper(["nhgd_pde.run.curvature_process"], environment) as child:
        assert child.stdin is not None
        # One that has died already is told by those who wait for it.
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(work) + "\n")
            child.stdin.flush()
        yield child


@contextmanager
def _connected(store: dist.Store, device: torch.device, child: subprocess.Popen[str] | None) -> Iterator[Link]:
    def alive() -> str | None:
        return None if child is None or child.poll() is None else f"the curvature role {ending(child)}"

    try:
        link = meet(store, INNER, device, alive)
        if child is not None:
            link.explain = lambda: _last_words(child)
        yield link
        with suppress(RoleLostError):
            link.send(Message.STOP)
            link.flush()
    finally:
        part()


def _last_words(child: subprocess.Popen[str]) -> str | None:
    """How a process ended that has closed its connections; None if it has not ended yet."""
    try:
        child.wait(_LAST_WORDS)
    except subprocess.TimeoutExpired:
        return None
    return ending(child)


def join_as_curvature_role(file: ProblemFile, folder: Path) -> None:
    """Be the curvature role of a run whose two processes a launcher has started.

    Raises:
        RoleLostError: the inner role died.
        ProblemError: this role could not be set up; the inner role has been told.
    """
    # Launchers pass Ctrl-C and their own end on to every process; when to stop is for the inner role to say.
    ignore_stops()
    store, _, _ = next(dist.rendezvous("env://", timeout=_STORE_TIMEOUT))
    serve_curvature(file, folder, store, None)


def serve_curvature(file: ProblemFile, folder: Path | None, store: dist.Store, threads: int | None) -> None:
    """Be the curvature role until the inner role is done.

    Raises:
        RoleLostError: the inner role died.
        ProblemError: this role could not be set up; the inner role has been told.
    """
    from ..building.blueprint import build
    from ..choice.method import build_method
    from ..problem_file.errors import ProblemError

    try:
        with at_most_threads(1):
            problem = build(file, "curvature")
        method = build_method(file, problem.inner_shape, problem.equation.lift.device)
        curvature: Any = getattr(method.oracle, "curvature", None)
        if curvature is None:
            raise file.error("method", f"expected nhgd in a run of two roles, found {file.spec.method!r}")
    except ProblemError as error:
        give_up(store, CURVATURE, str(error))
        raise
    with at_most_threads(threads):
        try:
            link = meet(store, CURVATURE, problem.equation.lift.device)
            role = CurvatureRole(problem, curvature, link, CheckpointFiles(folder))
            role.serve()
        finally:
            part()


@dataclass(frozen=True)
class CheckpointFiles:
    """The part of a checkpoint that the curvature role has, in the folder of the run; None for a run without one."""

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
