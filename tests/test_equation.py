"""The state equation: derivatives, transposes, scenarios, and manufactured solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skfem
import torch
from torch import Tensor

from nhgd_pde.fem import mesh as meshes
from nhgd_pde.linalg.factorisation import ScenarioFactorisation
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.pde.equation import StateEquation
from nhgd_pde.pde.form import ControlMap, Pointwise
from nhgd_pde.pde.poisson import poisson
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.expressions import Expression
from problems import (
    SOURCE_CONTROL,
    equation_of,
    in_conductivity,
    mesh_of,
    problem,
    quasilinear,
    random,
    slope,
    space_of,
    write_mesh,
)

forms = pytest.mark.parametrize(
    ("form", "control"),
    [(poisson, SOURCE_CONTROL), (quasilinear, in_conductivity)],
    ids=["linear", "nonlinear"],
)
elements = pytest.mark.parametrize("element", ["P1", "P2"])


def equation(form: Pointwise, control: ControlMap, element: str = "P1", dim: int = 2, **options: Any) -> StateEquation:
    return equation_of(space_of(dim, 4, element), form, scenarios=3, control=control, **options)


def point(state: StateEquation) -> tuple[Tensor, Tensor]:
    return random(state.scenarios, state.unknowns, seed=1), 0.3 * random(state.controls, seed=2)


def remainders(of: Callable[[float], Tensor], derivative: Tensor, steps: list[float]) -> list[float]:
    """|f(t) - f(0) - t f'(0)|."""
    return [float((of(t) - of(0.0) - t * derivative).norm()) for t in steps]


@forms
@elements
def test_remainders_of_first_order_shrink_at_rate_two(form: Pointwise, control: ControlMap, element: str) -> None:
    state = equation(form, control, element)
    u, v = point(state)
    w, d = random(*u.shape, seed=3), random(*v.shape, seed=4)
    steps = [1e-1, 1e-2, 1e-3, 1e-4]
    in_u = remainders(lambda t: state.residual(u + t * w, v), state.state_product(u, v, w), steps)
    in_v = remainders(lambda t: state.residual(u, v + t * d), state.control_product(u, v, d), steps)
    if form is poisson:
        # The remainder of an affine equation is only rounding.
        assert max(in_u + in_v) < 1e-12 * float(state.residual(u, v).norm())
    else:
        assert slope(steps, in_u) == pytest.approx(2.0, abs=0.02)
        assert slope(steps, in_v) == pytest.approx(2.0, abs=0.02)


@forms
@elements
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_products_and_transposed_products_agree(form: Pointwise, control: ControlMap, element: str, dim: int) -> None:
    functions = space_of(dim, 2 if dim == 3 else 4, element)
    state = equation_of(functions, form, scenarios=3, control=control)
    u, v = point(state)
    w, z, d = random(*u.shape, seed=3), random(*u.shape, seed=4), random(*v.shape, seed=5)
    image = state.state_product(u, v, w)
    scale = float(image.norm() * z.norm())
    assert abs(dot(image, z) - dot(w, state.state_product_transposed(u, v, z))) < 1e-12 * scale
    image = state.control_product(u, v, d)
    scale = float(image.norm() * z.norm())
    assert abs(dot(image, z) - dot(d, state.control_product_transposed(u, v, z))) < 1e-12 * scale


def single(state: StateEquation, scenario: int) -> StateEquation:
    """The equation of one scenario."""
    (integral,) = state.integrals
    own = {
        name: values[scenario : scenario + 1] if values.ndim == 2 and len(values) > 1 else values
        for name, values in integral.coefficients.items()
    }
    return replace(state, integrals=(replace(integral, coefficients=own),), scenarios=1)


@pytest.mark.parametrize(
    ("form", "control", "affine"),
    [
        (poisson, SOURCE_CONTROL, False),
        (poisson, SOURCE_CONTROL, True),
        (quasilinear, in_conductivity, False),
    ],
)
def test_a_batch_of_scenarios_gives_the_numbers_of_single_scenarios(
    form: Pointwise, control: ControlMap, affine: bool
) -> None:
    state = equation(form, control, affine=affine)
    u, v = point(state)
    w, d = random(*u.shape, seed=3), random(*v.shape, seed=5)
    total = torch.zeros_like(v)
    for s in range(3):
        alone, one = single(state, s), slice(s, s + 1)
        for found, expected in (
            (state.residual(u, v)[one], alone.residual(u[one], v)),
            (state.state_product(u, v, w)[one], alone.state_product(u[one], v, w[one])),
            (state.control_product(u, v, d)[one], alone.control_product(u[one], v, d)),
            (
                ScenarioFactorisation(state.linearise(u, v).state, state.counts).solve(w)[one],
                ScenarioFactorisation(alone.linearise(u[one], v).state, state.counts).solve(w[one]),
            ),
        ):
            assert (found - expected).norm() < 1e-12 * expected.norm()
        total += alone.control_product_transposed(u[one], v, w[one])
    assert (state.control_product_transposed(u, v, w) - total).norm() < 1e-12 * total.norm()
    assert not torch.allclose(state.residual(u[:1].expand(3, -1), v)[0], state.residual(u, v)[1])


@pytest.mark.parametrize("varied", [False, True])
def test_the_affine_path_gives_the_same_numbers(varied: bool) -> None:
    general, affine = (equation(poisson, SOURCE_CONTROL, affine=a, varied=varied) for a in (False, True))
    u, v = point(general)
    w, d = random(*u.shape, seed=3), random(*v.shape, seed=5)
    assert affine.linearise(u, v).state.shared is not varied
    for name, arguments in (
        ("residual", ()),
        ("state_product", (w,)),
        ("state_product_transposed", (w,)),
        ("control_product", (d,)),
        ("control_product_transposed", (w,)),
    ):
        expected = getattr(general, name)(u, v, *arguments)
        found = getattr(affine, name)(u, v, *arguments)
        assert found.shape == expected.shape
        assert (found - expected).norm() < 1e-12 * expected.norm(), name
    assert affine.linearise(u, v) is affine.linearise(2 * u, v)


@elements
def test_jacobians_are_symmetric_where_the_form_is(element: str) -> None:
    for form, even in ((poisson, True), (quasilinear, False)):
        state = equation(form, SOURCE_CONTROL, element)
        u, v = point(state)
        for s in range(3):
            j = state.linearise(u, v).state.host(s).toarray()
            assert (np.abs(j - j.T).max() < 1e-13 * np.abs(j).max()) == even
    declared = equation(poisson, SOURCE_CONTROL, element, symmetric=True)
    w = random(3, declared.unknowns)
    straight = equation(poisson, SOURCE_CONTROL, element).state_product_transposed(*point(declared), w)
    assert (declared.state_product_transposed(*point(declared), w) - straight).norm() < 1e-13 * straight.norm()


@elements
def test_the_lift_carries_the_dirichlet_values(element: str) -> None:
    state = equation(poisson, SOURCE_CONTROL, element)
    u, _ = point(state)
    full = state.embed(u)
    assert torch.equal(state.restrict(full), u)
    fixed = np.setdiff1d(np.arange(state.size), state.free)
    assert torch.equal(full[:, fixed], state.lift[fixed].expand(3, -1)) and (state.lift[fixed] >= 1.0).all()
    embedded = torch.zeros_like(full)
    covector = random(3, state.size)
    embedded[:, state.free] = state.restrict(covector)
    assert dot(state.restrict(covector), u) == pytest.approx(dot(covector, full - state.lift), rel=1e-12)


def test_a_control_has_to_enter_the_equation() -> None:
    state = equation(poisson, SOURCE_CONTROL)
    (integral,) = state.integrals
    deaf = replace(state, integrals=(replace(integral, controls=(), control_evaluation=None),))
    with pytest.raises(ValueError, match="does not enter"):
        deaf.linearise(*point(state))


def test_work_is_counted_for_each_scenario() -> None:
    state = equation(quasilinear, in_conductivity)
    u, v = point(state)
    state.residual(u, v)
    state.state_product_transposed(u, v, state.state_product(u, v, u))
    assert (state.counts.residuals, state.counts.products) == (3, 6)


# Manufactured solutions

WAVE, ALONG_X, ALONG_Y = "sin(2*x+y)", "2*cos(2*x+y)", "cos(2*x+y)"
BROKEN = "where(x < 0.5, 1, 0.1)*sin(x-0.5)*cos(y)"
FLUXES = {
    "left": {"neumann": f"-({ALONG_X})"},
    "right": {"neumann": ALONG_X},
    "bottom": {"neumann": f"-({ALONG_Y})"},
    "top": {"neumann": ALONG_Y},
}

# Name -> the solution and its data.
MANUFACTURED: dict[str, tuple[str, dict[str, Any]]] = {
    "dirichlet": (WAVE, {"source": f"5*{WAVE}", "boundary": {"all": {"dirichlet": WAVE}}}),
    "neumann": (
        WAVE,
        {"source": f"5*{WAVE}", "boundary": {**FLUXES, "left": {"dirichlet": WAVE}}},
    ),
    "robin": (
        WAVE,
        {
            "source": f"5*{WAVE}",
            "boundary": {
                **FLUXES,
                "right": {"robin": {"coefficient": "1+y", "value": f"{WAVE} + {ALONG_X}/(1+y)"}},
            },
        },
    ),
    "reaction": (WAVE, {"reaction": "1+x", "source": f"(6+x)*{WAVE}", "boundary": FLUXES}),
    "variable": (
        WAVE,
        {
            "conductivity": "1+x",
            "source": f"5*(1+x)*{WAVE} - {ALONG_X}",
            "boundary": {"all": {"dirichlet": WAVE}},
        },
    ),
    "matrix": (
        WAVE,
        {
            "conductivity": [[2, 0.5], [0.5, 1]],
            "source": f"11*{WAVE}",
            "boundary": {
                "all": {"dirichlet": WAVE},
                "bottom": {"neumann": f"-(0.5*{ALONG_X} + {ALONG_Y})"},
            },
        },
    ),
    "nonsymmetric matrix": (
        WAVE,
        {
            "conductivity": [["2+x", "1"], ["y", "1"]],
            "source": f"(9+4*x+2*(1+y))*{WAVE} - 2*{ALONG_X}",
            "boundary": {"all": {"dirichlet": WAVE}},
        },
    ),
    "subdomains": (
        BROKEN,
        {
            "conductivity": {"core": 10, "default": 1},
            "source": "2*sin(x-0.5)*cos(y)",
            "boundary": {"all": {"dirichlet": BROKEN}},
        },
    ),
}


def l2_error(solved: PDEProblem, exact: str) -> float:
    """The error of the state at zero control, by a quadrature much finer than that of the equation."""
    u, v = solved.start()
    u = u - solved.state_factors(u, v).solve(solved.residual(u, v))
    assert solved.inner_error(u, v, 1e-10) < 1e-10
    basis = skfem.Basis(solved.space.domain.mesh, solved.space.basis.elem, intorder=8)
    values = np.asarray(basis.interpolate(solved.equation.embed(u)[0].numpy()))
    misfit = values - Expression(exact).numpy(np.asarray(basis.global_coordinates()))
    return float(np.sqrt((misfit**2 * basis.dx).sum()))


def observed_order(exact: str, pde: dict[str, Any], meshes_of: list[dict[str, Any]], element: str) -> float:
    errors, sizes = [], []
    for spec in meshes_of:
        kind = {"kind": "poisson", "source": "0", **pde}
        solved = problem({"mesh": spec, "element": element, "pde": kind, "objective.0.target": "x"})
        errors.append(l2_error(solved, exact))
        sizes.append(solved.space.domain.mesh.nelements ** (-1.0 / solved.space.domain.dim))
    return slope(sizes, errors)


@elements
@pytest.mark.parametrize("name", MANUFACTURED)
def test_manufactured_solutions_converge_at_the_order_of_the_element(tmp_path: Path, name: str, element: str) -> None:
    exact, pde = MANUFACTURED[name]
    halves = write_mesh(tmp_path / "halves.msh", meshes.rectangle((1, 1), (0, 0), (4, 4)), core=lambda x: x[0] > 0.5)
    specs = [{"file": str(halves), "refine": k} for k in range(4)]
    assert observed_order(exact, pde, specs, element) == pytest.approx(int(element[1]) + 1, abs=0.15)


@elements
def test_manufactured_solutions_converge_on_uneven_meshes(tmp_path: Path, element: str) -> None:
    path = write_mesh(tmp_path / "uneven.msh", mesh_of(2, 4))
    exact, pde = MANUFACTURED["robin"]
    specs = [{"file": str(path), "refine": k} for k in range(4)]
    assert observed_order(exact, pde, specs, element) == pytest.approx(int(element[1]) + 1, abs=0.15)


@elements
@pytest.mark.parametrize("dim", [1, 3])
def test_manufactured_solutions_converge_in_one_and_three_dimensions(dim: int, element: str) -> None:
    """A flux on the right, an exchange of heat on the left, values elsewhere."""
    wave, slope_x = ("sin(2*x)", "2*cos(2*x)") if dim == 1 else ("sin(2*x+y+z)", "2*cos(2*x+y+z)")
    boundary: dict[str, Any] = {
        "right": {"neumann": slope_x},
        "left": {"robin": {"coefficient": 2, "value": f"{wave} - {slope_x}/2"}},
    }
    if dim == 3:
        boundary["all"] = {"dirichlet": wave}
    pde = {"source": f"{5 if dim == 1 else 7}*{wave}", "reaction": 1, "boundary": boundary}
    kind, cells = {
        (1, "P1"): ("interval", (8, 16, 32, 64)),
        (1, "P2"): ("interval", (8, 16, 32, 64)),
        (3, "P1"): ("box", (4, 6, 9, 13)),
        (3, "P2"): ("box", (2, 3, 4, 6)),
    }[dim, element]
    specs = [{"kind": kind, "cells": [n] * dim} for n in cells]
    assert observed_order(wave, pde, specs, element) == pytest.approx(int(element[1]) + 1, abs=0.15)
