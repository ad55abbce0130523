"""Every linear solver against dense solutions; those whose library is not installed are skipped, and say so."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from test_multigrid import energy_error, laplacian, random

import nhgd_pde as nhgd
from nhgd_pde.choice.vocabulary import vocabulary
from nhgd_pde.linalg.solvers.base import Hints, Library, LinearSolver, Prepared, SingularMatrixError, Solver
from nhgd_pde.problem_file.catalogue import SOLVERS, found_at

# Solvers that take every matrix; amg has tests of its own.
KINDS = [name for name in SOLVERS if name != "amg"]
DEFINITE, INDEFINITE, UNKNOWN = Hints(definite=True), Hints(definite=False), Hints(definite=None)
ITERATIVE = {"petsc"}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    installed(name)
    return name


def installed(name: str) -> type[Solver]:
    """The class of a solver; the test is skipped where its library is not there."""
    solver = found_at(SOLVERS[name])
    library: Library | None = getattr(solver, "library", None)
    if library is not None and not library.found():
        pytest.skip(f"{name} is not tested: {library.name} is not there ({library.install})")
    return solver


def prepared(kind: str, matrix: sp.csr_matrix, hints: Hints, symmetric: bool) -> Prepared:
    return LinearSolver(installed(kind)(), hints).prepare(matrix, symmetric)


def advection(n: int) -> sp.csr_matrix:
    """A nonsymmetric matrix: diffusion and transport."""
    size = (n - 1) ** 2
    return sp.csr_matrix(laplacian(n, n) + sp.diags_array([np.full(size - 1, 0.7)], offsets=[1]))


def saddle() -> sp.csr_matrix:
    """A symmetric indefinite matrix with zeros on its diagonal."""
    across = sp.random(81, 12, density=0.3, random_state=0)
    return sp.csr_matrix(sp.block_array([[laplacian(10, 10), across], [across.T, None]]))


def neumann(n: int) -> sp.csr_matrix:
    """A singular matrix, whose null vectors are the constants."""
    ones = np.ones(n - 1)
    return sp.csr_matrix(sp.diags_array([-ones, np.r_[1.0, 2.0 * ones[1:], 1.0], -ones], offsets=[-1, 0, 1]))


MATRICES = {
    "definite": (laplacian(11, 11), DEFINITE, True),
    "definite, in 3-D": (laplacian(7, 7, 7), UNKNOWN, True),
    "symmetric": (sp.csr_matrix(laplacian(11, 11) - 2.5 * sp.identity(100)), UNKNOWN, True),
    "saddle point": (saddle(), INDEFINITE, True),
    "not symmetric": (advection(11), UNKNOWN, False),
    "one unknown": (sp.csr_matrix([[2.0]]), DEFINITE, True),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("count", [1, 5])
def test_solutions_are_those_of_dense_matrices_both_ways(kind: str, name: str, count: int) -> None:
    matrix, hints, symmetric = MATRICES[name]
    found, b = prepared(kind, matrix, hints, symmetric), random(count, matrix.shape[0])
    dense = matrix.toarray()
    # An iterative solver ends at a relative error of 1e-10 in the energy norm.
    accuracy = 1e-8 if kind in ITERATIVE and not found.exact else 1e-11
    for solve, a in ((found.solve, dense), (found.solve_transposed, dense.T)):
        exact = np.linalg.solve(a, b.numpy().T).T
        mine = solve(b)
        assert mine.shape == b.shape and mine.dtype == torch.float64
        assert np.abs(mine.numpy() - exact).max() < accuracy * np.abs(exact).max()
    assert found.size == matrix.shape[0] and found.bytes > 0


@pytest.mark.parametrize("unit", [1e-15, 1e15])
@pytest.mark.parametrize("name", ["definite", "saddle point", "not symmetric"])
def test_units_do_not_change_the_solution(kind: str, name: str, unit: float) -> None:
    matrix, hints, symmetric = MATRICES[name]
    b = random(2, matrix.shape[0])
    usual = prepared(kind, matrix, hints, symmetric).solve(b)
    scaled = prepared(kind, sp.csr_matrix(unit * matrix), hints, symmetric)
    for found in (unit * scaled.solve(b), scaled.solve(unit * b)):
        assert float((found - usual).abs().max()) < 1e-8 * float(usual.abs().max())


@pytest.mark.parametrize("hints", [DEFINITE, UNKNOWN, INDEFINITE])
@pytest.mark.parametrize("symmetric", [True, False])
def test_singular_matrices_are_refused(kind: str, hints: Hints, symmetric: bool) -> None:
    matrix = neumann(60)
    if not symmetric:
        matrix = sp.csr_matrix(sp.diags_array(np.linspace(1.0, 2.0, 60)) @ matrix)
    with pytest.raises(SingularMatrixError, match="singular"):
        prepared(kind, matrix, hints, symmetric).solve(random(1, 60))


def test_numbers_that_are_not_finite_are_refused_or_stay_so(kind: str) -> None:
    matrix, hints, symmetric = MATRICES["definite"]
    found, b = prepared(kind, matrix, hints, symmetric), random(3, matrix.shape[0])
    b[1, 7] = float("nan")
    b[2] = 0.0
    x = found.solve(b)
    assert bool(x[0].isfinite().all()) and not bool(x[1].isfinite().all()) and not bool(x[2].any())
    broken = matrix.copy()
    broken.data[3] = float("inf")
    with pytest.raises(SingularMatrixError, match="not finite"):
        prepared(kind, broken, hints, symmetric)


def test_no_columns_and_a_transposed_layout(kind: str) -> None:
    matrix, hints, symmetric = MATRICES["definite"]
    found = prepared(kind, matrix, hints, symmetric)
    assert found.solve(torch.zeros(0, matrix.shape[0], dtype=torch.float64)).shape == (0, matrix.shape[0])
    b = random(matrix.shape[0], 3).T
    assert torch.equal(found.solve(b), found.solve(b.contiguous()))


def test_a_matrix_and_its_arrays_stay_as_they_are(kind: str) -> None:
    for matrix, hints, symmetric in MATRICES.values():
        before = [each.copy() for each in (matrix.data, matrix.indices, matrix.indptr)]
        b = random(2, matrix.shape[0])
        again = b.clone()
        prepared(kind, matrix, hints, symmetric).solve(b)
        after = (matrix.data, matrix.indices, matrix.indptr)
        assert all(np.array_equal(old, new) for old, new in zip(before, after, strict=True))
        assert torch.equal(b, again)


def test_two_matrices_of_one_solver_do_not_know_each_other(kind: str) -> None:
    first, second = laplacian(8, 8), sp.csr_matrix(laplacian(8, 8) + 3.0 * sp.identity(49))
    b = random(1, 49)
    one = prepared(kind, first, DEFINITE, True)
    alone = one.solve(b)
    two = prepared(kind, second, DEFINITE, True)
    assert float((one.solve(b) - alone).abs().max()) <= 1e-12 * float(alone.abs().max())
    del one
    exact = np.linalg.solve(second.toarray(), b.numpy()[0])
    assert np.abs(two.solve(b).numpy()[0] - exact).max() < 1e-8 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["symmetric", "saddle point", "not symmetric"])
def test_cholesky_leaves_other_matrices_to_lu_and_says_so(name: str) -> None:
    matrix, hints, symmetric = MATRICES[name]
    found = prepared("cholmod", matrix, hints, symmetric)
    assert type(found).__name__ == "SuperLUFactors" and "factorised by superlu" in found.note
    usual = prepared("cholmod", *MATRICES["definite"])
    assert type(usual).__name__ == "CholmodFactors" and not usual.note


def test_bytes_of_a_cholesky_factor_are_those_that_it_has() -> None:
    """The factor as CVXOPT gives it has the entries that are not zero; supernodes store some zeros besides."""
    installed("cholmod")
    from cvxopt import cholmod

    found = prepared("cholmod", laplacian(40, 40), DEFINITE, True)
    held, factor = found.bytes, found._factor  # type: ignore[attr-defined]
    entries = len(cholmod.getfactor(factor).V)
    assert 8 * entries < held < 8 * 2.0 * entries


@pytest.mark.parametrize("kind", ["cholmod", "pardiso"])
def test_symmetric_factors_take_less_memory_than_those_of_superlu(kind: str) -> None:
    matrix = laplacian(14, 14, 14)
    bytes_of = {each: prepared(each, matrix, DEFINITE, True).bytes for each in (kind, "superlu")}
    assert bytes_of[kind] < bytes_of["superlu"], bytes_of


def test_petsc_takes_few_iterations_with_its_multigrid_and_falls_back_without() -> None:
    petsc = installed("petsc")
    counts = []
    for n in (16, 32, 64):
        found = prepared("petsc", laplacian(n, n), DEFINITE, True)
        found.solve(random(1, (n - 1) ** 2))
        assert not found.exact and not found.note
        counts.append(found.iterations)  # type: ignore[attr-defined]
    assert max(counts) <= 25, counts
    poor = petsc(options="-ksp_type gmres -pc_type none -ksp_max_it 3")  # type: ignore[call-arg]
    found = LinearSolver(poor, DEFINITE).prepare(laplacian(16, 16), True)
    b = random(2, 225)
    exact = np.linalg.solve(laplacian(16, 16).toarray(), b.numpy().T).T
    assert np.abs(found.solve(b).numpy() - exact).max() < 1e-11 * np.abs(exact).max()
    assert found.exact and found.error == 0.0 and "did not converge" in found.note


@pytest.mark.parametrize("options", ["", "-ksp_type cg -pc_type jacobi", "-ksp_type cg -pc_type icc -ksp_rtol 1e-3"])
@pytest.mark.parametrize("rtol", [1e-2, 1e-6])
def test_petsc_does_not_report_smaller_errors_than_there_are(options: str, rtol: float) -> None:
    petsc = installed("petsc")
    for matrix in (laplacian(40, 40), laplacian(12, 12, 12), sp.csr_matrix(laplacian(400))):
        found = LinearSolver(petsc(options, rtol), DEFINITE).prepare(matrix, True)  # type: ignore[call-arg]
        b = random(3, matrix.shape[0])
        x = found.solve(b)
        assert not found.note and not found.exact
        assert energy_error(matrix, x, b) <= found.error < 500.0 * max(rtol, 1e-3 * ("1e-3" in options))


def test_petsc_takes_options_for_matrices_of_any_kind() -> None:
    petsc = installed("petsc")
    options = "-ksp_type gmres -pc_type ilu"
    matrix = advection(16)
    found = LinearSolver(petsc(options=options)).prepare(matrix, False)  # type: ignore[call-arg]
    b = random(2, 225)
    for mine, a in ((found.solve(b), matrix), (found.solve_transposed(b), matrix.T)):
        exact = np.linalg.solve(a.toarray(), b.numpy().T).T
        assert np.abs(mine.numpy() - exact).max() < 1e-7 * np.abs(exact).max()
    assert not found.exact and not found.note
    with pytest.raises(SingularMatrixError, match="no_such_thing"):
        LinearSolver(petsc(options="-pc_type no_such_thing")).prepare(matrix, False)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", KINDS)
def test_a_library_that_is_not_installed_is_a_mistake_of_the_file(name: str) -> None:
    library: Library | None = getattr(found_at(SOLVERS[name]), "library", None)
    if library is None or library.found():
        pytest.skip(f"the library of {name} is installed")
    with pytest.raises(nhgd.ProblemError, match=rf"solver\.kind: .*{name}, which needs .*pip install"):
        nhgd.load("problems/poisson_control.yaml", {"solver.kind": name})
    assert "not installed" in vocabulary()["linear solvers (solver.kind)"][name]


def test_solvers_are_listed_with_a_line_each() -> None:
    listed = vocabulary()["linear solvers (solver.kind)"]
    assert list(listed) == ["auto", *SOLVERS]
    assert all(listed.values())


@pytest.mark.parametrize("text", ["ksp_type cg", "--", "-1"])
def test_options_that_petsc_cannot_take_are_mistakes_of_the_file(text: str) -> None:
    with pytest.raises(nhgd.ProblemError, match=r"solver\.options"):
        nhgd.load("problems/poisson_control.yaml", {"solver.kind": "petsc", "solver.options": text})


def test_options_for_another_solver_are_a_mistake_of_the_file() -> None:
    overrides = {"solver.kind": "superlu", "solver.options": "-ksp_type cg"}
    with pytest.raises(nhgd.ProblemError, match=r"solver\.options: .*petsc.*superlu"):
        nhgd.load("problems/poisson_control.yaml", overrides)


def test_the_solver_and_its_reason_are_told() -> None:
    usual = nhgd.load("problems/poisson_control.yaml")
    assert "; superlu; " in str(usual)
    assert "solver: superlu (3,969 unknowns in 2-D)\n" in usual.report()
    asked = nhgd.load("problems/poisson_control.yaml", {"solver.kind": "amg"})
    assert "; amg; " in str(asked) and "solver: amg\n" in asked.report() and "multigrid hierarchy" in asked.report()
    if importlib.util.find_spec("cvxopt") is not None:
        flow = nhgd.load("problems/stokes_control.yaml", {"solver.kind": "cholmod"})
        assert "; superlu; " in str(flow) and "solver: superlu (the matrix is not definite" in flow.report()


@pytest.mark.parametrize("name", KINDS)
def test_a_solver_does_not_change_the_optimum(name: str) -> None:
    installed(name)
    usual, other = (
        nhgd.solve(nhgd.load("problems/poisson_control.yaml", {"mesh.cells": [24, 24], "solver.kind": each}))
        for each in ("superlu", name)
    )
    assert other.status == "converged" and other.stats["solver"] == name
    assert other.objective == pytest.approx(usual.objective, rel=1e-8)
