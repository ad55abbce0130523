"""From the `objective` section to the terms of the objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..control.controls import Controls
from ..fem.evaluation import Evaluation, side_by_side
from ..fem.interpolation import OutsideMeshError, at_points
from ..fem.state_space import StateSpace
from ..linalg.sparse import SparseMatrix
from ..objective.integral import Density, IntegralTerm
from ..objective.terms import ControlTerm, JointTerm, LinearState, Objective, StateTerm, Tracking
from ..objective.trial import trial_of_density
from ..problem_file.fields import Function
from ..problem_file.objective_spec import (
    ComplianceTerm,
    LinearControlTerm,
    LinearStateTerm,
    PythonTerm,
    RegularisationTerm,
    TrackingTerm,
)
from .clock import Clock
from .control_terms import ControlTermBuilder
from .python_code import load_function
from .python_terms import UserDensity
from .sensors import SensorFileError, Sensors, read_sensors
from .values import Values


@dataclass
class ObjectiveBuilder:
    """Makes the terms one after the other; adds fields for output to `fields`, and weights of l1 terms to `l1_weights`.

    Attributes:
        values: evaluates expressions and collects mistakes.
        state: the state space.
        controls: the discrete controls.
        facets: facets of every boundary that is named in the mesh.
        clock: the times of an evolution; None of a steady problem.
        loads: the state's functions at the points of every integral with a source or a flux, and its values there.
        joint_control: a term of the user's own depends on a control.
    """

    values: Values
    state: StateSpace
    controls: Controls
    facets: dict[str, np.ndarray]
    clock: Clock | None
    loads: Sequence[tuple[Evaluation, Tensor]] = ()
    fields: dict[str, np.ndarray] = field(default_factory=dict)
    l1_weights: Tensor | None = None
    joint_control: bool = False

    def build(self) -> Objective:
        of_controls = ControlTermBuilder(self.values, self.state, self.controls, self.clock)
        state: list[StateTerm] = []
        control: list[ControlTerm] = []
        joint: list[JointTerm] = []
        for k, term in enumerate(self.values.file.spec.objective):
            key = f"objective.{k}"
            if self.clock is None and getattr(term, "time", "all") != "all":
                self.values.complain(f"{key}.time", "expected a problem with time, found a steady one")
            match term:
                case TrackingTerm():
                    state.append(self._tracking(key, term))
                case LinearStateTerm():
                    state.append(self._linear_state(key, term))
                case ComplianceTerm():
                    state.append(self.compliance(key, term))
                case RegularisationTerm():
                    control += of_controls.regularisation(key, term)
                case LinearControlTerm():
                    control += of_controls.linear(key, term)
                case PythonTerm():
                    joint.append(self._python(key, term))
        self.l1_weights = of_controls.l1_weights
        return Objective(tuple(state), tuple(control), tuple(joint))

    # Terms in the state

    def region(self, key: str, on: str | None) -> tuple[Evaluation, np.ndarray]:
        """The state's functions at the points of an integral, and where it counts (elements, points)."""
        if on is not None and on in self.facets and on not in self.state.domain.subdomains:
            evaluation = self.state.facets(self.facets[on])
            return evaluation, np.ones(tuple(evaluation.quadrature.weights.shape))
        if on is not None and on not in self.state.domain.subdomains:
            self.values.unknown(key, "subdomain", on, self.state.domain.subdomains, self.facets)
            on = None
        cells = self.state.cells
        return cells, self.values.indicator(key, on, cells).reshape(cells.quadrature.weights.shape)

    def _chosen(self, key: str, component: int | None) -> range:
        """Fields that a term is about: those of the first group, or one of them."""
        count = self.state.groups[0].components
        if component is None:
            return range(count)
        if component >= count:
            self.values.complain(f"{key}.component", f"expected a component below {count}, found {component}")
            return range(1)
        return range(component, component + 1)

    def _over_time(self, key: str, matrix: sp.csr_matrix, time: str) -> tuple[sp.csr_matrix, sp.csr_matrix | None]:
        """A matrix of the state space at the end, or at all stages with their weight; and values -> values there."""
        if self.clock is None:
            return matrix, None
        if time == "final":
            return matrix, sp.csr_matrix(sp.kron(self.clock.last, sp.identity(self.state.size)))
        whole = sp.csr_matrix(sp.kron(self.clock.step * sp.identity(self.clock.steps), matrix))
        return whole, self.clock.stages_of(self.state.size)

    def _times(self, time: str) -> np.ndarray | None:
        if self.clock is None:
            return None
        return self.clock.levels[-1:] if time == "final" else self.clock.stages

    def _tracking(self, key: str, term: TrackingTerm) -> StateTerm:
        chosen = self._chosen(key, term.component)
        if term.at is not None:
            return self._sensors(key, term, term.at, chosen)
        times = self._times(term.time)
        target = self._nodal(f"{key}.target", term.target, chosen, times)
        evaluation, region = self.region(f"{key}.on", term.on)
        weights = self.values.tensor(term.weight * region)[None]
        blocks = {(k * evaluation.stride, k * evaluation.stride): weights for k in chosen}
        mass, rows = self._over_time(key, evaluation.assemble(evaluation, blocks, symmetric=True).host(), term.time)
        wanted = np.broadcast_to(target, (mass.shape[0] // self.state.size, self.state.size))
        self.fields["target" if "target" not in self.fields else f"target_{key.rpartition('.')[2]}"] = wanted
        return Tracking(
            SparseMatrix(mass, self.state.device, symmetric=True),
            self.values.tensor(wanted.reshape(-1)),
            None if rows is None else SparseMatrix(rows, self.state.device),
        )

    def _sensors(self, key: str, term: TrackingTerm, name: str, chosen: range) -> StateTerm:
        """weight/2 sum of weights (u - values)^2 at points."""
        dim, size = self.state.domain.dim, self.state.size
        found = Sensors(np.zeros((dim, 0)), np.zeros((len(chosen), 0)), np.zeros(0), ())
        path = self.values.file.resolve(name)
        if self.clock is not None and term.time != "final":
            self.values.complain(
                f"{key}.time", "expected final with `at`, whose file has one value a sensor; found 'all'"
            )
        if path is None:
            self.values.complain(f"{key}.at", f"expected a file of sensors, found nothing at {name!r}")
        else:
            try:
                found = read_sensors(path, dim, len(chosen))
            except SensorFileError as error:
                self.values.complain(f"{key}.at", f"{name}: {error}")
        rows = []
        for k in chosen:
            try:
                one = at_points(self.state.parts[k], found.points)
            except OutsideMeshError as outside:
                message = f"{name}: line {found.lines[outside.index]}: {outside}"
                self.values.complain(f"{key}.at", message)
                return LinearState(self.values.tensor(np.zeros(size)))
            before, after = self.state.offsets[k], size - self.state.offsets[k + 1]
            empty = [sp.csr_matrix((one.shape[0], int(width))) for width in (before, after)]
            rows.append(sp.hstack([empty[0], one, empty[1]]))
        seen = sp.csr_matrix(sp.vstack(rows))
        if self.clock is not None:
            seen = sp.csr_matrix(sp.kron(self.clock.last, seen))
        weights = np.tile(term.weight * found.weights, len(chosen))
        return Tracking(
            SparseMatrix(sp.diags_array(weights).tocsr(), self.state.device, symmetric=True),
            self.values.tensor(found.values.reshape(-1)),
            SparseMatrix(seen, self.state.device),
        )

    def _nodal(self, key: str, value: object, chosen: range, times: np.ndarray | None) -> np.ndarray:
        """(rows, size of the state space), zero in fields that are not chosen."""
        nodes = self.state.parts[chosen[0]].nodes
        given = self.values.components(key, value, len(chosen), nodes, times)  # type: ignore[arg-type]
        found = np.zeros((given.shape[1], self.state.size))
        for k, each in zip(chosen, given, strict=True):
            found[:, self.state.offsets[k] : self.state.offsets[k + 1]] = each
        return found

    def _linear_state(self, key: str, term: LinearStateTerm) -> StateTerm:
        chosen = self._chosen(key, None)
        evaluation, region = self.region(f"{key}.on", term.on)
        x = evaluation.quadrature.flat
        times = self._times(term.time)
        weight = self.values.components(f"{key}.weight", term.weight, len(chosen), x, times) * region.reshape(-1)
        return LinearState(self._over_levels(self._tested(evaluation, weight), term.time))

    def compliance(self, key: str, term: ComplianceTerm) -> LinearState:
        """The work of the loads, of every row that they have."""
        if any(name in ("source", "flux") for rules in self.values.dependence.rules.values() for name in rules):
            self.values.complain(f"{key}.kind", "expected loads without parameters, which would change the work")
        count = self.state.groups[0].components
        total = np.zeros((1, self.state.size))
        for evaluation, load in self.loads:
            total = total + self._tested(evaluation, load.cpu().numpy().reshape(count, -1, load.shape[-1]))
        if not total.any():
            self.values.complain(
                f"{key}.kind", "expected a source or a neumann condition, whose work it is; found none"
            )
        return LinearState(self._over_levels(term.weight * total, "all"))

    def _tested(self, evaluation: Evaluation, weight: np.ndarray) -> np.ndarray:
        """int weight . phi for a weight (components, rows, P) of the first group: (rows, size of the state space)."""
        density = np.zeros((evaluation.components, *weight.shape[1:]))
        density[[k * evaluation.stride for k in range(len(weight))]] = weight
        return evaluation.test(self.values.tensor(density)).cpu().numpy()

    def _over_levels(self, rows: np.ndarray, time: str) -> Tensor:
        """Covectors (rows, size of the state space) -> on all coefficients, (N,), or (S, N) of scenarios."""
        if self.clock is not None:
            share = self.clock.last if time == "final" else self.clock.step * self.clock.averages
            rows = (share.T @ np.broadcast_to(rows, (share.shape[0], self.state.size))).reshape(1, -1)
        return self.values.tensor(rows[0] if len(rows) == 1 else rows)

    # Terms in both

    def integral(self, density: Density, key: str, on: str | None, weight: float) -> IntegralTerm:
        """weight times the integral of a density over a region, in time over all of it."""
        evaluation, region = self.region(f"{key}.on", on)
        stages = None
        if self.clock is not None:
            stages = SparseMatrix(self.clock.stages_of(self.state.size), self.state.device)
        rows = self.controls.rows
        placed = [
            part.evaluation.shifted(first, rows.width)
            for part, first in zip(self.controls.parts, rows.column_offsets, strict=False)
            if torch.equal(part.evaluation.quadrature.x, evaluation.quadrature.x)
        ]
        return IntegralTerm(
            density,
            evaluation,
            side_by_side(placed) if placed else None,
            rows,
            self.values.tensor(weight * region),
            stages,
            1.0 if self.clock is None else self.clock.step,
        )

    def _python(self, key: str, term: PythonTerm) -> IntegralTerm:
        if term.on is not None and term.on in self.state.domain.inside:
            message = (
                f"expected a subdomain or a part of the boundary, found {term.on!r}, which lies inside the domain: "
            )
            self.values.complain(f"{key}.on", message + "gradients differ on its two sides")
        name = Function.written(term.python)
        function = load_function(self.values.file, f"{key}.python", term.python)

        density = UserDensity(function, self.state.groups)
        found = replace(self.integral(density, key, term.on, term.weight), name=name)
        problem, depends = trial_of_density(name, found, density.arguments)
        self.joint_control = self.joint_control or depends
        if problem:
            self.values.complain(f"{key}.python", problem)
        return found
