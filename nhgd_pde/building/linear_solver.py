"""The solver of the linear systems that a file asks for, with what the equation knows of its matrices."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from ..fem.spaces import linear_functions
from ..fem.state_space import StateSpace
from ..linalg.solvers.base import Hints, Library, Linear, LinearSolver, Solver, Velocity
from ..linalg.solvers.choice import Auto
from ..problem_file.catalogue import SOLVERS, found_at
from ..problem_file.loading import ProblemFile
from .equation_properties import EquationProperties
from .families.base import Interior


def solver_of(file: ProblemFile) -> Solver:
    """The options of the solver.

    Raises:
        ProblemError: an option that the solver does not have, or a solver whose library is not installed.
    """
    spec = file.spec.solver
    given: dict[str, Any] = {} if spec.rtol == "auto" else {"rtol": float(spec.rtol)}
    given |= {"options": spec.options} if spec.options else {}
    known = Auto if spec.kind == "auto" else found_at(SOLVERS[spec.kind])
    library: Library | None = getattr(known, "library", None)
    if library is not None and not library.found():
        message = (
            f"expected a solver that is installed; found {spec.kind}, which needs {library.name}: {library.install}"
        )
        raise file.error("solver.kind", message)
    for option, value in given.items():
        if option not in _options(known):
            takers = [name for name, place in SOLVERS.items() if option in _options(found_at(place))]
            takers = ["auto", *takers] if option in _options(Auto) else takers
            message = f"expected nothing, or one of the solvers {', '.join(takers)}; found {value} with {spec.kind}"
            raise file.error(f"solver.{option}", message)
    return known(**given)


def _options(solver: Any) -> set[str]:
    return {each.name for each in fields(solver)}


def linear_solver(
    options: Solver,
    state: StateSpace,
    free: np.ndarray,
    interior: Interior,
    properties: EquationProperties,
    steady: bool = True,
) -> LinearSolver:
    """The solver of systems with the derivative of the equation by the state.

    Args:
        options: the solver.
        state: the space of the state.
        free: (n,) the unknowns of the state at one time.
        interior: the equation in the cells.
        properties: of the equation.
        steady: whether the systems are those of the equation itself, not those of the steps of an evolution.
    """
    definite: bool | None = properties.symmetric and properties.coercive and properties.exchanging
    if not definite and properties.symmetric and not interior.affine:
        # The energy of a nonlinear equation may be convex or not.
        definite = None
    hints = Hints(properties.symmetric, definite, state.domain.dim)
    if any(part.element == "P2" for part in state.parts):
        hints = replace(hints, linear=partial(_linear, state), coefficients=free)
    if interior.unseen:
        # The components of such a vector have the same nodes.
        nodes = np.concatenate([np.arange(part.size) for part in state.parts])[free]
        components = np.repeat(np.arange(len(state.parts)), [part.size for part in state.parts])[free]
        modes = np.stack(list(interior.unseen.values()), axis=1)[free]
        hints = replace(hints, near_nullspace=modes, nodes=nodes, components=components)
    if interior.multiplier is not None:
        first = int(np.searchsorted(free, state.offsets[-2]))
        hints = replace(hints, state=first, schur=partial(_multiplier_mass, state, free[first:], interior.multiplier))
        if steady and not properties.symmetric:
            starts = np.searchsorted(free, state.offsets[:-1])
            mass = partial(_velocity_mass, state, free[:first])
            viscous = partial(_viscous, state, free[:first], 1.0 / interior.multiplier)
            hints = replace(hints, velocity=Velocity(starts, mass, viscous))
    return LinearSolver(options, hints)


def _linear(state: StateSpace, free: np.ndarray) -> Linear:
    """The functions of degree one among the unknowns, field by field."""
    parts = [linear_functions(part) for part in state.parts]
    prolong = sp.block_diag([matrix for matrix, _ in parts], format="csr")
    vertices = np.concatenate([first + dofs for first, (_, dofs) in zip(state.offsets, parts, strict=False)])
    numbers = np.full(state.size, -1)
    numbers[free] = np.arange(len(free))
    kept = numbers[vertices] >= 0
    return Linear(sp.csr_matrix(prolong[free][:, kept]), numbers[vertices[kept]])


def _multiplier_mass(state: StateSpace, unknowns: np.ndarray, weight: Tensor) -> sp.csr_matrix:
    """The mass matrix of the last field with a weight (P,), on some of its coefficients."""
    value = (len(state.parts) - 1) * state.cells.stride
    shaped = weight.reshape(-1, *state.cells.quadrature.weights.shape).mean(0, keepdim=True)
    whole = state.cells.assemble(state.cells, {(value, value): shaped}, symmetric=True)
    return sp.csr_matrix(whole.host()[unknowns][:, unknowns])


def _velocity_mass(state: StateSpace, unknowns: np.ndarray) -> np.ndarray:
    """The diagonal of the mass matrix of all fields but the last, on some of their coefficients."""
    cells = state.parts[0].cells
    one = cells.quadrature.weights.new_ones(()).expand(1, *cells.quadrature.weights.shape)
    mass = cells.assemble(cells, {(0, 0): one}, symmetric=True).host()
    return np.asarray(np.tile(mass.diagonal(), len(state.parts) - 1)[unknowns])


def _viscous(state: StateSpace, unknowns: np.ndarray, viscosity: Tensor) -> sp.csr_matrix:
    """The matrix int viscosity grad u . grad phi of all fields but the last, on some of their coefficients."""
    cells = state.parts[0].cells
    weight = viscosity.reshape(-1, *cells.quadrature.weights.shape).mean(0, keepdim=True)
    one = cells.assemble(cells, {(i, i): weight for i in range(1, cells.stride)}, symmetric=True).host()
    whole = sp.block_diag([one] * (len(state.parts) - 1), format="csr")
    return sp.csr_matrix(whole[unknowns][:, unknowns])
