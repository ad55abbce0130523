"""Kronecker-factored blocks against dense matrices."""

from __future__ import annotations

import math

import pytest
import torch
from bilevel_problems import normal, seeded, spd
from torch import Tensor

from nhgd_pde.linalg.factorisation import SingularMatrixError
from nhgd_pde.linalg.kronecker import Damping, KroneckerBlocks

SHAPES = [(4, 3), (2, 5), (1, 1)]
KINDS = pytest.mark.parametrize("kind", ["whole", "split"])


def layers(condition: float = 30.0) -> list[tuple[Tensor, Tensor]]:
    """Factors of layers with the shapes (g, a), of different sizes, so that pi is not one."""
    generator = seeded(0)
    return [(7.0 * spd(a, condition, generator), spd(g, condition, generator)) for g, a in SHAPES]


def dense(factors: list[tuple[Tensor, Tensor]], damping: float, kind: Damping) -> Tensor:
    """The matrix by its definition, of kron products of damped factors."""
    found = []
    for inputs, outputs in factors:
        a, g = torch.eye(len(inputs), dtype=inputs.dtype), torch.eye(len(outputs), dtype=inputs.dtype)
        if kind == "whole":
            found.append(torch.kron(outputs, inputs) + damping * torch.kron(g, a))
        else:
            pi = math.sqrt(float(inputs.trace()) / len(a) / (float(outputs.trace()) / len(g)))
            root = math.sqrt(damping)
            found.append(torch.kron(outputs + root / pi * g, inputs + root * pi * a))
    return torch.block_diag(*found)


@KINDS
@pytest.mark.parametrize("damping", [0.0, 1e-3, 10.0])
def test_blocks_are_the_dense_matrix_and_its_inverse(kind: Damping, damping: float) -> None:
    blocks, matrix = KroneckerBlocks.of(layers(), damping, kind), dense(layers(), damping, kind)
    x = normal(seeded(1), 2, 3, blocks.size)
    # Entries that nearly cancel have the rounding errors of their largest terms.
    rounding = 1e-14 * float((x.abs() @ matrix.abs()).max())
    torch.testing.assert_close(blocks.multiply(x), x @ matrix, rtol=1e-12, atol=rounding)
    torch.testing.assert_close(blocks.solve(x), torch.linalg.solve(matrix, x[..., None])[..., 0], rtol=1e-10, atol=0.0)


def test_one_linear_layer_is_the_gauss_newton_matrix_of_its_parameters_row_by_row() -> None:
    """If the output errors do not depend on the inputs: E[J^T e e^T J], J the derivative of W a + b."""
    generator = seeded(2)
    inputs = torch.cat([normal(generator, 6, 3), torch.ones(6, 1, dtype=torch.float64)], 1)
    errors = normal(generator, 5, 2)
    rows = torch.stack([torch.outer(e, a).reshape(-1) for e in errors for a in inputs])
    blocks = KroneckerBlocks.of([(inputs.T @ inputs / 6, errors.T @ errors / 5)], 0.0)
    x = normal(generator, 8)
    torch.testing.assert_close(blocks.multiply(x), rows.T @ (rows @ x) / 30, rtol=1e-12, atol=1e-12)


@KINDS
def test_factors_without_full_rank_give_a_definite_matrix(kind: Damping) -> None:
    """The second moments of few examples are singular, and their rounding errors may be negative."""
    row = normal(seeded(3), 1, 6)
    single = row.T @ row
    for damping in (0.0, 1e-12):
        blocks = KroneckerBlocks.of([(single, single)], damping, kind)
        x = normal(seeded(4), 20, blocks.size)
        assert bool(((x * blocks.solve(x)).sum(1) > 0.0).all())
    # The range of both factors is inverted all the same.
    x = torch.outer(row[0], row[0]).reshape(-1)
    found = KroneckerBlocks.of([(single, single)], 1e-3, "whole").solve(x)
    torch.testing.assert_close(found, x / (float(row @ row.T) ** 2 + 1e-3), rtol=1e-9, atol=0.0)


def test_wrong_factors_are_named() -> None:
    good = torch.eye(2, dtype=torch.float64)
    for bad in (math.nan * good, math.inf * good, 0.0 * good):
        with pytest.raises(SingularMatrixError, match="Kronecker"):
            KroneckerBlocks.of([(good, good), (bad, good)], 0.0)
    with pytest.raises(ValueError, match=r"layer 1, outputs: expected a square matrix, found \(2, 1\)"):
        KroneckerBlocks.of([(good, good), (good, good[:, :1])], 0.0)
    for damping in (-1.0, math.nan):
        with pytest.raises(ValueError, match="damping: expected a number of at least 0"):
            KroneckerBlocks.of([(good, good)], damping)
