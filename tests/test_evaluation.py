"""Evaluation operators against polynomials, their transposes, and scikit-fem's own assembly."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import skfem
import torch
from skfem.models.poisson import laplace, mass
from torch import Tensor

from nhgd_pde.fem.evaluation_operator import EvaluationOperator, gram_root
from nhgd_pde.fem.pattern import Blocks
from nhgd_pde.fem.spaces import Space, space
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.linalg.sparse import SparseMatrix
from problems import CPU, mesh_of, random, space_of, split

CASES = [(dim, element) for dim in (1, 2, 3) for element in ("P1", "P2")]
CELLS = {1: 7, 2: 4, 3: 2}
every_space = pytest.mark.parametrize(("dim", "element"), CASES)


def case(dim: int, element: str) -> Space:
    return space_of(dim, CELLS[dim], element)


def polynomial(x: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """A polynomial with all monomials up to a degree, and its gradient, at points (dim, ...)."""
    a, b = np.arange(1.0, len(x) + 1), np.arange(2.0, 2 * len(x) + 1, 2)
    first, second = np.tensordot(a, x, 1), np.tensordot(b, x**2, 1) + x[0] * x[-1]
    shape = (-1,) + (1,) * (x.ndim - 1)
    gradient = np.broadcast_to(a.reshape(shape), x.shape).copy()
    if degree == 1:
        return 3.0 + first, gradient
    gradient += 2 * b.reshape(shape) * x
    gradient[0] += x[-1]
    gradient[-1] += x[0]
    return 3.0 + first + second, gradient


def points_of(test: EvaluationOperator) -> np.ndarray:
    return test.quadrature.x.reshape(len(test.quadrature.x), -1).numpy()


@every_space
@pytest.mark.parametrize("where", ["cells", "facets"])
def test_polynomials_and_their_gradients_are_exact(dim: int, element: str, where: str) -> None:
    functions = case(dim, element)
    test = functions.cells if where == "cells" else functions.facets(functions.domain.boundaries["right"])
    degree = int(element[1])
    coefficients, _ = polynomial(functions.nodes, degree)
    value, gradient = polynomial(points_of(test), degree)
    scenarios = torch.from_numpy(np.stack([coefficients, -2.0 * coefficients]))
    found = test.evaluate(scenarios)
    expected = torch.from_numpy(np.concatenate([value[None], gradient]))
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[:, 1], -2.0 * expected, rtol=1e-12, atol=1e-12)


@every_space
def test_weights_are_positive_and_integrate_products_exactly(dim: int, element: str) -> None:
    """int x^2k over the unit cube is 1/(2k + 1)."""
    quadrature = case(dim, element).cells.quadrature
    assert (quadrature.weights > 0).all()
    k = int(element[1])
    for axis in range(dim):
        integral = float((quadrature.weights * quadrature.x[axis] ** (2 * k)).sum())
        assert integral == pytest.approx(1.0 / (2 * k + 1), rel=1e-13)


def exported(functions: EvaluationOperator) -> SparseMatrix:
    """E as one sparse matrix, rows ordered (component, element, point)."""
    points = functions.quadrature.weights.shape[1]
    rows = [
        functions._rows(table.expand(-1, points, -1), functions.part(k)) for k, table in enumerate(functions.tables)
    ]
    return SparseMatrix(sp.vstack(rows, format="csr"))


@every_space
@pytest.mark.parametrize("restricted", [False, True])
def test_testing_is_the_transpose_of_evaluating(dim: int, element: str, restricted: bool) -> None:
    functions = case(dim, element)
    test = functions.cells
    if restricted:
        test = test.columns(np.arange(0, test.size, 2))
    u = random(3, test.size)
    f = random(dim + 1, 3, test.quadrature.points, seed=1)
    weighted = f * test.quadrature.weights.reshape(-1)
    assert abs(dot(test.test(f), u) - dot(weighted, test.evaluate(u))) < 1e-12 * float(f.norm() * u.norm())


@every_space
@pytest.mark.parametrize("restricted", [False, True])
def test_the_exported_matrix_equals_evaluation(dim: int, element: str, restricted: bool) -> None:
    test = case(dim, element).cells
    kept = np.arange(1, test.size, 3) if restricted else np.arange(test.size)
    test = test.columns(kept)
    u = random(2, len(kept))
    assert exported(test).shape == ((dim + 1) * test.quadrature.points, len(kept))
    together = test.evaluate(u).transpose(0, 1).reshape(2, -1)
    torch.testing.assert_close(exported(test).mv(u), together, rtol=1e-12, atol=1e-12)


def scikit_fem(functions: Space, test: EvaluationOperator, form: skfem.BilinearForm) -> np.ndarray:
    """The matrix by scikit-fem with the same number of quadrature points."""
    order = next(
        k
        for k in range(1, 9)
        if skfem.Basis(functions.domain.mesh, functions.basis.elem, intorder=k).dx.shape
        == test.quadrature.weights.shape
    )
    basis = skfem.Basis(functions.domain.mesh, functions.basis.elem, intorder=order)
    return form.assemble(basis).toarray()


def ones(test: EvaluationOperator, factor: float = 1.0) -> Tensor:
    return torch.full_like(test.quadrature.weights, factor)[None]


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-13) -> bool:
    return bool(np.abs(a - b).max() <= tolerance * np.abs(b).max())


@every_space
def test_assembly_equals_that_of_scikit_fem(dim: int, element: str) -> None:
    functions = case(dim, element)
    test = functions.cells
    gradients = {(i, i): ones(test) for i in range(1, dim + 1)}
    kept = np.arange(0, test.size, 2)
    for form, blocks in ((mass, {(0, 0): ones(test)}), (laplace, gradients)):
        expected = scikit_fem(functions, test, form)
        assert close(test.assemble(test, blocks).host().toarray(), expected)
        part = test.columns(kept)
        assert close(part.assemble(part, blocks).host().toarray(), expected[np.ix_(kept, kept)])
        mixed = test.assemble(part, blocks).host().toarray()
        assert close(mixed, expected[:, kept])


@every_space
def test_assembly_on_facets_equals_that_of_scikit_fem(dim: int, element: str) -> None:
    functions = case(dim, element)
    facets = functions.domain.boundaries["left"]
    test = functions.facets(facets)
    expected = mass.assemble(skfem.FacetBasis(functions.domain.mesh, functions.basis.elem, facets=facets))
    assert close(test.assemble(test, {(0, 0): ones(test)}).host().toarray(), expected.toarray())


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_blocks_of_every_pair_of_components_and_spaces(dim: int) -> None:
    """int sum_ij c_ij test_i trial_j with P2 against P1 functions, by explicit products of the exported E."""
    state = case(dim, "P2")
    control = space(state.domain, "P1", CPU, like=state)
    shape = state.cells.quadrature.weights.shape
    blocks = {(i, j): random(2, *shape, seed=i + 5 * j) for i in range(dim + 1) for j in range(dim + 1)}
    blocks[0, 0] = blocks[0, 0][:1]
    left, right = (exported(each.cells).host.toarray().reshape(dim + 1, -1, each.size) for each in (state, control))
    found = state.cells.assemble(control.cells, blocks)
    weights = state.cells.quadrature.weights
    for s in range(2):
        expected = sum(
            left[i].T @ ((c[s if len(c) > 1 else 0] * weights).reshape(-1, 1).numpy() * right[j])
            for (i, j), c in blocks.items()
        )
        assert close(found.host(s).toarray(), np.asarray(expected), 1e-12)


def test_without_blocks_the_matrix_is_zero_with_the_full_pattern() -> None:
    test = case(2, "P1").cells
    zero, full = test.assemble(test, {}), test.assemble(test, {(0, 0): ones(test)})
    assert not zero.data.any() and np.array_equal(zero.pattern[1], full.pattern[1])


# Roots


def isotropic(test: EvaluationOperator) -> Blocks:
    x = test.quadrature.x[0][None]
    return {(i, i): i + 1.0 + x for i in range(test.components)}


def gradient_only(test: EvaluationOperator) -> Blocks:
    return {(i, i): ones(test, 2.0) for i in range(1, test.components)}


def anisotropic(test: EvaluationOperator) -> Blocks:
    """A full gradient block that turns from point to point, and a reaction in one half only."""
    dim, x = test.components - 1, test.quadrature.x[0][None]
    root = random(dim, dim) + 2 * torch.eye(dim, dtype=torch.float64)
    blocks = {(0, 0): (x > 0.5).to(x.dtype)}
    for i in range(dim):
        for j in range(dim):
            blocks[i + 1, j + 1] = (root @ root.T)[i, j] + (x if i == j else 0.3 * torch.sin(x))
    return blocks


@every_space
@pytest.mark.parametrize("kind", [isotropic, gradient_only, anisotropic])
@pytest.mark.parametrize("restricted", [False, True])
def test_a_root_squares_to_the_assembled_matrix(dim: int, element: str, kind: object, restricted: bool) -> None:
    assert callable(kind)
    test = case(dim, element).cells
    if restricted:
        test = test.columns(np.arange(1, test.size, 2))
    blocks = kind(test)
    root = gram_root(test, blocks).host
    assert close((root.T @ root).toarray(), test.assemble(test, blocks).host().toarray())


def test_a_root_of_one_scenario_takes_its_coefficients() -> None:
    test = case(2, "P1").cells
    x = test.quadrature.x[0]
    blocks = {(0, 0): ones(test), (1, 1): torch.stack([1 + x, 2 + x**2]), (2, 2): torch.stack([x, 1 - x])}
    matrix = test.assemble(test, blocks)
    for s in range(2):
        root = gram_root(test, blocks, s).host
        assert close((root.T @ root).toarray(), matrix.host(s).toarray())


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ({(0, 0): -1.0}, "negative coefficient"),
        ({(0, 0): 1.0, (1, 1): 1.0, (2, 2): -1e-3}, "negative coefficient"),
        ({(1, 1): 1.0, (1, 2): 2.0, (2, 1): 2.0, (2, 2): 1.0}, "not positive semidefinite"),
        ({(0, 0): -1.0, (1, 1): 2.0, (1, 2): 1.0, (2, 1): 1.0, (2, 2): 1.0}, "negative coefficient"),
    ],
)
def test_a_form_that_is_not_positive_has_no_root(
    element: str, blocks: dict[tuple[int, int], float], words: str
) -> None:
    test = case(2, element).cells
    with pytest.raises(ValueError, match=words):
        gram_root(test, {key: ones(test, factor) for key, factor in blocks.items()})


# Spaces


@every_space
def test_nodes_are_where_the_functions_are_one(dim: int, element: str) -> None:
    functions = case(dim, element)
    locate = functions.domain.mesh.element_finder()
    cells = locate(*functions.nodes)
    values = functions.basis.probes(functions.nodes).toarray()
    assert len(cells) == functions.size and close(values, np.eye(functions.size), 1e-9)


def test_piecewise_constants_have_a_node_in_each_cell() -> None:
    state = case(2, "P1")
    control = space(state.domain, "P0", CPU, like=state)
    mesh = state.domain.mesh
    assert control.size == mesh.nelements
    assert np.allclose(control.nodes, mesh.p[:, mesh.t].mean(axis=1))
    values = control.cells.evaluate(torch.arange(control.size, dtype=torch.float64)[None])
    per_cell = values[0].reshape(control.size, -1)
    assert torch.equal(per_cell, torch.arange(control.size, dtype=torch.float64)[:, None].expand(per_cell.shape))
    assert not values[1:].any()


def test_degrees_of_freedom_of_a_region_are_those_of_its_cells() -> None:
    domain = split(mesh_of(2, 4), core=lambda x: (x[0] > 0.5) & (x[1] > 0.5))
    functions = space(domain, "P2", CPU)
    dofs = functions.cell_dofs(domain.subdomains["core"])
    inside = (functions.nodes > 0.3).all(axis=0)
    assert np.array_equal(np.unique(dofs), dofs) and inside[dofs].all()
    assert len(dofs) == 25
