"""From a checked problem file to the objects it stands for: mesh, spaces, equation, control, objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..control.controls import Controls
from ..fem.interpolation import OutsideMeshError
from ..fem.mesh import Domain
from ..fem.state_space import StateSpace, state_space
from ..inner.energy import energy_model
from ..inner.model import InnerModel, Observation
from ..inner.residual import residual_model
from ..linalg.counts import Counts
from ..linalg.sparse import SparseMatrix
from ..pde.boundary import neumann, robin
from ..pde.equation import StateEquation
from ..pde.evolution import EvolutionEquation, capacity_matrix
from ..pde.form import Integral, Pointwise
from ..pde.ranges import NOT_NEGATIVE
from ..pde_problem import PDEProblem
from ..problem_file.control_spec import DirichletControl, ParameterControl
from ..problem_file.errors import ProblemError
from ..problem_file.expressions import COORDINATES
from ..problem_file.loading import ProblemFile
from ..scenario_problem import Coarse
from ..uncertainty.sampling import Samples
from .boundary_conditions import Condition, boundary_conditions, cells_condition, inertia_condition, integral_of
from .boundary_facets import boundary_facets, fixed_facets, other_facets
from .clock import Clock
from .coarsening import Prolongations, coarser
from .constraint_builder import ConstraintBuilder
from .control_builder import ControlBuilder
from .control_spaces import ControlSpaces
from .dependence import CELLS
from .dirichlet import controlled_coefficients, given_coefficients
from .domains import build_domain
from .entering import check_entering
from .entry import Entry
from .families import FAMILIES, Family, Interior
from .objective_builder import ObjectiveBuilder
from .overlaps import check_overlaps
from .pieces import Pieces
from .random_inputs import on_nodes, random_inputs, risk_of, samples_of, stream_of
from .random_values import RandomValues
from .scenarios import Recipe, Scenarios
from .stages import staged
from .values import Values
from .well_posedness import check_balanced, check_held, check_level, undetermined

Role = Literal["inner", "curvature"]

# Unknowns of a state below which steps take as long on a coarser mesh.
_LEAST_UNKNOWNS = 2_000


def build(file: ProblemFile, role: Role = "inner") -> PDEProblem:
    """Build the problem that a file describes, on the device of a role.

    Raises:
        ProblemError: names that the mesh does not have, coefficients out of range, a device that is not
            there, ...; every mistake that can be found without the others mended.
    """
    device = build_device(file, role)
    return build_on(file, build_domain(file), device)


def build_on(file: ProblemFile, domain: Domain, device: torch.device) -> PDEProblem:
    """The same on a mesh in memory, whatever the file says of its mesh."""
    return _Builder(file, device, Values(file, domain, device)).build(domain)[0]


def build_scenarios(file: ProblemFile, role: Role = "inner") -> Scenarios:
    """Build the nominal problem of a file with random inputs, and what makes that of any scenarios.

    Raises:
        ProblemError: as of `build`.
        ValueError: the file has no parameters.
    """
    device = build_device(file, role)
    return build_scenarios_on(file, build_domain(file), device)


def build_scenarios_on(file: ProblemFile, domain: Domain, device: torch.device) -> Scenarios:
    """The same on a mesh in memory."""
    if not file.spec.parameters:
        raise ValueError("expected a problem with random inputs, found none under parameters")
    return _scenarios(file, domain, device)


def _scenarios(file: ProblemFile, domain: Domain, device: torch.device, like: Scenarios | None = None) -> Scenarios:
    """With the random inputs, the sample and the nature of another problem, on another mesh."""
    nominal, recipe, samples = _Builder(file, device, Values(file, domain, device), like=like).build(domain)
    assert recipe is not None and samples is not None and file.spec.scenarios is not None
    inputs = recipe.random.inputs
    stream, coarsened = stream_of(file, inputs), _coarsened if like is None else None
    if file.spec.scenarios.levels == 2 and like is None and (recipe.clock is not None or coarser(file) is None):
        what = "an evolution takes one scenario at a time" if recipe.clock is not None else "there is no coarser mesh"
        raise file.error("scenarios.levels", f"expected auto or 1, found 2: {what}")
    return Scenarios(nominal, inputs, samples, stream, risk_of(file), file.spec.scenarios, recipe, coarsened)


def _coarsened(fine: Scenarios) -> Coarse | None:
    """The same scenarios on a coarser mesh; None where there is none, or where that would not be cheaper.

    An evolution takes one scenario after the other, whose steps take as long with fewer unknowns unless these are many.
    """
    file, state = fine.recipe.values.file, fine.recipe.state
    if fine.recipe.clock is not None or fine.spec.levels == 1:
        return None
    if fine.spec.levels == "auto" and fine.nominal.inner_shape[1] < _LEAST_UNKNOWNS:
        return None
    below = coarser(file)
    if below is None:
        return None
    try:
        coarse = _scenarios(below, build_domain(below), state.device, like=fine)
    except ProblemError:
        # A part of the mesh may be too small for it.
        return None
    prolongations = Prolongations()
    try:
        states = prolongations.of_states(state, coarse.recipe.state)
        way = prolongations.of_controls(fine.nominal.control, coarse.nominal.control)
    except OutsideMeshError:
        return None
    if way is None:
        return None
    free = states[fine.nominal.equation.free][:, coarse.nominal.equation.free]
    fewer = fine.nominal.inner_shape[1] // coarse.nominal.inner_shape[1]
    problem = replace(coarse.problem, kept=max(fewer, 1) * fine.at_once)
    device = state.device
    return Coarse(problem, SparseMatrix(way, device), SparseMatrix(free, device), fine.nominal.outer_metric)


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


@dataclass
class _Builder:
    """Builds the parts in order, and collects mistakes on the way.

    Attributes:
        like: the same problem on another mesh, which has the random inputs.
    """

    file: ProblemFile
    device: torch.device
    values: Values
    counts: Counts = field(default_factory=Counts)
    like: Scenarios | None = None

    def build(self, domain: Domain) -> tuple[PDEProblem, Recipe | None, Samples | None]:
        """The problem, that with all standard variables zero where inputs are random; and what others are made of."""
        spec, values = self.file.spec, self.values
        clock = self._clock()
        values.times = None if clock is None else clock.stages
        values.parameters = self._parameters()
        inputs = random_inputs(self.file, domain) if self.like is None else self.like.inputs
        samples = None
        if inputs is not None:
            samples = samples_of(self.file, inputs) if self.like is None else self.like.samples
        if inputs is not None:
            values.random = RandomValues(inputs, np.zeros((1, inputs.dimension)), squeezed=True)
        family = FAMILIES[spec.pde.kind]
        self._timely(family)
        state = state_space(domain, family.groups(spec.pde, domain.dim, spec.element), self.device)
        if self.like is not None and values.random is not None:
            values.random = replace(values.random, inputs=on_nodes(self.like.inputs, state))
        values.complex = state.groups[0].complex
        interior = family.interior(values, spec.pde, state)
        facets = boundary_facets(values, domain)
        named = {**domain.boundaries, "all": other_facets(values, domain)}
        spaces = ControlSpaces(values, state, self.counts, clock)
        entries = ControlBuilder(values, state, interior, named, fixed_facets(values, state, facets), spaces).build()
        controls = Controls(tuple(entry.part for entry in entries), 1 if clock is None else clock.steps)
        interior.coefficients.update(values.companions(CELLS, state.cells.quadrature.flat))
        given = given_coefficients(values, state, facets, entries, clock)
        lift, fixed = given.tensor, given.fixed
        zero_mean = undetermined(values, state, interior.undetermined, fixed, lift, entries)
        if zero_mean is not None:
            fixed[zero_mean.pinned] = True
        conditions, absorbing, boundary_coercive = boundary_conditions(values, state, facets, entries)
        loads = [(c.evaluation, c.coefficients["flux"]) for c in conditions.values() if c.form is neumann]
        if "source" in interior.coefficients:
            loads.append((state.cells, interior.coefficients["source"]))
        terms = ObjectiveBuilder(values, state, controls, domain.facets, clock, loads)
        objective = terms.build()
        constraints = ConstraintBuilder(values, entries, controls, terms, clock)
        constraints.build()
        self._all_used(entries)
        if not values.issues:
            check_overlaps(values, state, facets, entries)
            if interior.unseen:
                check_held(values, state, interior.unseen, fixed, facets, conditions)
            else:
                check_level(values, state, fixed, absorbing or interior.absorbing)
            if not values.issues:
                Pieces(values, state, fixed, facets, conditions, entries).check(interior)
        if values.issues:
            raise ProblemError(values.issues)

        recipe: Recipe | None = None
        if values.random is not None and samples is not None:
            recipe = Recipe(values, state, facets, entries, controls, clock, interior, conditions, boundary_coercive)
            recipe = recipe.tried(samples) if self.like is None else recipe.of_one_nature(self.like.recipe)
            interior, boundary_coercive = recipe.interior, recipe.coercive
        self._energy_ranges(conditions)
        placed = [(None, cells_condition(values, state, interior)), *conditions.items()]
        integrals = [integral_of(values, each, name, entries, controls) for name, each in placed]
        acting = [
            (name, each.place, integral)
            for (name, each), integral in zip(placed, integrals, strict=True)
            if each.controlled
        ]
        check_entering(values, entries, controls, acting, terms.joint_control)
        if values.issues:
            raise ProblemError(values.issues)
        additive = all(entry.additive for entry in entries)
        data = controlled_coefficients(state, given, entries, controls, clock)
        if zero_mean is not None and interior.undetermined is not None and data is not None and data.parameters:
            check_balanced(values, interior.undetermined, data, controls.start)
        if values.issues:
            raise ProblemError(values.issues)
        common = {
            "integrals": tuple(integrals),
            "rows": controls.rows,
            "affine": interior.affine and additive,
            "linear": interior.affine,
            "counts": self.counts,
            "data": data,
        }
        if clock is None:
            free = np.flatnonzero(~fixed)
            equation = StateEquation(
                size=state.size,
                free=free,
                lift=given.unparametrised,
                symmetric=interior.symmetric,
                zero_mean=zero_mean,
                easier=None if interior.eased is None else partial(_easier, tuple(integrals), interior.eased),
                **common,  # type: ignore[arg-type]
            )
        else:
            inertia = integral_of(values, inertia_condition(values, state, interior), None, entries, controls)
            common["inertia"] = inertia if inertia.controls else None
            equation = self._evolution(state, interior, clock, fixed, given.unparametrised, common)
        self._check_start(equation, entries, controls)
        coercive = interior.symmetric and interior.coercive and boundary_coercive and clock is None
        coercive = coercive and (spec.inner.model == "energy" or not self._may_lose_energy(conditions, entries))

        def model_of(equation: StateEquation) -> InnerModel:
            return self._model(state, equation, interior, controls, coercive)

        model = model_of(equation)
        if recipe is not None:
            recipe = replace(recipe, coercive=model.definite)
        problem = PDEProblem(
            spec.name, state, equation, controls, objective, model, terms.fields, l1_weights=terms.l1_weights
        )
        problem = replace(problem, notices=tuple(values.notices))
        return staged(problem, entries, constraints, model_of), recipe, samples

    def _all_used(self, entries: Sequence[Entry]) -> None:
        used = self.values.dependence.used
        for entry in entries:
            if entry.parameter is not None and entry.parameter not in used:
                message = f"expected a parameter that an expression of pde uses, found {entry.parameter!r}"
                self.values.complain(f"{entry.key}.name", message)

    def _energy_ranges(self, conditions: Mapping[str, Condition]) -> None:
        """Add the ranges of coefficients that only the energy form needs, where the file chooses this form."""
        if self.file.spec.inner.model != "energy":
            return
        robins = [condition for condition in conditions.values() if condition.form is robin]
        for key in ("pde.reaction", *(condition.keys["coefficient"] for condition in robins)):
            self.values.ranges[key] = NOT_NEGATIVE

    def _may_lose_energy(self, conditions: Mapping[str, Condition], entries: Sequence[Entry]) -> bool:
        """Whether controls may make a reaction or an exchange negative, which the energy form does not allow."""
        known = self.values.dependence
        cells = "reaction" in known.at(CELLS) or any("reaction" in entry.acts_on for entry in entries)
        return cells or any("coefficient" in known.at(condition.place) for condition in conditions.values())

    def _check_start(self, equation: StateEquation, entries: Sequence[Entry], controls: Controls) -> None:
        """Complain of starting values of controls that bring a coefficient out of its range."""
        said = equation.refusal(controls.start)
        if said:
            keys = [entry.key for entry in entries if not (entry.additive or entry.certain)]
            raise self.file.error(f"{keys[0]}.initial", f"at the starting values {said}")

    def _timely(self, family: Family) -> None:
        kind, evolves = self.file.spec.pde.kind, self.file.spec.time is not None
        if family.time == "always" and not evolves:
            self.values.complain("time", f"missing; an equation of kind {kind} evolves in time")
        elif family.time == "never" and evolves:
            self.values.complain("time", f"an equation of kind {kind} does not evolve in time")

    def _clock(self) -> Clock | None:
        time = self.file.spec.time
        if time is None:
            return None
        theta = 1.0 if time.scheme == "implicit_euler" else 0.5
        # A first step of the implicit Euler method does not use the boundary values at time 0, where controls have no
        # value and the initial state need not fit. A single such step does not reduce the order of the scheme.
        first = 1.0 if any(isinstance(each, DirichletControl) for each in self.file.spec.controls) else theta
        return Clock(time.steps, time.end / time.steps, theta, first)

    def _parameters(self) -> dict[str, float]:
        """Starting values of the parameters."""
        found = {}
        for k, each in enumerate(self.file.spec.controls):
            if isinstance(each, ParameterControl):
                key = f"control.{k}.initial" if isinstance(self.file.spec.control, tuple) else "control.initial"
                value = each.initial.constant if not isinstance(each.initial, tuple) else None
                lower, upper = (None if bound is None else bound.constant for bound in each.bounds)
                if value is None:
                    self.values.complain(key, f"expected a number for a parameter, found {each.initial}")
                if each.name in COORDINATES[: self.values.domain.dim]:
                    name_key = key.removesuffix("initial") + "name"
                    message = f"the name {each.name!r} is taken: it is a coordinate of the mesh"
                    self.values.complain(name_key, message)
                # Like every control, a parameter starts between its bounds.
                value = value or 0.0
                value = value if lower is None else max(value, lower)
                found[each.name] = value if upper is None else min(value, upper)
        return found

    def _evolution(
        self,
        state: StateSpace,
        interior: Interior,
        clock: Clock,
        fixed: np.ndarray,
        lift: Tensor,
        common: dict[str, object],
    ) -> EvolutionEquation:
        assert interior.capacity is not None
        free = np.flatnonzero(~fixed)
        every = (np.arange(1, clock.steps + 1)[:, None] * state.size + free).reshape(-1)
        return EvolutionEquation(
            size=(clock.steps + 1) * state.size,
            free=every,
            lift=lift,
            mass=capacity_matrix(state.cells, state.groups[0].components, interior.capacity),
            theta=clock.theta,
            first=clock.first,
            step=clock.step,
            symmetric_steps=interior.symmetric,
            **common,  # type: ignore[arg-type]
        )

    def _model(
        self, state: StateSpace, equation: StateEquation, interior: Interior, controls: Controls, coercive: bool
    ) -> InnerModel:
        spec = self.file.spec.inner
        noise = None if spec.noise == "matched" else float(spec.noise)
        observation = Observation(self.file.spec.curvature.scores, noise)
        start = controls.start
        if spec.model == "energy" and not coercive:
            lack = "self-adjoint and coercive" if equation.linear else "linear"
            message = f"expected auto or residual, found 'energy': the equation is not {lack}, as the energy form needs"
            raise self.file.error("inner.model", message)
        if coercive and spec.model != "residual":
            return energy_model(equation, observation, start)
        return residual_model(state, equation, observation, start, interior.norms, interior.level)


def _easier(integrals: tuple[Integral, ...], form: Callable[[float], Pointwise], share: float) -> tuple[Integral, ...]:
    """The integrals of an equation, the first of which are over the cells, with an easier integrand there."""
    return replace(integrals[0], form=form(share)), *integrals[1:]
