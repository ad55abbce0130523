"""Bounds of the state: at nodes, up to a tolerance, in any unit, with multipliers; and impossible bounds."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build
from nhgd_pde.objective.state_bounds import BoundTerm
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem
from problems import random, slope

# A beam that is pushed up at a point: -u'' = v, min 1/2 |v|^2, u >= 1/2 - 8 (x - 1/2)^2. The state touches the obstacle
# only at its top, because the obstacle has the larger curvature: v is 24 times Green's function of x = 1/2, whose
# greatest value is 1/4. The objective is 1/2 24^2 / 48 = 6, the multiplier a point load of 24.
OBSTACLE = "0.5 - 8*(x - 0.5)**2"
BEAM: dict[str, Any] = {
    "name": "beam",
    "mesh": {"kind": "interval", "cells": 16},
    "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [{"kind": "regularisation", "weight": 1}],
    "constraints": [{"kind": "state", "lower": OBSTACLE}],
}
PLATE: dict[str, Any] = {
    **BEAM,
    "mesh": {"kind": "rectangle", "cells": [12, 12]},
    "objective": [{"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)"}, {"kind": "regularisation", "weight": 1e-4}],
    "constraints": [{"kind": "state", "upper": 0.5}],
}
HEAT: dict[str, Any] = {
    **BEAM,
    "mesh": {"kind": "interval", "cells": 8},
    "pde": {"kind": "heat", "boundary": {"all": {"dirichlet": 0}}},
    "time": {"end": 0.5, "steps": 6},
    "objective": [{"kind": "tracking", "target": "sin(pi*x)"}, {"kind": "regularisation", "weight": 1e-3}],
    "constraints": [{"kind": "state", "upper": 0.6}],
}


def solve(file: dict[str, Any], overrides: dict[str, Any] | None = None, **options: Any) -> nhgd.Solution:
    return nhgd.solve(nhgd.load(copy.deepcopy(file), overrides or {}), **options)


def report(solution: nhgd.Solution) -> Any:
    (found,) = solution.stats["constraints"]
    return found


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
@pytest.mark.parametrize("cells", [16, 64])
def test_a_pushed_beam_has_the_exact_objective(cells: int, method: str) -> None:
    """With a node at the point of contact the discrete optimum is the continuous one."""
    found = solve(BEAM, {"mesh.cells": cells, "method": method})
    assert found.status == "converged"
    assert found.objective == pytest.approx(6.0, rel=1e-6)
    told = report(found)
    assert told["violation"] <= told["tolerance"] == pytest.approx(1.5e-6)
    assert told["multiplier"] == pytest.approx(24.0, rel=1e-6)
    x = found.problem.space.nodes[0]
    assert (0.5 - 8.0 * (x - 0.5) ** 2 - found.state[0]).max() == pytest.approx(told["violation"], abs=1e-14)
    assert np.abs(found.control - 24.0 * np.minimum(x, 1.0 - x) / 2.0).max() < 1e-4


def test_the_order_without_a_node_at_the_point_of_contact() -> None:
    cells = [9, 17, 33, 65]
    gaps = [6.0 - solve(BEAM, {"mesh.cells": n}).objective for n in cells]
    assert slope([1.0 / n for n in cells], gaps) == pytest.approx(2.0, abs=0.1)


def test_iterations_do_not_grow_with_the_mesh() -> None:
    """With a function as the multiplier iterations are constant; with a point load they grow by a few on each mesh."""
    known = Path("problems/state_constraint.yaml")
    counts = [nhgd.solve(nhgd.load(known, {"mesh.cells": [n, n]})).stats["outer_iterations"] for n in (32, 64)]
    assert counts[1] <= 1.2 * counts[0], counts
    beam = [solve(BEAM, {"mesh.cells": n}).stats["outer_iterations"] for n in (16, 32, 64, 128)]
    assert beam[-1] <= 2 * beam[0]


@pytest.mark.parametrize(
    ("state", "length", "objective"), [(1e6, 1.0, 1.0), (1.0, 1e-6, 1.0), (1.0, 1e6, 1e15), (1e-5, 1e4, 1e-15)]
)
@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
def test_bounds_do_not_depend_on_units(method: str, state: float, length: float, objective: float) -> None:
    """The results are the same in other units of the state, of lengths and of the objective."""
    overrides = {
        "mesh.size": length,
        "objective.0.weight": objective * length**3 / state**2,
        "constraints.0.lower": f"{state!r}*(0.5 - 8*(x/{length!r} - 0.5)**2)",
        "method": method,
    }
    one, other = solve(BEAM, {"method": method}), solve(BEAM, overrides)
    assert other.status == one.status == "converged"
    assert other.stats["outer_iterations"] == pytest.approx(one.stats["outer_iterations"], abs=2)
    assert other.objective / objective == pytest.approx(one.objective, rel=1e-6)
    assert np.abs(other.control * length**2 / state - one.control).max() < 1e-6 * np.abs(one.control).max()
    assert report(other)["tolerance"] / state == pytest.approx(report(one)["tolerance"], rel=1e-5)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "upper": (PLATE, {}),
    "both": (PLATE, {"constraints.0.lower": "-0.1 + x*(1 - x)*y*(1 - y)"}),
    "sign": (PLATE, {"constraints.0": {"kind": "state", "lower": 0}, "objective.0.target": "-sin(pi*x)*sin(pi*y)"}),
    "bounds of the control": (PLATE, {"control.bounds": [0, 9]}),
    "l1": (
        PLATE,
        {
            "mesh.cells": [6, 6],
            "objective": [*PLATE["objective"], {"kind": "regularisation", "norm": "l1", "weight": 1e-3}],
        },
    ),
    "nonlinear": (PLATE, {"mesh.cells": [8, 8], "pde.kind": "semilinear", "pde.nonlinearity": "u**3"}),
    "heat": (HEAT, {}),
    "heat, second order": (HEAT, {"time.scheme": "crank_nicolson"}),
    "heat, initial": (HEAT, {"control.kind": "initial", "objective.0.time": "final", "constraints.0.upper": 1.5}),
}


@pytest.mark.parametrize("name", list(CASES))
def test_methods_find_the_same_optimum_with_all_nodes_within_the_bounds(name: str) -> None:
    file, overrides = CASES[name]
    ours, exact = (solve(file, {**overrides, "method": method}) for method in ("nhgd", "adjoint"))
    for found in (ours, exact):
        assert found.status == "converged"
        told = report(found)
        assert told["violation"] <= told["tolerance"] and told["multiplier"] > 0.0
    assert ours.objective == pytest.approx(exact.objective, rel=1e-6)
    spec = read_problem(copy.deepcopy(file), overrides).spec.constraints[0]
    if spec.upper is not None:
        levels = exact.evolution[0 if name == "heat, initial" else 1 if len(exact.evolution) > 1 else 0 :]
        assert levels.max() - float(spec.upper.constant) <= report(exact)["tolerance"]


def test_the_conditions_of_optimality_hold() -> None:
    """The derivative of the objective and the load of the multipliers cancel; multipliers act only at the bound."""
    found = solve(PLATE, {"method": "adjoint"})
    (relaxation,) = found.problem.relaxations
    load = relaxation.multiplier[0] * relaxation.bounds.weights
    plain = found.problem.relaxed(())
    u = torch.from_numpy(found.state[:, plain.equation.free])
    v = torch.from_numpy(found.control)
    by_u, by_v = plain.outer_derivatives(u, v)
    whole = torch.zeros(1, plain.equation.size, dtype=torch.float64)
    whole[:, relaxation.bounds.indices] = load
    by_u = by_u + plain.equation.restrict(whole)
    adjoint = plain.state_factors(u, v).solve_transposed(by_u)
    left = plain.outer_metric.dual_norm((by_v - plain.control_product_transposed(u, v, adjoint))[None])
    assert left < 1e-6 * plain.outer_metric.dual_norm(by_v[None])
    touched = np.abs(found.state[0][relaxation.bounds.indices] - 0.5) <= report(found)["tolerance"]
    assert (load.numpy() >= 0.0).all() and touched[load.numpy() > 0.0].all()


def test_bounds_hold_at_every_node_of_quadratic_elements() -> None:
    """The nodes include the middles of edges; between nodes the excess is the reported one."""
    found = solve(PLATE, {"element": "P2", "mesh.cells": [8, 8]})
    told = report(found)
    assert found.status == "converged"
    assert found.state.max() - 0.5 == pytest.approx(told["violation"], abs=1e-14)
    assert told["violation"] <= told["tolerance"] < told["violation_between"] < 5e-3


@pytest.mark.parametrize("on", ["left", "bottom"])
def test_bounds_on_a_part_of_the_boundary(on: str) -> None:
    overrides = {
        "pde": {"kind": "poisson", "reaction": 1},
        "constraints.0.on": on,
        "constraints.0.upper": 0.2,
        "objective.0.target": 0.4,
    }
    found = solve(PLATE, overrides)
    assert found.status == "converged"
    x = found.problem.space.nodes[0 if on == "left" else 1]
    assert found.state[0, x == 0.0].max() <= 0.2 + report(found)["tolerance"]
    assert found.state.max() > 0.25


def test_bounds_that_are_not_reached_change_nothing() -> None:
    free = solve({key: value for key, value in PLATE.items() if key != "constraints"})
    bounded = solve(PLATE, {"constraints.0.upper": 2})
    assert bounded.status == "converged" and report(bounded)["multiplier"] == 0.0
    assert bounded.objective == pytest.approx(free.objective, rel=1e-9)


@pytest.mark.parametrize("method", ["nhgd", "adjoint"])
def test_bounds_that_no_control_can_reach(method: str) -> None:
    overrides = {
        "constraints.0": {"kind": "state", "lower": "2*sin(pi*x)*sin(pi*y)"},
        "control.bounds": [0, 9],
        "method": method,
    }
    found = solve(PLATE, overrides)
    assert found.status == "stopped"
    assert "no control was found with which the bounds of the state hold: at x = 0.5, y = 0.5" in found.message
    assert report(found)["violation"] > 1.0 and report(found)["place"] == [0.5, 0.5]


def test_bounds_that_contradict_the_equation() -> None:
    """-lap u = 5 with u >= 0 on the boundary has u > 0.36 in the middle."""
    overrides = {
        "mesh.cells": [8, 8],
        "pde": {"kind": "poisson", "source": 5},
        "control": {"kind": "dirichlet", "on": "all"},
        "constraints.0": {"kind": "state", "lower": 0, "upper": 0.3},
    }
    found = solve(PLATE, overrides)
    assert found.status == "stopped" and "no control was found" in found.message


def test_boundary_values_outside_the_bounds_are_reported() -> None:
    found = solve(PLATE, {"constraints.0": {"kind": "state", "lower": 0.1}})
    assert found.status == "stopped"
    assert "boundary or initial values fix the state 0.1 outside" in found.message


def test_crossed_bounds_are_refused_with_the_place() -> None:
    with pytest.raises(ProblemError, match=r"constraints.0.lower: expected lower <= upper .*0.6 above upper 0.5 at \("):
        nhgd.load(copy.deepcopy(PLATE), {"constraints.0.lower": 0.6})


def test_a_given_penalty_does_not_change_the_result() -> None:
    found = [
        solve(BEAM, {"constraints.0.penalty": penalty, "constraints.0.stages": 3}).objective
        for penalty in (1e2, 1e4, 1e6)
    ]
    assert found == pytest.approx([6.0] * 3, rel=1e-5)


@pytest.mark.parametrize("stop", [4, 15])
def test_an_interrupted_run_resumes_with_the_same_numbers(stop: int, tmp_path: Path) -> None:
    settings = {"output.checkpoint": 1}
    whole, asked = solve(PLATE), 0

    def interrupted() -> bool:
        nonlocal asked
        asked += 1
        return asked > stop

    first = solve(PLATE, settings, output=tmp_path / "run", interrupted=interrupted)
    assert first.status == "interrupted"
    rest = solve(PLATE, settings, output=tmp_path / "run", resume=True)
    assert rest.message == whole.message and rest.objective == whole.objective
    assert (rest.control == whole.control).all()
    assert [row["objective"] for row in rest.history] == [row["objective"] for row in whole.history]


def test_the_summary_of_bounds(tmp_path: Path) -> None:
    """The summary has place, tolerance, multipliers, and the objective without the term of the bounds."""
    found = solve(BEAM, output=tmp_path / "run")
    told = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert told["constraints"][0]["place"] == [0.5]
    assert told["objective"] == found.objective == found.history[-1]["objective"]
    v = torch.from_numpy(found.control)
    plain = build(read_problem(copy.deepcopy(BEAM)))
    assert plain.objective.control_value(v) == pytest.approx(found.objective, rel=1e-12)
    assert f"objective {found.objective:.9e}" in found.message
    assert "at nodes by at most" in found.message and "(x = 0.5), tolerance 1.5e-06" in found.message
    fields = meshio.read(tmp_path / "run" / "final.vtu").point_data
    density = fields["multiplier"] / 16.0
    assert density[np.argmax(np.abs(density))] == pytest.approx(-24.0, rel=1e-5)
    assert np.count_nonzero(density) == 1


def test_derivatives_of_the_term() -> None:
    """If no node is at a kink, the term is a quadratic function."""
    problem = build(read_problem(copy.deepcopy(PLATE), {"constraints.0.lower": "-0.2"}))
    (bounds,) = problem.state_bounds
    size = problem.equation.size
    term = BoundTerm(bounds, 0.3 * random(len(bounds.lower))[None], 7.0)
    u, step = random(size)[None], 1e-4 * random(size)[None].roll(1)
    ends = [float(term.value(u + sign * step)) for sign in (1.0, -1.0)]
    assert ends[0] - ends[1] == pytest.approx(2.0 * float((term.derivative(u) * step).sum()), rel=1e-5)
    change = term.derivative(u + step) - term.derivative(u - step)
    assert torch.allclose(change, 2.0 * term.second_derivative(u, step), atol=1e-9)


RANDOM: dict[str, Any] = {
    **PLATE,
    "mesh": {"kind": "rectangle", "cells": [6, 6]},
    "pde": {"kind": "poisson", "conductivity": "exp(0.2*a)", "source": "b", "boundary": {"all": {"dirichlet": 0}}},
    "parameters": {"a": {"normal": [0, 1]}, "b": {"uniform": [-1, 1]}},
    "scenarios": {"count": 6, "validation": 20},
}


def test_bounds_hold_in_every_scenario() -> None:
    found = solve(RANDOM, {"method": "adjoint"})
    told = report(found)
    assert found.status == "converged"
    assert len(found.state) == 6 and found.state.max() - 0.5 <= told["tolerance"]
    # The judgement uses the objective of the file, so that an excess in fresh scenarios costs nothing.
    judged = found.stats["uncertainty"]
    assert judged["in_sample"] == pytest.approx(found.objective, rel=1e-6)
    assert judged["out_of_sample"] < 2.0 * found.objective


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"method": "robbins_monro"}, "method: expected nhgd, adjoint or sample_average with bounds of the state"),
        ({"scenarios.strategy": "saga"}, "scenarios.strategy: expected growing or all with bounds of the state"),
    ],
)
def test_methods_that_never_see_all_scenarios_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as error:
        nhgd.load(copy.deepcopy(RANDOM), overrides)
    assert message in str(error.value)
