"""Coefficients that differ by many orders of magnitude, and the rounding errors of products with their matrix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from bilevel_problems import normal, seeded

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.pde.unassembled import UnassembledDerivative
from nhgd_pde.problem_file.loading import read_problem
from problems import problem, write_mesh

SOURCE = {"kind": "source"}


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unit square with the subdomains a (left half) and b (right half)."""
    mesh = meshes.rectangle((1.0, 1.0), (0.0, 0.0), (16, 16))
    path = tmp_path_factory.mktemp("contrast") / "halves.msh"
    return write_mesh(path, mesh, a=lambda x: x[0] < 0.5, b=lambda x: x[0] >= 0.5)


def content(halves: Path, fixed: str, conductivity: dict[str, float], **keys: Any) -> dict[str, Any]:
    """A source on two halves; the right half, which has no Dirichlet values, floats if it is much stiffer."""
    pde = {"kind": "poisson", "source": 1, "conductivity": conductivity, "boundary": {fixed: {"dirichlet": 0}}}
    objective = [{"kind": "tracking", "target": "sin(pi*x)*y"}, {"kind": "regularisation", "weight": 1e-2}]
    return {"name": "contrast", "mesh": {"file": str(halves)}, "pde": pde, "objective": objective, **keys}


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize(
    ("fixed", "conductivity"),
    [
        ("left", {"a": 1, "b": 1e8}),
        ("right", {"a": 1, "b": 1e8}),
        ("right", {"a": 1e8, "b": 1}),
        ("all", {"a": 1, "b": 1e8}),
        ("right", {"a": 1e-8, "b": 1}),
    ],
)
@pytest.mark.parametrize("kind", ["source", "neumann"])
def test_both_methods_converge_to_the_same_optimum(
    halves: Path, fixed: str, conductivity: dict[str, float], element: str, kind: str
) -> None:
    control = SOURCE if kind == "source" or fixed == "all" else {"kind": "neumann", "on": "top"}
    found = [
        nhgd.solve(nhgd.load(content(halves, fixed, conductivity, element=element, control=control, method=method)))
        for method in ("nhgd", "adjoint")
    ]
    for solution in found:
        assert solution.status == "converged", solution.message
        assert max(solution.certificate.state_residual, solution.certificate.adjoint_residual) <= 1e-8
    # With a soft half the first gradient is 1e12, and runs reduce it by the factor 1e-8.
    assert found[0].objective == pytest.approx(found[1].objective, rel=1e-6)


def test_a_floating_half_gives_the_optimum_of_an_infinite_contrast(halves: Path) -> None:
    """The objective differs from that with b = 1e6 by 1e-6: rounding errors of entries of 1e8 do not change it."""
    values = [
        nhgd.solve(nhgd.load(content(halves, "left", {"a": 1, "b": b}, control=SOURCE, method="adjoint"))).objective
        for b in (1e6, 1e8, 1e10)
    ]
    first, second = abs(values[1] - values[0]), abs(values[2] - values[1])
    # The difference to the limit decreases as 1 / b.
    assert first <= 1e-5 * values[0] and second == pytest.approx(0.01 * first, rel=0.05)


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_unassembled_products_equal_products_with_the_matrix(halves: Path, element: str) -> None:
    built = build(read_problem(content(halves, "left", {"a": 1, "b": 1e8}, element=element, control=SOURCE)))
    equation = built.equation
    u, v = built.start()
    derivative = equation.linearise(u, v)
    product = equation._accurate
    assert isinstance(product, UnassembledDerivative)
    w, z = normal(seeded(0), *u.shape), normal(seeded(1), *u.shape)
    assert torch.allclose(product.mv(w), derivative.state.mv(w), rtol=1e-9, atol=1e-9 * 1e8)
    assert dot(z, product.mv(w)) == pytest.approx(dot(w, product.rmv(z)), rel=1e-12)
    # The total load on the stiff half of a state that is nearly constant there is that of the soft half alone, the same
    # with b = 1. The last digits of large matrix entries add to it.
    stiff = (torch.from_numpy(built.space.nodes[0, equation.free]) >= 0.5).double()[None]
    equal = build(read_problem(content(halves, "left", {"a": 1, "b": 1}, element=element, control=SOURCE)))
    state = w * (1.0 - stiff) + stiff * (1.0 + 1e-8 * z)
    exact = dot(state, equal.equation.linearise(u, v).state.mv(stiff))
    assert dot(stiff, product.mv(state)) == pytest.approx(exact, rel=1e-13)
    assert dot(stiff, derivative.state.mv(state)) != pytest.approx(exact, rel=1e-11)


def test_unassembled_products_of_flows_and_advection_equal_those_with_the_matrix() -> None:
    """The blocks are not symmetric, and flows have several fields and a pressure of mean zero."""
    advected = {"kind": "advection_diffusion", "conductivity": "where(x < 0.5, 1, 1e8)", "velocity": [1, 2]}
    stokes = {"kind": "stokes", "viscosity": "where(x < 0.5, 1, 1e6)"}
    flow = {"element": "P2", "objective.0.target": ["y", 0]}
    for overrides in (
        {"pde": {**advected, "boundary": {"left": {"dirichlet": 0}}}},
        {"pde": {**stokes, "boundary": {"all": {"dirichlet": [0, 0]}}}, **flow},
    ):
        built = problem(overrides)
        equation = built.equation
        u, v = built.start()
        product, matrix = equation._accurate, equation.linearise(u, v).state
        assert isinstance(product, UnassembledDerivative)
        w = normal(seeded(2), *u.shape)
        for ours, theirs in ((product.mv(w), matrix.mv(w)), (product.rmv(w), matrix.rmv(w))):
            assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-10 * float(theirs.abs().max()))


def test_with_similar_coefficients_products_use_the_matrix() -> None:
    assert problem({"pde.conductivity": "1 + x"}).equation._accurate is None


def test_a_contrast_beyond_double_precision_is_reported(halves: Path) -> None:
    """A stiff half floats on a soft one: its rounding errors are as large as the entries of the soft half."""
    solution = nhgd.solve(nhgd.load(content(halves, "left", {"a": 1, "b": 1e13}, control=SOURCE)))
    assert solution.status == "failed"
    assert re.search(r"its diagonal entries differ by a factor of \de\+1[34]", solution.message)
    # If the stiff half has Dirichlet values, no digits are lost.
    held = nhgd.solve(nhgd.load(content(halves, "right", {"a": 1, "b": 1e13}, control=SOURCE)))
    assert held.status == "converged"
