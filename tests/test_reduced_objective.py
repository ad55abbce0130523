"""The objective as a function of the control alone: values, derivatives, work, forms of arrays, and failures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from bilevel_problems import cubic_problem, least_squares
from units import SMALL

import nhgd_pde as nhgd
from nhgd_pde.linalg.counts import Counts
from problems import slope


def load(name: str, overrides: dict[str, Any] | None = None) -> nhgd.ReducedObjective:
    return nhgd.reduced(nhgd.load(f"problems/{name}.yaml", {**SMALL[name], **(overrides or {})}))


def random(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size)


@pytest.mark.parametrize(
    "name",
    [
        "advection_control",
        "allen_cahn_control",
        "dirichlet_control",
        "elastic_control",
        "heat_boundary",
        "helmholtz_control",
        "log_conductivity_inversion",
        "mbb_beam",
        "minimal_surface",
        "navier_stokes_control",
        "parameter_fit",
        "semilinear_control",
    ],
)
def test_taylor_remainders_fall_with_the_square_and_the_cube(name: str) -> None:
    phi = load(name)
    v, d = phi.start, 0.1 * np.cos(np.arange(phi.size)) * (1.0 + np.abs(phi.start))
    if phi.bounds is not None:
        v = np.clip(v, phi.bounds.lb, phi.bounds.ub)
    value, first, second = phi.value(v), phi.derivative(v) @ d, d @ phi.hessian_product(v, d)
    steps = [2.0**-k for k in range(4, 9)]
    left = [phi.value(v + t * d) - value - t * first for t in steps]
    bent = [abs(each - 0.5 * t**2 * second) for each, t in zip(left, steps, strict=True)]
    noise = 1e-13 * abs(value)
    if abs(left[-1]) > 1e3 * noise:
        assert slope(steps, [abs(each) for each in left]) > 1.9
    # The remainder of the third order is rounding for a quadratic objective.
    assert max(bent) < 1e-10 * abs(value) or slope(steps, bent) > 2.8


def test_derivatives_are_the_closed_form_of_a_small_problem() -> None:
    quadratic, cubic = least_squares(), cubic_problem()
    for built in (quadratic, cubic):
        phi, v = nhgd.reduced(built), random(built.outer_size)  # type: ignore[arg-type]
        value, derivative = built.exact(torch.from_numpy(v))
        assert abs(phi.value(v) - value) < 1e-11 * abs(value)
        np.testing.assert_allclose(phi.derivative(v), derivative, rtol=1e-9, atol=1e-11)
    phi, d = nhgd.reduced(quadratic), random(quadratic.outer_size, 1)  # type: ignore[arg-type]
    np.testing.assert_allclose(phi.hessian_product(d, d), quadratic.reduced_hessian @ torch.from_numpy(d), rtol=1e-9)


def work(phi: nhgd.ReducedObjective, before: Counts) -> tuple[int, int]:
    done = phi.counts - before
    return done.solves, done.factorisations


@pytest.mark.parametrize("name", ["poisson_control", "heat_control", "stokes_control"])
def test_a_point_of_a_linear_equation_takes_one_solve_an_adjoint_and_two_a_product(name: str) -> None:
    phi = load(name)
    v = phi.start
    phi.value(v + 0.05)  # The first state measures residuals, once.
    each = 1 if name != "heat_control" else 10
    before = replace(phi.counts)
    v = v + 0.1
    phi.value(v)
    assert work(phi, before) == (each, 0)
    phi.derivative(v)
    phi.gradient(v)
    assert work(phi, before) == (2 * each, 0)
    for seed in range(3):
        phi.hessian_product(v, random(phi.size, seed))
    phi.value(v)
    phi.state(v)
    assert work(phi, before) == (8 * each, 0)


def test_a_nonlinear_point_is_solved_once_and_warm() -> None:
    phi = load("semilinear_control")
    v, before = phi.start, replace(phi.counts)
    phi.value(v)
    cold = work(phi, before)
    before = replace(phi.counts)
    phi.value(v + 1e-6)
    assert work(phi, before) < cold
    before = replace(phi.counts)
    phi.derivative(v)
    assert work(phi, before) == (1, 1)
    phi.hessian_product(v, v)
    assert work(phi, before) == (3, 1)
    # A rejected step does not forget the point before.
    phi.value(v + 1.0)
    before = replace(phi.counts)
    phi.hessian_product(v, v)
    assert work(phi, before) == (2, 0)


def test_a_state_does_not_depend_on_what_was_solved_before() -> None:
    phi = load("semilinear_control")
    v, w = random(phi.size), random(phi.size, 1)
    first = phi.state(v)
    for other in (w, -w, 3 * w):
        phi.value(other)
    assert np.abs(phi.state(v) - first).max() < 1e-12 * np.abs(first).max()


def test_arrays_and_tensors_are_answered_in_kind() -> None:
    phi = load("poisson_control")
    v = random(phi.size)
    tensor = torch.from_numpy(v)
    assert isinstance(phi.value(v), float) and isinstance(phi.value(tensor), torch.Tensor)
    for name in ("derivative", "gradient", "state", "covector", "representative"):
        ours, theirs = getattr(phi, name)(v), getattr(phi, name)(tensor)
        assert isinstance(ours, np.ndarray) and isinstance(theirs, torch.Tensor)
        np.testing.assert_array_equal(ours, theirs.numpy())
    derivative = phi.derivative(v)
    derivative[:] = 0.0  # What is returned belongs to the caller.
    assert np.abs(phi.derivative(v)).max() > 0.0


def test_the_gradient_represents_the_derivative() -> None:
    phi = load("poisson_control")
    v, d = random(phi.size), random(phi.size, 1)
    expected = phi.derivative(v) @ d
    assert abs(phi.inner(phi.gradient(v), d) - expected) < 1e-10 * np.abs(phi.derivative(v) * d).sum()
    np.testing.assert_allclose(phi.covector(phi.gradient(v)), phi.derivative(v), rtol=1e-8, atol=1e-14)


def test_a_control_out_of_range_is_never_good() -> None:
    phi = load("parameter_fit")
    bad = -np.ones(phi.size)
    assert phi.value(bad) == np.inf
    assert np.isnan(phi.derivative(bad)).all() and np.isnan(phi.hessian_product(bad, bad)).all()
    assert "conductivity" in phi.message(bad)
    with pytest.raises(nhgd.StateUnsolvedError, match="conductivity"):
        phi.state(bad)
    assert np.isfinite(phi.value(phi.start)) and phi.message(phi.start) == ""
    assert phi.value(np.full(phi.size, np.nan)) == np.inf


def test_l1_terms_are_apart() -> None:
    problem = nhgd.load("problems/sparse_control.yaml", SMALL["sparse_control"])
    phi, v = problem.reduced, random(problem.pde.outer_size)
    assert phi.l1_weights is not None
    assert abs(phi.objective(v) - phi.value(v) - phi.l1_weights @ np.abs(v)) < 1e-12 * phi.objective(v)
    solution = nhgd.solve(problem)
    assert abs(phi.objective(solution.control) / solution.objective - 1) < 1e-9


def test_over_scenarios_there_are_value_and_derivative() -> None:
    phi = load("robust_poisson", {"scenarios.count": 4, "mesh.cells": [6, 6]})
    v, d = random(phi.size), random(phi.size, 1)
    t = 1e-3
    difference = (phi.value(v + t * d) - phi.value(v - t * d)) / (2 * t)
    assert abs(phi.derivative(v) @ d - difference) < 1e-7 * abs(difference)
    assert phi.state(v).shape[0] == 4
    with pytest.raises(NotImplementedError, match="without random inputs"):
        phi.hessian_product(v, d)


def test_mistakes_are_told() -> None:
    phi = load("poisson_control")
    with pytest.raises(ValueError, match=r"v: expected 169 numbers in one row, found the shape \(3,\)"):
        phi.value(np.zeros(3))
    with pytest.raises(ValueError, match=r"nhgd.as_torch\(problem\)"):
        phi.value(torch.zeros(169, requires_grad=True))
    with pytest.raises(TypeError, match="expected real numbers"):
        phi.value(np.zeros(169, dtype=complex))
    with pytest.raises(ValueError, match="expected no bounds of the state"):
        load("state_constraint")
    with pytest.raises(ValueError, match="kept: expected"):
        nhgd.reduced(nhgd.load("problems/poisson_control.yaml", SMALL["poisson_control"]), kept=0)
