"""What a solver of linear systems takes and gives: hints on the matrix, a prepared matrix, options."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from torch import Tensor


class SingularMatrixError(ArithmeticError):
    """A matrix that cannot be inverted in double precision."""


@dataclass(frozen=True, eq=False)
class Hints:
    """What is known of a matrix before it is looked at.

    Attributes:
        symmetric: it equals its transpose.
        definite: it is symmetric and positive definite; None where this is not known.
        dim: the dimension of space, on which the fill of factors depends.
        near_nullspace: (n, k) vectors that the operator without boundary conditions maps to zero, such as the
            rigid-body motions of elasticity; None stands for the constants.
        nodes: (n,) the node of every unknown, where nodes have several; None where each unknown is a node of its own.
        components: (n,) the component, 0, 1, ..., of every unknown of such nodes.
        blocks: the number of unknowns of each field of a saddle point problem, multipliers last; empty for one field.
    """

    symmetric: bool = False
    definite: bool | None = False
    dim: int = 2
    near_nullspace: np.ndarray | None = None
    nodes: np.ndarray | None = None
    components: np.ndarray | None = None
    blocks: tuple[int, ...] = ()


class Prepared(Protocol):
    """A matrix (n, n) prepared for solves with it and with its transpose.

    Attributes:
        bytes: bytes that it holds.
        exact: solves are exact to rounding; otherwise they have the relative error that the options ask for.
        note: a sentence on a solver that could not be used and the one that took its place; empty as a rule.
        size: n.
    """

    @property
    def bytes(self) -> int: ...
    @property
    def exact(self) -> bool: ...
    @property
    def note(self) -> str: ...
    @property
    def size(self) -> int: ...

    def solve(self, b: Tensor) -> Tensor:
        """A^-1 b for every row of (k, n)."""
        ...

    def solve_transposed(self, b: Tensor) -> Tensor:
        """A^-T b for every row of (k, n)."""
        ...


class Solver(Protocol):
    """The options of a solver; frozen."""

    @property
    def name(self) -> str: ...

    def prepare(self, matrix: sp.csr_matrix, hints: Hints) -> Prepared:
        """Prepare a matrix with finite entries.

        Raises:
            SingularMatrixError: it is singular to working precision.
        """
        ...


@dataclass(frozen=True, eq=False)
class LinearSolver:
    """A solver, and what is known of the matrices that it will be given.

    Attributes:
        options: the options of the solver.
        hints: what is known.
    """

    options: Solver
    hints: Hints = field(default_factory=Hints)

    def prepare(self, matrix: sp.csr_matrix, symmetric: bool) -> Prepared:
        """Prepare a matrix, which is symmetric or not.

        Raises:
            SingularMatrixError: it is singular to working precision, or has entries that are not finite.
        """
        if not np.isfinite(matrix.data).all():
            raise SingularMatrixError("the matrix of a linear system has entries that are not finite")
        hints = replace(self.hints, symmetric=symmetric, definite=self.hints.definite if symmetric else False)
        return self.options.prepare(matrix, hints)

    def with_hints(self, hints: Hints) -> LinearSolver:
        """The same solver for other matrices."""
        return LinearSolver(self.options, hints)
