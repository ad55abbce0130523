"""Karhunen-Loeve expansions: exact eigenvalues, dense eigenproblems, and reproduced covariances."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import skfem
from scipy.linalg import eigh
from scipy.optimize import brentq

from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.interpolation import at_points
from nhgd_pde.fem.spaces import Space, space
from nhgd_pde.uncertainty.covariance import Covariance, Gaussian, Matern
from nhgd_pde.uncertainty.karhunen_loeve import KarhunenLoeve, karhunen_loeve
from problems import CPU, space_of


def mass_of(functions: Space) -> sp.csr_matrix:
    return sp.csr_matrix(skfem.BilinearForm(lambda u, v, w: u * v).assemble(functions.basis))


def expansion(functions: Space, covariance: Covariance, **options: float) -> KarhunenLoeve:
    return karhunen_loeve(covariance, functions.nodes, mass_of(functions), **options)


def dense(functions: Space, covariance: Covariance) -> np.ndarray:
    """All eigenvalues of M C M phi = lambda M phi, descending."""
    mass = mass_of(functions).toarray()
    product = mass @ covariance(functions.nodes, functions.nodes) @ mass
    return eigh(0.5 * (product + product.T), mass, eigvals_only=True)[::-1]


def exponential_eigenvalues(count: int, std: float, length: float) -> np.ndarray:
    """The eigenvalues of std^2 exp(-|x - y| / length) on (0, 1); Ghanem and Spanos, Stochastic Finite Elements, 2.3."""
    c, a = 1.0 / length, 0.5

    def even(w: float) -> float:
        return c * math.cos(w * a) - w * math.sin(w * a)

    def odd(w: float) -> float:
        return w * math.cos(w * a) + c * math.sin(w * a)

    # Root k lies between k pi and (k + 1) pi; even and odd functions alternate.
    roots = [
        brentq(odd if k % 2 else even, k * math.pi + 1e-9, (k + 1) * math.pi - 1e-9, xtol=1e-14) for k in range(count)
    ]
    return np.array([2.0 * std**2 * c / (w**2 + c**2) for w in roots])


@pytest.mark.parametrize("smoothness", [0.5, 1.5, 2.5])
def test_closed_forms_of_matern_agree_with_the_bessel_function(smoothness: float) -> None:
    x, y = np.linspace(0.0, 3.0, 40)[None], np.zeros((1, 1))
    closed = Matern(1.3, 0.4, smoothness)(x, y)
    near = 0.5 * (Matern(1.3, 0.4, smoothness - 1e-6)(x, y) + Matern(1.3, 0.4, smoothness + 1e-6)(x, y))
    assert np.abs(closed - near).max() < 1e-9
    assert closed[0, 0] == pytest.approx(1.3**2, rel=1e-15)


@pytest.mark.parametrize("smoothness", [0.2, 0.8, 3.3, 49.0])
def test_matern_is_continuous_where_the_bessel_function_overflows(smoothness: float) -> None:
    r = np.concatenate([[0.0], np.logspace(-300, -1, 3000)])[None]
    values = Matern(2.0, 1.0, smoothness)(r, np.zeros((1, 1)))[:, 0]
    assert values[0] == pytest.approx(4.0, rel=1e-12)
    assert (np.diff(values) <= 1e-9).all()
    assert np.isfinite(values).all()


def test_smooth_matern_tends_to_the_gaussian_with_the_inverse_of_the_smoothness() -> None:
    x, y = np.linspace(0.0, 2.0, 50)[None], np.zeros((1, 1))
    limit = Gaussian(1.0, 0.5)(x, y)
    smoothness = np.array([5.0, 10.0, 20.0, 40.0])
    errors = [np.abs(Matern(1.0, 0.5, nu)(x, y) - limit).max() for nu in smoothness]
    rates = -np.diff(np.log(errors)) / np.diff(np.log(smoothness))
    assert (rates > 0.85).all()
    assert (rates < 1.15).all()


@pytest.mark.parametrize("length", [0.2, 1.0])
def test_eigenvalues_of_the_exponential_kernel_converge_of_second_order(length: float) -> None:
    exact = exponential_eigenvalues(4, 1.5, length)
    cells = [16, 32, 64, 128]
    errors = np.array(
        [
            np.abs(
                expansion(space_of(1, n, "P1"), Matern(1.5, length, 0.5), modes=4, tolerance=0.0).eigenvalues - exact
            )
            / exact
            for n in cells
        ]
    )
    rates = np.log2(errors[:-1] / errors[1:])
    assert (rates[-1] > 1.9).all()
    assert (rates[-1] < 2.1).all()
    assert (errors[-1] < 5e-3).all()


def test_the_captured_variance_converges_to_the_exact_one() -> None:
    exact = exponential_eigenvalues(6, 1.0, 0.5).sum()
    found = expansion(space_of(1, 256, "P1"), Matern(1.0, 0.5, 0.5), modes=6)
    assert found.captured == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize(
    "functions", [space_of(1, 60, "P1"), space_of(2, 12, "P1"), space_of(3, 5, "P1")], ids=["1-D", "2-D", "3-D"]
)
@pytest.mark.parametrize(
    "covariance",
    [Matern(0.7, 0.3, 0.5), Matern(0.7, 0.3, 1.5), Matern(0.7, 0.3, 1.1), Gaussian(0.7, 0.4)],
    ids=["exponential", "matern", "bessel", "gaussian"],
)
def test_the_factorisation_agrees_with_a_dense_eigenproblem(functions: Space, covariance: Covariance) -> None:
    exact = dense(functions, covariance)
    full = expansion(functions, covariance, modes=8, tolerance=0.0)
    assert np.abs(full.eigenvalues - exact[:8]).max() < 1e-11 * exact[0]
    # With a low rank, eigenvalues are below the exact ones by at most the bound, and within the residuals of one of
    # them.
    for rank in (16, 24, 40):
        cut = expansion(functions, covariance, modes=8, tolerance=0.0, rank=rank)
        errors = exact[:8] - cut.eigenvalues
        assert errors.min() > -1e-11 * exact[0]
        assert errors.sum() <= cut.bound + 1e-11 * exact[0]
        distances = np.abs(exact[:, None] - cut.eigenvalues).min(axis=0)
        assert (distances <= cut.residuals + 1e-11 * exact[0]).all()


def test_the_bound_is_small_where_the_covariance_is_smooth() -> None:
    found = expansion(space_of(2, 20, "P1"), Gaussian(1.0, 0.5), modes=6, tolerance=1e-6)
    assert found.bound <= 1e-3 * found.eigenvalues[-1]
    assert found.rank < 150


def test_few_pivots_reach_the_tolerance() -> None:
    functions = space_of(2, 40, "P1")
    covariance = Matern(1.0, 0.4, 1.5)
    exact = dense(functions, covariance)[:6]
    for tolerance in (1e-1, 1e-2, 1e-3):
        found = expansion(functions, covariance, modes=6, tolerance=tolerance)
        assert found.rank < 400
        assert np.abs(found.eigenvalues - exact).max() < tolerance * exact[-1]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_modes_are_orthonormal_in_the_mass_matrix(dim: int) -> None:
    functions = space_of(dim, {1: 80, 2: 16, 3: 7}[dim], "P1")
    found = expansion(functions, Matern(1.0, 0.3, 1.5), modes=12)
    modes = found.at(functions.nodes) / np.sqrt(found.eigenvalues)[:, None]
    gram = modes @ (mass_of(functions) @ modes.T)
    # Rotations within eigenspaces have rounding errors of 1e-8.
    assert np.abs(gram - np.eye(12)).max() < 1e-8


def test_the_covariance_is_reproduced_as_modes_grow() -> None:
    """The error in the Hilbert-Schmidt norm is the norm of the eigenvalues that are left out."""
    functions = space_of(2, 10, "P1")
    covariance = Matern(1.0, 0.5, 2.5)
    mass = mass_of(functions).toarray()
    exact = covariance(functions.nodes, functions.nodes)
    eigenvalues = dense(functions, covariance)
    errors = []
    for modes in (1, 3, 6, 12, 24, 48):
        values = expansion(functions, covariance, modes=modes, tolerance=0.0).at(functions.nodes)
        rest = exact - values.T @ values
        error = math.sqrt(np.sum((mass @ rest @ mass) * rest))
        errors.append(error)
        assert error == pytest.approx(math.sqrt(np.sum(eigenvalues[modes:] ** 2)), rel=1e-6)
    assert errors[-1] < 1e-3 * errors[0]


def test_eigenvalues_of_a_product_covariance_are_products() -> None:
    """A Gaussian on squares, where both the covariance and the mass matrix are Kronecker products."""
    cells, covariance = 14, Gaussian(1.0, 0.35)
    line = space(meshes.domain(meshes.interval(cells=cells)), "P1", CPU)
    square = space(meshes.domain(meshes.rectangle((1, 1), (0, 0), (cells, cells), "quadrilateral")), "P1", CPU)
    one = expansion(line, covariance, modes=6, tolerance=0.0)
    two = expansion(square, covariance, modes=10, tolerance=0.0)
    products = np.sort(np.multiply.outer(one.eigenvalues, one.eigenvalues).ravel())[::-1]
    assert np.abs(two.eigenvalues - products[:10]).max() < 1e-12
    # Modes of equal eigenvalues follow the axes as well: each is a product of two modes of the interval, up to its
    # sign.
    points = np.random.default_rng(1).uniform(size=(2, 50))
    along_x, along_y = one.at(points[:1]), one.at(points[1:])
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1)]
    expected = np.stack([along_x[i] * along_y[j] for i, j in pairs])
    found = two.at(points)[:4]
    distances = np.array([[min(np.abs(f - e).max(), np.abs(f + e).max()) for e in expected] for f in found])
    assert (distances.min(axis=1) < 1e-7).all()
    assert sorted(distances.argmin(axis=1)) == [0, 1, 2, 3]


@pytest.mark.parametrize("covariance", [Matern(0.8, 0.3, 0.5), Matern(0.8, 0.3, 1.5), Gaussian(0.8, 0.3)])
def test_the_extension_equals_the_eigenvectors_at_the_nodes(covariance: Covariance) -> None:
    functions = space_of(2, 10, "P1")
    found = expansion(functions, covariance, modes=5, tolerance=0.0)
    values = found.at(functions.nodes)
    mass = mass_of(functions)
    product = covariance(functions.nodes, functions.nodes) @ (mass @ values.T)
    assert np.abs(product - values.T * found.eigenvalues).max() < 1e-8 * np.abs(values).max()


def test_between_nodes_interpolation_converges_to_the_extension() -> None:
    points = np.random.default_rng(0).uniform(size=(2, 40))
    errors = []
    for cells in (6, 12, 24, 48):
        functions = space_of(2, cells, "P1")
        found = expansion(functions, Matern(1.0, 0.5, 2.5), modes=3, tolerance=1e-4)
        interpolated = (at_points(functions, points) @ found.at(functions.nodes).T).T
        errors.append(np.abs(found.at(points) - interpolated).max())
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (rates > 1.6).all()


def test_modes_do_not_depend_on_the_order_of_nodes() -> None:
    functions = space(meshes.domain(meshes.rectangle((1, 1), (0, 0), (9, 9), "quadrilateral")), "P1", CPU)
    mass = mass_of(functions)
    order = np.random.default_rng(3).permutation(functions.size)
    covariance = Matern(1.0, 0.4, 1.5)
    straight = karhunen_loeve(covariance, functions.nodes, mass, modes=9, tolerance=0.0)
    mixed = karhunen_loeve(covariance, functions.nodes[:, order], mass[order][:, order], modes=9, tolerance=0.0)
    points = np.random.default_rng(4).uniform(size=(2, 30))
    assert np.abs(straight.at(points) - mixed.at(points)).max() < 1e-7


def test_modes_agree_between_meshes() -> None:
    """Signs and eigenspaces are the same on a finer mesh."""
    points = np.random.default_rng(4).uniform(size=(3, 30))
    found = []
    for cells in (8, 10):
        cubes = meshes.domain(meshes.box((1, 1, 1), (0, 0, 0), (cells,) * 3, "hexahedron"))
        found.append(expansion(space(cubes, "P1", CPU), Gaussian(1.0, 0.6), modes=10, tolerance=0.0).at(points))
    assert np.abs(found[0] - found[1]).max() < 0.02


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_share_of_variance_takes_the_fewest_modes(share: float) -> None:
    functions = space_of(1, 100, "P1")
    covariance = Matern(2.0, 0.3, 1.5)
    found = expansion(functions, covariance, share=share, tolerance=1e-6)
    eigenvalues = dense(functions, covariance)
    assert found.captured >= share
    assert found.captured == pytest.approx(eigenvalues[: found.modes].sum() / 4.0, rel=1e-6)
    assert eigenvalues[: found.modes - 1].sum() / 4.0 < share
    assert expansion(functions, covariance, share=share, modes=2).modes == min(2, found.modes)


def test_the_same_expansion_twice_has_the_same_bits() -> None:
    functions = space_of(3, 6, "P1")
    first, second = (expansion(functions, Matern(1.0, 0.3, 1.5), modes=8) for _ in range(2))
    assert np.array_equal(first.coefficients, second.coefficients)
    assert np.array_equal(first.pivots, second.pivots)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: expansion(space_of(1, 5, "P1"), Matern(1, 1), modes=7), "mesh of 6 nodes carries at most 6"),
        (lambda: expansion(space_of(1, 50, "P1"), Gaussian(1, 5.0), modes=30), "numerical rank"),
        (lambda: expansion(space_of(1, 6, "P1"), Matern(1, 0.05, 0.5), share=0.95), "refine the mesh"),
        (lambda: expansion(space_of(2, 10, "P1"), Matern(1, 0.05, 0.5), share=0.99, rank=20), "20 pivots carry"),
        (
            lambda: expansion(space_of(1, 5, "P1"), Matern(1, 1), share=1.0),
            r"share of the variance in \(0, 1\), found 1",
        ),
        (lambda: expansion(space_of(1, 5, "P1"), Matern(1, 1), modes=0), "at least 1 mode, found 0"),
        (lambda: expansion(space_of(1, 5, "P1"), Matern(1, 1)), "modes or a share"),
        (lambda: karhunen_loeve(Matern(1, 1), np.zeros((1, 3)), sp.eye_array(4).tocsr(), 1), r"3 nodes, .* \(4, 4\)"),
        (lambda: Matern(1.0, -0.2), "length of a covariance: expected a positive number, found -0.2"),
        (lambda: Matern(0.0, 0.2), "std of a covariance"),
        (lambda: Gaussian(1.0, math.nan), "length of a covariance"),
        (lambda: Matern(1.0, 1.0, 60.0), "take a Gaussian"),
    ],
)
def test_mistakes_are_named(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_the_rank_named_in_a_message_works() -> None:
    functions = space_of(1, 50, "P1")
    with pytest.raises(ValueError, match="ask for at most") as caught:
        expansion(functions, Gaussian(1.0, 2.0), modes=40)
    most = int(str(caught.value).split()[-1])
    assert 5 < most < 40
    found = expansion(functions, Gaussian(1.0, 2.0), modes=most)
    exact = dense(functions, Gaussian(1.0, 2.0))[:most]
    assert np.abs(found.eigenvalues - exact).max() < 1e-12


def test_a_field_of_many_nodes_is_found_without_its_covariance_matrix() -> None:
    """15,625 nodes, whose dense matrix would take two gigabytes."""
    functions = space_of(3, 24, "P1")
    found = expansion(functions, Matern(1.0, 0.3, 1.5), modes=10, tolerance=1e-2)
    assert functions.size == 15_625
    assert found.rank < 600
    assert found.residuals.max() < 1e-2 * found.eigenvalues[-1]
