"""The problem on one mesh of an adaptive run, and where its run starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import skfem
import torch

from ..building.coarsening import Prolongations
from ..fem.mesh import Domain
from ..output.atomic import write_atomically
from ..output.fields import FieldData, Grid, write_vtu
from ..output.names import LEVEL_MESH, LEVELS, PROBLEM
from ..output.ownership import HEADER
from ..output.provenance import stamped
from ..pde_problem import PDEProblem
from ..problem_file.loading import ProblemFile
from ..problem_file.mesh_spec import FileMesh, ObjectMesh
from ..run.initial_control import Start
from ..run.solution import Solution


def level_folder(folder: Path, level: int) -> Path:
    """The run folder of a mesh, by its number from 1."""
    return folder / LEVELS / f"{level:02d}"


def on_mesh(file: ProblemFile, domain: Domain) -> ProblemFile:
    """The problem on a mesh in memory, which has names for the parts that the file describes by coordinates too."""
    plain: skfem.Mesh = type(domain.mesh)(domain.mesh.p, domain.mesh.t)
    mesh = plain.with_boundaries(_named_facets(domain)).with_subdomains(domain.subdomains)
    return _on(file, ObjectMesh(mesh=mesh, cracks=_cracks(file)))


def in_folder(file: ProblemFile, folder: Path) -> ProblemFile:
    """The problem on the mesh that has been written to its run folder."""
    found = _on(file, FileMesh(file=LEVEL_MESH, cracks=_cracks(file)))
    spec = found.spec.model_copy(update={"files": file.files_from(folder)})
    return replace(found, spec=spec, path=folder / PROBLEM)


def write_level(file: ProblemFile, domain: Domain, folder: Path) -> ProblemFile:
    """Writes a mesh with the names of its parts, and the problem on it, to the run folder of the mesh.

    Raises:
        StorageError: the system does not take a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mesh = domain.mesh
    # These are scikit-fem's own names and values: bit k of a cell stands for its facet k.
    bits = 1 << np.arange(len(mesh.t2f), dtype=np.int64)[:, None]
    marks = {
        f"skfem:b:{name}": (bits * np.isin(mesh.t2f, facets)).sum(axis=0)
        for name, facets in _named_facets(domain).items()
    }
    marks |= {
        f"skfem:s:{name}": np.isin(np.arange(mesh.nelements), cells).astype(np.int64)
        for name, cells in domain.subdomains.items()
    }
    write_vtu(folder / LEVEL_MESH, Grid(mesh.p.T, mesh.t.T, domain.cell), FieldData(cell=marks))
    found = in_folder(file, folder)
    # The mesh of a folder that has a problem file is complete.
    write_atomically(folder / PROBLEM, HEADER + stamped(found.dump()))
    return found


def start_from(solution: Solution, fine: PDEProblem, gradient_norm: float) -> Start | None:
    """The control and the state of a solution on a finer mesh; None where its control cannot be transferred.

    Args:
        gradient_norm: the norm of the gradient at the start of the file, on any mesh; 0 where it is not known.
    """
    coarse, transfer = solution.problem, Prolongations(beyond=True)
    controls = transfer.of_controls(fine.control, coarse.control)
    if controls is None:
        return None
    state = transfer.of_states(fine.space, coarse.space) @ solution.state[0]
    v, u = torch.from_numpy(controls @ solution.control), torch.from_numpy(state[fine.equation.free])
    return Start(v, u[None], gradient_norm)


def _on(file: ProblemFile, mesh: FileMesh | ObjectMesh) -> ProblemFile:
    """The problem on a mesh, which makes an estimate at its end: with it the run knows when it may end, too."""
    output = file.spec.output.model_copy(update={"estimate": "always"})
    return replace(file, spec=file.spec.model_copy(update={"mesh": mesh, "parts": {}, "output": output}))


def _cracks(file: ProblemFile) -> Literal["refused", "allowed"]:
    mesh = file.spec.mesh
    return mesh.cracks if isinstance(mesh, FileMesh | ObjectMesh) else "refused"


def _named_facets(domain: Domain) -> dict[str, np.ndarray]:
    return {name: facets for name, facets in domain.facets.items() if name != "all"}
