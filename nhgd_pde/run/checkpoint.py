"""Checkpoints: the whole state of a run in its folder, from which `resume` goes on with the same numbers.

The checkpoint before the newest one takes over where the newest one is damaged. Each is a sealed file, see
`output.sealed`, and is checked field by field against the problem before a run goes on from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.loop import Iterate, LoopState
from ..engine.oracle import Oracle
from ..engine.plain import from_plain, to_plain
from ..engine.roles.failures import RemoteError, RoleError
from ..linalg.counts import Counts
from ..output.lines import begins_as
from ..output.names import CHECKPOINT, CURVATURE_CHECKPOINTS, EARLIER_CHECKPOINT, HISTORY
from ..output.sealed import DamagedError, first_line, read_sealed, write_sealed
from ..output.storage import OutputError, StorageError
from .checkpoint_check import MalformedError, Shapes, check_content
from .fingerprint import differences, fingerprint, within
from .outer_problem import nominal_of
from .rounds import restored, saved

if TYPE_CHECKING:
    from ..problem import Problem
    from ..task_problem import TaskProblem
    from .outer_problem import OuterProblem

# The keys whose values may differ between a run and its continuation: how long it goes on, where, and what it writes.
FREE = (
    "outer.iterations",
    "outer.rtol",
    "outer.atol",
    "outer.change",
    "devices",
    "output",
    "files",
    "population.processes",
    *(f"inference.{key}" for key in ("predict", "level", "hessian", "threshold", "rank", "samples", "exact")),
)
# The numbers of a checkpoint, beside the state of the outer loop.
_NUMBERS = ("seconds", "stage", "before", "reference")
# The fields of the state of the outer loop that are saved as they are.
_LOOP = ("outer", "evaluations", "bad", "sensitivity", "unit", "scales", "solved", "tried", "edge", "crossed")
# The keys under which the curvature role's part of a checkpoint is named.
_REMOTE = {"file", "sha256"}
_MALFORMED = "the checkpoint is malformed, or of another version of the package"


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two evaluations.

    Attributes:
        stage: index of the problem of a continuation that the loop solves.
        before: outer iterations of the stages before.
        reference: the first gradient norm of the run.
        rounds: number of rounds of state bounds that have ended, and the state of their multipliers; None without
            rounds.
        first: the first iterate of the run if the loop is in a later stage or round; None else.
    """

    loop: LoopState
    counts: Counts
    seconds: float
    stage: int = 0
    before: int = 0
    reference: float = 0.0
    rounds: tuple[int, OuterProblem] | None = None
    first: Iterate | None = None


class Checkpoints:
    """The checkpoints of a run folder, of a run that has the lock of the folder.

    Args:
        oracle: the oracle whose states are in the checkpoints.
    """

    def __init__(self, folder: Path, oracle: Oracle, problem: Problem | TaskProblem) -> None:
        self._folder, self._oracle = folder, oracle
        # By these two a checkpoint is recognised.
        self._origin = origin_of(problem)
        # Files of the curvature role that belong to the checkpoint which was written or read last.
        self._named: set[str] = set()
        # The newest checkpoint cannot be used: it must not push out the one before it.
        self._damaged = False

    @property
    def there(self) -> bool:
        """Whether there is a checkpoint, damaged or not."""
        return any((self._folder / name).exists() for name in (CHECKPOINT, EARLIER_CHECKPOINT))

    def content(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The content of the file of a checkpoint.

        If ranks share the scenarios, all of them have to call this; rank 0 gets the states of all scenarios.
        """
        loop = checkpoint.loop
        same = loop.knowledge is loop.current.oracle
        return {
            **self._origin,
            "first": to_plain(loop.first.without_oracle()),
            "current": to_plain(loop.current.without_oracle()),
            "state": _save(self._oracle, loop.current.oracle),
            "knowledge": None if same else _save(self._oracle, loop.knowledge),
            **{name: to_plain(getattr(loop, name)) for name in _LOOP},
            "counts": checkpoint.counts.as_dict(),
            **{name: getattr(checkpoint, name) for name in _NUMBERS},
            "run_first": None if checkpoint.first is None else to_plain(checkpoint.first.without_oracle()),
            "rounds": None if checkpoint.rounds is None else [checkpoint.rounds[0], saved(checkpoint.rounds[1])],
        }

    def write(self, content: Mapping[str, Any]) -> None:
        """Write the content of a checkpoint, whole or not at all; the newest one until then is kept beside it.

        Raises:
            StorageError: the system does not take it; the checkpoints are as they were.
        """
        newest, earlier = (self._folder / name for name in (CHECKPOINT, EARLIER_CHECKPOINT))
        write_sealed(newest, content, lambda: None if self._damaged else _keep(newest, earlier))
        self._damaged = False
        named = set(_files(dict(content)))
        for file in self._folder.glob(CURVATURE_CHECKPOINTS):
            if file.name not in named | self._named:
                with suppress(OSError):
                    file.unlink()
        self._named = named

    def read(self, stages: Sequence[OuterProblem]) -> tuple[Checkpoint, str]:
        """The newest checkpoint that can be used, and a sentence if that, or the history before it, is damaged.

        Raises:
            OutputError: there is none, none can be used, or they are of another problem; what differs is named.
        """
        complaints = []
        paths = [self._folder / name for name in (CHECKPOINT, EARLIER_CHECKPOINT)]
        for path in paths:
            if not path.exists():
                continue
            try:
                content = _read(path, stages, self._origin)
                checkpoint = _restored(path, content, self._oracle, stages)
            except (DamagedError, StorageError) as error:
                complaints.append(str(error))
                continue
            self._named, self._damaged = set(_files(content)), bool(complaints)
            if complaints:
                iteration = checkpoint.before + checkpoint.loop.current.iteration
                complaints.append(f"the run goes on from the checkpoint before it, of iteration {iteration}")
            history = self._folder / HISTORY
            if not begins_as(history, content["history"]):
                complaints.append(f"{history}: the rows before the checkpoint are not those that the run has written")
            return checkpoint, "; ".join(complaints)
        if not complaints:
            raise OutputError(f"{paths[0]}: expected a checkpoint to resume from, found none")
        raise OutputError(f"{'; '.join(complaints)}; solve without --resume starts anew")


def origin_of(problem: Problem | TaskProblem) -> dict[str, Any]:
    """By what the files of a run are recognised as files of this problem."""
    return {"spec": problem.file.spec.model_dump(mode="json"), "fingerprint": fingerprint(problem)}


def _keep(newest: Path, earlier: Path) -> None:
    """Makes the newest checkpoint the earlier one; with hard links it stays in its place until it is replaced."""
    if not newest.exists():
        return
    earlier.unlink(missing_ok=True)
    try:
        os.link(newest, earlier)
    except OSError:
        os.replace(newest, earlier)


def _read(path: Path, stages: Sequence[OuterProblem], origin: Mapping[str, Any]) -> dict[str, Any]:
    """The checked content of a checkpoint of this problem."""
    content = read_own(path, origin)
    try:
        check_content(content, _shapes(stages))
    except MalformedError as error:
        raise DamagedError(f"{path}: {_MALFORMED} ({error})") from error
    return content


def read_own(path: Path, origin: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a sealed file of a problem.

    Args:
        origin: of `origin_of`.

    Raises:
        DamagedError: the file is damaged, or of another version of the package.
        OutputError: it is of another problem; what differs is named.
    """
    content = read_sealed(path)
    spec, known = content.get("spec"), content.get("fingerprint")
    if not isinstance(spec, dict) or not isinstance(known, dict):
        raise DamagedError(f"{path}: the checkpoint is of another version of the package (it names no problem)")
    for key, then, now in differences(spec, origin["spec"]):
        if not within(key, FREE):
            raise OutputError(f"{path}: the checkpoint was written with {key} = {then!r}, the problem has {now!r}")
    for key, then, now in differences(known, origin["fingerprint"]):
        raise OutputError(f"{path}: {key.replace(' of.', ' of ')} has changed since: then {then!r}, now {now!r}")
    return content


def _shapes(stages: Sequence[OuterProblem]) -> Shapes:
    states = {each.inner_shape[1] for each in stages}
    coarse = [getattr(each, "coarse", None) for each in stages]
    states |= {each.problem.inner_shape[1] for each in coarse if each is not None}
    last = stages[-1]
    return Shapes(nominal_of(last).outer_size, frozenset(states), len(stages), len(last.state_bounds))


def _restored(path: Path, content: dict[str, Any], oracle: Oracle, stages: Sequence[OuterProblem]) -> Checkpoint:
    try:
        return _from_content(path.parent, content, oracle, stages)
    except (OSError, RemoteError) as error:
        raise DamagedError(f"{path}: the inverse that belongs to the checkpoint cannot be read ({error})") from error
    except RoleError:
        raise
    except Exception as error:  # whatever the building of a state objects to, the content does not fit
        raise DamagedError(f"{path}: {_MALFORMED} ({first_line(error)})") from error


def _from_content(folder: Path, content: dict[str, Any], oracle: Oracle, stages: Sequence[OuterProblem]) -> Checkpoint:
    problem, rounds = stages[content["stage"]], None
    if content["rounds"] is not None:
        problem = restored(problem, content["rounds"][1])
        rounds = content["rounds"][0], problem
    if getattr(getattr(oracle, "curvature", None), "link", None) is None:
        # There is no curvature role that could read its part.
        content = _inlined(content, folder)
    current = _restore(oracle, problem, content["state"])
    knowledge = current if content["knowledge"] is None else _restore(oracle, problem, content["knowledge"])
    device = problem.start()[0].device
    loop = LoopState(
        first=from_plain(content["first"], device),
        current=replace(from_plain(content["current"], device), oracle=current),
        knowledge=knowledge,
        **{name: from_plain(content[name], device) for name in _LOOP},
    )
    return Checkpoint(
        loop,
        Counts(**content["counts"]),
        **{name: content[name] for name in _NUMBERS},
        rounds=rounds,
        first=from_plain(content["run_first"], device),
    )


def _save(oracle: Any, state: Any) -> Any:
    return oracle.save(state) if hasattr(oracle, "save") else to_plain(state)


def _restore(oracle: Any, problem: OuterProblem, saved: Any) -> Any:
    if hasattr(oracle, "restore"):
        return oracle.restore(problem, saved)
    return from_plain(saved, problem.start()[0].device)


def _files(content: Any) -> Iterator[str]:
    """The names of the files in which the curvature role has put its part."""
    if isinstance(content, dict):
        if set(content) == _REMOTE:
            yield content["file"]
        for each in content.values():
            yield from _files(each)


def _inlined(content: Any, folder: Path) -> Any:
    """The content with the content of the files of the curvature role in place of their names."""
    if not isinstance(content, dict):
        return content
    if set(content) == _REMOTE:
        return read_sealed(folder / content["file"], content["sha256"])
    return {name: _inlined(each, folder) for name, each in content.items()}
