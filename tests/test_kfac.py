"""Kronecker-factored curvature as a preconditioner of classifiers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from bilevel_problems import least_squares, normal, seeded
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.curvature.kfac import KFAC, KroneckerProblem
from nhgd_pde.linalg.conjugate_gradients import conjugate_gradients
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.tasks.classification import Classification, Examples
from nhgd_pde.tasks.classifier import Classifier
from nhgd_pde.tasks.training_sets import WeightedExamples

CLEANING = "problems/digits_cleaning.yaml"
ACCURATE = {"hypergradient.refine": 1e-9, "inner.tolerance": 1e-9}


def classifier_on(images: Tensor, classes: int = 4, ridge: float = 1e-3) -> Classification:
    labels = torch.arange(len(images)) % classes
    training = WeightedExamples(Examples(images, labels))
    return Classification.of(Classifier(images.shape[1], classes), training, Examples(images, labels), ridge)


def fisher(problem: Classification, u: Tensor, v: Tensor) -> Tensor:
    return problem.hessian_product(u, v, torch.eye(u.shape[1], dtype=u.dtype))


def test_the_product_is_the_fisher_information_where_all_inputs_are_equal_or_all_outputs() -> None:
    """Then inputs and outputs are independent, and the approximation is exact, the ridge and the weights included."""
    generator = seeded(0)
    one = torch.rand(1, 6, generator=generator, dtype=torch.float64).expand(10, 6)
    several = torch.rand(10, 6, generator=generator, dtype=torch.float64)
    for images, u in ((one, normal(generator, 1, 28)), (several, torch.zeros(1, 28, dtype=torch.float64))):
        problem = classifier_on(images)
        v = normal(generator, 10)
        exact, found = fisher(problem, u, v), KFAC().init(problem, u, v)
        g = normal(generator, 3, 28)
        torch.testing.assert_close(found.blocks.multiply(g), g @ exact, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.solve(g) @ exact, g, rtol=1e-8, atol=1e-8)


def digits() -> tuple[Classification, Tensor, Tensor]:
    """The cleaning of digits at weights that know the wrong labels a little, and the trained classifier."""
    problem, split = nhgd.load(CLEANING).bilevel, nhgd.load(CLEANING).split  # type: ignore[attr-defined]
    v = torch.where(split.wrong, -0.5, 0.5).double()
    return problem, problem.trained(v), v


def test_conjugate_gradients_need_fewer_steps() -> None:
    problem, u, v = digits()
    right = problem.outer_derivatives(u, v)[0]
    exact = problem.fisher_factors(u, v).solve(right)

    def steps(preconditioner: Callable[[Tensor], Tensor]) -> int:
        def error(x: Tensor, residual: Tensor) -> float:
            return float((x - exact).norm() / exact.norm())

        found = conjugate_gradients(lambda w: problem.hessian_product(u, v, w), right, preconditioner, error=error)
        assert found.converged
        return found.iterations

    kronecker = steps(KFAC().init(problem, u, v).solve)
    assert 1.5 * kronecker < min(steps(problem.inner_metric.gradient), steps(Tensor.clone))


def test_a_run_with_kfac_is_the_run_with_exact_factors() -> None:
    runs = [
        nhgd.solve(nhgd.load(CLEANING, {"curvature.kind": kind, "outer.iterations": 5, **ACCURATE}))
        for kind in ("factored", "kfac")
    ]
    exact, found = runs
    assert found.objective == pytest.approx(exact.objective, rel=1e-9)
    assert found.control == pytest.approx(exact.control, abs=1e-5)
    assert found.complete and "kfac 650 parameters in layers of 10 x 65" in found.stats["curvature"]
    assert found.stats["solves"]["factorisations"] == 0


def test_newton_cg_takes_kfac() -> None:
    small = {"task.training": 60, "task.validation": 40, "task.ridge": 0.1, "outer.iterations": 2, **ACCURATE}
    values = [
        nhgd.solve(nhgd.load(CLEANING, {**small, "outer.method": "newton_cg", "curvature.kind": kind})).objective
        for kind in ("factored", "kfac")
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-6)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("problems/poisson_control.yaml", {}, r"curvature\.kind: expected one of auto, dense, .*: kfac needs a task"),
        (
            CLEANING,
            {"inner.tests": 64},
            r"inner\.tests: expected auto or all: a kfac inverse takes no scores, found 64",
        ),
        (
            CLEANING,
            {"curvature.restart": "outer"},
            r"curvature\.restart: expected never: a kfac inverse belongs to one",
        ),
    ],
)
def test_kfac_is_refused_where_it_has_no_meaning(file: str, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ProblemError, match=words):
        nhgd.load(file, {"curvature.kind": "kfac", **changes})


def test_a_problem_without_layers_is_told_what_is_missing() -> None:
    problem = least_squares()
    assert not isinstance(problem, KroneckerProblem)
    with pytest.raises(TypeError, match="layer_factors"):
        KFAC().init(problem, *problem.start())
    assert isinstance(digits()[0], KroneckerProblem)
