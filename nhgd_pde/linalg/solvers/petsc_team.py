"""The processes of an MPI run that solve linear systems together: one leads and tells the others what to do.

The leader, rank 0, runs the whole program, and is the only one that decides anything or touches files. The others wait
for its orders and hold the rows of matrices that are theirs.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp

# Seconds between two looks for an order: waiting in MPI itself would keep a core busy.
_PAUSE = 2e-4
_ORDER, _ROWS = 1, 2


class Refused(RuntimeError):
    """PETSc has raised an error, with its text."""


@dataclass(eq=False)
class Told:
    """A matrix that all processes hold.

    Attributes:
        number: by which they know it.
        direct: solves are by factors, not by an iteration.
        bytes: bytes on all processes.
        rtol: what the iteration aims at.
        iterations: number of iterations so far.
        condition: estimate of the condition number of preconditioner and matrix by conjugate gradients; 1 without one.
    """

    number: int
    direct: bool
    bytes: int
    rtol: float
    iterations: int = 0
    condition: float = 1.0


class Leader:
    """What rank 0 tells the others, and does with them."""

    def __init__(self) -> None:
        self._team = _team()
        if self._team.rank:
            raise RuntimeError(
                "only the first process of an MPI run solves problems; the others have to wait in `petsc_team.leading`"
            )

    def prepare(
        self, matrix: sp.csr_matrix, modes: np.ndarray | None, options: str, symmetric: bool, definite: bool
    ) -> Told:
        """Distribute a matrix by rows and prepare it, as PETSc's options say.

        Args:
            matrix: the whole matrix (n, n).
            modes: (n, k) the near-nullspace; None for the constants.

        Raises:
            Refused: PETSc does not take the options.
        """
        number = next(self._team.numbers)
        settings = (number, matrix.shape[0], 0 if modes is None else modes.shape[1], options, symmetric, definite)
        self._team.order(("prepare", settings))
        for rank in range(1, self._team.size):
            for part in _rows(matrix, modes, self._team.ranges(matrix.shape[0])[rank]):
                self._team.comm.Send(part, rank, _ROWS)
        return self._team.prepare(settings, _rows(matrix, modes, self._team.ranges(matrix.shape[0])[0]))

    def solve(self, told: Told, b: np.ndarray) -> tuple[np.ndarray, int]:
        """A^-1 b (n,), and PETSc's reason for the end of the iteration, which is positive where it has converged."""
        self._team.order(("solve", (told.number,)))
        found, reason, ksp = self._team.solve(told.number, b)
        told.iterations += ksp.getIterationNumber()
        told.condition = max(told.condition, _condition(ksp))
        assert found is not None
        return found, reason

    def forget(self, told: Mapping[bool, Told]) -> None:
        """Release matrices, before the next order: this may be called in the middle of one."""
        self._team.forgotten.extend(each.number for each in told.values())


class _Team:
    """The processes, and the systems that this one has a part of."""

    def __init__(self) -> None:
        import petsc4py

        petsc4py.init([])
        from petsc4py import PETSc

        self.petsc: Any = PETSc
        self.size, self.rank = PETSc.COMM_WORLD.size, PETSc.COMM_WORLD.rank
        self.comm: Any = PETSc.COMM_WORLD.tompi4py() if self.size > 1 else None
        self.systems: dict[int, Any] = {}
        self.forgotten: list[int] = []
        self.numbers = itertools.count()
        # In the middle of an order, where the others wait for this process.
        self.busy = False

    def ranges(self, size: int) -> list[tuple[int, int]]:
        """The first row of each process, and the first one after its last."""
        least, more = divmod(size, self.size)
        ends = np.cumsum([least + (rank < more) for rank in range(self.size)])
        return [(int(end - least - (rank < more)), int(end)) for rank, end in enumerate(ends)]

    def order(self, order: tuple[str, tuple[Any, ...]]) -> None:
        if self.forgotten and order[0] != "forget":
            numbers = tuple(dict.fromkeys(self.forgotten))
            self.forgotten.clear()
            self.order(("forget", numbers))
            self.forget(*numbers)
        self.busy = True
        for rank in range(1, self.size):
            self.comm.send(order, rank, _ORDER)
        self.busy = order[0] in ("prepare", "solve")

    def follow(self) -> None:
        """Do what the leader says, until it says stop."""
        while True:
            while not self.comm.Iprobe(0, _ORDER):
                time.sleep(_PAUSE)
            name, settings = self.comm.recv(source=0, tag=_ORDER)
            if name == "stop":
                return
            if name == "prepare":
                try:
                    self.prepare(settings, self._received(settings))
                except Refused:
                    # The leader has refused too, and tells the user.
                    continue
            elif name == "solve":
                self.solve(settings[0], None)
            else:
                self.forget(*settings)

    def _received(self, settings: tuple[Any, ...]) -> list[np.ndarray]:
        first, end = self.ranges(settings[1])[self.rank]
        starts = np.empty(end - first + 1, np.int32)
        self.comm.Recv(starts, 0, _ROWS)
        parts = [np.empty(starts[-1], np.int32), np.empty(starts[-1])]
        parts += [np.empty((settings[2], end - first))] if settings[2] else []
        for part in parts:
            self.comm.Recv(part, 0, _ROWS)
        return [starts, *parts]

    def prepare(self, settings: tuple[Any, ...], rows: list[np.ndarray]) -> Told:
        """Every process: make the matrix from its rows, and what solves with it."""
        number, size, modes, options, symmetric, definite = settings
        petsc, comm = self.petsc, self.petsc.COMM_WORLD
        starts, columns, values = rows[:3]
        local = len(starts) - 1
        error = ""
        try:
            matrix = petsc.Mat().createAIJ(((local, size), (local, size)), csr=(starts, columns, values), comm=comm)
            matrix.setOption(petsc.Mat.Option.SYMMETRIC, symmetric)
            matrix.setOption(petsc.Mat.Option.SPD, definite)
            if modes:
                matrix.setNearNullSpace(self._modes(rows[3], size))
            ksp = petsc.KSP().create(comm)
            ksp.setOperators(matrix)
            self._configure(ksp, number, options)
            ksp.setComputeEigenvalues(ksp.getType() == "cg")
            ksp.setUp()
        except petsc.Error as refusal:
            error = str(refusal).splitlines()[-1].strip()
        errors = self.comm.allgather(error) if self.comm is not None else [error]
        self.busy = False
        for each in filter(None, errors):
            raise Refused(each)
        vectors = matrix.createVecs()
        self.systems[number] = (ksp, matrix, *vectors)
        direct = ksp.getType() == "preonly" and ksp.getPC().getType() in ("lu", "cholesky")
        return Told(number, direct, self._bytes(matrix, ksp.getPC()), ksp.getTolerances()[0])

    def _bytes(self, matrix: Any, pc: Any) -> int:
        """Bytes of a matrix with its factors or its hierarchy, on all processes: a number and an index an entry."""
        held = [matrix]
        if pc.getType() in ("lu", "cholesky"):
            held.append(pc.getFactorMatrix())
        elif pc.getType() in ("gamg", "mg"):
            for level in range(1, pc.getMGLevels()):
                held += [pc.getMGInterpolation(level), pc.getMGSmoother(level - 1).getOperators()[0]]
        kind = self.petsc.Mat.InfoType.GLOBAL_SUM
        return int(sum(12.0 * each.getInfo(kind)["nz_used"] + 4.0 * each.getSize()[0] for each in held))

    def _modes(self, rows: np.ndarray, size: int) -> Any:
        """The near-nullspace, whose vectors have to be orthonormal."""
        vectors: list[Any] = []
        for row in rows:
            vector = self.petsc.Vec().createMPI((len(row), size), comm=self.petsc.COMM_WORLD)
            vector.setArray(row)
            for other in vectors:
                vector.axpy(-vector.dot(other), other)
            vector.normalize()
            vectors.append(vector)
        return self.petsc.NullSpace().create(vectors=vectors, comm=self.petsc.COMM_WORLD)

    def _configure(self, ksp: Any, number: int, options: str) -> None:
        """Give a solver its options, under a prefix of its own, so that it alone takes them."""
        prefix = f"nhgd_{number}_"
        ksp.setOptionsPrefix(prefix)
        database = self.petsc.Options()
        database.insertString(" ".join(_prefixed(word, prefix) for word in options.split()))
        try:
            ksp.setFromOptions()
            ksp.getPC().setFromOptions()
        finally:
            for word in options.split():
                if _prefixed(word, prefix) != word:
                    database.delValue(_prefixed(word, prefix)[1:])

    def solve(self, number: int, b: np.ndarray | None) -> tuple[np.ndarray | None, int, Any]:
        """Every process: solve with its rows of b, which the leader gives."""
        ksp, _, x, right = self.systems[number]
        if self.comm is None:
            right.setArray(b)
        else:
            counts = [end - first for first, end in self.ranges(right.getSize())]
            mine = np.empty(counts[self.rank])
            self.comm.Scatterv([b, counts] if self.rank == 0 else None, mine, 0)
            right.setArray(mine)
        try:
            ksp.solve(right, x)
            reason = int(ksp.getConvergedReason())
        except self.petsc.Error:
            reason = -100
        if self.comm is None:
            self.busy = False
            return x.getArray().copy(), reason, ksp
        found = np.empty(x.getSize()) if self.rank == 0 else None
        self.comm.Gatherv(x.getArray().copy(), [found, counts] if self.rank == 0 else None, 0)
        self.busy = False
        return found, reason, ksp

    def forget(self, *numbers: int) -> None:
        for number in numbers:
            for each in self.systems.pop(number, ()):
                each.destroy()


def _condition(ksp: Any) -> float:
    """The ratio of the largest to the smallest eigenvalue that conjugate gradients have found; 1 with other methods."""
    if ksp.getType() != "cg" or ksp.getIterationNumber() < 1:
        return 1.0
    values = np.real(ksp.computeEigenvalues())
    return float(values.max() / values.min()) if len(values) and values.min() > 0.0 else 1.0


def _prefixed(word: str, prefix: str) -> str:
    """An option under a prefix; values, which may be negative numbers, stay as they are."""
    return f"-{prefix}{word[1:]}" if word.startswith("-") and word[1:2].isalpha() else word


def _rows(matrix: sp.csr_matrix, modes: np.ndarray | None, place: tuple[int, int]) -> list[np.ndarray]:
    """Some rows of a matrix as starts, columns and values, and of the near-nullspace (k, rows)."""
    first, end = place
    start, stop = matrix.indptr[first], matrix.indptr[end]
    starts = np.ascontiguousarray(matrix.indptr[first : end + 1] - start, np.int32)
    parts = [starts, np.ascontiguousarray(matrix.indices[start:stop], np.int32)]
    parts.append(np.ascontiguousarray(matrix.data[start:stop], np.float64))
    return parts if modes is None else [*parts, np.ascontiguousarray(modes[first:end].T, np.float64)]


@cache
def _team() -> _Team:
    """The processes of this MPI run, of which there is one set in the life of a process."""
    return _Team()


@contextmanager
def leading() -> Iterator[None]:
    """Around all that a run of several MPI processes does: the leader does it, and the others help to solve.

    Raises:
        SystemExit: this process is not the leader, and the leader has come to its end.
    """
    team = _team()
    if team.rank:
        team.follow()
        raise SystemExit(0)
    try:
        yield
    finally:
        if team.busy and team.comm is not None:
            # The others wait for numbers that do not come.
            team.comm.Abort(1)
        team.order(("stop", ()))
