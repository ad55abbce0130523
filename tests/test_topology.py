"""Designs of material: the material law, published optima, continuation, loads and supports at points."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build
from nhgd_pde.control.density import Interpolation, Projection
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem
from nhgd_pde.run.drawing import density_fields

BEAM, SINK = Path("problems/mbb_beam.yaml"), Path("problems/heat_sink.yaml")
SMALL_BEAM: dict[str, Any] = {
    "mesh.size": [12, 4],
    "mesh.cells": [12, 4],
    "control.filter_radius": 1.5,
    "pde.points": [{"at": [12, 0], "dirichlet": [None, 0]}, {"at": [0, 4], "load": [0, -1]}],
}


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def solved_state(pde: PDEProblem) -> torch.Tensor:
    u, v = pde.start()
    u = u - pde.state_factors(u, v).solve(pde.residual(u, v))
    return pde.state(u, v)[0]


# The law of the material


def test_the_material_of_a_density() -> None:
    law = Interpolation("young", 1e-3, 2.0, "penalty", "slope")
    v = torch.tensor([[-0.1, 0.0, 0.5, 1.0]], dtype=torch.float64)
    for penalty in (1.0, 3.0):
        c = law.map()({"young": number(7.0), "penalty": number(penalty), "slope": number(1.0)}, v[:, 1:])
        expected = [1e-3, 1e-3 + (2.0 - 1e-3) * 0.5**penalty, 2.0]
        assert c["young"][0].tolist() == pytest.approx(expected, rel=1e-14)
    # A filter may give a density slightly below zero, which is void and not a negative modulus.
    low = law.map()({"young": number(7.0), "penalty": number(2.5), "slope": number(1.0)}, v)["young"][0, 0]
    assert float(low) == 1e-3


def test_material_in_a_region_and_after_projection() -> None:
    law = Interpolation("conductivity", 0.1, 1.0, "penalty", "slope", Projection(0.5))
    region = torch.tensor([1.0, 0.0], dtype=torch.float64)
    given = {"conductivity": torch.full((2,), 5.0, dtype=torch.float64), "penalty": number(3.0), "slope": number(8.0)}
    values = law.map(region)(given, torch.full((1, 2), 0.5, dtype=torch.float64))["conductivity"]
    assert values[0].tolist() == pytest.approx([0.1 + 0.9 * 0.125, 5.0], rel=1e-12)


def test_the_stages_of_a_continuation() -> None:
    pde = build(read_problem(SINK, {"mesh.cells": [4, 4], "control.penalty": [1, 2, 5], "control.projection": {}}))
    coefficients = [each.equation.integrals[0].coefficients for each in (*pde.earlier, pde)]
    numbers = [(float(each["density penalty"]), float(each["density slope"])) for each in coefficients]
    assert numbers == [(1, 1), (2, 1), (5, 1), (5, 2), (5, 4), (5, 8)]
    assert all(each.control is pde.control and each.space is pde.space for each in pde.earlier)


def test_a_continuation_ends_at_the_last_penalty() -> None:
    """The objective is that of the last stage at the design that was found."""
    cells = {"mesh.cells": [12, 12]}
    staged = nhgd.solve(nhgd.load(SINK, {**cells, "control.penalty": [1, 3, 5], "control.filter_radius": 0.2}))
    assert staged.status == "converged"
    plain = build(read_problem(SINK, {**cells, "control.filter_radius": 0.2}))
    u, _ = plain.start()
    v = torch.from_numpy(staged.control)
    u = u - plain.state_factors(u, v).solve(plain.residual(u, v))
    assert plain.outer_value(u, v) == pytest.approx(staged.objective, rel=1e-8)


# Published designs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "radius", "published"), [("cone", 2.4, 233.71), ("sensitivity", 2.4, 216.81), ("sensitivity", 1.5, 203.19)]
)
def test_published_beams_are_reached(kind: str, radius: float, published: float) -> None:
    """Andreassen et al. 2011: optimality criteria with the filter of the density, and of the sensitivity."""
    overrides = {"outer.method": "oc", "control.filter": kind, "control.filter_radius": radius}
    solution = nhgd.solve(nhgd.load(BEAM, overrides))
    assert solution.status == "converged"
    assert solution.objective == pytest.approx(published, rel=1e-2)
    assert solution.stats["constraints"][0]["value"] == pytest.approx(0.5, abs=1e-6)


def test_methods_find_the_same_small_beam() -> None:
    """The contrast is 1e9; the exact adjoint gives the same designs, and all numbers are finite."""
    ours, exact = (nhgd.solve(nhgd.load(BEAM, {**SMALL_BEAM, "method": each})) for each in ("nhgd", "adjoint"))
    assert ours.status == exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-6)
    assert ours.stats["outer_iterations"] <= 1.2 * exact.stats["outer_iterations"]
    for values in (ours.state, ours.control, ours.gradient, ours.adjoint):
        assert np.isfinite(values).all()
    assert ours.certificate.state_residual < 1e-8


def test_designs_with_void_and_solid_are_finite_at_a_contrast_of_1e9() -> None:
    """A bar with a hole across its whole width; state and derivative are finite at exact zeros and ones."""
    pde = build(read_problem(BEAM, {**SMALL_BEAM, "control.initial": "where((y > 1)*(y < 3)*(x > 3)*(x < 9), 0, 1)"}))
    state = solved_state(pde)
    u, v = pde.start()
    assert set(v.tolist()) == {0.0, 1.0}
    assert bool(torch.isfinite(state).all())
    u = state[torch.from_numpy(pde.equation.free)][None]
    inner, outer = pde.outer_derivatives(u, v)
    derivative = outer - pde.control_product_transposed(u, v, pde.state_factors(u, v).solve_transposed(inner))
    assert bool(torch.isfinite(derivative).all()) and bool((derivative <= 0.0).all())


def test_the_written_density_is_that_of_the_equation() -> None:
    pde = build(read_problem(BEAM, {**SMALL_BEAM, "control.projection": {"slope": 4}}))
    design = torch.rand(pde.outer_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points, cells = density_fields(pde, design.numpy())
    assert not points
    part = pde.control.parts[0]
    assert part.filter is not None
    expected = Projection(0.5)(part.filter.apply(design), number(4.0))
    assert np.abs(np.sort(cells["density"]) - np.sort(expected.numpy())).max() < 1e-14
    # Without a filter and a projection it is the control itself.
    plain, design = build(read_problem(SINK, {"mesh.cells": [4, 4]})), np.linspace(0.0, 1.0, 25)
    assert np.array_equal(density_fields(plain, design)[0]["density"], design)


# Points


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_a_point_load_on_a_string_has_the_exact_state(element: str) -> None:
    """-u'' = delta at 1/4: the state is a triangle, which is in the space of both elements."""
    pde = build(
        read_problem(
            {
                "name": "string",
                "element": element,
                "mesh": {"kind": "interval", "cells": 8},
                "pde": {
                    "kind": "poisson",
                    "boundary": {"all": {"dirichlet": 0}},
                    "points": [{"at": [0.25], "load": 2}],
                },
                "control": {"kind": "source"},
                "objective": [{"kind": "compliance"}, {"kind": "regularisation", "weight": 1}],
            }
        )
    )
    x = pde.space.nodes[0]
    exact = 2.0 * np.where(x < 0.25, 0.75 * x, 0.25 * (1.0 - x))
    assert np.abs(solved_state(pde).numpy() - exact).max() < 1e-13
    u, v = pde.start()
    u = u - pde.state_factors(u, v).solve(pde.residual(u, v))
    assert pde.outer_value(u, v) == pytest.approx(2.0 * 2.0 * 0.1875, rel=1e-12)


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_a_load_between_nodes_is_shared_by_them(cell: str) -> None:
    """The covector is exact for linear functions, and its entries sum to the load."""
    pde = build(
        read_problem(
            BEAM,
            {**SMALL_BEAM, "mesh.cell": cell, "pde.points.1.at": [3.3, 1.6], "pde.points.1.load": [0.5, -1]},
        )
    )
    u, v = pde.start()
    load = -pde.equation.extend(pde.residual(torch.zeros_like(u), v))[0].numpy()
    along, across = np.split(load, 2)
    x, y = np.split(pde.space.nodes, 2, axis=1)[0]
    assert along.sum() == pytest.approx(0.5, abs=1e-12) and across.sum() == pytest.approx(-1.0, abs=1e-12)
    assert across @ x == pytest.approx(-3.3, abs=1e-11) and along @ y == pytest.approx(0.8, abs=1e-11)


def test_supports_at_points_hold_a_body() -> None:
    """Three supports prevent only rigid motions: a square in tension has no shear."""
    file = {
        "name": "held",
        "mesh": {"kind": "rectangle", "cells": [4, 4]},
        "pde": {
            "kind": "elasticity",
            "plane": "stress",
            "young": 2,
            "boundary": {"left": {"neumann": [-1, 0]}, "right": {"neumann": [1, 0]}},
            "points": [{"at": [0, 0], "dirichlet": [0, 0]}, {"at": [1, 0], "dirichlet": [None, 0]}],
        },
        "control": {"kind": "source"},
        "objective": [{"kind": "compliance"}, {"kind": "regularisation", "weight": 1}],
    }
    pde = build(read_problem(copy.deepcopy(file)))
    x, y = np.split(pde.space.nodes, 2, axis=1)[0]
    along, across = pde.space.split(solved_state(pde).numpy())
    assert np.abs(along - 0.5 * x).max() < 1e-12
    assert np.abs(across + 0.15 * y).max() < 1e-12
    with pytest.raises(ProblemError, match="rigid motions"):
        build(read_problem(copy.deepcopy(file), {"pde.points": [{"at": [0, 0], "dirichlet": [0, 0]}]}))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pde.points.0.at": [12]}, "pde.points.0.at: expected 2 coordinates, found 1"),
        ({"pde.points.1.at": [12, 5]}, "pde.points.1.at: expected a point of the mesh, found (12, 5)"),
        ({"pde.points.0.at": [11.9, 0]}, "pde.points.0.at: expected a node of the mesh, found none at (11.9, 0)"),
        ({"pde.points.0.load": 1}, "pde.points.0: expected exactly one of dirichlet, load"),
        ({"pde.points.0.dirichlet": [0]}, "pde.points.0.dirichlet: expected a list of 2 values"),
        ({"pde.points.1.load": [1]}, "pde.points.1.load: expected 2 expressions, one a component, found 1"),
        ({"control.low": 0}, "control.low: expected a number above 0, found 0"),
        ({"control.low": 2}, "control.low: expected less than high, 1, found 2"),
        ({"control.penalty": []}, "control.penalty: expected a list of at least one number"),
        ({"control.penalty": [1, 0.5]}, "control.penalty.1: expected a number of at least 1, found 0.5"),
        (
            {"control.bounds": [None, 1]},
            "control.bounds: expected lower and upper bounds from 0 to 1, found a lower bound of null",
        ),
        (
            {"control.bounds": [0, 2]},
            "control.bounds: expected lower and upper bounds from 0 to 1, found an upper bound of 2",
        ),
        ({"control.space": "P1"}, "control.filter: expected helmholtz for a P1 density, found 'cone'"),
        (
            {"control.filter_radius": None},
            "control.filter: expected filter_radius beside the filter, found 'cone' without one",
        ),
        ({"control.projection": {"threshold": 1}}, "control.projection.threshold: expected a number above 0 and below"),
        (
            {"control.filter": "sensitivity", "outer.method": "mma"},
            "outer.method: expected oc, which alone takes a sensitivity filter, found 'mma'",
        ),
    ],
)
def test_mistakes_in_designs_are_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as error:
        nhgd.load(BEAM, {**SMALL_BEAM, **overrides})
    assert message in str(error.value)


def test_a_projection_does_not_change_the_stabilisation_of_advection() -> None:
    """Where all is material, a projection changes nothing: 1e-3 of the residual before, as two names were one."""
    settings = {
        "name": "design",
        "mesh": {"kind": "rectangle", "size": [1, 1], "cells": [6, 6]},
        "element": "P2",
        "pde": {
            "kind": "advection_diffusion",
            "velocity": [3000, 1000],
            "conductivity": "1 + x**2",
            "source": 1,
            "boundary": {"all": {"dirichlet": 0}},
        },
        "control": {"kind": "density", "low": 1e-3, "high": 1, "penalty": 3, "initial": 0.5},
        "objective": [{"kind": "tracking", "target": 0}],
    }
    plain = nhgd.load(settings).pde
    projected = nhgd.load(settings, {"control.projection": {"slope": 4}}).pde
    u = torch.rand(plain.inner_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = torch.ones(plain.outer_size, dtype=torch.float64)
    expected, found = (each.equation.residual(u, each.control.physical(v)) for each in (plain, projected))
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
