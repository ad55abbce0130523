"""An evolution that is never held in memory as a whole: its steps are made, passed and forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from .objective.terms import Objective
from .pde.stretch import Passage, Stretch
from .pde_problem import PDEProblem

# The first step of a part and the step after its last one -> the part.
MakePart = Callable[[int, int], "HorizonPart"]


@dataclass(frozen=True)
class PartPassed:
    """The passage through a part; see `methods.fds.Passed`."""

    value: float
    direct: Tensor
    indirect: Tensor
    passage: Passage
    place: str

    @property
    def state(self) -> Tensor:
        return self.passage.levels[-1]

    @property
    def derivative(self) -> Tensor:
        return self.passage.derivatives[:, -1]

    @property
    def state_error(self) -> float:
        return self.passage.state_error

    @property
    def derivative_error(self) -> float:
        return self.passage.derivative_error


@dataclass(frozen=True, eq=False)
class HorizonPart:
    """Some steps of the evolution with the terms of the objective in them.

    Attributes:
        stretch: the steps.
        objective: the terms of the state in these steps.
    """

    stretch: Stretch
    objective: Objective

    def passed(self, v: Tensor, state: Tensor, derivative: Tensor) -> PartPassed:
        excerpt = self.stretch.excerpt
        passage, controls = self.stretch.passed(v, state, derivative), excerpt.local(v)
        levels = passage.levels.reshape(1, -1)
        by_state, by_control = self.objective.derivatives(levels, controls)
        return PartPassed(
            self.objective.value(levels, controls),
            excerpt.gathered(by_control),
            passage.derivatives.reshape(len(v), -1) @ by_state[0],
            passage,
            f"steps {excerpt.before + 1:,} to {excerpt.before + excerpt.steps:,}",
        )


@dataclass(frozen=True, eq=False)
class HorizonProblem(PDEProblem):
    """A problem whose inner variables are the last state of an evolution; a `methods.fds.ForwardProblem`.

    `equation` has the sizes and the given coefficients of that state, and the controls of all steps; it is never
    solved. `objective` has the terms of the controls alone.

    Attributes:
        part: makes the steps from one number to another.
        steps: number of all steps.
        at_once: number of steps that are made and passed at once.
        initial_state: (N,) the state at time 0.
    """

    part: MakePart | None = None
    steps: int = 1
    at_once: int = 1
    initial_state: Tensor | None = None

    @property
    def quadratic(self) -> bool:
        """Never said: values between two evaluations would need their states."""
        return False

    def cold_start(self, v: Tensor) -> Tensor:
        return self.inner(self.first_state())

    def first_state(self) -> Tensor:
        assert self.initial_state is not None
        return self.initial_state

    def inner(self, state: Tensor) -> Tensor:
        return self.equation.restrict(state[None])

    def parts(self) -> Iterator[HorizonPart]:
        assert self.part is not None
        for before in range(0, self.steps, self.at_once):
            yield self.part(before, min(before + self.at_once, self.steps))

    def refusal(self, v: Tensor) -> str:
        assert self.part is not None
        first = self.part(0, min(self.at_once, self.steps)).stretch
        said = first.equation.refusal(first.excerpt.local(v))
        numbers = self.control.numbers(v)
        return f"{said} with {numbers}" if said and numbers else said

    def barrier(self, start: Tensor, end: Tensor) -> str:
        return ""

    @property
    def bytes_carried(self) -> float:
        """Bytes of the derivatives of the states of a part."""
        return 8.0 * self.outer_size * (self.at_once + 1) * self.equation.size
