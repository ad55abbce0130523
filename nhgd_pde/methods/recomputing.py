"""The exact adjoint of an evolution with a limit of kept states: the others are made again when they are needed.

    forwards    R_k(u_k, u_{k-1}, v) = 0,   Phi = sum of the parts of the objective
    backwards   J^T p = df/du for the steps of a part, with the derivative of the parts after it added at its end

The order of both is that of a `Reversal`. Values, derivatives and products with the Hessian are those of the exact
adjoint with all states in memory, and so are the certificates, which are dual norms summed over the steps; they are not
divided by an inf-sup constant, whose estimate would need vectors over all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..engine.bilevel import OuterProblem
from ..engine.oracle import Accuracy, finite
from ..engine.outer.reduced_objective import Evaluation, failed_evaluation
from ..engine.reversal import Advance, Return, Reversal
from ..engine.scales import GradientScales
from ..linalg.factorisation import SingularMatrixError
from ..linalg.safe_lengths import paired_length
from .compared_method import Compared

# A state with a larger relative residual than this is no solution of its equation.
_SOLVED = 1e-6


class Sizes(Protocol):
    """Squares of norms that are added up over the steps."""

    @property
    def error(self) -> float: ...
    def __add__(self, other: Any) -> Any: ...


class StepsReturned(Protocol):
    """What the way back through some steps has given.

    Attributes:
        value: of the objective in these steps.
        direct, indirect: (p,) its derivative at fixed states, and that through the states.
        adjoint: (N,) the derivative of everything after the start of these steps by the state there.
        state_size, adjoint_size: the residuals of both systems, and what they are relative to.
    """

    @property
    def value(self) -> float: ...
    @property
    def direct(self) -> Tensor: ...
    @property
    def indirect(self) -> Tensor: ...
    @property
    def adjoint(self) -> Tensor: ...
    @property
    def state_size(self) -> Sizes: ...
    @property
    def adjoint_size(self) -> Sizes: ...


class ReturningSteps(Protocol):
    """Some steps of an evolution in a row, which can be passed backwards."""

    @property
    def place(self) -> str: ...
    def states(self, v: Tensor, start: Tensor) -> Tensor: ...
    def returned(
        self, v: Tensor, start: Tensor, states: Tensor, adjoint: Tensor, tolerance: float
    ) -> StepsReturned: ...
    def moved(self, v: Tensor, d: Tensor, start: Tensor, move: Tensor, states: Tensor) -> Tensor: ...
    def curved(
        self, v: Tensor, d: Tensor, before: tuple[Tensor, Tensor], ends: tuple[Tensor, Tensor], adjoint: Tensor
    ) -> tuple[Tensor, Tensor]: ...


class RecomputableProblem(OuterProblem, Protocol):
    """A problem whose inner variables are the last state of an evolution that can be passed backwards.

    Attributes:
        steps: number of steps.
        at_once: number of steps that are made at once.
        room: number of states that may be kept besides the first one.
    """

    @property
    def steps(self) -> int: ...
    @property
    def at_once(self) -> int: ...
    @property
    def room(self) -> int: ...
    def parts(self, start: int = 0, end: int | None = None) -> Iterator[ReturningSteps]: ...
    def inner(self, state: Tensor) -> Tensor: ...
    def entered(self, v: Tensor) -> Tensor: ...
    def pulled_back(self, covector: Tensor) -> Tensor: ...
    def first_state(self, v: Tensor) -> Tensor: ...
    def first_move(self, v: Tensor, d: Tensor) -> Tensor: ...
    def first_pulled_back(self, v: Tensor, covector: Tensor) -> Tensor: ...
    def first_bent(self, v: Tensor, covector: Tensor, d: Tensor) -> Tensor: ...
    def control_value(self, v: Tensor) -> float: ...
    def control_derivative(self, v: Tensor) -> Tensor: ...
    def control_second_derivative(self, v: Tensor, d: Tensor) -> Tensor: ...
    def refusal(self, v: Tensor) -> str: ...


@dataclass(frozen=True)
class RecomputingState:
    """The last state of the evolution, (S, n), and data of the last evaluation.

    Attributes:
        natural: the norms of both parts of the gradient, added up.
        forward_steps: number of steps that were made forwards.
        kept_bytes: largest number of bytes of the states that were kept at the same time.
    """

    u: Tensor
    natural: float = 0.0
    forward_steps: int = 0
    kept_bytes: int = 0
    q: None = None
    description: str = "states made again"

    def blend(self, other: RecomputingState, share: float) -> RecomputingState:
        return RecomputingState(torch.lerp(self.u, other.u, share), other.natural)


@dataclass
class WayBack:
    """Makes the states of an evolution as often as its `Reversal` says, and visits its parts backwards.

    A state is a tensor, with whatever is carried along with it: (..., N).

    Attributes:
        reversal: the schedule.
        parts: first and last step -> the steps in between, in parts.
        make: part, state at its start -> (steps, ...) the states at the ends of its steps.
        forward_steps, kept_bytes: see `RecomputingState`.
    """

    reversal: Reversal
    parts: Callable[[int, int], Iterator[Any]]
    make: Callable[[Any, Tensor], Tensor]
    forward_steps: int = 0
    kept_bytes: int = 0

    def visited(self, first: Tensor) -> Iterator[tuple[Any, Tensor, Tensor]]:
        """Every part with the state at its start and the states at the ends of its steps, the last part first."""
        kept = {0: first}
        for action in self.reversal.actions():
            self.forward_steps += action.end - action.start
            match action:
                case Advance(start, end):
                    state = kept[start]
                    for part in self.parts(start, end):
                        state = self.make(part, state)[-1].clone()
                    kept[end] = state
                    self._weigh(kept, [])
                case Return(start, end):
                    passed: list[tuple[Any, Tensor, Tensor]] = []
                    state = kept[start]
                    for part in self.parts(start, end):
                        states = self.make(part, state)
                        passed.append((part, state, states))
                        state = states[-1]
                    self._weigh(kept, [states for _, _, states in passed])
                    del kept[start], state, states
                    while passed:
                        yield passed.pop()

    def _weigh(self, kept: dict[int, Tensor], more: list[Tensor]) -> None:
        total = sum(each.nbytes for each in (*kept.values(), *more))
        self.kept_bytes = max(self.kept_bytes, total)


@dataclass(frozen=True)
class Recomputing(Compared):
    """Options; an `Oracle` for a `RecomputableProblem`."""

    name: str = "adjoint"
    summary: ClassVar[str] = "exact adjoint, states made again"

    def init(self, problem: RecomputableProblem, u: Tensor, v: Tensor) -> RecomputingState:
        return RecomputingState(u)

    def evaluate(
        self, problem: RecomputableProblem, v: Tensor, state: RecomputingState, accuracy: Accuracy
    ) -> tuple[Evaluation, RecomputingState]:
        if said := problem.refusal(v):
            return failed_evaluation(v, said), state
        try:
            return self._evaluate(problem, v, state, accuracy)
        except SingularMatrixError as singular:
            return failed_evaluation(v, str(singular)), state

    def _evaluate(
        self, problem: RecomputableProblem, v: Tensor, state: RecomputingState, accuracy: Accuracy
    ) -> tuple[Evaluation, RecomputingState]:
        entered = problem.entered(v)
        first = problem.first_state(entered)
        way = self._way(problem, problem.room, lambda part, start: part.states(entered, start))
        value, adjoint = problem.control_value(v), torch.zeros_like(first)
        direct, indirect, last = torch.zeros_like(v), torch.zeros_like(v), first
        sizes: tuple[Any, Any] | None = None
        tolerance = min(accuracy.state, accuracy.adjoint)
        for part, start, states in way.visited(first):
            found: StepsReturned = part.returned(entered, start, states, adjoint, tolerance)
            if sizes is None:
                last = states[-1]
            if not found.state_size.error <= _SOLVED:
                message = f"the state equation is not solved in {part.place}: a relative residual of "
                return failed_evaluation(v, f"{message}{found.state_size.error:.1e} is left"), state
            new = found.state_size, found.adjoint_size
            sizes = new if sizes is None else (sizes[0] + new[0], sizes[1] + new[1])
            value, adjoint = value + found.value, found.adjoint
            direct, indirect = direct + found.direct, indirect + found.indirect
        assert sizes is not None
        direct = problem.control_derivative(v) + problem.pulled_back(direct)
        indirect = problem.pulled_back(indirect + problem.first_pulled_back(entered, adjoint))
        derivative, gradient = direct + indirect, problem.outer_metric.gradient
        parts = [paired_length(each, gradient(each[None])[0]) for each in (direct, indirect)]
        evaluation = Evaluation(
            v=v,
            value=value,
            derivative=derivative,
            gradient=gradient(derivative[None])[0],
            state_error=sizes[0].error,
            adjoint_error=sizes[1].error,
            # A relative error of one in the adjoint variables is one in this part of the gradient.
            sensitivity=parts[1],
        )
        if not finite(last, derivative):
            return evaluation, state
        return evaluation, RecomputingState(problem.inner(last), sum(parts), way.forward_steps, way.kept_bytes)

    def _way(self, problem: RecomputableProblem, room: int, make: Callable[[Any, Tensor], Tensor]) -> WayBack:
        reversal = Reversal(problem.steps, min(room, problem.steps), problem.at_once)
        return WayBack(reversal, problem.parts, make)

    def scales(
        self, problem: RecomputableProblem, v: Tensor, state: RecomputingState, evaluation: Evaluation
    ) -> GradientScales:
        """Of both parts of the gradient; that of the state's rounding errors would take another evaluation."""
        return GradientScales.of_parts(state.natural, evaluation.state_error + evaluation.adjoint_error)

    def hessian(self, problem: RecomputableProblem, v: Tensor, state: RecomputingState) -> Callable[[Tensor], Tensor]:
        """The Hessian of Phi at v. The changes of the states are kept with the states, in the same room."""
        return lambda d: self._product(problem, v, d)

    def _product(self, problem: RecomputableProblem, v: Tensor, d: Tensor) -> Tensor:
        entered, along = problem.entered(v), problem.entered(d)
        first, move = problem.first_state(entered), problem.first_move(entered, along)

        def make(part: Any, start: Tensor) -> Tensor:
            states = part.states(entered, start[0])
            return torch.stack([states, part.moved(entered, along, start[0], start[1], states)], dim=1)

        product, adjoint = torch.zeros_like(v), torch.zeros_like(torch.stack([first, move]))
        room = max(problem.room // 2, min(2 * problem.at_once, problem.steps))
        try:
            for part, start, states in self._way(problem, room, make).visited(torch.stack([first, move])):
                ends = states[:, 0], states[:, 1]
                more, adjoint = part.curved(entered, along, (start[0], start[1]), ends, adjoint)
                product = product + more
        except SingularMatrixError:
            return torch.full_like(d, float("nan"))
        product = product + problem.first_pulled_back(entered, adjoint[1])
        product = product + problem.first_bent(entered, adjoint[0], along)
        return problem.control_second_derivative(v, d) + problem.pulled_back(product)
