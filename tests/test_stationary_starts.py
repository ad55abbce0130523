"""Starts that are already solutions: the control does not move, and the run reports the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from benchmarks.shipped import PROBLEMS
from nhgd_pde.choice.compared_methods import METHODS
from nhgd_pde.engine.minimise import minimise
from tests.problems import BASE
from tests.units import SMALL, content

FAULTS = Path(__file__).parent / "faults"
ZERO = "the gradient at the start is zero to rounding (the objective may not depend on the control)"

HEAT: dict[str, Any] = {
    "mesh": {"kind": "interval", "cells": 8},
    "time": {"end": 0.5, "steps": 6, "scheme": "crank_nicolson", "initial": 3},
    "pde": {"kind": "heat", "boundary": {"all": {"dirichlet": 3}}},
    "objective": [{"kind": "tracking", "target": 3}, {"kind": "regularisation", "weight": 1e-2}],
}
# Problems in which the control cannot improve the objective, or has no effect; the solutions are known.
STATIONARY: dict[str, dict[str, Any]] = {
    "evolution at rest": HEAT,
    "slanted field": {
        "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": "1e3*(2 + x - y)"}}},
        "objective": [{"kind": "tracking", "target": "1e3*(2 + x - y)"}],
    },
    "conductivity of a layer": {
        "pde": {
            "kind": "poisson",
            "conductivity": "k",
            "boundary": {"left": {"dirichlet": 0}, "right": {"dirichlet": 1}},
        },
        "control": {"kind": "parameter", "name": "k", "initial": 3.7, "bounds": [0.1, 100]},
        "objective": [{"kind": "tracking", "target": "x**3"}],
    },
    "stiffness of a body that is moved": {
        "pde": {
            "kind": "elasticity",
            "young": "a",
            "poisson_ratio": 0.3,
            "boundary": {"all": {"dirichlet": ["x*y", "y"]}},
        },
        "control": {"kind": "parameter", "name": "a", "initial": 2.5},
        "objective": [{"kind": "tracking", "target": [1, 0]}],
    },
}


# The first evaluation of a stochastic method takes thousands of steps with a flow.
EXACT = ["nhgd", "adjoint", "truncated_cg", "broyden", "nbo_cg"]


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, method) for name in ("warm", "q11", "q5") for method in EXACT]
    + [("q11", method) for method in METHODS if method not in EXACT],
)
def test_a_control_without_effect_on_the_objective_does_not_move(name: str, method: str) -> None:
    coarse = {} if method in ("nhgd", "adjoint") else {"mesh.cells": [4, 4]}
    problem = nhgd.load(FAULTS / f"{name}.yaml", {"method": method, **coarse})
    _, start = problem.pde.start()
    solution = nhgd.solve(problem)
    assert (solution.status, solution.stats["outer_iterations"]) == ("converged", 0)
    assert ZERO in solution.message
    assert np.array_equal(np.ravel(solution.control), start.numpy())
    # The reported error of a gradient is never below rounding.
    assert solution.certificate.gradient_error >= solution.history[0]["gradient_norm"] > 0.0


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
@pytest.mark.parametrize("factor", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("name", STATIONARY)
def test_controls_without_effect_do_not_move_in_other_equations_and_units(
    name: str, factor: float, method: str
) -> None:
    case = {**BASE, **STATIONARY[name], "method": method}
    case["objective"] = [{**term, "weight": term.get("weight", 1.0) * factor} for term in case["objective"]]
    solution = nhgd.solve(nhgd.load(case))
    assert (solution.status, solution.stats["outer_iterations"]) == ("converged", 0), solution.message
    assert ZERO in solution.message


def test_a_start_that_is_optimal_at_a_bound_is_reported() -> None:
    """More source brings the state nearer to -1, but only less is allowed."""
    case = {**BASE, "control": {"kind": "source", "bounds": [0, 5]}}
    case["objective"] = [{"kind": "tracking", "target": -1}]
    case["pde"] = {**BASE["pde"], "source": 0}
    solution = nhgd.solve(nhgd.load(case))
    assert (solution.status, solution.stats["outer_iterations"]) == ("converged", 0)
    assert "the start is a solution: bounds" in solution.message
    assert not np.any(solution.control)


# Over scenarios a run begins with the nominal scenario; designs end when they have stopped changing.
SMOOTH = [path for path in PROBLEMS if not {"parameters", "constraints", "inner"} & set(content(path))]


@pytest.mark.slow
@pytest.mark.parametrize("path", SMOOTH, ids=lambda path: path.stem)
def test_a_run_that_starts_at_an_optimum_ends_there(path: Path) -> None:
    problem = nhgd.load(path, SMALL[path.stem])
    method = problem.method
    first = minimise(problem.pde, method.oracle, method.outer, replace(method.stopping, rtol=3e-9))
    again = replace(problem.pde, origin=(first.last.oracle.u, first.last.evaluation.v))
    second = minimise(again, method.oracle, method.outer, method.stopping)
    assert (second.status, second.last.iteration) == ("converged", 0)
    assert second.last.evaluation.value == pytest.approx(first.last.evaluation.value, rel=1e-9)


def test_a_good_start_is_improved_as_much_as_a_poor_one() -> None:
    """The natural size of the gradient only decides at solutions; a start with four right digits is improved."""
    case = {
        **BASE,
        "pde": {**BASE["pde"], "conductivity": "a"},
        "control": {"kind": "parameter", "name": "a", "initial": 2.0},
        "objective": [{"kind": "tracking", "target": "sin(pi*x)*y"}],
    }
    optimum = float(np.ravel(nhgd.solve(nhgd.load(case, {"outer.rtol": 1e-12})).control)[0])
    near = nhgd.solve(nhgd.load(case, {"control.initial": optimum * (1 + 1e-3)}))
    assert near.status == "converged" and near.stats["outer_iterations"] > 0
    assert float(np.ravel(near.control)[0]) == pytest.approx(optimum, rel=1e-7)


@pytest.mark.parametrize(
    "options", [{"method": "adjoint"}, {"method": "sample_average"}, {"scenarios.strategy": "all"}]
)
@pytest.mark.parametrize("solver", ["factors", "cg"])
@pytest.mark.parametrize("risk", ["mean", {"cvar": 0.5}])
def test_controls_without_effect_do_not_move_over_scenarios(options: dict[str, Any], solver: str, risk: Any) -> None:
    """With given values at both ends, u = q x for any conductivity."""
    case = {
        **BASE,
        "pde": {**STATIONARY["conductivity of a layer"]["pde"]},
        "control": {"kind": "parameter", "name": "k", "initial": 1},
        "objective": [{"kind": "tracking", "target": "x**2"}],
        "parameters": {"q": {"uniform": [1, 2]}},
        "scenarios": {"count": 8, "validation": 0},
        "risk": risk,
        "adjoints": {"solver": solver},
    }
    case["pde"]["boundary"] = {"left": {"dirichlet": 0}, "right": {"dirichlet": "q"}}
    solution = nhgd.solve(nhgd.load(case, options))
    assert (solution.status, solution.stats["outer_iterations"]) == ("converged", 0), solution.message
    assert ZERO in solution.message
    assert float(np.ravel(solution.control)[0]) == 1.0


SHEAR: dict[str, Any] = {
    "name": "shear",
    "mesh": {"kind": "rectangle", "cells": [4, 4]},
    "pde": {"kind": "stokes", "viscosity": "nu", "boundary": {"all": {"dirichlet": ["q*y", 0]}}},
    "control": {"kind": "parameter", "name": "nu", "initial": 1.23},
    "objective": [{"kind": "tracking", "target": [0, 0]}],
    "parameters": {"q": {"uniform": [1, 2]}},
    "scenarios": {"count": 4, "validation": 0},
}
SHEARS: dict[str, dict[str, Any]] = {
    "growing": {},
    "all": {"scenarios.strategy": "all"},
    "saga": {"scenarios.strategy": "saga"},
    "streaming": {"scenarios.strategy": "streaming"},
    "robbins_monro": {"method": "robbins_monro"},
    "sample_average": {"method": "sample_average"},
    "adjoint": {"method": "adjoint"},
    "cvar": {"risk": {"cvar": 0.5}},
    "two meshes": {"scenarios.levels": 2, "mesh.cells": [8, 8]},
    "bounds": {"control.bounds": [0.1, 10]},
    "many": {"scenarios.count": 40},
    "nominal state of zero": {"parameters.q.uniform": [-1, 1]},
    "quadrature": {"scenarios": {"sampling": "quadrature", "validation": 0}},
    "residual form": {"inner.model": "residual"},
}


@pytest.mark.parametrize("kind", ["stokes", "navier_stokes"])
@pytest.mark.parametrize("name", SHEARS)
def test_a_shear_flow_does_not_depend_on_its_viscosity_in_any_scenario(name: str, kind: str) -> None:
    """The velocity is (q y, 0) for any viscosity."""
    solution = nhgd.solve(nhgd.load(SHEAR, {"pde.kind": kind, **SHEARS[name]}))
    assert (solution.status, solution.stats["outer_iterations"]) == ("converged", 0), solution.message
    assert ZERO in solution.message
    assert float(np.ravel(solution.control)[0]) == 1.23
    assert solution.certificate.gradient_error >= solution.history[0]["gradient_norm"]
    assert "streaming" in name or solution.state.std(0).max() > 0.0


CUBIC = {
    "mesh": {"kind": "rectangle", "cells": [4, 4]},
    "pde": {
        "kind": "semilinear",
        "conductivity": "k",
        "nonlinearity": "k*u**3",
        "boundary": {"left": {"dirichlet": 0}, "right": {"dirichlet": 2}},
    },
    "control": {"kind": "parameter", "name": "k", "initial": 1.5},
    "objective": [{"kind": "tracking", "target": "x*y"}],
}


@pytest.mark.parametrize("method", ["nhgd", "adjoint", "truncated_cg", "broyden", "amigo"])
def test_a_nonlinear_equation_with_a_common_factor(method: str) -> None:
    """k (-Laplace u + u^3) = 0. The state of the first evaluation has an error of 1e-8, above rounding."""
    solution = nhgd.solve(nhgd.load({**BASE, **CUBIC, "method": method}))
    assert (solution.status, solution.stats["outer_iterations"]) == ("converged", 0), solution.message
    assert float(np.ravel(solution.control)[0]) == 1.5


def restarted(source: Any, options: dict[str, Any], control: np.ndarray) -> nhgd.Problem:
    """The problem with a given first control."""
    problem = nhgd.load(source, options)
    v = torch.from_numpy(control)
    problem.pde = replace(problem.pde, origin=(problem.pde.cold_start(v), v))
    return problem


ROBUST = next(path for path in PROBLEMS if path.stem == "robust_poisson")
FEW = {"mesh.cells": [8, 8], "scenarios.count": 24, "scenarios.validation": 0}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scenarios.strategy": "all"},
        {"risk": {"cvar": 0.5}, "outer.rtol": 1e-5},
        {"outer.rtol": 1e-2, "scenarios.count": 64},
        {"outer.rtol": 1e-4, "scenarios.strategy": "saga"},
    ],
)
def test_a_restart_at_the_optimum_over_scenarios_ends_at_once(options: dict[str, Any]) -> None:
    """The nominal gradient is not zero there, so that a run could go to the nominal optimum and back."""
    first = nhgd.solve(nhgd.load(ROBUST, {**FEW, **options}))
    second = nhgd.solve(restarted(ROBUST, {**FEW, **options}, first.control))
    assert first.status == second.status == "converged", second.message
    assert second.stats["outer_iterations"] == 0
    assert "the start is a solution" in second.message
    assert np.array_equal(second.control, first.control)


def test_a_start_near_the_optimum_over_scenarios_goes_on_from_there() -> None:
    first = nhgd.solve(nhgd.load(ROBUST, FEW))
    near = first.control * (1.0 + 1e-3 * np.sin(np.arange(len(first.control))))
    second = nhgd.solve(restarted(ROBUST, FEW, near))
    assert second.status == "converged"
    assert 0 < second.stats["outer_iterations"] <= first.stats["outer_iterations"] // 2
    assert second.objective == pytest.approx(first.objective, rel=1e-9)
    assert np.abs(second.control - first.control).max() <= 1e-5 * np.abs(first.control).max()


def test_the_check_of_a_start_takes_few_solves() -> None:
    """There are none at the default start, and elsewhere those of four scenarios."""

    def solves(make: Callable[[], nhgd.Problem]) -> tuple[int, int]:
        judged, other = make(), make()
        other.method = replace(other.method, judge=None)
        with_judge, without = (nhgd.solve(each).stats["solves"]["solves"] for each in (judged, other))
        return with_judge, without

    judged, alone = solves(lambda: nhgd.load(ROBUST, FEW))
    assert judged == alone
    far = np.linspace(-3.0, 5.0, nhgd.load(ROBUST, FEW).pde.outer_size)
    judged, alone = solves(lambda: restarted(ROBUST, FEW, far))
    assert alone < judged < alone + 100


@pytest.mark.parametrize("initial", [0, 1e-3])
@pytest.mark.parametrize("bounds", [None, [0, None]])
@pytest.mark.parametrize("offset", [1e6, 1e8])
def test_an_offset_of_the_state_does_not_make_a_start_a_solution(offset: float, bounds: Any, initial: float) -> None:
    """State and target have the same offset, so that the control does not change; it is 9 in the middle."""

    def problem(value: float) -> dict[str, Any]:
        return {
            "name": "offset",
            "mesh": {"kind": "interval", "cells": 16},
            "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": value}}},
            "control": {"kind": "source", "initial": initial, **({"bounds": bounds} if bounds else {})},
            "objective": [
                {"kind": "tracking", "target": f"{value} + sin(pi*x)"},
                {"kind": "regularisation", "weight": 1e-3},
            ],
        }

    here, there = nhgd.solve(nhgd.load(problem(offset))), nhgd.solve(nhgd.load(problem(0.0)))
    assert here.status == there.status == "converged", here.message
    assert here.objective == pytest.approx(there.objective, rel=1e-5)
    assert np.abs(here.control - there.control).max() < 1e-3


def test_a_gradient_whose_square_is_not_finite_is_reported() -> None:
    case = {**BASE, "objective": [{"kind": "tracking", "target": "x*y", "weight": 1e165}]}
    solution = nhgd.solve(nhgd.load(case))
    assert solution.status == "failed"
    assert "above the largest numbers of double precision" in solution.message


def test_the_check_of_a_start_does_not_change_the_state_of_the_method(tmp_path: Path) -> None:
    """The check uses factors, but a checkpoint of the start has the sampled inverse of the method."""
    source = {
        "name": "sampled",
        "mesh": {"kind": "rectangle", "cells": 4},
        "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "log_conductivity"},
        "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-6}],
        "curvature": {"kind": "dense", "prior": "identity"},
        "inner": {"tests": 16},
        "outer": {"iterations": 1},
    }
    solution = nhgd.solve(nhgd.load(source), output=tmp_path / "run")
    assert solution.message.startswith(ZERO)
    assert nhgd.solve(nhgd.load(source), output=tmp_path / "run", resume=True).status == "converged"


def test_scenarios_whose_gradients_are_all_zero_have_no_relative_error() -> None:
    """State, adjoint and gradient are zero in every scenario."""
    source = {
        "name": "zeros",
        "mesh": {"kind": "interval", "cells": 4},
        "pde": {"kind": "poisson", "conductivity": "exp(a)", "boundary": {"all": {"dirichlet": 0}}},
        "parameters": {"a": {"normal": [0, 1]}},
        "scenarios": {"count": 20, "validation": 4},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": 0}],
    }
    solution = nhgd.solve(nhgd.load(source))
    assert solution.status == "converged" and solution.objective == 0.0
