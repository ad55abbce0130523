"""From a problem file to a problem: what is built, and what is said about a file that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build, build_on
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.inner.energy import EnergyModel
from nhgd_pde.inner.residual import ResidualModel
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.objective.terms import Regularisation, Tracking
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem
from problems import BASE, CPU, PLATE, complaints, problem, random, write_mesh

PAD = {"mesh": {"file": str(PLATE)}, "objective.0.target": "x"}
BOX = {"mesh": {"kind": "box", "cells": [2, 2, 2]}}
LINE = {"mesh": {"kind": "interval", "cells": [4]}, "objective.0.target": "x", "pde.source": 1}


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        (
            {"pde.boundary": {"all": {"dirichlet": 0}, "topp": {"neumann": 1}}},
            "pde.boundary.topp",
            "unknown boundary 'topp' (did you mean 'top'?); this mesh has: all, bottom, left, right, top",
        ),
        (
            {**PAD, "pde.boundary": {"rim": {"dirichlet": 0}, "hole": {"dirichlet": 0}}},
            "pde.boundary.rim",
            "unknown boundary 'rim'; this mesh has: all, bottom, hole, left, right, top",
        ),
        (
            {**PAD, "pde.conductivity": {"pd": 2, "default": 1}},
            "pde.conductivity.pd",
            "unknown subdomain 'pd' (did you mean 'pad'?); this mesh has: pad, plate",
        ),
        (
            {"pde.reaction": {"core": 2, "default": 1}},
            "pde.reaction.core",
            "unknown subdomain 'core'; this mesh has: none",
        ),
        (
            {**PAD, "pde.conductivity": {"pad": 2}},
            "pde.conductivity",
            "1,678 cells belong to none of pad; add a value named default",
        ),
        (
            {**PAD, "control.on": "pads"},
            "control.on",
            "unknown subdomain 'pads' (did you mean 'pad'?); this mesh has: pad, plate",
        ),
        (
            {**PAD, "objective.0.on": "here"},
            "objective.0.on",
            "unknown subdomain 'here'; this mesh has: pad, plate",
        ),
        (
            {"pde.conductivity": -2},
            "pde.conductivity",
            "expected a positive conductivity, found -2 at (0.04167, 0.08333)",
        ),
        (
            {"pde.conductivity": "where(x > 0.8, 0, 1)"},
            "pde.conductivity",
            "expected a positive conductivity, found 0 at (0.9167, 0.2083)",
        ),
        (
            {"pde.conductivity": [[1, 2], [2, 1]]},
            "pde.conductivity",
            "expected a positive definite conductivity, found the eigenvalue -1 at (0.04167, 0.08333)",
        ),
        (
            {"pde.conductivity": [[1, 3], [0, 1]]},
            "pde.conductivity",
            "expected a positive definite conductivity, found the eigenvalue -0.5 at (0.04167, 0.08333)",
        ),
        (
            {**BOX, "pde.conductivity": [[1, 0], [0, 1]]},
            "pde.conductivity",
            "expected a 3 x 3 matrix on a 3-D mesh, found 2 x 2",
        ),
        (
            {"pde.conductivity": [[1, 0], [0, "log(x-0.5)"]]},
            "pde.conductivity.1.1",
            "expected finite values, found nan at (0.04167, 0.08333)",
        ),
        (
            {"objective.0.target": "1/(x-0.5)"},
            "objective.0.target",
            "expected finite values, found inf at (0.5, 0)",
        ),
        (
            {"pde.source": "log(0.5-x)"},
            "pde.source",
            "expected finite values, found nan at (0.5417, 0.08333)",
        ),
        (
            {"pde.boundary.all.dirichlet": "1/y"},
            "pde.boundary.all.dirichlet",
            "expected finite values, found inf at (0, 0)",
        ),
        (
            {"control.gain": "log(-x)"},
            "control.gain",
            "expected finite values, found nan at (0.04167, 0.08333)",
        ),
        ({"control.initial": "log(x)"}, "control.initial", "expected finite values, found -inf at (0, 0)"),
        (
            {"objective.1.reference": "1/x"},
            "objective.1.reference",
            "expected finite values, found inf at (0, 0)",
        ),
        ({**LINE, "pde.source": "x + y"}, "pde.source", "'y' has no value in 1-D, in 'x + y'"),
        ({"control.initial": "z"}, "control.initial", "'z' has no value in 2-D"),
        (
            {"pde.boundary": {"left": {"neumann": 1}}},
            "pde.boundary",
            "no Dirichlet or Robin condition and no reaction: u is determined up to a constant only",
        ),
        (
            {"pde.boundary": {"left": {"robin": {"coefficient": 0, "value": 1}}}},
            "pde.boundary",
            "no Dirichlet or Robin condition and no reaction: u is determined up to a constant only",
        ),
        (
            {"control.bounds": ["x", "0.6"]},
            "control.bounds",
            "expected lower <= upper, found lower 0.75 above upper 0.6 at (0.75, 0)",
        ),
        (
            {"control.bounds": [None, "1/x"]},
            "control.bounds.1",
            "expected finite values, found inf at (0, 0)",
        ),
        (
            {"control.space": "P0", "objective.1.norm": "h1"},
            "objective.1.norm",
            "expected l2 or l1 for a P0 control, which has no gradient, found 'h1'",
        ),
        ({"mesh.cells": [1, 1]}, "mesh", "every node of the mesh has a Dirichlet value: use more cells"),
        (
            {"mesh": {"file": "nowhere.msh"}},
            "mesh.file",
            "expected a mesh file, found nothing at 'nowhere.msh'",
        ),
        ({"mesh": {"file": __file__}}, "mesh.file", f"mesh file {__file__} cannot be read by meshio"),
        (
            {"devices.inner": "cuda:99"},
            "devices.inner",
            "expected a device of this machine, found 'cuda:99': it has",
        ),
    ],
)
def test_a_mistake_names_the_key_and_the_place(overrides: dict[str, Any], key: str, message: str) -> None:
    (found,) = complaints(overrides)
    assert found.startswith(f"{key}: {message}")


@pytest.mark.parametrize(
    "pde",
    [
        {"pde.conductivity": [[1, 0.5], [0, 1]]},
        {"pde.reaction": "-x"},
        {"pde.boundary.right": {"robin": {"coefficient": -1, "value": 0}}},
    ],
    ids=["nonsymmetric", "negative reaction", "negative transfer"],
)
def test_the_energy_form_is_refused_where_it_does_not_apply(pde: dict[str, Any]) -> None:
    (found,) = complaints({**pde, "inner.model": "energy"})
    assert found.startswith("inner.model: expected auto or residual, found 'energy': the equation is not self-adj")
    assert isinstance(problem(pde).model, ResidualModel)


def test_a_control_lives_on_the_nodes_of_its_region(tmp_path: Path) -> None:
    mesh = meshes.rectangle((1, 1), (0, 0), (2, 2))
    path = write_mesh(tmp_path / "a.msh", mesh, core=lambda x: x[0] < 0.5)
    found = problem({"mesh": {"file": str(path)}, "control.on": "core"})
    (part,) = found.control.parts
    assert found.control.size == 6 and (found.space.nodes[0, part.dofs] <= 0.5).all()


def test_an_empty_region_is_no_control() -> None:
    file = read_problem(BASE, {"control.on": "core"})
    mesh = meshes.rectangle((1, 1), (0, 0), (2, 2)).with_subdomains({"core": np.arange(0)})
    with pytest.raises(ProblemError, match=r"control.on: subdomain 'core' has no cells: the control is empty"):
        build_on(file, meshes.domain(mesh), CPU)


def test_several_mistakes_are_told_at_once() -> None:
    found = complaints(
        {
            "mesh.cells": [3, 3],
            "pde.conductivity": "x - 2",
            "pde.reaction": {"core": 1},
            "pde.source": "1/(x - x)",
            "pde.boundary": {"lft": {"dirichlet": 0}, "top": {"dirichlet": "log(-1-x)"}},
            "control.on": "core",
            "control.bounds": ["x", "y"],
            "objective.0.target": "log(x)",
            "objective.0.on": "core",
        }
    )
    assert [line.split(":")[0] for line in found] == [
        "pde.conductivity",
        "pde.reaction.core",
        "pde.source",
        "pde.boundary.lft",
        "control.on",
        "control.bounds",
        "pde.boundary.top.dirichlet",
        "objective.0.target",
        "objective.0.on",
    ]


def test_a_mistake_in_a_file_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "name: a\nmesh: {kind: interval}\npde:\n  kind: poisson\n  conductivity: -1\n"
        "  boundary: {all: {dirichlet: 0}}\ncontrol: {kind: source}\n"
        "objective: [{kind: tracking, target: 0}]\n"
    )
    with pytest.raises(ProblemError) as caught:
        build(read_problem(path))
    assert str(caught.value).startswith(f"{path}:5: pde.conductivity: expected a positive conductivity, found -1")


# What is built


def test_the_model_follows_the_equation() -> None:
    assert isinstance(problem().model, EnergyModel)
    assert isinstance(problem({"inner.model": "residual"}).model, ResidualModel)
    noisy = problem({"inner.noise": "matched", "curvature.scores": "observed"}).model
    assert isinstance(noisy, EnergyModel)
    assert noisy.observation.noise is None and noisy.observation.scores == "observed"


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("model", ["energy", "residual"])
@pytest.mark.parametrize("fixed", [False, True])
def test_scores_sample_the_hessian_for_every_element(dim: int, element: str, model: str, fixed: bool) -> None:
    mesh = {1: LINE, 2: {"mesh.cells": [2, 3]}, 3: {"mesh": {"kind": "box", "cells": [1, 2, 2]}}}[dim]
    sides = {"left": {"robin": {"coefficient": 2, "value": 1}}, "right": {"neumann": 1}}
    boundary = {"all": {"dirichlet": 1}, **sides} if fixed else sides
    pde = {"pde.boundary": boundary, "pde.reaction": "1+x"}
    built = problem({**mesh, **pde, "element": element, "inner.model": model})
    u, v = built.start()
    scores = built.batch(u, v, built.sample(4000, torch.Generator().manual_seed(0))).scores
    w = random(*u.shape)
    sampled = float((scores.T @ w[0]).square().mean())
    assert sampled == pytest.approx(dot(w, built.hessian_product(u, v, w)), rel=0.1)


def test_all_stands_for_the_sides_that_no_other_condition_names() -> None:
    built = problem({"pde.boundary": {"all": {"dirichlet": 3}, "left": {"neumann": 1}, "top": {"dirichlet": "5*x"}}})
    x, y = built.space.nodes
    lift, free = built.equation.lift.numpy(), built.equation.free
    inner_left = (x == 0) & (y > 0) & (y < 1)
    inside = (x > 0) & (x < 1) & (y > 0) & (y < 1)
    assert np.array_equal(free, np.flatnonzero(inner_left | inside))
    assert np.allclose(lift[(y == 1) & (x > 0) & (x < 1)], 5 * x[(y == 1) & (x > 0) & (x < 1)])
    assert (lift[(y == 0) | ((x == 1) & (y < 1))] == 3).all()


def test_a_default_holds_only_where_no_other_value_does() -> None:
    """The logarithm is not finite inside the pad."""
    built = problem({**PAD, "pde.conductivity": {"pad": 7, "default": "1 - 0.01*log(r - 0.349)"}})
    values = built.equation.integrals[0].coefficients["conductivity"].reshape(built.space.domain.mesh.nelements, -1)
    assert (values[built.space.domain.subdomains["pad"]] == 7).all()
    assert (values[built.space.domain.subdomains["plate"]] < 2).all()


@pytest.mark.parametrize("space", ["P0", "P1"])
def test_a_control_on_a_subdomain_acts_there_only(space: str) -> None:
    built = problem({**PAD, "control.on": "pad", "control.space": space, "control.gain": 2, "pde.source": 0})
    v = torch.ones(built.control.size, dtype=torch.float64)
    load = built.equation.constant_linearisation.control.mv(v)
    # On the pad, which lies inside, the functions of the free nodes add up to one but beside the hole.
    assert 0.5 * 2 * np.pi * (0.35**2 - 0.2**2) < float(-load.sum()) < 2 * np.pi * (0.35**2 - 0.2**2)
    (part,) = built.control.parts
    (everywhere,) = part.on_mesh(v.numpy())
    assert everywhere.sum() == built.control.size == len(part.dofs)
    far = np.hypot(*part.space.nodes) > 0.4
    assert not everywhere[far].any()
    area = built.control.riesz.inner(v[None], v[None])
    assert area == pytest.approx(np.pi * (0.35**2 - 0.2**2), rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "diagonal"),
    [
        ({}, False),
        ({"control.space": "P0"}, True),
        ({"control.bounds": [0, None]}, True),
        ({"objective.1.norm": "h1"}, False),
    ],
)
def test_the_metric_of_the_control(overrides: dict[str, Any], diagonal: bool) -> None:
    built = problem(overrides)
    riesz = built.control.riesz
    one, x = torch.ones(1, built.control.size, dtype=torch.float64), random(1, built.control.size)
    assert riesz.diagonal is diagonal
    assert riesz.inner(one, one) == pytest.approx(1.0, rel=1e-12)
    assert (riesz.gradient(riesz.covector(x)) - x).norm() < 1e-11 * x.norm()
    along = torch.from_numpy(built.control.parts[0].nodes[:1].copy())
    if overrides == {"objective.1.norm": "h1"}:
        assert riesz.inner(along, along) == pytest.approx(1.0 / 3.0 + 1.0 / (4.0 * np.pi**2), rel=1e-12)
    elif not diagonal:
        assert riesz.inner(along, along) == pytest.approx(1.0 / 3.0, rel=1e-12)


def test_bounds_are_values_at_the_nodes() -> None:
    built = problem({"control.bounds": ["-x", None]})
    assert built.bounds is not None and problem().bounds is None
    lower, upper = built.bounds
    assert torch.equal(lower, torch.from_numpy(-built.control.parts[0].nodes[0])) and torch.isposinf(upper).all()


def values_of(objective: Callable[[float], float]) -> float:
    """Central difference at zero."""
    return (objective(1e-4) - objective(-1e-4)) / 2e-4


def test_objective_terms_are_the_integrals_they_stand_for() -> None:
    terms = [
        {"kind": "tracking", "target": "x + y", "weight": 3},
        {"kind": "regularisation", "weight": 0.5, "reference": "2*x"},
        {"kind": "regularisation", "weight": 0.25, "norm": "h1", "reference": "x - y"},
    ]
    built = problem({"objective": terms})
    tracking, l2, h1 = (*built.objective.state, *built.objective.control)
    assert isinstance(tracking, Tracking) and isinstance(l2, Regularisation) and isinstance(h1, Regularisation)
    x, y = (torch.from_numpy(row.copy()) for row in built.space.nodes)
    # int (x + y)^2 = 7/6, int (2x)^2 = 4/3, int |grad (x - y)|^2 = 2.
    assert float(tracking.value(torch.zeros_like(x)[None])) == pytest.approx(1.5 * 7 / 6, rel=1e-12)
    assert float(tracking.value((x + y)[None])) == pytest.approx(0.0, abs=1e-14)
    assert l2.value(torch.zeros_like(x)) == pytest.approx(0.25 * 4 / 3, rel=1e-12)
    assert h1.value(torch.zeros_like(x)) == pytest.approx(0.125 * 2, rel=1e-12)
    assert h1.value(x - y + 7.0) == pytest.approx(0.0, abs=1e-12)


def test_objective_derivatives_are_derivatives() -> None:
    built = problem({"objective.1.norm": "h1", "objective.1.reference": "x*y", "pde.boundary.all.dirichlet": 2})
    u, v = random(1, built.equation.unknowns), random(built.control.size, seed=1)
    in_u, in_v = built.outer_derivatives(u, v)
    w, d = random(*u.shape, seed=2), random(*v.shape, seed=3)
    assert dot(in_u, w) == pytest.approx(values_of(lambda t: built.outer_value(u + t * w, v)), rel=1e-7)
    assert dot(in_v, d) == pytest.approx(values_of(lambda t: built.outer_value(u, v + t * d)), rel=1e-7)
    (term,) = built.objective.state
    full, direction = built.equation.embed(u), random(1, built.equation.size)
    change = term.derivative(full + direction) - term.derivative(full)
    assert (term.second_derivative(full, direction) - change).norm() < 1e-12 * change.norm()


def test_an_objective_is_the_mean_over_scenarios() -> None:
    built = problem()
    u, v = random(3, built.equation.size), random(built.control.size, seed=1)
    each = [built.objective.value(u[s : s + 1], v) for s in range(3)]
    assert built.objective.value(u, v) == pytest.approx(np.mean(each), rel=1e-13)
    slopes, _ = built.objective.derivatives(u, v)
    assert torch.allclose(3 * slopes[1:2], built.objective.derivatives(u[1:2], v)[0], rtol=1e-13)


def test_devices_may_be_named_twice() -> None:
    for devices in ({"inner": "cpu"}, {"curvature": "cpu"}, {"inner": "cpu", "curvature": "cpu"}):
        assert problem({"devices": devices}).control.initial.device.type == "cpu"


@pytest.mark.parametrize("model", ["energy", "residual"])
@pytest.mark.parametrize(("level", "conductivity"), [(20.0, 1.0), (20.0, 1e4), (20.0, 1e-4), (1e-6, 1.0)])
def test_the_certificate_does_not_depend_on_the_level_or_the_units_of_the_state(
    model: str, level: float, conductivity: float
) -> None:
    """A nearly constant state: its energy is tiny, so that rounding would look like an error relative to it."""
    overrides = {
        "mesh.cells": [16, 16],
        "pde.conductivity": conductivity,
        "pde.boundary": {"all": {"dirichlet": level}},
        "objective.0.target": f"{level}*(1 + 0.001*x*(1 - x))",
        "objective.1.weight": 1e-6 / conductivity**2,
        "inner.model": model,
    }
    solution = nhgd.solve(nhgd.load(BASE, overrides))
    assert solution.status == "converged", solution.message
    assert solution.certificate.state_residual <= 1e-11
