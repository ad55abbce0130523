"""The residual form: random tests of the weak residual.

    y = <w, R(u, v)> + sigma eps,   w ~ N(0, K^-1),   l = (<w, R> - sigma eps)^2 / (2 sigma^2)

E l is half the squared dual norm of the residual over sigma^2 (plus a constant), for any PDE; with J = dR/du
the Fisher information is J^T K^-1 J / sigma^2, and at the solution it is the Hessian.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..engine.bilevel import CrossFactors, InnerBatch, Sample, StateFactors
from ..fem.evaluation_operator import gram_root
from ..fem.state_space import StateSpace
from ..linalg.factorisation import factorised_riesz_map, gram_solver
from ..linalg.products import repeated
from ..linalg.riesz import RieszMap, block_riesz_map
from ..linalg.safe_lengths import length
from ..linalg.sparse import SparseMatrix
from ..pde.equation import StateEquation
from ..pde.evolution import EvolutionEquation
from ..pde.linearisation import Factors, Linearisation
from .continuation import followed
from .model import Observation, gaussian
from .quotient import quotient_riesz_map

# The inner product of the tests of a field: h1, l2 for a multiplier, or value for a field without gradients.
TestNorm = Literal["h1", "l2", "value"]


@dataclass(frozen=True, eq=False)
class ResidualModel:
    """The residual form of a state equation.

    Attributes:
        equation: R.
        riesz: K, the inner product of the test space.
        root: G with K = G^T G; where a field is determined up to a constant only, on the coefficients, of which the
            unknowns are the free ones.
        whole_gram: K on the whole state space, Dirichlet functions included, (N, N).
        observation: options.
    """

    equation: StateEquation
    riesz: RieszMap
    root: SparseMatrix
    whole_gram: SparseMatrix
    observation: Observation
    name: str = "residual"
    definite: bool = False

    def start(self, v: Tensor) -> Tensor:
        """Zero, or for a nonlinear equation the smoothest extension of the Dirichlet values: zero inside is far from
        any solution near the boundary. An evolution is solved step by step, and an equation with easier ones near it is
        solved along a path of these."""
        u = self.equation.lift.new_zeros(self.equation.scenarios, self.equation.unknowns)
        if self.equation.linear:
            return u
        if isinstance(self.equation, EvolutionEquation):
            return self.equation.march(v)
        full = self.equation.embed(u, v)
        if torch.count_nonzero(full):
            u = u - self.riesz.gradient(self.equation.restrict(self.whole_gram.mv(full)))
        return u if self.equation.easier is None else followed(self.equation, self.riesz, v, u)

    def tests(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Test functions w = K^-1 G^T z, z ~ N(0, I), so that w ~ N(0, K^-1); (S, m, n) for shape (S, m)."""
        scenarios, count = shape
        white = gaussian((scenarios * count, self.root.shape[0]), generator, self.equation.lift)
        coloured = self.root.rmv(white)
        if self.equation.zero_mean is not None:
            coloured = self.equation.restrict(coloured)
        return self.riesz.gradient(coloured).reshape(scenarios, count, -1)

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
        rms = length(tested, lambda unit: unit) / math.sqrt(tested.numel())
        misfit, factors, inflation = tested, torch.ones_like(tested), 0.0
        if sample.noise is not None:
            sigma = self.observation.deviation(rms)
            misfit = tested - sigma * sample.noise
            factors = misfit / sigma
            inflation = (rms / sigma) * (rms / sigma)

        def weighted(q: Tensor) -> Tensor:
            """<w, J q> of every test."""
            return torch.einsum("smn,sn->sm", images, q)

        def cross(q: Tensor) -> Tensor:
            mixture = torch.einsum("smn,sm->sn", w, weighted(q)) / count
            return self.equation.control_product_transposed(u, v, mixture)

        def cross_factors() -> CrossFactors:
            """R_v^T w and J^T w of every test."""
            tests = w.unbind(1)
            left = torch.stack([self.equation.scenario_control_products(u, v, each) for each in tests], 1)
            return CrossFactors(left / count, images)

        return InnerBatch(
            gradient=torch.einsum("smn,sm->sn", images, misfit) / count,
            scores=_columns(images * factors[..., None]),
            residual=rms * math.sqrt(scenarios),
            # E w w^T B w w^T for Gaussian w gives the mean-square contraction 1 - m / (m + n + 1) at this step.
            step=count / (count + n + 1),
            hessian=lambda q: torch.einsum("smn,sm->sn", images, weighted(q)) / count,
            cross=cross,
            cross_factors=cross_factors,
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
        return ResidualFactors(self.equation.linearise(u, v).jacobian.mean_factors, self.riesz)

    def state_factors(self, u: Tensor, v: Tensor) -> StateFactors:
        """The factors of every scenario's J."""
        return self.equation.linearise(u, v).factors

    def is_metric(self, derivative: Linearisation) -> bool:
        return False

    def inner_covector(self, u: Tensor, v: Tensor, b: Tensor) -> Tensor:
        """H x for the solution x of J x = b, which is J^T K^-1 b, (S, n)."""
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

    jacobian: Factors
    riesz: RieszMap
    description: str = "J^-1 K J^-T"

    def within(self, rtol: float) -> ResidualFactors:
        return replace(self, jacobian=self.jacobian.within(rtol))

    def solve(self, g: Tensor) -> Tensor:
        return self.jacobian.solve(self.riesz.covector(self.jacobian.solve_transposed(g)))

    def newton_step(self, residual: Tensor) -> Tensor:
        """Jbar^-1 R, which at another point is nearer to J^-1 R than A J^T K^-1 R, where the difference of J and Jbar
        is squared."""
        return self.jacobian.solve(residual)

    def adjoint(self, g: Tensor) -> Tensor:
        return self.jacobian.solve_transposed(g)


def residual_model(
    space: StateSpace,
    equation: StateEquation,
    observation: Observation,
    v: Tensor,
    norms: Sequence[TestNorm] = ("h1",),
    level: Tensor | None = None,
) -> ResidualModel:
    """The residual form of any equation.

    A field is tested in its H1 product, and in the product of gradients alone where Dirichlet values make this a norm.
    A field whose equation has no gradients is tested in L2. A factor gives the product the size and the units of J, so
    that residuals compare with |u|_K. A multiplier, such as a pressure, is tested in L2, with the reciprocal of this
    factor. All are integrated in time.

    Args:
        space: the space of the state at one time.
        v: (p,) a control at which J has its usual size.
        norms: the norm of each field.
        level: (P,) factor of the value beside the gradient in H1, with Dirichlet values and without.
    """
    device = equation.lift.device
    free = equation.spatial_free
    one = torch.ones_like(space.cells.quadrature.weights)[None]
    u = equation.lift.new_zeros(equation.scenarios, equation.unknowns)
    diagonal = equation.linearise(u, v).whole.mean().diagonal()
    stride = space.cells.stride
    blocks: dict[tuple[int, int], Tensor] = {}
    main = 1.0
    for k, (norm, first, end) in enumerate(zip(norms, space.offsets[:-1], space.offsets[1:], strict=True)):
        value = k * stride
        gradients = range(value + 1, value + stride) if norm == "h1" else ()
        if norm == "l2":
            blocks[value, value] = one / main
            continue
        fixed = np.isin(np.arange(first, end), free, invert=True).any()
        product = {(i, i): one for i in gradients}
        if level is not None:
            product[value, value] = level.reshape(one.shape)
        elif norm == "value" or not fixed:
            product[value, value] = one
        unscaled = space.cells.assemble(space.cells, product, symmetric=True).host()
        size = float(np.median(np.abs(diagonal[first:end]) / unscaled.diagonal()[first:end]))
        main = size if math.isfinite(size) and size > 0.0 else 1.0
        blocks.update({key: main * weight for key, weight in product.items()})
    whole = space.cells.assemble(space.cells, blocks, symmetric=True)
    levels = equation.size // space.size
    steps, measure = equation.repeats, equation.measure
    whole_gram = repeated(SparseMatrix(whole.host(), device, symmetric=True), levels, measure)
    if equation.zero_mean is not None:
        root = gram_root(space.cells, blocks)
        return ResidualModel(equation, quotient_riesz_map(equation, whole_gram), root, whole_gram, observation)
    gram = whole.restrict(free, free).host()
    root = gram_root(space.cells.columns(free), blocks)
    solver = gram_solver(equation.solver)
    riesz = factorised_riesz_map(SparseMatrix(gram, device, symmetric=True), equation.counts, solver)
    return ResidualModel(
        equation,
        riesz=block_riesz_map([(riesz, steps, measure)]),
        root=repeated(root, steps, 1.0 if steps == 1 else math.sqrt(measure)),
        whole_gram=whole_gram,
        observation=observation,
    )
