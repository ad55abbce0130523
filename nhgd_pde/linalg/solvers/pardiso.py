"""PARDISO of Intel's MKL: factors of any matrix, by nested dissection, with all threads."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .base import Hints, Library, WithoutEstimate
from .superlu import significant, singular
from .trial_solve import recovers

# Kinds of matrices, and phases of the work.
_DEFINITE, _SYMMETRIC, _GENERAL = 2, -2, 11
_FACTORISE, _SOLVE, _RELEASE = 12, 33, -1
# Places in the array of options and results, from zero on.
_GIVEN, _TRANSPOSED, _PERTURBATION, _SCALING, _MATCHING = 0, 11, 9, 10, 12
_ORDERING, _PIVOTS, _FROM_ZERO = 1, 20, 34
_KILOBYTES = (15, 16)


def _places() -> Iterator[str]:
    """Where the library may be: a path, or a name that the system finds."""
    with suppress(PackageNotFoundError):
        for each in files("mkl") or ():
            if each.name.startswith(("libmkl_rt", "mkl_rt")):
                yield str(each.locate())
    # The files of a wheel that go to the prefix are listed relative to it by some installers, and not by others.
    for folder in ("lib", "Library/bin"):
        yield from map(str, sorted(Path(sys.prefix, folder).glob("*mkl_rt*")))
    found = ctypes.util.find_library("mkl_rt")
    if found is not None:
        yield found


def _place() -> str | None:
    return next((each for each in _places() if not Path(each).is_absolute() or Path(each).exists()), None)


@dataclass(frozen=True)
class Pardiso:
    """Cholesky, LDL^T or LU factors by Intel's MKL, whichever the matrix allows.

    Schenk and Gaertner 2004, Future Generation Computer Systems 20.
    """

    name = "pardiso"
    library = Library("MKL of Intel", "pip install mkl (x86 processors; under a licence of Intel)", _place)

    def prepare(self, matrix: sp.csr_matrix, hints: Hints) -> PardisoFactors:
        """The factors; raises a `SingularMatrixError` where there are none."""
        kinds = [_GENERAL]
        if hints.symmetric:
            kinds = [_SYMMETRIC] if hints.definite is False else [_DEFINITE, _SYMMETRIC]
            matrix = significant(sp.csr_matrix(matrix))
        for kind in kinds:
            with suppress(ArithmeticError):
                found = PardisoFactors(matrix, kind)
                if recovers(found.solve_columns, matrix):
                    return found
        raise singular(matrix)


class PardisoFactors(WithoutEstimate):
    """The factors of a matrix. Vectors are copied to the host and back.

    Raises:
        ArithmeticError: the matrix has no factors of this kind.
    """

    exact, error, note = True, 0.0, ""

    def __init__(self, matrix: sp.csr_matrix, kind: int) -> None:
        held = sp.csr_matrix(matrix) if kind == _GENERAL else _upper(matrix)
        held = sp.csr_matrix(
            (held.data.astype(np.float64), held.indices.astype(np.int32), held.indptr.astype(np.int32)),
            shape=held.shape,
        )
        held.sort_indices()
        self._matrix, self._kind = held, kind
        options = np.zeros(64, np.int32)
        options[_GIVEN], options[_ORDERING], options[_FROM_ZERO] = 1, 2, 1
        if kind != _DEFINITE:
            # Pivots below 10^-13 or 10^-8 of the norm are perturbed, after large entries have been put on the diagonal.
            options[_PERTURBATION] = 13 if kind == _GENERAL else 8
            options[_SCALING] = options[_MATCHING] = options[_PIVOTS] = 1
        self._options, self._place = options, np.zeros(64, np.int64)
        self._routine, self._threads = _routines()
        nothing = np.zeros(0)
        error = self._call(_FACTORISE, nothing, nothing, 1)
        # What the library holds is released when this object is gone.
        weakref.finalize(self, _release, self._routine, self._place, kind, held.shape[0])
        if error:
            raise ArithmeticError(f"PARDISO ended with error {error}")
        self._bytes = 1024 * sum(int(options[each]) for each in _KILOBYTES)

    @property
    def size(self) -> int:
        return int(self._matrix.shape[0])

    @property
    def bytes(self) -> int:
        """Bytes that the library says it holds for solves, and those of the matrix, which it reads."""
        return self._bytes + 12 * int(self._matrix.nnz)

    def solve_columns(self, b: np.ndarray, transposed: bool = False) -> np.ndarray:
        """A^-1 b, or A^-T b, for (n,), or for every column of (n, k)."""
        right = np.asfortranarray(b)
        found = np.empty_like(right)
        self._options[_TRANSPOSED] = 2 if transposed and self._kind == _GENERAL else 0
        error = self._call(_SOLVE, right, found, 1 if b.ndim == 1 else b.shape[1])
        return found if not error else np.full_like(found, np.nan)

    def solve(self, b: Tensor) -> Tensor:
        return self._solve(b, False)

    def solve_transposed(self, b: Tensor) -> Tensor:
        return self._solve(b, True)

    def overestimate(self, b: Tensor) -> Tensor | None:
        return None

    def _solve(self, b: Tensor, transposed: bool) -> Tensor:
        if not len(b):
            return b.clone()
        found = self.solve_columns(b.detach().cpu().numpy().T, transposed)
        return torch.from_numpy(np.ascontiguousarray(found.T)).to(b.device)

    def _call(self, phase: int, b: np.ndarray, x: np.ndarray, columns: int) -> int:
        before = self._threads(torch.get_num_threads())
        try:
            return _called(self._routine, self._place, self._kind, phase, self._matrix, columns, self._options, b, x)
        finally:
            self._threads(before)


def _upper(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """The upper triangle with every diagonal entry, zeros included, as the library asks for."""
    upper = sp.triu(matrix, format="coo")
    diagonal = np.arange(matrix.shape[0], dtype=upper.row.dtype)
    values = np.concatenate([upper.data, np.zeros(len(diagonal))])
    rows, columns = np.concatenate([upper.row, diagonal]), np.concatenate([upper.col, diagonal])
    return sp.csr_matrix((values, (rows, columns)), shape=matrix.shape)


def _routines() -> tuple[Any, Any]:
    """The routine that does all the work, and the one that sets the threads of this thread and gives those before."""
    place = _place()
    if place is None:
        raise ImportError(f"the solver pardiso needs MKL: {Pardiso.library.install}")
    library = ctypes.CDLL(place)
    library.pardiso.restype = None
    return library.pardiso, library.MKL_Set_Num_Threads_Local


def _called(
    routine: Any,
    place: np.ndarray,
    kind: int,
    phase: int,
    matrix: sp.csr_matrix | int,
    columns: int,
    options: np.ndarray,
    b: np.ndarray,
    x: np.ndarray,
) -> int:
    """Call the routine; the number of its error, 0 if there is none."""

    def number(value: int) -> Any:
        return ctypes.byref(ctypes.c_int32(value))

    def array(values: np.ndarray | None) -> Any:
        return None if values is None else ctypes.c_void_p(values.ctypes.data)

    size, parts = (
        (matrix, (None, None, None))
        if isinstance(matrix, int)
        else (
            matrix.shape[0],
            (matrix.data, matrix.indptr, matrix.indices),
        )
    )
    error = ctypes.c_int32(0)
    routine(
        array(place),
        number(1),
        number(1),
        number(kind),
        number(phase),
        number(size),
        *map(array, parts),
        None,
        number(columns),
        array(options),
        number(0),
        array(b),
        array(x),
        ctypes.byref(error),
    )
    return int(error.value)


def _release(routine: Any, place: np.ndarray, kind: int, size: int) -> None:
    nothing = np.zeros(0)
    _called(routine, place, kind, _RELEASE, size, 1, np.zeros(64, np.int32), nothing, nothing)
