"""A PDE-constrained optimisation problem as a bilevel problem: the one place where the engine and the PDE meet."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .control import ControlSpace
from .engine.bilevel import FisherFactors, InnerBatch, Sample, StateFactors, relative_dual_error
from .fem.patches import patches
from .fem.spaces import Space
from .inner.model import InnerModel
from .linalg.counts import Counts
from .linalg.krylov import dot
from .linalg.riesz import RieszMap
from .linalg.sparse import SparseMatrix
from .objective import Objective
from .pde.equation import StateEquation


@dataclass(frozen=True, eq=False)
class PDEProblem:
    """Minimise f(u, v) over the control v, with R(u, v) = 0 as the inner problem.

    Implements `ImplicitProblem` and `SecondOrderProblem`.

    Attributes:
        name: for people.
        space: the state space.
        equation: R.
        control: the discrete control.
        objective: f.
        model: the inner statistical model.
        fields: further named nodal fields of the state space for output (target, ...).
    """

    name: str
    space: Space
    equation: StateEquation
    control: ControlSpace
    objective: Objective
    model: InnerModel
    fields: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def inner_shape(self) -> tuple[int, int]:
        return self.equation.scenarios, self.equation.unknowns

    @property
    def outer_size(self) -> int:
        return self.control.size

    @property
    def inner_metric(self) -> RieszMap:
        return self.model.riesz

    @property
    def outer_metric(self) -> RieszMap:
        return self.control.riesz

    @property
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        lower, upper = self.control.lower, self.control.upper
        return None if lower is None or upper is None else (lower, upper)

    @property
    def quadratic(self) -> bool:
        """Every objective term is quadratic, so that an affine equation is all it takes."""
        return self.equation.affine

    @property
    def linear(self) -> bool:
        return self.equation.affine

    @property
    def counts(self) -> Counts:
        return self.equation.counts

    def start(self) -> tuple[Tensor, Tensor]:
        u = self.equation.lift.new_zeros(self.inner_shape)
        if not self.equation.affine and torch.count_nonzero(self.equation.lift):
            # The smoothest extension of the Dirichlet values: zero inside is far from any solution near the boundary.
            steep = self.equation.restrict(self.model.whole_gram.mv(self.equation.lift[None]))
            u = u - self.inner_metric.gradient(steep)
        return u, self.control.initial.clone()

    # Inner problem

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        return self.model.sample(count, generator)

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        return self.model.batch(u, v, sample)

    def inner_gradient(self, u: Tensor, v: Tensor) -> Tensor:
        return self.model.gradient(u, v)

    def inner_error(self, u: Tensor, v: Tensor, tolerance: float) -> float:
        """|R|_{K^-1} / |u|_K: over the inf-sup constant, a bound of the relative error of the state in the K-norm."""
        return self.residual_error(self.equation.residual(u, v), u, tolerance)

    def residual_error(self, residual: Tensor, u: Tensor, tolerance: float) -> float:
        return relative_dual_error(self.inner_metric, residual, self.inner_length(u), tolerance)

    def inner_length(self, u: Tensor) -> float:
        """|u|_K of the whole field, Dirichlet values included.

        The energy of a field that does not vanish on the boundary says nothing of its level. Its L2 norm does:
        times the smallest eigenvalue of K, at which it adds to the energy at most as much again.
        """
        if not torch.count_nonzero(self.equation.lift):
            return self.inner_metric.norm(u)
        full = self.equation.embed(u)
        energy = dot(full, self.model.whole_gram.mv(full)) + self._level * dot(full, self._mass.mv(full))
        return math.sqrt(max(energy, 0.0))

    @cached_property
    def _mass(self) -> SparseMatrix:
        """The mass matrix of the whole state space."""
        cells = self.space.cells
        one = torch.ones_like(cells.quadrature.weights)[None]
        return SparseMatrix(cells.assemble(cells, {(0, 0): one}, symmetric=True).host(), one.device, symmetric=True)

    @cached_property
    def _level(self) -> float:
        """The smallest eigenvalue of K against the mass matrix, by the Rayleigh quotient of a smooth field."""
        x = self.inner_metric.smoothest
        full = self.equation.embed(x) - self.equation.lift
        return self.inner_metric.inner(x, x) / dot(full, self._mass.mv(full))

    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.model.hessian_product(u, v, w)

    def cross_product(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        return self.model.cross_product(u, v, q)

    def inner_patches(self, size: int) -> Tensor:
        """Patches of the mesh, the same for every scenario."""
        scenarios, _ = self.inner_shape
        one = patches(self.space.nodes[:, self.equation.free], size)
        every = one + (one.max() + 1) * np.arange(scenarios)[:, None]
        return torch.from_numpy(every.reshape(-1)).to(self.equation.lift.device)

    def fisher_factors(self, u: Tensor, v: Tensor) -> FisherFactors:
        return self.model.factors(u, v)

    # Outer problem

    def outer_value(self, u: Tensor, v: Tensor) -> float:
        return self.objective.value(self.equation.embed(u), v)

    def outer_derivatives(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        full = self.equation.embed(u)
        return self.equation.restrict(self.objective.state_derivative(full)), self.objective.control_derivative(v)

    # The state equation itself, for exact adjoint methods

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        return self.equation.residual(u, v)

    def state_factors(self, u: Tensor, v: Tensor) -> StateFactors:
        return self.model.state_factors(u, v)

    def control_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.equation.control_product_transposed(u, v, w)

    def control_product(self, u: Tensor, v: Tensor, d: Tensor) -> Tensor:
        return self.equation.control_product(u, v, d)

    def state_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.equation.state_product(u, v, w)

    def state_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.equation.state_product_transposed(u, v, w)

    # Second derivatives

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        return self.equation.second_derivative(u, v, w, du, dv)

    def outer_second_derivatives(self, u: Tensor, v: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        """f has no term in which u and v meet."""
        state = self.objective.state_second_derivative(self.equation.extend(du))
        return self.equation.restrict(state), self.objective.control_second_derivative(dv)

    def inner_covector(self, u: Tensor, v: Tensor, b: Tensor) -> Tensor:
        return self.model.inner_covector(u, v, b)

    def adjoint_state(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        """The adjoint variable p of J^T p = df/du that an inner-Hessian solution q stands for, (S, n)."""
        return self.model.adjoint_state(u, v, q)
