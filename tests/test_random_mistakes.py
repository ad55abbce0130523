"""Mistakes about random inputs, reported with the key, the expected and the found value, and the scenario."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from uncertain_files import HELD, elastic, poisson, uncertain_file

from nhgd_pde.building.blueprint import Blueprint, blueprint_of, build
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem

A = {"a": {"normal": [0, 1]}}
RISKS = "expected mean, worst_case, or a mapping with cvar: ... or entropic: ... or mean_plus_deviation: ..."


def _scenarios(data: dict[str, Any]) -> Blueprint:
    return blueprint_of(read_problem(data))


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            {"parameters": {"a": {"nromal": [0, 1]}}},
            "parameters.a.nromal: unknown key (did you mean 'normal'?); known: normal, uniform, field",
        ),
        (
            {"parameters": {"a": {"normal": [0, -1]}}},
            "parameters.a: expected [mean, standard deviation], the latter positive; found [0.0, -1.0]",
        ),
        (
            {"parameters": {"a": {"uniform": [2, 2]}}},
            "parameters.a: expected [low, high] with low < high, found [2.0, 2.0]",
        ),
        ({"parameters": {"a": {}}}, "parameters.a: expected exactly one of normal, uniform, field; found none"),
        (
            {"parameters": {"a": {"normal": [0, 1], "uniform": [0, 1]}}},
            "parameters.a: expected exactly one of normal, uniform, field; found normal and uniform",
        ),
        (
            {"parameters": {"a": {"field": {"length": 0.2, "modes": 3, "std": -1}}}},
            "parameters.a.field.std: expected a number above 0, found -1",
        ),
        (
            {"parameters": {"a": {"field": {"length": 0.2}}}},
            "parameters.a.field: expected exactly one of modes, variance; found none",
        ),
        (
            {"parameters": {"a": {"field": {"length": 0.2, "modes": 3, "variance": 0.9}}}},
            "parameters.a.field: expected exactly one of modes, variance; found both",
        ),
        (
            {"parameters": {"a": {"field": {"length": 0.2, "modes": 3, "covariance": "matren"}}}},
            "parameters.a.field.covariance: expected one of matern, gaussian, found 'matren' (did you mean 'matern'?)",
        ),
        (
            {"parameters": {**A, "sin": {"normal": [0, 1]}}},
            "parameters.sin: the name 'sin' is taken: it means something else in expressions",
        ),
        (
            {"parameters": {**A, "t": {"normal": [0, 1]}}},
            "parameters.t: the name 't' is taken: it means something else in expressions",
        ),
        (
            {"parameters": A, "control": {"kind": "parameter", "name": "a"}},
            "parameters.a: the name is taken: a control of kind parameter has it",
        ),
        (
            {"parameters": A, "pde": poisson(source="A")},
            "pde.source: unknown name 'A' (did you mean 'a'?); known: a, e, pi, r, t, x, y, z (column 1 of 'A')",
        ),
        ({"parameters": {}}, "scenarios: expected none without parameters, which are what is random"),
        (
            {"parameters": {}, "scenarios": None, "risk": "mean"},
            "risk: expected none without parameters, which are what is random",
        ),
        (
            {"parameters": A, "risk": "maen"},
            f"risk: {RISKS}, found 'maen' (did you mean 'mean'?)",
        ),
        (
            {"parameters": A, "risk": {"cvra": 0.9}},
            f"risk: {RISKS}, found a mapping with cvra (did you mean 'cvar'?)",
        ),
        (
            {"parameters": A, "risk": {"cvar": 1.0}},
            "risk.cvar: expected a number above 0 and below 1, found 1.0",
        ),
        (
            {"parameters": A, "risk": {"cvar": 0.9}, "scenarios": {"sampling": "quadrature"}},
            "risk: expected mean with a sparse quadrature, whose weights may be negative; take rule: tensor",
        ),
        (
            {"parameters": A, "scenarios": {"level": 2}},
            "scenarios: expected no level with sampling quasi, found 2: it is of quadrature",
        ),
        (
            {"parameters": A, "scenarios": {"sampling": "quadrature", "count": 3}},
            "scenarios: expected no count with sampling quadrature, whose rule gives it; found 3",
        ),
        (
            {"parameters": A, "scenarios": {"sampling": "quadrature", "points": 3}},
            "scenarios: expected no points with rule sparse, found 3: it is of tensor",
        ),
        (
            {"parameters": A, "scenarios": {"confidence": 95}},
            "scenarios.confidence: expected a number above 0 and below 1, found 95",
        ),
    ],
)
def test_mistakes_in_the_file_are_named(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ProblemError) as error:
        read_problem({**uncertain_file(poisson(source="x")), **copy.deepcopy(keys)})
    assert str(error.value) == sentence


NOT_HERE = "expected an expression without random inputs here, found 'a': they may stand in pde and in time.initial"


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"objective": [{"kind": "tracking", "target": "a"}]}, f"objective.0.target: {NOT_HERE}"),
        ({"objective": [{"kind": "linear_state", "weight": "a*x"}]}, f"objective.0.weight: {NOT_HERE}"),
        ({"control": {"kind": "source", "gain": "1 + a"}}, f"control.gain: {NOT_HERE}"),
        ({"control": {"kind": "source", "bounds": ["a", None]}}, f"control.bounds.0: {NOT_HERE}"),
        ({"control": {"kind": "source", "initial": "a"}}, f"control.initial: {NOT_HERE}"),
        ({"constraints": [{"kind": "state", "upper": "a"}]}, f"constraints.0.upper: {NOT_HERE}"),
        (
            {"parameters": {"a": {"normal": [0, 1]}, "b": {"normal": [0, 1]}}},
            "parameters.b: expected a random input that an expression of pde or time.initial uses, found 'b'",
        ),
        (
            {"parameters": {"a": {"normal": [0, 1]}, "y": {"normal": [0, 1]}}},
            "parameters.y: the name 'y' is taken: it is a coordinate of the mesh",
        ),
        (
            {"control": {"kind": "parameter", "name": "y"}, "pde": poisson(source="a + y")},
            "control.name: the name 'y' is taken: it is a coordinate of the mesh",
        ),
        (
            {"parameters": {"a": {"field": {"length": 0.2, "modes": 21}}}},
            "parameters.a.field: 21 modes are asked for, but a mesh of 20 nodes carries at most 20",
        ),
    ],
)
def test_mistakes_that_depend_on_the_mesh_are_named(keys: dict[str, Any], sentence: str) -> None:
    data = {**uncertain_file(poisson(source="a"), parameters={"a": {"normal": [0, 1]}}), **copy.deepcopy(keys)}
    with pytest.raises(ProblemError) as error:
        build(read_problem(data))
    assert str(error.value) == sentence


def test_the_nominal_problem_is_checked_too() -> None:
    with pytest.raises(
        ProblemError, match=r"^pde.conductivity: expected a positive conductivity, found 0 at \([^)]*\)$"
    ):
        build(read_problem(uncertain_file(poisson(conductivity="a"), parameters=A)))


def test_a_quadrature_with_too_many_points_is_refused_with_their_number() -> None:
    fields = {"k": {"field": {"length": 0.2, "modes": 20}}}
    scenarios = {"sampling": "quadrature", "rule": "tensor"}
    with pytest.raises(ProblemError) as error:
        build(read_problem(uncertain_file(poisson(conductivity="exp(k)"), parameters=fields, scenarios=scenarios)))
    assert str(error.value).startswith("scenarios: ") and f"{5**20:,}" in str(error.value)


@pytest.mark.parametrize(
    ("pde", "sentence"),
    [
        (
            poisson(conductivity="0.5 + a*x"),
            "pde.conductivity: expected a positive conductivity, found {:g} at {} in scenario 17",
        ),
        (
            poisson(conductivity=[["0.5 + a*x", 0], [0, 3]]),
            "pde.conductivity: expected a positive definite conductivity, found the eigenvalue {:g} at {} in "
            "scenario 17",
        ),
        ({**elastic(), "young": "0.5 + a*x"}, "pde.young: expected a positive value, found {:g} at {} in scenario 17"),
    ],
)
def test_a_coefficient_that_is_not_positive_names_its_scenario(pde: dict[str, Any], sentence: str) -> None:
    parameters = {"a": {"uniform": [-0.1, 0.1]}}
    if pde["kind"] == "elasticity":
        parameters["b"] = {"normal": [1, 0.1]}
    target = [0, 0] if pde["kind"] == "elasticity" else 0
    scenarios = _scenarios(
        uncertain_file(pde, parameters=parameters, objective=[{"kind": "tracking", "target": target}])
    )
    x = scenarios.nominal.space.cells.quadrature.flat
    worst = int(torch.argmax(x[0]))
    # a = -1 is outside the distribution.
    with pytest.raises(ProblemError) as error:
        scenarios.at(np.array([[0.0, 0.0], [-10.0, 0.0], [0.5, 0.0]])[:, : len(parameters)], np.array([3, 17, 5]))
    place = f"({float(x[0, worst]):.4g}, {float(x[1, worst]):.4g})"
    assert str(error.value) == sentence.format(0.5 - float(x[0, worst]), place)


def test_a_coefficient_that_can_turn_negative_is_found_when_the_file_is_read() -> None:
    data = uncertain_file(poisson(conductivity="1 + a"), parameters={"a": {"normal": [0, 1]}}, scenarios={"count": 64})
    with pytest.raises(
        ProblemError, match=r"^pde.conductivity: expected a positive conductivity, found -.* in scenario \d+$"
    ):
        build(read_problem(data))


def test_every_scenario_needs_an_energy() -> None:
    parameters = {"a": {"uniform": [-0.1, 1]}}
    pde = poisson(reaction="1 + a", boundary={**HELD, "right": {"robin": {"coefficient": "1 + a", "value": 0}}})
    scenarios = _scenarios(uncertain_file(pde, parameters=parameters))
    assert scenarios.nominal.model.name == "energy"
    with pytest.raises(ProblemError) as error:
        scenarios.at(np.array([[-4.0]]), np.array([9]))
    first, second = str(error.value).split("\n")
    assert first == (
        "pde: expected a coercive equation, as inner.model energy needs; found none in scenario 9: take residual"
    )
    assert second.startswith(
        "pde.boundary.right.robin.coefficient: expected at least 0, as inner.model energy needs, found -0.75 at (1, "
    )
    # If a scenario of the file has no energy, the residual form is used from the start.
    pde, parameters = poisson(reaction="a"), {"a": {"uniform": [-0.5, 1]}}
    assert _scenarios(uncertain_file(pde, parameters=parameters)).nominal.model.name == "residual"


def test_wrong_calls_are_reported() -> None:
    scenarios = _scenarios(uncertain_file({"kind": "heat", "source": "a*b"}, time={"end": 1, "steps": 2}))
    with pytest.raises(ValueError, match="expected one scenario of an evolution at a time, found 2"):
        scenarios.at(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"expected scenarios \(b, 2\), found \(1, 3\)"):
        scenarios.at(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="expected a problem with random inputs, found none under parameters"):
        blueprint_of(read_problem(uncertain_file(poisson(), parameters={}, scenarios=None))).at(np.zeros((1, 1)))
