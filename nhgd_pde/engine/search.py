"""The data and the evaluations of one run of the outer loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor

from ..linalg.factorisation import SingularMatrixError
from .bilevel import InnerEquation, OuterProblem, constraint_of, l1_weights_of
from .loop import Iterate, LoopState, Stopping, worst_residual
from .oracle import Accuracy, AffineOracle, GrowingOracle, Oracle, Response, SecondOrderOracle
from .outer.base import Feasible, HessianProduct, OuterMethod, objection_of
from .outer.reduced_objective import Evaluation, extrapolate, failed_evaluation
from .scales import UNKNOWN, GradientScales

# Points tried from an iterate whose gradient is larger than this times the goal need not be evaluated.
_NEAR_GOAL = 30.0
# Relative error of a product with the Hessian, as a share of the goal over the gradient.
_RESPONSE = 0.03


def outer_space(problem: OuterProblem) -> Feasible:
    """The space that the outer variables of a problem move in."""
    constraint, weights = constraint_of(problem), l1_weights_of(problem)
    quadratic = problem.quadratic and constraint is None
    space = Feasible(problem.outer_metric, problem.bounds, quadratic, constraint, weights)
    if space.smooth or not quadratic:
        return space
    # Problems without kinks are solved without loading what those with kinks need.
    from .outer.penalty import penalty_of

    return replace(space, penalty=penalty_of(problem))


@dataclass(frozen=True)
class Search:
    """The data that do not change from one evaluation to the next, and the scales that are learnt during a run.

    Attributes:
        problem, oracle, outer, stopping, interrupted: see `minimise`.
        space: the outer space, with the unit of the largest curvature seen.
        scales: the natural size of the gradient at the start, and its rounding errors.
        goal: the norm of the gradient at which the run ends.
    """

    problem: OuterProblem
    oracle: Oracle
    outer: OuterMethod
    stopping: Stopping
    interrupted: Callable[[], bool]
    space: Feasible
    scales: GradientScales = UNKNOWN
    goal: float = 0.0

    def with_scales_of(self, first: Iterate, scales: GradientScales, unit: float, solved: float = 0.0) -> Search:
        """The search with the data that are known once the first point has been evaluated."""
        goal = max(self.stopping.goal(first.gradient_norm, scales), solved)
        return replace(self, scales=scales, goal=goal, space=replace(self.space, unit=unit, goal=goal))

    def last(self, iterate: Iterate) -> bool:
        """Whether the run would end at an iterate if the iterate were certified."""
        stopping = self.stopping
        return stopping.small(iterate, self.goal) or stopping.unchanged(iterate) or stopping.near(iterate)

    def certified(self, iterate: Iterate) -> bool:
        return self.stopping.certified(iterate, self.goal)

    def accuracy(self, gradient_norm: float, sensitivity: float) -> Accuracy:
        """The accuracy of the next evaluation, from the norm of the gradient that the next step is meant to leave.

        Errors of a few per cent of the gradient cost the outer method no iterations, smaller ones cost inner steps.
        """
        stopping = self.stopping
        wanted = 0.03 * max(gradient_norm, self.goal) / sensitivity if sensitivity > 0.0 else math.inf
        value = min(max(wanted, 1e-4 * stopping.certificate), stopping.roughest)
        return Accuracy(value, value)

    def evaluate(self, v: Tensor, knowledge: Any, accuracy: Accuracy) -> tuple[Evaluation, Any]:
        """An evaluation at v, from what the oracle knows, and what it knows afterwards."""
        try:
            evaluation, knowledge = self.oracle.evaluate(self.problem, v, knowledge, accuracy)
        except SingularMatrixError as singular:
            # For every method this means that the step was too long: the matrix has no factors there.
            evaluation = failed_evaluation(v, str(singular))
        if not evaluation.finite:
            # If one number is not finite, no outer method may use the others.
            return replace(evaluation, value=math.nan), knowledge
        rounding = max(evaluation.rounding, self.scales.rounding)
        return replace(self.space.completed(evaluation), rounding=rounding), knowledge

    @property
    def exact(self) -> bool:
        """Steps follow from products with the Hessian, without evaluations."""
        return self.outer.exact

    def follows(self, iterate: Iterate) -> bool:
        """Whether points tried from an iterate follow from a product with the Hessian and are not evaluated.

        The last ones of a run are evaluated, so that rounding errors of the products do not add up to the goal.
        """
        if self.exact or not (self.outer.extrapolates and self.space.quadratic):
            return False
        known = isinstance(self.oracle, AffineOracle) and self.oracle.follows
        return known and iterate.gradient_norm > _NEAR_GOAL * self.goal

    def followed(self, iterate: Iterate, v: Tensor) -> tuple[Evaluation, Any]:
        """What an evaluation of a quadratic problem at v would give, from a product with its Hessian."""
        best, space = iterate.evaluation, self.space
        answer = self.response(iterate, v - best.v)
        smooth = replace(best, value=best.value - space.l1(best.v))
        return space.completed(extrapolate(smooth, v, answer.product, answer.represented)), self.moved(
            iterate, answer, 1.0
        )

    @property
    def objection(self) -> str:
        """Why the outer method cannot work in the space or with the oracle; empty where it can."""
        if not self.exact or isinstance(self.oracle, AffineOracle):
            return objection_of(self.outer, self.space)
        return f"{self.oracle.name} has no products with the Hessian for {type(self.outer).__name__}"

    def response(self, iterate: Iterate, direction: Tensor) -> Response:
        """The response of an iterate to a direction (p,).

        A relative error of the products may be as much larger than the goal as the gradient is smaller than the first
        one (van den Eshof and Sleijpen 2004, SIAM J. Matrix Anal. Appl. 26). The share is for the errors of all steps.
        """
        oracle = cast("AffineOracle", self.oracle)
        norm, stopping = iterate.gradient_norm, self.stopping
        wanted = _RESPONSE * self.goal / norm if norm > 0.0 else stopping.roughest
        tolerance = min(max(wanted, 1e-4 * stopping.certificate), stopping.roughest)
        return oracle.response(self.problem, iterate.evaluation.v, iterate.oracle, direction, tolerance)

    def moved(self, iterate: Iterate, response: Response, share: float) -> Any:
        """The oracle's state after a step from an iterate."""
        return cast("AffineOracle", self.oracle).moved(iterate.oracle, response, share)

    def reevaluated(self, iterate: Iterate, evaluation: Evaluation, knowledge: Any) -> Iterate:
        """The same iterate with another evaluation of its point."""
        norm, evaluations = self.space.stationarity(evaluation), iterate.evaluations + 1
        return replace(iterate, evaluation=evaluation, gradient_norm=norm, oracle=knowledge, evaluations=evaluations)

    def confirmed(self, iterate: Iterate, lost: bool = False) -> Iterate:
        """The iterate, evaluated again if the run would end there on an interpolated value or a weak certificate.

        An evaluation starts from the last one. It is repeated as long as that halves the certificate. If the outer
        method is `lost`, the run would end at any iterate.
        """
        tolerance = 0.5 * self.stopping.certificate
        lost = lost and not iterate.evaluation.measured
        while (self.last(iterate) or lost) and not self.certified(iterate):
            if self.interrupted():
                break
            v, before = iterate.evaluation.v, iterate
            evaluation, knowledge = self.evaluate(v, iterate.oracle, Accuracy(tolerance, tolerance))
            iterate = replace(iterate, evaluations=iterate.evaluations + 1)
            better = before.evaluation.blended or worst_residual(evaluation) <= 0.5 * worst_residual(before.evaluation)
            if not (evaluation.finite and better):
                break
            iterate = self.reevaluated(before, evaluation, knowledge)
        return iterate

    def grown(self, iterate: Iterate, first: Iterate, forced: bool = False) -> Iterate:
        """The iterate, evaluated with as many scenarios as it takes to tell in which direction the optimum is.

        If `forced`, more scenarios than now are taken, as if the gradient were zero.
        """
        oracle = self.oracle
        while isinstance(oracle, GrowingOracle) and not self.interrupted():
            stationarity, forced = 0.0 if forced else iterate.gradient_norm, False
            state = oracle.grown(self.problem, iterate.oracle, stationarity, first.gradient_norm, self.goal)
            if state is None:
                break
            accuracy = self.accuracy(iterate.gradient_norm, iterate.evaluation.sensitivity)
            evaluation, knowledge = self.evaluate(iterate.evaluation.v, state, accuracy)
            if not evaluation.finite:
                break
            iterate = self.confirmed(self.reevaluated(iterate, evaluation, knowledge))
        return iterate

    def nearest(self, loop: LoopState, v: Tensor) -> Any:
        """The states from which an evaluation at v starts: those at the iterate or at the last trial, whichever is
        nearer.

        A trial that was far too long may have states on another branch of solutions, which steps would not leave again.
        Where the equation is linear in the state there is one solution, and the last states are the best start.
        """
        unique = not isinstance(self.problem, InnerEquation) or self.problem.linear
        if loop.tried is None or unique:
            return loop.knowledge
        current = loop.current
        near, far = (self.problem.outer_metric.norm((v - each)[None]) for each in (loop.tried, current.evaluation.v))
        return loop.knowledge if near < far else current.oracle.blend(loop.knowledge, 0.0)

    def hessian(self, iterate: Iterate) -> HessianProduct | None:
        """The Hessian of Phi at an iterate; None where the oracle has none."""
        if not isinstance(self.oracle, SecondOrderOracle):
            return None
        return self.oracle.hessian(self.problem, iterate.evaluation.v, iterate.oracle)
