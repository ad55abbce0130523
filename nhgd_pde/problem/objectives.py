"""From the `objective` section to the terms of the objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..control import Controls, ControlSpace
from ..fem.evaluation import Evaluation, side_by_side
from ..fem.interpolation import OutsideMeshError, at_points
from ..fem.state_space import StateSpace
from ..linalg.sparse import SparseMatrix
from ..objective import (
    ControlTerm,
    JointTerm,
    LinearControl,
    LinearState,
    Objective,
    Regularisation,
    StateTerm,
    TotalVariation,
    Tracking,
)
from ..objective_integral import Density, IntegralTerm, trial_of_density
from .expressions import Expression
from .fields import Function
from .objective_spec import (
    ComplianceTerm,
    LinearControlTerm,
    LinearStateTerm,
    PythonTerm,
    RegularisationTerm,
    TrackingTerm,
)
from .python_code import load_function
from .sensors import SensorFileError, Sensors, read_sensors
from .values import Values


@dataclass(frozen=True)
class Clock:
    """The times of an evolution.

    Attributes:
        steps: of time.
        step: their length.
        theta: share of the end of a step in the point where integrals are taken.
    """

    steps: int
    step: float
    theta: float

    @property
    def levels(self) -> np.ndarray:
        return np.arange(self.steps + 1) * self.step

    @property
    def stages(self) -> np.ndarray:
        return (np.arange(self.steps) + self.theta) * self.step

    @property
    def averages(self) -> sp.csr_matrix:
        """(steps, steps + 1): values at the levels -> at the stages."""
        rows = np.arange(self.steps)
        shape = (self.steps, self.steps + 1)
        end = sp.csr_matrix((np.full(self.steps, self.theta), (rows, rows + 1)), shape)
        return sp.csr_matrix(end + sp.csr_matrix((np.full(self.steps, 1.0 - self.theta), (rows, rows)), shape))


@dataclass
class ObjectiveBuilder:
    """Makes the terms one after the other; `fields` grows by what there is to draw, `l1_weights` by l1 terms.

    Attributes:
        values: evaluates expressions and collects mistakes.
        state: the state space.
        controls: the discrete controls.
        facets: facets of every boundary that is named in the mesh.
        clock: the times of an evolution; None of a steady problem.
        loads: the state's functions at the points of every integral with a source or a flux, and its values there.
    """

    values: Values
    state: StateSpace
    controls: Controls
    facets: dict[str, np.ndarray]
    clock: Clock | None
    loads: Sequence[tuple[Evaluation, Tensor]] = ()
    fields: dict[str, np.ndarray] = field(default_factory=dict)
    l1_weights: Tensor | None = None

    def build(self) -> Objective:
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
                    state.append(self._compliance(key, term))
                case RegularisationTerm():
                    control += self._regularisation(key, term)
                case LinearControlTerm():
                    control += self._linear_control(key, term)
                case PythonTerm():
                    joint.append(self._python(key, term))
        return Objective(tuple(state), tuple(control), tuple(joint))

    # Terms in the state

    def region(self, key: str, on: str | None) -> tuple[Evaluation, np.ndarray]:
        """The state's functions at the points of an integral, and where it counts (elements, points)."""
        if on is not None and on in self.facets and on not in self.state.domain.subdomains:
            evaluation = self.state.facets(self.facets[on])
            return evaluation, np.ones(tuple(evaluation.quadrature.weights.shape))
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
        steps = self.clock.steps
        if time == "final":
            last = sp.csr_matrix(([1.0], ([0], [steps])), (1, steps + 1))
            return matrix, sp.csr_matrix(sp.kron(last, sp.identity(self.state.size)))
        rows = sp.csr_matrix(sp.kron(self.clock.averages, sp.identity(self.state.size)))
        return sp.csr_matrix(sp.kron(self.clock.step * sp.identity(steps), matrix)), rows

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
        stride = evaluation.components // evaluation.fields
        blocks = {(k * stride, k * stride): weights for k in chosen}
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
            steps = self.clock.steps
            seen = sp.csr_matrix(sp.hstack([sp.csr_matrix((seen.shape[0], steps * size)), seen]))
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
        x = evaluation.quadrature.x.reshape(self.state.domain.dim, -1)
        times = self._times(term.time)
        weight = self.values.components(f"{key}.weight", term.weight, len(chosen), x, times) * region.reshape(-1)
        return LinearState(self._over_levels(self._tested(evaluation, weight), term.time))

    def _compliance(self, key: str, term: ComplianceTerm) -> StateTerm:
        if "source" in self.values.dependent:
            self.values.complain(f"{key}.kind", "expected a source without parameters, which change the loads")
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
        stride = evaluation.components // evaluation.fields
        density = np.zeros((evaluation.components, *weight.shape[1:]))
        density[[k * stride for k in range(len(weight))]] = weight
        return evaluation.test(self.values.tensor(density)).cpu().numpy()

    def _over_levels(self, rows: np.ndarray, time: str) -> Tensor:
        """Covectors (one or the steps, size of the state space) -> one on all coefficients, (N,)."""
        if self.clock is not None:
            steps = self.clock.steps
            if time == "final":
                share = sp.csr_matrix(([1.0], ([0], [steps])), (1, steps + 1))
            else:
                share = self.clock.step * self.clock.averages
            rows = (share.T @ np.broadcast_to(rows, (share.shape[0], self.state.size))).reshape(1, -1)
        return self.values.tensor(rows.reshape(-1))

    # Terms in both

    def integral(self, density: Density, key: str, on: str | None, weight: float) -> IntegralTerm:
        """weight times the integral of a density over a region, in time over all of it."""
        evaluation, region = self.region(f"{key}.on", on)
        stages = None
        if self.clock is not None:
            averages = sp.kron(self.clock.averages, sp.identity(self.state.size))
            stages = SparseMatrix(sp.csr_matrix(averages), self.state.device)
        placed, first, width = [], 0, self.controls.rows.width
        for part in self.controls.parts:
            if torch.equal(part.evaluation.quadrature.x, evaluation.quadrature.x):
                placed.append(part.evaluation.shifted(first, width))
            first += part.columns
        return IntegralTerm(
            density,
            evaluation,
            side_by_side(placed) if placed else None,
            self.controls.rows,
            self.values.tensor(weight * region),
            stages,
            1.0 if self.clock is None else self.clock.step,
        )

    def _python(self, key: str, term: PythonTerm) -> IntegralTerm:
        name = Function.written(term.python)
        function = load_function(self.values.file, f"{key}.python", term.python)

        def density(u: Tensor, grad: Tensor, v: Tensor, grad_v: Tensor, x: Tensor) -> Tensor:
            return function(u, grad, v, x)

        found = self.integral(density, key, term.on, term.weight)
        problem = trial_of_density(name, found)
        if problem:
            self.values.complain(f"{key}.python", problem)
        return found

    # Terms in the control

    def _parts(self, key: str, name: str | None) -> list[tuple[int, ControlSpace]]:
        """The controls that a term is about, each with its first entry in v."""
        firsts = np.concatenate([[0], np.cumsum(self.controls.rows.sizes)])
        found = [
            (int(first), part)
            for first, part in zip(firsts, self.controls.parts, strict=False)
            if name is None or part.name == name
        ]
        if not found:
            known = ", ".join(part.name for part in self.controls.parts)
            self.values.complain(f"{key}.control", f"expected the name of a control ({known}), found {name!r}")
        return found

    def _spread(self, first: int, part: ControlSpace, one: sp.csr_matrix) -> sp.csr_matrix:
        """A matrix of one time step of a control as one (p, p) of all controls."""
        copies = part.steps or 1
        whole = sp.block_diag([one] * copies, format="csr") if copies > 1 else one
        before, after = first, self.controls.size - first - part.size
        return sp.block_diag(
            [sp.csr_matrix((before, before)), part.measure * whole, sp.csr_matrix((after, after))], format="csr"
        )

    def _regularisation(self, key: str, term: RegularisationTerm) -> list[ControlTerm]:
        found: list[ControlTerm] = []
        for first, part in self._parts(key, term.control):
            numbers = part.space is None
            element = "P0" if part.space is not None and part.space.element == "P0" else ""
            points = part.boundary and self.state.domain.dim == 1
            if numbers:
                self.values.number(f"{key}.reference", term.reference)
            if term.norm in ("h1", "tv") and (numbers or element == "P0" or points):
                kind = (
                    "a P0 control" if element == "P0" else "a control of numbers" if numbers else "a control of points"
                )
                message = f"expected l2 or l1 for {kind}, which has no gradient, found {term.norm!r}"
                self.values.complain(f"{key}.norm", message)
                continue
            if term.norm in ("l1", "tv"):
                reference = self._reference(f"{key}.reference", term, first, part)
                if bool(reference.any()):
                    self.values.complain(f"{key}.reference", f"expected 0, the only one of norm {term.norm}")
                if term.norm == "l1":
                    self._absolute(key, term, first, part)
                else:
                    found += self._variation(key, term, part)
                continue
            if numbers:
                gram = term.weight * sp.identity(part.columns, format="csr")
            else:
                stride = part.evaluation.components // part.evaluation.fields
                blocks = {
                    (i, i): term.weight * part.weight
                    for i in range(part.evaluation.components)
                    if (i % stride == 0) == (term.norm == "l2")
                }
                gram = part.evaluation.assemble(part.evaluation, blocks, symmetric=True).host()
            matrix = SparseMatrix(self._spread(first, part, gram), self.state.device, symmetric=True)
            found.append(Regularisation(matrix, self._reference(f"{key}.reference", term, first, part)))
        return found

    def _absolute(self, key: str, term: RegularisationTerm, first: int, part: ControlSpace) -> None:
        """weight int |v| with the lumped mass matrix, which is the part's inner product."""
        if part.filter is not None:
            self.values.complain(f"{key}.norm", "expected l2, h1 or tv for a filtered density, found 'l1'")
        if self.l1_weights is None:
            self.l1_weights = self.values.tensor(np.zeros(self.controls.size))
        mass = part.riesz.matrix.diagonal().repeat(part.steps or 1)
        self.l1_weights[first : first + part.size] += term.weight * part.measure * mass

    def _variation(self, key: str, term: RegularisationTerm, part: ControlSpace) -> list[ControlTerm]:
        if part.evaluation.quadrature.x.shape != self.state.cells.quadrature.x.shape:
            self.values.complain(f"{key}.norm", "expected l2, h1 or l1 for a control of the boundary, found 'tv'")
            return []
        before = self.controls.parts.index(part)
        columns = sum(each.columns for each in self.controls.parts[:before])
        evaluation = part.evaluation.shifted(columns, self.controls.rows.width)
        # Where other controls vary in time, one that stands still has equal rows, which count once together.
        copies = self.controls.steps if part.steps is None and any(self.controls.rows.varying) else 1
        weight = term.weight * part.measure / copies * part.weight.reshape(-1)
        return [TotalVariation(self.controls.rows, evaluation, weight, term.smoothing)]

    def _stages(self, key: str, value: Expression | tuple[Expression, ...], part: ControlSpace) -> np.ndarray | None:
        """Times at which an expression for a control is taken; a control that does not vary takes none in t."""
        if self.clock is None:
            return None
        if part.steps is None:
            self.values.constant_in_time(key, value)
            return np.zeros(1)
        return self.clock.stages

    def _reference(self, key: str, term: RegularisationTerm, first: int, part: ControlSpace) -> Tensor:
        times = self._stages(key, term.reference, part)
        nodes = part.nodes[:, : part.columns // part.components]
        given = self.values.components(key, term.reference, part.components, nodes, times)
        copies = part.steps or 1
        own = np.broadcast_to(given, (part.components, copies, nodes.shape[1])).swapaxes(0, 1).reshape(-1)
        whole = np.zeros(self.controls.size)
        whole[first : first + part.size] = own
        return self.values.tensor(whole)

    def _linear_control(self, key: str, term: LinearControlTerm) -> list[ControlTerm]:
        found: list[ControlTerm] = []
        for first, part in self._parts(key, term.control):
            x = part.evaluation.quadrature.x.reshape(self.state.domain.dim, -1)
            times = self._stages(f"{key}.weight", term.weight, part)
            weight = np.atleast_2d(self.values.formula(f"{key}.weight", term.weight, x, times))
            if part.space is None:
                self.values.number(f"{key}.weight", term.weight)
                one = np.broadcast_to(weight.mean(axis=1, keepdims=True), (len(weight), part.columns))
            else:
                stride = part.evaluation.components // part.evaluation.fields
                density = np.zeros((part.evaluation.components, *weight.shape))
                density[::stride] = weight * part.weight.cpu().numpy().reshape(-1)
                one = part.evaluation.test(self.values.tensor(density)).cpu().numpy()
            whole = np.zeros(self.controls.size)
            rows = np.broadcast_to(part.measure * one, (part.steps or 1, part.columns))
            whole[first : first + part.size] = rows.reshape(-1)
            found.append(LinearControl(self.values.tensor(whole)))
        return found
