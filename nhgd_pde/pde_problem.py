"""A PDE-constrained optimisation problem as a bilevel problem: the one place where the engine and the PDE meet."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .control.controls import Controls
from .control.design_variables import of_controls
from .control.metric_rows import share_of_metric
from .engine.bilevel import Constraint, FisherFactors, InnerBatch, Sample, StateFactors, relative_dual_error
from .engine.stability import JacobianKind
from .fem.patches import patches
from .fem.state_space import StateSpace
from .inner.energy import EnergyModel
from .inner.given_gradient import given_gradient, given_length
from .inner.model import InnerModel
from .linalg.counts import Counts
from .linalg.differences import PointFunction
from .linalg.products import repeated
from .linalg.riesz import RieszMap
from .linalg.safe_lengths import dot, length
from .linalg.sparse import SparseMatrix
from .objective.constraints import ConstraintReport
from .objective.integral import IntegralTerm
from .objective.sensor_terms import SensorTerm
from .objective.state_bounds import Relaxation, StateBounds
from .objective.terms import Objective, Prediction
from .pde.cell_fields import CellFields
from .pde.equation import StateEquation
from .pde.poles import pole_between


@dataclass(frozen=True, eq=False)
class PDEProblem:
    """Minimise f(u, v) over the control v, with R(u, v) = 0 as the inner problem.

    Implements `ImplicitProblem` and `SecondOrderProblem`; v are design variables, for controls see `of_controls`.

    Attributes:
        name: the name of the problem in messages.
        space: the state space.
        equation: R.
        control: the discrete controls.
        objective: f.
        model: the inner statistical model.
        fields: further fields for output (target, ...) by name: (rows, size of the state space), one row a time step.
        earlier: the same problem with milder parameters, such as a penalty, to be solved one after the other before it.
        origin: unknowns and controls to start from in place of the initial ones.
        constraint: an inequality of the controls besides their bounds; None without.
        l1_weights: (p,) the weights of |v| in the objective of the file, which are not in `objective`; None without.
        reports: every constraint of the file, for the summary.
        state_bounds: the bounds of the state in the file; `objective` has the terms of `relaxations` in their place.
        relaxations: the relaxations of the bounds in the round that this problem belongs to; empty before the first.
        sibling: the nominal problem of a problem in scenarios, whose mass matrix and K are used again; None otherwise.
        notices: sentences for the user on the file that are not about mistakes.
        cell_fields: what the output shows of the equation in the cells besides its state.
        sensors: the sensors that terms of the objective compare the state with.
        predictions: numbers whose intervals a posterior gives.
    """

    name: str
    space: StateSpace
    equation: StateEquation
    control: Controls
    objective: Objective
    model: InnerModel
    fields: dict[str, np.ndarray] = field(default_factory=dict)
    earlier: tuple[PDEProblem, ...] = ()
    origin: tuple[Tensor, Tensor] | None = None
    constraint: Constraint | None = None
    l1_weights: Tensor | None = None
    reports: tuple[ConstraintReport, ...] = ()
    state_bounds: tuple[StateBounds, ...] = ()
    relaxations: tuple[Relaxation, ...] = ()
    sibling: PDEProblem | None = None
    notices: tuple[str, ...] = ()
    cell_fields: CellFields = field(default_factory=CellFields)
    sensors: tuple[SensorTerm, ...] = ()
    predictions: tuple[Prediction, ...] = ()

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
        return self.control.bounds

    @property
    def quadratic(self) -> bool:
        return self.equation.affine and self.objective.quadratic

    @property
    def linear(self) -> bool:
        return self.equation.linear

    @property
    def jacobian_kind(self) -> JacobianKind:
        symmetric = self.equation.symmetric and not self.equation.repeats > 1
        return JacobianKind(self.equation.affine, symmetric, self._is_gram, self.model.definite)

    @cached_property
    def _is_gram(self) -> bool:
        """Whether the derivative of R by the state is the K of the inner product at every control."""
        return self.equation.affine and self.model.is_metric(self.equation.constant_linearisation)

    @property
    def counts(self) -> Counts:
        return self.equation.counts

    def start(self) -> tuple[Tensor, Tensor]:
        if self.origin is not None:
            return self.origin
        v = self.control.initial.clone()
        return self.cold_start(v), v

    @of_controls("v")
    def cold_start(self, v: Tensor) -> Tensor:
        return self.model.start(v)

    @of_controls("v")
    def state(self, u: Tensor, v: Tensor) -> Tensor:
        """All coefficients (S, N) of the state with unknowns u (S, n), Dirichlet values included."""
        return self.equation.embed(u, v)

    # Where the equation makes sense

    @of_controls("v")
    def refusal(self, v: Tensor) -> str:
        """A sentence on the coefficient that v brings out of its range; empty if there is none."""
        if self.equation.affine:
            return ""
        said, numbers = self.equation.refusal(v), self.control.numbers(v)
        return f"{said} with {numbers}" if said and numbers else said

    @of_controls("start", "end")
    def barrier(self, start: Tensor, end: Tensor) -> str:
        """A sentence on a pole of a coefficient between two controls that are numbers; empty if there is none."""
        numbers = self.control.numbers(end)
        if self.equation.affine or not numbers:
            return ""
        key = pole_between(self.equation, start, end)
        return f"{key} is not finite between {self.control.numbers(start)} and {numbers}" if key else ""

    def ends_at(self, v: Tensor) -> str:
        """A sentence on a run whose steps end at v, next to which a coefficient leaves its range."""
        numbers = self.control.numbers(v)
        where = f"the steps end at {numbers}" if numbers else "the steps end there"
        what = "give control.bounds" if self.bounds is None else "narrow control.bounds"
        return f"{where}, as the optimum is at this bound or beyond it: {what}"

    def relaxed(self, relaxations: tuple[Relaxation, ...]) -> PDEProblem:
        """The problem with its bounds of the state replaced by terms of the objective."""
        terms = tuple(term for each in relaxations if (term := each.term()) is not None)
        others = tuple(each for each in self.reports if not isinstance(each, Relaxation))
        objective = replace(self.objective, relaxed=terms)
        return replace(self, objective=objective, relaxations=relaxations, reports=(*others, *relaxations))

    def surplus(self, u: Tensor, v: Tensor) -> float:
        """The terms of f that enforce the bounds of the state, which are not in the file."""
        return self.objective.surplus(self.state(u, v)) if self.objective.relaxed else 0.0

    def file_value(self, u: Tensor, v: Tensor) -> float:
        """The objective of the file, with its l1 terms and without the terms that enforce the bounds of the state."""
        l1 = 0.0 if self.l1_weights is None else dot(self.l1_weights, v.abs())
        return self.relaxed(()).outer_value(u, v) + l1

    # Inner problem

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        return self.model.sample(count, generator)

    @of_controls("v")
    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        return self.model.batch(u, v, sample).pulled_back(self.control.pull_back)

    @of_controls("v")
    def inner_gradient(self, u: Tensor, v: Tensor) -> Tensor:
        return self.model.gradient(u, v)

    def inner_error(self, u: Tensor, v: Tensor, tolerance: float) -> float:
        """|R|_{K^-1} / |u|_K: divided by the inf-sup constant, it bounds the relative error of the state."""
        return self.residual_error(self.residual(u, v), u, v, tolerance)

    def residual_error(self, residual: Tensor, u: Tensor, v: Tensor, tolerance: float) -> float:
        return relative_dual_error(self.inner_metric, residual, self.inner_length(u, v), tolerance)

    def inner_length(self, u: Tensor, v: Tensor) -> float:
        """|u|_K of the whole field, with Dirichlet values and a given gradient.

        The energy of a field that does not vanish on the boundary does not depend on its level. Its L2 norm is added,
        times the smallest eigenvalue of K, so that it adds at most as much as the energy.
        """
        full = self.state(u, v)
        if given_gradient(self.equation) is None and torch.equal(full, self.equation.extend(u)):
            return self.inner_metric.norm(u)
        return self._whole_length(full, self.model.whole_gram, self._level)

    def _whole_length(self, full: Tensor, gram: SparseMatrix, level: float) -> float:
        own = length(full, lambda x: gram.mv(x) + level * self._mass.mv(x), gram.diagonal)
        return math.hypot(own, given_length(self.space, self.equation, gram))

    @of_controls("v")
    def energy(self, u: Tensor, v: Tensor) -> tuple[RieszMap, float]:
        """The inner product of a positive definite J, by its factors, and the norm of the whole field in it.

        For one scenario. Level and given gradient count as in `inner_length`, with the size of the diagonal of J.
        """
        assert isinstance(self.model, EnergyModel)
        metric = self.model.metric_at(u, v)
        full = self.equation.embed(u, v)
        if given_gradient(self.equation) is None and torch.equal(full, self.equation.extend(u)):
            return metric, metric.norm(u)
        whole = self.equation.linearise(u, v).whole.operator
        size = float(whole.diagonal().sum() / self.model.whole_gram.diagonal().sum())
        return metric, self._whole_length(full, whole, size * self._level)

    @cached_property
    def _mass(self) -> SparseMatrix:
        """The mass matrix of the whole state space, at every level of an evolution."""
        if self.sibling is not None:
            return self.sibling._mass
        mass = SparseMatrix(self.space.mass, self.space.device, symmetric=True)
        return repeated(mass, self.equation.size // self.space.size, self.equation.measure)

    @cached_property
    def _level(self) -> float:
        """The smallest eigenvalue of K against the mass matrix, by the Rayleigh quotient of a smooth field."""
        if self.sibling is not None:
            return self.sibling._level
        x = self.inner_metric.smoothest
        full = self.equation.embed(x) - self.equation.lift
        return self.inner_metric.inner(x, x) / dot(full, self._mass.mv(full))

    def represented(self, w: Tensor) -> Tensor | None:
        return None if self._share is None else self._share * self.equation.extend(w)[0]

    @cached_property
    def _share(self) -> float | None:
        return share_of_metric(self.equation, self.control)

    @of_controls("v")
    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.model.hessian_product(u, v, w)

    @of_controls("v")
    def cross_product(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        return self.control.pull_back(self.model.cross_product(u, v, q))

    def inner_patches(self, size: int) -> Tensor:
        """Patches of the mesh, the same for every scenario."""
        one = patches(np.tile(self.space.nodes[:, self.equation.spatial_free], self.equation.repeats), size)
        every = (one + (one.max() + 1) * np.arange(self.inner_shape[0])[:, None]).reshape(-1)
        return torch.from_numpy(every).to(self.equation.lift.device)

    @of_controls("v")
    def fisher_factors(self, u: Tensor, v: Tensor) -> FisherFactors:
        return self.model.factors(u, v)

    # Outer problem

    @of_controls("v")
    def outer_value(self, u: Tensor, v: Tensor) -> float:
        return self.objective.value(self.equation.embed(u, v), v)

    @of_controls("v")
    def outer_derivatives(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._outer(*self.objective.derivatives(self.equation.embed(u, v), v), v)

    def _outer(self, state: Tensor, control: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """Takes covectors on all coefficients (S, N) and controls to covectors on unknowns and design variables."""
        whole = control + self.equation.restrict_data(state, m)
        return self.equation.restrict(state), self.control.pull_back(whole)

    # Scenario by scenario

    @property
    def definite(self) -> bool:
        return self.model.definite

    @of_controls("v")
    def scenario_values(self, u: Tensor, v: Tensor) -> Tensor:
        """The objective of the file in every scenario, without the terms in the control alone; (S,)."""
        return self.objective.scenario_values(self.equation.embed(u, v), v)

    @of_controls("v")
    def scenario_penalties(self, u: Tensor, v: Tensor) -> Tensor:
        """The terms that enforce the bounds of the state, in every scenario; (S,)."""
        return self.objective.scenario_penalties(self.equation.embed(u, v))

    @of_controls("v")
    def scenario_derivatives(self, u: Tensor, v: Tensor, slopes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Derivatives of slopes (S,), by default 1, times values plus penalties: by u (S, n) and by v (S, p)."""
        state, control = self.objective.scenario_derivatives(self.equation.embed(u, v), v, slopes)
        whole = control + self.equation.each_restrict_data(state, v)
        return self.equation.restrict(state), self._each_pulled_back(whole)

    @of_controls("v")
    def scenario_control_products(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """R_v^T w of every scenario for itself, w (S, n); (S, p)."""
        return self._each_pulled_back(self.equation.scenario_control_products(u, v, w))

    @of_controls("v")
    def control_value(self, v: Tensor) -> float:
        """The terms of f in the control alone."""
        return self.objective.control_value(v)

    @of_controls("v")
    def control_derivative(self, v: Tensor) -> Tensor:
        """(p,)."""
        return self.control.pull_back(self.objective.control_derivative(v))

    def _each_pulled_back(self, covectors: Tensor) -> Tensor:
        return torch.stack([self.control.pull_back(each) for each in covectors])

    # The state equation itself, for exact adjoint methods

    @of_controls("v")
    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        return self.equation.residual(u, v)

    @of_controls("v")
    def integrands(self, u: Tensor, v: Tensor) -> tuple[PointFunction, ...]:
        """All integrands of equation and objective, as functions of values at points."""
        full = self.equation.embed(u, v)
        terms = [term.integrand(full, v) for term in self.objective.joint if isinstance(term, IntegralTerm)]
        return (*self.equation.integrands(u, v), *terms)

    @of_controls("v")
    def integrated(self, u: Tensor, v: Tensor) -> Tensor:
        return self.equation.integrated(u, v)

    @of_controls("v")
    def state_factors(self, u: Tensor, v: Tensor) -> StateFactors:
        return self.model.state_factors(u, v)

    def adjoint_share(self, g: Tensor) -> float | None:
        return self.equation.load_share(g)

    @of_controls("v")
    def control_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.control.pull_back(self.equation.control_product_transposed(u, v, w))

    @of_controls("v", "d")
    def control_product(self, u: Tensor, v: Tensor, d: Tensor) -> Tensor:
        return self.equation.control_product(u, v, d)

    @of_controls("v")
    def state_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.equation.state_product(u, v, w)

    @of_controls("v")
    def state_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.equation.state_product_transposed(u, v, w)

    # Second derivatives

    @of_controls("v", "dv")
    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        state, control = self.equation.second_derivative(u, v, w, du, dv)
        return state, self.control.pull_back(control)

    @of_controls("v", "dv")
    def outer_second_derivatives(self, u: Tensor, v: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        full, step = self.equation.embed(u, v), self.equation.extend(du, v, dv)
        state, control = self.objective.second_derivatives(full, v, step, dv)
        if self.equation.data is not None and self.equation.data.parameters:
            control = control + self.equation.bent_data(self.objective.derivatives(full, v)[0], v, dv)
        return self._outer(state, control, v)

    @of_controls("d")
    def penalty_product(self, d: Tensor) -> Tensor:
        return self.control.pull_back(self.objective.control_curvature(d))

    @of_controls("v")
    def inner_covector(self, u: Tensor, v: Tensor, b: Tensor) -> Tensor:
        return self.model.inner_covector(u, v, b)

    @of_controls("v")
    def adjoint_state(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        """The adjoint variable p of J^T p = df/du that an inner-Hessian solution q stands for, (S, n)."""
        return self.model.adjoint_state(u, v, q)
