"""Random inputs in a problem file: scenarios are compared with the file with numbers in place of names."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from uncertain_files import HELD, PARAMETERS, RECTANGLE, TRACKING, elastic, poisson, uncertain_file

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import Blueprint, blueprint_of, blueprint_on, build, build_on
from nhgd_pde.building.domains import build_domain
from nhgd_pde.fem.mesh import Domain
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.loading import read_problem


def _reaction(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return c["c"][0] * u + c["c"][1] * u**3 - c["source"], c["k"] * grad


TIME = {"end": 0.5, "steps": 3}
CASES: dict[str, dict[str, Any]] = {
    "conductivity": uncertain_file(poisson(conductivity="exp(a)*(1 + x)")),
    "source": uncertain_file(poisson(source="a*x + b")),
    "reaction": uncertain_file(poisson(reaction="b")),
    "matrix": uncertain_file(poisson(conductivity=[["b", "0.3*a"], [0, 2]])),
    "symmetric matrix": uncertain_file(poisson(conductivity=[["b", "0.3*x"], ["0.3*x", "exp(a)"]])),
    "neumann": uncertain_file(poisson(boundary={**HELD, "right": {"neumann": "a*y"}})),
    "robin": uncertain_file(poisson(boundary={**HELD, "right": {"robin": {"coefficient": "b", "value": "a*y"}}})),
    "dirichlet": uncertain_file(poisson(boundary={"left": {"dirichlet": "a*y"}, "right": {"dirichlet": 1}})),
    "everywhere": uncertain_file(poisson(conductivity="exp(a)", boundary={"left": {"dirichlet": "b"}}, source="a")),
    "points": uncertain_file(
        poisson(points=[{"at": [0.5, 0.5], "load": "a"}, {"at": [1, 1], "dirichlet": "b"}]), objective=[TRACKING]
    ),
    "compliance": uncertain_file(
        poisson(source="b", boundary={**HELD, "top": {"neumann": "a"}}), objective=[TRACKING, {"kind": "compliance"}]
    ),
    "fixed load": uncertain_file(poisson(source="x", conductivity="b"), objective=[{"kind": "compliance"}]),
    "neumann control": uncertain_file(poisson(conductivity="b"), control={"kind": "neumann", "on": "right"}),
    "robin control": uncertain_file(
        poisson(boundary={**HELD, "right": {"robin": {"coefficient": "b", "value": "a"}}}),
        control={"kind": "robin", "on": "right"},
    ),
    "dirichlet control": uncertain_file(
        poisson(conductivity="b + x", source="a"), control={"kind": "dirichlet", "on": "right"}
    ),
    "log conductivity": uncertain_file(
        poisson(source="a + y", boundary={"left": {"dirichlet": "a"}, "right": {"neumann": "b"}}),
        control={"kind": "log_conductivity", "initial": "x"},
    ),
    "parameter": uncertain_file(
        poisson(conductivity="exp(p)*b", source="a*p + x"), control={"kind": "parameter", "name": "p", "initial": 0.3}
    ),
    "several parameters": uncertain_file(
        poisson(conductivity="exp(p)*b", source="q*x + p"),
        control=[
            {"kind": "parameter", "name": "p", "initial": 0.3},
            {"kind": "parameter", "name": "q", "initial": 1},
            {"kind": "source", "name": "f"},
        ],
    ),
    "density": uncertain_file(
        elastic(),
        control={"kind": "density", "low": 0.1, "initial": 0.5, "bounds": [0, 1]},
        objective=[{"kind": "compliance"}],
    ),
    "semilinear": uncertain_file(
        {**poisson(conductivity="b", source="a"), "kind": "semilinear", "nonlinearity": "b*u**3 + a*x"}
    ),
    "advection": uncertain_file(
        {**poisson(conductivity="0.1*b", reaction="b"), "kind": "advection_diffusion", "velocity": ["a", "b*x"]}
    ),
    "upwinding": uncertain_file(
        {**poisson(conductivity="0.002*b*(1 + x)"), "kind": "advection_diffusion", "velocity": ["1 + 0.1*a", "b*x"]}
    ),
    "upwinding of degree two": uncertain_file(
        {
            **poisson(conductivity="0.002*b*(1 + x)"),
            "kind": "advection_diffusion",
            "velocity": ["1 + 0.1*a", "b*x"],
            "stabilisation": "supg",
        },
        element="P2",
    ),
    "elasticity": uncertain_file(
        elastic(young="b*(1 + x)", poisson_ratio="0.2 + 0.05*b"), objective=[{"kind": "compliance"}]
    ),
    "helmholtz": uncertain_file(
        {
            "kind": "helmholtz",
            "wavenumber": "3*b",
            "conductivity": "exp(a)",
            "source": ["a", "b*x"],
            "boundary": {"all": {"absorbing": True}},
        }
    ),
    "stokes": uncertain_file(
        {
            "kind": "stokes",
            "viscosity": "b",
            "source": ["a", 0],
            "boundary": {"all": {"dirichlet": [0, 0]}, "top": {"dirichlet": ["b*x*(1 - x)", 0]}},
        },
        objective=[{"kind": "tracking", "target": [0, 0]}],
    ),
    "navier_stokes": uncertain_file(
        {
            "kind": "navier_stokes",
            "viscosity": "0.1*b",
            "boundary": {"all": {"dirichlet": [0, 0]}, "top": {"dirichlet": ["b*x*(1 - x)", 0]}},
        },
        objective=[{"kind": "tracking", "target": [0, 0]}],
    ),
    "burgers": uncertain_file(
        {"kind": "burgers", "viscosity": "0.1*b", "source": ["a*x", "b"], "boundary": {"all": {"dirichlet": [0, 0]}}},
        objective=[{"kind": "tracking", "target": [0, 0]}],
    ),
    "heat": uncertain_file(
        {
            "kind": "heat",
            "capacity": "b",
            "conductivity": "exp(a)*(1 + t)",
            "source": "a*t + x",
            "boundary": {"left": {"dirichlet": "a*t"}, "right": {"neumann": "b*t"}},
        },
        time={**TIME, "initial": "a*x + b"},
    ),
    "heat with its initial state controlled": uncertain_file(
        {"kind": "heat", "conductivity": "b", "boundary": {"all": {"dirichlet": "a"}}},
        time={**TIME, "scheme": "crank_nicolson"},
        control={"kind": "initial"},
    ),
    "heat with a parameter": uncertain_file(
        {"kind": "heat", "conductivity": "b*p", "source": "a*p*t", "boundary": {"all": {"dirichlet": 0}}},
        time=TIME,
        control={"kind": "parameter", "name": "p", "initial": 1, "bounds": [0.1, 3]},
    ),
    "burgers in time": uncertain_file(
        {"kind": "burgers", "viscosity": "0.1*b", "boundary": {"left": {"dirichlet": "a"}, "right": {"dirichlet": 0}}},
        mesh={"kind": "interval", "cells": [6]},
        time={**TIME, "initial": "a*(1 - x)"},
    ),
    "python": uncertain_file(
        {"python": _reaction, "coefficients": {"k": "b*(1 + x)", "c": ["a", "b"]}, "source": "a", "boundary": HELD}
    ),
    "allen_cahn": uncertain_file(
        {"kind": "allen_cahn", "epsilon": "0.2*b", "source": "a"}, time={**TIME, "initial": "b*x"}
    ),
}


def _scenarios(data: Mapping[str, Any]) -> Blueprint:
    return blueprint_of(read_problem(data))


def _written(data: dict[str, Any], values: Mapping[str, np.ndarray], s: int) -> dict[str, Any]:
    """The file with the numbers of scenario s in place of the names of random inputs."""

    def write(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: write(each) for key, each in value.items()}
        if isinstance(value, list):
            return [write(each) for each in value]
        if isinstance(value, str) and value not in ("advection_diffusion",):
            return re.sub(r"\b[ab]\b", lambda match: f"({float(values[match.group()][s, 0])!r})", value)
        return value

    plain = {key: value for key, value in data.items() if key not in ("parameters", "scenarios", "risk")}
    found = {**plain, "pde": write(plain["pde"])}
    return {**found, "time": write(plain["time"])} if "time" in plain else found


def _quantities(problem: PDEProblem, u: Tensor, v: Tensor, w: Tensor, d: Tensor) -> list[Tensor]:
    """The quantities that methods compute from a problem, one row for each scenario."""
    state, control = problem.scenario_derivatives(u, v)
    return [
        problem.residual(u, v),
        problem.state_product(u, v, w),
        problem.state_product_transposed(u, v, w),
        problem.control_product(u, v, d),
        problem.scenario_control_products(u, v, w),
        problem.scenario_values(u, v)[:, None],
        state,
        control,
        problem.state(u, v),
    ]


def _arguments(problem: PDEProblem, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    n, p = problem.inner_shape[1], problem.outer_size
    u, w = (torch.randn(count, n, generator=generator, dtype=torch.float64) for _ in range(2))
    d = torch.randn(p, generator=generator, dtype=torch.float64)
    v = problem.start()[1] + 0.1 * torch.rand(p, generator=generator, dtype=torch.float64)
    return u, v, w, d


def _agree(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12 * (1.0 + float(wanted.abs().max())))


@pytest.mark.parametrize("name", CASES)
def test_scenarios_equal_the_problems_with_their_numbers_in_the_file(name: str) -> None:
    data = CASES[name]
    scenarios = _scenarios(data)
    z = scenarios.samples.z[:3]
    values = scenarios.inputs.on(np.zeros((2, 1))).at(z)
    u, v, w, d = _arguments(scenarios.nominal, len(z))
    batches = [[0], [1], [2]] if "time" in data else [[0, 1, 2]]
    for batch in batches:
        problem = scenarios.at(z[batch], np.array(batch))
        assert problem.inner_shape == (len(batch), scenarios.nominal.inner_shape[1])
        found = _quantities(problem, u[batch], v, w[batch], d)
        for row, s in enumerate(batch):
            alone = build(read_problem(_written(data, values, s)))
            for mine, wanted in zip(found, _quantities(alone, u[[s]], v, w[[s]], d), strict=True):
                _agree(mine[[row]], wanted)


@pytest.mark.parametrize("name", CASES)
def test_the_nominal_problem_has_all_variables_at_zero(name: str) -> None:
    data = CASES[name]
    nominal = build(read_problem(data))
    alone = build(read_problem(_written(data, {"a": np.array([[0.2]]), "b": np.array([[1.5]])}, 0)))
    arguments = _arguments(nominal, 1)
    for mine, wanted in zip(_quantities(nominal, *arguments), _quantities(alone, *arguments), strict=True):
        _agree(mine, wanted)


@pytest.mark.parametrize("name", [name for name in CASES if "time" not in CASES[name]])
def test_scenarios_do_not_depend_on_each_other(name: str) -> None:
    scenarios = _scenarios(CASES[name])
    order = np.array([2, 0, 1])
    z = scenarios.samples.z[:3]
    u, v, w, d = _arguments(scenarios.nominal, 3)
    batch = _quantities(scenarios.at(z), u, v, w, d)
    shuffled = _quantities(scenarios.at(z[order]), u[order], v, w[order], d)
    for mine, other in zip(batch, shuffled, strict=True):
        _agree(mine[order], other)
    for s in range(3):
        for mine, alone in zip(batch, _quantities(scenarios.at(z[[s]]), u[[s]], v, w[[s]], d), strict=True):
            _agree(mine[[s]], alone)


def test_the_metric_is_that_of_the_nominal_problem() -> None:
    scenarios = _scenarios(CASES["everywhere"])
    nominal = scenarios.nominal
    u, v, _, _ = _arguments(nominal, 4)
    nominal.inner_error(u[:1], v, 1e-3)
    before = nominal.counts.factorisations
    problem = scenarios.at(scenarios.samples.z[:4])
    problem.inner_error(u, v, 1e-3)
    assert problem.inner_metric is nominal.inner_metric and problem.outer_metric is nominal.outer_metric
    assert problem.counts is nominal.counts and nominal.counts.factorisations == before
    assert problem.model.whole_gram is nominal.model.whole_gram and problem._mass is nominal._mass
    mine, wanted = (each.equation.constant_linearisation.control for each in (problem, nominal))
    assert mine.direct is wanted.direct  # type: ignore[attr-defined]


SUBDOMAINS = uncertain_file(
    poisson(conductivity={"core": "exp(a)", "default": "b*x + 1"}, source={"core": "a*x", "default": 1}),
    mesh=RECTANGLE,
)


def _with_core(data: Mapping[str, Any]) -> Domain:
    domain = build_domain(read_problem(data))
    return replace(domain, subdomains={"core": np.arange(0, domain.mesh.nelements, 3)})


@pytest.mark.parametrize("control", [{"kind": "source"}, {"kind": "parameter", "name": "p", "initial": 0.3}])
def test_random_coefficients_of_subdomains(control: dict[str, Any]) -> None:
    data = {**copy.deepcopy(SUBDOMAINS), "control": control}
    if control["kind"] == "parameter":
        data["pde"]["conductivity"]["core"] = "exp(a + p)"
    domain, cpu = _with_core(data), torch.device("cpu")
    scenarios = blueprint_on(read_problem(data), domain, cpu)
    z = scenarios.samples.z[:3]
    values = scenarios.inputs.on(np.zeros((2, 1))).at(z)
    arguments = u, v, w, d = _arguments(scenarios.nominal, 3)
    found = _quantities(scenarios.at(z), *arguments)
    for s in range(3):
        alone = build_on(read_problem(_written(data, values, s)), domain, cpu)
        for mine, wanted in zip(found, _quantities(alone, u[[s]], v, w[[s]], d), strict=True):
            _agree(mine[[s]], wanted)


FIELD = {"field": {"covariance": "matern", "length": 0.5, "std": 0.4, "modes": 6}}


@pytest.mark.parametrize(
    "control", [{"kind": "source"}, {"kind": "parameter", "name": "p"}], ids=["affine", "parameter"]
)
def test_fields_are_evaluated_at_the_points_of_every_integral(control: dict[str, Any]) -> None:
    """The reference is the nominal equation with coefficients from the expansion."""
    source = "k*x" if control["kind"] == "source" else "k*x + p"
    data = uncertain_file(
        poisson(
            conductivity="exp(k)", source=source, boundary={"left": {"dirichlet": "k"}, "right": {"neumann": "x*k"}}
        ),
        parameters={"k": FIELD},
        control=control,
    )
    scenarios = _scenarios(data)
    nominal, z = scenarios.nominal, scenarios.samples.z[:3]
    problem = scenarios.at(z)

    def field(points: Tensor | np.ndarray) -> Tensor:
        return torch.from_numpy(scenarios.inputs.on(np.asarray(points)).at(z)["k"])

    cells, side = nominal.equation.integrals
    x, y = cells.evaluation.quadrature.flat, side.evaluation.quadrature.flat
    coefficients = {"conductivity": torch.exp(field(x)), "source": field(x) * x[0]}
    if control["kind"] == "parameter":
        coefficients["random k"] = field(x)
    lift = torch.zeros(3, nominal.equation.size, dtype=torch.float64)
    on_left = np.flatnonzero(nominal.space.nodes[0] == 0.0)
    lift[:, on_left] = field(nominal.space.nodes[:, on_left])
    wanted = replace(
        nominal.equation,
        scenarios=3,
        lift=lift,
        integrals=(
            replace(cells, coefficients={**cells.coefficients, **coefficients}),
            replace(side, coefficients={"flux": field(y) * y[0]}),
        ),
    )
    u, v, w, _ = _arguments(nominal, 3)
    _agree(problem.residual(u, v), wanted.residual(u, v))
    _agree(problem.state_product(u, v, w), wanted.state_product(u, v, w))
    assert float((problem.residual(u, v)[0] - problem.residual(u[[0]].expand(3, -1), v)[1]).abs().max()) > 1e-3


def test_a_field_of_captured_variance_and_samples_of_a_seed() -> None:
    parameters = {"k": {"field": {"covariance": "gaussian", "length": 0.5, "variance": 0.8}}, **PARAMETERS}
    data = uncertain_file(poisson(conductivity="exp(0.3*k)", source="a + b"), parameters=parameters)
    first, again, other = _scenarios(data), _scenarios(data), _scenarios({**data, "seed": 1})
    assert first.inputs.dimension == first.inputs.inputs["k"].expansion.modes + 2  # type: ignore[attr-defined]
    assert first.inputs.inputs["k"].expansion.captured >= 0.8  # type: ignore[attr-defined]
    assert first.samples.z.shape == (8, first.inputs.dimension)
    assert np.array_equal(first.samples.z, again.samples.z) and not np.array_equal(first.samples.z, other.samples.z)
    assert np.isclose(first.samples.weights.sum(), 1.0)


@pytest.mark.parametrize(
    ("scenarios", "count"),
    [
        ({}, 256),
        ({"count": 5, "sampling": "monte_carlo"}, 5),
        ({"sampling": "quadrature", "rule": "tensor"}, 25),
        ({"sampling": "quadrature", "rule": "tensor", "points": 3}, 9),
        ({"sampling": "quadrature", "level": 1}, 5),
    ],
)
def test_samples_are_those_of_the_file(scenarios: dict[str, Any], count: int) -> None:
    found = _scenarios(uncertain_file(poisson(source="a*b"), scenarios=scenarios))
    assert found.samples.count == count
    # E (a b) = 0.2 * 1.5, for which a quadrature is exact.
    values = found.inputs.on(np.zeros((2, 1))).at(found.samples.z)
    mean = float(found.samples.weights @ (values["a"] * values["b"])[:, 0])
    assert mean == pytest.approx(0.3, abs=1e-12 if scenarios.get("sampling") == "quadrature" else 1.0 / np.sqrt(count))


@pytest.mark.parametrize(
    ("risk", "name"),
    [
        ("mean", "mean"),
        ("worst_case", "worst case"),
        ({"cvar": 0.9}, "CVaR 0.9"),
        ({"entropic": 2}, "entropic 2"),
        ({"mean_plus_deviation": 1}, "mean + 1 deviation"),
    ],
)
def test_risk_measures_are_those_of_the_file(risk: Any, name: str) -> None:
    assert _scenarios(uncertain_file(poisson(source="a*b"), risk=risk)).risk.name == name


def test_stages_of_a_continuation_have_scenarios() -> None:
    control = {"kind": "density", "low": 0.1, "initial": 0.5, "bounds": [0, 1], "penalty": [1, 3]}
    scenarios = _scenarios(uncertain_file(elastic(), control=control, objective=[{"kind": "compliance"}]))
    (earlier,) = scenarios.earlier
    z = scenarios.samples.z[:2]
    u, v, w, d = _arguments(scenarios.nominal, 2)
    mild = _scenarios(uncertain_file(elastic(), control={**control, "penalty": 1}, objective=[{"kind": "compliance"}]))
    for mine, wanted in zip(_quantities(earlier.at(z), u, v, w, d), _quantities(mild.at(z), u, v, w, d), strict=True):
        _agree(mine, wanted)


def test_load_and_dump(tmp_path: Path) -> None:
    data = uncertain_file(poisson(conductivity="exp(a)", source="b"), risk={"cvar": 0.9})
    problem = nhgd.load(data)
    assert problem.pde.inner_shape[0] == 1
    path = tmp_path / "again.yaml"
    path.write_text(read_problem(data).dump())
    assert read_problem(path).spec == read_problem(data).spec


def test_the_engine_gets_the_scenarios_of_the_file() -> None:
    scenarios = _scenarios(CASES["everywhere"])
    problem = scenarios.problem
    u, v, _, _ = _arguments(scenarios.nominal, 8)
    assert problem.inner_shape == u.shape
    one_by_one = [scenarios.at(scenarios.samples.z[[s]]).scenario_values(u[[s]], v) for s in range(8)]
    wanted = float(torch.cat(one_by_one).mean()) + scenarios.nominal.control_value(v)
    assert problem.outer_value(u, v) == pytest.approx(wanted, rel=1e-13)
    first, rest = problem.drawn(0, 2), problem.drawn(1, 2)
    _agree(first.residual(u[:2], v)[[1]], rest.residual(u[1:3], v)[[0]])


@pytest.mark.parametrize("name", ["y", "z"])
def test_names_of_missing_coordinates_may_be_used_for_random_inputs(name: str) -> None:
    mesh = {"kind": "interval", "cells": 5} if name == "y" else RECTANGLE
    pde = {"kind": "poisson", "conductivity": "exp({})", "source": "x*{}", "boundary": HELD}

    def written(name: str) -> dict[str, Any]:
        named = {key: value.format(name) if isinstance(value, str) else value for key, value in pde.items()}
        return uncertain_file(named, mesh=mesh, parameters={name: {"normal": [0, 1]}})

    problems = [blueprint_of(read_problem(written(each))) for each in (name, "a")]
    z = np.array([[0.4], [-1.0]])
    u, v = (torch.ones(2, problems[0].nominal.inner_shape[1], dtype=torch.float64), problems[0].nominal.start()[1])
    residuals = [each.at(z).residual(u, v) for each in problems]
    assert torch.equal(*residuals) and bool(residuals[0].any())
