"""The interface of outer methods, and the feasible set they move in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor

from ...linalg.riesz import RieszMap
from ...linalg.safe_lengths import dot, paired_length
from ..bilevel import Constraint
from .multiplier import find_multiplier
from .reduced_objective import Evaluation

if TYPE_CHECKING:
    from .penalty import Penalty

# A direction (p,) -> the product (p,), a covector, of the Hessian of Phi with it.
HessianProduct = Callable[[Tensor], Tensor]
# (v, derivative), both (p,) -> the derivative (p,) that a step goes by, such as a filtered one.
Smoothing = Callable[[Tensor, Tensor], Tensor]
Need = Literal["constraint", "l1", "smoothing"]

# Change of a density below which optimality criteria and moving asymptotes stop (Andreassen et al. 2011).
DESIGN_STANDSTILL = 0.01


@dataclass(frozen=True)
class Feasible:
    """The outer space: its inner product, what v has to satisfy, and the part of the objective with kinks.

    With bounds or an l1 term the inner product must be diagonal, so that projection and shrinkage in it act node by
    node.

    Attributes:
        metric: the inner product.
        bounds: lower and upper (p,).
        quadratic: Phi, without the l1 term, is a quadratic function, so that values and gradients between two
            evaluations can be interpolated.
        constraint: an inequality besides the bounds.
        weights: (p,) w of an l1 term sum_i w_i |v_i|, at least 0, in the units of a derivative.
        unit: a step along the negative gradient, in units of v over units of the gradient: an estimate of the
            reciprocal of the largest curvature seen. It decides how near to a kink a variable must be to count as being
            at the kink.
        goal: the norm of the gradient at which the run ends.
        penalty: the part of the Hessian of a quadratic objective with kinks that takes no linear system.
    """

    metric: RieszMap
    bounds: tuple[Tensor, Tensor] | None = None
    quadratic: bool = False
    constraint: Constraint | None = None
    weights: Tensor | None = None
    unit: float = 1.0
    goal: float = 0.0
    penalty: Penalty | None = None

    def __post_init__(self) -> None:
        for given, name in ((self.bounds, "bounds"), (self.weights, "an l1 term")):
            if given is not None and not self.metric.diagonal:
                raise ValueError(f"{name} need a diagonal inner product in the outer space")
        if self.weights is not None and not bool((self.weights >= 0.0).all()):
            raise ValueError("the weights of an l1 term must be at least 0")
        if self.constraint is not None and self.weights is not None:
            raise ValueError("no outer method takes a constraint and an l1 term at once")

    @property
    def needs(self) -> dict[Need, str]:
        """The features, besides bounds, that an outer method has to take in this space, with words for people."""
        needs: dict[Need, str] = {}
        if self.constraint is not None:
            needs["constraint"] = f"a constraint ({self.constraint.description})"
        if self.weights is not None:
            needs["l1"] = "an l1 term"
        return needs

    @property
    def smooth(self) -> bool:
        """Nothing but a smooth function to minimise over a linear space."""
        return self.bounds is None and self.constraint is None and self.weights is None

    @cached_property
    def mass(self) -> Tensor:
        """(p,) the entries of the diagonal inner product."""
        return self.metric.matrix.diagonal()

    def first_step(self, first: Evaluation) -> float:
        """Length of a first trial along the negative gradient, as a multiple of it.

        The step goes to the minimum of a quadratic function whose minimum is zero, which is exact for a least-squares
        fit in one mode. It is not longer than v, because near an optimum with a value above zero the step to zero is
        far too long. Where the value is zero, the step is as long as v, or as the distance of the bounds.
        """
        norm = first.norm
        if not 0.0 < norm < math.inf:
            return 1.0
        length = self.metric.norm(first.v[None])
        steps = [2.0 * abs(first.value) / norm / norm]
        if steps[0] == 0.0 or not self.quadratic:
            steps.append(length / norm)
        if max(steps) == 0.0:
            steps.append(self._width() / norm)
        return _shortest(steps, 1.0)

    def _width(self) -> float:
        """The distance between the bounds, where finite, in the norm of the space; infinite without finite bounds."""
        if self.bounds is None:
            return math.inf
        span = self.bounds[1] - self.bounds[0]
        finite = torch.isfinite(span)
        return self.metric.norm(torch.where(finite, span, 0.0)[None]) if bool(finite.any()) else math.inf

    def scaled(self, first: Evaluation) -> Feasible:
        """The same space with a unit from the first evaluation.

        It is the shortest of three steps: to the minimum of a quadratic function whose minimum is zero, as long as v,
        and as long as the distance of the bounds. With a unit that is too long, a variable that is merely near a bound
        counts as settled. With a unit that is too short, variables must be exactly on their bounds, where the methods
        put them.
        """
        norm = first.norm
        if not 0.0 < norm < math.inf:
            return self
        lengths = self.metric.norm(first.v[None]), self._width()
        steps = (2.0 * abs(first.value) / norm / norm, *(length / norm for length in lengths))
        return replace(self, unit=_shortest(steps, self.unit))

    def sharpened(self, before: Evaluation, after: Evaluation) -> Feasible:
        """The same space with the reciprocal of the curvature along a step as its unit, where that is shorter.

        Without kinks and a constraint nothing depends on the unit.
        """
        if self.smooth:
            return self
        step, change = after.v - before.v, after.derivative - before.derivative
        length, slope = self.metric.norm(step[None]), dot(step, change)
        if not (slope > 0.0 and 0.0 < length < math.inf):
            return self
        radius = length / slope * length
        return replace(self, unit=radius) if 0.0 < radius < self.unit else self

    def project(self, v: Tensor) -> Tensor:
        """The projection of v onto the bounds."""
        if self.bounds is None:
            return v
        return torch.minimum(torch.maximum(v, self.bounds[0]), self.bounds[1])

    def prox(self, v: Tensor, step: Tensor | float = 1.0) -> Tensor:
        """The minimiser of |x - v|^2 / 2 + step sum_i w_i |x_i| between the bounds: shrinkage, then projection."""
        if self.weights is not None:
            v = v.sign() * (v.abs() - step * self.weights / self.mass).clamp(min=0.0)
        return self.project(v)

    def l1(self, v: Tensor) -> float:
        """sum_i w_i |v_i|."""
        return 0.0 if self.weights is None else dot(self.weights, v.abs())

    def rate(self, derivative: Tensor, start: Tensor, end: Tensor) -> float:
        """The change of the objective from start to end, with its smooth part taken as linear."""
        if self.weights is None:
            return dot(derivative, end - start)
        # Component by component: near an optimum both parts are large and cancel.
        return float((derivative * (end - start) + self.weights * (end.abs() - start.abs())).sum())

    def slope(self, best: Evaluation, trial: Evaluation, direction: Tensor, step: float) -> tuple[float, float | None]:
        """The slope at a trial point, and the change of the objective up to it by the slope at its start, with kinks
        alone."""
        if self.smooth:
            return dot(trial.derivative, direction), None
        expected = self.rate(best.derivative, best.v, trial.v)
        return self.rate(trial.derivative, best.v, trial.v) / step, expected

    def residual(self, v: Tensor, gradient: Tensor, unit: Tensor | float | None = None) -> Tensor:
        """(v - prox(v - t gradient)) / t (p,) for a step t, by default the unit: zero where v is stationary.

        It has the units of the gradient, and equals the gradient away from kinks. The computation avoids the
        differences of nearly equal numbers in that formula, so that no digits are lost with a short t.
        """
        t = self.unit if unit is None else unit
        found = gradient
        if self.weights is not None:
            slopes, scaled = self.weights / self.mass, v / t
            ahead = scaled - gradient
            found = torch.where(ahead.abs() <= slopes, scaled, gradient + ahead.sign() * slopes)
        ends = self._ends(v, t)
        return found if ends is None else torch.minimum(torch.maximum(found, ends[0]), ends[1])

    def _ends(self, v: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor] | None:
        """The residuals with which a step t ends at the upper and at the lower bounds."""
        return None if self.bounds is None else ((v - self.bounds[1]) / t, (v - self.bounds[0]) / t)

    def distance(self, v: Tensor, gradient: Tensor, unit: Tensor | float | None = None) -> float:
        """The norm of the residual."""
        return self.metric.norm(self.residual(v, gradient, unit)[None])

    def completed(self, evaluation: Evaluation) -> Evaluation:
        """An evaluation of Phi with the l1 term in its value."""
        if self.weights is None:
            return evaluation
        return replace(evaluation, value=evaluation.value + self.l1(evaluation.v))

    def stationarity(self, evaluation: Evaluation) -> float:
        """The distance of a point from satisfying the necessary conditions, in the units of the gradient.

        The norm of the gradient; with bounds or an l1 term, of (v - prox(v - t gradient)) / t with the unit t, so that
        units of v and of the objective do not matter. With a constraint g, of (v - w) / t, w the projection of
        v - t gradient onto the points between the bounds with g(v) + g'(v) (w - v) <= 0: with its multiplier lambda, w
        is the projection of v - t (gradient + lambda g'(v)) onto the bounds, so that v = w is equivalent to the
        Karush-Kuhn-Tucker conditions, including feasibility and complementarity.
        """
        if self.smooth:
            # The pairing with the derivative is not used: if both are interpolated, both have errors by cancellation.
            return self.metric.norm(evaluation.gradient[None])
        v = evaluation.v
        if self.constraint is None:
            return self.distance(v, evaluation.gradient)
        value, derivative = self.constraint.value(v), self.constraint.derivative(v)
        normal = self.metric.gradient(derivative[None])[0]

        ends = self._ends(v, self.unit)

        def left(multiplier: float) -> Tensor:
            gradient = evaluation.gradient + multiplier * normal
            if self.weights is not None or ends is None:
                return self.residual(v, gradient)
            return torch.minimum(torch.maximum(gradient, ends[0]), ends[1])

        def excess(multiplier: float) -> float:
            return value - self.unit * dot(derivative, left(multiplier))

        steepness, length = paired_length(derivative, normal), evaluation.norm
        unit = length / steepness if steepness > 0.0 and length > 0.0 else 1.0
        multiplier = find_multiplier(excess, unit)
        # Where the bounds leave no point that satisfies the linear constraint, the violation counts.
        missing = _positive(excess(multiplier)) / steepness if steepness > 0.0 else _positive(value)
        return math.hypot(self.metric.norm(left(multiplier)[None]), missing / self.unit)


def _shortest(steps: Iterable[float], default: float) -> float:
    """The shortest of the steps that are neither zero nor infinite."""
    return min((step for step in steps if 0.0 < step < math.inf), default=default)


def _positive(x: float) -> float:
    """The positive part; NaN of NaN."""
    return 0.0 if x <= 0.0 else x


@dataclass(frozen=True)
class OuterState:
    """The state that all outer methods have; methods add their own data.

    Attributes:
        best: the current iterate: the last evaluation that was accepted.
        accepted: the evaluation last told became the current iterate.
        step: length of the last accepted step, as a multiple of the direction.
        share: the iterate is at this share of the step from the previous one to the point last evaluated; 1 unless the
            objective is quadratic.
        failure: a sentence once the method cannot go on.
        reduction: the factor by which the proposed step is meant to shrink the gradient; 1 where the method
            does not know.
    """

    best: Evaluation
    _: KW_ONLY
    accepted: bool = True
    step: float = 0.0
    share: float = 1.0
    failure: str = ""
    reduction: float = 1.0


State = TypeVar("State", bound=OuterState)


@dataclass(frozen=True)
class Setting:
    """The data besides the options of a user on which the options of an outer method may depend.

    Attributes:
        space: the outer space; None where it is not known yet.
        smoothing: the smoothing of the derivative in steps; None for none.
        searched: values and gradients are accurate enough for a line search.
        design: a control is the density of a material.
    """

    space: Feasible | None = None
    smoothing: Smoothing | None = None
    searched: bool = True
    design: bool = False


class OuterMethod(Protocol[State]):
    """The base of outer methods: frozen options; `init`, `propose` and `update` make states, which are never changed.

    Attributes:
        takes: the features that the method can deal with besides bounds: a `constraint`, an `l1` term, a `smoothing` of
            the derivative.
        options: fields of the method that the keys of the same names in the section `outer` of a problem file set.
    """

    takes: ClassVar[frozenset[Need]] = frozenset()
    options: ClassVar[tuple[str, ...]] = ()

    @property
    def second_order(self) -> bool:
        """`propose` needs products with the Hessian."""
        return False

    @property
    def exact(self) -> bool:
        """Steps are exact ones of a quadratic objective: `answered` takes the place of evaluation and `update`."""
        return False

    @property
    def extrapolates(self) -> bool:
        """`update` takes data of a quadratic objective that follow from those at the iterate and a product with the
        Hessian."""
        return False

    @classmethod
    def suited(cls, setting: Setting) -> Self:
        """The method with the default options for a setting."""
        return cls()

    @classmethod
    def standstill(cls, setting: Setting) -> float | None:
        """The default of `outer.change`: two steps that change no variable by more than this end a run."""
        return None

    def with_rough_hessian(self) -> Self:
        """The method for products with a Hessian that is known roughly."""
        return self

    def objection(self, space: Feasible) -> str:
        """Why the method cannot work in a space whose `needs` it takes, a sentence for people; empty where it can."""
        return ""

    def init(self, space: Feasible, first: Evaluation) -> State: ...

    def near(self, state: State) -> State:
        """The state of `init` where the start is known to be near the optimum."""
        return state

    def propose(self, space: Feasible, state: State, hessian: HessianProduct | None = None) -> tuple[Tensor, State]:
        """The point (p,) to evaluate next; `hessian` is that of the reduced objective at `state.best`."""
        ...

    def update(self, space: Feasible, state: State, evaluation: Evaluation) -> State:
        """The state after the evaluation at the proposed point."""
        ...

    def direction(self, state: State) -> Tensor:
        """The direction (p,) of the next step, of a method whose steps are exact."""
        name = type(self).__name__
        raise NotImplementedError(f"the steps of {name} are not exact")

    def answered(self, space: Feasible, state: State, product: Tensor, represented: Tensor) -> State:
        """The state after the step to the minimiser along `direction`, of a method whose steps are exact.

        Args:
            product: (p,) of the Hessian with the direction, a covector.
            represented: (p,) its Riesz representative.
        """
        name = type(self).__name__
        raise NotImplementedError(f"{name} evaluates its trial points")

    def corrected(self, space: Feasible, state: State, evaluation: Evaluation) -> State:
        """The state after a new evaluation of its iterate, whose data were interpolated or known roughly before."""
        return self.init(space, evaluation)

    def rebased(self, space: Feasible, state: State, evaluation: Evaluation) -> State:
        """The state with another evaluation of its iterate, over more scenarios; the method keeps what it has
        learnt."""
        return replace(state, best=evaluation)

    def revalued(self, state: State, value: float) -> State:
        """The state with another value of its blended iterate: the one that its inner variables give."""
        return replace(state, best=replace(state.best, value=value))


def objection_of(outer: OuterMethod[State], space: Feasible) -> str:
    """Why an outer method cannot work in a space, a sentence for people; empty where it can."""
    for need, words in space.needs.items():
        if need not in outer.takes:
            return f"{type(outer).__name__} takes no {words.partition(' ')[2]}"
    return outer.objection(space)
