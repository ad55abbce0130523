"""Equations whose stiffness is affine in one coefficient: the same numbers as by differentiation, with less work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import splu
from torch import Tensor

import nhgd_pde as nhgd
from benchmarks import topology_baseline
from benchmarks.topology import beam
from nhgd_pde.building.blueprint import blueprint_of, build
from nhgd_pde.control.controls import Controls
from nhgd_pde.fem.pattern import Pattern
from nhgd_pde.linalg.solvers.superlu import _WITHOUT_PIVOTING, significant
from nhgd_pde.pde import scaled
from nhgd_pde.pde.equation import StateEquation
from nhgd_pde.pde.form import Integral
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.loading import read_problem

PROBLEMS, PLATE = Path("problems"), Path("meshes/plate.msh")
BEAM: dict[str, Any] = {
    "mesh.size": [12, 4],
    "mesh.cells": [12, 4],
    "control.filter_radius": 1.5,
    "pde.points": [{"at": [12, 0], "dirichlet": [None, 0]}, {"at": [0, 4], "load": [0, -1]}],
}
BLOCK: dict[str, Any] = {
    "name": "block",
    "mesh": {"kind": "box", "size": [3, 2, 2], "cells": [3, 2, 2]},
    "pde": {
        "kind": "elasticity",
        "source": [0, 0, "-1 - x"],
        "poisson_ratio": "0.2 + 0.1*x/3",
        "boundary": {"left": {"dirichlet": [0, 0, 0]}, "right": {"dirichlet": [0.1, None, 0]}},
    },
    "control": {"kind": "density", "low": 1e-3, "initial": 0.4},
    "objective": [{"kind": "compliance"}],
    "constraints": [{"kind": "volume", "fraction": 0.4}],
}
MIXED: dict[str, Any] = {
    "name": "mixed",
    "mesh": {"file": str(PLATE)},
    "pde": {
        "kind": "poisson",
        "conductivity": "1 + y",
        "reaction": "x",
        "source": "1 + x*y",
        "boundary": {
            "left": {"dirichlet": "y"},
            "right": {"robin": {"coefficient": "2 + y", "value": 1}},
            "top": {"neumann": "x"},
        },
    },
    "control": {"kind": "conductivity", "initial": 2, "on": "pad", "bounds": [0.1, 10]},
    "objective": [{"kind": "tracking", "target": "x"}, {"kind": "regularisation", "weight": 1e-3}],
}
UNCERTAIN: dict[str, Any] = {
    "parameters": {"a": {"uniform": [1, 2]}},
    "pde.source": "a*x",
    "scenarios": {"count": 3},
}


def shipped(name: str, **overrides: Any) -> PDEProblem:
    return build(read_problem(PROBLEMS / f"{name}.yaml", overrides.pop("given", {}) | overrides))


def scenarios(data: Any, overrides: dict[str, Any]) -> PDEProblem:
    blueprint = blueprint_of(read_problem(data, overrides))
    return blueprint.at(np.random.default_rng(1).standard_normal((3, blueprint.inputs.dimension)))


CASES: dict[str, Callable[[], PDEProblem]] = {
    "squares, a density of cells": lambda: shipped("mbb_beam", given=BEAM),
    "triangles, a density of nodes": lambda: shipped("heat_sink", given={"mesh.cells": [6, 5]}),
    "a reaction": lambda: shipped("heat_sink", given={"mesh.cells": [6, 5], "pde.reaction": "1 + x"}),
    "degree two": lambda: shipped("heat_sink", given={"mesh.cells": [4, 3], "element": "P2"}),
    "a projection": lambda: shipped("heat_sink", given={"mesh.cells": [6, 5], "control.projection": {}}),
    "tetrahedra, lifted, a ratio that varies": lambda: build(read_problem(BLOCK)),
    "hexahedra": lambda: build(read_problem(BLOCK, {"mesh.cell": "hexahedron"})),
    "part of the domain, a Robin condition, lifted": lambda: build(read_problem(MIXED)),
    "part of the domain, constant on its cells": lambda: build(read_problem(MIXED, {"control.space": "P0"})),
    "exp(v)": lambda: build(read_problem(MIXED, {"control.kind": "log_conductivity", "control.bounds": [None, None]})),
    "scenarios of loads": lambda: scenarios(PROBLEMS / "robust_topology.yaml", {"mesh.cells": [5, 4]}),
    "scenarios of sources": lambda: scenarios(MIXED, UNCERTAIN),
    "scenarios of the conductivity elsewhere": lambda: scenarios(MIXED, {**UNCERTAIN, "pde.conductivity": "a + y"}),
}


def generic(equation: StateEquation) -> StateEquation:
    """The same equation by derivatives of its integrands."""
    other = replace(equation)
    other.__dict__["stiffness"] = None
    return other


def same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


def whole(matrix: Any, scenarios: int) -> Tensor:
    return torch.stack([torch.from_numpy(matrix.host(s).toarray()) for s in range(scenarios)])


@pytest.mark.parametrize("limit", [scaled.LARGEST_MAP, 0], ids=["by a map", "without a map"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_are_those_by_differentiation(
    case: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaled, "LARGEST_MAP", limit)
    equation = CASES[case]().equation
    other, count = generic(equation), equation.scenarios
    assert equation.stiffness is not None
    generator = torch.Generator().manual_seed(3)
    for _ in range(2):
        v = 0.1 + 0.8 * torch.rand(equation.controls, generator=generator, dtype=torch.float64)
        d = torch.randn(equation.controls, generator=generator, dtype=torch.float64)
        u, w = torch.randn(2, count, equation.unknowns, generator=generator, dtype=torch.float64)
        found, expected = equation.linearise(u, v), other.linearise(u, v)
        same(equation.residual(u, v), other.residual(u, v))
        same(equation.residual(u, v), equation.integrated(u, v))
        same(whole(found.state, count), whole(expected.state, count))
        same(whole(found.whole, count), whole(expected.whole, count))
        assert found.state.shared == expected.state.shared
        assert found.state.symmetric == expected.state.symmetric
        same(found.control.rmv(w), expected.control.rmv(w))
        same(found.control.each_rmv(w), expected.control.each_rmv(w))
        same(found.control.mv(d), expected.control.mv(d))
        assert float((w * found.control.mv(d)).sum()) == pytest.approx(float(found.control.rmv(w) @ d), rel=1e-11)


def test_other_equations_are_not_taken_for_such() -> None:
    """An anisotropic conductivity, a control of two coefficients, an affine and a nonlinear equation."""
    semilinear = {"pde": {"kind": "semilinear", "nonlinearity": "u**3", "boundary": {"all": {"dirichlet": 0}}}}
    for overrides in (
        {"control.kind": "source", "control.on": "pad"},
        {"control": [MIXED["control"], {"kind": "source", "initial": 1}]},
        {**semilinear, "control": {"kind": "conductivity", "initial": 1, "bounds": [0.1, 9]}},
    ):
        assert build(read_problem(MIXED, overrides)).equation.stiffness is None


def test_the_adjoint_variable_of_a_compliance_is_a_multiple_of_the_state() -> None:
    for given in (BEAM, {**BEAM, "objective": [{"kind": "compliance", "weight": 2.5}]}):
        pde = shipped("mbb_beam", given=given)
        weight = 1.0 if given is BEAM else 2.5
        u, v = pde.start()
        factors = pde.state_factors(u, v)
        u = u - factors.solve(pde.residual(u, v))
        derivative, _ = pde.outer_derivatives(u, v)
        assert pde.adjoint_share(derivative) == weight
        p = factors.solve_transposed(derivative)
        assert float((p - weight * u).abs().max()) <= 1e-11 * float(p.abs().max())
        assert pde.adjoint_share(derivative + torch.ones_like(u)) is None
    lifted = build(read_problem(BLOCK))
    assert lifted.adjoint_share(lifted.outer_derivatives(*lifted.start())[0]) is None


def test_the_hypergradient_without_an_adjoint_system_is_the_exact_one() -> None:
    designs = [
        nhgd.solve(nhgd.load(PROBLEMS / "mbb_beam.yaml", {**BEAM, "outer.method": "oc", "method": method}))
        for method in ("nhgd", "adjoint")
    ]
    ours, exact = designs
    assert ours.stats["outer_iterations"] == exact.stats["outer_iterations"]
    assert ours.objective == pytest.approx(exact.objective, rel=1e-10)
    assert ours.stats["solves"]["solves"] < exact.stats["solves"]["solves"]


def test_the_work_of_an_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """One factorisation and one solve a design, whose certificate takes none. Nothing else is made anew."""
    made: Counter[str] = Counter()

    def counted(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            made[name] += 1
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    for owner, name in (
        (Integral, "state_blocks"),
        (Integral, "control_blocks"),
        (Integral, "density"),
        (Pattern, "__init__"),
        (Controls, "_mapped"),
    ):
        counted(owner, name)
    work: list[tuple[dict[str, int], Counter[str]]] = []
    for iterations in (3, 13):
        made = Counter()
        problem = nhgd.load(PROBLEMS / "mbb_beam.yaml", {**BEAM, "outer.method": "oc", "outer.iterations": iterations})
        solution = nhgd.solve(problem)
        work.append((solution.stats["solves"], made))
    (few, made_few), (many, made_many) = work
    assert {name: many[name] - few[name] for name in ("factorisations", "solves", "products")} == {
        "factorisations": 10,
        "solves": 10,
        "products": 0,
    }
    for name in ("state_blocks", "control_blocks", "density", "__init__"):
        assert made_many[name] == made_few[name]
    # The filter of the new design, and its transpose for the derivative.
    assert made_many["_mapped"] - made_few["_mapped"] == 20


def test_the_half_beam_is_that_of_a_compact_code() -> None:
    for size in ((12, 4, 1.5), (30, 10, 1.2)):
        ours, theirs = beam(*size), topology_baseline.solve(*size)
        assert ours.stats["outer_iterations"] == theirs.iterations
        assert ours.objective == pytest.approx(theirs.compliance, rel=1e-6)


def test_few_rounding_errors_stay_in_the_factors() -> None:
    """Where full cells meet, couplings cancel; without these entries the factors of the beam are larger."""
    beam = shipped("mbb_beam")
    u, v = beam.start()
    # Random densities with a full corner, in which couplings cancel.
    x, y = beam.control.parts[0].nodes
    design = torch.rand(len(v), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    design[torch.from_numpy((x > 45.0) & (y > 10.0))] = 1.0
    matrix = beam.equation.linearise(u, design).state.host()
    cancelled = np.abs(matrix.data) < 1e-15 * np.abs(matrix.data).max()
    assert cancelled.any() and significant(matrix) is matrix
    pattern = matrix.copy()
    pattern.data[cancelled] = 0.0
    pattern.eliminate_zeros()
    fill = [splu(sp.csc_matrix(each), **_WITHOUT_PIVOTING).nnz for each in (matrix, pattern)]
    assert fill[0] < fill[1]
    square = shipped("heat_sink", given={"mesh.cells": [20, 20]})
    u, v = square.start()
    stiffness = square.equation.linearise(u, torch.ones_like(v)).state.host()
    assert significant(stiffness).nnz < 0.85 * stiffness.nnz
