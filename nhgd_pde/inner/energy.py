"""The energy form, for linear self-adjoint coercive equations: J = G^T G with G the scaled flux operator.

    y = G u* + sigma z,  z ~ N(0, I),  l = |y - G u|^2 / (2 sigma^2),  grad l = (R(u) - sigma G^T z) / sigma^2

It is correctly specified, needs neither u* nor a solve, and its Fisher information and Hessian are
J / sigma^2: half the exponent of the condition number that the residual form has. Where the control enters J, all of
this holds at every control.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..engine.bilevel import InnerBatch, Sample, StateFactors
from ..fem.evaluation_operator import gram_root
from ..linalg.factorisation import Factorisation, ScenarioFactorisation, SingularMatrixError, factorised_riesz_map
from ..linalg.riesz import ExactRieszMap, RieszMap
from ..linalg.sparse import ScenarioMatrix, SparseMatrix
from ..pde.equation import StateEquation
from ..pde.linearisation import Linearisation
from .model import Observation, gaussian


@dataclass(frozen=True, eq=False)
class EnergyModel:
    """The energy form of a state equation.

    Attributes:
        equation: R, linear in the state with a symmetric positive definite J.
        riesz: J itself, so that a dual norm of the residual is the error of the state in the energy norm. With several
            scenarios it is the mean of their J; where the control enters J, it is taken at `reference`.
        observation: options.
        reference: (p,) the control at which J gives the norm.
        make_whole_gram: gives this J on the whole state space.
    """

    equation: StateEquation
    riesz: RieszMap
    observation: Observation
    reference: Tensor
    make_whole_gram: Callable[[], SparseMatrix]
    name: str = "energy"
    definite: bool = True

    def start(self, v: Tensor) -> Tensor:
        return self.equation.lift.new_zeros(self.equation.scenarios, self.equation.unknowns)

    @property
    def whole_gram(self) -> SparseMatrix:
        """The J of the norm on the whole state space, including Dirichlet functions, (N, N)."""
        return self.make_whole_gram()

    @cached_property
    def roots(self) -> tuple[SparseMatrix, ...]:
        """G (rows, n) of every scenario at the reference; one matrix where they share it."""
        return self._roots(self.equation.linearise(self.start(self.reference), self.reference))

    def _roots(self, derivative: Linearisation) -> tuple[SparseMatrix, ...]:
        integrals = list(zip(self.equation.tests, derivative.blocks, strict=True))
        count = 1 if derivative.state.shared else self.equation.scenarios
        try:
            parts = [[gram_root(test, blocks, s).host for test, blocks in integrals if blocks] for s in range(count)]
        except ValueError as negative:
            raise SingularMatrixError(
                f"at this control the energy is not positive at every point: {negative}"
            ) from None
        return tuple(SparseMatrix(sp.vstack(each, format="csr"), self.equation.lift.device) for each in parts)

    def noise(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """G^T z, z ~ N(0, I), with covariance J; (S, m, n) for shape (S, m)."""
        return _coloured(self.roots, self._white(shape, generator))

    def _white(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        return gaussian((*shape, self.roots[0].shape[0]), generator, self.equation.lift)

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        """G^T z for `count` observations; z itself where G depends on the control."""
        white = self._white((self.equation.scenarios, count), generator)
        return Sample(_coloured(self.roots, white) if self.equation.affine else white)

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        """The Hessian and the cross derivative of every term are those of the expectation."""
        if not self.equation.affine:
            sample = Sample(_coloured(self._roots(self.equation.linearise(u, v)), sample.tests))
        n, count = u.shape[1], sample.count
        gradient = self.equation.residual(u, v)
        residual = self.riesz.dual_norm_bound(gradient)
        scores, step, inflation = sample.tests, 1.0, 0.0
        if self.observation.scores == "observed":
            sigma = self.observation.deviation(residual / math.sqrt(u.shape[0]))
            scores = gradient[:, None] / sigma - sample.tests
            inflation = (residual / sigma) * (residual / sigma) / u.shape[0]
            step = count / (count + n + 1)
            gradient = gradient - sigma * sample.tests.mean(1)
        return InnerBatch(
            gradient=gradient,
            scores=scores.transpose(1, 2).reshape(-1, count),
            residual=residual,
            step=step,
            hessian=lambda w: self.hessian_product(u, v, w),
            cross=lambda q: self.cross_product(u, v, q),
            inflation=inflation,
            cross_point=u,
        )

    def gradient(self, u: Tensor, v: Tensor) -> Tensor:
        """R(u, v), (S, n)."""
        return self.equation.residual(u, v)

    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """J w, (S, n)."""
        return self.equation.state_product(u, v, w)

    def cross_product(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        """R_v^T q, (p,)."""
        return self.equation.control_product_transposed(u, v, q)

    def factors(self, u: Tensor, v: Tensor) -> EnergyFactors:
        """A = Jbar^-1, Jbar the mean of the scenarios' J."""
        if self.equation.affine:
            rough = self.riesz.rough_gradient
            return EnergyFactors(self.riesz.gradient, self.riesz.gradient, cut=lambda rtol: (_at(rough, rtol),) * 2)
        factors = self.equation.linearise(u, v).jacobian.mean_factors
        assert isinstance(factors, Factorisation | ScenarioFactorisation)
        return EnergyFactors(
            factors.solve,
            factors.solve_transposed,
            factors.overestimate,
            cut=lambda rtol: _solves(factors.within(rtol)),
        )

    def metric_at(self, u: Tensor, v: Tensor) -> RieszMap:
        """The inner product of J at (u, v) in one scenario, by its factors.

        Where the control scales the parts of J, norms are bounded by those in the inner product of the reference.
        """
        jacobian = self.equation.linearise(u, v).state
        assert isinstance(jacobian, ScenarioMatrix)
        factors = self.factors(u, v)
        stiffness, reference = self.equation.stiffness, self._reference_coefficients
        share = 0.0 if stiffness is None or reference is None else stiffness.least_share(v, reference)

        def overestimate(r: Tensor) -> Tensor | None:
            found = factors.overestimate(r) if factors.overestimate is not None else None
            if found is not None or not share > 0.0:
                return found
            found = self.riesz.overestimated_gradient(r)
            return None if found is None else found / share

        return ExactRieszMap(jacobian.operator, factors.newton_step, overestimate=overestimate)

    @cached_property
    def _reference_coefficients(self) -> list[Tensor] | None:
        stiffness = self.equation.stiffness
        return None if stiffness is None else stiffness.coefficients(self.reference)

    def state_factors(self, u: Tensor, v: Tensor) -> StateFactors:
        """The factors of every scenario's J; those of the Riesz map where it is the J of all of them.

        It is not the J of scenarios with coefficients of their own, in the metric of a nominal one.
        """
        derivative = self.equation.linearise(u, v)
        return self.factors(u, v) if self.equation.affine and self.is_metric(derivative) else derivative.factors

    def is_metric(self, derivative: Linearisation) -> bool:
        """Whether J is the matrix of the inner product, entry by entry."""
        jacobian = derivative.state
        if not jacobian.shared:
            return False
        assert isinstance(jacobian, ScenarioMatrix)
        return np.array_equal(jacobian.host().data, self.riesz.matrix.host.data)

    def inner_covector(self, u: Tensor, v: Tensor, b: Tensor) -> Tensor:
        """H x for the solution x of J x = b, which is b itself."""
        return b

    def adjoint_state(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        """The adjoint variable p of J^T p = grad_u f, which is q itself."""
        return q


def _coloured(roots: tuple[SparseMatrix, ...], white: Tensor) -> Tensor:
    """G^T z for white noise z (S, m, rows); (S, m, n).

    G has fewer rows where a coefficient has become zero everywhere, and more where one has ceased to be zero. In the
    latter case the sample is the seed of the further numbers.
    """
    rows = max(root.shape[0] for root in roots)
    if rows > white.shape[-1]:
        generator = torch.Generator().manual_seed(int(white.reshape(-1)[:1].cpu().view(torch.int32)[0]))
        more = gaussian((*white.shape[:-1], rows - white.shape[-1]), generator, white)
        white = torch.cat([white, more], -1)
    white = white[..., :rows]
    if len(roots) == 1:
        return roots[0].rmv(white.flatten(0, 1)).reshape(*white.shape[:2], -1)
    return torch.stack([root.rmv(each) for root, each in zip(roots, white, strict=True)])


Solve = Callable[[Tensor], Tensor]


def _at(rough: Callable[[Tensor, float], Tensor], rtol: float) -> Solve:
    return lambda b: rough(b, rtol)


def _solves(factors: Factorisation | ScenarioFactorisation) -> tuple[Solve, Solve]:
    return factors.solve, factors.solve_transposed


@dataclass(frozen=True)
class EnergyFactors:
    """The inverse of J.

    Attributes:
        cut: relative error -> both solves up to this error; None where solves have no errors but rounding.
    """

    solve: Solve
    solve_transposed: Solve
    overestimate: Callable[[Tensor], Tensor | None] | None = None
    description: str = "J^-1"
    cut: Callable[[float], tuple[Solve, Solve]] | None = None

    def within(self, rtol: float) -> EnergyFactors:
        return self if self.cut is None else EnergyFactors(*self.cut(rtol))

    def newton_step(self, residual: Tensor) -> Tensor:
        return self.solve(residual)

    def adjoint(self, g: Tensor) -> Tensor:
        return self.solve_transposed(g)


def energy_model(equation: StateEquation, observation: Observation, v: Tensor) -> EnergyModel:
    """The energy form of a linear self-adjoint coercive equation, in its own energy product at a control v (p,)."""
    u = equation.lift.new_zeros(equation.scenarios, equation.unknowns)
    derivative = equation.linearise(u, v)
    assert isinstance(derivative.state, ScenarioMatrix)
    jacobian = SparseMatrix(derivative.state.mean(), equation.lift.device, symmetric=True)
    # Most problems do without it. Scenarios have that of the nominal problem. The factors of this J are not kept.
    on_all = derivative.jacobian.on_all
    whole = cache(lambda: SparseMatrix(on_all().mean(), equation.lift.device, symmetric=True))
    return EnergyModel(
        equation, factorised_riesz_map(jacobian, equation.counts, equation.solver), observation, v, whole
    )
