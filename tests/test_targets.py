"""Targets at points of quadrature and at nodes: values against an independent integral, orders, derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skfem
import torch

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build_on
from nhgd_pde.fem.mesh import domain
from nhgd_pde.fem.state_space import StateSpace
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.loading import read_problem
from problems import CPU, problem, random, slope, state_of

HELD = {"all": {"dirichlet": 0}}
SQUARE: dict[str, Any] = {"kind": "rectangle", "cells": [3, 4]}
LINE: dict[str, Any] = {"kind": "interval", "cells": [5]}
CUBE: dict[str, Any] = {"kind": "box", "cells": [2, 2, 2]}


@dataclass(frozen=True)
class Case:
    """A problem and its targets, which the rule integrates exactly.

    Attributes:
        sections: the mesh, the element, the equation and the time.
        target: the key `target`.
        exact: the target of every field that the term is about, as an expression.
        first: the first of these fields.
        term: other keys of the term.
    """

    sections: dict[str, Any]
    target: Any
    exact: tuple[str, ...]
    first: int = 0
    term: tuple[tuple[str, Any], ...] = ()


def poisson(mesh: dict[str, Any], element: str, target: str, **term: Any) -> Case:
    sections = {"mesh": mesh, "element": element, "pde": {"kind": "poisson", "boundary": HELD}}
    return Case(sections, target, (target,), term=tuple(term.items()))


def evolving(scheme: str, time: str, target: str) -> Case:
    sections = {
        "mesh": LINE,
        "pde": {"kind": "heat", "boundary": HELD},
        "time": {"end": 0.5, "steps": 3, "scheme": scheme},
    }
    return Case(sections, target, (target,), term=(("time", time),))


FLOW = {"all": {"dirichlet": [0, 0]}}
CASES = {
    "interval P1": poisson(LINE, "P1", "x**2 - x/3"),
    "interval P2": poisson(LINE, "P2", "x**3 - x/3"),
    "triangles P1": poisson(SQUARE, "P1", "x*y + y**2 - 0.1"),
    "triangles P2": poisson(SQUARE, "P2", "x**2*y - y**3", weight=2.5),
    "quadrilaterals P1": poisson(SQUARE | {"cell": "quadrilateral"}, "P1", "x**2*y**2"),
    "quadrilaterals P2": poisson(SQUARE | {"cell": "quadrilateral"}, "P2", "x**3*y**3"),
    "tetrahedra P1": poisson(CUBE, "P1", "x*y + z**2"),
    "tetrahedra P2": poisson(CUBE, "P2", "x*y*z + z**3"),
    "hexahedra P1": poisson(CUBE | {"cell": "hexahedron"}, "P1", "x**2*y + z**2"),
    "side": poisson(SQUARE, "P1", "x + y**2", on="right"),
    "side of tetrahedra": poisson(CUBE, "P2", "x + y**2*z", on="right"),
    "end": poisson(LINE, "P1", "x**2 + 1", on="right"),
    "periodic": Case(
        {"mesh": SQUARE, "pde": {"kind": "poisson", "reaction": 1, "boundary": {"left": {"periodic": "right"}}}},
        "x*y",
        ("x*y",),
    ),
    "advection": Case(
        {"mesh": SQUARE, "pde": {"kind": "advection_diffusion", "velocity": [1, 0], "boundary": HELD}}, "x*y", ("x*y",)
    ),
    "semilinear": Case(
        {"mesh": SQUARE, "pde": {"kind": "semilinear", "nonlinearity": "u**3", "boundary": HELD}}, "x*y", ("x*y",)
    ),
    "complex": Case(
        {"mesh": SQUARE, "pde": {"kind": "helmholtz", "wavenumber": 2, "boundary": {"all": {"absorbing": True}}}},
        ["x*y", "y**2"],
        ("x*y", "y**2"),
    ),
    "real part": Case(
        {"mesh": SQUARE, "pde": {"kind": "helmholtz", "wavenumber": 2, "boundary": {"all": {"absorbing": True}}}},
        "x*y",
        ("x*y", "0"),
    ),
    "elastic": Case(
        {"mesh": SQUARE, "pde": {"kind": "elasticity", "young": 1, "poisson_ratio": 0.3, "boundary": FLOW}},
        ["x*y", "0.5"],
        ("x*y", "0.5"),
    ),
    "component": Case(
        {"mesh": SQUARE, "pde": {"kind": "elasticity", "young": 1, "poisson_ratio": 0.3, "boundary": FLOW}},
        "x*y",
        ("x*y",),
        1,
        (("component", 1),),
    ),
    "stokes": Case(
        {"mesh": SQUARE, "element": "P2", "pde": {"kind": "stokes", "boundary": FLOW}},
        ["x**2*y", "y**3"],
        ("x**2*y", "y**3"),
    ),
    "burgers": Case({"mesh": LINE, "pde": {"kind": "burgers", "viscosity": 0.1, "boundary": HELD}}, "x**2", ("x**2",)),
    "heat": evolving("implicit_euler", "all", "x**2*exp(-t)"),
    "heat, steady target": evolving("implicit_euler", "all", "x**2"),
    "heat, end": evolving("implicit_euler", "final", "x**2*(1 + t)"),
    "crank nicolson": evolving("crank_nicolson", "all", "x**2*exp(-t)"),
    "wave": Case(
        {"mesh": LINE, "pde": {"kind": "wave", "boundary": HELD}, "time": {"end": 0.5, "steps": 3}},
        "x**2*t",
        ("x**2*t",),
    ),
    "allen cahn": Case(
        {
            "mesh": LINE,
            "pde": {"kind": "allen_cahn", "epsilon": 0.2, "boundary": {}},
            "time": {"end": 0.5, "steps": 3},
        },
        "x**2*t",
        ("x**2*t",),
    ),
}


def built(case: Case, **term: Any) -> PDEProblem:
    """The problem of a case, with further keys of the term."""
    tracked = {"kind": "tracking", "target": case.target, **dict(case.term), **term}
    return problem({**case.sections, "objective": [tracked, {"kind": "regularisation", "weight": 1e-2}]})


def integral(space: StateSpace, values: np.ndarray, case: Case, t: float) -> float:
    """weight/2 int (u - target)^2 at one time by scikit-fem, with a rule of order 9 (8 on tetrahedra)."""
    total, keys = 0.0, dict(case.term)
    for k, text in enumerate(case.exact, case.first):
        part, mesh = space.parts[k], space.domain.geometry
        facets = space.domain.facets[keys["on"]] if "on" in keys else None
        basis: Any = (
            skfem.CellBasis(mesh, part.basis.elem, intorder=9, dofs=part.basis.dofs)
            if facets is None
            else skfem.FacetBasis(mesh, part.basis.elem, facets=facets, intorder=9, dofs=part.basis.dofs)
        )
        expression = Expression(text)
        given = {"t": t} if "t" in expression.variables else {}
        misfit = np.asarray(basis.interpolate(values[space.offsets[k] : space.offsets[k + 1]]))
        misfit = misfit - expression.numpy(np.asarray(basis.global_coordinates()), **given)
        total += float((misfit**2 * basis.dx).sum())
    return 0.5 * keys.get("weight", 1.0) * total


def expected(made: PDEProblem, case: Case, state: np.ndarray) -> float:
    """The term at the state (levels * size,), from single integrals and the formula of the scheme."""
    size = made.space.size
    levels = state.reshape(-1, size)
    if "time" not in case.sections:
        return integral(made.space, levels[0], case, 0.0)
    time = case.sections["time"]
    step = time["end"] / time["steps"]
    if dict(case.term).get("time") == "final":
        return integral(made.space, levels[-1], case, time["end"])
    theta = 1.0 if time.get("scheme", "implicit_euler") == "implicit_euler" else 0.5
    at = [(k + theta) * step for k in range(time["steps"])]
    stages = [theta * after + (1.0 - theta) * before for before, after in pairwise(levels)]
    return step * sum(integral(made.space, u, case, t) for u, t in zip(stages, at, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_the_term_is_the_integral_with_the_target_itself(name: str) -> None:
    case = CASES[name]
    made = built(case)
    (term,) = made.objective.state
    # Anywhere, and near the target.
    levels = np.arange(made.equation.size // made.space.size)
    whole = made.fields["target"][np.minimum(levels, len(made.fields["target"]) - 1)]
    for u in (random(1, made.equation.size), torch.tensor(whole.reshape(1, -1).copy())):
        assert float(term.value(u)) == pytest.approx(expected(made, case, u[0].numpy()), rel=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_the_value(name: str) -> None:
    (term,) = built(CASES[name]).objective.state
    size = built(CASES[name]).equation.size
    u, d = random(1, size), random(1, size, seed=1)
    # A quadratic function: differences over any step are exact.
    slope, bend = (term.derivative(u) * d).sum(), (term.second_derivative(u, d) * d).sum()
    assert float(term.value(u + d) - term.value(u - d)) == pytest.approx(2 * float(slope), rel=1e-11)
    assert float(term.value(u + d) + term.value(u - d) - 2 * term.value(u)) == pytest.approx(float(bend), rel=1e-10)


@pytest.mark.parametrize(
    ("element", "target"), [("P1", "0.3"), ("P1", "1 + 2*x - y"), ("P2", "x**2 - x*y + 1"), ("P2", "0")]
)
def test_targets_in_the_space_are_the_same_at_nodes_and_at_points(element: str, target: str) -> None:
    case = poisson(SQUARE, element, target)
    (term,), (nodal,) = (built(case, target_at=at).objective.state for at in ("quadrature", "nodes"))
    u = random(1, built(case).equation.size)
    assert float(term.value(u)) == float(nodal.value(u))
    near = torch.tensor(built(case).fields["target"].reshape(1, -1).copy())
    assert float(term.value(near)) == 0.0


def test_no_digits_are_lost_near_the_target() -> None:
    """The value at the interpolant of a target of size 1e6 is half the square of its error, which is known."""
    cells = 64
    case = poisson({"kind": "interval", "cells": [cells]}, "P1", "1e6 + x**2")
    made = built(case)
    (term,) = made.objective.state
    near = torch.tensor(made.fields["target"].reshape(1, -1).copy())
    # The error (x - a)(b - x) in a cell of length h has the square h^5/30. Rounding errors of the target are 1e-10.
    assert float(term.value(near)) == pytest.approx(0.5 / (30 * cells**4), rel=1e-4)


def wave_on_a_line(element: str, cells: int, at: str) -> float:
    """The term at the solution of -u'' = f with u = sin 8 pi x, which is the target."""
    term = {"kind": "tracking", "target": "sin(8*pi*x)", "target_at": at}
    source = "(8*pi)**2*sin(8*pi*x)"
    made = problem(
        {
            "mesh": {"kind": "interval", "cells": [cells]},
            "element": element,
            "pde": {"kind": "poisson", "source": source, "boundary": HELD},
            "objective": [term, {"kind": "regularisation", "weight": 1e-2}],
        }
    )
    return float(made.objective.state[0].value(state_of(made)[None]))


def test_the_square_of_the_error_of_a_state_has_its_order() -> None:
    """Of P1 order 4. The finite element solution on a line is exact at the nodes, so that nodes show nothing of it."""
    cells = [48, 96, 192]
    found = [wave_on_a_line("P1", count, "quadrature") for count in cells]
    assert slope(cells, found) == pytest.approx(-4.0, abs=0.02)
    # (u - target)^2 is that of the interpolant, h^4/120 int u''^2, up to higher orders.
    assert found[-1] == pytest.approx(0.5 * (8 * np.pi) ** 4 / (240 * 192**4), rel=2e-3)
    assert wave_on_a_line("P1", 96, "nodes") < 1e-6 * found[1]
    squares = [wave_on_a_line("P2", count, "quadrature") for count in cells]
    assert slope(cells, squares) == pytest.approx(-6.0, abs=0.05)


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_cells_with_curved_sides_see_the_target(element: str) -> None:
    """On a disc of second order: far nearer to a fine rule than with the nodes alone."""
    mesh = skfem.MeshTri2.init_circle(2)
    content = {
        "name": "disc",
        "mesh": {"kind": "disk"},
        "element": element,
        "pde": {"kind": "poisson", "boundary": HELD},
        "control": {"kind": "source"},
    }
    case = Case({}, "sin(3*x)*cos(2*y)", ("sin(3*x)*cos(2*y)",))
    errors = {}
    for at in ("quadrature", "nodes"):
        term = {"kind": "tracking", "target": case.target, "target_at": at}
        made = build_on(read_problem({**content, "objective": [term]}), domain(mesh), CPU)
        u = torch.tensor(made.fields["target"].reshape(1, -1).copy())
        errors[at] = abs(float(made.objective.state[0].value(u)) - integral(made.space, u[0].numpy(), case, 0.0))
    assert errors["quadrature"] < 0.05 * errors["nodes"]


def test_a_subdomain_has_its_own_target() -> None:
    """A jump along a side of cells: every cell has the values of its own side, where nodes have those of one."""
    mesh = skfem.MeshTri.init_tensor(np.linspace(0, 1, 5), np.linspace(0, 1, 5))
    halves = {"west": lambda x: x[0] < 0.5, "east": lambda x: x[0] > 0.5}
    made = build_on(
        read_problem(
            {
                "name": "halves",
                "mesh": {"kind": "rectangle", "cells": [4, 4]},
                "pde": {"kind": "poisson", "boundary": HELD},
                "control": {"kind": "source"},
                "objective": [
                    {"kind": "tracking", "target": "where(x < 0.5, 1, 3)", "on": "west"},
                    {"kind": "tracking", "target": "where(x < 0.5, 1, 3)"},
                ],
            }
        ),
        domain(mesh.with_subdomains(halves)),
        CPU,
    )
    west, whole = made.objective.state
    ones = torch.ones(1, made.space.size, dtype=torch.float64)
    assert float(west.value(ones)) == pytest.approx(0.0, abs=1e-28)
    assert float(whole.value(ones)) == pytest.approx(0.5 * 0.5 * 4.0, rel=1e-13)
    assert float(whole.value(2 * ones)) == pytest.approx(0.5, rel=1e-13)


def test_a_run_minimises_the_term_with_the_target_itself() -> None:
    """The gradient, the exact steps, and the terms of the summary of a whole run."""
    content = {
        "name": "run",
        "mesh": {"kind": "rectangle", "cells": [6, 6]},
        "pde": {"kind": "poisson", "boundary": HELD},
        "control": {"kind": "source"},
        "objective": [
            {"kind": "tracking", "target": "sin(3*pi*x)*y"},
            {"kind": "regularisation", "weight": 1e-4},
        ],
    }
    made = nhgd.load(content)
    assert all(check.passed for check in nhgd.verify(made).checks)
    solution = nhgd.solve(made)
    assert solution.status == "converged"
    assert solution.integrate("0.5*(state - sin(3*pi*x)*y)**2") == pytest.approx(solution.terms["tracking"], rel=1e-3)


def test_sensors_have_no_points_of_quadrature(tmp_path: Path) -> None:
    (tmp_path / "sensors.txt").write_text("0.5 0.5 1.0\n")
    objective = [{"kind": "tracking", "at": str(tmp_path / "sensors.txt"), "target_at": "nodes"}]
    with pytest.raises(nhgd.ProblemError, match="target_at: expected none beside `at`"):
        problem({"objective": objective})
