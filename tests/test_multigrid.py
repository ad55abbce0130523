"""The multigrid solver: counts of cycles that do not grow with the mesh, and equality with direct solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import nhgd_pde as nhgd
from nhgd_pde.linalg.counts import Counts
from nhgd_pde.linalg.factorisation import Factorisation
from nhgd_pde.linalg.solvers.amg import AMG, MultigridCG, hierarchy
from nhgd_pde.linalg.solvers.base import Hints, LinearSolver, SingularMatrixError
from nhgd_pde.linalg.solvers.choice import Auto
from nhgd_pde.linalg.solvers.gmres import MultigridGMRES
from nhgd_pde.linalg.solvers.superlu import SuperLU, SuperLUFactors
from nhgd_pde.pde.equation import StateEquation

DEFINITE = Hints(symmetric=True, definite=True)


def laplacian(*cells: int) -> sp.csr_matrix:
    """The finite difference Laplacian with Dirichlet values on a grid in any dimension."""
    total = sp.csr_matrix((1, 1))
    for count in cells:
        n = count - 1
        line = sp.diags_array([-np.ones(n - 1), 2.0 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
        total = sp.csr_matrix(sp.kron(total, sp.identity(n)) + sp.kron(sp.identity(total.shape[0]), line))
    return total


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def energy_error(matrix: sp.csr_matrix, x: torch.Tensor, b: torch.Tensor) -> float:
    """max |x - A^-1 b|_A / |A^-1 b|_A over the rows, by direct solutions."""
    exact = sp.linalg.splu(matrix.tocsc()).solve(b.numpy().T)
    error = x.numpy().T - exact
    squares = [np.einsum("ik,ik->k", each, matrix @ each) for each in (error, exact)]
    return float(np.sqrt(squares[0] / squares[1]).max())


def cycles(matrix: sp.csr_matrix, hints: Hints = DEFINITE) -> int:
    """Number of cycles of one solve, whose error is checked."""
    prepared = LinearSolver(AMG(), hints).prepare(matrix, True)
    assert isinstance(prepared, MultigridCG)
    b = random(1, matrix.shape[0])
    assert energy_error(matrix, prepared.solve(b), b) < 1e-9
    assert not prepared.exact and not prepared.note
    return prepared.cycles


def equation_of(pde: dict[str, Any], mesh: dict[str, Any], **more: Any) -> StateEquation:
    """The state equation of a problem."""
    objective = [{"kind": "regularisation", "weight": 1.0}]
    data = {"name": "systems", "mesh": mesh, "pde": pde, "control": {"kind": "source"}, "objective": objective, **more}
    return nhgd.load(data).pde.equation


def system(equation: StateEquation) -> tuple[sp.csr_matrix, Hints]:
    """J at the states zero, and what is known of it."""
    u = equation.lift.new_zeros(1, equation.unknowns)
    return equation.linearise(u, u.new_zeros(equation.controls)).state.host(), equation.solver.hints


@pytest.mark.parametrize("meshes", [((32, 32), (64, 64), (128, 128)), ((12, 12, 12), (16, 16, 16), (24, 24, 24))])
def test_the_number_of_cycles_does_not_grow_with_the_mesh(meshes: tuple[tuple[int, ...], ...]) -> None:
    counts = [cycles(laplacian(*cells)) for cells in meshes]
    assert max(counts) <= 1.3 * min(counts), counts
    assert max(counts) <= 12, counts


def test_the_cycle_is_symmetric_and_definite() -> None:
    matrix = laplacian(20, 20)
    cycle = hierarchy(matrix, DEFINITE, AMG(), torch.device("cpu"))
    inverse = cycle.apply(torch.eye(matrix.shape[0], dtype=torch.float64)).numpy()
    assert np.abs(inverse - inverse.T).max() < 1e-14 * np.abs(inverse).max()
    # The eigenvalues of P A lie between zero and one but for the bound of the smoother, which is an estimate.
    values = np.linalg.eigvals(inverse @ matrix.toarray()).real
    assert values.min() > 0.5
    assert values.max() < 1.05


BOX = {"kind": "box", "size": [2, 1, 1]}
SQUARE = {"kind": "rectangle"}
CLAMPED = {"left": {"dirichlet": [0, 0, 0]}}
# On the right only one component is given: nodes there have two unknowns.
ROLLER = {**CLAMPED, "right": {"dirichlet": [0, None, None]}}


@pytest.mark.parametrize("boundary", [CLAMPED, ROLLER])
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_elasticity_takes_few_cycles_with_its_rigid_motions(boundary: dict[str, Any], element: str) -> None:
    pde = {"kind": "elasticity", "young": 1.0, "poisson_ratio": 0.3, "source": [0, 0, 0], "boundary": boundary}
    sizes = (4, 8) if element == "P1" else (3, 5)
    counts = []
    for n in sizes:
        matrix, hints = system(equation_of(pde, {**BOX, "cells": [2 * n, n, n]}, element=element))
        assert hints.near_nullspace is not None and hints.near_nullspace.shape == (matrix.shape[0], 6)
        counts.append(cycles(matrix, hints))
    assert max(counts) <= 25, counts


def test_a_space_of_higher_degree_takes_as_few_cycles() -> None:
    pde = {"kind": "poisson", "conductivity": "1 + x", "boundary": {"all": {"dirichlet": 0}}}
    found = [system(equation_of(pde, {**SQUARE, "cells": [n, n]}, element="P2")) for n in (16, 32, 64)]
    counts = [cycles(*each) for each in found]
    assert max(counts) <= 12 and max(counts) <= 1.3 * min(counts), counts


def test_the_block_preconditioner_of_a_flow_takes_as_many_steps_on_every_mesh() -> None:
    pde = {"kind": "stokes", "viscosity": "1 + x", "boundary": {"all": {"dirichlet": [0, 0]}}}
    counts = []
    for n in (8, 16, 32):
        matrix, hints = system(equation_of(pde, {**SQUARE, "cells": [n, n]}))
        prepared = LinearSolver(AMG(), hints).prepare(matrix, True)
        assert isinstance(prepared, MultigridGMRES)
        b = random(2, matrix.shape[0])
        exact = LinearSolver(SuperLU()).prepare(matrix, True).solve(b)
        assert float((prepared.solve(b) - exact).abs().max()) < 1e-8 * float(exact.abs().max())
        assert not prepared.note
        counts.append(prepared.cycles / 2)
    assert max(counts) <= 1.3 * counts[1] and max(counts) < 70, counts


def test_advection_is_solved_both_ways() -> None:
    pde = {"kind": "advection_diffusion", "conductivity": 0.1, "velocity": ["1 - y", "x"]}
    matrix, hints = system(equation_of({**pde, "boundary": {"all": {"dirichlet": 0}}}, {**SQUARE, "cells": [32, 32]}))
    prepared = LinearSolver(AMG(), hints).prepare(matrix, False)
    assert isinstance(prepared, MultigridGMRES) and not prepared.exact
    b, exact = random(3, matrix.shape[0]), LinearSolver(SuperLU()).prepare(matrix, False)
    for mine, theirs in ((prepared.solve, exact.solve), (prepared.solve_transposed, exact.solve_transposed)):
        assert float((mine(b) - theirs(b)).abs().max()) < 1e-8 * float(theirs(b).abs().max())
    assert not prepared.note


def test_a_matrix_that_proves_indefinite_is_factorised_and_says_so() -> None:
    matrix = sp.csr_matrix(laplacian(24, 24) - 0.5 * sp.identity(23 * 23))
    assert (matrix.diagonal() > 0.0).all()
    prepared = LinearSolver(AMG(), Hints(symmetric=True, definite=None)).prepare(matrix, True)
    b = random(2, matrix.shape[0])
    exact = np.linalg.solve(matrix.toarray(), b.numpy().T).T
    assert np.abs(prepared.solve(b).numpy() - exact).max() < 1e-10 * np.abs(exact).max()
    assert prepared.exact and "factorised" in prepared.note


@pytest.mark.parametrize("hints", [Hints(symmetric=True, definite=False), Hints(symmetric=True, definite=True)])
def test_what_multigrid_cannot_take_is_factorised_at_once(hints: Hints) -> None:
    matrix = sp.csr_matrix(laplacian(12, 12) - 4.5 * sp.identity(121))
    assert isinstance(LinearSolver(AMG(), hints).prepare(matrix, True), SuperLUFactors)


def test_numbers_that_are_not_finite_are_refused_or_stay_so() -> None:
    matrix = laplacian(12, 12)
    b = random(3, matrix.shape[0])
    b[1, 5] = float("nan")
    b[2] = 0.0
    found = LinearSolver(AMG(), DEFINITE).prepare(matrix, True).solve(b)
    assert bool(found[0].isfinite().all()) and bool(found[1].isnan().all()) and not bool(found[2].any())
    matrix.data[3] = float("inf")
    with pytest.raises(SingularMatrixError, match="not finite"):
        LinearSolver(AMG(), DEFINITE).prepare(matrix, True)


@pytest.mark.parametrize("unit", [1e-150, 1e-15, 1e15, 1e150])
def test_units_do_not_change_the_solution(unit: float) -> None:
    matrix, b = laplacian(16, 16), random(2, 225)
    usual = LinearSolver(AMG(), DEFINITE).prepare(matrix, True).solve(b)
    scaled = LinearSolver(AMG(), DEFINITE).prepare(sp.csr_matrix(unit * matrix), True).solve(b)
    assert float((unit * scaled - usual).abs().max()) < 1e-10 * float(usual.abs().max())
    load = LinearSolver(AMG(), DEFINITE).prepare(matrix, True).solve(unit * b)
    assert float((load / unit - usual).abs().max()) < 1e-10 * float(usual.abs().max())


def test_rows_are_solved_together_as_one_by_one() -> None:
    matrix, b = laplacian(10, 10, 10), random(5, 729)
    prepared = LinearSolver(AMG(), DEFINITE).prepare(matrix, True)
    together, alone = prepared.solve(b), torch.cat([prepared.solve(row[None]) for row in b])
    assert float((together - alone).abs().max()) < 1e-12 * float(alone.abs().max())


def test_auto_goes_by_dimension_size_and_structure() -> None:
    auto, definite = Auto(), {"symmetric": True, "definite": True}
    assert auto.chosen(100_000, Hints(**definite, dim=3))[0].name == "amg"
    assert auto.chosen(100_000, Hints(**definite, dim=2))[0].name == "superlu"
    assert auto.chosen(5_000, Hints(**definite, dim=3))[0].name == "superlu"
    assert auto.chosen(100_000, Hints(symmetric=False, dim=3))[0].name == "superlu"
    assert auto.chosen(100_000, Hints(symmetric=True, definite=False, dim=3))[0].name == "superlu"
    assert auto.chosen(100_000, Hints(symmetric=True, definite=None, dim=3))[0].name == "amg"


def test_a_tolerance_for_factors_is_a_mistake_of_the_file() -> None:
    with pytest.raises(nhgd.ProblemError, match=r"solver\.rtol.*amg.*superlu"):
        nhgd.load("problems/poisson_control.yaml", {"solver.kind": "superlu", "solver.rtol": 1e-8})


@pytest.mark.parametrize("size, conductivity", [([1, 1, 1], [[1, 0, 0], [0, 1, 0], [0, 0, 1e-4]]), ([10, 1, 0.1], 1.0)])
def test_thin_cells_and_anisotropy_take_as_few_cycles(size: list[float], conductivity: Any) -> None:
    """Aggregates of all neighbours would take more than 30 cycles."""
    pde = {"kind": "poisson", "conductivity": conductivity, "boundary": {"all": {"dirichlet": 0}}}
    matrix, hints = system(equation_of(pde, {"kind": "box", "size": size, "cells": [12, 12, 12]}))
    assert cycles(matrix, hints) <= 13


@pytest.mark.parametrize("contrast", [1e-3, 1e-9])
def test_contrasts_are_solved_and_their_dual_norms_are_not_underestimated(contrast: float) -> None:
    young = f"where(sin(7*x)*sin(9*y)*sin(8*z) > 0.1, 1, {contrast})"
    pde = {"kind": "elasticity", "young": young, "poisson_ratio": 0.3, "boundary": CLAMPED}
    matrix, hints = system(equation_of(pde, {**BOX, "cells": [10, 5, 5]}))
    prepared = LinearSolver(AMG(), hints).prepare(matrix, True)
    assert isinstance(prepared, MultigridCG)
    b = random(20, matrix.shape[0])
    exact = torch.from_numpy(sp.linalg.splu(matrix.tocsc()).solve(b.numpy().T).T)
    bound = prepared.overestimate(b)
    if bound is not None:
        assert bool(((b * bound).sum(1) >= (b * exact).sum(1)).all())
    prepared.solve(b[:1])
    assert prepared.cycles <= 50
    assert not prepared.note


def test_a_run_whose_solver_was_replaced_says_so() -> None:
    small = {"mesh.cells": [12, 12], "pde.reaction": -30, "inner.model": "residual"}
    iterative, direct = (
        nhgd.solve(nhgd.load("problems/poisson_control.yaml", {**small, "solver.kind": kind}))
        for kind in ("amg", "auto")
    )
    assert iterative.status == direct.status == "converged"
    assert any("factorised by superlu" in each for each in iterative.stats["warnings"])
    assert not direct.stats["warnings"]
    assert iterative.objective == pytest.approx(direct.objective, rel=1e-8)


def test_systems_whose_residual_consists_of_rounding_errors_are_solved() -> None:
    """With a condition number of 1e9, no solution has a residual of 1e-12 of the right-hand side."""
    n = 20_000
    matrix, near = (
        sp.csr_matrix(sp.diags([-1.0 - skew, 2.0, -1.0], [-1, 0, 1], shape=(n, n))) for skew in (1e-6, 2e-6)
    )
    hints = Hints(dim=1)
    factors, inexact = SuperLU().prepare(matrix, hints), SuperLU().prepare(near, hints)

    class Factors:
        bytes = 0

        def apply(self, r: np.ndarray, transposed: bool) -> np.ndarray:
            return inexact.solve(torch.from_numpy(r)[None])[0].numpy()

    prepared = MultigridGMRES(matrix, hints, Factors(), 1e-12, matrix.diagonal())
    b = random(1, n)
    found, exact = prepared.solve(b), factors.solve(b)
    left = [float((b[0] - torch.from_numpy(matrix @ each[0].numpy())).norm() / b.norm()) for each in (found, exact)]
    assert not prepared.note and not prepared.exact
    assert left[1] > 1e-11 and left[0] <= 2.0 * left[1]
    part = sp.csr_matrix(matrix[:2000, :2000])
    poor = MultigridGMRES(part, hints, Nothing(), 1e-10, part.diagonal())
    poor.solve(b[:, :2000])
    assert poor.exact and "did not converge" in poor.note


class Nothing:
    """A preconditioner that does nothing."""

    bytes = 0

    def apply(self, r: np.ndarray, transposed: bool) -> np.ndarray:
        return r


@pytest.mark.parametrize("kind", ["definite", "advection"])
def test_a_solve_may_be_cut_short(kind: str) -> None:
    pde: dict[str, Any] = {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}}
    if kind == "advection":
        pde = {**pde, "kind": "advection_diffusion", "conductivity": 0.1, "velocity": ["1 - y", "x"]}
    matrix, hints = system(equation_of(pde, {**SQUARE, "cells": [32, 32]}))
    counts = Counts()
    solver = LinearSolver(AMG(), hints)
    whole = Factorisation(matrix, counts, kind == "definite", solver)
    b = random(2, matrix.shape[0])
    exact = LinearSolver(SuperLU(), hints).prepare(matrix, False)
    cycles = []
    for rtol in (1e-10, 1e-6, 1e-3):
        before = whole.prepared.cycles  # type: ignore[attr-defined]
        for solve, truth in (
            (whole.within(rtol).solve, exact.solve(b)),
            (whole.within(rtol).solve_transposed, exact.solve_transposed(b)),
        ):
            assert float((solve(b) - truth).norm() / truth.norm()) <= 10.0 * rtol
        cycles.append(whole.prepared.cycles - before)  # type: ignore[attr-defined]
    assert cycles[1] < 0.75 * cycles[0] and cycles[2] < 0.75 * cycles[1]
    # The matrix itself is solved as before.
    assert float((whole.solve(b) - exact.solve(b)).norm() / exact.solve(b).norm()) <= 1e-9
    assert counts.solves == 14
