"""The active-set method for quadratic objectives with a penalty, between bounds and with an l1 term."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from ...linalg.safe_lengths import dot
from .base import Feasible, HessianProduct, Need, OuterMethod, OuterState, Setting
from .exact_step import blend_with_l1, expected_reduction, share_between_kinks
from .lbfgs import LBFGS, LBFGSState
from .reduced_objective import Evaluation
from .semismooth import minimise_between_kinks
from .spanned_hessian import Product, SpannedHessian, majorised_step, with_product

# Smallest and largest default number of products kept, and the memory in bytes that they may take beyond the smallest.
_LEAST_KEPT, _MOST_KEPT = 20, 100
_KEPT_BYTES = 512 * 2**20
# The minimiser of the model reduces its stationarity by this factor.
_REDUCTION = 1e-3
# The model leads on where a step whose product says nothing new reduces the gradient by this factor.
_LEAST_PROGRESS = 0.5


@dataclass(frozen=True)
class ActiveSetState(OuterState):
    """Attributes:
    products: the products with the Hessian.
    end: (p,) the minimiser of the model, to the last digit where kinks are; None where it is not needed yet.
    plain: the state of L-BFGS, which has taken over for good; None as long as the model leads on.
    """

    products: tuple[Product, ...] = ()
    end: Tensor | None = None
    plain: LBFGSState | None = None


@dataclass(frozen=True)
class ActiveSet(OuterMethod[ActiveSetState]):
    """Minimisers of models that bound the objective from below, for a quadratic objective with kinks.

    The Hessian is H = D + K: D of the terms of the control alone, which takes no linear system, and K of the tracking
    terms, without negative curvature. The model has D itself, and in place of K what the products with it up to now
    say: their Nystroem approximation, which is exact along the directions tried, and at most K in all others. It is
    minimised subject to bounds and the l1 term by the primal-dual active set method (Hintermueller, Ito and Kunisch
    2003, SIAM J. Optim. 13), which takes no linear system. The step goes to the best point on the line to this
    minimiser: no step ascends.

    In exact arithmetic the method ends: where the product along a step says nothing new, the model is exact at the
    minimiser, which is then the minimiser of the objective, too, as the model is a lower bound. A product is never
    lost when the active set changes. L-BFGS takes over, from the best point, where K has a negative curvature, the
    model leads on no more, or the memory is full.

    Attributes:
        memory: number of products kept.
    """

    memory: int = _MOST_KEPT
    takes: ClassVar[frozenset[Need]] = frozenset({"l1"})
    options: ClassVar[tuple[str, ...]] = ("memory",)

    @property
    def extrapolates(self) -> bool:
        return True

    @classmethod
    def suited(cls, setting: Setting) -> Self:
        """The method with as many products as take little memory; each has two vectors."""
        fit = 0 if setting.space is None else _KEPT_BYTES // (2 * 8 * setting.space.metric.matrix.shape[0])
        return cls(min(max(fit, _LEAST_KEPT), _MOST_KEPT))

    def objection(self, space: Feasible) -> str:
        if space.quadratic and not space.smooth and space.penalty is not None:
            return ""
        return (
            "expected another method: active_set takes quadratic objectives with bounds or an l1 term, and with the "
            "square of every control"
        )

    def init(self, space: Feasible, first: Evaluation) -> ActiveSetState:
        return self._searched(space, ActiveSetState(first))

    def propose(
        self, space: Feasible, state: ActiveSetState, hessian: HessianProduct | None = None
    ) -> tuple[Tensor, ActiveSetState]:
        if state.plain is not None:
            return self._plain.propose(space, state.plain)[0], state
        if state.end is None:
            return self.propose(space, self._directed(space, state))
        return state.end, state

    def update(self, space: Feasible, state: ActiveSetState, evaluation: Evaluation) -> ActiveSetState:
        if state.plain is not None:
            return _with_plain(state, self._plain.update(space, state.plain, evaluation))
        best = state.best
        slope = space.rate(best.derivative, best.v, evaluation.v)
        curvature = dot(evaluation.derivative - best.derivative, evaluation.v - best.v)
        share = share_between_kinks(slope, curvature) if evaluation.finite else None
        if share is None:
            return replace(self._given_up(space, state), accepted=False)
        products = self._remember(space, state, evaluation)
        exact = evaluation if share == 1.0 else blend_with_l1(space, best, evaluation, share)
        reduction = expected_reduction(space, best, exact)
        stands = products is state.products and reduction > _LEAST_PROGRESS
        if products is None or stands:
            reached = self._given_up(space, replace(state, best=exact))
        else:
            reached = self._searched(space, ActiveSetState(exact, products))
        return replace(reached, step=share, share=share, reduction=reduction)

    def corrected(self, space: Feasible, state: ActiveSetState, evaluation: Evaluation) -> ActiveSetState:
        if state.plain is not None:
            return _with_plain(state, self._plain.corrected(space, state.plain, evaluation))
        return self._searched(space, ActiveSetState(evaluation, state.products))

    def rebased(self, space: Feasible, state: ActiveSetState, evaluation: Evaluation) -> ActiveSetState:
        if state.plain is not None:
            return _with_plain(state, self._plain.rebased(space, state.plain, evaluation))
        return replace(self._searched(space, ActiveSetState(evaluation, state.products)), step=state.step)

    def revalued(self, state: ActiveSetState, value: float) -> ActiveSetState:
        if state.plain is not None:
            return _with_plain(state, self._plain.revalued(state.plain, value))
        return replace(state, best=replace(state.best, value=value))

    @property
    def _plain(self) -> LBFGS:
        return LBFGS(self.memory)

    def _remember(self, space: Feasible, state: ActiveSetState, evaluation: Evaluation) -> tuple[Product, ...] | None:
        assert space.penalty is not None
        if len(state.products) >= self.memory:
            return None
        step, change = evaluation.v - state.best.v, evaluation.derivative - state.best.derivative
        return with_product(state.products, step, change - space.penalty.product(step), dot(step, change))

    def _searched(self, space: Feasible, state: ActiveSetState) -> ActiveSetState:
        """The state with the minimiser of its model, unless the run ends at its iterate."""
        return state if space.stationarity(state.best) <= space.goal else self._directed(space, state)

    def _directed(self, space: Feasible, state: ActiveSetState) -> ActiveSetState:
        """The state with the minimiser of its model."""
        assert space.penalty is not None
        best = state.best
        matrix = SpannedHessian.of(space.mass, space.penalty, state.products)
        end = minimise_between_kinks(space, best, matrix, _REDUCTION, majorised_step)
        if not space.rate(best.derivative, best.v, end) < 0.0:
            return self._given_up(space, state)
        return replace(state, end=end)

    def _given_up(self, space: Feasible, state: ActiveSetState) -> ActiveSetState:
        """The state with L-BFGS from the best point on, without products."""
        plain = self._plain.init(space, state.best)
        return _with_plain(replace(state, products=()), plain)


def _with_plain(state: ActiveSetState, plain: LBFGSState) -> ActiveSetState:
    """The state after a step of L-BFGS."""
    return replace(
        state,
        best=plain.best,
        accepted=plain.accepted,
        step=plain.step,
        share=plain.share,
        failure=plain.failure,
        reduction=plain.reduction,
        plain=plain,
    )
