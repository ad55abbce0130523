"""Filters of densities: transposes, invariants, exact eigenfunctions, and published weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import skfem
import torch
from torch import Tensor

from nhgd_pde.building.blueprint import build, build_on
from nhgd_pde.control import filters
from nhgd_pde.control.controls import ControlSpace
from nhgd_pde.control.density import Projection
from nhgd_pde.control.filters import helmholtz_filter, sensitivity_filter
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem import spaces
from nhgd_pde.linalg.solvers.amg import MultigridCG
from nhgd_pde.linalg.solvers.superlu import SuperLU
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.loading import read_problem
from problems import CPU, mesh_of, random, slope, split

FILE = {
    "name": "design",
    "mesh": {"kind": "rectangle", "cells": [6, 5]},
    "pde": {"kind": "poisson", "source": 1, "boundary": {"left": {"dirichlet": 0}}},
    "control": {"kind": "density", "low": 1e-2, "filter_radius": 0.5},
    "objective": [{"kind": "compliance"}],
}
KINDS = [("helmholtz", "P1"), ("helmholtz", "P0"), ("cone", "P0")]
kinds = pytest.mark.parametrize(("kind", "space"), KINDS)
helmholtz = pytest.mark.parametrize("space", ["P1", "P0"])


def design(kind: str, space: str, mesh: skfem.Mesh | None = None, **control: object) -> ControlSpace:
    """A filtered density, on uneven triangles unless a mesh is given."""
    chosen = {"filter": kind, "space": space, **control}
    file = read_problem(copy.deepcopy(FILE), {f"control.{key}": value for key, value in chosen.items()})
    return build_on(file, meshes.domain(mesh_of(2, 6) if mesh is None else mesh), CPU).control.parts[0]


def verbs(part: ControlSpace) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]:
    assert part.filter is not None
    return part.filter.apply, part.filter.transposed, part.riesz.matrix.diagonal()


@kinds
def test_the_transpose_of_a_filter(kind: str, space: str) -> None:
    part = design(kind, space)
    apply, transposed, _ = verbs(part)
    a, b = random(part.size), random(part.size, seed=1)
    assert float(apply(a) @ b) == pytest.approx(float(a @ transposed(b)), rel=1e-12)


@kinds
def test_filters_preserve_constants(kind: str, space: str) -> None:
    part = design(kind, space)
    apply, _, _ = verbs(part)
    assert float((apply(torch.full((part.size,), 0.3, dtype=torch.float64)) - 0.3).abs().max()) < 1e-14


@helmholtz
def test_the_helmholtz_filter_is_symmetric_and_preserves_the_volume(space: str) -> None:
    part = design("helmholtz", space)
    apply, _, volumes = verbs(part)
    a, b = random(part.size), random(part.size, seed=1)
    assert float(apply(a) @ (volumes * b)) == pytest.approx(float((volumes * a) @ apply(b)), rel=1e-12)
    assert float(volumes @ apply(a)) == pytest.approx(float(volumes @ a), rel=1e-12)


@helmholtz
@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_the_helmholtz_filter_preserves_bounds(space: str, cell: str) -> None:
    # The radius is far below the size of a cell, where a consistent mass matrix would overshoot.
    mesh = meshes.rectangle((1, 1), (0, 0), (8, 8), cell)  # type: ignore[arg-type]
    part = design("helmholtz", space, mesh, filter_radius=0.05)
    apply, _, _ = verbs(part)
    filtered = apply((random(part.size) > 0.0).double())
    assert float(filtered.min()) >= -1e-14 and float(filtered.max()) <= 1.0 + 1e-14


@helmholtz
def test_the_helmholtz_filter_damps_waves_by_the_exact_factor(space: str) -> None:
    """cos(pi x) is an eigenfunction of the equation: order 2 on four meshes."""
    sizes, errors = [8, 16, 32, 64], []
    r = 0.5 / (2.0 * np.sqrt(3.0))
    for n in sizes:
        part = design("helmholtz", space, meshes.rectangle((1, 1), (0, 0), (n, n)))
        apply, _, volumes = verbs(part)
        wave = torch.from_numpy(np.cos(np.pi * part.nodes[0]))
        error = apply(wave) - wave / (1.0 + (r * np.pi) ** 2)
        errors.append(float((volumes @ error**2).sqrt()))
    assert slope([1.0 / n for n in sizes], errors) == pytest.approx(2.0, abs=0.15)


def test_the_weights_of_the_cone_filter_equal_the_published_formula() -> None:
    part = design("cone", "P0")
    apply, _, volumes = verbs(part)
    v = random(part.size).numpy()
    distances = np.linalg.norm(part.nodes[:, :, None] - part.nodes[:, None], axis=0)
    weights = np.maximum(0.0, 0.5 - distances) * volumes.numpy()
    expected = weights @ v / weights.sum(axis=1)
    assert np.abs(apply(torch.from_numpy(v)).numpy() - expected).max() < 1e-13


def test_the_sensitivity_filter_equals_the_published_formula() -> None:
    part = design("cone", "P0", meshes.rectangle((1, 1), (0, 0), (5, 4), "quadrilateral"))
    volumes = part.riesz.matrix.diagonal()
    v, derivative = random(part.size).abs() * 1e-2, random(part.size, seed=1)
    reach = np.maximum(0.0, 0.5 - np.linalg.norm(part.nodes[:, :, None] - part.nodes[:, None], axis=0))
    expected = reach @ (v * derivative).numpy() / np.maximum(v.numpy(), 1e-3) / reach.sum(axis=1)
    found = sensitivity_filter(0.5, part.nodes, volumes)(v, derivative)
    assert np.abs(found.numpy() - expected).max() < 1e-11 * np.abs(expected).max()


@kinds
def test_a_filter_on_a_subdomain_ignores_other_cells(kind: str, space: str) -> None:
    """The filter on half of the square equals the filter on a mesh with only these cells."""
    mesh = meshes.rectangle((1, 1), (0, 0), (8, 8))
    half = split(mesh, half=lambda x: x[0] < 0.5)
    overrides = {"control.filter": kind, "control.space": space, "control.on": "half"}
    file = read_problem(copy.deepcopy(FILE), overrides)
    part = build_on(file, half, CPU).control.parts[0]
    alone = design(kind, space, meshes.rectangle((0.5, 1), (0, 0), (4, 8)))
    order, other = (np.lexsort(np.round(each.nodes, 9)) for each in (part, alone))
    assert np.abs(part.nodes[:, order] - alone.nodes[:, other]).max() < 1e-12
    v = random(part.size)
    given = torch.zeros_like(v)
    given[order] = v
    same = torch.zeros_like(v)
    same[other] = v
    assert part.filter is not None and alone.filter is not None
    gap = part.filter.apply(given)[order] - alone.filter.apply(same)[other]
    assert float(gap.abs().max()) < 1e-12


def test_the_projection_preserves_0_and_1_and_becomes_steeper() -> None:
    project, v = Projection(0.4), torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
    for b in (0.5, 4.0, 64.0):
        share = project(v, torch.tensor(b, dtype=torch.float64))
        assert float(share[0]) == pytest.approx(0.0, abs=1e-15) and float(share[-1]) == pytest.approx(1.0, abs=1e-15)
        assert bool((share.diff() >= 0.0).all())
    mild = project(v, torch.tensor(1e-6, dtype=torch.float64))
    assert float((mild - v).abs().max()) < 1e-9
    step = share[(v - 0.4).abs() > 0.1]
    assert float(torch.minimum(step, 1.0 - step).max()) < 1e-5


def problem_of(**control: object) -> PDEProblem:
    return build(read_problem(copy.deepcopy(FILE), {f"control.{key}": value for key, value in control.items()}))


@kinds
def test_derivatives_through_filter_and_projection_have_taylor_rate_two(kind: str, space: str) -> None:
    """The Taylor remainder of the reduced objective has rate 2."""
    pde = problem_of(filter=kind, space=space, projection={"slope": 4.0, "threshold": 0.45})
    v = 0.5 + 0.3 * torch.sin(torch.arange(pde.outer_size, dtype=torch.float64))
    step = 0.1 * random(pde.outer_size)

    def reduced(at: Tensor) -> tuple[float, Tensor]:
        u, _ = pde.start()
        factors = pde.state_factors(u, at)
        u = u - factors.solve(pde.residual(u, at))
        inner, outer = pde.outer_derivatives(u, at)
        p = factors.solve_transposed(inner)
        return pde.outer_value(u, at), outer - pde.control_product_transposed(u, at, p)

    value, derivative = reduced(v)
    steps = [0.5**k for k in range(2, 7)]
    remainders = [abs(reduced(v + t * step)[0] - value - t * float(derivative @ step)) for t in steps]
    assert slope(steps, remainders) == pytest.approx(2.0, abs=0.05)


def test_a_large_filter_in_three_dimensions_takes_multigrid_with_the_numbers_of_factors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The factors of a filter on 107,000 nodes took 90 s and most of the memory of a design."""
    space = spaces.space(meshes.domain(meshes.box((2, 1, 1), (0, 0, 0), (24, 24, 24), "hexahedron")), "P1", CPU)
    weight = torch.ones(1, *space.cells.quadrature.weights.shape, dtype=torch.float64)
    found = [helmholtz_filter(0.2, space.cells, weight)]
    monkeypatch.setattr(filters, "Auto", lambda rtol: SuperLU())
    found.append(helmholtz_filter(0.2, space.cells, weight))
    prepared = [each.solve.__self__.prepared for each in found]  # type: ignore[attr-defined]
    assert isinstance(prepared[0], MultigridCG) and not prepared[0].exact and prepared[1].exact
    v, w = random(space.size), random(space.size, seed=1)
    images = [each.apply(v) for each in found]
    assert float((images[0] - images[1]).abs().max()) <= 1e-11 * float(images[1].abs().max())
    assert float(images[0] @ w) == pytest.approx(float(v @ found[0].transposed(w)), rel=1e-9)
