"""The parts of a problem, each made once from its file, or once for each batch of scenarios that change it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch

from ..control.controls import Controls
from ..fem.mesh import Domain
from ..fem.state_space import StateSpace, state_space
from ..linalg.counts import Counts
from ..objective.terms import Objective, Prediction
from ..pde.boundary import neumann, robin
from ..pde.form import Integral
from ..pde.ranges import NOT_NEGATIVE
from ..pde.zero_mean import ZeroMean
from ..problem_file.control_spec import PythonControl
from ..problem_file.loading import ProblemFile
from ..uncertainty.inputs import RandomInputs
from ..uncertainty.sampling import Samples
from .boundary_conditions import boundary_conditions
from .boundary_facets import boundary_facets, fixed_facets, other_facets
from .clock import Clock, clock_of
from .constraint_builder import ConstraintBuilder
from .control_builder import ControlBuilder, check_parameters_used, starting_parameters
from .control_spaces import ControlSpaces
from .data_fields import DataFields, data_fields
from .dependence import CELLS
from .dirichlet import Given, given_coefficients
from .entry import Entry
from .equation_properties import EquationProperties, properties_of
from .families.base import Equation, Interior, equation_of
from .integrals import cells_integral, place_of
from .issue_collector import IssueCollector
from .objective_builder import ObjectiveBuilder
from .overlaps import check_overlaps
from .pieces import Pieces
from .random_inputs import on_nodes, random_inputs, samples_of
from .random_values import RandomValues
from .values import Values
from .well_posedness import check_held, check_level, check_regularised, undetermined

# The number of scenarios in which the properties of an equation are looked up, and the number of values of one
# coefficient up to which more scenarios are looked at.
_TRIED, _TRIED_VALUES = 8, 5_000_000


@dataclass(frozen=True, eq=False)
class Frame:
    """The parts of a problem: file, mesh, spaces, controls, and each part of equation and objective.

    Methods that take `values` give the part in the scenarios of these values. A part that no random input changes is
    made once and is the same object in all scenarios.

    Attributes:
        file: the checked problem file.
        domain: the mesh.
        device: where tensors are.
        finer: the same problem on a finer mesh, whose random inputs, sample and properties this one has; None without.
        counts: where work is counted.
        span: the times of a part of the evolution, which this is then the problem of; None for the whole.
        read: the data of the file where they have been read already.
    """

    file: ProblemFile
    domain: Domain
    device: torch.device
    finer: Frame | None = None
    counts: Counts = field(default_factory=Counts)
    span: Clock | None = None
    read: DataFields | None = None

    # Parts that are the same in all scenarios

    @cached_property
    def mistakes(self) -> IssueCollector:
        """The mistakes of the file, as far as they have been found."""
        return IssueCollector(self.file)

    @cached_property
    def section(self) -> Equation:
        """The section of the equation in the file."""
        return equation_of(self.file)

    @cached_property
    def clock(self) -> Clock | None:
        return clock_of(self.file.spec) if self.span is None else self.span

    @cached_property
    def inputs(self) -> RandomInputs | None:
        """The random inputs; None without."""
        if self.finer is None:
            return random_inputs(self.file, self.domain)
        return None if self.finer.inputs is None else on_nodes(self.finer.inputs, self.state)

    @cached_property
    def samples(self) -> Samples | None:
        """The scenarios of the file."""
        if self.finer is not None:
            return self.finer.samples
        return None if self.inputs is None else samples_of(self.file, self.inputs)

    @cached_property
    def data(self) -> DataFields:
        """The fields from files, arrays and functions."""
        return data_fields(self.file, self.domain) if self.read is None else self.read

    @cached_property
    def state(self) -> StateSpace:
        spec = self.file.spec
        return state_space(self.domain, self.section.groups(self.domain.dim, spec.element), self.device)

    @cached_property
    def values(self) -> Values:
        """The values in the nominal problem, where all standard variables are zero."""
        parameters = starting_parameters(self.file.spec, self.domain.dim, self.mistakes)
        random = None
        if self.inputs is not None and self.samples is not None:
            random = RandomValues(self.inputs, np.zeros((1, self.inputs.dimension)), squeezed=True)
        return Values(
            self.file,
            self.domain,
            self.device,
            self.mistakes,
            times=None if self.clock is None else self.clock.stages,
            parameters=parameters,
            complex=self.state.groups[0].complex,
            random=random,
            data=self.data,
        )

    def in_scenarios(self, z: np.ndarray, numbers: np.ndarray) -> Values:
        """The values in scenarios with standard variables z (b, m); b is 1 for an evolution."""
        assert self.values.random is not None
        random = replace(self.values.random, z=z, numbers=numbers, squeezed=self.clock is not None)
        dependence = self.values.dependence.copy()
        return replace(self.values, mistakes=IssueCollector(self.file), dependence=dependence, random=random, own={})

    @cached_property
    def facets(self) -> dict[str, np.ndarray]:
        """The facets of every condition of the file."""
        return boundary_facets(self.values, self.domain)

    @cached_property
    def entries(self) -> list[Entry]:
        """The controls, and how they enter the equation."""
        interior = self._interior(self.values)
        fixed = fixed_facets(self.values, self.state, self.facets)
        named = {**self.domain.boundaries, "all": other_facets(self.values, self.domain)}
        spaces = ControlSpaces(self.values, self.state, self.counts, self.clock)
        return ControlBuilder(self.values, self.state, interior, named, fixed, spaces).build()

    @cached_property
    def controls(self) -> Controls:
        return Controls(tuple(entry.part for entry in self.entries), 1 if self.clock is None else self.clock.steps)

    @cached_property
    def fixed(self) -> np.ndarray:
        """(N,) a mask of the coefficients of the state that are not unknowns."""
        fixed, zero_mean = self.given(self.values).fixed.copy(), self.zero_mean(self.values)
        if zero_mean is not None:
            fixed[zero_mean.pinned] = True
        return fixed

    @cached_property
    def terms(self) -> ObjectiveBuilder:
        """The builder of the nominal objective, with the fields and weights that it has found."""
        return self._terms(self.values)

    @cached_property
    def constraints(self) -> ConstraintBuilder:
        return ConstraintBuilder(self.values, self.entries, self.controls, self.terms, self.clock)

    @cached_property
    def predictions(self) -> tuple[Prediction, ...]:
        """The numbers whose intervals the posterior of the file gives; none without one."""
        inference = self.file.spec.inference
        if inference is None:
            return ()
        # Other problems are solved without loading what a posterior needs.
        from .prediction_builder import PredictionBuilder

        return PredictionBuilder(self.values, self.state, self.controls, self.clock).build(inference.predict)

    @property
    def same_data(self) -> bool:
        """Whether boundary and initial values are the same in all scenarios."""
        return not self.values.names.in_given & self.values.random_names

    @property
    def mixed(self) -> bool:
        """Whether controls may bring a coefficient out of its range in some scenarios only."""
        random = self.values.random_names
        together = any(names & random for names in self.values.dependence.names.values())
        own = any(isinstance(each, PythonControl) for each in self.file.spec.controls)
        return together or (own and bool(self.values.names.in_cells & random))

    # Parts that random inputs may change

    def _interior(self, values: Values) -> Interior:
        """The equation in the cells, before it is known which parameters controls use there."""
        make = partial(self.section.interior, values, self.state)
        return values.kept("equation in the cells", values.names.in_cells, make)

    def interior(self, values: Values) -> Interior:
        """The equation in the cells."""
        found = self._interior(values)

        def whole() -> Interior:
            coefficients = found.coefficients | values.companions(CELLS, self.state.cells.quadrature)
            return replace(found, coefficients=coefficients)

        return values.kept("interior", values.names.in_cells, whole)

    def given(self, values: Values) -> Given:
        """The coefficients of the state that are given."""
        make = partial(given_coefficients, values, self.state, self.facets, self.entries, self.clock)
        return values.kept("given", values.names.in_given, make)

    def zero_mean(self, values: Values) -> ZeroMean | None:
        """The condition on a field that is determined up to a constant; None without such a field."""
        given, candidate = self.given(values), self.interior(values).undetermined
        make = partial(undetermined, values, self.state, candidate, given.fixed, given.tensor, self.entries)
        return values.kept("zero mean", values.names.in_given, make)

    def conditions(self, values: Values) -> dict[str, Integral]:
        """The integrals over sides and at points, by name and without controls."""
        make = partial(boundary_conditions, values, self.state, self.facets, self.entries)
        return values.kept("conditions", values.names.in_boundary, make)

    def integrals(self, values: Values) -> dict[str | None, Integral]:
        """The integrals of the equation without the time derivative and without controls; None names the cells."""
        cells = cells_integral(values, self.state, self.interior(values))
        return dict([(None, cells), *self.conditions(values).items()])

    def _terms(self, values: Values) -> ObjectiveBuilder:
        interior, conditions = self.interior(values), self.conditions(values)
        loads = [(each.evaluation, each.coefficients["flux"]) for each in conditions.values() if each.form is neumann]
        if "source" in interior.coefficients:
            loads.append((self.state.cells, interior.coefficients["source"]))
        return ObjectiveBuilder(values, self.state, self.controls, self.domain.facets, self.clock, loads)

    def objective(self, values: Values) -> Objective:

        def build() -> Objective:
            return (self.terms if values.nominal else self._terms(values)).build()

        return values.kept("objective", values.names.in_loads, build)

    # What the file as a whole has to be

    def check(self) -> None:
        """Find the mistakes of the file that can be found without its equation.

        Raises:
            ProblemError: there are some.
        """
        values, entries = self.values, self.entries
        interior = self.interior(values)
        self.zero_mean(values)
        conditions = self.conditions(values)
        self.objective(values)
        self.constraints.build()
        _ = self.predictions
        check_parameters_used(values, entries)
        if not values.issues:
            check_overlaps(values, self.state, self.facets, entries)
            check_regularised(values, entries, self.terms.joint_control)
            if interior.unseen:
                check_held(values, self.state, interior.unseen, self.fixed, self.facets, conditions)
            else:
                exchange = [each.coefficients["coefficient"] for each in conditions.values() if each.form is robin]
                absorbing = any(bool((transfer != 0.0).any()) for transfer in exchange)
                check_level(values, self.state, self.fixed, absorbing or interior.absorbing)
        if not values.issues:
            Pieces(values, self.state, self.fixed, self.facets, conditions, entries).check(interior)
        self.mistakes.raise_found()
        self._add_energy_ranges()

    @cached_property
    def properties(self) -> EquationProperties:
        """The properties of the equation in the nominal problem and in the first scenarios of the file.

        Raises:
            ProblemError: a coefficient is out of its range in one of these scenarios.
        """
        if self.finer is not None:
            return self.finer.properties
        found = properties_of(self.interior(self.values), self.conditions(self.values))
        if self.samples is None:
            return found
        # More scenarios are looked at where that costs little.
        points = self.state.cells.quadrature.points * (1 if self.clock is None else self.clock.steps)
        numbers = np.arange(min(self.samples.count, max(_TRIED, _TRIED_VALUES // points)))
        at_once = _TRIED if self.clock is None else 1
        for some in np.split(numbers, range(at_once, len(numbers), at_once)):
            values = self.in_scenarios(self.samples.z[some], some)
            found = found & properties_of(self.interior(values), self.conditions(values))
            values.mistakes.raise_found()
        return found

    @cached_property
    def has_energy(self) -> bool:
        """Whether the inner model has the energy form."""
        chosen, found = self.file.spec.inner.model, self.properties
        coercive = found.symmetric and found.coercive and found.exchanging and self.clock is None
        return coercive and chosen != "residual" and (chosen == "energy" or not self._may_lose_energy)

    @property
    def _may_lose_energy(self) -> bool:
        """Whether controls may make a reaction or an exchange negative, which the energy form does not allow."""
        known = self.values.dependence
        cells = "reaction" in known.at(CELLS) or any("reaction" in entry.acts_on for entry in self.entries)
        return cells or any("coefficient" in known.at(place_of(name)) for name in self.conditions(self.values))

    def _add_energy_ranges(self) -> None:
        """Add the ranges of coefficients that only the energy form needs, where the file chooses this form."""
        if self.file.spec.inner.model == "energy":
            robins = [name for name, each in self.conditions(self.values).items() if each.form is robin]
            for key in ("pde.reaction", *(f"pde.boundary.{name}.robin.coefficient" for name in robins)):
                self.values.ranges[key] = NOT_NEGATIVE
