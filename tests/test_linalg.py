"""Sparse products and factorisations, against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from nhgd_pde.linalg.counts import Counts
from nhgd_pde.linalg.factorisation import Factorisation, ScenarioFactorisation, SingularMatrixError
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.linalg.sparse import Cuts, ScenarioMatrix, SparseMatrix
from problems import h1_matrix, random, relative, space_of


def sparse(rows: int, columns: int, seed: int = 0) -> sp.csr_matrix:
    return sp.csr_matrix(sp.random(rows, columns, 0.3, "csr", rng=np.random.default_rng(seed)))


def scenario_matrix(scenarios: int, n: int, m: int, seed: int = 0) -> tuple[ScenarioMatrix, list[np.ndarray]]:
    """Matrices of one pattern with different entries, also as dense ones."""
    pattern = sparse(n, m, seed)
    data = random(scenarios, pattern.nnz, seed=seed)
    data[:, 1] = 0.0
    dense = [sp.csr_matrix((row.numpy(), pattern.indices, pattern.indptr), shape=(n, m)).toarray() for row in data]
    return ScenarioMatrix((pattern.indptr, pattern.indices), data, (n, m)), dense


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
    """One of the matrices is indefinite: 300 lies inside the spectrum of the Laplacian."""
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
    assert special.prepared.fill < general.prepared.fill


def test_a_symmetric_matrix_that_needs_pivoting_is_factorised_with_pivoting() -> None:
    """Eliminating a diagonal entry of 1e-18 first would lose the entries 1 beside it."""
    block = np.array([[1e-18, 1.0, 1.0], [1.0, 1e-18, 1.0], [1.0, 1.0, 1e-18]])
    x = random(1, 3)
    solved = Factorisation(sp.csr_matrix(block), Counts(), symmetric=True).solve(x @ torch.from_numpy(block))
    assert relative(solved, x) < 1e-14


@pytest.mark.parametrize("turned", [0.0, 0.3])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_saddle_points_are_factorised_as_accurately_without_pivoting_as_with_it(sign: float, turned: float) -> None:
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
    """Two constraints are equal."""
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


def test_a_kept_cut_is_that_of_the_matrix_it_is_given() -> None:
    """Two matrices with one pattern, then one with another, and other rows."""
    generator, cuts = np.random.default_rng(0), Cuts()
    rows, columns = np.array([0, 2, 3, 7]), np.array([1, 2, 5])
    for share in (0.3, 0.3, 0.6):
        made = sp.random_array((8, 6), density=share, format="csr", rng=generator)
        pattern = made.indptr, made.indices
        for own in (rows, rows[1:]):
            for factors in ([1.0], [2.0, -3.0]):
                data = torch.from_numpy(np.outer(factors, made.data))
                found = cuts.of(ScenarioMatrix(pattern, data, (8, 6)), own, columns)
                for k, factor in enumerate(factors):
                    expected = factor * made[own][:, columns].toarray()
                    np.testing.assert_array_equal(found.host(k).toarray(), expected)
