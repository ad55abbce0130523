"""The solution in a folder that `Solution.save` has written, from which `Solution.load` makes it again.

The file has what cannot be computed again from the problem: the arrays, the objective, the certificate, and the stage
and the multipliers of the problem that was solved last. All else is in the other files of the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..output.names import LEVEL_MESH, SOLUTION
from ..output.ownership import is_ours
from ..output.run_folder import OutputError, read_history
from ..output.sealed import DamagedError, first_line, read_sealed, write_sealed
from ..problem import Problem
from ..problem_file.mesh_spec import FileMesh, ObjectMesh
from .answer import Answer, Certificate, Source
from .checkpoint import origin_of, read_own

if TYPE_CHECKING:
    from ..task_problem import TaskProblem


@dataclass(frozen=True, eq=False)
class SavedSolution:
    """What the file has.

    Attributes:
        origin: by what its problem is recognised, see `checkpoint.origin_of`.
        iteration: number of outer iterations.
        stage, rounds: see `answer.Source`.
        common: objective, certificate, control and gradient, by the attributes of `Answer`.
        arrays: see `Answer.state_arrays`.
    """

    origin: Mapping[str, Any]
    iteration: int
    stage: int
    rounds: list[dict[str, Any]] | None
    common: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    def values(
        self, folder: Path, problem: Problem | TaskProblem, text: str, summary: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The values of the attributes of the answer, with those of the other files of its folder.

        Args:
            problem: built again from `text`, the content of problem.yaml.
            summary: the content of summary.json.

        Raises:
            OutputError: the summary is of another iteration, or the history is damaged.
        """
        ended = summary.get("outer_iterations")
        if self.iteration != ended:
            place = folder / SOLUTION
            raise OutputError(f"{place}: expected the solution of iteration {ended}, found one of {self.iteration}")
        return {
            **self.common,
            **self.arrays,
            **{key: summary.get(key, "") for key in ("status", "message")},
            "stats": summary,
            "history": tuple(read_history(folder)),
            "written_yaml": text,
            "source": Source(problem, self.stage, self.rounds),
        }


def problem_to_save(problem: Problem | TaskProblem) -> Problem | TaskProblem:
    """The problem as it is written to a folder; a mesh of an adaptive run goes with it, out of the folder of that run.

    Raises:
        OutputError: that mesh is damaged.
    """
    if not isinstance(problem, Problem):
        return problem
    file, mesh = problem.file, problem.file.spec.mesh
    path = file.directory / LEVEL_MESH
    own = isinstance(mesh, FileMesh) and mesh.file == LEVEL_MESH and path.is_file()
    if not own or file.path is None or not is_ours(file.path):
        return problem
    # Other problems are saved without loading these.
    from ..fem.cells import MeshFileError
    from ..fem.mesh_file import read_meshio

    try:
        kept = ObjectMesh(mesh=read_meshio(path), **mesh.model_dump(exclude={"file", "facets"}))
    except MeshFileError as error:
        raise OutputError(str(error)) from None
    saved = copy(problem)
    saved.file = replace(file, spec=file.spec.model_copy(update={"mesh": kept}))
    return saved


def write_saved(path: Path, answer: Answer, problem: Problem | TaskProblem) -> None:
    """Writes an answer, whole or not at all.

    Args:
        problem: its problem as it is written beside it.

    Raises:
        StorageError: the system does not take the file.
    """
    arrays = {"control": answer.control, "gradient": answer.gradient, **answer.state_arrays()}
    content = {
        **origin_of(problem),
        "iteration": int(answer.stats["outer_iterations"]),
        "stage": answer.source.stage,
        "rounds": answer.source.rounds,
        "objective": float(answer.objective),
        "certificate": {name: float(value) for name, value in asdict(answer.certificate).items()},
        "arrays": {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()},
    }
    write_sealed(path, content)


def read_saved(path: Path, problem: Problem | TaskProblem | None = None) -> SavedSolution:
    """The solution in a file.

    Args:
        problem: the problem that it has to be a solution of; None: of any.

    Raises:
        DamagedError: the file is damaged, or of another version of the package.
        OutputError: it is of another problem; what differs is named.
    """
    content = read_sealed(path) if problem is None else read_own(path, origin_of(problem))
    try:
        arrays = {name: array.numpy() for name, array in content["arrays"].items()}
        common = {name: arrays.pop(name) for name in ("control", "gradient")}
        common |= {"objective": content["objective"], "certificate": Certificate(**content["certificate"])}
        return SavedSolution(
            origin={part: dict(content[part]) for part in ("spec", "fingerprint")},
            **{name: content[name] for name in ("iteration", "stage", "rounds")},
            common=common,
            arrays=arrays,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        said = first_line(error)
        raise DamagedError(f"{path}: the saved solution is malformed, or of another version ({said})") from error
