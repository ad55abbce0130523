from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import scipy.optimize
import torch
from bilevel_problems import Explicit, LeastSquares, cubic_problem, least_squares, normal, quadratic_function, seeded
from torch import Tensor

from nhgd_pde.engine.certificate import Sensitivity
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.inner_loop import InnerOptions
from nhgd_pde.engine.loop import Iterate, Minimum, Stopping, worst_residual
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Accuracy, Oracle
from nhgd_pde.engine.outer.gradient import GradientDescent
from nhgd_pde.engine.outer.lbfgs import LBFGS
from nhgd_pde.engine.outer.reduced_objective import Evaluation, blend, failed_evaluation
from nhgd_pde.methods.adjoint import Adjoint, AdjointState

SAMPLED = InnerOptions(tests=16, steps=400)
NO_REFINEMENT = HypergradientOptions(refine=False)

ORACLES: dict[str, Oracle] = {
    "adjoint": Adjoint(),
    "factored": NHGD(InnerOptions(), Factored(), HypergradientOptions()),
    "dense": NHGD(SAMPLED, Dense(), HypergradientOptions()),
    "dense from identity": NHGD(SAMPLED, Dense("identity"), HypergradientOptions()),
    "dense that forgets": NHGD(SAMPLED, Dense(forgetting=0.1), HypergradientOptions()),
}

PROBLEMS: dict[str, Callable[[], Explicit]] = {
    "quadratic": least_squares,
    "quadratic, three scenarios": lambda: least_squares(1, scenarios=3),
    "cubic": cubic_problem,
    "cubic, two scenarios": lambda: cubic_problem(1, scenarios=2),
    "cubic, little regularisation": lambda: cubic_problem(4, n=12, p=6, weight=1e-5),
}


def run(problem: Explicit, oracle: Oracle, stopping: Stopping | None = None) -> tuple[Minimum, list[Iterate]]:
    told: list[Iterate] = []
    found = minimise(problem, oracle, LBFGS(), stopping or Stopping(rtol=1e-8), told.append)
    assert [iterate.iteration for iterate in told] == list(range(len(told)))
    if told:
        # Points that were not evaluated are, where the run ends there.
        assert (
            torch.equal(found.last.evaluation.v, told[-1].evaluation.v) and found.first.evaluation is told[0].evaluation
        )
        assert found.last is told[-1] or not told[-1].evaluation.measured
    return found, told


def optimum(problem: Explicit) -> Tensor:
    if isinstance(problem, LeastSquares):
        return problem.optimum()
    root = scipy.optimize.root(
        lambda v: problem.exact(torch.from_numpy(v))[1].numpy(),
        run(problem, Adjoint(), Stopping(rtol=1e-3))[0].last.evaluation.v.numpy(),
        tol=1e-14,
    )
    return torch.from_numpy(root.x)


@pytest.mark.parametrize("oracle", ORACLES.values(), ids=list(ORACLES))
@pytest.mark.parametrize("make", PROBLEMS.values(), ids=list(PROBLEMS))
def test_every_oracle_finds_the_optimum(make: Callable[[], Explicit], oracle: Oracle) -> None:
    problem = make()
    found, _ = run(problem, oracle)
    assert found.status == "converged", found.message
    evaluation = found.last.evaluation
    assert max(evaluation.state_error, evaluation.adjoint_error) <= 1e-8 and not evaluation.blended
    expected = optimum(problem)
    value, derivative = problem.exact(evaluation.v)
    assert evaluation.value == pytest.approx(value, rel=1e-7)
    assert float((evaluation.v - expected).norm() / expected.norm()) < (1e-3 if problem.weight == 1e-5 else 1e-6)
    assert problem.outer_metric.dual_norm(derivative[None]) < 3e-8 * found.first.gradient_norm
    # Inexact hypergradients take only a few more iterations than exact ones.
    assert found.last.iteration <= 1.5 * run(make(), Adjoint())[0].last.iteration + 5
    assert found.last.evaluations <= 1.3 * found.last.iteration + 8
    assert found.message.startswith("relative gradient ") and "error of the gradient about" in found.message


@pytest.mark.parametrize("name", ["factored", "dense"])
def test_evaluations_far_from_the_optimum_are_solved_only_roughly(name: str) -> None:
    problem = cubic_problem(1, scenarios=2)
    _, told = run(problem, ORACLES[name])
    errors = [max(iterate.evaluation.state_error, iterate.evaluation.adjoint_error) for iterate in told]
    assert max(errors[1:6]) > 1e-5 and errors[-1] < 1e-8
    for before, iterate in pairwise(told):
        exact = problem.exact(iterate.evaluation.v)[1]
        error = problem.outer_metric.dual_norm((iterate.evaluation.derivative - exact)[None])
        # `sensitivity` is an estimate, right up to a small factor.
        assert error < 3.0 * iterate.evaluation.gradient_error + 1e-12
        assert error < 0.1 * before.gradient_norm + 1e-9


def test_sensitivity_is_estimated_from_changes_and_not_from_cancelling_terms() -> None:
    problem = least_squares()
    v, step = problem.optimum(), normal(seeded(2), 12)

    def seen(sensitivity: Sensitivity, at: Tensor) -> tuple[Sensitivity, float]:
        u = problem.solution(at)
        q = torch.linalg.solve(problem.hessians, (u - problem.target)[..., None])[..., 0]
        indirect = -problem.cross_product(u, at, q)
        after = sensitivity.updated(problem, u, q, indirect, error=1e-12)
        return after, problem.outer_metric.dual_norm_estimate(indirect[None])

    first, length = seen(Sensitivity(), v)
    assert first.value == length
    # At the optimum and after a small step the indirect part is small, but its derivative is not.
    second, near = seen(first, v + 1e-3 * step)
    assert near < 1.1 * length and second.value > 3.0 * length
    far, _ = seen(first, v + step)
    assert second.value < far.value < 3.0 * second.value
    # A step that is not larger than the errors gives no information, so the estimate stays.
    noisy, _ = seen(replace(first, error=1.0), v + 1e-3 * step)
    assert noisy.value == pytest.approx(max(length, near), rel=1e-9)
    assert seen(replace(far, error=1.0), v)[0].value == far.value


def test_sensitivity_forgets_a_trial_step_that_was_far_too_long() -> None:
    problem = cubic_problem(1)
    v = torch.zeros(problem.start()[1].shape, dtype=torch.float64)

    def seen(sensitivity: Sensitivity, u: Tensor, scale: float) -> Sensitivity:
        return sensitivity.updated(
            problem, u, scale * u, problem.outer_metric.gradient(v[None])[0] + scale, error=1e-12
        )

    u = torch.ones_like(problem.start()[0])
    near = seen(seen(Sensitivity(), u, 1.0), 1.1 * u, 1.2)
    blown = seen(near, 1e20 * u, 1e20)
    assert blown.value > 1e15
    back = seen(blown, 1.1 * u, 1.2)
    assert near.value <= back.value < 3.0 * near.value


@pytest.mark.parametrize(
    ("problem", "oracle"),
    [
        (least_squares(1, scenarios=3), NHGD(InnerOptions(), Factored(), NO_REFINEMENT)),
        (cubic_problem(1, scenarios=2), NHGD(InnerOptions(), Factored(), NO_REFINEMENT)),
        (least_squares(), NHGD(SAMPLED, Dense("identity"), NO_REFINEMENT)),
        (cubic_problem(), NHGD(SAMPLED, Dense("identity"), NO_REFINEMENT)),
    ],
)
@pytest.mark.parametrize("rtol", [1e-1, 1e-8])
def test_a_gradient_that_is_not_certified_never_converges(problem: Explicit, oracle: NHGD, rtol: float) -> None:
    found, _ = run(problem, oracle, Stopping(iterations=40, rtol=rtol))
    assert found.last.evaluation.adjoint_error > 1e-4
    assert found.status == "stopped"
    if found.last.gradient_norm <= rtol * found.first.gradient_norm:
        assert found.message.startswith("the gradient is small but not certified: state residual ")
        assert f"adjoint residual {found.last.evaluation.adjoint_error:.1e}" in found.message
    # With an exact inverse the same options are certified.
    exact = replace(oracle, inner=InnerOptions(), curvature=Factored())
    assert run(least_squares(), exact)[0].status == "converged"


def test_a_run_out_of_iterations_reports_its_gradient() -> None:
    found, told = run(cubic_problem(), Adjoint(), Stopping(iterations=3))
    assert found.status == "stopped" and len(told) == 4
    norms = f"gradient norm {found.last.gradient_norm:.1e} (goal {1e-8 * told[0].gradient_norm:.1e})"
    assert found.message.startswith(f"3 outer iterations ended, all that were asked for, with {norms}; state residual ")
    assert found.message.endswith("the gradient is only as good as these")


def test_an_interruption_keeps_the_iterate() -> None:
    told: list[Iterate] = []
    found = minimise(cubic_problem(), Adjoint(), LBFGS(), Stopping(), told.append, lambda: len(told) == 3)
    assert found.status == "interrupted" and found.last is told[-1] and found.last.iteration == 2
    assert found.message.startswith("relative gradient ")


def test_a_start_at_the_optimum_is_converged_at_once() -> None:
    problem = least_squares()
    problem.target = problem.solution(torch.zeros(12, dtype=torch.float64))
    found, told = run(problem, Adjoint(), Stopping(atol=1e-10))
    assert found.status == "converged" and len(told) == 1 and found.last.evaluations == 1


@pytest.mark.parametrize("oracle", ORACLES.values(), ids=list(ORACLES))
def test_a_start_close_to_an_optimum_is_not_left(oracle: Oracle) -> None:
    """The value is large and the gradient is small, which does not show the distance from the optimum."""
    problem = cubic_problem(2, weight=1e-4)
    v = run(problem, Adjoint(), Stopping(rtol=1e-5))[0].last.evaluation.v * (1.0 + 1e-4)
    problem.u0, problem.v0 = problem.solution(v), v
    found, told = run(problem, oracle, Stopping(rtol=1e-5))
    assert found.status == "converged", found.message
    assert all(float((iterate.evaluation.v - v).norm() / v.norm()) < 1e-3 for iterate in told)
    assert found.last.evaluations < 40


@dataclass
class Scripted:
    """The exact oracle of a quadratic function, whose certificates are given for each evaluation."""

    inner: Adjoint
    errors: Callable[[int], float]
    fails: Callable[[int], bool] = lambda count: False
    name: str = "scripted"
    count: int = 0

    def init(self, problem: Explicit, u: Tensor, v: Tensor) -> AdjointState:
        return self.inner.init(problem, u, v)

    def evaluate(
        self, problem: Explicit, v: Tensor, state: AdjointState, accuracy: Accuracy
    ) -> tuple[Evaluation, AdjointState]:
        self.count += 1
        if self.fails(self.count):
            return failed_evaluation(v, "no state"), state
        evaluation, state = self.inner.evaluate(problem, v, state, accuracy)
        return replace(evaluation, state_error=self.errors(self.count)), state


def test_the_last_point_is_evaluated_again_as_long_as_this_helps() -> None:
    plain, _ = run(least_squares(), Scripted(Adjoint(), lambda count: 0.0))
    assert plain.last.evaluations == plain.last.iteration + 2
    helped, _ = run(least_squares(), Scripted(Adjoint(), lambda count: 0.4**count))
    assert helped.status == "converged" and helped.last.evaluation.state_error <= 1e-8
    assert helped.last.evaluations > plain.last.evaluations
    stuck, _ = run(least_squares(), Scripted(Adjoint(), lambda count: 1e-7 * 0.9**count))
    assert stuck.status == "stopped" and "not certified" in stuck.message
    # One evaluation replaces the extrapolation, and one more does not help.
    assert stuck.last.evaluations == plain.last.evaluations + 1


def test_an_extrapolated_point_that_cannot_be_evaluated_is_not_converged() -> None:
    plain, _ = run(least_squares(), Scripted(Adjoint(), lambda count: 0.0))
    last = plain.last.evaluations
    found, _ = run(least_squares(), Scripted(Adjoint(), lambda count: 0.0, lambda count: count >= last))
    assert found.status == "stopped" and found.last.evaluation.blended and found.last.evaluation.finite
    assert found.message == "the gradient is small, but the point it was extrapolated to could not be evaluated"


def test_evaluations_that_fail_shorten_the_step() -> None:
    problem = cubic_problem()
    oracle = Scripted(Adjoint(), lambda count: 0.0, lambda count: count in (3, 4, 9))
    found, told = run(problem, oracle)
    assert found.status == "converged"
    assert float((found.last.evaluation.v - optimum(problem)).norm()) < 1e-6
    nothing, told = run(problem, Scripted(Adjoint(), lambda count: 0.0, lambda count: count > 4))
    assert nothing.status == "failed" and nothing.message == "every step tried fails: no state"
    assert nothing.last is told[-1] and nothing.last.evaluation.finite
    never, told = run(problem, Scripted(Adjoint(), lambda count: 0.0, lambda count: True))
    assert never.status == "failed" and never.message == "at the starting point: no state" and told == []


def test_a_failed_evaluation_leaves_a_good_state(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = least_squares()
    u, v = problem.start()
    accuracy = Accuracy(1e-6, 1e-6)
    sampled = NHGD(InnerOptions(tests=16, steps=5), Dense(), HypergradientOptions())
    for oracle in (sampled, Adjoint()):
        _, before = oracle.evaluate(problem, v, oracle.init(problem, u, v), accuracy)
        with monkeypatch.context() as patch:
            patch.setattr(problem, "outer_value", lambda u, v: float("inf"), raising=False)
            failed, after = oracle.evaluate(problem, v + 1.0, before, accuracy)
        assert not failed.finite
        assert after.u is before.u
        if isinstance(oracle, NHGD):
            # The matrix is overwritten in place, so its number of samples has to change with it.
            assert after.inner.curvature.inverse is before.inner.curvature.inverse
            assert after.inner.curvature.samples > before.inner.curvature.samples


def test_gradient_descent_of_the_paper_stagnates_unless_it_refines() -> None:
    problem = least_squares(n=12, p=4, weight=10.0)
    value = problem.exact(problem.optimum())[0]
    gaps, slope = [], problem.exact(torch.zeros(4, dtype=torch.float64))[1]
    columns = [problem.exact(axis)[1] - slope for axis in torch.eye(4, dtype=torch.float64)]
    step = 1.0 / float(torch.linalg.eigvals(problem.outer_metric.gradient(torch.stack(columns))).real.max())
    for options in (NO_REFINEMENT, HypergradientOptions()):
        oracle = NHGD(InnerOptions(tests=12, steps=8), Dense("identity"), options)
        found = minimise(problem, oracle, GradientDescent(step), Stopping(iterations=60))
        gaps.append(problem.exact(found.last.evaluation.v)[0] - value)
    assert abs(gaps[1]) < 1e-3 * gaps[0]


@pytest.mark.parametrize("oracle", [ORACLES["dense"], ORACLES["factored"]])
def test_the_same_seed_gives_the_same_run(oracle: NHGD) -> None:
    ends = [run(cubic_problem(1, scenarios=2), replace(oracle, seed=seed))[0].last for seed in (0, 0, 1)]
    assert torch.equal(ends[0].evaluation.v, ends[1].evaluation.v)
    assert torch.equal(ends[0].oracle.u, ends[1].oracle.u)
    assert (oracle.inner.tests is None) == torch.equal(ends[0].evaluation.v, ends[2].evaluation.v)


@pytest.mark.parametrize("name", ["adjoint", "factored"])
def test_the_state_of_the_last_iterate_belongs_to_it(name: str) -> None:
    for stopping in (Stopping(), Stopping(iterations=4)):
        problem = least_squares()
        last = run(problem, ORACLES[name], stopping)[1][-1]
        assert last.evaluation.blended == (stopping.iterations == 4)
        exact = problem.solution(last.evaluation.v)
        assert torch.allclose(last.oracle.u, exact, rtol=0.0, atol=1e-11)
        assert last.evaluation.value == pytest.approx(problem.outer_value(exact, last.evaluation.v), rel=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 4.0])
def test_a_blend_is_the_evaluation_of_a_quadratic(share: float) -> None:
    function, _, _ = quadratic_function(5, 10.0)

    def at(v: Tensor) -> Evaluation:
        return function.evaluate(function, v, function.init(function, v, v), Accuracy(0.0, 0.0))[0]

    a, b = at(normal(seeded(0), 5)), at(normal(seeded(1), 5))
    mixed, exact = blend(a, b, share), at(a.v + share * (b.v - a.v))
    assert mixed.blended and not exact.blended
    assert mixed.value == pytest.approx(exact.value, rel=1e-12)
    assert torch.allclose(mixed.derivative, exact.derivative) and torch.allclose(mixed.gradient, exact.gradient)


def test_newton_steps_of_the_adjoint_are_damped_and_failures_reported() -> None:
    problem = cubic_problem()
    v = normal(seeded(0), problem.outer_size)
    evaluation, state = Adjoint(steps=2).evaluate(
        problem, v, Adjoint().init(problem, *problem.start()), Accuracy(1e-12, 1e-12)
    )
    assert evaluation.finite and evaluation.state_error > 1e-12
    assert evaluation.message == f"2 inner steps left a relative residual of {evaluation.state_error:.1e}"
    exact, derivative = problem.exact(v)
    good, _ = Adjoint().evaluate(problem, v, state, Accuracy(1e-13, 1e-13))
    assert good.message == "" and good.value == pytest.approx(exact, rel=1e-12)
    assert torch.allclose(good.derivative, derivative, rtol=1e-10)
    lost, _ = Adjoint().evaluate(problem, torch.full_like(v, float("nan")), state, Accuracy(1e-8, 1e-8))
    assert not lost.finite


@pytest.mark.parametrize("errors", [(math.nan, 0.0), (0.0, math.nan)])
def test_a_residual_that_is_not_known_is_never_the_smaller_one(errors: tuple[float, float]) -> None:
    evaluation = replace(failed_evaluation(torch.zeros(1), ""), state_error=errors[0], adjoint_error=errors[1])
    assert math.isnan(worst_residual(evaluation))
