"""From a checked problem file and a mesh to the problem of any standard variables of its random inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch

from ..fem.mesh import Domain
from ..inner.energy import energy_model
from ..inner.model import InnerModel, Observation
from ..inner.residual import residual_model
from ..linalg.stage_log import stage
from ..objective.risk import RiskMeasure
from ..pde.equation import StateEquation
from ..pde_problem import PDEProblem
from ..problem_file.errors import ProblemError
from ..problem_file.loading import ProblemFile
from ..problem_file.scenario_spec import ScenariosSpec
from ..scenario_problem import Coarse, ScenarioProblem
from ..uncertainty.fresh import fresh_sample
from ..uncertainty.inputs import RandomInputs
from ..uncertainty.sampling import Samples, Stream
from .coarsening import coarse_level, coarser
from .domains import build_domain
from .entering import check_entering
from .equation_builder import EquationBuilder
from .equation_properties import check_properties
from .families.base import Interior
from .frame import Frame
from .integrals import cell_fields
from .random_inputs import risk_of, stream_of
from .stages import bounds_in, stages_of
from .well_posedness import check_balanced

Role = Literal["inner", "curvature"]

# Unknowns of a state below which steps take as long on a coarser mesh.
_LEAST_UNKNOWNS = 2_000


def build(file: ProblemFile, role: Role = "inner") -> PDEProblem:
    """The problem that a file describes, on the device of a role; with random inputs, the nominal problem.

    Raises:
        ProblemError: as of `blueprint_of`.
    """
    return blueprint_of(file, role).nominal


def build_on(file: ProblemFile, domain: Domain, device: torch.device) -> PDEProblem:
    """The same problem on a mesh in memory, whatever the file says about its mesh."""
    return blueprint_on(file, domain, device).nominal


def blueprint_of(file: ProblemFile, role: Role = "inner") -> Blueprint:
    """The blueprint of a file, on the device of a role.

    Raises:
        ProblemError: names that the mesh does not have, coefficients out of range, a device that is not
            there, ...; every mistake that can be found without the others mended.
    """
    device = build_device(file, role)
    with stage("mesh"):
        domain = build_domain(file)
    with stage("assembly"):
        return blueprint_on(file, domain, device)


def blueprint_on(file: ProblemFile, domain: Domain, device: torch.device) -> Blueprint:
    """The same blueprint on a mesh in memory, whatever the file says about its mesh."""
    return Blueprint(Frame(file, domain, device)).checked()


def build_device(file: ProblemFile, role: Role = "inner") -> torch.device:
    """The device of a role. `auto` is the CPU, where the factorisations are."""
    names = {"inner": file.spec.devices.inner, "curvature": file.spec.devices.curvature}
    name = "cpu" if names[role] == "auto" else names[role]
    device = torch.device(name)
    there = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= there:
        message = f"expected a device of this machine, found {name!r}: it has {there} CUDA devices"
        raise file.error(f"devices.{role}", message)
    return device


@dataclass(frozen=True, eq=False)
class Blueprint:
    """Builds the problem of any standard variables z; the nominal problem is the one of z = 0.

    What z does not change is the same in all these problems: spaces, controls, constraints, the inner product K.

    Attributes:
        frame: the parts of the problem.
        stage: the number of a stage of a continuation; by default the last one, which is the problem of the file.
    """

    frame: Frame
    stage: int = -1

    def checked(self) -> Blueprint:
        """This blueprint, once the nominal problem has been built.

        Raises:
            ProblemError: the mistakes of the file.
        """
        nominal, file = self.nominal, self.file
        if self.frame.inputs is not None and self.frame.finer is None and self.spec.levels == 2:
            evolves = nominal.equation.repeats > 1 or self.frame.clock is not None
            if evolves or coarser(file) is None:
                what = "an evolution takes one scenario at a time" if evolves else "there is no coarser mesh"
                raise file.error("scenarios.levels", f"expected auto or 1, found 2: {what}")
        return self

    @cached_property
    def nominal(self) -> PDEProblem:
        """The problem with all standard variables zero, which is the only one without random inputs.

        Raises:
            ProblemError: the mistakes of the file.
        """
        frame, values = self.frame, self.frame.values
        if self.stage == -1:
            frame.check()
        equation = self._equations.build(values)
        if self.stage == -1:
            self._check_equation(equation)
        inequality = frame.constraints.inequality_in(self._equations.coefficients)
        return PDEProblem(
            self.file.spec.name,
            frame.state,
            equation,
            frame.controls,
            frame.objective(values),
            self._model(equation, frame.interior(values)),
            frame.terms.fields,
            earlier=tuple(each.nominal for each in self.earlier),
            constraint=inequality,
            l1_weights=frame.terms.l1_weights,
            reports=() if inequality is None else (inequality,),
            state_bounds=tuple(bounds_in(each, equation) for each in frame.constraints.states),
            notices=tuple(frame.mistakes.notices),
            cell_fields=cell_fields(values, frame.interior(values)),
            sensors=tuple(frame.terms.sensors),
            predictions=frame.predictions,
        )

    def at(self, z: np.ndarray | Literal[0], numbers: np.ndarray | None = None) -> PDEProblem:
        """The problem of scenarios with standard variables z (b, m), its states (b, n); for 0 the nominal problem.

        An evolution takes one scenario at a time.

        Args:
            z: (b, m) standard variables, or 0.
            numbers: (b,) what messages call the scenarios; by default 0, 1, ...

        Raises:
            ProblemError: a coefficient is out of its range in one of the scenarios, which is named.
            ValueError: z is of another shape, there are several scenarios of an evolution, or no random inputs.
        """
        if isinstance(z, int) and z == 0:
            return self.nominal
        if self.frame.inputs is None:
            raise ValueError("expected a problem with random inputs, found none under parameters")
        z = np.asarray(z, dtype=np.float64)
        if z.ndim != 2 or z.shape[1] != self.inputs.dimension:
            raise ValueError(f"expected scenarios (b, {self.inputs.dimension}), found {z.shape}")
        if self.frame.clock is not None and len(z) != 1:
            raise ValueError(f"expected one scenario of an evolution at a time, found {len(z)}")
        nominal, frame = self.nominal, self.frame
        values = frame.in_scenarios(z, np.arange(len(z)) if numbers is None else np.asarray(numbers))
        check_properties(
            values, frame.properties.symmetric, frame.has_energy, frame.interior(values), frame.conditions(values)
        )
        frame.zero_mean(values)
        objective = frame.objective(values)
        values.mistakes.raise_found()
        equation = self._equations.build(values, nominal.equation)
        return replace(
            nominal,
            equation=equation,
            objective=objective,
            model=replace(nominal.model, equation=equation),  # type: ignore[type-var]
            earlier=(),
            sibling=nominal,
        )

    @cached_property
    def _equations(self) -> EquationBuilder:
        return EquationBuilder(self.frame, self.stage, stages_of(self.frame.entries)[self.stage])

    def _check_equation(self, equation: StateEquation) -> None:
        """Check how controls enter the equation.

        Raises:
            ProblemError: a control has no effect or no derivative, or brings a coefficient out of its range.
        """
        frame, values = self.frame, self.frame.values
        entries, controls, undetermined = frame.entries, frame.controls, frame.interior(values).undetermined
        integrals = dict(zip(frame.integrals(values), equation.integrals, strict=True))
        check_entering(values, entries, controls, integrals, frame.terms.joint_control)
        values.mistakes.raise_found()
        data = equation.data
        if equation.zero_mean is not None and undetermined is not None and data is not None and data.parameters:
            check_balanced(values, undetermined, data, controls.start)
        values.mistakes.raise_found()
        said = equation.refusal(controls.start)
        if said:
            keys = [entry.key for entry in entries if not (entry.additive or entry.certain)]
            raise self.file.error(f"{keys[0]}.initial", f"at the starting values {said}")

    def _model(self, equation: StateEquation, interior: Interior) -> InnerModel:
        spec, start = self.file.spec, self.frame.controls.start
        noise = None if spec.inner.noise == "matched" else float(spec.inner.noise)
        observation = Observation(spec.curvature.scores, noise)
        if self.frame.has_energy:
            return energy_model(equation, observation, start)
        if spec.inner.model == "energy":
            lack = "self-adjoint and coercive" if equation.linear else "linear"
            message = f"expected auto or residual, found 'energy': the equation is not {lack}, as the energy form needs"
            raise self.file.error("inner.model", message)
        return residual_model(self.frame.state, equation, observation, start, interior.norms, interior.level)

    # The scenarios of the file

    @property
    def file(self) -> ProblemFile:
        return self.frame.file

    @property
    def inputs(self) -> RandomInputs:
        """The random inputs, of a problem that has some."""
        assert self.frame.inputs is not None
        return self.frame.inputs

    @property
    def samples(self) -> Samples:
        """The scenarios of the file, z (S, m), and their weights."""
        assert self.frame.samples is not None
        return self.frame.samples

    @property
    def spec(self) -> ScenariosSpec:
        """The section of the file on scenarios."""
        assert self.file.spec.scenarios is not None
        return self.file.spec.scenarios

    @property
    def risk(self) -> RiskMeasure:
        """The risk measure of the objectives of the scenarios."""
        return risk_of(self.file)

    @cached_property
    def stream(self) -> Stream:
        """Independent scenarios without an end.

        Strategies without a sample take its `fresh` stream, and judges out of sample the `fresh` stream of that one.
        """
        return stream_of(self.file, self.inputs)

    @property
    def at_once(self) -> int:
        """Scenarios that are worked on at the same time: 1 of an evolution."""
        if self.frame.clock is not None:
            return 1
        return 32 if self.spec.batch == "auto" else int(self.spec.batch)

    @cached_property
    def earlier(self) -> tuple[Blueprint, ...]:
        """The blueprints of the stages of a continuation that come before."""
        count = len(stages_of(self.frame.entries)) - 1 if self.stage == -1 else 0
        return tuple(Blueprint(self.frame, stage) for stage in range(count))

    @cached_property
    def problem(self) -> ScenarioProblem:
        """The scenarios of the file, as the engine solves them."""
        stream = self.stream.fresh
        return ScenarioProblem(
            self.nominal,
            self.samples.z,
            torch.from_numpy(self.samples.weights),
            self.risk,
            self.at,
            self.at_once,
            lambda first, count: stream.draw(count, first).z,
            partial(fresh_sample, stream.fresh),
            self.frame.same_data,
            self._coarsened if self.frame.finer is None and self.stage == -1 else None,
            mixed=self.frame.mixed,
        )

    def _coarsened(self) -> Coarse | None:
        """The same scenarios on a coarser mesh; None where there is none, or where that would not be cheaper.

        An evolution takes one scenario after the other, whose steps take as long with fewer unknowns unless these are
        many.
        """
        unknowns, levels = self.nominal.inner_shape[1], self.spec.levels
        if self.frame.clock is not None or levels == 1 or (levels == "auto" and unknowns < _LEAST_UNKNOWNS):
            return None
        below = coarser(self.file)
        if below is None:
            return None
        try:
            frame = Frame(below, build_domain(below), self.frame.device, finer=self.frame, read=self.frame.data)
            coarse = Blueprint(frame).problem
        except ProblemError:
            # A part of the mesh may be too small for it.
            return None
        fewer = unknowns // coarse.nominal.inner_shape[1]
        problem = replace(coarse, kept=max(fewer, 1) * self.at_once)
        return coarse_level(self.nominal, problem)
