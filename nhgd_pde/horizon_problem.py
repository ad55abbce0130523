"""An evolution that is never held in memory as a whole: its steps are made, passed and forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .control.design_variables import of_controls
from .horizon_steps import HorizonPart
from .objective.sensor_terms import Readings
from .pde.evolution import EvolutionEquation
from .pde.stretch import Stretch
from .pde_problem import PDEProblem

# The first step of a part and the step after its last one -> the part.
MakePart = Callable[[int, int], HorizonPart]


@dataclass(frozen=True, eq=False)
class HorizonProblem(PDEProblem):
    """A problem whose inner variables are the last state of an evolution.

    Implements `methods.fds.ForwardProblem` and `methods.recomputing.RecomputableProblem`.

    `equation` has the sizes and the given coefficients of that state, and the controls of all steps; it is never
    solved. `objective` has the terms of the controls alone.

    Attributes:
        part: makes the steps from one number to another.
        steps: number of all steps.
        end: the time of the last state.
        at_once: number of steps that are made and passed at once.
        first: the first steps, whose equation has the controls that determine the state at time 0.
        room: number of states that are kept besides the first one while steps are passed backwards; 0 where they are
            passed with their derivatives.
    """

    part: MakePart | None = None
    steps: int = 1
    end: float = 0.0
    at_once: int = 1
    first: Stretch | None = None
    room: int = 0

    @property
    def quadratic(self) -> bool:
        """Never said: values between two evaluations would need their states."""
        return False

    def cold_start(self, v: Tensor) -> Tensor:
        return self.inner(self.first_state(self.entered(v)))

    def entered(self, v: Tensor) -> Tensor:
        """The controls (p,) in the equation that design variables stand for; the steps are passed with these."""
        return self.control.physical(v)

    def pulled_back(self, covector: Tensor) -> Tensor:
        """A derivative by the controls in the equation -> the derivative by the design variables."""
        return self.control.pull_back(covector)

    @of_controls("v", "d")
    def control_second_derivative(self, v: Tensor, d: Tensor) -> Tensor:
        """The second derivative of the terms of the objective in v alone, applied to d (p,)."""
        terms = (term.second_derivative(v, d) for term in self.objective.control)
        return self.control.pull_back(sum(terms, v.new_zeros(len(v))))

    def first_state(self, v: Tensor) -> Tensor:
        """(N,) the state at time 0."""
        equation, controls = self._first(v)
        return equation.embed(equation.lift.new_zeros(1, equation.unknowns), controls)[0, : self.space.size].clone()

    def first_move(self, v: Tensor, d: Tensor) -> Tensor:
        """(N,) its change for a change d (p,) of the controls."""
        equation, controls = self._first(v)
        assert self.first is not None
        zero = equation.lift.new_zeros(1, equation.unknowns)
        return equation.extend(zero, controls, self.first.excerpt.local(d))[0, : self.space.size].clone()

    def first_pulled_back(self, v: Tensor, covector: Tensor) -> Tensor:
        """The derivative (p,) by the controls of a covector (N,) on the state at time 0."""
        equation, controls = self._first(v)
        assert self.first is not None
        return self.first.excerpt.gathered(equation.restrict_data(self._at_first(covector), controls))

    def first_bent(self, v: Tensor, covector: Tensor, d: Tensor) -> Tensor:
        """The derivative of `first_pulled_back` by the controls along d (p,), with a fixed covector."""
        equation, controls = self._first(v)
        assert self.first is not None
        excerpt = self.first.excerpt
        return excerpt.gathered(equation.bent_data(self._at_first(covector), controls, excerpt.local(d)))

    def _first(self, v: Tensor) -> tuple[EvolutionEquation, Tensor]:
        assert self.first is not None
        return self.first.equation, self.first.excerpt.local(v)

    def _at_first(self, covector: Tensor) -> Tensor:
        whole = covector.new_zeros(1, self._first(self.control.start)[0].size)
        whole[0, : len(covector)] = covector
        return whole

    def readings(self, v: Tensor) -> list[Readings]:
        """What the sensors show at a control (p,), at the times of their measurements; all steps are made for it."""
        found: dict[int, list[Readings]] = {term.number: [] for term in self.sensors}
        controls = self.entered(v)
        state = self.first_state(controls)
        for part in self.parts():
            states = part.states(controls, state)
            levels = torch.cat([state[None], states]).reshape(1, -1).cpu().numpy()
            for term in part.sensors:
                found[term.number].append(term.readings(levels))
            state = states[-1]
        return [Readings.joined(each) for each in found.values()]

    def inner(self, state: Tensor) -> Tensor:
        return self.equation.restrict(state[None])

    def parts(self, start: int = 0, end: int | None = None) -> Iterator[HorizonPart]:
        """The steps from one number, a multiple of `at_once`, to another; by default all of them."""
        assert self.part is not None
        last = self.steps if end is None else end
        for before in range(start, last, self.at_once):
            yield self.part(before, min(before + self.at_once, last))

    @of_controls("v")
    def refusal(self, v: Tensor) -> str:
        assert self.first is not None
        said = self.first.equation.refusal(self.first.excerpt.local(v))
        numbers = self.control.numbers(v)
        return f"{said} with {numbers}" if said and numbers else said

    def barrier(self, start: Tensor, end: Tensor) -> str:
        return ""

    @property
    def bytes_carried(self) -> float:
        """Bytes of the derivatives of the states of a part."""
        return 8.0 * self.outer_size * (self.at_once + 1) * self.equation.size
