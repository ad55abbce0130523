"""Terms of the control with kinks: l1 against a known sparse optimum (Stadler 2009), variation of known functions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.building.blueprint import build
from nhgd_pde.objective.terms import TotalVariation
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem
from problems import BASE, problem, random, slope

SPARSE = Path("problems/sparse_control.yaml")
# The objective of the continuous problem, by quadrature of its known solution.
LEAST = 1.9582001


def sparse(cells: int, **overrides: Any) -> nhgd.Problem:
    return nhgd.load(SPARSE, {"mesh.cells": [cells, cells], **overrides})


def known(pde: PDEProblem) -> tuple[np.ndarray, np.ndarray]:
    """The adjoint and the control at the nodes."""
    x, y = pde.control.parts[0].nodes
    p = 0.05 * np.sin(2.0 * np.pi * x) * np.sin(2.0 * np.pi * y)
    return p, -100.0 * (p - np.clip(p, -0.03, 0.03))


def variation(pde: PDEProblem) -> TotalVariation:
    (term,) = pde.objective.control
    assert isinstance(term, TotalVariation)
    return term


def with_variation(overrides: dict[str, Any] | None = None, **term: Any) -> PDEProblem:
    return problem({"objective.1": {"kind": "regularisation", "norm": "tv", "weight": 1, **term}, **(overrides or {})})


def test_objective_and_control_converge_to_the_sparse_optimum_at_order_two() -> None:
    """Four meshes are compared, which take the same number of iterations."""
    sizes, gaps, errors, counts = [16, 32, 64, 128], [], [], []
    for n in sizes:
        prepared = sparse(n)
        solution = nhgd.solve(prepared)
        assert solution.status == "converged"
        counts.append(solution.stats["outer_iterations"])
        gaps.append(solution.objective - LEAST)
        _, control = known(prepared.pde)
        errors.append(prepared.pde.outer_metric.norm(torch.from_numpy(solution.control - control)[None]))
    h = [1.0 / n for n in sizes]
    assert slope(h, gaps) == pytest.approx(2.0, abs=0.1)
    assert slope(h, errors) > 1.4
    assert max(counts) - min(counts) <= 3


def test_the_control_is_exactly_zero_where_the_adjoint_is_small() -> None:
    prepared = sparse(48)
    solution = nhgd.solve(prepared)
    p, _ = known(prepared.pde)
    # The error of the discrete adjoint is a few per cent of the square of the cell size.
    clear = np.abs(np.abs(p) - 0.03) > 2e-3
    assert ((solution.control == 0.0) == (np.abs(p) < 0.03))[clear].all()
    assert clear.mean() > 0.85


def test_with_a_large_weight_the_control_is_zero() -> None:
    """If the weight is above the largest |p| of the zero control, the control is zero everywhere."""
    solution = nhgd.solve(
        nhgd.load(copy.deepcopy(BASE), {"objective.1": {"kind": "regularisation", "norm": "l1", "weight": 1.0}})
    )
    assert not solution.control.any()


def test_weights_are_the_lumped_mass() -> None:
    pde = problem({"objective.1": {"kind": "regularisation", "norm": "l1", "weight": 3.0}})
    assert pde.l1_weights is not None
    assert float(pde.l1_weights.sum()) == pytest.approx(3.0, rel=1e-13)
    assert pde.outer_metric.diagonal
    assert torch.allclose(pde.l1_weights, 3.0 * pde.outer_metric.matrix.diagonal(), rtol=1e-14)


def test_variation_of_known_functions() -> None:
    """The variation of x + 2y is sqrt(5), that of a hat of width 1/2 across the square is twice its height."""
    pde = with_variation({"mesh.cells": [8, 8]}, smoothing=1e-9)
    term, (x, y) = variation(pde), pde.control.parts[0].nodes
    assert term.value(torch.from_numpy(x + 2.0 * y)) == pytest.approx(np.sqrt(5.0), rel=1e-12)
    hat = np.maximum(0.0, 1.0 - 4.0 * np.abs(x - 0.5))
    assert term.value(torch.from_numpy(3.0 * hat)) == pytest.approx(6.0, rel=1e-8)


def test_variation_is_smoothed_by_the_given_length() -> None:
    pde = with_variation(smoothing=0.75)
    assert variation(pde).value(torch.from_numpy(pde.control.parts[0].nodes[0])) == pytest.approx(1.25, rel=1e-13)


def test_derivatives_of_the_variation() -> None:
    pde = with_variation({"control.space": "P1"}, weight=0.3, smoothing=0.5)
    term = variation(pde)
    v, step, other = (random(pde.outer_size, seed=k) for k in range(3))
    base, rate = term.value(v), float(term.derivative(v) @ step)
    steps = [0.5**k for k in range(4, 10)]
    first = [abs(term.value(v + t * step) - base - t * rate) for t in steps]
    assert slope(steps, first) == pytest.approx(2.0, abs=0.05)
    curved = float(term.second_derivative(v, step) @ step)
    steps = [0.5**k for k in range(7, 12)]
    third = [abs(term.value(v + t * step) - base - t * rate - 0.5 * t**2 * curved) for t in steps]
    assert slope(steps, third) == pytest.approx(3.0, abs=0.1)
    assert float(term.second_derivative(v, step) @ other) == pytest.approx(
        float(term.second_derivative(v, other) @ step), rel=1e-11
    )


def test_variation_of_a_steady_control_is_not_integrated_in_time() -> None:
    file = {
        **BASE,
        "mesh": {"kind": "interval", "cells": 6},
        "pde": {"kind": "heat", "boundary": {"all": {"dirichlet": 0}}},
        "time": {"end": 2.0, "steps": 5},
        "control": [{"kind": "source"}, {"kind": "initial", "name": "start"}],
        "objective": [
            {"kind": "tracking", "target": 0},
            {"kind": "regularisation", "norm": "tv", "weight": 1, "smoothing": 1e-9},
        ],
    }
    pde = build(read_problem(copy.deepcopy(file)))
    moving, still = pde.control.parts
    v = torch.cat([torch.from_numpy(np.tile(moving.nodes[0], 5)), torch.from_numpy(still.nodes[0])])
    of_moving, of_still = (term.value(v) for term in pde.objective.control)
    assert of_moving == pytest.approx(2.0, rel=1e-12)
    assert of_still == pytest.approx(1.0, rel=1e-12)


def test_variation_keeps_an_edge_that_h1_blurs() -> None:
    """The share of a jump of the source in the two cells around it, when the source is found from the state."""
    x = "where(x < 0.5, 0, 1)"
    file = {
        "name": "edge",
        "mesh": {"kind": "interval", "cells": 40},
        "pde": {"kind": "poisson", "source": 0, "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        # The state for the source 1 in x > 1/2.
        "objective": [{"kind": "tracking", "target": f"x/8 - {x}*(x - 0.5)**2/2", "weight": 1e4}, {}],
    }
    jumps = {}
    for norm, weight in (("tv", 1e-2), ("h1", 1e-2)):
        term = {"kind": "regularisation", "norm": norm, "weight": weight}
        solution = nhgd.solve(nhgd.load(copy.deepcopy(file), {"objective.1": term}))
        control = solution.control[np.argsort(solution.problem.control.parts[0].nodes[0])]
        jumps[norm] = np.abs(np.diff(control))[18:22].sum()
        assert solution.status == "converged"
    assert jumps["tv"] > 0.8 > jumps["h1"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"norm": "tv", "reference": 1}, "objective.1.reference: expected 0, the only one of norm tv"),
        ({"norm": "l1", "reference": "x"}, "objective.1.reference: expected 0, the only one of norm l1"),
        ({"norm": "l2", "smoothing": 0}, "objective.1.smoothing: expected a number above 0, found 0"),
        ({"norm": "l3"}, "objective.1.norm: expected one of l2, h1, l1, tv, found 'l3'"),
    ],
)
def test_mistakes_in_sparse_terms_are_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError) as error:
        problem({"objective.1": {"kind": "regularisation", "weight": 1, **overrides}})
    assert message in str(error.value)


def test_norms_that_a_control_cannot_have_are_refused() -> None:
    tv = {"objective.1": {"kind": "regularisation", "norm": "tv", "weight": 1}}
    with pytest.raises(ProblemError, match="expected l2 or l1 for a P0 control, which has no gradient, found 'tv'"):
        problem({**tv, "control.space": "P0"})
    with pytest.raises(ProblemError, match="for a control of the boundary, found 'tv'"):
        problem({**tv, "control": {"kind": "neumann", "on": "left"}, "pde.boundary": {"right": {"dirichlet": 0}}})
    l1 = {"objective.1": {"kind": "regularisation", "norm": "l1", "weight": 1}}
    with pytest.raises(ProblemError, match="expected l2, h1 or tv for a filtered density, found 'l1'"):
        problem({**l1, "control": {"kind": "density", "low": 0.1, "filter_radius": 0.3}})
