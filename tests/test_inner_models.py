"""The inner statistical models: moments of their samples, products and inverses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from nhgd_pde.inner.energy import _coloured, energy_model
from nhgd_pde.inner.model import InnerModel, Observation
from nhgd_pde.inner.residual import residual_model
from nhgd_pde.linalg.factorisation import ScenarioFactorisation
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.linalg.sparse import SparseMatrix
from nhgd_pde.pde.equation import StateEquation
from problems import equation_of, in_conductivity, of_one_field, quasilinear, random, slope, space_of

SAMPLES = [100, 316, 1000, 3162, 10000]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def residual_form(scenarios: int = 1, observation: Observation | None = None, linear: bool = False) -> InnerModel:
    """The residual form on a nonlinear equation with 12 unknowns, or on a linear one."""
    functions = space_of(2, 3, "P1")
    if linear:
        equation = equation_of(functions, scenarios=scenarios, affine=True, symmetric=True)
    else:
        equation = equation_of(functions, quasilinear, scenarios, control=in_conductivity)
    return residual_model(
        of_one_field(functions), equation, observation or Observation(), torch.zeros(equation.controls).double()
    )


def energy_form(scenarios: int = 1, observation: Observation | None = None, varied: bool = True) -> InnerModel:
    functions = space_of(2, 3, "P1")
    equation = equation_of(functions, scenarios=scenarios, affine=True, symmetric=True, varied=varied)
    return energy_model(equation, observation or Observation(), torch.zeros(equation.controls).double())


forms = pytest.mark.parametrize("form", [residual_form, energy_form])
Form = Callable[..., InnerModel]


def equation_in(model: InnerModel) -> StateEquation:
    equation = model.equation  # type: ignore[attr-defined]
    assert isinstance(equation, StateEquation)
    return equation


def point(model: InnerModel) -> tuple[Tensor, Tensor]:
    equation = equation_in(model)
    u = 0.5 * random(equation.scenarios, equation.unknowns, seed=1)
    return u, 0.3 * random(equation.controls, seed=2)


def solution(model: InnerModel, v: Tensor) -> Tensor:
    """The state by Newton's method."""
    equation = equation_in(model)
    u = torch.zeros(equation.scenarios, equation.unknowns, dtype=v.dtype)
    for _ in range(12):
        u = u - model.state_factors(u, v).solve(equation.residual(u, v))
    assert equation.residual(u, v).norm() < 1e-13
    return u


def jacobians(model: InnerModel, u: Tensor, v: Tensor) -> Tensor:
    """Dense (S, n, n)."""
    state = equation_in(model).linearise(u, v).state
    return torch.stack([torch.from_numpy(state.host(s).toarray()) for s in range(len(u))])


def gram(model: InnerModel) -> Tensor:
    return torch.from_numpy(model.riesz.matrix.host.toarray())


def fisher(model: InnerModel, u: Tensor, v: Tensor) -> Tensor:
    """The exact Fisher information (d, d), which is block diagonal over the scenarios."""
    j = jacobians(model, u, v)
    blocks = j if model.name == "energy" else j.transpose(1, 2) @ torch.linalg.solve(gram(model), j)
    return torch.block_diag(*blocks)


def moment(model: InnerModel, u: Tensor, v: Tensor, count: int, seed: int) -> Tensor:
    """S S^T / m of one batch."""
    scores = model.batch(u, v, model.sample(count, seeded(seed))).scores
    assert scores.shape == (u.numel(), count)
    return scores @ scores.T / count


def rate(error: Callable[[int, int], Tensor], scale: Tensor) -> float:
    """The exponent of the number of samples in the root mean square error over several seeds."""
    errors = [
        float(np.sqrt(np.mean([float((error(m, seed).norm() / scale.norm()) ** 2) for seed in range(12)])))
        for m in SAMPLES
    ]
    return slope([float(m) for m in SAMPLES], errors)


# Samples


def test_test_functions_have_the_inverse_gram_matrix_as_covariance() -> None:
    model = residual_form()
    (w,) = model.tests((1, 20000), seeded(0))  # type: ignore[attr-defined]
    root = torch.linalg.cholesky(gram(model))
    white = w @ root
    n, count = white.shape[1], len(white)
    deviation = (white.T @ white / count - torch.eye(n, dtype=w.dtype)).norm()
    # A Wishart matrix deviates by sqrt(n (n + 1) / samples) on average.
    assert float(deviation) == pytest.approx((n * (n + 1) / count) ** 0.5, rel=0.25)
    assert white.mean(0).norm() < 3 * (n / count) ** 0.5
    assert white[:-1].mul(white[1:]).mean().abs() < 4 / (n * count) ** 0.5


@forms
@pytest.mark.parametrize("scenarios", [1, 3])
def test_the_sampled_fisher_information_converges_at_the_monte_carlo_rate(form: Form, scenarios: int) -> None:
    model = form(scenarios)
    u, v = point(model)
    exact = fisher(model, u, v)
    assert rate(lambda m, seed: moment(model, u, v, m, seed) - exact, exact) == pytest.approx(-0.5, abs=0.1)


@forms
@pytest.mark.parametrize("scores", ["model", "observed"])
def test_the_mean_of_sampled_gradients_converges_to_the_expected_gradient(form: Form, scores: str) -> None:
    model = form(3, Observation(scores, 2.0))
    u, v = point(model)
    exact = model.gradient(u, v)

    def error(count: int, seed: int) -> Tensor:
        return model.batch(u, v, model.sample(count, seeded(seed))).gradient - exact

    if form is energy_form and scores == "model":
        assert error(1, 0).norm() < 1e-13 * exact.norm()
    else:
        assert rate(error, exact) == pytest.approx(-0.5, abs=0.1)


@forms
def test_expected_gradients_are_derivatives_of_the_negative_log_likelihood(form: Form) -> None:
    """|R|^2_{K^-1} / 2, or the energy u . J u / 2 + u . R(0)."""
    model = form(3)
    u, v = point(model)
    equation = equation_in(model)

    def likelihood(at: Tensor) -> float:
        r = equation.residual(at, v)
        if model.name == "energy":
            return 0.5 * dot(at, r + equation.residual(torch.zeros_like(at), v))
        return 0.5 * model.riesz.dual_norm(r) ** 2

    w, t = random(*u.shape, seed=7), 1e-4
    slope_along = (likelihood(u + t * w) - likelihood(u - t * w)) / (2 * t)
    assert dot(model.gradient(u, v), w) == pytest.approx(slope_along, rel=1e-6)


@forms
@pytest.mark.parametrize("noise", [1.0, 1e-3])
def test_observed_scores_reproduce_the_fisher_information_at_the_solution(form: Form, noise: float) -> None:
    """Where R = 0 the size of the noise cancels."""
    model = form(2, Observation("observed", noise))
    v = point(model)[1]
    u = solution(model, v)
    exact = fisher(model, u, v)
    assert (moment(model, u, v, 40000, 3) - exact).norm() < 0.05 * exact.norm()


@forms
def test_matched_noise_has_a_positive_lower_bound(form: Form) -> None:
    """Without a source and with zero values on the boundary, R is exactly zero at zero."""
    model = form(1, Observation("observed", None))
    equation = equation_in(model)
    (integral,) = equation.integrals
    silent = {**integral.coefficients, "source": torch.zeros_like(integral.coefficients["source"])}
    quiet = replace(equation, integrals=(replace(integral, coefficients=silent),), lift=torch.zeros_like(equation.lift))
    model = replace(model, equation=quiet)  # type: ignore[type-var]
    u, v = (torch.zeros_like(each) for each in point(model))
    assert not quiet.residual(u, v).any()
    exact = fisher(model, u, v)
    assert (moment(model, u, v, 40000, 3) - exact).norm() < 0.05 * exact.norm()


def inflated(model: InnerModel, u: Tensor, v: Tensor, sigma: float) -> Tensor:
    """The second moment of observed scores away from the solution, one scenario.

    By Isserlis' theorem E[<w,R>^2 w w^T] = (R . K^-1 R) K^-1 + 2 (K^-1 R)(K^-1 R)^T, for w ~ N(0, K^-1).
    """
    mean = model.gradient(u, v)[0]
    exact = fisher(model, u, v)
    rank_one = torch.outer(mean, mean) / sigma**2
    if model.name == "energy":
        return exact + rank_one
    ratio = (model.riesz.dual_norm(equation_in(model).residual(u, v)) / sigma) ** 2
    return (1.0 + ratio) * exact + 2.0 * rank_one


@forms
@pytest.mark.parametrize("relative_noise", [0.03, 1.0, 30.0])
def test_a_residual_larger_than_the_noise_inflates_observed_scores(form: Form, relative_noise: float) -> None:
    model = form()
    u, v = point(model)
    tested = model.riesz.dual_norm(equation_in(model).residual(u, v))
    sigma = relative_noise * tested
    noisy = replace(model, observation=Observation("observed", sigma))  # type: ignore[type-var]
    expected, exact = inflated(model, u, v, sigma), fisher(model, u, v)
    found = moment(noisy, u, v, 100000, 5)
    assert (found - expected).norm() < 0.05 * expected.norm()
    growth = float(found.trace() / exact.trace())
    if relative_noise == 30.0:
        assert growth < 1.05
    elif relative_noise == 0.03:
        # In the energy form the inflation is along one direction only.
        assert growth > (1000.0 if form is residual_form else 50.0)


@forms
@pytest.mark.parametrize("solved", [False, True])
def test_matched_noise_inflates_by_a_known_amount_however_small_the_residual(form: Form, solved: bool) -> None:
    """The residual form is doubled, and both forms have more along the gradient. The solved residual is rounding."""
    model = form(1, Observation("observed", None))
    u, v = point(model)
    if solved:
        u = solution(model, v)
    r = equation_in(model).residual(u, v)
    sigma = model.riesz.dual_norm(r) if form is residual_form else model.riesz.dual_norm_bound(r)
    expected, exact = inflated(model, u, v, sigma), fisher(model, u, v)
    assert (moment(model, u, v, 100000, 5) - expected).norm() < 0.05 * expected.norm()
    assert torch.linalg.eigvals(torch.linalg.solve(exact, expected)).real.max() < 4.0 + 1e-6


@forms
@pytest.mark.parametrize("scores", ["model", "observed"])
def test_batches_are_reproducible(form: Form, scores: str) -> None:
    model = form(2, Observation(scores, None))
    u, v = point(model)
    first, again, other = (model.batch(u, v, model.sample(5, seeded(seed))) for seed in (1, 1, 2))
    assert torch.equal(first.scores, again.scores) and torch.equal(first.gradient, again.gradient)
    assert (first.residual, first.step) == (again.residual, again.step)
    assert not torch.equal(first.scores, other.scores)
    generator = seeded(1)
    following = [model.batch(u, v, model.sample(5, generator)).scores for _ in range(2)]
    assert torch.equal(following[0], first.scores) and not torch.equal(following[1], first.scores)


def test_the_residual_of_a_batch_estimates_the_dual_norm() -> None:
    model = residual_form(3)
    u, v = point(model)
    exact = model.riesz.dual_norm(equation_in(model).residual(u, v))
    assert model.batch(u, v, model.sample(20000, seeded(0))).residual == pytest.approx(exact, rel=0.02)
    certain = energy_form(3)
    u, v = point(certain)
    exact = certain.riesz.dual_norm(equation_in(certain).residual(u, v))
    assert exact <= certain.batch(u, v, certain.sample(4, seeded(0))).residual < 10.0 * exact


@pytest.mark.parametrize("count", [4, 32])
def test_the_step_of_a_batch_contracts_the_error_as_estimated(count: int) -> None:
    """For Gaussian tests E|I - eta W|^2 = 1 - m/(m + n + 1), W the mean of m products w w^T K."""
    model = residual_form(linear=True)
    v = point(model)[1]
    star, generator = solution(model, v), seeded(0)
    inverse = model.factors(star, v)
    u = star + model.riesz.gradient(random(*star.shape))
    equation = equation_in(model)
    before = model.riesz.dual_norm(equation.residual(u, v)) ** 2
    after = []
    for _ in range(400):
        batch = model.batch(u, v, model.sample(count, generator))
        new = u - batch.step * inverse.solve(batch.gradient)
        after.append(model.riesz.dual_norm(equation.residual(new, v)) ** 2 / before)
    n = u.shape[1]
    assert float(np.mean(after)) == pytest.approx(1.0 - count / (count + n + 1), rel=0.1)


# Products and inverses


@pytest.mark.parametrize("form", [residual_form, energy_form])
@pytest.mark.parametrize("scenarios", [1, 3])
def test_hessian_and_cross_products_are_those_of_dense_matrices(form: Form, scenarios: int) -> None:
    model = form(scenarios)
    u, v = point(model)
    q = random(*u.shape, seed=3)
    exact = (fisher(model, u, v) @ q.reshape(-1)).reshape(u.shape)
    assert (model.hessian_product(u, v, q) - exact).norm() < 1e-12 * exact.norm()
    control = equation_in(model).linearise(u, v).control
    total = torch.zeros_like(v)
    assert control.direct is not None
    for s, p in enumerate(model.adjoint_state(u, v, q)):
        total += torch.from_numpy(control.direct.host(s).toarray()).T @ p
    assert (model.cross_product(u, v, q) - total).norm() < 1e-12 * total.norm()


@pytest.mark.parametrize(
    "model",
    [
        residual_form(),
        residual_form(linear=True),
        energy_form(),
        energy_form(3, varied=False),
    ],
    ids=["nonlinear", "linear", "energy", "energy shared"],
)
def test_factors_invert_the_hessian(model: InnerModel) -> None:
    u, v = point(model)
    q = random(*u.shape, seed=3)
    inverse = model.factors(u, v)
    assert (inverse.solve(model.hessian_product(u, v, q)) - q).norm() < 1e-10 * q.norm()
    assert (model.hessian_product(u, v, inverse.solve(q)) - q).norm() < 1e-10 * q.norm()
    assert "J^-1" in inverse.description


@forms
def test_factors_of_several_scenarios_are_those_of_the_mean(form: Form) -> None:
    model = form(3)
    u, v = point(model)
    mean, k = jacobians(model, u, v).mean(0), gram(model)
    q = random(1, u.shape[1])
    exact = mean @ q[0] if model.name == "energy" else mean.T @ torch.linalg.solve(k, mean @ q[0])
    assert (model.factors(u, v).solve(exact[None]) - q).norm() < 1e-10 * q.norm()


@forms
@pytest.mark.parametrize("scenarios", [1, 3])
def test_state_factors_invert_every_jacobian(form: Form, scenarios: int) -> None:
    model = form(scenarios)
    u, v = point(model)
    w = random(*u.shape, seed=3)
    factors, equation = model.state_factors(u, v), equation_in(model)
    assert (factors.solve(equation.state_product(u, v, w)) - w).norm() < 1e-10 * w.norm()
    assert (factors.solve_transposed(equation.state_product_transposed(u, v, w)) - w).norm() < 1e-10 * w.norm()


@forms
def test_factors_give_the_natural_step_and_the_adjoint_variable_by_one_solve(form: Form) -> None:
    """A g is J^-1 R, g the inner gradient, and K^-1 J A f_u is J^-T f_u."""
    model = form()
    u, v = point(model)
    factors, equation = model.factors(u, v), equation_in(model)
    residual, f_u = equation.residual(u, v), random(*u.shape, seed=4)
    before = replace(equation.counts)
    step, p = factors.newton_step(residual), factors.adjoint(f_u)
    assert (equation.counts - before).solves == 2
    natural = factors.solve(model.gradient(u, v))
    assert (step - natural).norm() < 1e-9 * natural.norm()
    literal = model.adjoint_state(u, v, factors.solve(f_u))
    assert (p - literal).norm() < 1e-9 * literal.norm()


@forms
def test_a_point_is_factorised_once_for_all_uses(form: Form) -> None:
    model = form()
    u, v = point(model)
    model.factors(u, v).newton_step(u)
    made = equation_in(model).counts.factorisations
    model.state_factors(u, v).solve(u)
    model.factors(u.clone(), v.clone()).adjoint(u)
    assert equation_in(model).counts.factorisations == made


@pytest.mark.parametrize("linear", [True, False])
def test_constant_factors_are_made_once(linear: bool) -> None:
    made = []
    for model in (residual_form(3, linear=True), energy_form(3)) if linear else (residual_form(3),):
        u, v = point(model)
        model.state_factors(u, v)
        before = equation_in(model).counts.factorisations
        model.state_factors(u, v)
        made.append(equation_in(model).counts.factorisations - before)
    assert made == [0, 0] if linear else [3]


# The hypergradient


def objective(model: InnerModel, u: Tensor, v: Tensor) -> tuple[float, Tensor, Tensor]:
    """The sum of (u - 1)^4 / 4 and of cos(v), and its derivatives."""
    return float(((u - 1) ** 4).sum() / 4 + torch.cos(v).sum()), (u - 1) ** 3, -torch.sin(v)


@forms
@pytest.mark.parametrize("scenarios", [1, 3])
def test_the_hypergradient_is_the_discrete_adjoint(form: Form, scenarios: int) -> None:
    """h = f_v - (d2 g / dv du)^T H^-1 f_u equals f_v - R_v^T J^-T f_u, at any point."""
    model = form(scenarios)
    u, v = point(model)
    _, f_u, f_v = objective(model, u, v)
    q = torch.linalg.solve(fisher(model, u, v), f_u.reshape(-1)).reshape(u.shape)
    equation = equation_in(model)
    adjoint = ScenarioFactorisation(equation.linearise(u, v).state, equation.counts).solve_transposed(f_u)
    assert (model.adjoint_state(u, v, q) - adjoint).norm() < 1e-10 * adjoint.norm()
    h = f_v - model.cross_product(u, v, q)
    exact = f_v - equation.control_product_transposed(u, v, adjoint)
    assert (h - exact).norm() < 1e-10 * exact.norm()


@forms
@pytest.mark.parametrize("scenarios", [1, 3])
def test_the_hypergradient_is_the_derivative_of_the_reduced_objective(form: Form, scenarios: int) -> None:
    model = form(scenarios)
    v = point(model)[1]
    u = solution(model, v)
    _, f_u, f_v = objective(model, u, v)
    q = torch.linalg.solve(fisher(model, u, v), f_u.reshape(-1)).reshape(u.shape)
    h = f_v - model.cross_product(u, v, q)
    d = random(*v.shape, seed=9)
    value = objective(model, u, v)[0]
    steps = [1e-1, 3e-2, 1e-2, 3e-3]
    left = [abs(objective(model, solution(model, v + t * d), v + t * d)[0] - value - t * dot(h, d)) for t in steps]
    assert slope(steps, left) == pytest.approx(2.0, abs=0.1)


@forms
@pytest.mark.parametrize("scores", ["model", "observed"])
def test_sampled_second_derivatives_average_to_the_expected_ones(form: Form, scores: str) -> None:
    model = form(3, Observation(scores, 2.0))
    u, v = point(model)
    w = random(*u.shape, seed=3)

    def hessian_error(count: int, seed: int) -> Tensor:
        return model.batch(u, v, model.sample(count, seeded(seed))).hessian(w) - model.hessian_product(u, v, w)

    def cross_error(count: int, seed: int) -> Tensor:
        return model.batch(u, v, model.sample(count, seeded(seed))).cross(w) - model.cross_product(u, v, w)

    if model.name == "energy":  # every term has the Hessian of the expectation
        assert not hessian_error(5, 0).norm() and not cross_error(5, 0).norm()
        return
    assert rate(hessian_error, model.hessian_product(u, v, w)) == pytest.approx(-0.5, abs=0.1)
    assert rate(cross_error, model.cross_product(u, v, w)) == pytest.approx(-0.5, abs=0.1)


@forms
def test_a_sample_does_not_depend_on_the_point_of_evaluation(form: Form) -> None:
    model = form(3)
    u, v = point(model)
    sample = model.sample(7, seeded(0))
    first, again = (model.batch(u, v, sample) for _ in range(2))
    assert torch.equal(first.gradient, again.gradient) and torch.equal(first.scores, again.scores)
    half = model.batch(0.5 * u, v, sample)
    assert sample.count == half.scores.shape[1] == 7


def test_a_sample_evaluated_with_more_rows_takes_further_random_numbers() -> None:
    """If a coefficient was zero when a sample was drawn, its noise is independent of the rest and repeatable."""
    root = SparseMatrix(sp.identity(6, format="csr"), torch.device("cpu"))
    white = torch.randn((2, 4000, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = _coloured((root,), white)
    assert torch.equal(found[..., :4], white) and torch.equal(found, _coloured((root,), white))
    covariance = torch.cov(found.reshape(-1, 6).T)
    assert (covariance - torch.eye(6, dtype=torch.float64)).abs().max() < 0.06
    # A coefficient that has become zero takes fewer numbers.
    small = SparseMatrix(sp.identity(3, format="csr"), torch.device("cpu"))
    assert torch.equal(_coloured((small,), white), white[..., :3])
