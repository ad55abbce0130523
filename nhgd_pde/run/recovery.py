"""The end of a run: its control and state, from a solution or from a run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..control.controls import ControlSpace
from ..fem.interpolation import interpolation
from ..output.fields import FieldData, read_vtu
from ..output.names import EVOLUTION, FINAL
from ..output.run_folder import OutputError, read_ended
from ..pde_problem import PDEProblem
from ..problem import Problem
from ..problem_file.loading import read_dump
from .drawing import levels, output_grid
from .fingerprint import differences, within
from .reached import read_reached
from .solution import Solution

# Keys that determine the unknowns: if one of them differs, the control of a run belongs to another problem.
_IDENTITY = ("name", "mesh", "element", "time", "pde.kind", "pde.python", "pde.components", "control")
# Keys of a control that do not determine the unknowns; keys whose differences are reported, and the largest number of
# differences that are.
_FREE = ("initial", "bounds", "gain")
_TOLD = ("pde", "control", "objective", "constraints", "parameters", "risk")
_MOST_TOLD = 3


@dataclass(frozen=True)
class End:
    """Where a run has ended.

    Attributes:
        v: (p,) its control.
        u: (S, n) its state, or near it; None where that is not known.
        place: description of the end, for messages.
    """

    v: Tensor
    u: Tensor | None
    place: str


def end_of(problem: Problem, run: Solution | str | Path) -> End:
    """The end of a run of a problem.

    The control is that of the checkpoint, to the last digit, or that of the fields.

    Raises:
        OutputError: there is no such run, it has not ended, it is of another problem, or its files are damaged.
    """
    found = _of_solution(problem, run) if isinstance(run, Solution) else _of_folder(problem, Path(run))
    pde = problem.pde
    if len(found.v) != pde.outer_size or not bool(found.v.isfinite().all()):
        what = "a value that is not finite" if len(found.v) == pde.outer_size else f"{len(found.v):,}"
        raise OutputError(f"{found.place}: expected a control of {pde.outer_size:,} values, found {what}")
    u = found.u
    if u is not None and (tuple(u.shape) != pde.inner_shape or not bool(u.isfinite().all())):
        # These are states of several scenarios, but the problem here is the nominal one.
        u = None
    device = pde.equation.lift.device
    place = found.place if problem.scenarios is None else f"{found.place}, random inputs at their middle"
    return End(found.v.to(device), None if u is None else u.to(device), place)


def _of_solution(problem: Problem, solution: Solution) -> End:
    theirs, ours = solution.problem, problem.pde
    for what, then, now in (
        ("name", theirs.name, ours.name),
        ("controls", _layout(theirs), _layout(ours)),
        ("state", theirs.inner_shape[1], ours.inner_shape[1]),
    ):
        if then != now:
            raise OutputError(f"the solution is of another problem: {what} = {then}, expected {now}")
    u = torch.from_numpy(np.array(solution.state))[:, torch.from_numpy(np.asarray(ours.equation.free))]
    return End(torch.from_numpy(np.array(solution.control)), u, f"at the solution ({solution.status})")


def _layout(problem: PDEProblem) -> str:
    return ", ".join(f"{part.name} ({part.size:,} values)" for part in problem.control.parts)


def _of_folder(problem: Problem, folder: Path) -> End:
    text, summary = read_ended(folder)
    place = f"at the end of {folder} ({summary['status']}, {summary.get('outer_iterations')} iterations)"
    place += _compared(problem, folder, text)
    for key, now in (("state_dofs", problem.state_unknowns), ("control_dofs", problem.pde.outer_size)):
        if summary.get(key) != now:
            raise OutputError(f"{folder}: the run is of another problem: {key} = {summary.get(key)}, expected {now}")
    reached, last = read_reached(folder), summary.get("outer_iterations")
    if reached is not None and isinstance(last, int):
        if reached.iteration > last:
            raise OutputError(
                f"{folder}: expected a run that has ended, found a checkpoint of iteration {reached.iteration} beside "
                f"a summary of iteration {last}: the run goes on, or was cut off"
            )
        if reached.iteration == last:
            return End(reached.v, reached.u, place)
    return End(torch.from_numpy(_of_fields(problem.pde, folder, summary)), None, f"{place}, from its fields")


def _compared(problem: Problem, folder: Path, text: str) -> str:
    """A description of the differences between the problem and the run; raises if the unknowns differ."""
    try:
        then = read_dump(text)
    except ValueError as error:
        raise OutputError(f"{folder / 'problem.yaml'}: the file is damaged ({error})") from error
    told = []
    for key, old, new in differences(then, read_dump(problem.file.dump())):
        if within(key, _IDENTITY) and not any(part in _FREE for part in key.split(".")):
            raise OutputError(
                f"{folder}: the run is of another problem: it was solved with {key} = {old!r}, the problem has {new!r}"
            )
        if within(key, _TOLD):
            told.append(f"{key} = {old!r}, now {new!r}")
    if not told:
        return ""
    more = f", and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    return f", which was solved with {'; '.join(told[:_MOST_TOLD])}{more}"


def _of_fields(problem: PDEProblem, folder: Path, summary: Mapping[str, Any]) -> np.ndarray:
    """(p,) the control of final.vtu, or of the series in time; numbers are in the summary."""
    frames: dict[int, FieldData] = {}

    def frame(level: int) -> FieldData:
        if level not in frames:
            path = folder / FINAL if level < 0 else folder / EVOLUTION / f"{EVOLUTION}_{level:05d}.vtu"
            grid, frames[level] = read_vtu(path)
            own = output_grid(problem)
            points = np.pad(own.points, ((0, 0), (0, 3 - own.points.shape[1])))
            size = float(np.ptp(points, axis=0).max())
            if grid.points.shape != points.shape or np.abs(grid.points - points).max() > 1e-9 * size:
                raise OutputError(f"{path}: the run is of another problem: its mesh is not that of the problem")
        return frames[level]

    found = []
    for part in problem.control.parts:
        if part.space is None:
            found.append(_numbers(part, folder, summary))
            continue
        name = "control" if len(problem.control.parts) == 1 else f"control_{part.name}"
        window = (levels(problem) - 1) // (part.steps or 1)
        wanted = range(1, levels(problem), window) if part.steps else (-1,)
        found += [_coefficients(problem, part, frame(level), name, folder) for level in wanted]
    return np.concatenate(found)


def _numbers(part: ControlSpace, folder: Path, summary: Mapping[str, Any]) -> np.ndarray:
    given = summary.get("controls")
    values = given.get(part.name) if isinstance(given, dict) else None
    if not isinstance(values, list) or len(values) != part.size or not all(isinstance(v, int | float) for v in values):
        raise OutputError(
            f"{folder / 'summary.json'}: controls.{part.name}: expected {part.size} numbers, found {values}"
        )
    return np.array(values, dtype=float)


def _coefficients(problem: PDEProblem, part: ControlSpace, data: FieldData, name: str, folder: Path) -> np.ndarray:
    """(m,) the coefficients of a control that is a field, in one time step."""
    assert part.space is not None and part.dofs is not None
    on_cells = part.space.element == "P0"
    given = (data.cell if on_cells else data.point).get(name)
    if given is None:
        raise OutputError(f"{folder}: the run is of another problem: its fields have no {name!r}")
    columns = np.asarray(given, dtype=float).reshape(len(given), -1).T[: part.components]
    nodes = np.zeros((part.components, part.space.size))
    if len(columns) < part.components:
        raise OutputError(f"{folder}: {name}: expected {part.components} components, found {len(columns)}")
    for at, values in _nodes(problem, part, on_cells):
        nodes[:, at] = columns[:, values]
    return nodes[:, part.dofs].reshape(-1)


def _nodes(problem: PDEProblem, part: ControlSpace, on_cells: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Degrees of freedom of a space, and the entries of a field that are their values."""
    assert part.space is not None
    if on_cells:
        dofs = np.asarray(part.space.basis.element_dofs)[0]
        yield dofs, np.arange(len(dofs))
    elif part.space.element == problem.space.element:
        yield np.arange(part.space.size), part.space.representatives
    else:
        shares = interpolation(part.space, problem.space.parts[0].on_mesh).tocoo()
        own = np.abs(shares.data - 1.0) < 1e-12
        yield shares.col[own], shares.row[own]
