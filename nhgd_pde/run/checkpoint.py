"""Checkpoints: the whole state of a run in its folder, from which `resume` goes on with the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..engine.loop import Iterate, LoopState
from ..engine.oracle import Oracle, Unsolved
from ..engine.plain import from_plain, to_plain
from ..engine.roles.remote import Remote, RemoteError
from ..engine.roles.service import STEM
from ..linalg.counts import Counts
from ..output.atomic import OutputError, atomic_path
from ..output.run_folder import CHECKPOINT
from ..pde_problem import PDEProblem
from ..scenario_problem import ScenarioProblem
from .rounds import restored, saved

_FORMAT = 3
# What may differ between a run and its continuation: how long it goes on, where, and what it writes.
_FREE = ("outer.iterations", "outer.rtol", "outer.atol", "outer.change", "devices", "output")


@dataclass(frozen=True)
class Checkpoint:
    """
    Attributes:
        loop: where the outer loop stands.
        counts: work done so far.
        seconds: time it took.
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
    rounds: tuple[int, PDEProblem | ScenarioProblem] | None = None
    first: Iterate | None = None


def checkpoint_content(oracle: Oracle, spec: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """What is written of a checkpoint; where ranks share the scenarios, all of them have to ask, and rank 0 gets all.

    Args:
        oracle: whose states are in the loop.
        spec: the resolved problem file.
        checkpoint: what to write.
    """
    loop = checkpoint.loop
    same = loop.knowledge is loop.current.oracle
    return {
        "format": _FORMAT,
        "spec": dict(spec),
        "first": _without_oracle(loop.first),
        "current": _without_oracle(loop.current),
        "state": _save(oracle, loop.current.oracle),
        "knowledge": None if same else _save(oracle, loop.knowledge),
        "outer": to_plain(loop.outer),
        "evaluations": loop.evaluations,
        "bad": loop.bad,
        "sensitivity": loop.sensitivity,
        "unit": loop.unit,
        "scales": to_plain(loop.scales),
        "counts": checkpoint.counts.as_dict(),
        "seconds": checkpoint.seconds,
        "stage": checkpoint.stage,
        "before": checkpoint.before,
        "reference": checkpoint.reference,
        "run_first": None if checkpoint.first is None else _without_oracle(checkpoint.first),
        "rounds": None if checkpoint.rounds is None else [checkpoint.rounds[0], saved(checkpoint.rounds[1])],
    }


def write_checkpoint(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the content of a checkpoint, whole or not at all; the one before stays until then."""
    with atomic_path(folder / CHECKPOINT) as path:
        torch.save(dict(content), path)
    named = set(_files(dict(content)))
    for file in folder.glob(f"{STEM}*.pt"):
        if file.name not in named:
            file.unlink()


def read_checkpoint(
    folder: Path, oracle: Oracle, stages: Sequence[PDEProblem | ScenarioProblem], spec: Mapping[str, Any]
) -> Checkpoint:
    """The checkpoint of a folder, of a run of one problem or of several stages of it.

    Raises:
        OutputError: there is none, it cannot be read, or it is of another problem; what differs is named.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise OutputError(f"{path}: expected a checkpoint to resume from, found none")
    content = _read(path)
    for key, then, now in differences(content["spec"], spec):
        if any(key == name or key.startswith(f"{name}.") for name in _FREE):
            continue
        raise OutputError(f"{path}: the checkpoint was written with {key} = {then!r}, the problem has {now!r}")
    try:
        problem, rounds = stages[content["stage"]], None
        if content.get("rounds") is not None:
            problem = restored(problem, content["rounds"][1])
            rounds = content["rounds"][0], problem
        if not isinstance(getattr(oracle, "curvature", None), Remote):
            content = _inlined(content, folder)
        current = _restore(oracle, problem, content["state"])
        knowledge = current
        if content["knowledge"] is not None:
            knowledge = _restore(oracle, problem, content["knowledge"])
        device = problem.start()[0].device
        loop = LoopState(
            first=from_plain(content["first"], device),
            current=replace(from_plain(content["current"], device), oracle=current),
            outer=from_plain(content["outer"], device),
            knowledge=knowledge,
            evaluations=content["evaluations"],
            bad=content["bad"],
            sensitivity=content["sensitivity"],
            unit=content["unit"],
            scales=from_plain(content["scales"], device),
        )
        known = content.get("run_first")
        first = None if known is None else from_plain(known, device)
    except (OSError, RemoteError) as error:
        raise OutputError(f"{path}: the inverse that belongs to the checkpoint cannot be read ({error})") from error
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise OutputError(f"{path}: the checkpoint is of another version of the package ({error})") from error
    return Checkpoint(
        loop,
        Counts(**content["counts"]),
        content["seconds"],
        content["stage"],
        content["before"],
        content["reference"],
        rounds,
        first,
    )


@dataclass(frozen=True)
class Reached:
    """The iterate of a checkpoint.

    Attributes:
        v: (p,) its control.
        u: (S, n) its state; None where the method saves it in another form.
        iteration: its number, counted from the beginning of the run.
    """

    v: torch.Tensor
    u: torch.Tensor | None
    iteration: int


def read_reached(folder: Path) -> Reached | None:
    """The last iterate that a run has written down; None without a checkpoint.

    Raises:
        OutputError: the checkpoint is damaged, or of another version of the package.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    content = _read(path)
    try:
        current, state = content["current"], content["state"]
        v, iteration = current["evaluation"]["v"], int(current["iteration"]) + int(content["before"])
        u = _state_of(state)
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{path}: the checkpoint is of another version of the package ({error})") from error
    if not isinstance(v, torch.Tensor):
        raise OutputError(f"{path}: expected the control of the last iterate, found {type(v).__name__}")
    return Reached(v, u, iteration)


def _state_of(saved: Any) -> torch.Tensor | None:
    """The state in the saved data of an oracle; over scenarios the state of the nominal problem."""
    if isinstance(saved, list) and saved:
        return _state_of(saved[0])
    if not isinstance(saved, dict):
        return None
    for key in ("nominal", "state", "inner"):
        found = _state_of(saved.get(key))
        if found is not None:
            return found
    u = saved.get("u")
    return u if isinstance(u, torch.Tensor) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True)
        known = content["format"]
    except Exception as error:  # torch.load has a dozen ways to object
        raise OutputError(f"{path}: not a checkpoint that can be read ({str(error).splitlines()[0]})") from error
    if known != _FORMAT:
        raise OutputError(f"{path}: expected a checkpoint of format {_FORMAT}, found format {known!r}")
    return content


def _without_oracle(iterate: Iterate) -> Any:
    return to_plain(replace(iterate, oracle=Unsolved(iterate.evaluation.v[:0])))


def _save(oracle: Any, state: Any) -> Any:
    return oracle.save(state) if hasattr(oracle, "save") else to_plain(state)


def _restore(oracle: Any, problem: PDEProblem | ScenarioProblem, saved: Any) -> Any:
    if hasattr(oracle, "restore"):
        return oracle.restore(problem, saved)
    return from_plain(saved, problem.start()[0].device)


def _files(content: Any) -> Iterator[str]:
    """The names of the files in which the curvature role has put its part."""
    if isinstance(content, dict):
        if set(content) == {"file"}:
            yield content["file"]
        for each in content.values():
            yield from _files(each)


def _inlined(content: Any, folder: Path) -> Any:
    """The same with the content of those files in place of their names."""
    if not isinstance(content, dict):
        return content
    if set(content) == {"file"}:
        return torch.load(folder / content["file"], weights_only=True)
    return {name: _inlined(each, folder) for name, each in content.items()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys whose values differ, with both."""
    old, new = _flat(then), _flat(now)
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield key, old.get(key), new.get(key)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)  # type: ignore[assignment]
    else:
        return {prefix: value}
    flat: dict[str, Any] = {prefix: type(value).__name__} if not value else {}
    for name, each in items:
        flat.update(_flat(each, f"{prefix}.{name}" if prefix else str(name)))
    return flat
