"""From a checked problem file to the objects it stands for: mesh, spaces, equation, control, objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..control.spaces import Controls
from ..fem import mesh as meshes
from ..fem.evaluation import Evaluation, side_by_side
from ..fem.mesh import Domain
from ..fem.state_space import StateSpace, state_space
from ..inner.energy import energy_model
from ..inner.model import InnerModel, Observation
from ..inner.residual import residual_model
from ..linalg.counts import Counts
from ..linalg.sparse import SparseMatrix
from ..pde.boundary import neumann, robin
from ..pde.equation import StateEquation
from ..pde.evolution import EvolutionEquation
from ..pde.form import ControlMap, Integral, Pointwise
from ..pde_problem import PDEProblem
from .constraints import ConstraintBuilder
from .control_spec import ParameterControl
from .controls import ControlBuilder
from .entry import Entry
from .errors import ProblemError, suggest
from .expressions import Expression
from .families import FAMILIES, Family, Interior
from .levels import undetermined
from .loading import ProblemFile
from .objectives import Clock, ObjectiveBuilder
from .points import fix_point, point_of_mesh
from .schema import BoxMesh, DiskMesh, FileMesh, IntervalMesh, LShapeMesh, RectangleMesh
from .stages import staged
from .values import Values

Role = Literal["inner", "curvature"]


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
    return _Builder(file, device, Values(file, domain, device)).build(domain)


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


def build_domain(file: ProblemFile) -> Domain:
    """Make or read the mesh."""
    spec = file.spec.mesh
    match spec:
        case IntervalMesh():
            mesh = meshes.interval(spec.size[0], spec.origin[0], spec.cells[0])
        case RectangleMesh():
            mesh = meshes.rectangle(spec.size, spec.origin, spec.cells, spec.cell)
        case BoxMesh():
            mesh = meshes.box(spec.size, spec.origin, spec.cells, spec.cell)
        case DiskMesh():
            mesh = meshes.disk(spec.size, spec.origin, spec.refine)
            return meshes.domain(mesh)
        case LShapeMesh():
            mesh = meshes.l_shape(spec.size, spec.origin, spec.refine)
            return meshes.domain(mesh)
        case FileMesh():
            path = file.resolve(spec.file)
            if path is None:
                raise file.error("mesh.file", f"expected a mesh file, found nothing at {spec.file!r}")
            try:
                mesh = meshes.read_mesh(path)
            except meshes.MeshFileError as error:
                raise file.error("mesh.file", str(error)) from None
    return meshes.domain(mesh, spec.refine)


@dataclass(frozen=True)
class _Condition:
    """An integral over a part of the boundary, before controls are added.

    Attributes:
        evaluation: the state's functions there.
        form: the integrand.
        coefficients: what it uses.
    """

    evaluation: Evaluation
    form: Pointwise
    coefficients: dict[str, Tensor]


@dataclass
class _Builder:
    """Builds the parts in order, and collects mistakes on the way."""

    file: ProblemFile
    device: torch.device
    values: Values
    counts: Counts = field(default_factory=Counts)

    def build(self, domain: Domain) -> PDEProblem:
        spec, values = self.file.spec, self.values
        clock = self._clock()
        values.times = None if clock is None else clock.stages
        values.parameters = self._parameters(domain)
        family = FAMILIES[spec.pde.kind]
        self._timely(family)
        state = state_space(domain, family.groups(spec.pde, domain.dim, spec.element), self.device)
        values.complex = state.groups[0].complex
        interior = family.interior(values, spec.pde, state)
        facets = self._boundary_facets(domain)
        step = None if clock is None else clock.step
        named = {**domain.boundaries, "all": self._rest(domain)}
        entries = ControlBuilder(values, state, interior, named, self._fixed(state, facets), self.counts, step).build()
        controls = Controls(tuple(entry.part for entry in entries), 1 if clock is None else clock.steps)
        lift, fixed = self._dirichlet(state, facets, entries, clock)
        zero_mean = undetermined(values, state, interior.undetermined, fixed, lift, entries)
        if zero_mean is not None:
            fixed[zero_mean.pinned] = True
        conditions, absorbing, boundary_coercive = self._conditions(state, facets, entries)
        loads = [(c.evaluation, c.coefficients["flux"]) for c in conditions.values() if c.form is neumann]
        if "source" in interior.coefficients:
            loads.append((state.cells, interior.coefficients["source"]))
        terms = ObjectiveBuilder(values, state, controls, domain.boundaries, clock, loads)
        objective = terms.build()
        constraints = ConstraintBuilder(values, entries, controls, terms, clock)
        constraints.build()
        if not values.issues:
            if interior.unseen:
                self._held(state, interior.unseen, fixed, facets, conditions)
            else:
                self._well_posed(state, fixed, absorbing or interior.absorbing)
        if values.issues:
            raise ProblemError(values.issues)

        cells = _Condition(interior.evaluation or state.cells, interior.form, interior.coefficients)
        integrals = [self._integral(cells, None, entries, controls)]
        integrals += [self._integral(condition, name, entries, controls) for name, condition in conditions.items()]
        additive = all(entry.additive for entry in entries)
        data = self._data(state, entries, clock, fixed)
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
                lift=lift,
                symmetric=interior.symmetric,
                zero_mean=zero_mean,
                easier=None if interior.eased is None else partial(_easier, tuple(integrals), interior.eased),
                **common,  # type: ignore[arg-type]
            )
        else:
            equation = self._evolution(state, interior, clock, fixed, lift, common)
        coercive = interior.symmetric and interior.coercive and boundary_coercive and clock is None

        def model_of(equation: StateEquation) -> InnerModel:
            return self._model(state, equation, interior, controls, coercive)

        model = model_of(equation)
        problem = PDEProblem(
            spec.name, state, equation, controls, objective, model, terms.fields, l1_weights=terms.l1_weights
        )
        return staged(problem, entries, constraints, model_of)

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
        return Clock(time.steps, time.end / time.steps, 1.0 if time.scheme == "implicit_euler" else 0.5)

    def _parameters(self, domain: Domain) -> dict[str, float]:
        """Starting values of the parameters."""
        found = {}
        for k, each in enumerate(self.file.spec.controls):
            if isinstance(each, ParameterControl):
                key = f"control.{k}.initial" if isinstance(self.file.spec.control, tuple) else "control.initial"
                value = each.initial.constant if not isinstance(each.initial, tuple) else None
                if value is None:
                    self.values.complain(key, f"expected a number for a parameter, found {each.initial}")
                found[each.name] = value or 0.0
        return found

    def _boundary_facets(self, domain: Domain) -> dict[str, np.ndarray]:
        """The facets of every condition; `all` stands for those that no other condition names."""
        conditions = self.file.spec.pde.boundary
        facets = {}
        for name in conditions:
            if name not in domain.boundaries:
                known = ", ".join(sorted(domain.boundaries))
                hint = suggest(name, domain.boundaries)
                self.values.complain(f"pde.boundary.{name}", f"unknown boundary {name!r}{hint}; this mesh has: {known}")
                continue
            facets[name] = domain.boundaries[name]
        if "all" in facets:
            facets["all"] = self._rest(domain)
        return facets

    def _rest(self, domain: Domain) -> np.ndarray:
        """The facets that no condition but `all` names."""
        names = [name for name in self.file.spec.pde.boundary if name != "all" and name in domain.boundaries]
        return np.setdiff1d(domain.boundaries["all"], np.concatenate([[], *(domain.boundaries[n] for n in names)]))

    def _fixed(self, state: StateSpace, facets: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """The facets on which the file fixes each component of the state."""
        found: list[list[np.ndarray]] = [[] for _ in range(state.groups[0].components)]
        for name, indices in facets.items():
            given = self.file.spec.pde.boundary[name].dirichlet
            for i, each in enumerate(found):
                if given is not None and not (isinstance(given, tuple) and given[i : i + 1] in ((), (None,))):
                    each.append(indices)
        return tuple(np.unique(np.concatenate([np.zeros(0, int), *each])) for each in found)

    def _dirichlet(
        self, state: StateSpace, facets: dict[str, np.ndarray], entries: list[Entry], clock: Clock | None
    ) -> tuple[Tensor, np.ndarray]:
        """Given coefficients (N,), those of every level of an evolution, and which of the state space's are fixed."""
        rows = 1 if clock is None else clock.steps + 1
        lift = np.zeros((rows, state.size))
        times = None if clock is None else clock.levels
        fixed = np.zeros(state.size, dtype=bool)
        count = state.groups[0].components
        for name, indices in facets.items():
            given = self.file.spec.pde.boundary[name].dirichlet
            key = f"pde.boundary.{name}.dirichlet"
            if given is None:
                continue
            if isinstance(given, tuple) and len(given) != count:
                self.values.complain(key, f"expected {count} values, one a component, found {len(given)}")
                continue
            real = self.values.complex and not isinstance(given, tuple)
            if count > 1 and not isinstance(given, tuple) and given.constant != 0.0 and not real:
                self.values.complain(key, f"expected a list of {count} values, one a component, found a scalar")
                continue
            for i in range(count):
                value = given[i] if isinstance(given, tuple) else given if i == 0 or not real else Expression(0)
                if value is None:
                    continue
                dofs = state.facet_dofs(indices, i)
                at = f"{key}.{i}" if isinstance(given, tuple) else key
                lift[:, dofs] = self.values.formula(at, value, state.nodes[:, dofs], times)
                fixed[dofs] = True
        for k, point in enumerate(self.file.spec.pde.points):
            if point.dirichlet is not None:
                fix_point(values=self.values, state=state, number=k, lift=lift, fixed=fixed, times=times)
        for entry in entries:
            if entry.data is not None and not entry.initial:
                those = np.flatnonzero(np.diff(entry.data.indptr))
                fixed[those] = True
                if state.groups[0].complex:
                    # A control of the real part alone leaves the imaginary part to the given values.
                    fixed[those[those < state.offsets[1]] + state.offsets[1]] = True
        if fixed[: state.offsets[count]].all():
            self.values.complain("mesh", "every node of the mesh has a Dirichlet value: use more cells")
        if clock is not None:
            assert self.file.spec.time is not None and times is not None
            nodes = state.parts[0].nodes
            initial = self.values.components("time.initial", self.file.spec.time.initial, count, nodes, times[:1])
            lift[0] = 0.0
            lift[0, : state.offsets[count]] = initial[:, 0].reshape(-1)
        return self.values.tensor(lift.reshape(-1)), fixed

    def _data(
        self, state: StateSpace, entries: list[Entry], clock: Clock | None, fixed: np.ndarray
    ) -> SparseMatrix | None:
        """(N, p) what the controls add to given coefficients; None where they do not."""
        if all(entry.data is None for entry in entries):
            return None
        levels = 1 if clock is None else clock.steps + 1
        blocks = []
        for entry in entries:
            part = entry.part
            if entry.data is None:
                blocks.append(sp.csr_matrix((levels * state.size, part.size)))
            elif clock is None:
                blocks.append(entry.data)
            elif entry.initial:
                blocks.append(sp.kron(sp.identity(levels, format="csr")[:, :1], entry.data))
            else:
                times = sp.identity(levels, format="csr")[:, 1:]
                blocks.append(sp.kron(times if part.steps is not None else times.sum(axis=1), entry.data))
        return SparseMatrix(sp.csr_matrix(sp.hstack(blocks)), self.device)

    def _conditions(
        self, state: StateSpace, facets: dict[str, np.ndarray], entries: list[Entry]
    ) -> tuple[dict[str, _Condition], bool, bool]:
        """Integrals over the boundary; whether one fixes the level of u; whether all have positive energy."""
        conditions: dict[str, _Condition] = {}
        absorbing, coercive = False, True
        count = state.groups[0].components

        def data(key: str, value: object, x: Tensor) -> Tensor:
            if count == 1:
                return self.values.tensor(self.values.formula(key, value, x))  # type: ignore[arg-type]
            return self.values.tensor(self.values.components(key, value, count, x))  # type: ignore[arg-type]

        for name, indices in facets.items():
            condition = self.file.spec.pde.boundary[name]
            if condition.dirichlet is not None or not len(indices):
                continue
            evaluation = state.facets(indices)
            x = evaluation.quadrature.x.reshape(state.domain.dim, -1)
            key = f"pde.boundary.{name}"
            if condition.neumann is not None:
                flux = data(f"{key}.neumann", condition.neumann, x)
                conditions[name] = _Condition(evaluation, neumann, {"flux": flux})
            elif condition.robin is not None:
                transfer = self.values.formula(f"{key}.robin.coefficient", condition.robin.coefficient, x)
                value = data(f"{key}.robin.value", condition.robin.value, x)
                conditions[name] = _Condition(
                    evaluation, robin, {"coefficient": self.values.tensor(transfer), "value": value}
                )
                absorbing = absorbing or bool((transfer != 0.0).any())
                coercive = coercive and bool((transfer >= 0.0).all())
            elif condition.absorbing:
                pde = self.file.spec.pde
                make = FAMILIES[pde.kind].absorbing
                if make is None:
                    known = ", ".join(kind for kind, family in FAMILIES.items() if family.absorbing is not None)
                    message = f"expected an equation of kind {known} for an absorbing boundary, found {pde.kind!r}"
                    self.values.complain(f"{key}.absorbing", message)
                    continue
                conditions[name] = _Condition(
                    evaluation, *make(self.values, pde, x, np.asarray(state.domain.mesh.f2t[0, indices]))
                )
        self._controlled(state, conditions, entries, facets)
        for k, point in enumerate(self.file.spec.pde.points):
            where = None if point.load is None else point_of_mesh(self.values, state, k)
            if where is not None:
                evaluation = state.points(where)
                flux = data(f"pde.points.{k}.load", point.load, evaluation.quadrature.x.reshape(state.domain.dim, -1))
                conditions[f"pde.points.{k}"] = _Condition(evaluation, neumann, {"flux": flux})
        return conditions, absorbing, coercive

    def _controlled(
        self,
        state: StateSpace,
        conditions: dict[str, _Condition],
        entries: list[Entry],
        facets: dict[str, np.ndarray],
    ) -> None:
        """Add the integrals that controls act in and the file does not name; complain where they cannot act."""
        fixing = {each.key: each.facets for each in entries if each.data is not None and each.facets is not None}
        fixed = self._fixed(state, facets)
        everywhere = reduce(np.intersect1d, fixed)
        for entry in entries:
            name, indices = entry.side, entry.facets
            if name is None or indices is None or name not in state.domain.boundaries:
                continue
            if entry.data is not None:
                self._only_fixed(entry, facets)
                continue
            wanted = neumann if "flux" in entry.acts_on else robin
            given = conditions.get(name)
            kind = "neumann" if wanted is neumann else "robin"
            other = next((key for key, its in fixing.items() if len(np.intersect1d(its, indices))), None)
            if len(np.intersect1d(indices, everywhere)) or other is not None:
                by = next((f"pde.boundary.{n}" for n in facets if self._fixes(n, facets, indices)), other)
                hint = f"; give {name} a condition of its own" if by == "pde.boundary.all" and name != "all" else ""
                message = f"expected a part of the boundary where u is free, found {name!r}, where {by} fixes it{hint}"
                self.values.complain(f"{entry.key}.on", message)
            elif (given is not None and given.form is not wanted) or (given is None and name in facets):
                message = f"expected a {kind} condition or none on {name!r}, which a {kind} control acts on"
                self.values.complain(f"pde.boundary.{name}", message)
            elif given is None and wanted is robin:
                message = f"expected a robin condition on {name!r}, whose value a robin control changes; found none"
                self.values.complain(f"{entry.key}.on", message)
            elif wanted is robin and given is not None and not torch.count_nonzero(given.coefficients["coefficient"]):
                message = "expected a coefficient that is not zero everywhere, as a robin control acts through it"
                self.values.complain(f"pde.boundary.{name}.robin.coefficient", message)
            elif given is None:
                evaluation = state.facets(indices)
                count = state.groups[0].components
                zero = evaluation.quadrature.weights.new_zeros(
                    *([count, 1] if count > 1 else []), evaluation.quadrature.points
                )
                conditions[name] = _Condition(evaluation, neumann, {"flux": zero})

    def _fixes(self, name: str, facets: dict[str, np.ndarray], indices: np.ndarray) -> bool:
        given = self.file.spec.pde.boundary[name].dirichlet
        return given is not None and len(np.intersect1d(facets[name], indices)) > 0

    def _only_fixed(self, entry: Entry, facets: dict[str, np.ndarray]) -> None:
        """A flux or an exchange where a control fixes the state would have no effect."""
        assert entry.facets is not None
        for name, indices in facets.items():
            condition = self.file.spec.pde.boundary[name]
            nothing = condition.neumann is not None and getattr(condition.neumann, "constant", None) == 0.0
            if condition.dirichlet is None and not nothing and len(np.intersect1d(indices, entry.facets)):
                kind = next(each for each in ("neumann", "robin", "absorbing") if getattr(condition, each) is not None)
                message = f"expected a dirichlet condition or none on {entry.side!r}, whose values {entry.key} controls"
                self.values.complain(f"pde.boundary.{name}", f"{message}; found {kind}")

    def _integral(self, condition: _Condition, name: str | None, entries: list[Entry], controls: Controls) -> Integral:
        """An integral with the controls that act in it."""
        coefficients, first = dict(condition.coefficients), 0
        maps: list[ControlMap] = []
        functions: list[Evaluation] = []
        acting: list[tuple[Entry, Evaluation]] = []
        for entry in entries:
            placed = entry.placed(first, controls.rows.width)
            if placed is not None and entry.where == name:
                acting.append((entry, placed))
            first += entry.part.columns
        for entry, placed in sorted(acting, key=lambda each: each[0].order):
            coefficients.update(entry.coefficients)
            maps += entry.maps
            functions.append(placed)
        evaluation = side_by_side(functions) if functions else None
        return Integral(condition.evaluation, condition.form, coefficients, tuple(maps), evaluation)

    def _well_posed(self, state: StateSpace, fixed: np.ndarray, absorbing: bool) -> None:
        count = state.groups[0].components
        for i in range(count):
            if not fixed[state.offsets[i] : state.offsets[i + 1]].any() and not absorbing:
                which = "u" if count == 1 else f"component {i} of the {state.groups[0].name}"
                message = (
                    f"no Dirichlet or Robin condition and no reaction: {which} is determined up to a constant only"
                )
                self.values.complain("pde.boundary", message)

    def _held(
        self,
        state: StateSpace,
        unseen: dict[str, np.ndarray],
        fixed: np.ndarray,
        facets: dict[str, np.ndarray],
        conditions: dict[str, _Condition],
    ) -> None:
        """Complain of states without energy that neither Dirichlet nor Robin conditions rule out."""
        held = fixed.copy()
        for name, condition in conditions.items():
            if condition.form is robin and bool((condition.coefficients["coefficient"] != 0.0).any()):
                for i in range(state.groups[0].components):
                    held[state.facet_dofs(facets[name], i)] = True
        modes = np.stack(list(unseen.values()))
        squares, combinations = np.linalg.eigh(modes[:, held] @ modes[:, held].T)
        free = combinations[:, squares <= 1e-12 * held.sum()]
        if free.size:
            names = [name for name, share in zip(unseen, np.abs(free).max(axis=1), strict=True) if share > 1e-4]
            message = (
                f"expected Dirichlet or Robin conditions that hold the body; {free.shape[1]} of its {len(modes)} rigid "
                f"motions {'is' if free.shape[1] == 1 else 'are'} free: {', '.join(names)}"
            )
            self.values.complain("pde.boundary", message)

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
        cells = state.cells
        weight = interior.capacity.reshape(-1, *cells.quadrature.weights.shape)
        stride = cells.components // cells.fields
        values = range(0, stride * state.groups[0].components, stride)
        mass = cells.assemble(cells, {(i, i): weight for i in values}, symmetric=True)
        free = np.flatnonzero(~fixed)
        every = (np.arange(1, clock.steps + 1)[:, None] * state.size + free).reshape(-1)
        return EvolutionEquation(
            size=(clock.steps + 1) * state.size,
            free=every,
            lift=lift,
            mass=mass,
            theta=clock.theta,
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
        start = controls.physical(controls.initial)
        if controls.bounds is not None:
            start = start.clamp(*controls.bounds)
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
