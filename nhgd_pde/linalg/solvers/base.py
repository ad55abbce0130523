"""What a solver of linear systems takes and gives: hints on the matrix, a prepared matrix, options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
from torch import Tensor


class SingularMatrixError(ArithmeticError):
    """A matrix that cannot be inverted in double precision."""


@dataclass(frozen=True)
class Library:
    """A library that a solver needs and that is not installed with the package.

    Attributes:
        name: its name.
        install: how to install it.
        found: gives something true where it is installed; it does not load it.
    """

    name: str
    install: str
    found: Callable[[], object]


@dataclass(frozen=True, eq=False)
class Linear:
    """The functions of lowest degree in a space of higher degree, the first coarser level of multigrid.

    Attributes:
        prolong: (n, m) their coefficients.
        vertices: (m,) the unknown with which each of them has the value one in common.
    """

    prolong: sp.csr_matrix
    vertices: np.ndarray

    def between(self, first: int, end: int) -> Linear:
        """Those among the unknowns from a first one to before an end, which have no functions with others in common."""
        kept = (self.vertices >= first) & (self.vertices < end)
        return Linear(sp.csr_matrix(self.prolong[first:end][:, kept]), self.vertices[kept])


@dataclass(frozen=True, eq=False)
class Velocity:
    """What is known of the velocities of a flow, the unknowns before its multipliers, the pressures.

    Attributes:
        starts: (components + 1,) the first unknown of every component, and the number of all of them.
        mass: makes the diagonal (n,) of their mass matrix.
        viscous: makes the matrix of the viscous terms, which do not couple components.
    """

    starts: np.ndarray
    mass: Callable[[], np.ndarray]
    viscous: Callable[[], sp.csr_matrix]


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
        linear: finds the functions of degree one among coefficients (n,); None in a space of degree one.
        coefficients: (n,) the coefficients that the unknowns are, which `linear` is given.
        state: the number of unknowns before the multipliers of a saddle point problem; None without multipliers.
        schur: makes the matrix that is spectrally equivalent to the Schur complement of the multipliers.
        velocity: of the unknowns before the multipliers of a flow with convection; None for other matrices.
    """

    symmetric: bool = False
    definite: bool | None = False
    dim: int = 2
    near_nullspace: np.ndarray | None = None
    nodes: np.ndarray | None = None
    components: np.ndarray | None = None
    linear: Callable[[np.ndarray], Linear] | None = None
    coefficients: np.ndarray | None = None
    state: int | None = None
    schur: Callable[[], sp.csr_matrix] | None = None
    velocity: Velocity | None = None

    def at(self, unknowns: np.ndarray) -> Hints:
        """The hints on vectors, for some of the unknowns."""
        nodes, components, modes = (
            None if each is None else each[unknowns] for each in (self.nodes, self.components, self.near_nullspace)
        )
        return replace(self, nodes=nodes, components=components, near_nullspace=modes, linear=None)


class Prepared(Protocol):
    """A matrix (n, n) prepared for solves with it and with its transpose.

    Attributes:
        bytes: bytes that it holds.
        exact: solves are exact to rounding.
        error: bound of the relative error of a solve, in the energy norm of a definite matrix; 0 if it is exact.
        note: a sentence on a solver that could not be used and the one that took its place; empty as a rule.
        size: n.
    """

    @property
    def bytes(self) -> int: ...
    @property
    def exact(self) -> bool: ...
    @property
    def error(self) -> float: ...
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

    def overestimate(self, b: Tensor) -> Tensor | None:
        """P b for a cheap P with r . A^-1 r <= r . P r for every r, A definite; None where nothing is cheaper than
        a solve."""
        ...


@runtime_checkable
class Iterative(Protocol):
    """A further method of a prepared matrix whose systems are solved by iteration."""

    def solve_within(self, b: Tensor, rtol: float, transposed: bool) -> Tensor:
        """A^-1 b, or A^-T b, up to a relative error, for every row of (k, n)."""
        ...


class WithoutEstimate:
    """A prepared matrix without a cheap approximation of its inverse."""

    def overestimate(self, b: Tensor) -> Tensor | None:
        return None


class Solver(Protocol):
    """The options of a solver; frozen.

    A solver that needs a library which is not installed with the package has a class attribute `library`, a `Library`.
    One that leaves some matrices to another solver has a method `chosen` (unknowns, hints) -> (solver, reason).
    """

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

    def chosen(self, unknowns: int) -> tuple[Solver, str]:
        """The solver that a matrix of this size takes, and the reason; without a reason it is the one asked for."""
        choose: Callable[[int, Hints], tuple[Solver, str]] | None = getattr(self.options, "chosen", None)
        return (self.options, "") if choose is None else choose(unknowns, self.hints)

    def with_hints(self, hints: Hints) -> LinearSolver:
        """The same solver for other matrices."""
        return LinearSolver(self.options, hints)
