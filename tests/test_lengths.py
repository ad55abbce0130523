"""Lengths over the whole range of numbers: infinite lengths are never small, and no length underflows to zero."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import scipy.sparse as sp
import torch
from bilevel_problems import chain, diagonal_riesz, normal, riesz, seeded, spd
from torch import Tensor

from nhgd_pde.engine.bilevel import dual_scale, relative_dual_error
from nhgd_pde.linalg.broyden_inverse import LowRankInverse, broyden
from nhgd_pde.linalg.conjugate_gradients import batched_conjugate_gradients, conjugate_gradients
from nhgd_pde.linalg.conjugate_residuals import batched_residuals, preconditioned_residuals
from nhgd_pde.linalg.counts import Counts
from nhgd_pde.linalg.lanczos import extreme_eigenvalues
from nhgd_pde.linalg.newton import newton
from nhgd_pde.linalg.riesz import RieszMap, mass_riesz_map
from nhgd_pde.linalg.safe_lengths import dot, length, magnitude, paired_length, quotient, row_lengths
from nhgd_pde.linalg.sparse import SparseMatrix

SCALES = [1e-300, 1e-200, 1e-170, 1e-30, 1.0, 1e30, 1e170, 1e200, 1e300]
SIZE = 12


def metrics() -> dict[str, RieszMap]:
    weights = torch.linspace(0.5, 2.0, SIZE, dtype=torch.float64)
    matrix = SparseMatrix(sp.csr_matrix(chain(SIZE).numpy()), symmetric=True)
    return {
        "diagonal": diagonal_riesz(weights),
        "dense": riesz(spd(SIZE, 1e3, seeded(0))),
        "iterated": mass_riesz_map(matrix, Counts()),
    }


def lengths_of(metric: RieszMap) -> dict[str, Callable[[Tensor], float]]:
    """Every length of a metric, a function of rows."""
    one = torch.ones(1, SIZE, dtype=torch.float64)
    return {
        "norm": metric.norm,
        "dual_norm": metric.dual_norm,
        "dual_norm_bound": metric.dual_norm_bound,
        "dual_norm_estimate": metric.dual_norm_estimate,
        "paired": lambda x: paired_length(x, metric.covector(x)),
        "rows": lambda x: float(row_lengths(x, metric.covector).norm()),
        "dual_scale": lambda x: dual_scale(metric, x, one),
        "dual_scale of a vector": lambda x: dual_scale(metric, one, x),
        "relative_dual_error": lambda x: relative_dual_error(metric, x, 1.0, 0.0),
    }


# The pairing with a vector divided by its norm does not depend on the scale of the vector.
HOMOGENEOUS = [name for name in lengths_of(metrics()["dense"]) if name != "dual_scale of a vector"]


@pytest.mark.parametrize("name", HOMOGENEOUS)
@pytest.mark.parametrize("kind", list(metrics()))
def test_lengths_are_homogeneous_over_the_range_of_numbers(kind: str, name: str) -> None:
    metric = metrics()[kind]
    of = lengths_of(metric)[name]
    x = normal(seeded(1), 1, SIZE)
    expected = of(x)
    assert expected > 0.0
    for scale in SCALES:
        assert of(scale * x) / scale == pytest.approx(expected, rel=1e-11)


def test_the_pairing_with_a_vector_does_not_depend_on_its_scale() -> None:
    of = lengths_of(metrics()["dense"])["dual_scale of a vector"]
    x = normal(seeded(1), 1, SIZE)
    for scale in SCALES:
        assert of(scale * x) == pytest.approx(of(x), rel=1e-11)


@pytest.mark.parametrize("name", list(lengths_of(metrics()["dense"])))
@pytest.mark.parametrize("kind", list(metrics()))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_vectors_that_are_not_finite_have_no_finite_length(kind: str, name: str, bad: float) -> None:
    x = normal(seeded(2), 1, SIZE)
    x[0, 3] = bad
    assert not math.isfinite(lengths_of(metrics()[kind])[name](x))


@pytest.mark.parametrize("kind", list(metrics()))
def test_zero_has_length_zero_and_a_length_that_overflows_is_not_finite(kind: str) -> None:
    metric = metrics()[kind]
    zero = torch.zeros(2, SIZE, dtype=torch.float64)
    assert metric.norm(zero) == metric.dual_norm(zero) == metric.dual_norm_bound(zero) == 0.0
    assert not math.isfinite(metric.norm(torch.full((1, SIZE), 1.7e308, dtype=torch.float64)))


def test_a_negative_form_is_not_a_length_but_negative_rounding_errors_are_zero() -> None:
    """An overflow to -inf in x . K x must not look like a vector of length zero."""
    indefinite = RieszMap(SparseMatrix(sp.csr_matrix((-chain(SIZE)).numpy())), lambda r: -r)
    x = normal(seeded(3), 1, SIZE)
    for scale in SCALES:
        assert math.isnan(indefinite.norm(scale * x)) and math.isnan(indefinite.dual_norm(scale * x))
        assert torch.isnan(row_lengths(scale * x, lambda y: -y)).all()
    assert math.isnan(paired_length(x, -x))
    # For a vector in the kernel, x . A x is the rounding of its terms, with any sign.
    assert length(x, lambda y: -1e-15 * y, lambda: torch.ones(SIZE, dtype=torch.float64)) == 0.0
    overflowing = RieszMap(
        SparseMatrix(sp.csr_matrix(1e308 * (chain(SIZE, 0.0) - 3.0 * torch.eye(SIZE)).numpy())), lambda r: r
    )
    assert not math.isfinite(overflowing.norm(torch.full((1, SIZE), 480.0, dtype=torch.float64)))


def test_magnitudes_are_powers_of_two_with_finite_reciprocals() -> None:
    for size in [5e-324, 1e-310, 1e-200, 0.75, 1.0, 3.0, 1e200, 1.7e308]:
        found = magnitude(torch.tensor([[-size, 0.0]], dtype=torch.float64))
        assert math.frexp(found)[0] == 0.5 and math.isfinite(1.0 / found)
        assert found <= size * 2.0 or size < 1e-307
    assert magnitude(torch.zeros(3)) == 0.0 == magnitude()
    assert math.isnan(magnitude(torch.tensor([1.0, math.nan, math.inf])))
    assert magnitude(torch.tensor([1.0, -math.inf])) == math.inf
    assert math.isnan(quotient(0.0, 0.0)) and quotient(1.0, 0.0) == math.inf and quotient(1.0, 4.0) == 0.25


def test_nothing_is_small_against_a_length_that_is_not_finite() -> None:
    metric = metrics()["dense"]
    x = normal(seeded(4), 1, SIZE)
    for scale in (math.inf, math.nan):
        assert math.isnan(relative_dual_error(metric, x, scale, 1e-3))
    assert relative_dual_error(metric, x, 0.0, 1e-3) == math.inf
    assert relative_dual_error(metric, torch.zeros_like(x), 0.0, 1e-3) == 0.0


@pytest.mark.parametrize("scale", SCALES)
def test_solvers_do_not_depend_on_the_scale_of_the_right_hand_side(scale: float) -> None:
    matrix = spd(SIZE, 1e2, seeded(5))
    b, start = normal(seeded(6), 3, SIZE), normal(seeded(7), 3, SIZE)
    metric = riesz(torch.eye(SIZE, dtype=torch.float64))
    exact = torch.linalg.solve(matrix, b.T).T

    def product(x: Tensor) -> Tensor:
        return x @ matrix

    def error(x: Tensor, r: Tensor) -> float:
        return metric.norm(r) / (metric.norm(b) * scale)

    def same(r: Tensor) -> Tensor:
        return r

    solutions = {
        "cg": conjugate_gradients(product, scale * b, same, None, 1e-12).solution,
        "cg from a start": conjugate_gradients(product, scale * b, same, scale * start, 1e-12).solution,
        "cg with an error": conjugate_gradients(product, scale * b, same, None, 1e-12, error=error).solution,
        "gcr": preconditioned_residuals(product, scale * b, same, metric, rtol=1e-12, iterations=90).solution,
        "batched cg": batched_conjugate_gradients(product, scale * b, same, atol=1e-12 * scale).solution,
        "batched cg from a start": batched_conjugate_gradients(
            product, scale * b, same, scale * start, atol=lambda first: 1e-12 * first
        ).solution,
        "batched gcr": batched_residuals(product, scale * b, same, same, atol=1e-12 * scale).solution,
        "newton": newton(
            lambda x: product(x) - scale * b,
            lambda x: lambda r: torch.linalg.solve(matrix, r.T).T,
            scale * start,
            1e-12,
            9,
        ).solution,
    }
    for name, found in solutions.items():
        assert torch.allclose(found / scale, exact, rtol=1e-9, atol=1e-9), name


def test_rows_of_very_different_scales_are_solved_together() -> None:
    matrix = spd(SIZE, 1e2, seeded(5))
    sizes = torch.tensor([1e-250, 1.0, 1e250], dtype=torch.float64)[:, None]
    b = sizes * normal(seeded(6), 3, SIZE)
    found = batched_conjugate_gradients(lambda x: x @ matrix, b, lambda r: r, atol=1e-12 * sizes[:, 0])
    assert found.converged
    exact = torch.linalg.solve(matrix, (b / sizes).T).T
    assert torch.allclose(found.solution / sizes, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_solvers_do_not_converge_on_numbers_that_are_not_finite(bad: float) -> None:
    metric = metrics()["dense"]
    b = normal(seeded(8), 2, SIZE)
    b[1, 2] = bad
    found = conjugate_gradients(lambda x: x, b, lambda r: r)
    assert not found.converged and not math.isfinite(found.error)
    assert not preconditioned_residuals(lambda x: x, b, lambda r: r, metric).converged
    assert not batched_conjugate_gradients(lambda x: x, b, lambda r: r).converged
    assert not batched_residuals(lambda x: x, b, lambda r: r, lambda x: x).converged
    assert not newton(lambda x: x - b, lambda x: lambda r: r, torch.zeros_like(b), 1e-10, 5).converged
    inverse = LowRankInverse.scaled(1.0, b)
    assert not broyden(lambda x: x - b, torch.zeros_like(b), inverse, metric, lambda x: 1e-6, 5, 3).length <= 1e-6


def test_eigenvalues_in_an_indefinite_product_are_nan() -> None:
    start = normal(seeded(9), 1, 5)
    values = extreme_eigenvalues(
        lambda x: x * torch.arange(1, 6), lambda x, y: -dot(x, y) if x is y else dot(x, y), start
    )
    assert all(math.isnan(each) for each in values)
