"""Processes that mpirun has started: the first one runs the problem, and the others help its linear solver, PETSc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..problem_file.loading import ProblemFile

# Where launchers say what number a process has, and how many there are: Open MPI, then MPICH and Intel MPI.
_PLACES = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"))


def mpi_place() -> tuple[int, int]:
    """(number of this process, number of processes) of an MPI run; (0, 1) without one. MPI is not loaded."""
    for rank, size in _PLACES:
        if rank in os.environ and size in os.environ:
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


@contextmanager
def mpi_processes(file: ProblemFile) -> Iterator[None]:
    """Around all that is done with a problem: the processes but the first one help it until it has come to its end.

    Raises:
        ProblemError: there are several processes, and the solver cannot share work among them.
        SystemExit: this process has helped.
    """
    rank, size = mpi_place()
    if size == 1:
        yield
        return
    kind = file.spec.solver.kind if hasattr(file.spec, "solver") else "none"
    if kind != "petsc":
        raise file.error(
            "solver.kind" if kind != "none" else "task",
            f"expected solver.kind petsc, which shares its work among the {size} processes of mpirun; found {kind}",
        )
    from ..linalg.solvers.petsc import PETSc

    if not PETSc.library.found():
        # The problem is refused where it is built.
        yield
        return
    from ..linalg.solvers.petsc_team import leading
    from .signals import ignore_stops

    if rank:
        ignore_stops()
    with leading():
        yield
