"""Periodic boundaries: orders of convergence, cells with known effective conductivities, other meshes, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skfem

import nhgd_pde as nhgd
from nhgd_pde import ProblemError

SIDES = {"left": {"periodic": "right"}, "bottom": {"periodic": "top"}, "front": {"periodic": "back"}}
ACROSS = {"left": {"periodic": "right"}}
SQUARE = {"left": {"periodic": "right"}, "bottom": {"periodic": "top"}}
FIT = [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-3}]
FIT_VECTOR = [{"kind": "tracking", "target": ["y", "x"]}, {"kind": "regularisation", "weight": 1e-3}]
GRID = {"kind": "rectangle", "cells": [5, 4]}


def load(mesh: Any = GRID, **sections: Any) -> nhgd.Problem:
    defaults = {"name": "periodic", "mesh": mesh, "control": {"kind": "source"}, "objective": FIT}
    return nhgd.load({**defaults, **sections})


def passive(mesh: Any, element: str, pde: dict[str, Any], **sections: Any) -> nhgd.Solution:
    """The solution of an equation whose control costs so much that it stays zero."""
    count = 2 if pde["kind"] in ("elasticity", "stokes") else 1
    target: Any = 0 if count == 1 else [0] * count
    terms = [{"kind": "tracking", "target": target}, {"kind": "regularisation", "weight": 1e12}]
    return nhgd.solve(load(mesh, element=element, pde=pde, objective=terms, **sections))


def shape(cell: str, cells: int) -> dict[str, Any]:
    if cell == "interval":
        return {"kind": "interval", "cells": cells}
    if cell in ("triangle", "quadrilateral"):
        return {"kind": "rectangle", "cells": [cells, cells], "cell": cell}
    return {"kind": "box", "cells": [cells] * 3, "cell": cell}


@pytest.mark.parametrize(
    ("cell", "element", "cells", "nodes"),
    [
        ("interval", "P1", 16, 16),
        ("interval", "P2", 16, 32),
        ("triangle", "P1", 16, 16**2),
        ("triangle", "P2", 8, 16**2),
        ("quadrilateral", "P1", 16, 16**2),
        ("quadrilateral", "P2", 8, 16**2),
        ("tetrahedron", "P2", 8, 16**3),
        ("hexahedron", "P1", 8, 8**3),
    ],
)
def test_a_trigonometric_solution_is_found_with_the_order_of_the_element(
    cell: str, element: str, cells: int, nodes: int
) -> None:
    dim = {"interval": 1, "triangle": 2, "quadrilateral": 2}.get(cell, 3)
    exact = "*".join(["sin(2*pi*x + 1)", "cos(2*pi*y)", "sin(2*pi*z)"][:dim])
    sides = dict(list(SIDES.items())[:dim])
    pde = {"kind": "poisson", "reaction": 1, "source": f"({4 * dim}*pi**2 + 1)*{exact}", "boundary": sides}
    errors = []
    for count in (cells // 2, cells):
        solution = passive(shape(cell, count), element, pde)
        errors.append(solution.integrate(f"(state - {exact})**2") ** 0.5)
    # Corners and edges are on several sides and count once.
    assert solution.problem.space.size == nodes
    assert np.log2(errors[0] / errors[1]) > {"P1": 1.85, "P2": 2.75}[element]


def test_a_vector_on_a_torus_is_found_with_the_order_of_the_element() -> None:
    # u = (s, s) with s = sin(2 pi (x + y)): div sigma = -(2 pi)^2 (2 mu + 2 (lambda + mu)) s for each component.
    young, ratio = 1.0, 0.3
    mu, lame = young / (2 + 2 * ratio), young * ratio / ((1 + ratio) * (1 - 2 * ratio))
    load = f"{(2 * np.pi) ** 2 * (4 * mu + 2 * lame)}*sin(2*pi*(x + y))"
    pde = {
        "kind": "elasticity",
        "source": [load, load],
        "boundary": SQUARE,
        "points": [{"at": [0, 0], "dirichlet": [0, 0]}],
    }
    errors = []
    for cells in (8, 16):
        solution = passive(shape("triangle", cells), "P2", pde)
        values = ["(displacement_x - sin(2*pi*(x + y)))**2", "(displacement_y - sin(2*pi*(x + y)))**2"]
        errors.append(sum(solution.integrate(each) for each in values) ** 0.5)
    assert np.log2(errors[0] / errors[1]) > 2.7


def test_a_channel_flow_between_periodic_ends_is_that_of_poiseuille() -> None:
    pde = {"kind": "stokes", "source": [1, 0], "boundary": {**ACROSS, "all": {"dirichlet": 0}}}
    solution = passive(shape("triangle", 4), "P2", pde)
    assert solution.integrate("(velocity_x - 0.5*y*(1 - y))**2 + velocity_y**2") < 1e-20
    # No flux leaves the domain, so that the pressure has mean zero.
    assert abs(solution.integrate("pressure")) < 1e-10


def test_heat_on_a_torus_decays_as_its_eigenfunction() -> None:
    time = {"end": 0.02, "steps": 40, "scheme": "crank_nicolson", "initial": "sin(2*pi*(x - y))"}
    pde = {"kind": "heat", "boundary": SQUARE}
    errors = []
    for cells in (8, 16):
        solution = passive(shape("triangle", cells), "P2", pde, time=time)
        decayed = f"{np.exp(-8 * np.pi**2 * 0.02)}*sin(2*pi*(x - y))"
        errors.append(solution.integrate(f"(state - {decayed})**2") ** 0.5)
    assert errors[1] < 2e-3 and np.log2(errors[0] / errors[1]) > 2.5


CASES: dict[str, dict[str, Any]] = {
    "flux": {
        "element": "P2",
        "pde": {"kind": "poisson", "source": "x", "boundary": {**ACROSS, "bottom": {"dirichlet": 0}}},
        "control": {"kind": "neumann", "on": "top"},
        "objective": [FIT[0], {"kind": "regularisation", "norm": "h1", "weight": 1e-2}],
    },
    "dirichlet": {
        "pde": {"kind": "poisson", "boundary": {**ACROSS, "top": {"dirichlet": 0}}},
        "control": {"kind": "dirichlet", "on": "bottom"},
    },
    "conductivity": {
        "element": "P2",
        "pde": {"kind": "poisson", "reaction": 1, "source": "x", "boundary": SQUARE},
        "control": {"kind": "log_conductivity"},
    },
    "density": {
        "pde": {"kind": "poisson", "source": 1, "boundary": {**ACROSS, "top": {"dirichlet": 0}}},
        "control": {
            "kind": "density",
            "filter": "helmholtz",
            "filter_radius": 0.3,
            "low": 0.01,
            "initial": 0.5,
            "bounds": [0, 1],
        },
        "objective": [{"kind": "compliance"}],
    },
    "elasticity": {
        "pde": {"kind": "elasticity", "source": ["x", 0], "boundary": {**ACROSS, "bottom": {"dirichlet": 0}}},
        "objective": FIT_VECTOR,
    },
    "navier_stokes": {
        "pde": {
            "kind": "navier_stokes",
            "viscosity": 0.1,
            "source": ["y", "x"],
            "boundary": {**ACROSS, "all": {"dirichlet": 0}},
        },
        "objective": FIT_VECTOR,
    },
    "stokes in time": {
        "time": {"end": 1, "steps": 3, "initial": ["sin(2*pi*y)", 0]},
        "pde": {"kind": "stokes", "source": ["y", "x"], "boundary": SQUARE},
        "objective": FIT_VECTOR,
    },
    "helmholtz": {
        "pde": {"kind": "helmholtz", "wavenumber": 3, "source": "x", "boundary": {**ACROSS, "top": {"absorbing": True}}}
    },
    "advection": {
        "pde": {
            "kind": "advection_diffusion",
            "conductivity": 0.01,
            "velocity": [1, 1],
            "source": "x",
            "boundary": {**ACROSS, "bottom": {"dirichlet": 0}},
        }
    },
    "wave": {
        "time": {"end": 1, "steps": 4, "initial": "sin(2*pi*x)", "scheme": "crank_nicolson"},
        "pde": {"kind": "wave", "boundary": SQUARE},
    },
    "mean gradient": {
        "pde": {
            "kind": "poisson",
            "reaction": 1,
            "conductivity": "1 + k*sin(2*pi*x)**2",
            "mean_gradient": ["g", 1],
            "boundary": SQUARE,
        },
        "control": [
            {"kind": "parameter", "name": "k", "initial": 1},
            {"kind": "parameter", "name": "g", "initial": 1},
        ],
        "objective": [FIT[0]],
    },
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_right(name: str) -> None:
    found = nhgd.verify(load(**CASES[name]))
    assert found.passed, str(found)


@pytest.mark.parametrize("cell", ["triangle", "quadrilateral"])
def test_a_single_cell_may_be_its_own_neighbour(cell: str) -> None:
    pde = {"kind": "poisson", "reaction": 2, "source": 6, "boundary": SQUARE}
    solution = passive(shape(cell, 1), "P1", pde)
    assert solution.state.shape[-1] == 1
    assert solution.integrate("(state - 3)**2") < 1e-20


# Effective conductivities


def gradients(solution: nhgd.Solution) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, weights and the gradient of the whole field, of which the state is the deviation from x."""
    space = solution.problem.space.parts[0]
    basis = skfem.CellBasis(space.domain.mesh, space.basis.elem, intorder=4)
    gradient = np.asarray(basis.interpolate(space.spread(solution.state[0])).grad)
    return np.asarray(basis.global_coordinates()), basis.dx, gradient + np.eye(2)[0][:, None, None]


def test_a_cell_of_oblique_stripes_has_the_known_effective_conductivity() -> None:
    solution = nhgd.solve(nhgd.load("problems/periodic_cell.yaml"))
    k = float(solution.control[0])
    assert abs(k - 3) < 1e-6
    x, weights, gradient = gradients(solution)
    conductivity = np.where(np.floor(2 * (x[0] - x[1])) % 2 == 0, k, 1.0)
    fluxes = (conductivity * gradient * weights).sum(axis=(1, 2))
    # Along the stripes the conductivity is the arithmetic mean, across them the harmonic mean.
    along, across = (1 + k) / 2, 2 * k / (1 + k)
    assert fluxes == pytest.approx([(along + across) / 2, (along - across) / 2], abs=1e-12)


def test_the_effective_conductivity_of_a_checkerboard_converges_to_the_geometric_mean() -> None:
    # Keller (1964): sqrt(k_1 k_2). The state is singular in the corners, so that the order is below two.
    board = "where((x - 0.5)*(y - 0.5) > 0, 4, 1)"
    pde = {
        "kind": "poisson",
        "conductivity": board,
        "mean_gradient": [1, 0],
        "boundary": SQUARE,
        "points": [{"at": [0, 0], "dirichlet": 0}],
    }
    found = []
    for cells in (8, 16, 32):
        solution = passive(shape("quadrilateral", cells), "P2", pde)
        x, weights, gradient = gradients(solution)
        conductivity = np.where((x[0] - 0.5) * (x[1] - 0.5) > 0, 4.0, 1.0)
        found.append(float((conductivity * (gradient**2).sum(axis=0) * weights).sum()))
    errors = np.array(found) - 2.0
    # Energies of finite elements are too large.
    assert (errors > 0).all() and errors[-1] < 0.02
    assert (np.log2(errors[:-1] / errors[1:]) > 1.0).all()


# Output


def test_fields_have_the_same_values_on_both_sides_and_their_own_places(tmp_path: Path) -> None:
    problem = load(element="P2", **{key: CASES["conductivity"][key] for key in ("pde", "control")})
    solution = nhgd.solve(problem, output=tmp_path / "run")
    import meshio

    found = meshio.read(tmp_path / "run" / "final.vtu")
    x, state, control = found.points[:, 0], found.point_data["state"], found.point_data["control"]
    assert len(x) == 11 * 9
    for values in (state, control):
        left, right = (values[x == side][np.argsort(found.points[x == side, 1])] for side in (0, 1))
        assert np.array_equal(left, right)
    ends = solution.evaluate(np.array([[0.0, 0.3], [1.0, 0.3]]), "state")
    assert abs(ends[0] - ends[1]) < 1e-14
    again = nhgd.verify(problem, at=tmp_path / "run")
    assert again.passed


# Mistakes


@pytest.mark.parametrize(
    ("boundary", "sentence"),
    [
        ({"left": {"periodic": "rigth"}}, "did you mean 'right'"),
        ({"left": {"periodic": "left"}}, "expected the side opposite to 'left'"),
        ({"left": {"periodic": "all"}}, "one side of two, found 'all'"),
        ({"left": {"periodic": "top"}}, r"the node of left at \(0, 0\) has no partner on top"),
        ({**ACROSS, "right": {"dirichlet": 0}}, "'right' has facets of them and the condition dirichlet"),
        ({"left": {"periodic": "right", "dirichlet": 0}}, "exactly one of .*, periodic"),
        (SQUARE, "u is determined up to a constant only"),
    ],
)
def test_mistakes_are_named(boundary: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ProblemError, match=sentence):
        load(pde={"kind": "poisson", "boundary": boundary})


def test_a_body_is_held_by_nothing_but_its_own_period() -> None:
    with pytest.raises(ProblemError, match="2 of its 2 rigid motions are free: translation along x, translation along"):
        load(pde={"kind": "elasticity", "boundary": ACROSS}, objective=FIT_VECTOR)
    # A bar with a period along its axis may turn about the axis.
    bar = {"kind": "box", "cells": [2, 2, 2]}
    target = [{"kind": "tracking", "target": [0, 0, 0]}, {"kind": "regularisation", "weight": 1}]
    with pytest.raises(ProblemError, match="4 of its 4 rigid motions are free"):
        load(bar, pde={"kind": "elasticity", "boundary": ACROSS}, objective=target)


def test_nothing_acts_on_a_periodic_side() -> None:
    with pytest.raises(ProblemError, match="found 'right', which is periodic"):
        load(pde={"kind": "poisson", "reaction": 1, "boundary": ACROSS}, control={"kind": "neumann", "on": "right"})


def test_sides_that_are_cut_in_different_ways_are_refused() -> None:
    # In a cube of five tetrahedra, opposite faces have the same corners and different diagonals.
    corners = np.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], dtype=float)
    cells = np.array([[0, 3, 5, 6], [1, 0, 3, 5], [2, 0, 3, 6], [4, 0, 5, 6], [7, 3, 5, 6]])
    cube = skfem.MeshTet(corners.T, cells.T)
    named = cube.with_boundaries({"left": lambda x: x[0] == 0, "right": lambda x: x[0] == 1})
    with pytest.raises(
        ProblemError, match=r"the nodes of left and right match, but the facet of left at .* no partner"
    ):
        load({"mesh": named}, pde={"kind": "poisson", "reaction": 1, "boundary": ACROSS})


@pytest.mark.parametrize("model", ["energy", "residual"])
@pytest.mark.parametrize("cells", [10, 24, 30])
def test_a_deviation_that_is_zero_up_to_rounding_is_a_state(cells: int, model: str) -> None:
    """At k = 1 the loads of the mean gradient cancel up to rounding; errors are relative to the whole field."""
    settings = {"mesh.cells": [cells, cells], "inner.model": model}
    problem = nhgd.load("problems/periodic_cell.yaml", settings)
    start = nhgd.reduced(problem).state(problem.pde.control.start.numpy())
    assert np.abs(start).max() < 1e-12
    solution = nhgd.solve(problem)
    assert solution.status == "converged", solution.message
    assert solution.control == pytest.approx([3.0], rel=1e-7) and solution.certificate.state_residual < 1e-12
