"""Every kind of control: derivatives, optima, spaces, meshes, several at once."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from controls import (
    BOX,
    CONDUCTIVITY,
    DISK,
    EXCHANGE,
    FLUX,
    LEFT,
    LINE,
    LOG,
    MIXED,
    NUMBER,
    QUADS,
    SEMILINEAR,
    WALL,
    loaded,
    solved,
)

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build_on
from nhgd_pde.problem_file.loading import read_problem
from nhgd_pde.verification import verify_problem
from problems import BASE, CPU, PLATE, mesh_of, problem, split

KINDS: dict[str, dict[str, Any]] = {
    "source": {},
    "source with gain": {"control.gain": "1 + x"},
    "source P0": {"control.space": "P0"},
    "source constant": {"control.space": "constant"},
    "neumann": {**FLUX, "control.gain": "1 + y"},
    "neumann P0": {**FLUX, "control.space": "P0"},
    "neumann constant": {**FLUX, "control.space": "constant"},
    "neumann h1": {**FLUX, "objective.1.norm": "h1"},
    "robin": {**EXCHANGE, "control.gain": "2 - y"},
    "robin P0": {**EXCHANGE, "control.space": "P0"},
    "robin constant": {**EXCHANGE, "control.space": "constant"},
    "dirichlet": {**WALL, "control.gain": "1 + x"},
    "dirichlet P0": {**WALL, "control.space": "P0"},
    "dirichlet constant": {**WALL, "control.space": "constant"},
    "dirichlet everywhere": {"control": {"kind": "dirichlet", "on": "all"}},
    "conductivity": CONDUCTIVITY,
    "conductivity P0": {**CONDUCTIVITY, "control.space": "P0"},
    "conductivity constant": {**CONDUCTIVITY, "control.space": "constant"},
    "log_conductivity": LOG,
    "log_conductivity P0": {**LOG, "control.space": "P0"},
    "log_conductivity constant": {**LOG, "control.space": "constant"},
    "log_conductivity h1": {**LOG, "objective.1.norm": "h1"},
    "parameter": NUMBER,
}
ELSEWHERE: dict[str, dict[str, Any]] = {
    "neumann on an interval": {**LINE, **FLUX},
    "neumann on a box": {**BOX, **FLUX},
    "neumann on quadrilaterals": {**QUADS, **FLUX},
    "neumann on a disk": {**DISK, "pde.reaction": 1, "pde.boundary": {}, "control": {"kind": "neumann", "on": "all"}},
    "dirichlet on an interval": {**LINE, "control": {"kind": "dirichlet", "on": "right"}},
    "dirichlet on a box": {**BOX, **WALL},
    "dirichlet on quadrilaterals": {**QUADS, **WALL},
    "dirichlet on a disk": {**DISK, "control": {"kind": "dirichlet", "on": "all"}},
    "conductivity on quadrilaterals": {**QUADS, **CONDUCTIVITY},
    "log_conductivity on a box": {**BOX, **LOG},
    "robin on the hole of a plate": {
        "mesh": {"file": str(PLATE)},
        "pde.boundary": {**LEFT, "hole": {"robin": {"coefficient": 5, "value": 1}}},
        "control": {"kind": "robin", "on": "hole"},
    },
    "conductivity of the pad of a plate": {
        "mesh": {"file": str(PLATE)},
        "control": {"kind": "log_conductivity", "on": "pad", "space": "P0"},
    },
}


# Derivatives and optima


P2 = ("source", "neumann", "robin", "dirichlet", "dirichlet P0", "conductivity", "log_conductivity h1")


@pytest.mark.parametrize(("kind", "element"), [*((kind, "P1") for kind in KINDS), *((kind, "P2") for kind in P2)])
def test_every_derivative_is_right(kind: str, element: str) -> None:
    found = nhgd.verify(loaded({**KINDS[kind], "element": element}))
    assert found.passed, str(found)


@pytest.mark.parametrize("kind", ["neumann", "robin", "dirichlet", "log_conductivity", "conductivity", "parameter"])
def test_every_derivative_is_right_in_a_nonlinear_equation(kind: str) -> None:
    found = nhgd.verify(loaded({**KINDS[kind], **SEMILINEAR}))
    assert found.passed, str(found)


@pytest.mark.parametrize("where", ELSEWHERE)
def test_every_derivative_is_right_on_other_meshes(where: str) -> None:
    found = nhgd.verify(loaded(ELSEWHERE[where]))
    assert found.passed, str(found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimum_is_that_of_the_exact_adjoint(kind: str) -> None:
    overrides = {**KINDS[kind], "objective.1.weight": 0.05}
    ours, exact = (nhgd.solve(loaded({**overrides, "method": method})) for method in ("nhgd", "adjoint"))
    assert ours.status == exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-9)
    assert ours.stats["outer_iterations"] <= 1.2 * exact.stats["outer_iterations"] + 3


# Controls against values in the file


SAME: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"control.gain": "1 + x"}, "x + y", {"pde.source": "1 + x*y + (1 + x)*(x + y)"}),
    ({**FLUX, "control.gain": 3}, "y", {"pde.boundary": {**LEFT, "right": {"neumann": "3*y"}}}),
    (
        {**EXCHANGE, "control.gain": 2},
        "y",
        {"pde.boundary": {**LEFT, "right": {"robin": {"coefficient": "1 + y", "value": "1 + 2*y"}}}},
    ),
    (
        {"control": {"kind": "dirichlet", "on": "top", "gain": 2}, "pde.boundary": {"top": {"dirichlet": 1}}},
        "x",
        {"pde.boundary": {"top": {"dirichlet": "1 + 2*x"}}},
    ),
    (CONDUCTIVITY, "1 + x", {"pde.conductivity": "1 + x"}),
    (LOG, "log(2)", {"pde.conductivity": 2}),
    (NUMBER, "1.5", {"pde.conductivity": "1 + 1.5*x", "pde.source": "1 + 1.5*y"}),
]


@pytest.mark.parametrize(("controlled", "value", "given"), SAME)
def test_a_control_has_the_effect_of_the_same_values_in_the_file(
    controlled: dict[str, Any], value: str, given: dict[str, Any]
) -> None:
    pde = problem({**controlled, "control.initial": value})
    plain = problem({**given, "control.kind": "source"})
    assert np.allclose(solved(pde, pde.start()[1]), solved(plain, plain.start()[1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("space", "size"), [("P1", 9), ("P0", 8), ("constant", 1)])
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_a_constant_boundary_value_is_the_same_in_every_space(space: str, size: int, element: str) -> None:
    overrides = {
        "mesh.cells": [8, 8],
        "element": element,
        "pde.boundary": {"bottom": {"dirichlet": 0}},
        "control": {"kind": "dirichlet", "on": "top", "space": space, "initial": 0.7},
    }
    pde = problem(overrides)
    plain = problem(
        {
            **overrides,
            "pde.boundary": {"bottom": {"dirichlet": 0}, "top": {"dirichlet": 0.7}},
            "control": {"kind": "source"},
        }
    )
    assert pde.outer_size == size
    assert np.allclose(solved(pde, pde.start()[1]), solved(plain, plain.start()[1]), rtol=0, atol=1e-12)


def test_bounds_may_be_expressions() -> None:
    solution = nhgd.solve(loaded({**FLUX, "control.bounds": ["-0.02*y", "0.01 + 0*y"], "objective.1.weight": 1e-4}))
    y = solution.problem.control.parts[0].nodes[1]
    assert solution.status == "converged"
    assert (solution.control >= -0.02 * y - 1e-15).all() and (solution.control <= 0.01).all()
    assert np.isclose(solution.control, -0.02 * y).any() or np.isclose(solution.control, 0.01).any()


@pytest.mark.parametrize("cells", [8, 16, 32, 64])
def test_h1_on_a_boundary_is_the_tangential_gradient(cells: int) -> None:
    """int_right (dv/dy)^2 of v = y^2 is 4/3, on every mesh; the gradient of its extension would grow with 1/h."""
    pde = problem(
        {**FLUX, "objective.1": {"kind": "regularisation", "norm": "h1", "weight": 2}, "mesh.cells": [cells, cells]}
    )
    y = torch.from_numpy(pde.control.parts[0].nodes[1])
    exact_on_mesh = 4.0 / 3.0 - 1.0 / (3.0 * cells**2)
    assert pde.objective.control[0].value(y**2) == pytest.approx(exact_on_mesh, rel=1e-12)


# Corners, and names that overlap


def test_a_given_side_keeps_its_corners() -> None:
    pde = problem({**WALL, "pde.boundary": {"all": {"dirichlet": 0}, "left": {"dirichlet": 3}}, "control.initial": 1})
    state = solved(pde, pde.start()[1])
    x, y = pde.space.nodes
    assert (state[x == 0.0] == 3.0).all() and (state[(x == 1.0)] == 0.0).all()
    assert (state[(y == 1.0) & (x > 0.0) & (x < 1.0)] == 1.0).all()
    assert pde.outer_size == 3


def test_controls_that_meet_at_a_corner_take_their_mean() -> None:
    controls = [
        {"kind": "dirichlet", "on": "top", "name": "t", "initial": 1},
        {"kind": "dirichlet", "on": "left", "name": "l", "initial": 2},
        {"kind": "dirichlet", "on": "top", "name": "more", "space": "constant", "gain": "1 + 0*x", "initial": 0.5},
    ]
    pde = problem({"control": controls, "pde.boundary": {}})
    state = solved(pde, pde.start()[1])
    x, y = pde.space.nodes
    assert state[(x == 0.0) & (y == 1.0)] == pytest.approx(0.5 * (1.5 + 2.0))
    assert np.allclose(state[(y == 1.0) & (x > 0.0)], 1.5) and np.allclose(state[(x == 0.0) & (y < 1.0)], 2.0)


def test_a_control_on_all_leaves_out_the_sides_named_in_pde_boundary() -> None:
    pde = problem({"pde.boundary": LEFT, "control": {"kind": "neumann", "on": "all", "initial": 1}})
    plain = problem({"pde.boundary": {**LEFT, "all": {"neumann": 1}}})
    assert np.allclose(solved(pde, pde.start()[1]), solved(plain, plain.start()[1]), rtol=0, atol=1e-13)
    assert pde.outer_size == 13


def test_a_flux_on_a_side_is_added_to_that_on_all() -> None:
    boundary = {**LEFT, "all": {"neumann": 1}}
    pde = problem({"pde.boundary": boundary, "control": {"kind": "neumann", "on": "top", "initial": 2}})
    plain = problem({"pde.boundary": {**boundary, "top": {"neumann": 3}}})
    assert np.allclose(solved(pde, pde.start()[1]), solved(plain, plain.start()[1]), rtol=0, atol=1e-13)


# Several at once


@pytest.mark.parametrize("more", [{}, SEMILINEAR])
def test_controls_of_every_kind_at_once(more: dict[str, Any]) -> None:
    found = nhgd.verify(loaded({**MIXED, **more}))
    assert found.passed, str(found)
    ours, exact = (nhgd.solve(loaded({**MIXED, **more, "method": method})) for method in ("nhgd", "adjoint"))
    assert ours.status == exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-9)
    assert list(ours.controls) == ["f", "a", "neumann", "robin", "dirichlet"]
    assert [len(each) for each in ours.controls.values()] == [25, 1, 5, 1, 4]
    assert ours.stats["controls"] == {"a": ours.controls["a"].tolist(), "robin": ours.controls["robin"].tolist()}


def test_a_regularisation_acts_on_the_control_that_it_names() -> None:
    pde = problem(MIXED)
    v = torch.zeros(pde.outer_size, dtype=torch.float64)
    sizes = [part.size for part in pde.control.parts]
    v[: sizes[0]] = 1.0
    v[sizes[0]] = 0.9
    values = [term.value(v) for term in pde.objective.control]
    assert values == pytest.approx([0.5e-2, 0.5 * 3e-2 * 0.5**2, 0.0, 0.0, 0.0])


def test_a_parameter_and_a_control_of_the_same_source_both_count() -> None:
    """Both change the source, in any order."""
    one, other = {"kind": "source", "name": "f", "initial": "x"}, {"kind": "parameter", "name": "a", "initial": 2}
    first, second = (problem({"pde.source": "a*y", "control": order}) for order in ([one, other], [other, one]))
    plain = problem({"pde.source": "2*y + x"})
    expected = solved(plain, plain.start()[1])
    for pde in (first, second):
        assert np.allclose(solved(pde, pde.start()[1]), expected, rtol=0, atol=1e-12)


def test_parameters_of_subdomains() -> None:
    domain = split(mesh_of(2, 8), core=lambda x: x[0] < 0.5)
    parts = {"core": "k*(1 + x)", "default": 1}
    content = copy.deepcopy(BASE)
    file = read_problem(
        content,
        {"pde.conductivity": parts, "control": {"kind": "parameter", "name": "k", "initial": 2, "bounds": [1, 3]}},
    )
    pde = build_on(file, domain, CPU)
    known = build_on(read_problem(content, {"pde.conductivity": {"core": "2*(1 + x)", "default": 1}}), domain, CPU)
    assert np.allclose(solved(pde, pde.start()[1]), solved(known, known.start()[1]), rtol=0, atol=1e-13)
    checks = verify_problem(pde)
    assert checks.passed, str(checks)


def test_a_conductivity_of_part_of_the_mesh() -> None:
    domain = split(mesh_of(2, 8), core=lambda x: x[0] < 0.5)
    content = copy.deepcopy(BASE)
    control = {"kind": "conductivity", "on": "core", "space": "constant", "initial": 3, "bounds": [1, 5]}
    pde = build_on(read_problem(content, {"pde.conductivity": 2, "control": control}), domain, CPU)
    known = build_on(read_problem(content, {"pde.conductivity": {"core": 3, "default": 2}}), domain, CPU)
    assert np.allclose(solved(pde, pde.start()[1]), solved(known, known.start()[1]), rtol=0, atol=1e-13)


# Objectives of controls


def test_linear_control_is_an_integral() -> None:
    pde = problem({**FLUX, "objective.1": {"kind": "linear_control", "weight": "y"}})
    y = torch.from_numpy(pde.control.parts[0].nodes[1])
    assert pde.objective.control[0].value(1.0 + y) == pytest.approx(0.5 + 1.0 / 3.0, rel=1e-12)
    pde = problem({"control.space": "constant", "objective.1": {"kind": "linear_control", "weight": 3}})
    assert pde.objective.control[0].value(torch.tensor([2.0], dtype=torch.float64)) == pytest.approx(6.0)


def test_a_reference_is_the_optimum_without_a_misfit() -> None:
    """The target is the state of v = 2 + y on the right side; with that as reference the optimum is known."""
    terms = [
        {"kind": "tracking", "target": "(2 + y)*x"},
        {"kind": "regularisation", "weight": 0.1, "reference": "2 + y"},
    ]
    sides = {"left": {"dirichlet": 0}, "top": {"neumann": "x"}, "bottom": {"neumann": "-x"}}
    solution = nhgd.solve(loaded({**FLUX, "pde.source": 0, "pde.boundary": sides, "objective": terms, **QUADS}))
    y = solution.problem.control.parts[0].nodes[1]
    assert solution.objective < 1e-20
    assert np.allclose(solution.control, 2.0 + y, atol=1e-9)


def test_linear_state_on_a_boundary() -> None:
    """int_right (1 + y) u of u = 2 x is 3; and its derivative by a flux is right."""
    sides = {"left": {"dirichlet": 0}, "right": {"neumann": 2}}
    terms = [{"kind": "linear_state", "on": "right", "weight": "1 + y"}, {"kind": "regularisation", "weight": 1}]
    overrides = {
        "pde.source": 0,
        "pde.boundary": sides,
        "control": {"kind": "neumann", "on": "right"},
        "objective": terms,
    }
    pde = problem(overrides)
    state = torch.from_numpy(solved(pde, pde.start()[1]))[None]
    assert float(pde.objective.state[0].value(state)) == pytest.approx(3.0, rel=1e-12)
    assert nhgd.verify(loaded(overrides)).passed
