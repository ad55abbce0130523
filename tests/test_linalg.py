"""Sparse products, factorisations, conjugate gradients and Riesz maps, against dense linear algebra."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.spaces import Space, space
from nhgd_pde.linalg.counts import Counts
from nhgd_pde.linalg.factorisation import (
    Factorisation,
    ScenarioFactorisation,
    SingularMatrixError,
    factorised_riesz_map,
)
from nhgd_pde.linalg.krylov import conjugate_gradients, dot, extreme_eigenvalues, preconditioned_residuals
from nhgd_pde.linalg.riesz import RieszMap, diagonal_riesz_map, mass_riesz_map
from nhgd_pde.linalg.sparse import ScenarioMatrix, SparseMatrix
from problems import CPU, h1_matrix, h1_riesz, random, relative, space_of


def sparse(rows: int, columns: int, seed: int = 0) -> sp.csr_matrix:
    return sp.csr_matrix(sp.random(rows, columns, 0.3, "csr", rng=np.random.default_rng(seed)))


def scenario_matrix(scenarios: int, n: int, m: int, seed: int = 0) -> tuple[ScenarioMatrix, list[np.ndarray]]:
    """Matrices of one pattern with different entries, also as dense ones."""
    pattern = sparse(n, m, seed)
    data = random(scenarios, pattern.nnz, seed=seed)
    data[:, 1] = 0.0
    dense = [sp.csr_matrix((row.numpy(), pattern.indices, pattern.indptr), shape=(n, m)).toarray() for row in data]
    return ScenarioMatrix((pattern.indptr, pattern.indices), data, (n, m)), dense


def spd(n: int, seed: int = 0) -> Tensor:
    root = random(n, n, seed=seed)
    return root @ root.T + torch.eye(n, dtype=torch.float64)


# Sparse matrices


@pytest.mark.parametrize("rows", [1, 3])
def test_sparse_products_equal_dense_ones(rows: int) -> None:
    host = sparse(7, 5)
    matrix = SparseMatrix(host)
    x, y = random(rows, 5), random(rows, 7)
    torch.testing.assert_close(matrix.mv(x), x @ torch.from_numpy(host.toarray().T), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(matrix.rmv(y), y @ torch.from_numpy(host.toarray()), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("scenarios", [1, 3])
def test_scenario_products_equal_dense_ones(scenarios: int) -> None:
    matrix, dense = scenario_matrix(scenarios, 6, 4)
    dense = dense if scenarios > 1 else dense * 3
    x, y = random(3, 4), random(3, 6, seed=1)
    forward = torch.stack([torch.from_numpy(a) @ row for a, row in zip(dense, x, strict=True)])
    backward = torch.stack([torch.from_numpy(a.T) @ row for a, row in zip(dense, y, strict=True)])
    torch.testing.assert_close(matrix.mv(x), forward, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(matrix.rmv(y), backward, rtol=1e-14, atol=1e-14)
    assert abs(dot(matrix.mv(x), y) - dot(x, matrix.rmv(y))) < 1e-13
    stacked = torch.stack([y, 2.0 * y])
    torch.testing.assert_close(matrix.rmv(stacked), torch.stack([backward, 2.0 * backward]), rtol=1e-14, atol=1e-14)
    assert np.array_equal(matrix.host(2).toarray(), dense[2])
    assert np.allclose(matrix.mean().toarray(), np.mean(dense, axis=0), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("mine", "theirs"), [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_sums_of_different_patterns_keep_explicit_zeros(mine: int, theirs: int) -> None:
    a, dense_a = scenario_matrix(mine, 6, 4, seed=1)
    b, dense_b = scenario_matrix(theirs, 6, 4, seed=2)
    total = a + b
    assert not total.symmetric and total.data.shape[0] == max(mine, theirs)
    for s in range(total.data.shape[0]):
        expected = dense_a[s if mine > 1 else 0] + dense_b[s if theirs > 1 else 0]
        assert np.allclose(total.host(s).toarray(), expected, rtol=1e-15, atol=0)
    pattern_a, pattern_b = (
        sp.csr_matrix((np.ones(len(m.pattern[1])), m.pattern[1], m.pattern[0]), shape=m.shape) for m in (a, b)
    )
    union = sp.csr_matrix(pattern_a + pattern_b)
    assert np.array_equal(total.pattern[0], union.indptr) and np.array_equal(total.pattern[1], union.indices)
    assert torch.equal((a + a).data, 2 * a.data)


def test_a_sum_of_different_shapes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(6, 4\) and \(4, 6\)"):
        _ = scenario_matrix(1, 6, 4)[0] + scenario_matrix(1, 4, 6)[0]


@pytest.mark.parametrize(("rows", "columns"), [([0, 2, 3], [1, 3]), ([5], [0, 1, 2, 3]), ([], [2])])
def test_restriction_takes_rows_and_columns(rows: list[int], columns: list[int]) -> None:
    matrix, dense = scenario_matrix(2, 6, 4)
    part = matrix.restrict(np.array(rows, dtype=int), np.array(columns, dtype=int))
    assert part.shape == (len(rows), len(columns))
    for s in range(2):
        assert np.array_equal(part.host(s).toarray(), dense[s][np.ix_(rows, columns)])


# Factorisations


@pytest.mark.parametrize("rows", [1, 4])
def test_factors_solve_with_a_matrix_and_its_transpose(rows: int) -> None:
    host = sp.csr_matrix(sparse(9, 9) + 2 * sp.eye(9))
    counts = Counts()
    factors = Factorisation(host, counts, symmetric=False)
    x = random(rows, 9)
    dense = torch.from_numpy(host.toarray())
    assert relative(factors.solve(x @ dense.T), x) < 1e-12
    assert relative(factors.solve_transposed(x @ dense), x) < 1e-12
    assert (counts.factorisations, counts.solves) == (1, 2 * rows)


@pytest.mark.parametrize("shift", [0.0, -300.0])
def test_the_symmetric_option_equals_the_general_one(shift: float) -> None:
    """Also for an indefinite matrix: 300 lies inside the spectrum of the Laplacian."""
    functions = space_of(2, 12, "P1")
    free = functions.domain.mesh.interior_nodes()
    one = torch.ones_like(functions.cells.quadrature.weights)[None]
    tests = functions.cells.columns(free)
    mass = tests.assemble(tests, {(0, 0): one}).host()
    host = sp.csr_matrix(h1_matrix(functions, free).host + shift * mass)
    values = np.linalg.eigvalsh(host.toarray())
    assert (values.min() < 0 < values.max()) == (shift < 0)
    b = random(2, len(free))
    general, special = (Factorisation(host, Counts(), symmetric) for symmetric in (False, True))
    assert relative(special.solve(b), general.solve(b)) < 1e-11
    assert relative(special.solve_transposed(b), general.solve_transposed(b)) < 1e-11
    assert special.fill < general.fill


def test_a_symmetric_matrix_that_needs_pivots_gets_them() -> None:
    """Eliminating a diagonal of 1e-18 first would lose the ones beside it."""
    block = np.array([[1e-18, 1.0, 1.0], [1.0, 1e-18, 1.0], [1.0, 1.0, 1e-18]])
    x = random(1, 3)
    solved = Factorisation(sp.csr_matrix(block), Counts(), symmetric=True).solve(x @ torch.from_numpy(block))
    assert relative(solved, x) < 1e-14


@pytest.mark.parametrize("turned", [0.0, 0.3])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_saddle_points_are_factorised_without_pivoting_as_accurately_as_with_it(sign: float, turned: float) -> None:
    """[A B; B^T 0] with a definite A, symmetric or not; B takes differences of neighbours."""
    functions = space_of(2, 14, "P1")
    free = np.setdiff1d(np.arange(functions.size), functions.facet_dofs(functions.domain.boundaries["all"]))
    a = h1_matrix(functions, free).host
    n, m = len(free), len(free) // 3
    b = sp.diags_array([np.ones(n), -0.5 * np.ones(n)], offsets=[0, 1], shape=(n, n)).tocsr()[:, :m]
    a = a + turned * (sp.triu(a) - sp.tril(a))
    matrix = sp.csr_matrix(sp.block_array([[sign * a, b], [b.T, None]]))
    x = random(3, n + m)
    image, back = (torch.from_numpy((each @ x.numpy().T).T) for each in (matrix, matrix.T))
    factors = Factorisation(matrix, Counts(), symmetric=not turned)
    assert relative(factors.solve(image), x) < 1e-11
    assert relative(factors.solve_transposed(back), x) < 1e-11


def test_a_saddle_point_without_an_inverse_is_singular() -> None:
    """Two equal constraints."""
    a, b = sp.identity(4), sp.csr_matrix(np.ones((4, 2)))
    with pytest.raises(SingularMatrixError):
        Factorisation(sp.csr_matrix(sp.block_array([[a, b], [b.T, None]])), Counts(), symmetric=True)


def neumann_laplacian() -> sp.csr_matrix:
    functions = space_of(2, 12, "P1")
    return h1_matrix(functions, np.arange(functions.size)).host


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (sp.csr_matrix(np.ones((3, 3))), "3 x 3 matrix is singular"),
        (sp.csr_matrix(np.diag([1.0, 0.0])), "singular"),
        (neumann_laplacian(), "boundary condition missing"),
        (sp.csr_matrix(np.diag([1.0, np.nan])), "not finite"),
        (sp.csr_matrix(np.diag([1.0, np.inf])), "not finite"),
    ],
    ids=["rank one", "zero", "neumann", "nan", "inf"],
)
def test_singular_and_non_finite_matrices_are_refused(matrix: sp.csr_matrix, words: str, symmetric: bool) -> None:
    counts = Counts()
    with pytest.raises(SingularMatrixError, match=words):
        Factorisation(matrix, counts, symmetric)
    assert counts.factorisations == 0


def test_a_high_contrast_is_not_singular() -> None:
    host = sp.csr_matrix(sp.diags([1.0, 1e-14, 1e8]) + 1e-16 * sp.eye(3))
    Factorisation(host, Counts(), symmetric=True)


@pytest.mark.parametrize("scenarios", [1, 3])
def test_scenario_factors_solve_every_scenario(scenarios: int) -> None:
    matrix, _ = scenario_matrix(scenarios, 6, 6)
    indices = np.arange(6)
    diagonal = ScenarioMatrix((np.arange(7), indices), torch.full((1, 6), 5.0, dtype=torch.float64), (6, 6))
    matrix = matrix + diagonal
    counts = Counts()
    factors = ScenarioFactorisation(matrix, counts)
    x = random(3, 6)
    assert relative(factors.solve(matrix.mv(x)), x) < 1e-12
    assert relative(factors.solve_transposed(matrix.rmv(x)), x) < 1e-12
    assert (counts.factorisations, counts.solves) == (scenarios, 6)


# Krylov methods


def identity(r: Tensor) -> Tensor:
    return r


def test_conjugate_gradients_find_the_solution() -> None:
    a = spd(20)
    x = random(2, 10)

    def operator(v: Tensor) -> Tensor:
        return (a @ v.reshape(-1)).reshape(2, 10)

    found = conjugate_gradients(operator, operator(x), identity, rtol=1e-12)
    assert found.converged and found.error <= 1e-12 and "steps" in found.message
    assert relative(found.solution, x) < 1e-10
    assert found.iterations <= 25


def test_conjugate_gradients_end_with_as_many_steps_as_there_are_eigenvalues() -> None:
    values = torch.tensor([1.0, 1.0, 4.0, 4.0, 9.0, 9.0], dtype=torch.float64)
    found = conjugate_gradients(lambda v: values * v, random(1, 6), identity, rtol=1e-12)
    assert found.converged and found.iterations == 3
    exact = conjugate_gradients(lambda v: values * v, random(1, 6), lambda r: r / values, rtol=1e-12)
    assert exact.converged and exact.iterations == 1


def test_a_warm_start_takes_fewer_steps() -> None:
    a, x = spd(40), random(1, 40)
    b = x @ a
    cold = conjugate_gradients(lambda v: v @ a, b, identity, rtol=1e-8)
    warm = conjugate_gradients(lambda v: v @ a, b, identity, start=x + 1e-6 * random(1, 40, seed=1), rtol=1e-8)
    assert cold.converged and warm.converged and warm.iterations < cold.iterations
    assert relative(warm.solution, x) < 1e-6
    assert relative(warm.residual, b - warm.solution @ a) < 1e-4
    assert warm.error == pytest.approx(float(warm.residual.norm() / b.norm()), rel=1e-10)


@pytest.mark.parametrize("error", [None, lambda x, r: float(r.norm())], ids=["own", "callers"])
def test_an_exact_start_is_the_solution(error: Callable[[Tensor, Tensor], float] | None) -> None:
    x = torch.ones(1, 4, dtype=torch.float64)
    found = conjugate_gradients(lambda v: 2.0 * v, 2.0 * x, identity, start=x, error=error)
    assert found.converged and found.iterations == 0 and torch.equal(found.solution, x)


def test_a_zero_right_hand_side_has_the_zero_solution() -> None:
    zero = torch.zeros(1, 3, dtype=torch.float64)
    found = conjugate_gradients(identity, zero, identity, start=random(1, 3))
    assert found.converged and found.iterations == 0 and torch.equal(found.solution, zero)


@pytest.mark.parametrize("error", [None, lambda x, r: float(r.norm())], ids=["own", "callers"])
@pytest.mark.parametrize(
    ("operator", "preconditioner", "words"),
    [
        (lambda v: v * torch.tensor([1.0, -3.0, 1.0]), identity, "not positive definite"),
        (identity, lambda r: -r, "not positive definite"),
        (identity, lambda r: r * torch.tensor([1.0, 1.0, -5.0]), "not positive definite"),
        (lambda v: v * math.nan, identity, "not finite"),
        (identity, lambda r: r * math.nan, "not finite"),
        (lambda v: v * math.inf, identity, "not finite"),
    ],
    ids=["operator", "negative preconditioner", "indefinite preconditioner", "nan", "nan in P", "inf"],
)
def test_what_is_not_definite_or_finite_is_reported(
    operator: Callable[[Tensor], Tensor],
    preconditioner: Callable[[Tensor], Tensor],
    words: str,
    error: Callable[[Tensor, Tensor], float] | None,
) -> None:
    found = conjugate_gradients(operator, torch.ones(1, 3, dtype=torch.float64), preconditioner, error=error)
    assert not found.converged and words in found.message


def test_too_few_steps_are_reported() -> None:
    a = spd(30)
    found = conjugate_gradients(lambda v: v @ a, random(1, 30), identity, rtol=1e-12, iterations=2)
    assert not found.converged and found.iterations == 2 and found.message.startswith("2 steps left")
    assert found.error == pytest.approx(float(found.residual.norm() / random(1, 30).norm()), rel=1e-12)


def test_the_error_is_measured_by_the_caller_after_every_step() -> None:
    a, x = spd(10), random(1, 10)
    b, seen = x @ a, []

    def error(iterate: Tensor, residual: Tensor) -> float:
        seen.append(relative(residual, b - iterate @ a) if not residual.norm() < 1e-6 else 0.0)
        return relative(iterate, x)

    found = conjugate_gradients(lambda v: v @ a, b, identity, rtol=1e-3, error=error)
    assert found.converged and found.error == relative(found.solution, x) <= 1e-3
    assert len(seen) == found.iterations and max(seen) < 1e-8


def identity_metric(n: int) -> RieszMap:
    return diagonal_riesz_map(torch.ones(n, dtype=torch.float64), SparseMatrix(sp.eye(n).tocsr(), symmetric=True))


@pytest.mark.parametrize("near", [0.0, 0.3, 3.0])
def test_preconditioned_residuals_solve_a_system_that_is_not_symmetric(near: float) -> None:
    n = 30
    exact, b = random(n, n) / n**0.5 + 3.0 * torch.eye(n, dtype=torch.float64), random(1, n, seed=1)
    matrix = exact + near * random(n, n, seed=2) / n**0.5
    applied = []

    def preconditioner(r: Tensor) -> Tensor:
        applied.append(r)
        return torch.linalg.solve(exact, r.T).T

    def error(x: Tensor, residual: Tensor) -> float:
        assert torch.allclose(residual, b - x @ matrix.T, atol=1e-11)
        return float(residual.norm() / b.norm())

    found = preconditioned_residuals(
        lambda x: x @ matrix.T, b, preconditioner, identity_metric(n), None, 1e-10, 40, error
    )
    solution = torch.linalg.solve(matrix, b.T).T
    assert found.converged and found.iterations == len(applied)
    assert (found.solution - solution).norm() <= 1e-8 * solution.norm()
    # Iterative refinement would diverge with the last of them.
    radius = torch.linalg.eigvals(torch.linalg.solve(exact, exact - matrix)).abs().max()
    assert found.iterations == 1 if near == 0.0 else found.iterations <= n + 1
    assert (radius > 1.0) == (near == 3.0)
    again = preconditioned_residuals(
        lambda x: x @ matrix.T, b, preconditioner, identity_metric(n), found.solution, 1e-9, 40, error
    )
    assert again.converged and again.iterations == 0 and torch.equal(again.solution, found.solution)


def test_preconditioned_residuals_measure_by_their_own_norm_and_give_up_when_told() -> None:
    n = 30
    matrix, b = random(n, n) / n**0.5 + 3.0 * torch.eye(n, dtype=torch.float64), random(1, n, seed=1)
    arguments = (lambda x: x @ matrix.T, b, lambda r: r / 3.0, identity_metric(n))
    for rtol in (1e-2, 1e-6):
        found = preconditioned_residuals(*arguments, rtol=rtol)
        left = (b - found.solution @ matrix.T).norm() / 3.0
        assert found.converged and found.error <= rtol
        assert float(left / found.solution.norm()) == pytest.approx(found.error, rel=1e-6)
    steps = []

    def hopeless(contraction: float, error: float, step: int) -> bool:
        steps.append(step)
        return step == 3

    stopped = preconditioned_residuals(*arguments, rtol=1e-12, hopeless=hopeless)
    assert not stopped.converged and stopped.iterations == 3 and steps == [2, 3]
    assert preconditioned_residuals(*arguments, rtol=1e-12, iterations=4).iterations == 4


def test_preconditioned_residuals_of_nothing_are_nothing() -> None:
    zero = torch.zeros(1, 4, dtype=torch.float64)
    found = preconditioned_residuals(lambda x: x, zero, lambda r: r, identity_metric(4), torch.ones_like(zero))
    assert found.converged and found.iterations == 0 and not torch.count_nonzero(found.solution)


def test_extreme_eigenvalues_are_those_of_the_operator() -> None:
    a, k = spd(12), spd(12, seed=1)
    inverse = torch.linalg.inv(k)
    root = torch.linalg.cholesky(inverse)
    exact = torch.linalg.eigvalsh(root.T @ a @ root)

    def inner(x: Tensor, y: Tensor) -> float:
        return dot(x, y @ k)

    low, high = extreme_eigenvalues(lambda v: v @ a @ inverse, inner, random(1, 12), steps=12)
    assert low == pytest.approx(float(exact[0]), rel=1e-8) and high == pytest.approx(float(exact[-1]), rel=1e-8)
    inside = extreme_eigenvalues(lambda v: v @ a @ inverse, inner, random(1, 12), steps=5)
    assert exact[0] < inside[0] < inside[1] < exact[-1]
    assert extreme_eigenvalues(lambda v: 3.0 * v, dot, random(1, 5)) == pytest.approx((3.0, 3.0), rel=1e-12)


# Riesz maps


def spaces() -> dict[str, Space]:
    """Spaces with very different meshes: even, uneven, long cells, few and many nodes, curved."""
    graded = np.linspace(0.0, 1.0, 13) ** 3
    return {
        "interval": space_of(1, 30, "P1"),
        "square": space_of(2, 10, "P1"),
        "square P2": space_of(2, 6, "P2"),
        "cube": space_of(3, 5, "P1"),
        "cube P2": space_of(3, 3, "P2"),
        "strip": space(meshes.domain(meshes.rectangle((20.0, 1.0), (0.0, 0.0), (20, 8))), "P1", CPU),
        "l_shape": space(meshes.domain(meshes.l_shape(refine=3)), "P1", CPU),
        "graded": space(
            meshes.domain(type(meshes.rectangle((1, 1), (0, 0), (1, 1))).init_tensor(graded, graded)),
            "P1",
            CPU,
        ),
    }


SPACES = spaces()


def free_of(functions: Space) -> np.ndarray:
    fixed = functions.facet_dofs(functions.domain.boundaries["all"])
    return np.setdiff1d(np.arange(functions.size), fixed)


def mass_of(functions: Space) -> SparseMatrix:
    one = torch.ones_like(functions.cells.quadrature.weights)[None]
    return SparseMatrix(functions.cells.assemble(functions.cells, {(0, 0): one}, True).host(), symmetric=True)


@pytest.mark.parametrize("name", SPACES)
def test_gradient_and_covector_are_inverse_maps(name: str) -> None:
    functions = SPACES[name]
    counts = Counts()
    mass = mass_of(functions)
    stiffness = h1_matrix(functions, free_of(functions))
    factorised = factorised_riesz_map(stiffness, counts)
    assert counts.factorisations == 0
    for riesz in (mass_riesz_map(mass, counts), factorised):
        x = random(2, riesz.matrix.shape[0])
        before = counts.riesz_solves + counts.solves
        gradient = riesz.gradient(riesz.covector(x))
        covector = riesz.covector(riesz.gradient(x))
        assert counts.riesz_solves + counts.solves == before + 4
        assert riesz.norm(gradient - x) < 1e-12 * riesz.norm(x)
        assert riesz.dual_norm(covector - x) < 1e-12 * riesz.dual_norm(x)
    assert counts.factorisations == 1


@pytest.mark.parametrize("name", SPACES)
def test_the_mass_map_agrees_with_a_dense_solve(name: str) -> None:
    mass = mass_of(SPACES[name])
    riesz = mass_riesz_map(mass, Counts())
    b = random(1, mass.shape[0])
    exact = torch.linalg.solve(torch.from_numpy(mass.host.toarray()), b[0])[None]
    assert riesz.norm(riesz.gradient(b) - exact) < 1e-12 * riesz.norm(exact)


def test_a_gradient_of_what_is_not_finite_is_not_finite() -> None:
    riesz = mass_riesz_map(mass_of(SPACES["interval"]), Counts())
    b = random(2, 31)
    b[0, 3] = math.nan
    gradient = riesz.gradient(b)
    assert gradient[0].isnan().all() and gradient[1].isfinite().all()
    assert math.isnan(riesz.dual_norm(b))


def test_a_diagonal_map_is_its_own_reciprocal() -> None:
    weights = torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)
    riesz = diagonal_riesz_map(weights, SparseMatrix(sp.csr_matrix(np.diag(weights))))
    x = random(2, 3)
    assert relative(riesz.gradient(riesz.covector(x)), x) < 1e-15
    assert riesz.diagonal and riesz.dual_norm_bound(x) == pytest.approx(riesz.dual_norm(x), rel=1e-14)


def test_the_dual_norm_is_the_largest_pairing_with_a_unit_vector() -> None:
    functions = SPACES["square"]
    riesz = h1_riesz(functions, free_of(functions))
    r = random(1, riesz.matrix.shape[0])
    norm = riesz.dual_norm(r)
    directions = random(200, riesz.matrix.shape[0], seed=1)
    quotients = [dot(r, w[None]) / riesz.norm(w[None]) for w in directions]
    assert max(quotients) < norm
    best = riesz.gradient(r)
    assert dot(r, best) / riesz.norm(best) == pytest.approx(norm, rel=1e-12)
    assert riesz.inner(best, best) == pytest.approx(norm**2, rel=1e-12)


def covectors(riesz: RieszMap) -> dict[str, Tensor]:
    """Random, smooth, peaked, oscillating and extremal covectors."""
    n = riesz.matrix.shape[0]
    dense = torch.from_numpy(riesz.matrix.host.toarray())
    d = dense.diagonal().sqrt()
    _, vectors = torch.linalg.eigh(dense / d[:, None] / d)
    peak = torch.zeros(1, n, dtype=torch.float64)
    peak[0, n // 2] = 1.0
    return {
        "random": random(1, n),
        "image of random": riesz.covector(random(1, n)),
        "smooth": riesz.covector(torch.ones(1, n, dtype=torch.float64)),
        "load": torch.ones(1, n, dtype=torch.float64),
        "peak": peak,
        "worst": (vectors[:, 0] * d)[None],
        "best": (vectors[:, -1] * d)[None],
    }


def check_bound(riesz: RieszMap) -> None:
    for kind, r in covectors(riesz).items():
        bound, norm = riesz.dual_norm_bound(r), riesz.dual_norm(r)
        assert bound >= norm, kind
        if kind == "worst":
            # Sharp up to the factor of one half that the bound takes for safety.
            assert bound <= 1.5 * norm


@pytest.mark.parametrize("name", SPACES)
def test_the_dual_norm_bound_is_a_bound(name: str) -> None:
    functions = SPACES[name]
    check_bound(h1_riesz(functions, free_of(functions)))


@pytest.mark.parametrize("name", [name for name in SPACES if "P2" not in name])
def test_the_estimate_of_a_mass_matrix_is_within_a_factor_of_two(name: str) -> None:
    riesz = mass_riesz_map(mass_of(SPACES[name]), Counts())
    for r in covectors(riesz).values():
        # Wathen's bounds: the eigenvalues of D^-1 M lie between 1/2 and (d + 2)/2.
        low, high = 0.5**0.5, (0.5 * (SPACES[name].domain.dim + 2)) ** 0.5
        assert low - 1e-9 <= riesz.dual_norm_estimate(r) / riesz.dual_norm(r) <= high + 1e-9


@pytest.mark.parametrize("contrast", [1e-8, 1e-3, 1e3, 1e8])
@pytest.mark.parametrize("radius", [0.15, 0.45])
def test_the_dual_norm_bound_holds_at_high_contrast(contrast: float, radius: float) -> None:
    """A square inclusion of another conductivity, small or nearly filling the domain."""
    functions = space(meshes.domain(meshes.rectangle((1, 1), (0, 0), (20, 20))), "P1", CPU)
    x = functions.cells.quadrature.x
    inside = ((x - 0.5).abs() < radius).all(dim=0)
    conductivity = torch.where(inside, contrast, 1.0)[None].to(torch.float64)
    tests = functions.cells.columns(free_of(functions))
    host = tests.assemble(tests, {(1, 1): conductivity, (2, 2): conductivity}, True).host()
    check_bound(factorised_riesz_map(SparseMatrix(host, symmetric=True), Counts()))
