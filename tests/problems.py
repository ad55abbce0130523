"""Small problems, meshes and equations for several tests."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import skfem
import torch
from torch import Tensor

from nhgd_pde.building.blueprint import build
from nhgd_pde.control.maps import added
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.cells import CELLS
from nhgd_pde.fem.mesh import Domain
from nhgd_pde.fem.spaces import Space, space
from nhgd_pde.fem.state_space import FieldGroup, StateSpace
from nhgd_pde.linalg.counts import Counts
from nhgd_pde.linalg.factorisation import factorised_riesz_map
from nhgd_pde.linalg.riesz import RieszMap
from nhgd_pde.linalg.sparse import SparseMatrix
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.pde.equation import StateEquation
from nhgd_pde.pde.form import Coefficients, ControlMap, Integral, Pointwise
from nhgd_pde.pde.poisson import poisson
from nhgd_pde.pde.rows import steady
from nhgd_pde.pde_problem import PDEProblem
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem

# The control adds its values times the gain to the source.
SOURCE_CONTROL = added("source")

CPU = torch.device("cpu")
PLATE = Path(__file__).parents[1] / "meshes" / "plate.msh"

BASE: dict[str, Any] = {
    "name": "small",
    "mesh": {"kind": "rectangle", "cells": [4, 4]},
    "pde": {"kind": "poisson", "source": "1 + x*y", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [
        {"kind": "tracking", "target": "sin(pi*x)*y"},
        {"kind": "regularisation", "weight": 1e-2},
    ],
}


def problem(overrides: Mapping[str, Any] | None = None) -> PDEProblem:
    """Poisson control on 4 x 4 cells of the unit square, with some keys set to other values."""
    return build(read_problem(copy.deepcopy(BASE), overrides))


def complaints(overrides: Mapping[str, Any]) -> list[str]:
    """The errors of this problem as text."""
    with pytest.raises(ProblemError) as caught:
        problem(overrides)
    return [f"{issue.key}: {issue.message}" for issue in caught.value.issues]


def state_of(built: PDEProblem, error: float = 1e-12) -> Tensor:
    """All coefficients (N,) of the state at the first control, solved to the relative residual `rtol`."""
    u, v = built.start()
    evaluation, state = Adjoint().evaluate(built, v, Adjoint().init(built, u, v), Accuracy(error, 1.0))
    assert built.inner_error(state.u, v, error) <= error, evaluation.message
    return built.state(state.u, v)[0]


def mesh_of(dim: int, cells: int) -> skfem.Mesh:
    """The unit interval, square or cube, with its inner vertices moved so that no two cells are alike."""
    unit, zero = (1.0,) * dim, (0.0,) * dim
    if dim == 1:
        mesh = meshes.interval(cells=cells)
    else:
        mesh = (meshes.rectangle if dim == 2 else meshes.box)(unit, zero, (cells,) * dim)
    points = mesh.p.copy()
    inner = mesh.interior_nodes()
    points[:, inner] += np.random.default_rng(dim).uniform(-0.15, 0.15, (dim, len(inner))) / cells
    return type(mesh)(points, mesh.t).with_boundaries(mesh.boundaries)


def space_of(dim: int, cells: int, element: str) -> Space:
    return space(meshes.domain(mesh_of(dim, cells)), element, CPU)


def split(mesh: skfem.Mesh, **regions: Any) -> Domain:
    """A domain with subdomains given by conditions on the midpoints of cells."""
    return meshes.domain(mesh.with_subdomains(regions))


def write_mesh(path: Path, mesh: skfem.Mesh, **regions: Any) -> Path:
    """A gmsh file with named boundaries and subdomains; cells outside the subdomains have no name."""
    named = mesh.with_subdomains(regions)
    kind = meshes.domain(mesh).cell
    tags = np.full(mesh.nelements, 99)
    names, blocks, numbers = {}, [], []
    for k, (name, cells) in enumerate(named.subdomains.items(), start=1):
        names[name] = np.array([k, mesh.dim()])
        tags[cells] = k
    for k, (name, facets) in enumerate(mesh.boundaries.items(), start=1):
        names[name] = np.array([k, mesh.dim() - 1])
        blocks.append((CELLS[kind].facet, mesh.facets[:, facets].T))
        numbers.append(np.full(len(facets), k))
    blocks.append((kind, mesh.t[list(CELLS[kind].order)].T))
    numbers.append(tags)
    data = {"gmsh:physical": numbers, "gmsh:geometrical": numbers}
    points = np.pad(mesh.p.T, ((0, 0), (0, 3 - mesh.dim())))
    meshio.write(path, meshio.Mesh(points, blocks, cell_data=data, field_data=names), "gmsh22")
    return path


def h1_riesz(functions: Space, free: np.ndarray) -> RieszMap:
    """The Riesz map of int grad u . grad w on some functions."""
    return factorised_riesz_map(h1_matrix(functions, free), Counts())


def h1_matrix(functions: Space, free: np.ndarray) -> SparseMatrix:
    tests = functions.cells.columns(free)
    return SparseMatrix(tests.assemble(tests, h1_blocks(functions), symmetric=True).host(), symmetric=True)


def h1_blocks(functions: Space) -> dict[tuple[int, int], Tensor]:
    one = torch.ones_like(functions.cells.quadrature.weights)[None]
    return {(i, i): one for i in range(1, functions.cells.components)}


def quasilinear(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """-div((conductivity + u^2) grad u) = source."""
    return -c["source"], (c["conductivity"] + u**2) * grad


def in_conductivity(c: Coefficients, v: Tensor) -> Coefficients:
    """The map of a control that enters two coefficients, one of them nonlinearly."""
    return {**SOURCE_CONTROL(c, v), "conductivity": c["conductivity"] * torch.exp(v)}


def equation_of(
    functions: Space,
    form: Pointwise = poisson,
    scenarios: int = 1,
    affine: bool = False,
    symmetric: bool = False,
    varied: bool = True,
    control: ControlMap = SOURCE_CONTROL,
) -> StateEquation:
    """An equation whose coefficients differ between scenarios where they are `varied`.

    The state is 1 + x + y + z on the left side, and the control lives in the space of the state.
    """
    x = functions.cells.quadrature.x.reshape(functions.domain.dim, -1)
    factor = torch.arange(1.0, scenarios + 1, dtype=x.dtype)[:, None]
    across = torch.sin(factor * x[0]) if varied else torch.sin(x[0]).expand(scenarios, -1)
    coefficients = {
        "conductivity": 1.5 + across,
        "reaction": 0.5 + 0.25 * across,
        "source": 1.0 + x[0],
        "gain": 1.0 + (factor if varied else 1.0) * x[0],
    }
    fixed = functions.facet_dofs(functions.domain.boundaries["left"])
    lift = torch.zeros(functions.size, dtype=x.dtype)
    lift[fixed] = torch.from_numpy(1.0 + functions.nodes.sum(axis=0)[fixed])
    return StateEquation(
        (Integral(functions.cells, form, coefficients, (control,), functions.cells),),
        functions.size,
        steady(functions.size),
        np.setdiff1d(np.arange(functions.size), fixed),
        lift,
        scenarios,
        affine,
        symmetric,
        linear=affine,
    )


def of_one_field(functions: Space) -> StateSpace:
    """The state space of one scalar field."""
    return StateSpace((FieldGroup("state", 1, functions.element),), (functions,))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative(a: Tensor, b: Tensor) -> float:
    """The Euclidean norm of a - b, relative to that of b."""
    return float((a - b).norm() / b.norm())


def slope(x: list[float], y: list[float]) -> float:
    """The slope of the line that fits (log x, log y) best."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
