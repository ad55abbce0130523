"""Every kind of control: derivatives, optima, spaces, meshes, several at once, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem.building import build, build_on
from nhgd_pde.problem.loading import read_problem
from problems import BASE, CPU, PLATE, complaints, mesh_of, problem, slope, split

LEFT = {"left": {"dirichlet": 0}}
FLUX = {"pde.boundary": LEFT, "control": {"kind": "neumann", "on": "right"}}
EXCHANGE = {
    "pde.boundary": {**LEFT, "right": {"robin": {"coefficient": "1 + y", "value": 1}}},
    "control": {"kind": "robin", "on": "right"},
}
WALL = {"control": {"kind": "dirichlet", "on": "top"}}
CONDUCTIVITY = {"control": {"kind": "conductivity", "initial": 1, "bounds": [0.3, 3]}}
LOG = {"control": {"kind": "log_conductivity"}}
NUMBER = {
    "pde.conductivity": "1 + a*x",
    "pde.source": "1 + a*y",
    "control": {"kind": "parameter", "name": "a", "bounds": [-0.5, 2]},
}
LINE = {"mesh": {"kind": "interval", "cells": [8]}, "pde.source": 1, "objective.0.target": "x"}
BOX = {"mesh": {"kind": "box", "cells": [2, 2, 3]}}
QUADS = {"mesh.cell": "quadrilateral"}
DISK = {"mesh": {"kind": "disk", "refine": 2}}
SEMILINEAR = {"pde.kind": "semilinear", "pde.nonlinearity": "u**3"}

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


def loaded(overrides: dict[str, Any]) -> nhgd.Problem:
    return nhgd.load(copy.deepcopy(BASE), overrides)


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


# What a control is, by an independent way


def solved(pde: PDEProblem, v: torch.Tensor) -> np.ndarray:
    u, _ = pde.start()
    for _ in range(2):
        u = u - pde.state_factors(u, v).solve(pde.residual(u, v))
    return pde.state(u, v)[0].numpy()


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
def test_a_control_is_what_the_file_could_have_said(
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


def test_controls_that_meet_take_their_mean() -> None:
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


def test_all_leaves_out_what_pde_boundary_names() -> None:
    pde = problem({"pde.boundary": LEFT, "control": {"kind": "neumann", "on": "all", "initial": 1}})
    plain = problem({"pde.boundary": {**LEFT, "all": {"neumann": 1}}})
    assert np.allclose(solved(pde, pde.start()[1]), solved(plain, plain.start()[1]), rtol=0, atol=1e-13)
    assert pde.outer_size == 13


def test_a_flux_adds_to_that_of_all() -> None:
    boundary = {**LEFT, "all": {"neumann": 1}}
    pde = problem({"pde.boundary": boundary, "control": {"kind": "neumann", "on": "top", "initial": 2}})
    plain = problem({"pde.boundary": {**boundary, "top": {"neumann": 3}}})
    assert np.allclose(solved(pde, pde.start()[1]), solved(plain, plain.start()[1]), rtol=0, atol=1e-13)


# Several at once

MIXED: dict[str, Any] = {
    "pde.boundary": {**LEFT, "right": {"robin": {"coefficient": 2, "value": 0}}},
    "pde.source": "1 + a*x",
    "pde.conductivity": "1 + 0.5*a",
    "control": [
        {"kind": "source", "name": "f", "bounds": [None, 4]},
        {"kind": "parameter", "name": "a", "initial": 0.5, "bounds": [0, 1]},
        {"kind": "neumann", "on": "top"},
        {"kind": "robin", "on": "right", "space": "constant"},
        {"kind": "dirichlet", "on": "bottom"},
    ],
    "objective": [
        {"kind": "tracking", "target": "sin(pi*x)*y"},
        {"kind": "regularisation", "weight": 1e-2, "control": "f"},
        {"kind": "regularisation", "weight": 3e-2, "reference": 0.4, "control": "a"},
        {"kind": "regularisation", "weight": 1e-2, "norm": "h1", "control": "neumann"},
        {"kind": "regularisation", "weight": 1e-2, "control": "robin"},
        {"kind": "regularisation", "weight": 2e-2, "control": "dirichlet"},
    ],
}


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


def test_a_regularisation_is_for_the_control_it_names() -> None:
    pde = problem(MIXED)
    v = torch.zeros(pde.outer_size, dtype=torch.float64)
    sizes = [part.size for part in pde.control.parts]
    v[: sizes[0]] = 1.0
    v[sizes[0]] = 0.9
    values = [term.value(v) for term in pde.objective.control]
    assert values == pytest.approx([0.5e-2, 0.5 * 3e-2 * 0.5**2, 0.0, 0.0, 0.0])


def test_a_parameter_does_not_undo_a_control_of_what_it_is_in() -> None:
    """Both change the source: whatever their order, both count."""
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
    checks = nhgd.verification.verify_problem(pde)
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


# What is refused


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            {"control": {"kind": "neumann", "on": "tp"}},
            "control.on: unknown boundary 'tp' (did you mean 'top'?); this mesh has: all, bottom, left, right, top",
        ),
        (
            {"control": {"kind": "neumann", "on": "top"}},
            "control.on: expected a part of the boundary where u is free, found 'top', where pde.boundary.all fixes "
            "it; give top a condition of its own",
        ),
        (
            {"pde.boundary": LEFT, "control": {"kind": "neumann", "on": "left"}},
            "control.on: expected a part of the boundary where u is free, found 'left', where pde.boundary.left fixes "
            "it",
        ),
        (
            {
                "pde.boundary": LEFT,
                "control": [{"kind": "dirichlet", "on": "top"}, {"kind": "neumann", "on": "top"}],
            },
            "control.1.on: expected a part of the boundary where u is free, found 'top', where control.0 fixes it",
        ),
        (
            {
                "pde.boundary": {each: {"dirichlet": 0} for each in ("left", "right", "top", "bottom")},
                "control": {"kind": "neumann", "on": "all"},
            },
            "control.on: expected facets to act on, found none: as in pde.boundary, 'all' leaves out "
            "left, right, top, bottom",
        ),
        (
            {"pde.boundary": {**LEFT, "top": {"neumann": 1}}, "control": {"kind": "dirichlet", "on": "top"}},
            "pde.boundary.top: expected a dirichlet condition or none on 'top', whose values control controls; "
            "found neumann",
        ),
        (
            {"pde.boundary": LEFT, "control": {"kind": "robin", "on": "right"}},
            "control.on: expected a robin condition on 'right', whose value a robin control changes; found none",
        ),
        (
            {**EXCHANGE, "pde.boundary.right.robin.coefficient": 0},
            "pde.boundary.right.robin.coefficient: expected a coefficient that is not zero everywhere, as a robin "
            "control acts through it",
        ),
        (
            {**EXCHANGE, "control.kind": "neumann"},
            "pde.boundary.right: expected a neumann condition or none on 'right', which a neumann control acts on",
        ),
        (
            {"control.gain": "0*x"},
            "control.gain: expected a gain that is not zero wherever the control acts, found 0*x",
        ),
        (
            {**WALL, "control.gain": 0},
            "control.gain: expected a gain that is not zero wherever the control acts, found 0",
        ),
        (
            {"control": {"kind": "conductivity", "initial": 1}},
            "control.bounds: expected a positive lower bound for a conductivity, found null",
        ),
        (
            {**CONDUCTIVITY, "control.bounds": [0, 1]},
            "control.bounds: expected a positive lower bound for a conductivity, found 0",
        ),
        (
            {**CONDUCTIVITY, "pde.conductivity": 2},
            "pde.conductivity: expected none, as control makes the conductivity of every cell",
        ),
        (
            {"control": [{**CONDUCTIVITY["control"]}, {**LOG["control"]}]},
            "control.1.on: expected cells whose conductivity no other control makes, found some of control.0",
        ),
        (
            {"control": [{"kind": "source"}, {"kind": "source"}]},
            "control.1.name: expected names that differ, found 'source' twice: give the controls names",
        ),
        (
            {"control": {"kind": "parameter", "name": "a"}},
            "control.name: expected a parameter that an expression of pde uses, found 'a'",
        ),
        (
            {**NUMBER, "pde.boundary": {"all": {"dirichlet": "a"}}},
            "pde.boundary.all.dirichlet: expected an expression without parameters here, found 'a'",
        ),
        (
            {**NUMBER, "objective.0.target": "a"},
            "objective.0.target: expected an expression without parameters here, found 'a'",
        ),
        ({**NUMBER, "control.initial": "x"}, "control.initial: expected a number for a parameter, found x"),
        (
            {**NUMBER, "control.name": "pi"},
            "control.name: the name 'pi' is taken: it means something else in expressions",
        ),
        (
            {"control": {"kind": "source", "space": "time"}},
            "control.space: expected a problem with time, found a steady one",
        ),
        (
            {"control": {"kind": "source", "space": "constant", "initial": "1 + x"}},
            "control.initial: expected a number, as the control is one, found 1 + x",
        ),
        (
            {"control": {"kind": "source", "space": "constant", "bounds": ["x", 3]}},
            "control.bounds.0: expected a number, as the control is one, found x",
        ),
        (
            {"control.space": "constant", "objective.1.reference": "x"},
            "objective.1.reference: expected a number, as the control is one, found x",
        ),
        (
            {**LINE, **FLUX, "objective.1.norm": "h1"},
            "objective.1.norm: expected l2 or l1 for a control of points, which has no gradient, found 'h1'",
        ),
        (
            {**FLUX, "control.space": "P0", "objective.1.norm": "h1"},
            "objective.1.norm: expected l2 or l1 for a P0 control, which has no gradient, found 'h1'",
        ),
        (
            {**MIXED, "objective.1.control": "g"},
            "objective.1.control: expected the name of a control (f, a, neumann, robin, dirichlet), found 'g'",
        ),
    ],
)
def test_mistakes(overrides: dict[str, Any], expected: str) -> None:
    assert expected in complaints(overrides)


# Known optima


def test_both_ends_of_an_interval() -> None:
    """BPN's scalar check: y'' = 2, J = (a^2 + b^2 + a b - 2 b - a + 1)/3 with the optimum (0, 1).

    The target is the discrete state there, so that the optimum is exact on every mesh.
    """
    overrides = {
        "mesh": {"kind": "interval", "cells": [16]},
        "pde": {"kind": "poisson", "source": -2, "boundary": {"all": {"dirichlet": 0}}},
        "control": [
            {"kind": "dirichlet", "on": "left", "name": "a", "space": "constant"},
            {"kind": "dirichlet", "on": "right", "name": "b", "space": "constant"},
        ],
        "objective": [{"kind": "tracking", "target": "x**2", "weight": 2}],
    }
    pde = build(read_problem(copy.deepcopy(BASE), overrides))
    a, b = 0.3, -0.4
    v = torch.tensor([a, b], dtype=torch.float64)
    state = torch.from_numpy(solved(pde, v))[None]
    assert pde.outer_value(state[:, pde.equation.free], v) == pytest.approx((a * a + b * b + a * b - 2 * b - a + 1) / 3)
    u = state[:, pde.equation.free]
    inner, outer = pde.outer_derivatives(u, v)
    adjoint = pde.state_factors(u, v).solve_transposed(inner)
    derivative = outer - pde.control_product_transposed(u, v, adjoint)
    assert derivative.tolist() == pytest.approx([(2 * a + b - 1) / 3, (2 * b + a - 2) / 3])
    solution = nhgd.solve(nhgd.load(copy.deepcopy(BASE), overrides))
    assert solution.status == "converged"
    assert solution.control == pytest.approx([0.0, 1.0], abs=1e-8)
    assert solution.stats["outer_iterations"] <= 2


def _control_error(solution: nhgd.Solution, exact: Any) -> float:
    """In the L2 norm of the part of the boundary."""
    part = solution.problem.control.parts[0]
    points = part.evaluation.quadrature
    found = part.evaluation.evaluate(torch.from_numpy(solution.control)[None])[0, 0].reshape(points.weights.shape)
    return float((points.weights * (found - exact(*points.x)) ** 2).sum().sqrt())


@pytest.mark.parametrize(
    ("name", "optimum", "exact", "order"),
    [
        ("neumann_control", 0.63764347718, lambda x, y: -torch.cos(torch.pi * x) * torch.cos(torch.pi * y), 2.0),
        (
            "dirichlet_control",
            58.5741499180906,
            lambda x, y: -torch.pi * (torch.sin(torch.pi * x) + torch.sin(torch.pi * y)),
            1.5,
        ),
    ],
)
def test_orders_of_boundary_controls(name: str, optimum: float, exact: Any, order: float) -> None:
    cells = [8, 16, 32, 64]
    found = [nhgd.solve(nhgd.load(f"problems/{name}.yaml", {"mesh.cells": [n, n]})) for n in cells]
    sizes = [1.0 / n for n in cells]
    assert slope(sizes, [abs(each.objective - optimum) for each in found]) == pytest.approx(2.0, abs=0.05)
    assert slope(sizes, [_control_error(each, exact) for each in found]) == pytest.approx(order, abs=0.06)
    iterations = [each.stats["outer_iterations"] for each in found]
    assert max(iterations) <= 1.2 * min(iterations) + 1


def test_two_parameters_are_found() -> None:
    """To the error of the elements, of order 2."""
    cells = [8, 16, 32, 64]
    found = [nhgd.solve(nhgd.load("problems/parameter_fit.yaml", {"mesh.cells": [n, n]})) for n in cells]
    assert all(each.status == "converged" for each in found)
    errors = [float(np.hypot(each.control[0] - 2.0, each.control[1] - 0.5)) for each in found]
    assert slope([1.0 / n for n in cells], errors) == pytest.approx(2.0, abs=0.1)


def test_a_coefficient_that_stops_being_positive_is_a_step_too_long() -> None:
    """Without bounds a first step would make the conductivity negative; it is shortened, and nothing breaks."""
    terms = [{"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)"}, {"kind": "regularisation", "weight": 1e-6}]
    source = "2*pi**2*(1 - 0.5*x)*sin(pi*x)*sin(pi*y) + 0.5*pi*cos(pi*x)*sin(pi*y)"
    control = {"kind": "parameter", "name": "a", "initial": 1}
    overrides = {"pde.conductivity": "1 + a*x", "pde.source": source, "control": control, "objective": terms}
    solution = nhgd.solve(loaded({**overrides, "mesh.cells": [16, 16]}))
    assert solution.status == "converged"
    assert solution.control == pytest.approx([-0.5], abs=0.01)


def test_bounds_on_one_of_two_controls() -> None:
    controls = [{"kind": "source"}, {"kind": "neumann", "on": "right", "bounds": [0, 0.1]}]
    solution = nhgd.solve(loaded({"pde.boundary": LEFT, "control": controls}))
    assert solution.status == "converged"
    assert (solution.controls["neumann"] >= 0.0).all() and (solution.controls["neumann"] <= 0.1).all()


def test_bounds_beside_a_penalised_gradient() -> None:
    """By default with Newton's method, whose model is minimised between the bounds; lbfgs would see the mesh."""
    counts = []
    bounded = {"control.bounds": [-5, 10]}
    for n in (8, 16, 32):
        terms = [
            {"kind": "tracking", "target": "exp(-20*((x-0.3)**2+(y-0.6)**2))"},
            {"kind": "regularisation", "norm": "h1", "weight": 1e-5},
        ]
        solution = nhgd.solve(loaded({**bounded, "objective": terms, "mesh.cells": [n, n]}))
        assert solution.status == "converged"
        assert np.isclose(solution.control, 10.0).any()
        counts.append(solution.stats["outer_iterations"])
    assert max(counts) <= 1.5 * min(counts)


def test_the_unit_of_length_changes_nothing() -> None:
    """The inner product of a penalised gradient knows the size of the region: iterations do not depend on the unit."""
    counts = []
    for size in (1.0, 1000.0):
        scaled = {
            **FLUX,
            "mesh": {"kind": "rectangle", "size": [size, size], "cells": [16, 16]},
            "pde.source": 0,
            "control.gain": 1.0 / size,
            "objective": [
                {"kind": "tracking", "target": 1},
                {"kind": "regularisation", "norm": "h1", "weight": 1e-3 * size**3},
            ],
        }
        solution = nhgd.solve(loaded(scaled))
        assert solution.status == "converged"
        counts.append(solution.stats["outer_iterations"])
    assert counts[0] == counts[1]


def test_meshes_of_other_kinds_have_boundary_controls() -> None:
    domain = meshes.domain(mesh_of(3, 3))
    pde = build_on(read_problem(copy.deepcopy(BASE), {**BOX, **FLUX}), domain, CPU)
    assert pde.outer_size == 16
