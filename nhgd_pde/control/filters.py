"""Filters, which map design variables to the density in the equation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from ..linalg.counts import Counts
from ..linalg.factorisation import Factorisation
from ..linalg.solvers.base import Hints, LinearSolver
from ..linalg.solvers.choice import Auto
from ..linalg.sparse import SparseMatrix


@dataclass(frozen=True, eq=False)
class HelmholtzFilter:
    """The filter v -> w with w - r^2 lap w = v and no flux through the boundary (Lazarov and Sigmund 2011).

    It preserves constants and integrals. Bounds of v are bounds of w on meshes without obtuse angles, because the mass
    matrix is lumped.

    Attributes:
        solve: covectors (1, n) on the nodes -> solutions w at the nodes.
        load: (n, m) design variables -> covector of v on the nodes.
        back: (m, n) w at the nodes -> filtered design variables; None where these are the same.
    """

    solve: Callable[[Tensor], Tensor]
    load: SparseMatrix
    back: SparseMatrix | None = None

    def apply(self, v: Tensor) -> Tensor:
        w = self.solve(self.load.mv(v[None]))
        return (w if self.back is None else self.back.mv(w))[0]

    def transposed(self, covector: Tensor) -> Tensor:
        w = covector[None] if self.back is None else self.back.rmv(covector[None])
        return self.load.rmv(self.solve(w))[0]


def helmholtz_filter(
    radius: float, nodal: EvaluationOperator, weight: Tensor, piecewise: EvaluationOperator | None = None
) -> HelmholtzFilter:
    """The filter whose Green's function has about the radius of a cone: r = radius / (2 sqrt 3).

    Args:
        radius: radius of the cone.
        nodal: the functions of w.
        weight: (1, elements, points) one in the region of v, zero elsewhere.
        piecewise: the functions of v if they are constant on cells, whose filtered values are means of w; by default v
            has the functions of w.
    """
    device = nodal.quadrature.weights.device
    r = radius / (2.0 * np.sqrt(3.0))
    gradients = {(i, i): r**2 * weight for i in range(1, nodal.components)}
    stiffness = nodal.assemble(nodal, gradients, symmetric=True).host()
    lumped = np.asarray(nodal.assemble(nodal, {(0, 0): weight}, symmetric=True).host().sum(axis=1)).reshape(-1)
    # Solves are accurate enough for a filter and its transpose to be adjoint to each other up to rounding errors.
    solver = LinearSolver(Auto(rtol=1e-13), Hints(symmetric=True, definite=True, dim=nodal.quadrature.dim))
    factors = Factorisation(sp.csr_matrix(stiffness + sp.diags_array(lumped)), Counts(), True, solver)
    if piecewise is None:
        return HelmholtzFilter(factors.solve, SparseMatrix(sp.csr_matrix(sp.diags_array(lumped)), device))
    load = nodal.assemble(piecewise, {(0, 0): weight}).host()
    volumes = np.asarray(load.sum(axis=0)).reshape(-1)
    back = sp.csr_matrix(sp.diags_array(1.0 / volumes) @ load.T)
    return HelmholtzFilter(factors.solve, SparseMatrix(load, device), SparseMatrix(back, device))


@dataclass(frozen=True, eq=False)
class ConeFilter:
    """The filter that replaces each cell by a mean over the cells around it, with weights of a cone times the volumes.

    Attributes:
        matrix: (m, m) weights, with rows that sum to one.
    """

    matrix: SparseMatrix

    def apply(self, v: Tensor) -> Tensor:
        return self.matrix.mv(v[None])[0]

    def transposed(self, covector: Tensor) -> Tensor:
        return self.matrix.rmv(covector[None])[0]


def cone_filter(radius: float, centres: np.ndarray, volumes: np.ndarray, device: torch.device) -> ConeFilter:
    """The filter of Andreassen et al. 2011, eq. 8: weights volume * max(0, radius - distance of the centres).

    The radius is in the units of the mesh; `centres` (dim, m) and `volumes` (m,) are those of the cells.
    """
    return ConeFilter(_means(cone_weights(radius, centres) @ sp.diags_array(volumes), device))


def _means(weights: sp.csr_matrix, device: torch.device) -> SparseMatrix:
    """The weights, scaled so that rows sum to one."""
    totals = np.asarray(weights.sum(axis=1)).reshape(-1)
    return SparseMatrix(sp.csr_matrix(sp.diags_array(1.0 / totals) @ weights), device)


@dataclass(frozen=True, eq=False)
class SensitivityFilter:
    """The heuristic filter of derivatives of Sigmund (1997); filtered derivatives belong to no objective.

    f'_i is replaced by V_i / max(v_i, 1e-3) times the mean of v_j f'_j / V_j with the weights of a cone.

    Attributes:
        matrix: (m, m) weights, with rows that sum to one.
        volumes: (m,) the volumes V of the cells.
    """

    matrix: SparseMatrix
    volumes: Tensor

    def __call__(self, v: Tensor, derivative: Tensor) -> Tensor:
        means = self.matrix.mv((v * derivative / self.volumes)[None])[0]
        return means * self.volumes / v.clamp(min=1e-3)


def sensitivity_filter(radius: float, centres: np.ndarray, volumes: Tensor) -> SensitivityFilter:
    """The filter of cells with these centres (dim, m) and volumes (m,) (Andreassen et al. 2011, eq. 7)."""
    return SensitivityFilter(_means(cone_weights(radius, centres), volumes.device), volumes)


def cone_weights(radius: float, centres: np.ndarray) -> sp.csr_matrix:
    """(m, m) radius - distance of two points (dim, m) where this is positive, else zero."""
    count = centres.shape[1]
    # Loaded here, because it takes long and most solves do without it.
    from scipy.spatial import cKDTree

    pairs = cKDTree(centres.T).query_pairs(radius, output_type="ndarray")
    reach = radius - np.linalg.norm(centres[:, pairs[:, 0]] - centres[:, pairs[:, 1]], axis=0)
    upper = sp.csr_matrix((reach, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return sp.csr_matrix(upper + upper.T + radius * sp.identity(count, format="csr"))
