"""From a problem file to an evolution whose steps are made and passed, without the states of all of them in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ..control.controls import Controls
from ..engine.reversal import Reversal, largest_block
from ..fem.mesh import Domain
from ..horizon_problem import HorizonProblem
from ..horizon_steps import HorizonPart, StepNorms
from ..linalg.bidiagonal import KeptFactors
from ..linalg.counts import Counts
from ..linalg.sparse import SparseMatrix
from ..linalg.stage_log import stage
from ..objective.sensor_terms import SensorTerm
from ..objective.terms import Objective
from ..pde.equation import StateEquation
from ..pde.evolution import EvolutionEquation
from ..pde.stretch import Excerpt, Stretch
from ..pde_problem import PDEProblem
from ..problem_file.control_spec import DensityControl
from ..problem_file.loading import ProblemFile
from ..problem_file.room import size_text
from ..problem_file.sizes import recomputed_at_once, steps_at_once
from ..problem_file.term_parts import TermSpec
from .blueprint import Blueprint, build_device
from .boundary_facets import fixed_facets, other_facets
from .clock import Clock, clock_of
from .control_builder import ControlBuilder
from .control_spaces import ControlSpaces
from .data_fields import DataFields, data_fields
from .domains import build_domain
from .equation_builder import EquationBuilder
from .frame import Frame
from .integrals import cell_fields
from .objective_builder import ObjectiveBuilder
from .random_values import names_in
from .stages import stages_of

# Control unknowns beyond which an adjoint is the better choice by far: every step takes a solve for each of them.
_MOST_CONTROLS = 1000
# Bytes that the last parts may take, and bytes of a part for each coefficient of its states, with matrices and factors.
_PARTS_BYTES, _PART_BYTES = 32e6, 2000.0


def horizon_of(file: ProblemFile) -> HorizonProblem:
    """The evolution of a file.

    Raises:
        ProblemError: mistakes of the file, and what forward mode does not take: a steady problem, random inputs,
            constraints, too many controls, and controls that determine coefficients of the state.
    """
    _check_file(file)
    with stage("mesh"):
        domain = build_domain(file)
    with stage("assembly"):
        return Horizon(file, domain, build_device(file)).problem


def _check_file(file: ProblemFile) -> None:
    spec = file.spec
    if spec.method != "fds":
        _check_memory(file)
        return
    if spec.parameters:
        raise file.error("method", "expected a method for random inputs, found 'fds': take nhgd, or no parameters")
    if spec.time is None:
        raise file.error("method", "expected a method for steady problems, found 'fds', which needs time: take adjoint")
    if spec.time.memory is not None:
        raise file.error("time.memory", "expected none with method fds, which keeps no states at all")
    if spec.constraints:
        raise file.error("constraints", f"expected none with method fds, found {len(spec.constraints)}")
    for key, control in spec.keyed_controls:
        if isinstance(control, DensityControl):
            raise file.error(f"{key}.kind", "expected a control of few numbers with method fds, found 'density'")


def _check_memory(file: ProblemFile) -> None:
    """Refuse what needs the states of all steps at once in a problem with `time.memory`."""
    spec = file.spec
    if spec.method not in ("nhgd", "adjoint"):
        raise file.error("time.memory", f"expected none with method {spec.method}; nhgd and adjoint take it")
    if spec.parameters:
        raise file.error("time.memory", "expected none with random inputs, whose states are kept")
    if spec.constraints:
        raise file.error("constraints", f"expected none with time.memory, found {len(spec.constraints)}")
    sampled = {"inner.tests": spec.inner.tests, "curvature.kind": spec.curvature.kind}
    for key, value in sampled.items():
        if value not in ("auto", "all", "factored"):
            message = f"expected auto with time.memory, whose states and adjoints are exact, found {value!r}"
            raise file.error(key, message)


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
        self._check(nominal, first)
        assert isinstance(nominal.equation, EvolutionEquation)
        terms = self._terms
        objective = terms.build(lambda term: term.of_controls)
        terms.values.mistakes.raise_found()
        last.terms.build()
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
            cell_fields=cell_fields(last.values, last.interior(last.values)),
            sensors=tuple(last.terms.sensors),
            part=self.part,
            steps=clock.steps,
            end=float(clock.levels[-1]),
            at_once=self._at_once,
            first=Stretch(nominal.equation, Excerpt(controls.rows, 0, self._at_once)),
            room=0 if self._carries else self._room,
        )

    def part(self, start: int, end: int) -> HorizonPart:
        """The steps from one number to another.

        What does not differ but in the number of the steps is made once. What depends on time is made again, unless the
        last parts take little memory.
        """
        if (start, end) in self._parts:
            self._parts.move_to_end((start, end))
            return self._parts[start, end]
        final, clock = end == self._clock.steps, self._clock
        # The scheme of the very first step may be another one.
        own = clock.first != clock.theta and start == 0
        equation, frame = self._equation(start, end, own)
        objective, sensors = self._objective(start, end, final, frame)
        excerpt = Excerpt(self._controls.rows, start, end - start)
        found = HorizonPart(Stretch(equation, excerpt), objective, lambda: self._norms, sensors)
        if self._carries or self._steady:
            return found
        self._parts[start, end] = found
        if len(self._parts) > _PARTS_BYTES / (_PART_BYTES * frame.state.size * self._at_once):
            self._parts.popitem(last=False)
        return found

    @cached_property
    def _parts(self) -> OrderedDict[tuple[int, int], HorizonPart]:
        return OrderedDict()

    def _equation(self, start: int, end: int, own: bool) -> tuple[EvolutionEquation, Frame]:
        key = (end - start, own)
        if not self._varies and key in self._equations:
            return self._equations[key]
        frame = self._frame(start, end)
        found = EquationBuilder(frame, -1, stages_of(frame.entries)[-1]).build(frame.values)
        frame.mistakes.raise_found()
        assert isinstance(found, EvolutionEquation)
        data = None if found.data is None else found.data.after(frame.state.size)
        found = replace(found, data=data, kept=self._kept)
        if not self._varies:
            self._equations[key] = found, frame
        return found, frame

    def _objective(self, start: int, end: int, final: bool, frame: Frame) -> tuple[Objective, tuple[SensorTerm, ...]]:
        """The terms of the state in some steps, and the sensors that they compare it with."""
        key = (end - start, final)
        if self._steady and key in self._objectives:
            return self._objectives[key]
        if frame.clock is not None and frame.clock.before != start:
            frame = self._frame(start, end)
        objective = frame.terms.build(lambda term: _in_part(term, final))
        frame.mistakes.raise_found()
        terms = self.file.spec.objective
        # A frame that is used again may have the sensors of a term twice.
        sensors = {each.number: each for each in frame.terms.sensors if _in_part(terms[each.number], final)}
        found = objective, tuple(sensors.values())
        if self._steady:
            self._objectives[key] = found
        return found

    @cached_property
    def _kept(self) -> KeptFactors:
        return KeptFactors()

    @cached_property
    def _equations(self) -> dict[tuple[int, bool], tuple[EvolutionEquation, Frame]]:
        return {}

    @cached_property
    def _objectives(self) -> dict[tuple[int, bool], tuple[Objective, tuple[SensorTerm, ...]]]:
        return {}

    @cached_property
    def _varies(self) -> bool:
        """Whether a coefficient, a source, a boundary value or a gain depends on time."""
        spec: Any = self.file.spec
        return "t" in names_in([spec.pde, spec.control])

    @property
    def _steady(self) -> bool:
        """Whether equation, controls and objective are the same in all steps."""
        return "t" not in self._names and not any(term.moving for term in self.file.spec.objective)

    @cached_property
    def _names(self) -> frozenset[str]:
        """The variables in the equation, the controls and the objective."""
        spec: Any = self.file.spec
        return frozenset(names_in([spec.pde, spec.control, spec.objective]))

    @cached_property
    def _norms(self) -> StepNorms:
        """The norms at one time, of the first step."""
        frame = self._first
        one = Blueprint(self._frame(0, 1)).nominal
        width, device = frame.state.size, self.device
        gram, mass = (
            SparseMatrix(sp.csr_matrix(each.host[:width, :width]), device, symmetric=True)
            for each in (one.model.whole_gram, one._mass)
        )
        return StepNorms(one.inner_metric, gram, mass, one._level)

    # The times and the controls of all steps

    @cached_property
    def _clock(self) -> Clock:
        clock = clock_of(self.file.spec)
        assert clock is not None
        return clock

    @property
    def _carries(self) -> bool:
        """Whether derivatives are carried forwards with the states."""
        return self.file.spec.method == "fds"

    @cached_property
    def _at_once(self) -> int:
        steps, size = self._clock.steps, self._first.state.size
        if self._carries:
            return steps_at_once(steps, size, self._controls.size)
        return largest_block(steps, self._room, recomputed_at_once(steps, size, self._room))

    @cached_property
    def _room(self) -> int:
        """The number of states that may be kept besides the first one."""
        time, size = self.file.spec.time, self._first.state.size
        assert time is not None and time.memory is not None
        room = int(min(time.memory / (8.0 * size), time.steps + 1.0)) - 1
        try:
            Reversal(time.steps, max(room, 0))
        except ValueError:
            least = size_text(8.0 * size * (min(time.steps, 3) + 1))
            message = f"expected room for a few states of {size_text(8.0 * size)}, such as {least}"
            raise self.file.error("time.memory", f"{message}, found {size_text(time.memory)}") from None
        return room

    @cached_property
    def _data(self) -> DataFields:
        """The fields from files, arrays and functions, which all parts share."""
        return data_fields(self.file, self.domain)

    @cached_property
    def _first(self) -> Frame:
        """The first step, of the controls of the file."""
        return Frame(
            self.file, self.domain, self.device, counts=self.counts, span=replace(self._clock, steps=1), read=self._data
        )

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
        if self._carries and found.size > _MOST_CONTROLS:
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
        clock = self._clock
        span = replace(clock, steps=end - start, before=start, first=clock.theta if start else clock.first)
        # Each part has a state space of its own, which keeps the patterns of the matrices that were assembled with it.
        return Frame(self._of_steps, self.domain, self.device, counts=self.counts, span=span, read=self._data)

    @cached_property
    def _nominal(self) -> PDEProblem:
        """The first steps as a problem of their own, with every check of the file."""
        _ = self._controls
        return Blueprint(self._frame(0, self._at_once)).checked().nominal

    def _check(self, nominal: PDEProblem, frame: Frame) -> None:
        """Complain of what the steps cannot be passed with."""
        equation = nominal.equation
        assert isinstance(equation, EvolutionEquation)
        what = "method fds" if self._carries else "time.memory"
        if len(stages_of(frame.entries)) > 1:
            raise self.file.error("control", f"expected no continuation with {what}, found one")
        if not self._carries:
            if frame.terms.joint_control and any(self._controls.rows.averaged):
                message = "expected no term in Python beside a Dirichlet control with crank_nicolson and time.memory"
                raise self.file.error("objective", message)
            return
        given = [entry.key for entry in frame.entries if entry.data is not None]
        if given or equation.data is not None:
            key = given[0] if given else frame.entries[0].key
            message = "expected a control that enters the equation with method fds, found one of its given values"
            raise self.file.error(f"{key}.kind", f"{message} (Dirichlet or initial): take method adjoint")
        if equation.inertia is not None:
            message = "expected a capacity without controls with method fds, found one with a control"
            raise self.file.error("pde.capacity", f"{message}: take method adjoint")

    def _last_state(self, frame: Frame, like: StateEquation) -> StateEquation:
        """The sizes and the given coefficients of the state at the end."""
        width, free = frame.state.size, np.flatnonzero(~frame.fixed)
        last = EquationBuilder(frame, -1, stages_of(frame.entries)[-1]).build(frame.values)
        data, excerpt = last.data, Excerpt(self._controls.rows, self._clock.steps - 1, 1)
        return StateEquation(
            integrals=last.integrals,
            size=width,
            rows=self._controls.rows,
            free=free,
            lift=last.lift[-width:],
            linear=like.linear,
            affine=like.affine,
            counts=self.counts,
            data=None if data is None else data.of_last(width, excerpt.indices.numpy(), self._controls.size),
        )


def _in_part(term: TermSpec, final: bool) -> bool:
    """Whether a term belongs to some steps, which are the last ones or not."""
    return not term.of_controls and (final or getattr(term, "time", "all") != "final")


def _without_windows(control: Any) -> Any:
    return control.model_copy(update={"windows": None}) if getattr(control, "windows", None) else control
