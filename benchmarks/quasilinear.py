"""A nonlinear problem from parts of the library: -div((1 + u^2) grad u) = source + v, tracking and L2 cost."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nhgd_pde.control.controls import Controls, ControlSpace
from nhgd_pde.control.maps import added
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.state_space import FieldGroup, state_space
from nhgd_pde.inner.model import Observation
from nhgd_pde.inner.residual import residual_model
from nhgd_pde.linalg.riesz import mass_riesz_map
from nhgd_pde.linalg.sparse import SparseMatrix
from nhgd_pde.objective.terms import Objective, Regularisation, Tracking
from nhgd_pde.pde.equation import StateEquation
from nhgd_pde.pde.form import Coefficients, Integral
from nhgd_pde.pde.rows import steady
from nhgd_pde.pde_problem import PDEProblem

# The control adds its values times the gain to the source.
SOURCE_CONTROL = added("source")

CPU = torch.device("cpu")


def quasilinear(u: Tensor, grad: Tensor, c: Coefficients, x: Tensor) -> tuple[Tensor, Tensor]:
    """int -source phi + (1 + u^2) grad u . grad phi."""
    return -c["source"], (1.0 + u**2) * grad


def quasilinear_problem(cells: int = 12, alpha: float = 1e-3, observation: Observation | None = None) -> PDEProblem:
    """The problem on the unit square with u = 1 on the left and u = 0 on the right."""
    domain = meshes.domain(meshes.rectangle((1, 1), (0, 0), (cells, cells)))
    state = state_space(domain, [FieldGroup("state", 1, "P1")], CPU)
    lift = np.zeros(state.size)
    left, right = (state.facet_dofs(domain.boundaries[name]) for name in ("left", "right"))
    lift[left] = 1.0
    free = np.setdiff1d(np.arange(state.size), np.union1d(left, right))
    points = state.cells.quadrature.points
    one = torch.ones(points, dtype=torch.float64)
    coefficients = {"source": 2.0 * one, "gain": 5.0 * one}
    equation = StateEquation(
        integrals=(Integral(state.cells, quasilinear, coefficients, (SOURCE_CONTROL,), state.cells),),
        size=state.size,
        rows=steady(state.size),
        free=free,
        lift=torch.from_numpy(lift),
    )
    weight = torch.ones_like(state.cells.quadrature.weights)[None]
    mass = SparseMatrix(state.cells.assemble(state.cells, {(0, 0): weight}, True).host(), CPU, True)
    x, y = (torch.from_numpy(axis) for axis in state.nodes)
    control = ControlSpace(
        name="control",
        nodes=state.nodes,
        evaluation=state.cells,
        riesz=mass_riesz_map(mass, equation.counts),
        initial=torch.sin(3.0 * x) * torch.cos(2.0 * y),
        lower=None,
        upper=None,
        weight=weight,
        space=state.parts[0],
        dofs=np.arange(state.size),
    )
    cost = SparseMatrix((alpha * mass.host).tocsr(), CPU, True)
    objective = Objective(
        (Tracking(mass, 1.5 * x * (1.0 - x)),), (Regularisation(cost, torch.zeros(state.size).double()),)
    )
    model = residual_model(state, equation, observation or Observation(), control.initial)
    return PDEProblem("quasilinear", state, equation, Controls((control,)), objective, model)
