"""From a problem file to an evolution whose steps are made, passed and forgotten, as forward mode needs it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..control.controls import Controls
from ..fem.mesh import Domain
from ..horizon_problem import HorizonPart, HorizonProblem
from ..linalg.counts import Counts
from ..pde.equation import StateEquation
from ..pde.evolution import EvolutionEquation
from ..pde.stretch import Excerpt, Stretch
from ..pde_problem import PDEProblem
from ..problem_file.control_spec import DensityControl
from ..problem_file.loading import ProblemFile
from ..problem_file.room import size_text
from ..problem_file.sizes import steps_at_once
from ..problem_file.term_parts import TermSpec
from .blueprint import Blueprint, build_device
from .boundary_facets import fixed_facets, other_facets
from .clock import Clock, clock_of
from .control_builder import ControlBuilder
from .control_spaces import ControlSpaces
from .domains import build_domain
from .equation_builder import EquationBuilder
from .frame import Frame
from .objective_builder import ObjectiveBuilder
from .random_values import names_in
from .stages import stages_of

# Control unknowns beyond which an adjoint is the better choice by far: every step takes a solve for each of them.
_MOST_CONTROLS = 1000


def horizon_of(file: ProblemFile) -> HorizonProblem:
    """The evolution of a file.

    Raises:
        ProblemError: mistakes of the file, and what forward mode does not take: a steady problem, random inputs,
            constraints, too many controls, and controls that determine coefficients of the state.
    """
    _check_file(file)
    return Horizon(file, build_domain(file), build_device(file)).problem


def _check_file(file: ProblemFile) -> None:
    spec = file.spec
    if spec.parameters:
        raise file.error("method", "expected a method for random inputs, found 'fds': take nhgd, or no parameters")
    if spec.time is None:
        raise file.error("method", "expected a method for steady problems, found 'fds', which needs time: take adjoint")
    if spec.constraints:
        raise file.error("constraints", f"expected none with method fds, found {len(spec.constraints)}")
    for key, control in spec.keyed_controls:
        if isinstance(control, DensityControl):
            raise file.error(f"{key}.kind", "expected a control of few numbers with method fds, found 'density'")


@dataclass(frozen=True, eq=False)
class Horizon:
    """Makes the parts of an evolution.

    Attributes:
        file: the checked problem file.
        domain: the mesh.
        device: where tensors are.
        counts: where work is counted.
    """

    file: ProblemFile
    domain: Domain
    device: torch.device
    counts: Counts = field(default_factory=Counts)

    @cached_property
    def problem(self) -> HorizonProblem:
        nominal, controls, clock = self._nominal, self._controls, self._clock
        first, last = self._frame(0, self._at_once), self._frame(clock.steps - 1, clock.steps)
        self._check(nominal.equation, first)
        terms = self._terms
        objective = terms.build(lambda term: term.of_controls)
        terms.values.mistakes.raise_found()
        last.terms.build()
        width = first.state.size
        return HorizonProblem(
            self.file.spec.name,
            first.state,
            self._last_state(last, nominal.equation),
            controls,
            objective,
            nominal.model,
            {name: rows[-1:] for name, rows in last.terms.fields.items()},
            l1_weights=terms.l1_weights,
            notices=nominal.notices,
            part=self.part,
            steps=clock.steps,
            at_once=self._at_once,
            initial_state=nominal.equation.lift[:width],
        )

    def part(self, start: int, end: int) -> HorizonPart:
        """The steps from one number to another; the same object for all that do not differ but in their number."""
        final = end == self._clock.steps
        if self._varies:
            return self._part(start, end, final)
        key = (end - start, final)
        if key not in self._made:
            self._made[key] = self._part(start, end, final)
        known = self._made[key]
        excerpt = Excerpt(self._controls.rows, start, end - start)
        return replace(known, stretch=replace(known.stretch, excerpt=excerpt))

    def _part(self, start: int, end: int, final: bool) -> HorizonPart:
        frame = self._frame(start, end)
        found = EquationBuilder(frame, -1, stages_of(frame.entries)[-1]).build(frame.values)
        objective = frame.terms.build(lambda term: _in_part(term, final))
        frame.mistakes.raise_found()
        assert isinstance(found, EvolutionEquation)
        return HorizonPart(Stretch(found, Excerpt(self._controls.rows, start, end - start)), objective)

    @cached_property
    def _made(self) -> dict[tuple[int, bool], HorizonPart]:
        return {}

    @property
    def _varies(self) -> bool:
        """Whether a coefficient, a source, a gain or a target depends on time."""
        spec: Any = self.file.spec
        return "t" in names_in([spec.pde, spec.control, spec.objective])

    # The times and the controls of all steps

    @cached_property
    def _clock(self) -> Clock:
        clock = clock_of(self.file.spec)
        assert clock is not None
        return clock

    @cached_property
    def _at_once(self) -> int:
        return steps_at_once(self._clock.steps, self._first.state.size, self._controls.size)

    @cached_property
    def _first(self) -> Frame:
        """The first step, of the controls of the file."""
        return Frame(self.file, self.domain, self.device, counts=self.counts, span=replace(self._clock, steps=1))

    @cached_property
    def _controls(self) -> Controls:
        """The controls of all steps."""
        frame = self._first
        spaces = ControlSpaces(frame.values, frame.state, self.counts, self._clock)
        named = {**self.domain.boundaries, "all": other_facets(frame.values, self.domain)}
        fixed = fixed_facets(frame.values, frame.state, frame.facets)
        builder = ControlBuilder(frame.values, frame.state, frame.interior(frame.values), named, fixed, spaces)
        found = Controls(tuple(entry.part for entry in builder.build()), self._clock.steps)
        frame.mistakes.raise_found()
        if found.size > _MOST_CONTROLS:
            count = (
                f"{found.size:,}, whose derivatives of one state take {size_text(8.0 * found.size * frame.state.size)}"
            )
            advice = "give control.windows, space: time or constant, or take method adjoint"
            key = self.file.spec.keyed_controls[0][0]
            message = f"expected at most {_MOST_CONTROLS:,} control unknowns with method fds, found {count}: {advice}"
            raise self.file.error(key, message)
        return found

    @cached_property
    def _terms(self) -> ObjectiveBuilder:
        """The builder of terms of the controls of all steps."""
        frame = self._first
        return ObjectiveBuilder(frame.values, frame.state, self._controls, self.domain.facets, self._clock)

    # The steps

    @cached_property
    def _of_steps(self) -> ProblemFile:
        """The file with controls that have a value of their own in every step."""
        spec, each = self.file.spec, [_without_windows(control) for control in self.file.spec.controls]
        control = tuple(each) if isinstance(spec.control, tuple) else each[0]
        return replace(self.file, spec=spec.model_copy(update={"control": control}))

    def _frame(self, start: int, end: int) -> Frame:
        span = replace(self._clock, steps=end - start, before=start)
        # Each part has a state space of its own, which keeps the patterns of the matrices that were assembled with it.
        return Frame(self._of_steps, self.domain, self.device, counts=self.counts, span=span)

    @cached_property
    def _nominal(self) -> PDEProblem:
        """The first steps as a problem of their own, with every check of the file."""
        _ = self._controls
        return Blueprint(self._frame(0, self._at_once)).checked().nominal

    def _check(self, equation: StateEquation, frame: Frame) -> None:
        """Complain of controls that enter the equation in another way than through its integrals."""
        assert isinstance(equation, EvolutionEquation)
        given = [entry.key for entry in frame.entries if entry.data is not None]
        if given or equation.data is not None:
            key = given[0] if given else frame.entries[0].key
            message = "expected a control that enters the equation with method fds, found one of its given values"
            raise self.file.error(f"{key}.kind", f"{message} (Dirichlet or initial): take method adjoint")
        if equation.inertia is not None:
            message = "expected a capacity without controls with method fds, found one with a control"
            raise self.file.error("pde.capacity", f"{message}: take method adjoint")
        if len(stages_of(frame.entries)) > 1:
            raise self.file.error("control", "expected no continuation with method fds, found one")

    def _last_state(self, frame: Frame, like: StateEquation) -> StateEquation:
        """The sizes and the given coefficients of the state at the end."""
        width, free = frame.state.size, np.flatnonzero(~frame.fixed)
        return StateEquation(
            integrals=like.integrals,
            size=width,
            rows=self._controls.rows,
            free=free,
            lift=frame.given(frame.values).unparametrised[-width:],
            linear=like.linear,
            affine=like.affine,
            counts=self.counts,
        )


def _in_part(term: TermSpec, final: bool) -> bool:
    """Whether a term belongs to some steps, which are the last ones or not."""
    return not term.of_controls and (final or getattr(term, "time", "all") != "final")


def _without_windows(control: Any) -> Any:
    return control.model_copy(update={"windows": None}) if getattr(control, "windows", None) else control
