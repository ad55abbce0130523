"""Riesz maps, their inverses and dual norms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.spaces import Space, space
from nhgd_pde.linalg.counts import Counts
from nhgd_pde.linalg.factorisation import factorised_riesz_map
from nhgd_pde.linalg.riesz import RieszMap, diagonal_riesz_map, mass_riesz_map
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.linalg.sparse import SparseMatrix
from problems import CPU, h1_matrix, h1_riesz, random, relative, space_of


def spaces() -> dict[str, Space]:
    """Spaces on very different meshes: even, uneven, with long cells, with few and many nodes, curved."""
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


def test_the_gradient_of_an_infinite_covector_is_not_finite() -> None:
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
            # The bound is sharp up to its factor of safety, one half.
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


@pytest.mark.parametrize("name", [*SPACES, "squares"])
@pytest.mark.parametrize("conductivity", [1e-6, 1e-4, 1e-3, 1e-2, 1.0])
def test_the_dual_norm_bound_holds_where_the_mass_decides(conductivity: float, name: str) -> None:
    """A constant is near the eigenvector of the largest eigenvalue of a mass matrix, not of the smallest one."""
    fine = meshes.rectangle((1, 1), (0, 0), (15, 15))
    functions = SPACES[name] if name in SPACES else space(meshes.domain(fine), "P1", CPU)
    one = torch.ones(1, *functions.cells.quadrature.weights.shape, dtype=torch.float64)
    tests = functions.cells.columns(free_of(functions))
    stiffness = {(i, i): conductivity * one for i in range(1, functions.domain.dim + 1)}
    blocks = {(0, 0): one, **stiffness}
    riesz = factorised_riesz_map(SparseMatrix(tests.assemble(tests, blocks, True).host(), symmetric=True), Counts())
    for kind, r in covectors(riesz).items():
        assert riesz.dual_norm_bound(r) >= riesz.dual_norm(r), kind
