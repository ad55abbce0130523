"""The block preconditioner of flows with convection: solutions, adjoints, and counts of steps over meshes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import nhgd_pde as nhgd
from nhgd_pde.linalg.solvers.amg import AMG
from nhgd_pde.linalg.solvers.base import Hints, LinearSolver
from nhgd_pde.linalg.solvers.choice import Auto
from nhgd_pde.linalg.solvers.convection_cycle import ConvectionCycle
from nhgd_pde.linalg.solvers.gmres import MultigridGMRES
from nhgd_pde.linalg.solvers.superlu import SuperLU
from nhgd_pde.pde_problem import PDEProblem

CAVITY = {"top": {"dirichlet": [1, 0]}, "all": {"dirichlet": 0}}
CHANNEL = {
    "left": {"dirichlet": ["4*y*(1 - y)", 0]},
    "bottom": {"dirichlet": [0, 0]},
    "top": {"dirichlet": [0, 0]},
}


def flow(cells: int, viscosity: float | str, kind: str = "navier_stokes", **more: Any) -> PDEProblem:
    """A flow in a square, or on a mesh that is given."""
    pde = {"kind": kind, "viscosity": viscosity, "boundary": more.pop("boundary", CAVITY)}
    data = {"name": "flow", "mesh": {"kind": "rectangle", "cells": [cells, cells]}, "pde": pde, **more}
    objective = [{"kind": "regularisation", "weight": 1.0}]
    return nhgd.load({**data, "control": {"kind": "source"}, "objective": objective}).pde


def system(built: PDEProblem) -> tuple[sp.csr_matrix, Hints]:
    """The derivative at a flow with a vortex of speed one, and what is known of it."""
    equation, state = built.equation, built.space
    hints = equation.solver.hints
    assert hints.coefficients is not None
    x, y = state.nodes[:2]
    fields = np.zeros(state.size)
    first, second = (slice(*state.offsets[k : k + 2]) for k in (0, 1))
    fields[first] = (np.sin(np.pi * x) ** 2 * np.sin(2 * np.pi * y))[first]
    fields[second] = -(np.sin(2 * np.pi * x) * np.sin(np.pi * y) ** 2)[second]
    u = torch.from_numpy(fields[hints.coefficients])[None]
    return equation.linearise(u, u.new_zeros(equation.controls)).state.host(), hints


def sizes(matrix: sp.csr_matrix, hints: Hints) -> np.ndarray:
    """(n,) the diagonal of the velocities' block, and that of the mass matrix of pressures over the viscosity."""
    assert hints.schur is not None
    return np.concatenate([matrix.diagonal()[: hints.state], hints.schur().diagonal()])


def steps_of(matrix: sp.csr_matrix, hints: Hints, rtol: float = 1e-10) -> tuple[int, int]:
    """The steps of one solve with the matrix and one with its transpose, whose solutions are checked."""
    prepared = LinearSolver(AMG(rtol), hints).prepare(matrix, False)
    assert isinstance(prepared, MultigridGMRES)
    exact = LinearSolver(SuperLU(), hints).prepare(matrix, False)
    b = torch.from_numpy(np.random.default_rng(0).standard_normal((1, matrix.shape[0])))
    counts, scale = [], 1.0 / np.sqrt(sizes(matrix, hints))
    for mine, theirs, original in (
        (prepared.solve, exact.solve, matrix),
        (prepared.solve_transposed, exact.solve_transposed, matrix.T),
    ):
        before, found, truth = prepared.cycles, mine(b), theirs(b)
        residual = b[0].numpy() - original @ found[0].numpy()
        assert np.linalg.norm(scale * residual) <= 1.1 * rtol * np.linalg.norm(scale * b[0].numpy())
        assert float((found - truth).norm()) <= 1e-7 * float(truth.norm())
        counts.append(prepared.cycles - before)
    assert not prepared.note and not prepared.exact
    return counts[0], counts[1]


@pytest.mark.parametrize("boundary", [CAVITY, CHANNEL])
def test_solutions_are_those_of_a_dense_matrix(boundary: dict[str, Any]) -> None:
    matrix, hints = system(flow(6, 0.01, boundary=boundary))
    prepared = LinearSolver(AMG(), hints).prepare(matrix, False)
    b = torch.from_numpy(np.random.default_rng(0).standard_normal((2, matrix.shape[0])))
    dense = matrix.toarray()
    for found, whole in ((prepared.solve(b), dense), (prepared.solve_transposed(b), dense.T)):
        exact = np.linalg.solve(whole, b.numpy().T).T
        assert np.abs(found.numpy() - exact).max() <= 1e-8 * np.abs(exact).max()
    assert not prepared.note


@pytest.mark.slow
@pytest.mark.parametrize("boundary", [CAVITY, CHANNEL])
@pytest.mark.parametrize("viscosity", [0.1, 0.01])
def test_the_number_of_steps_does_not_grow_with_the_mesh(viscosity: float, boundary: dict[str, Any]) -> None:
    counts = [steps_of(*system(flow(cells, viscosity, boundary=boundary))) for cells in (16, 32, 64)]
    for of_one in zip(*counts, strict=True):
        assert max(of_one) <= 1.3 * of_one[0], counts


def test_the_number_of_steps_grows_mildly_with_the_reynolds_number() -> None:
    counts = [max(steps_of(*system(flow(16, 1.0 / number)))) for number in (1, 10, 100)]
    assert counts[1] <= 1.2 * counts[0] and counts[2] <= 2.0 * counts[0], counts


@pytest.mark.parametrize("kind", ["stokes", "navier_stokes"])
def test_the_number_of_steps_does_not_depend_on_units(kind: str) -> None:
    """The same flow with other units of the viscosity and the lengths, and a speed with the Reynolds number 10."""

    def steps(viscosity: float, length: float) -> int:
        mesh = {"kind": "rectangle", "size": [length, length], "cells": [12, 12]}
        boundary = {"top": {"dirichlet": [10.0 * viscosity / length, 0]}, "all": {"dirichlet": 0}}
        matrix, hints = still(flow(12, viscosity, kind, mesh=mesh, boundary=boundary))
        prepared = LinearSolver(AMG(), hints).prepare(matrix, kind == "stokes")
        b = torch.from_numpy(np.random.default_rng(0).standard_normal((1, matrix.shape[0])))
        prepared.solve(b * torch.from_numpy(np.sqrt(sizes(matrix, hints))))
        assert isinstance(prepared, MultigridGMRES) and not prepared.note
        return prepared.cycles

    counts = [steps(*units) for units in ((1.0, 1.0), (1e-8, 1.0), (1e6, 1.0), (1.0, 1e6), (1.0, 1e-6))]
    assert max(counts) - min(counts) <= 2, counts


def still(built: PDEProblem) -> tuple[sp.csr_matrix, Hints]:
    """The derivative where nothing flows, and what is known of it."""
    equation = built.equation
    u = equation.lift.new_zeros(1, equation.unknowns)
    return equation.linearise(u, u.new_zeros(equation.controls)).state.host(), equation.solver.hints


def test_a_flow_in_three_dimensions_is_solved_both_ways() -> None:
    mesh = {"kind": "box", "size": [1, 1, 1], "cells": [4, 4, 4]}
    boundary = {"top": {"dirichlet": [1, 0, 0]}, "all": {"dirichlet": 0}}
    assert max(steps_of(*system(flow(4, 0.02, boundary=boundary, mesh=mesh)))) <= 110


def test_the_viscous_terms_are_those_of_a_stokes_flow() -> None:
    convective, stokes = (flow(6, "1 + x*y", kind, boundary=CHANNEL).equation for kind in ("navier_stokes", "stokes"))
    velocity, first = convective.solver.hints.velocity, stokes.solver.hints.state
    assert velocity is not None and stokes.solver.hints.velocity is None
    u = stokes.lift.new_zeros(1, stokes.unknowns)
    matrix = stokes.linearise(u, u.new_zeros(stokes.controls)).state.host()[:first, :first]
    assert abs(velocity.viscous() - matrix).max() <= 1e-13 * abs(matrix).max()
    assert velocity.starts[-1] == first == len(velocity.mass())


@pytest.mark.parametrize("skew, coarse", [(0.2, True), (1.5, False)])
def test_levels_end_where_advection_dominates(skew: float, coarse: bool) -> None:
    """Central differences with the Peclet number `skew` of a cell; a matrix that is not made coarser is factorised."""
    line = sp.diags_array([-np.ones(39), 2.0 * np.ones(40), -np.ones(39)], offsets=[-1, 0, 1])
    wind = sp.diags_array([-np.ones(39), np.ones(39)], offsets=[-1, 1])
    one = sp.identity(40)
    matrix = sp.csr_matrix(sp.kron(line, one) + sp.kron(one, line) + 2.0 * skew * sp.kron(wind, one))
    cycle = ConvectionCycle(matrix, Hints(), 0)
    assert (cycle.levels > 1) == coarse
    b = np.random.default_rng(0).standard_normal(1600)
    for transposed, whole in ((False, matrix), (True, sp.csr_matrix(matrix.T))):
        left = np.linalg.norm(b - whole @ cycle.apply(b, transposed)) / np.linalg.norm(b)
        assert left <= (0.2 if coarse else 1e-12)


@pytest.mark.slow
def test_the_optimum_is_that_of_factors() -> None:
    small = {"mesh.cells": [6, 6]}
    iterative, direct = (
        nhgd.solve(nhgd.load("problems/navier_stokes_control.yaml", {**small, "solver.kind": kind}))
        for kind in ("amg", "superlu")
    )
    assert iterative.status == direct.status == "converged"
    assert iterative.objective == pytest.approx(direct.objective, rel=1e-8)
    assert not iterative.stats["warnings"]


def test_a_flow_that_does_not_converge_is_factorised_and_says_so() -> None:
    matrix, hints = system(flow(16, 1e-5))
    prepared = LinearSolver(AMG(), hints).prepare(matrix, False)
    b = torch.from_numpy(np.random.default_rng(0).standard_normal((1, matrix.shape[0])))
    exact = LinearSolver(SuperLU(), hints).prepare(matrix, False).solve(b)
    assert float((prepared.solve(b) - exact).norm()) <= 1e-10 * float(exact.norm())
    assert prepared.exact and prepared.note == "multigrid did not converge: the matrix was factorised by superlu"


def test_auto_takes_factors_for_flows_with_convection() -> None:
    """No size is known from which the block preconditioner takes less time."""
    hints = flow(2, 1.0).equation.solver.hints
    assert Auto().chosen(10_000_000, hints)[0].name == "superlu"
