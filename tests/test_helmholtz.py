"""Waves of one frequency: exact solutions, absorbing boundaries, a complex solver, a control with a known optimum."""

from __future__ import annotations

import cmath
import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg
import skfem
from skfem.helpers import dot, grad

import nhgd_pde as nhgd
from benchmarks.reference import control_error, orders
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.expressions import Expression
from problems import BASE, problem, slope, state_of, write_mesh

FILE = "problems/helmholtz_control.yaml"
# |u* - target|^2 / 2 + alpha |v*|^2 / 2 of the shipped problem.
A, ALPHA = 0.02, 0.01
OBJECTIVE = A**2 / 8 * (17.5625 * math.pi**4 + 1 / (2 * ALPHA))

elements = pytest.mark.parametrize("element", ["P1", "P2"])


def pde(**others: Any) -> dict[str, Any]:
    given = {"kind": "helmholtz", "wavenumber": 6, "boundary": {"all": {"absorbing": True}}, **others}
    return {"pde": given, "objective.0.target": "x"}


def solved(built: PDEProblem) -> np.ndarray:
    """The complex state (nodes,) at zero control."""
    real, imaginary = built.space.split(state_of(built, 1e-10).numpy())
    return np.asarray(real + 1j * imaginary)


def l2_error(built: PDEProblem, exact: tuple[str, str]) -> float:
    """The L2 error by a quadrature much finer than that of the equation."""
    basis = skfem.Basis(built.space.domain.mesh, built.space.basis.elem, intorder=8)
    state, x, total = solved(built), np.asarray(basis.global_coordinates()), 0.0
    for values, text in zip((state.real, state.imag), exact, strict=True):
        misfit = np.asarray(basis.interpolate(np.ascontiguousarray(values))) - Expression(text).numpy(x)
        total += float((misfit**2 * basis.dx).sum())
    return math.sqrt(total)


def observed_order(exact: tuple[str, str], given: dict[str, Any], element: str) -> float:
    errors, sizes = [], []
    for n in (8, 16, 32, 64) if element == "P1" else (4, 8, 16, 32):
        errors.append(l2_error(problem({**given, "mesh.cells": [n, n], "element": element}), exact))
        sizes.append(1.0 / n)
    return slope(sizes[-3:], errors[-3:])


# The state equation

# exp(i k (x cos a + y sin a)), k = 3, a = pi/6. There is no absorption; the square has no resonance near this k.
PHASE = "3*(cos(pi/6)*x + sin(pi/6)*y)"
PLANE = (f"cos({PHASE})", f"sin({PHASE})")
ACROSS = [f"-1.5*sin({PHASE})", f"1.5*cos({PHASE})"]
ALONG = [f"-3*cos(pi/6)*sin({PHASE})", f"3*cos(pi/6)*cos({PHASE})"]
# exp(2 i k x) cos(y) for a conductivity 1/4, k = 3, which leaves through an absorbing boundary on the right.
BEAM = ("cos(6*x)*cos(y)", "sin(6*x)*cos(y)")

WAVES: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "plane": (
        PLANE,
        {
            "wavenumber": 3,
            "boundary": {
                "left": {"dirichlet": list(PLANE)},
                "right": {"neumann": ALONG},
                "bottom": {"neumann": [f"-({each})" for each in ACROSS]},
                "top": {
                    "robin": {"coefficient": 2, "value": [f"{a} + ({b})/2" for a, b in zip(PLANE, ACROSS, strict=True)]}
                },
            },
        },
    ),
    "beam": (
        BEAM,
        {
            "conductivity": 0.25,
            "wavenumber": 3,
            "source": [f"0.25*{each}" for each in BEAM],
            "boundary": {
                "left": {"dirichlet": "cos(y)"},
                "right": {"absorbing": True},
                "top": {"neumann": ["-0.25*cos(6*x)*sin(y)", "-0.25*sin(6*x)*sin(y)"]},
            },
        },
    ),
    "matrix": (
        PLANE,
        {
            "conductivity": [["1+x", "0.5"], ["0.5", "1"]],
            "wavenumber": "1+x+y",
            "source": [
                f"((1+x)*6.75 + 4.5*cos(pi/6) + 2.25 - (1+x+y)**2)*{wave} - ({slope_x})"
                for wave, slope_x in zip(PLANE, ALONG, strict=True)
            ],
            "boundary": {"all": {"dirichlet": list(PLANE)}},
        },
    ),
}


@elements
@pytest.mark.parametrize("name", WAVES)
def test_waves_converge_at_the_order_of_the_element(name: str, element: str) -> None:
    exact, given = WAVES[name]
    assert observed_order(exact, pde(**given), element) == pytest.approx(int(element[1]) + 1, abs=0.15)


@elements
def test_a_wave_leaves_at_an_absorbing_end(element: str) -> None:
    """-u'' - k^2 u = 1, u(0) = 0, u'(1) = i k u(1): u = a exp(i k x) + b exp(-i k x) - 1/k^2."""
    k = 7.0
    b = cmath.exp(1j * k) / (2 * k**2)
    a = 1 / k**2 - b
    errors = []
    for n in (16, 32, 64, 128):
        ends = {"left": {"dirichlet": 0}, "right": {"absorbing": True}}
        given = pde(wavenumber=k, source=1, boundary=ends)
        built = problem({**given, "mesh": {"kind": "interval", "cells": [n]}, "element": element})
        x = built.space.nodes[0, : built.space.parts[0].size]
        errors.append(
            float(np.abs(solved(built) - (a * np.exp(1j * k * x) + b * np.exp(-1j * k * x) - 1 / k**2)).max())
        )
    # At the nodes, quadratic elements have order four.
    assert min(orders(errors)) > (1.9 if element == "P1" else 3.8)


@elements
def test_the_state_is_that_of_a_complex_solver(tmp_path: Path, element: str) -> None:
    """Two wavenumbers and conductivities, a complex source and absorbing sides; scikit-fem gives the reference."""
    mesh = meshes.rectangle((1, 1), (0, 0), (6, 6))
    path = write_mesh(tmp_path / "halves.msh", mesh, core=lambda x: x[0] > 0.5)
    given = pde(
        wavenumber={"core": "8+y", "default": 4},
        conductivity={"core": 2, "default": "1+x"},
        source=["1+x", "y"],
    )
    built = problem({**given, "mesh": {"file": str(path)}, "element": element})
    elem = built.space.basis.elem
    mesh = built.space.domain.mesh
    cells = skfem.Basis(mesh, elem, quadrature=built.space.basis.quadrature)
    edges = skfem.FacetBasis(mesh, elem, intorder=2 * int(element[1]))

    @skfem.BilinearForm(dtype=np.complex128)
    def wave(u: Any, v: Any, w: Any) -> Any:
        core = w.x[0].mean(axis=1, keepdims=True) > 0.5
        k, c = np.where(core, 8 + w.x[1], 4), np.where(core, 2, 1 + w.x[0])
        return c * dot(grad(u), grad(v)) - k**2 * u * v

    @skfem.BilinearForm(dtype=np.complex128)
    def out(u: Any, v: Any, w: Any) -> Any:
        core = w.x[0].mean(axis=1, keepdims=True) > 0.5
        k, c = np.where(core, 8 + w.x[1], 4), np.where(core, 2, 1 + w.x[0])
        return 1j * k * np.sqrt(c) * u * v

    @skfem.LinearForm(dtype=np.complex128)
    def load(v: Any, w: Any) -> Any:
        return (1 + w.x[0] + 1j * w.x[1]) * v

    matrix = wave.assemble(cells) - out.assemble(edges)
    assert abs(matrix - matrix.T).max() < 1e-12
    expected = scipy.sparse.linalg.spsolve(matrix.tocsc(), load.assemble(cells))
    assert np.abs(solved(built) - expected).max() < 1e-11 * np.abs(expected).max()


def test_the_certificate_means_the_same_at_every_wavenumber() -> None:
    """In the product of grad . grad + k^2, J is bounded, and its inf-sup constant falls as 1/k (J. M. Melenk, 1995)."""
    stable = []
    for k, n in ((4, 8), (8, 16), (16, 32)):
        ends = {"left": {"dirichlet": 0}, "right": {"absorbing": True}}
        built = problem({**pde(wavenumber=k, boundary=ends), "mesh": {"kind": "interval", "cells": [4 * n]}})
        u, v = built.start()
        jacobian = built.equation.linearise(u, v).whole.restrict(built.equation.free, built.equation.free)
        gram = built.model.riesz.matrix.host.toarray()
        dense = jacobian.host().toarray()
        squares = scipy.linalg.eigh(dense.T @ np.linalg.solve(gram, dense), gram, eigvals_only=True)
        assert math.sqrt(squares[-1]) < 2.0
        stable.append(k * math.sqrt(squares[0]))
    assert max(stable) < 1.3 * min(stable)


@elements
def test_the_error_at_a_fixed_number_of_points_per_wave_grows_with_the_wavenumber(element: str) -> None:
    """Pollution (F. Ihlenburg, I. Babuska, 1995): the error has a part of order k (k h)^(2 p) beside (k h)^(p + 1)."""
    errors = []
    for k, n in ((10, 20), (20, 40), (40, 80), (80, 160)):
        ends = {"left": {"dirichlet": 1}, "right": {"absorbing": True}}
        mesh = {"mesh": {"kind": "interval", "cells": [n]}, "element": element}
        exact = (f"cos({k}*x)", f"sin({k}*x)")
        errors.append(l2_error(problem({**pde(wavenumber=k, boundary=ends), **mesh}), exact))
    growth = slope([10, 20, 40, 80], errors)
    assert growth == pytest.approx(1.0, abs=0.2) if element == "P1" else 0.0 < growth < 1.2


# Controls


def test_control_and_objective_converge_to_the_known_optimum() -> None:
    def exact(x: np.ndarray) -> np.ndarray:
        return -A / ALPHA * np.cos(4 * np.pi * x[0]) * np.sin(np.pi * x[0] / 2) * np.cos(np.pi * x[1])

    found = [nhgd.solve(nhgd.load(FILE, {"mesh.cells": [n, n]})) for n in (8, 16, 32)]
    assert all(solution.status == "converged" for solution in found)
    errors = [control_error(solution, exact) for solution in found]
    assert orders(errors)[-1] > 1.9 and errors[-1] < 0.02
    gaps = [abs(solution.objective - OBJECTIVE) / OBJECTIVE for solution in found]
    assert orders(gaps)[-1] > 1.9 and gaps[-1] < 2e-4
    iterations = [solution.stats["outer_iterations"] for solution in found]
    assert max(iterations[1:]) <= 1.25 * min(iterations[1:])


@pytest.mark.parametrize(
    "changes",
    [{}, {"element": "P1"}, {"control.complex": True}, {"objective.1.weight": 1e-5}],
    ids=["real", "P1", "complex", "weak"],
)
def test_nhgd_and_the_adjoint_find_the_same_optimum(changes: dict[str, Any]) -> None:
    small = {"mesh.cells": [12, 12], **changes}
    ours, exact = (nhgd.solve(nhgd.load(FILE, {**small, "method": name})) for name in ("nhgd", "adjoint"))
    assert ours.status == exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-9)
    assert ours.stats["outer_iterations"] <= 1.2 * exact.stats["outer_iterations"]


def test_a_complex_control_reaches_a_target_that_a_real_one_cannot() -> None:
    reached = {}
    for both in (False, True):
        changes = {
            "control": {"kind": "source", "complex": both},
            "objective": [
                {"kind": "tracking", "target": ["x", "sin(pi*y)"]},
                {"kind": "regularisation", "weight": 1e-6},
            ],
            "outer.rtol": 1e-6,
        }
        found = nhgd.solve(nhgd.load({**copy.deepcopy(BASE), "pde": pde()["pde"]}, {"mesh.cells": [8, 8], **changes}))
        assert found.status == "converged" and len(found.control) == (1 + both) * 81
        reached[both] = found.objective
    assert reached[True] < 0.5 * reached[False]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"control.complex": True},
        {"control": {"kind": "neumann", "on": "top", "complex": True}},
        {"control": {"kind": "neumann", "on": "top"}},
        {"control": {"kind": "dirichlet", "on": "left"}},
        {"control": {"kind": "dirichlet", "on": "top", "complex": True}},
        {
            "control": {"kind": "robin", "on": "top", "complex": True},
            "pde.boundary.top": {"robin": {"coefficient": 2, "value": [1, "x"]}},
        },
        {
            "control": {"kind": "parameter", "name": "k", "initial": 6},
            "pde": {"kind": "helmholtz", "wavenumber": "k*(1 + x)", "boundary": {"left": {"dirichlet": [1, "y"]}}},
        },
        {"control": {"kind": "log_conductivity"}, "pde.wavenumber": 2},
    ],
    ids=["real", "complex", "flux", "real flux", "values", "complex values", "robin", "wavenumber", "conductivity"],
)
def test_every_derivative_is_right(changes: dict[str, Any]) -> None:
    found = nhgd.verify(nhgd.load(FILE, {"mesh.cells": [6, 6], **changes}))
    assert found.passed, str(found)


def test_a_scalar_in_the_file_is_the_real_part() -> None:
    one = pde(source="x", boundary={"left": {"dirichlet": "y"}, "right": {"neumann": 2}, "top": {"absorbing": True}})
    two = pde(
        source=["x", 0],
        boundary={"left": {"dirichlet": ["y", 0]}, "right": {"neumann": [2, 0]}, "top": {"absorbing": True}},
    )
    assert np.array_equal(solved(problem(one)), solved(problem(two)))
    # A real control of the boundary values does not change the imaginary part, which is zero in the file.
    others = {side: {"absorbing": True} for side in ("right", "bottom", "top")}
    held = problem({**pde(boundary=others), "control": {"kind": "dirichlet", "on": "left"}})
    side = held.space.facet_dofs(held.space.domain.boundaries["left"], 1)
    assert not np.isin(side, held.equation.free).any() and held.outer_size == 5


def test_one_part_of_the_field_can_be_tracked() -> None:
    for component in (0, 1):
        changes = {"objective": [{"kind": "tracking", "target": "x", "component": component}]}
        built = problem({**pde(source=[1, "x*y"]), **changes})
        u, v = built.start()
        u = u - built.state_factors(u, v).solve(built.residual(u, v))
        field = built.space.split(built.equation.embed(u)[0].numpy())[component]
        basis = built.space.basis
        misfit = np.asarray(basis.interpolate(field - built.space.parts[0].nodes[0]))
        assert built.outer_value(u, v) == pytest.approx(0.5 * float((misfit**2 * basis.dx).sum()), rel=1e-12)


# Mistakes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"pde.boundary": {"left": {"dirichlet": 0}, "right": {"absorbing": True}}},
            "pde.boundary.right.absorbing: expected an equation of kind helmholtz or wave for an absorbing boundary",
        ),
        (pde(boundary={"all": {"absorbing": False}}), "pde.boundary.all.absorbing: expected true, found false"),
        (pde(boundary={"all": {"absorbing": 1}}), "pde.boundary.all.absorbing: expected true, found 1"),
        (
            pde(boundary={"all": {"absorbing": True, "neumann": 1}}),
            "expected exactly one of dirichlet, neumann, robin, absorbing, periodic; found neumann and absorbing",
        ),
        (pde(wavenumber=0), "pde.wavenumber: expected a positive value, found 0"),
        (pde(wavenumber={"core": 1}), "pde.wavenumber.core: unknown subdomain 'core'"),
        ({"pde": {"kind": "helmholtz"}}, "pde.wavenumber: missing; expected positive; expression, or mapping"),
        (pde(source=[1, 2, 3]), "pde.source: expected 2 expressions, one a component, found 3"),
        (pde(boundary={"left": {"dirichlet": [1]}}), "pde.boundary.left.dirichlet: expected 2 values"),
        (pde(boundary={"left": {"neumann": [1, 2, 3]}}), "pde.boundary.left.neumann: expected 2 expressions"),
        (
            pde(conductivity=[[2, 0], [0, 1]]),
            "pde.conductivity: expected a scalar conductivity for an absorbing boundary, found a matrix",
        ),
        ({"control.complex": True}, "control.complex: expected false, found true: the field of poisson is real"),
        ({**pde(), "control.complex": "yes"}, "control.complex: expected true or false, found 'yes'"),
        ({**pde(), "objective.0.component": 2}, "objective.0.component: expected a component below 2, found 2"),
        ({**pde(), "inner.model": "energy"}, "inner.model: expected auto or residual, found 'energy'"),
    ],
)
def test_mistakes_name_the_key(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as caught:
        problem(overrides)
    assert message in str(caught.value)
