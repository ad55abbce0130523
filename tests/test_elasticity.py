"""Linear elasticity: manufactured solutions, bars in tension, rigid motions, work of loads, controls of vectors."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skfem
import torch
from skfem import helpers

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.inner.energy import EnergyModel
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.loading import read_problem
from problems import mesh_of, slope, state_of, write_mesh

FILE = "problems/elastic_control.yaml"
elements = pytest.mark.parametrize("element", ["P1", "P2"])


def elastic(pde: dict[str, Any], mesh: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """A file with a controlled body force, unless `rest` changes it."""
    dim = 3 if mesh.get("kind") == "box" else 2
    return {
        "name": "solid",
        "mesh": mesh,
        "pde": {"kind": "elasticity", **pde},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": [0] * dim}, {"kind": "regularisation", "weight": 1}],
        **rest,
    }


def built(pde: dict[str, Any], mesh: dict[str, Any], **rest: Any) -> PDEProblem:
    return build(read_problem(copy.deepcopy(elastic(pde, mesh, **rest))))


def solved(problem: PDEProblem) -> torch.Tensor:
    """All coefficients (N,) of the state at the starting control."""
    return state_of(problem, 1e-9)


def displacement(problem: PDEProblem) -> np.ndarray:
    """(dim, nodes)."""
    return np.stack(problem.space.split(solved(problem).numpy()))


def moduli(young: float, ratio: float, plane: str | None) -> tuple[float, float]:
    """Lame's lambda, in plane stress the reduced one, and mu."""
    shear = young / (2 * (1 + ratio))
    if plane == "stress":
        return young * ratio / (1 - ratio**2), shear
    return young * ratio / ((1 + ratio) * (1 - 2 * ratio)), shear


# Manufactured solutions: u = a sin(w . x) with Young's modulus 2 (1 + x) and Poisson's ratio 0.3.

WAVE, SIZE = np.array([2.0, 1.0, -1.0]), np.array([1.0, -0.5, 0.7])


def manufactured(dim: int, plane: str | None) -> tuple[list[str], dict[str, Any]]:
    """The displacement, and the equation with displacements and tractions; in the plane on a foundation below."""
    lame, shear = moduli(2.0, 0.3, plane)
    w, a = WAVE[:dim], SIZE[:dim]
    phase = " + ".join(f"({k})*{x}" for k, x in zip(w, "xyz", strict=False))
    exact = [f"({k})*sin({phase})" for k in a]
    stress = lame * (a @ w) * np.eye(dim) + shear * (np.outer(a, w) + np.outer(w, a))
    force = stress @ w
    source = [f"(1 + x)*({f})*sin({phase}) - ({s})*cos({phase})" for f, s in zip(force, stress[0], strict=True)]
    across = [[f"(1 + x)*({s})*cos({phase})" for s in row] for row in stress]
    foundation = [f"{u} - ({t})/(3 + y)" for u, t in zip(exact, across[1], strict=True)]
    boundary: dict[str, Any] = {"all": {"dirichlet": exact}, "right": {"neumann": across[0]}}
    if dim == 2:
        boundary["top"] = {"neumann": across[1]}
        boundary["bottom"] = {"robin": {"coefficient": "3 + y", "value": foundation}}
    pde = {"young": "2*(1 + x)", "poisson_ratio": 0.3, "source": source, "boundary": boundary}
    return exact, {**pde, **({"plane": plane} if plane else {})}


def l2_error(problem: PDEProblem, exact: list[str]) -> float:
    total = 0.0
    for part, values, expected in zip(problem.space.parts, displacement(problem), exact, strict=True):
        basis = skfem.Basis(problem.space.domain.mesh, part.basis.elem, intorder=7)
        misfit = np.asarray(basis.interpolate(values)) - Expression(expected).numpy(
            np.asarray(basis.global_coordinates())
        )
        total += float((misfit**2 * basis.dx).sum())
    return math.sqrt(total)


@elements
@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
@pytest.mark.parametrize("plane", ["strain", "stress"])
def test_plane_displacements_converge_at_the_order_of_the_element(plane: str, cell: str, element: str) -> None:
    exact, pde = manufactured(2, plane)
    cells = (4, 8, 16, 32)
    problems = [built(pde, {"kind": "rectangle", "cells": [n, n], "cell": cell}, element=element) for n in cells]
    errors = [l2_error(problem, exact) for problem in problems]
    assert slope([1 / n for n in cells], errors) == pytest.approx(int(element[1]) + 1, abs=0.15)


@pytest.mark.parametrize(
    ("cell", "element", "cells"),
    [
        ("tetrahedron", "P1", (3, 4, 6, 8)),
        ("tetrahedron", "P2", (2, 3, 4, 5)),
        ("hexahedron", "P1", (3, 4, 6, 8)),
        ("hexahedron", "P2", (1, 2, 3, 4)),
    ],
)
def test_displacements_in_space_converge_at_the_order_of_the_element(
    cell: str, element: str, cells: tuple[int, ...]
) -> None:
    exact, pde = manufactured(3, None)
    problems = [built(pde, {"kind": "box", "cells": [n] * 3, "cell": cell}, element=element) for n in cells]
    errors = [l2_error(problem, exact) for problem in problems]
    assert slope([1 / n for n in cells], errors) == pytest.approx(int(element[1]) + 1, abs=0.15)


@elements
@pytest.mark.parametrize(("dim", "plane"), [(2, "strain"), (2, "stress"), (3, None)])
def test_linear_displacements_are_exact_on_uneven_meshes(
    tmp_path: Path, dim: int, plane: str | None, element: str
) -> None:
    """The patch test, with displacements on the left and tractions elsewhere."""
    slopes = np.array([[0.3, -0.2, 0.1], [0.5, 0.4, -0.3], [0.2, 0.6, -0.1]])[:dim, :dim]
    lame, shear = moduli(7.0, 0.3, plane)
    stress = lame * np.trace(slopes) * np.eye(dim) + shear * (slopes + slopes.T)
    sides = [("left", "right"), ("bottom", "top"), ("front", "back")][:dim]
    boundary: dict[str, Any] = {}
    for row, (low, high) in zip(stress, sides, strict=True):
        boundary |= {low: {"neumann": (-row).tolist()}, high: {"neumann": row.tolist()}}
    exact = [" + ".join(f"({s})*{x}" for s, x in zip(row, "xyz", strict=False)) for row in slopes]
    boundary["left"] = {"dirichlet": exact}
    path = write_mesh(tmp_path / "uneven.msh", mesh_of(dim, 3))
    pde = {"young": 7, "boundary": boundary, **({"plane": plane} if plane else {})}
    objective = [{"kind": "compliance"}]
    problem = built(pde, {"file": str(path)}, element=element, objective=objective)
    expected = slopes @ problem.space.parts[0].nodes
    assert np.abs(displacement(problem) - expected).max() < 1e-12


# A bar of length 3 and height 2 under the tension 5 along x, with conditions of symmetry on the left and lower sides.

LENGTH, HEIGHT, TENSION, YOUNG, RATIO = 3.0, 2.0, 5.0, 50.0, 0.3
BAR: dict[str, Any] = {
    "young": YOUNG,
    "poisson_ratio": RATIO,
    "plane": "stress",
    "boundary": {
        "left": {"dirichlet": [0, None]},
        "bottom": {"dirichlet": [None, 0]},
        "right": {"neumann": [TENSION, 0]},
    },
}
BAR_MESH: dict[str, Any] = {"kind": "rectangle", "size": [LENGTH, HEIGHT], "cells": [3, 2]}


@pytest.mark.parametrize(
    ("plane", "along", "across"),
    [("stress", 1.0, -RATIO), ("strain", 1.0 - RATIO**2, -RATIO * (1.0 + RATIO))],
)
def test_a_bar_in_tension_has_the_exact_strains(plane: str, along: float, across: float) -> None:
    problem = built({**BAR, "plane": plane}, BAR_MESH)
    strain = TENSION / YOUNG * np.array([along, across])
    assert np.abs(displacement(problem) - strain[:, None] * problem.space.parts[0].nodes).max() < 1e-13


def test_a_block_in_tension_has_the_exact_strains() -> None:
    boundary = {
        "left": {"dirichlet": [0, None, None]},
        "bottom": {"dirichlet": [None, 0, None]},
        "front": {"dirichlet": [None, None, 0]},
        "right": {"neumann": [TENSION, 0, 0]},
    }
    pde = {"young": YOUNG, "poisson_ratio": RATIO, "boundary": boundary}
    problem = built(pde, {"kind": "box", "cells": [2, 3, 2], "cell": "hexahedron"})
    strain = TENSION / YOUNG * np.array([1.0, -RATIO, -RATIO])
    assert np.abs(displacement(problem) - strain[:, None] * problem.space.parts[0].nodes).max() < 1e-13


def test_two_moduli_act_like_two_springs_in_series(tmp_path: Path) -> None:
    mesh = meshes.rectangle((LENGTH, HEIGHT), (0, 0), (6, 4))
    path = write_mesh(tmp_path / "bar.msh", mesh, core=lambda x: x[0] > 1.0)
    pde = {**BAR, "young": {"core": 4 * YOUNG, "default": YOUNG}, "poisson_ratio": 0}
    problem = built(pde, {"file": str(path)})
    x = problem.space.parts[0].nodes[0]
    expected = TENSION / YOUNG * np.where(x < 1.0, x, 1.0 + (x - 1.0) / 4)
    assert np.abs(displacement(problem)[0] - expected).max() < 1e-13


def value(problem: PDEProblem) -> float:
    full = solved(problem)
    return problem.objective.value(full[None], torch.zeros(problem.control.size, dtype=full.dtype))


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ({"kind": "compliance", "weight": 2}, 2 * TENSION**2 / YOUNG * LENGTH * HEIGHT),
        (
            {"kind": "linear_state", "weight": [1, "2"]},
            TENSION / YOUNG * LENGTH * HEIGHT * (LENGTH / 2 - RATIO * HEIGHT),
        ),
        ({"kind": "linear_state", "weight": [0, 1], "on": "top"}, -RATIO * TENSION / YOUNG * HEIGHT * LENGTH),
        ({"kind": "tracking", "target": "0.1*x - 1", "component": 0}, 0.5 * LENGTH * HEIGHT),
        ({"kind": "tracking", "target": ["0.1*x - 1", "-0.03*y + 2"]}, 0.5 * (1 + 4) * LENGTH * HEIGHT),
        ({"kind": "tracking", "target": ["0.1*x - 1", 0], "on": "bottom"}, 0.5 * LENGTH),
    ],
)
def test_terms_in_a_displacement_have_their_closed_forms(term: dict[str, Any], expected: float) -> None:
    problem = built(BAR, BAR_MESH, objective=[term])
    assert value(problem) == pytest.approx(expected, rel=1e-12)


def test_the_compliance_is_twice_the_energy_of_the_state() -> None:
    pde = {
        "young": "1 + x",
        "source": ["y", "-1"],
        "boundary": {"left": {"dirichlet": 0}, "right": {"neumann": [0, "y"]}},
    }
    problem = built(pde, {"kind": "rectangle", "cells": [5, 4]}, objective=[{"kind": "compliance"}])
    u, v = problem.start()
    u = u - problem.state_factors(u, v).solve(problem.residual(u, v))
    energy = float((u * problem.hessian_product(u, v, u)).sum())
    assert value(problem) == pytest.approx(energy, rel=1e-11)


def test_the_compliance_of_heat_conduction_counts_sources_and_fluxes() -> None:
    """-u'' = 1, u(0) = 0, u'(1) = 3: u = 4 x - x^2/2, int u + 3 u(1)."""
    file = {
        "name": "rod",
        "mesh": {"kind": "interval", "cells": [8]},
        "element": "P2",
        "pde": {
            "kind": "poisson",
            "source": 1,
            "boundary": {"left": {"dirichlet": 0}, "right": {"neumann": 3}},
        },
        "control": {"kind": "source"},
        "objective": [{"kind": "compliance"}],
    }
    assert value(build(read_problem(file))) == pytest.approx(2 - 1 / 6 + 3 * 3.5, rel=1e-12)


def test_the_compliance_of_an_evolution_is_integrated_over_time() -> None:
    """u_t = 2 t with insulated ends: u = t^2, int 2 t u = 1/2 at t = 1."""
    file = {
        "name": "rod",
        "mesh": {"kind": "interval", "cells": [2]},
        "pde": {"kind": "heat", "source": "2*t"},
        "time": {"end": 1, "steps": 64, "scheme": "crank_nicolson"},
        "control": {"kind": "source"},
        "objective": [{"kind": "compliance"}],
    }
    assert value(build(read_problem(file))) == pytest.approx(0.5, rel=3e-4)


# The statistical model


@pytest.mark.parametrize(("dim", "plane"), [(2, "strain"), (2, "stress"), (3, None)])
def test_the_root_of_the_energy_squares_to_the_stiffness_matrix(dim: int, plane: str | None) -> None:
    """At a point the energy is only semidefinite, because rotations have none; other code checks the matrix."""
    boundary: dict[str, Any] = {
        "left": {"dirichlet": 0},
        "right": {"robin": {"coefficient": "2 + y", "value": [0] * dim}},
    }
    pde = {"young": "3 + x", "poisson_ratio": 0.2, "boundary": boundary, **({"plane": plane} if plane else {})}
    kind = "rectangle" if dim == 2 else "box"
    problem = built(pde, {"kind": kind, "cells": [2] * dim})
    assert isinstance(problem.model, EnergyModel)
    u, v = problem.start()
    derivative = problem.equation.linearise(u, v)
    jacobian = derivative.state.host()  # type: ignore[attr-defined]
    (root,) = problem.model.roots
    assert abs(root.host.T @ root.host - jacobian).max() < 1e-12 * abs(jacobian).max()

    lame, shear = moduli(1.0, 0.2, plane)
    elem = skfem.ElementVector(problem.space.basis.elem)
    basis = skfem.Basis(problem.space.domain.mesh, elem, quadrature=problem.space.basis.quadrature)
    side = skfem.FacetBasis(problem.space.domain.mesh, elem, facets="right", intorder=2)

    @skfem.BilinearForm
    def stiffness(u: Any, v: Any, w: Any) -> Any:
        strain = helpers.sym_grad(u)
        across = lame * helpers.eye(helpers.trace(strain), dim) + 2 * shear * strain
        return (3 + w.x[0]) * helpers.ddot(across, helpers.sym_grad(v))

    @skfem.BilinearForm
    def foundation(u: Any, v: Any, w: Any) -> Any:
        return (2 + w.x[1]) * helpers.dot(u, v)

    other = (stiffness.assemble(basis) + foundation.assemble(side)).toarray()
    # Vector elements number the components of a node one after the other.
    order = np.concatenate([np.arange(i, len(other), dim) for i in range(dim)])
    whole = derivative.whole.host().toarray()
    assert np.abs(other[np.ix_(order, order)] - whole).max() < 1e-12 * np.abs(whole).max()


@pytest.mark.parametrize(
    "control",
    [
        {"kind": "source", "bounds": [-1, 1], "initial": ["x", "-y"], "gain": "1 + x"},
        {"kind": "source", "space": "P0"},
        {"kind": "neumann", "on": "right", "bounds": [-0.5, None]},
        {"kind": "neumann", "on": "top", "space": "constant"},
        {"kind": "robin", "on": "bottom"},
        {"kind": "dirichlet", "on": "left"},
        {"kind": "parameter", "name": "stiffness", "initial": 8, "bounds": [1, 20]},
    ],
    ids=["source", "P0 source", "traction", "constant traction", "foundation", "displacement", "modulus"],
)
def test_every_derivative_of_a_controlled_solid_is_right(control: dict[str, Any]) -> None:
    pde = {
        "young": "stiffness" if control["kind"] == "parameter" else "2 + x",
        "source": ["x", "-1"],
        "boundary": {"bottom": {"robin": {"coefficient": 2, "value": [0, "x"]}}},
    }
    if control["kind"] != "dirichlet":
        pde["boundary"]["left"] = {"dirichlet": [0, 0]}  # type: ignore[index]
    objective = [
        {"kind": "tracking", "target": ["x", "x**2"]},
        {"kind": "compliance"},
        {"kind": "regularisation", "weight": 0.1},
    ]
    file = elastic(pde, {"kind": "rectangle", "cells": [6, 5]}, control=control, objective=objective)
    report = nhgd.verify(nhgd.load(file))
    assert report.passed, str(report)


def test_every_derivative_of_the_residual_form_is_right() -> None:
    pde = {"boundary": {"left": {"dirichlet": [0, None]}, "bottom": {"robin": {"coefficient": 1, "value": [0, 0]}}}}
    file = elastic(pde, {"kind": "rectangle", "cells": [5, 4]}, inner={"model": "residual"})
    report = nhgd.verify(nhgd.load(file))
    assert report.passed, str(report)


def test_every_derivative_in_space_is_right() -> None:
    pde = {"boundary": {"left": {"dirichlet": 0}}}
    mesh = {"kind": "box", "cells": [3, 2, 2]}
    file = elastic(pde, mesh, control={"kind": "neumann", "on": "top", "bounds": [-1, 1]})
    report = nhgd.verify(nhgd.load(file))
    assert report.passed, str(report)


# Optima


def same_optimum(file: dict[str, Any] | str, overrides: dict[str, Any] | None = None) -> nhgd.Solution:
    """Checks that nhgd reaches the optimum of exact adjoints in as many iterations."""
    ours, exact = (
        nhgd.solve(nhgd.load(copy.deepcopy(file), overrides={**(overrides or {}), "method": method}))
        for method in ("nhgd", "adjoint")
    )
    assert (ours.status, exact.status) == ("converged", "converged")
    assert ours.objective == pytest.approx(exact.objective, rel=1e-6)
    assert len(ours.history) <= 1.2 * len(exact.history)
    return ours


def known_optimum(cells: int, alpha: float = 1e-3) -> tuple[dict[str, Any], float]:
    """u* = (w, w), adjoint p* = a (w, w), w = sin(pi x) sin(pi y), and the body force -p*/alpha."""
    lame, shear = moduli(1.0, 0.3, "strain")
    a = 0.01
    wave, other = "sin(pi*x)*sin(pi*y)", "cos(pi*x)*cos(pi*y)"
    first, second = (3 * shear + lame) * math.pi**2, (lame + shear) * math.pi**2
    image = f"({first}*{wave} - {second}*{other})"
    pde = {"source": [f"{image} + {a / alpha}*{wave}"] * 2, "boundary": {"all": {"dirichlet": [0, 0]}}}
    objective = [
        {"kind": "tracking", "target": [f"{wave} - {a}*{image}"] * 2},
        {"kind": "regularisation", "weight": alpha},
    ]
    best = a**2 * (first**2 + second**2) / 4 + a**2 / (4 * alpha)
    return elastic(pde, {"kind": "rectangle", "cells": [cells, cells]}, objective=objective), best


def test_a_body_force_reaches_its_known_optimum_at_any_mesh() -> None:
    errors, counts = [], []
    for cells in (8, 16, 32, 64):
        file, best = known_optimum(cells)
        solution = nhgd.solve(nhgd.load(file))
        assert solution.status == "converged"
        errors.append(abs(solution.objective - best))
        counts.append(len(solution.history))
    assert slope([8, 16, 32, 64], errors) == pytest.approx(-2.0, abs=0.15)
    assert errors[-1] < 2e-3 * best and max(counts) <= min(counts) + 2
    file, _ = known_optimum(16)
    energy, residual = (same_optimum(file, {"inner.model": model}) for model in ("auto", "residual"))
    assert residual.objective == pytest.approx(energy.objective, rel=1e-6)


def test_bounded_forces_and_tractions_have_the_optimum_of_exact_adjoints() -> None:
    file, _ = known_optimum(12)
    bounded = same_optimum(file, {"control.bounds": [-5, "x"]})
    v = bounded.control
    assert v.min() >= -5.0 and (v == -5.0).any()
    same_optimum(FILE, {"control.bounds": [-0.3, 0.4], "mesh.cells": [16, 4]})


def test_the_shipped_problem_reaches_its_known_optimum() -> None:
    solution = same_optimum(FILE)
    assert solution.objective == pytest.approx(5.65104166667e-05, rel=1e-7)
    along, across = np.split(solution.control, 2)
    y = solution.problem.control.parts[0].nodes[1, : len(along)]
    assert np.abs(along + (y - 0.5)).max() < 1e-4 and np.abs(across).max() < 1e-4


# Bad input


def complaints(pde: dict[str, Any], mesh: dict[str, Any] | None = None, **rest: Any) -> list[str]:
    with pytest.raises(ProblemError) as caught:
        built(pde, mesh or {"kind": "rectangle", "cells": [2, 2]}, **rest)
    return [str(each) for each in caught.value.issues]


@pytest.mark.parametrize(
    ("boundary", "free"),
    [
        ({}, "3 of its 3 rigid motions are free: translation along x, translation along y, rotation"),
        ({"left": {"neumann": [1, 0]}}, "3 of its 3 rigid motions are free"),
        ({"left": {"dirichlet": [0, None]}}, "1 of its 3 rigid motions is free: translation along y"),
        ({"bottom": {"dirichlet": [None, 0]}}, "1 of its 3 rigid motions is free: translation along x"),
        ({"bottom": {"robin": {"coefficient": 0, "value": [0, 0]}}}, "3 of its 3 rigid motions are free"),
    ],
)
def test_a_body_without_supports_is_refused(boundary: dict[str, Any], free: str) -> None:
    (found,) = complaints({"boundary": boundary})
    assert found.startswith("pde.boundary: expected Dirichlet or Robin conditions that hold the body") and free in found


def test_a_block_on_a_frictionless_floor_is_refused() -> None:
    pde = {"boundary": {"front": {"dirichlet": [None, None, 0]}}}
    (found,) = complaints(pde, {"kind": "box", "cells": [1, 1, 1]})
    assert "3 of its 6 rigid motions are free: translation along x, translation along y, rotation about z" in found


@pytest.mark.parametrize(
    "boundary",
    [
        {"bottom": {"robin": {"coefficient": 1, "value": [0, 0]}}},
        {"left": {"dirichlet": [0, None]}, "bottom": {"dirichlet": [None, 0]}},
        {"left": {"dirichlet": [0, None]}, "bottom": {"robin": {"coefficient": "x", "value": 0}}},
    ],
)
def test_a_body_with_supports_of_single_components_is_solved(boundary: dict[str, Any]) -> None:
    solved(built({"source": [1, "x"], "boundary": boundary}, {"kind": "rectangle", "cells": [3, 3]}))


HELD = {"left": {"dirichlet": [0, 0]}}


@pytest.mark.parametrize(
    ("pde", "expected"),
    [
        ({"young": "x - 0.5"}, "pde.young: expected a positive value, found -"),
        ({"poisson_ratio": 0.5}, "pde.poisson_ratio: expected a ratio above -1 and below 0.5, found 0.5 at ("),
        ({"poisson_ratio": 0.6, "plane": "stress"}, "pde.poisson_ratio: expected a ratio above -1 and at most 0.5"),
        ({"poisson_ratio": -1}, "pde.poisson_ratio: expected a ratio above -1"),
        ({"source": 1}, "pde.source: expected a list of 2 expressions, one a component, found a scalar"),
        ({"source": [1]}, "pde.source: expected 2 expressions, one a component, found 1"),
        ({"boundary": {"left": {"dirichlet": [0]}}}, "pde.boundary.left.dirichlet: expected 2 values"),
        (
            {"boundary": {**HELD, "top": {"neumann": 1}}},
            "pde.boundary.top.neumann: expected a list of 2 expressions, one a component, found a scalar",
        ),
    ],
)
def test_bad_coefficients_are_named(pde: dict[str, Any], expected: str) -> None:
    (found,) = complaints({"boundary": HELD, **pde})
    assert found.startswith(expected)


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ({"kind": "compliance"}, "objective.0.kind: expected a source or a neumann condition, whose work it is"),
        ({"kind": "tracking", "target": "x"}, "objective.0.target: expected a list of 2 expressions"),
        ({"kind": "tracking", "target": "x", "component": 2}, "objective.0.component: expected a component below 2"),
        ({"kind": "linear_state"}, "objective.0.weight: expected a list of 2 expressions"),
    ],
)
def test_bad_terms_are_named(term: dict[str, Any], expected: str) -> None:
    (found,) = complaints({"boundary": HELD}, objective=[term])
    assert found.startswith(expected)


def test_a_bar_of_one_dimension_and_a_plane_in_space_are_refused() -> None:
    (found,) = complaints(
        {"boundary": {"left": {"dirichlet": 0}}},
        {"kind": "interval", "cells": [2]},
        objective=[{"kind": "tracking", "target": 0}],
    )
    assert found.startswith("pde.kind: expected a mesh of two or three dimensions")
    (found,) = complaints(
        {"plane": "stress", "boundary": {"left": {"dirichlet": 0}}}, {"kind": "box", "cells": [1] * 3}
    )
    assert found.startswith("pde.plane: expected no plane on a 3-D mesh, found 'stress'")


def test_a_time_section_is_refused_for_elasticity() -> None:
    with pytest.raises(ProblemError, match="does not evolve in time"):
        built({"boundary": HELD}, {"kind": "rectangle", "cells": [2, 2]}, time={"end": 1, "steps": 2})
