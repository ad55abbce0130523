"""The problem of any scenarios: what depends on random inputs is evaluated again, everything else is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..control.controls import Controls
from ..fem.evaluation import Evaluation
from ..fem.state_space import StateSpace
from ..linalg.sparse import ScenarioMatrix
from ..objective.risk import Risk
from ..objective.terms import Objective
from ..pde.boundary import neumann
from ..pde.evolution import EvolutionEquation, capacity_matrix
from ..pde.form import Integral, Pointwise
from ..pde.linearisation import SteadyControlDerivative
from ..pde_problem import PDEProblem
from ..problem_file.control_spec import PythonControl
from ..problem_file.errors import ProblemError
from ..problem_file.objective_spec import ComplianceTerm, LinearStateTerm, TrackingTerm
from ..problem_file.pde_spec import BoundarySpec
from ..problem_file.scenario_spec import ScenariosSpec
from ..scenario_problem import Coarse, ScenarioProblem
from ..uncertainty.fresh import fresh_sample
from ..uncertainty.inputs import RandomInputs
from ..uncertainty.sampling import Samples, Stream
from .boundary_conditions import (
    Condition,
    cells_condition,
    guard_of,
    inertia_condition,
    point_load,
    side_condition,
)
from .clock import Clock
from .dependence import CELLS, Dependence
from .dirichlet import controlled_coefficients, given_coefficients
from .entry import Entry
from .families import FAMILIES, Interior
from .objective_builder import ObjectiveBuilder
from .random_values import RandomValues, names_in
from .values import Values
from .well_posedness import undetermined


@dataclass(frozen=True, eq=False)
class Recipe:
    """What the problem of other scenarios is made of, besides the nominal one.

    Attributes:
        values: those of the nominal problem, with its file, its mesh and the random inputs.
        state: the state space.
        facets: those of every condition of the file.
        entries: the controls.
        controls: the same side by side.
        clock: the times of an evolution; None of a steady problem.
        interior: the equation in the cells of the nominal problem; symmetric and coercive if it is so in scenarios.
        conditions: the integrals over the boundary and at points, in their order behind the one over the cells.
        coercive: the model needs an energy, to which exchange through the boundary adds.
    """

    values: Values
    state: StateSpace
    facets: Mapping[str, np.ndarray]
    entries: list[Entry]
    controls: Controls
    clock: Clock | None
    interior: Interior
    conditions: Mapping[str, Condition]
    coercive: bool

    @property
    def random(self) -> RandomValues:
        """The random inputs, at zero."""
        assert self.values.random is not None
        return self.values.random

    @cached_property
    def interior_names(self) -> frozenset[str]:
        """The random inputs in the cells."""
        pde = self.values.file.spec.pde
        given = [getattr(pde, name) for name in type(pde).model_fields if name not in ("boundary", "points")]
        return names_in(given) & self.values.random_names

    def condition_names(self, name: str) -> frozenset[str]:
        """Those of an integral over a side or at a point."""
        pde = self.values.file.spec.pde
        if name.startswith("pde.points."):
            return names_in(pde.points[int(name.rpartition(".")[2])].load) & self.values.random_names
        given = pde.boundary.get(name)
        if given is None:
            return frozenset()
        # What absorbs waves goes by the coefficients next to it.
        return self.interior_names if given.absorbing else _conditions_names(given) & self.values.random_names

    @cached_property
    def mixed(self) -> bool:
        """Whether controls may bring a coefficient out of its range in some scenarios only."""
        together = any(names & self.values.random_names for names in self.values.dependence.names.values())
        own = any(isinstance(each, PythonControl) for each in self.values.file.spec.controls)
        return together or (own and bool(self.interior_names))

    @cached_property
    def lift_names(self) -> frozenset[str]:
        """Those of the coefficients that are given: Dirichlet and initial values."""
        spec = self.values.file.spec
        given = [
            *(each.dirichlet for each in spec.pde.boundary.values()),
            *(each.dirichlet for each in spec.pde.points),
            None if spec.time is None else spec.time.initial,
        ]
        return names_in(given) & self.values.random_names

    def in_scenarios(self, z: np.ndarray, numbers: np.ndarray) -> Values:
        """Values in scenarios (b, m), one where rows are those of time."""
        random = replace(self.random, z=z, numbers=numbers, squeezed=self.clock is not None)
        return replace(self.values, random=random, issues=[], dependence=Dependence(), ranges={})

    def tried(self, samples: Samples) -> Recipe:
        """With the nature that the equation shows in the first scenarios: symmetric and coercive in all or in none.

        Raises:
            ProblemError: a coefficient is out of its range in one of them.
        """
        # More of them where that costs little.
        points = self.state.cells.quadrature.points * (1 if self.clock is None else self.clock.steps)
        numbers = np.arange(min(samples.count, max(_TRIED, _TRIED_VALUES // points)))
        at_once = _TRIED if self.clock is None else 1
        interior, coercive = self.interior, self.coercive
        for some in np.split(numbers, range(at_once, len(numbers), at_once)):
            values = self.in_scenarios(samples.z[some], some)
            if self.interior_names:
                found = self.interior_in(values)
                symmetric, energy = interior.symmetric and found.symmetric, interior.coercive and found.coercive
                interior = replace(interior, symmetric=symmetric, coercive=energy)
            for name, given in self.conditions.items():
                if self.condition_names(name):
                    transfer = self.condition_in(values, name, given).coefficients.get("coefficient")
                    coercive = coercive and (transfer is None or bool((transfer >= 0.0).all()))
            if values.issues:
                raise ProblemError(values.issues)
        return replace(self, interior=interior, coercive=coercive)

    def of_one_nature(self, other: Recipe) -> Recipe:
        """With what has been found of the equation on another mesh."""
        interior = replace(self.interior, symmetric=other.interior.symmetric, coercive=other.interior.coercive)
        return replace(self, interior=interior, coercive=other.coercive)

    def interior_in(self, values: Values) -> Interior:
        """The equation in the cells of the scenarios that `values` are in."""
        pde = values.file.spec.pde
        found = FAMILIES[pde.kind].interior(values, pde, self.state)
        return replace(
            found, coefficients={**found.coefficients, **values.companions(CELLS, self.state.cells.quadrature.flat)}
        )

    def condition_in(self, values: Values, name: str, given: Condition) -> Condition:
        """The same of an integral over a side or at a point."""
        if name.startswith("pde.points."):
            return point_load(values, self.state, int(name.rpartition(".")[2]), given.evaluation)
        return side_condition(values, self.state, name, self.facets[name], given.evaluation) or given

    def at(self, nominal: PDEProblem, z: np.ndarray, numbers: np.ndarray) -> PDEProblem:
        """See `Scenarios.at`."""
        values = self.in_scenarios(z, numbers)
        equation = nominal.equation
        integrals = list(equation.integrals)
        changes: dict[str, Any] = {}
        loads: list[tuple[Evaluation, Tensor]] = []
        interior = self.interior
        if self.interior_names:
            interior = self.interior_in(values)
            self._check_nature(values, interior)
            cells = cells_condition(values, self.state, interior)
            cells = replace(cells, evaluation=interior.evaluation or integrals[0].evaluation)
            integrals[0] = self._with(integrals[0], values, cells)
            if isinstance(equation, EvolutionEquation) and interior.capacity is not None:
                fields = self.state.groups[0].components
                changes["mass"] = capacity_matrix(self.state.cells, fields, interior.capacity)
                if equation.inertia is not None:
                    condition = inertia_condition(values, self.state, interior)
                    changes["inertia"] = self._with(equation.inertia, values, condition)
        for k, (name, given) in enumerate(self.conditions.items(), start=1):
            condition = given
            if self.condition_names(name):
                condition = self.condition_in(values, name, given)
                integrals[k] = self._with(integrals[k], values, condition)
                self._check_exchange(values, name, condition)
            if condition.form is neumann:
                loads.append((condition.evaluation, condition.coefficients["flux"]))
        if "source" in interior.coefficients:
            loads.append((self.state.cells, interior.coefficients["source"]))
        if self.lift_names:
            fixing = given_coefficients(values, self.state, dict(self.facets), self.entries, self.clock)
            lift, fixed = fixing.tensor, fixing.fixed
            changes["lift"] = fixing.unparametrised
            if equation.data is not None and equation.data.parameters:
                changes["data"] = controlled_coefficients(self.state, fixing, self.entries, self.controls, self.clock)
            if equation.zero_mean is not None:
                for row in lift if lift.ndim > 1 else lift[None]:
                    undetermined(values, self.state, interior.undetermined, fixed, row, self.entries)
        objective = self._objective(nominal.objective, values, loads)
        if values.issues:
            raise ProblemError(values.issues)
        if equation.easier is not None and interior.eased is not None:
            changes["easier"] = _Eased(tuple(integrals), interior.eased)
        some = replace(
            equation,
            integrals=tuple(integrals),
            scenarios=len(z),
            known_control=self._known_control(nominal, integrals),
            **changes,
        )
        return replace(
            nominal,
            equation=some,
            model=replace(nominal.model, equation=some),  # type: ignore[type-var]
            objective=objective,
            earlier=(),
            origin=None,
            sibling=nominal,
        )

    def _with(self, integral: Integral, values: Values, condition: Condition) -> Integral:
        """The integral with the same controls and what scenarios make of its coefficients."""
        return replace(
            integral,
            evaluation=condition.evaluation,
            form=condition.form,
            coefficients={**integral.coefficients, **condition.coefficients},
            closed=condition.closed,
            guard=None if integral.guard is None else guard_of(values, condition, self.values.ranges),
        )

    def _objective(self, nominal: Objective, values: Values, loads: list[tuple[Evaluation, Tensor]]) -> Objective:
        """With the work of the loads of the scenarios."""
        changing = any(self.condition_names(name) for name in self.conditions) or self.interior_names
        terms = [each for each in enumerate(values.file.spec.objective) if isinstance(each[1], _STATE_TERMS)]
        if not changing or not any(isinstance(term, ComplianceTerm) for _, term in terms):
            return nominal
        builder = ObjectiveBuilder(values, self.state, self.controls, {}, self.clock, loads)
        state = list(nominal.state)
        for k, (number, term) in enumerate(terms):
            if isinstance(term, ComplianceTerm):
                state[k] = builder.compliance(f"objective.{number}", term)
        return replace(nominal, state=tuple(state))

    def _known_control(self, nominal: PDEProblem, integrals: list[Integral]) -> ScenarioMatrix | None:
        """R_v of the nominal problem where it does not depend on random inputs."""
        equation = nominal.equation
        if not equation.affine or isinstance(equation, EvolutionEquation):
            return None
        # There a control adds to what stands beside phi alone, whatever the other coefficients are. A form may be
        # closed in these scenarios and not in the nominal one: that of advection where there is nothing to stabilise.
        every = (*integrals, *equation.integrals)
        acting = [integral for integral in every if integral.control_evaluation is not None]
        if any(integral.closed is None and integral.form is not neumann for integral in acting):
            return None
        derivative = equation.constant_linearisation.control
        return derivative.direct if isinstance(derivative, SteadyControlDerivative) else None

    def _check_nature(self, values: Values, interior: Interior) -> None:
        if values.issues:
            return
        which = values.random.which if values.random is not None else ""
        if self.interior.symmetric and not interior.symmetric:
            values.complain(
                "pde", f"expected a self-adjoint equation, as that of other scenarios is; found none{which}"
            )
        if self.coercive and not interior.coercive:
            message = f"expected a coercive equation, as inner.model energy needs; found none{which}: take residual"
            values.complain("pde", message)

    def _check_exchange(self, values: Values, name: str, condition: Condition) -> None:
        transfer = condition.coefficients.get("coefficient")
        if self.coercive and transfer is not None and bool((transfer < 0.0).any()):
            flat = transfer.cpu().numpy()
            where = int(np.argmin(flat))
            place = values.place_text(condition.evaluation.quadrature.flat, where)
            message = f"expected at least 0, as inner.model energy needs, found {flat.reshape(-1)[where]:g} at {place}"
            values.complain(f"pde.boundary.{name}.robin.coefficient", f"{message}: take residual")


# Scenarios in which a problem shows its nature.
_TRIED = 8
# Values of a coefficient that may be looked at for it.
_TRIED_VALUES = 5_000_000
_STATE_TERMS = (TrackingTerm, LinearStateTerm, ComplianceTerm)


def _conditions_names(given: BoundarySpec) -> frozenset[str]:
    return names_in([given.neumann, given.robin])


@dataclass(frozen=True)
class _Eased:
    """Share of what makes an equation nonlinear -> its integrals, the first of which are over the cells."""

    integrals: tuple[Integral, ...]
    form: Callable[[float], Pointwise]

    def __call__(self, share: float) -> tuple[Integral, ...]:
        return replace(self.integrals[0], form=self.form(share)), *self.integrals[1:]


@dataclass(frozen=True, eq=False)
class Scenarios:
    """A problem with random inputs: the nominal one, and that of any scenarios.

    Attributes:
        nominal: all standard variables zero.
        inputs: the random inputs.
        samples: the scenarios of the file, z (S, m), and their weights.
        stream: independent scenarios without an end; its `fresh` stream is that of strategies without a sample, and the
            fresh one of that judges out of sample.
        risk: of the scenarios' objectives.
        spec: the section of the file.
        coarsened: makes the same on a coarser mesh, where that has a use.
    """

    nominal: PDEProblem
    inputs: RandomInputs
    samples: Samples
    stream: Stream
    risk: Risk
    spec: ScenariosSpec
    recipe: Recipe = field(repr=False)
    coarsened: Callable[[Scenarios], Coarse | None] | None = field(default=None, repr=False)

    def at(self, z: np.ndarray, numbers: np.ndarray | None = None) -> PDEProblem:
        """The problem of scenarios with standard variables z (b, m), its states (b, n).

        It shares the spaces, controls, bounds and the Riesz map K with the nominal problem; only what depends on
        random inputs is evaluated again. An evolution takes one scenario at a time.

        Args:
            z: (b, m) standard variables.
            numbers: (b,) what messages call the scenarios; by default 0, 1, ...

        Raises:
            ProblemError: a coefficient is out of its range in one of the scenarios, which is named.
            ValueError: z is of another shape, or several scenarios of an evolution.
        """
        z = np.asarray(z, dtype=np.float64)
        if z.ndim != 2 or z.shape[1] != self.inputs.dimension:
            raise ValueError(f"expected scenarios (b, {self.inputs.dimension}), found {z.shape}")
        if self.recipe.clock is not None and len(z) != 1:
            raise ValueError(f"expected one scenario of an evolution at a time, found {len(z)}")
        return self.recipe.at(self.nominal, z, np.arange(len(z)) if numbers is None else np.asarray(numbers))

    @property
    def at_once(self) -> int:
        """Scenarios that are worked on at the same time: 1 of an evolution."""
        if self.recipe.clock is not None:
            return 1
        return 32 if self.spec.batch == "auto" else int(self.spec.batch)

    @cached_property
    def earlier(self) -> tuple[Scenarios, ...]:
        """The stages of a continuation that come before."""
        return tuple(replace(self, nominal=stage, coarsened=None) for stage in self.nominal.earlier)

    @cached_property
    def problem(self) -> ScenarioProblem:
        """What the engine solves: the scenarios of the file."""
        return ScenarioProblem(
            self.nominal,
            self.samples.z,
            torch.from_numpy(self.samples.weights),
            self.risk,
            self.at,
            self.at_once,
            lambda first, count: self.stream.fresh.draw(count, first).z,
            partial(fresh_sample, self.stream.fresh.fresh),
            not self.recipe.lift_names,
            None if self.coarsened is None else partial(self.coarsened, self),
            mixed=self.recipe.mixed,
        )
