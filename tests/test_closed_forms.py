"""The estimate of the discretisation error against optima of continuous problems that are known."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

import nhgd_pde as nhgd
from benchmarks.closed_planes import FORMS
from benchmarks.mesh_error import KNOWN, Case, digits_right, digits_said, measured, optimum_of
from benchmarks.unresolved import problems
from nhgd_pde.discretisation import ErrorEstimate

# Problems whose second finest meshes together take a few seconds; those of all take one or two minutes.
QUICK = {"mother", "interval_p2", "neumann", "dirichlet", "heat", "anisotropic", "reference_p2", "cells_p2"}
# The error is some hundred times smaller than its parts, which cancel: no estimate of its parts finds so small a sum,
# but it knows how uncertain it is.
CANCELLED = {"outflow", "elastic_block"}


@cache
def on(name: str, n: int) -> tuple[float, float, ErrorEstimate]:
    return measured(KNOWN[name], n, optimum_of(KNOWN[name]))


def known(names: set[str] | None = None) -> list[Any]:
    """Every problem, the long ones with the mark `slow`."""
    found = []
    for name in KNOWN if names is None else names:
        found.append(pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]))
    return found


def test_there_are_at_least_forty_of_them() -> None:
    assert len(KNOWN) >= 40


# Tests of one problem follow each other, so that one process makes them and solves the problem once on each mesh.
@pytest.mark.parametrize("name", known(), scope="module")
def test_the_effectivity_on_the_second_finest_mesh(name: str) -> None:
    _, error, estimate = on(name, KNOWN[name].cells[-2])
    if name in CANCELLED:
        assert abs(estimate.value - error) <= estimate.uncertainty
    else:
        assert 0.5 <= estimate.value / error <= 2.0


@pytest.mark.parametrize(
    "name",
    ["mother", "spectral", "neumann", "interval_p2", "poisson_bounds", "heat", "reference_p2", "cells_p2"],
)
def test_the_effectivity_tends_to_one(name: str) -> None:
    shares = []
    for n in KNOWN[name].cells[-3::2]:
        _, error, estimate = on(name, n)
        shares.append(abs(estimate.value / error - 1.0))
    assert shares[-1] <= 0.06
    assert shares[-1] <= 0.5 * shares[0] or shares[-1] <= 0.01


@pytest.mark.parametrize("name", known(), scope="module")
def test_digits_that_are_said_to_count_are_right(name: str) -> None:
    for n in KNOWN[name].cells[:-1]:
        objective, error, estimate = on(name, n)
        assert digits_said(objective, estimate) <= digits_right(objective, error)


@pytest.mark.parametrize("name", ["flux_with_bounds", "oscillating_target"])
def test_contributions_that_cancel_promise_no_digits(name: str) -> None:
    """On these meshes the sums happen to be 15 times too small, and alone promised digits that are wrong."""
    n = KNOWN[name].cells[1 if name == "flux_with_bounds" else 0]
    objective, error, estimate = on(name, n)
    assert abs(estimate.value) <= 0.1 * abs(error)
    assert digits_said(objective, estimate) <= digits_right(objective, error)


@pytest.mark.parametrize("kind", ["layer", "two layers", "reaction", "waves", "bounds"])
def test_no_digit_is_wrong_where_few_cells_resolve_the_solution(kind: str) -> None:
    """A layer of a width of a 45th, or waves of the wave number 45, on 12 to 24 cells."""
    problem = dict(problems(45))[kind]
    case = Case(lambda n: nhgd.load(problem.content(n)), (12, 16, 24))
    for n in case.cells:
        objective, error, estimate = measured(case, n, problem.optimum)
        assert digits_said(objective, estimate) <= digits_right(objective, error)
        assert abs(error) <= 2.5 * (abs(estimate.value) + estimate.uncertainty)


@pytest.mark.parametrize("name", ["cubic", "exponential"])
def test_chosen_solutions_of_nonlinear_problems_are_optima(name: str) -> None:
    """The second derivative of the Lagrangian is positive."""
    assert FORMS[name][1]().curvature > 0.0
