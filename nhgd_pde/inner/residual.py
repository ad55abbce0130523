"""The residual form: random tests of the weak residual.

    y = <w, R(u, v)> + sigma eps,   w ~ N(0, K^-1),   l = (<w, R> - sigma eps)^2 / (2 sigma^2)

E l is half the squared dual norm of the residual over sigma^2 (plus a constant), for any PDE; with J = dR/du
the Fisher information is J^T K^-1 J / sigma^2, and at the solution it is the Hessian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..engine.bilevel import InnerBatch, Sample, StateFactors
from ..fem.evaluation import gram_root
from ..fem.spaces import Space
from ..linalg.factorisation import Factorisation, factorised_riesz_map
from ..linalg.riesz import RieszMap
from ..linalg.sparse import ScenarioMatrix, SparseMatrix
from ..pde.equation import StateEquation
from .model import Observation, gaussian, matched_noise


@dataclass(frozen=True, eq=False)
class ResidualModel:
    """The residual form of a state equation.

    Attributes:
        equation: R.
        riesz: K, the inner product of the test space.
        root: G with K = G^T G.
        whole_gram: K on the whole state space, Dirichlet functions included, (N, N).
        observation: options.
    """

    equation: StateEquation
    riesz: RieszMap
    root: SparseMatrix
    whole_gram: SparseMatrix
    observation: Observation
    name: str = "residual"

    def tests(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Test functions w = K^-1 G^T z, z ~ N(0, I), so that w ~ N(0, K^-1); (S, m, n) for shape (S, m)."""
        scenarios, count = shape
        white = gaussian((scenarios * count, self.root.shape[0]), generator, self.equation.lift)
        return self.riesz.gradient(self.root.rmv(white)).reshape(scenarios, count, -1)

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        """Test functions, and observation noise where the scores are to show it."""
        shape = (self.equation.scenarios, count)
        w = self.tests(shape, generator)
        return Sample(w, gaussian(shape, generator, w) if self.observation.scores == "observed" else None)

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        scenarios, n = u.shape
        w, count = sample.tests, sample.count
        tested = torch.einsum("smn,sn->sm", w, self.equation.residual(u, v))
        images = self._transposed_products(u, v, w)
        rms = float(tested.square().mean().sqrt())
        misfit, factors, inflation = tested, torch.ones_like(tested), 0.0
        if sample.noise is not None:
            sigma = matched_noise(rms) if self.observation.noise is None else self.observation.noise
            misfit = tested - sigma * sample.noise
            factors = misfit / sigma
            inflation = (rms / sigma) ** 2

        def weighted(q: Tensor) -> Tensor:
            """<w, J q> of every test."""
            return torch.einsum("smn,sn->sm", images, q)

        def cross(q: Tensor) -> Tensor:
            mixture = torch.einsum("smn,sm->sn", w, weighted(q)) / count
            return self.equation.control_product_transposed(u, v, mixture)

        return InnerBatch(
            gradient=torch.einsum("smn,sm->sn", images, misfit) / count,
            scores=_columns(images * factors[..., None]),
            residual=rms * math.sqrt(scenarios),
            # E w w^T B w w^T for Gaussian w gives the mean-square contraction 1 - m / (m + n + 1) at this step.
            step=count / (count + n + 1),
            hessian=lambda q: torch.einsum("smn,sm->sn", images, weighted(q)) / count,
            cross=cross,
            inflation=inflation,
        )

    def _transposed_products(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """J_s^T w for every test of every scenario, (S, m, n)."""
        jacobian = self.equation.linearise(u, v).state
        self.equation.counts.products += w.shape[0] * w.shape[1]
        return jacobian.rmv(w.transpose(0, 1)).transpose(0, 1)

    def gradient(self, u: Tensor, v: Tensor) -> Tensor:
        """J^T K^-1 R, (S, n)."""
        weighted = self.riesz.gradient(self.equation.residual(u, v))
        return self.equation.state_product_transposed(u, v, weighted)

    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """J^T K^-1 J w, (S, n)."""
        image = self.riesz.gradient(self.equation.state_product(u, v, w))
        return self.equation.state_product_transposed(u, v, image)

    def cross_product(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        """R_v^T K^-1 J q, (p,)."""
        weighted = self.riesz.gradient(self.equation.state_product(u, v, q))
        return self.equation.control_product_transposed(u, v, weighted)

    def factors(self, u: Tensor, v: Tensor) -> ResidualFactors:
        """A = Jbar^-1 K Jbar^-T, Jbar the mean of the scenarios' Jacobians."""
        derivative = self.equation.linearise(u, v)
        state = derivative.state
        # What the scenarios share is factorised once a point, whoever asks.
        if state.shared:
            return ResidualFactors(derivative.factors, self.riesz)
        return ResidualFactors(Factorisation(state.mean(), self.equation.counts, state.symmetric), self.riesz)

    def state_factors(self, u: Tensor, v: Tensor) -> StateFactors:
        """The factors of every scenario's J."""
        return self.equation.linearise(u, v).factors

    def inner_covector(self, u: Tensor, v: Tensor, b: Tensor) -> Tensor:
        """What H x is where J x = b: J^T K^-1 b, (S, n)."""
        return self.equation.state_product_transposed(u, v, self.riesz.gradient(b))

    def adjoint_state(self, u: Tensor, v: Tensor, q: Tensor) -> Tensor:
        """The adjoint variable p = K^-1 J q of J^T p = grad_u f, (S, n)."""
        return self.riesz.gradient(self.equation.state_product(u, v, q))


def _columns(rows: Tensor) -> Tensor:
    """(S, m, n) test images -> (S n, m) scores, each of them of all the scenarios at once."""
    scenarios, count, n = rows.shape
    if scenarios == 1:
        return rows[0].T
    # Scenarios have independent tests, so that the terms across them average out.
    return rows.transpose(1, 2).reshape(scenarios * n, count)


@dataclass(frozen=True)
class ResidualFactors:
    """The inverse of J^T K^-1 J by the factors of J."""

    jacobian: StateFactors
    riesz: RieszMap
    description: str = "J^-1 K J^-T"

    def solve(self, g: Tensor) -> Tensor:
        return self.jacobian.solve(self.riesz.covector(self.jacobian.solve_transposed(g)))

    def newton_step(self, residual: Tensor) -> Tensor:
        """Jbar^-1 R: at another point nearer to J^-1 R than A J^T K^-1 R, which squares how far J and Jbar differ."""
        return self.jacobian.solve(residual)

    def adjoint(self, g: Tensor) -> Tensor:
        return self.jacobian.solve_transposed(g)


def residual_model(space: Space, equation: StateEquation, observation: Observation) -> ResidualModel:
    """The residual form of any equation for one field, tested in the H1 product of its state space.

    The product of gradients alone where there are Dirichlet values, which make it a norm; times a number that
    gives it the size and the units of J, so that residuals compare with |u|_K.
    """
    device = equation.lift.device
    one = torch.ones_like(space.cells.quadrature.weights)[None]
    first = 1 if equation.unknowns < space.size else 0
    blocks = {(i, i): one for i in range(first, space.cells.components)}
    whole = space.cells.assemble(space.cells, blocks, symmetric=True)
    jacobian = equation.linearise(
        equation.lift.new_zeros(equation.scenarios, equation.unknowns),
        equation.lift.new_zeros(equation.controls),
    ).whole.mean()
    size = float(np.median(np.abs(jacobian.diagonal()) / whole.host().diagonal()))
    if math.isfinite(size) and size > 0.0:
        blocks = {key: size * block for key, block in blocks.items()}
        whole = ScenarioMatrix(whole.pattern, size * whole.data, whole.shape, symmetric=True)
    gram = SparseMatrix(whole.restrict(equation.free, equation.free).host(), device, symmetric=True)
    return ResidualModel(
        equation,
        riesz=factorised_riesz_map(gram, equation.counts),
        root=gram_root(space.cells.columns(equation.free), blocks),
        whole_gram=SparseMatrix(whole.host(), device, symmetric=True),
        observation=observation,
    )
