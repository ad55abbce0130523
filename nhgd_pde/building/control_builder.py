"""From the `control` section to the discrete controls, and how each of them enters the equation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..control.maps import added, replaced
from ..fem.interpolation import interpolation
from ..fem.state_space import StateSpace
from ..pde.form import ControlMap
from ..problem_file.control_spec import (
    ConductivityControl,
    ControlSpec,
    DensityControl,
    DirichletControl,
    InitialControl,
    LogConductivityControl,
    NeumannControl,
    ParameterControl,
    PythonControl,
    RobinControl,
    SideControl,
    SourceControl,
)
from ..problem_file.expressions import COORDINATES, Expression
from ..problem_file.fields import Function
from ..problem_file.schema import ProblemSpec
from .control_spaces import ControlSpaces
from .densities import density_entry
from .dependence import CELLS, Recorded
from .entry import Entry
from .families.base import Interior
from .issue_collector import IssueCollector
from .python_code import load_function
from .values import Values


@dataclass
class ControlBuilder:
    """Makes the controls of a file one after the other.

    Attributes:
        values: evaluates expressions and collects mistakes.
        state: the state space.
        interior: the equation in the cells.
        facets: facets of every boundary that is named in the mesh; `all` are the facets that no other
            condition in pde.boundary names.
        fixed: facets on which the file gives Dirichlet values, of each component.
        spaces: makes the spaces that they live in.
    """

    values: Values
    state: StateSpace
    interior: Interior
    facets: dict[str, np.ndarray]
    fixed: tuple[np.ndarray, ...]
    spaces: ControlSpaces

    def build(self) -> list[Entry]:
        controls = self.values.file.spec.keyed_controls
        entries = [self._entry(key, each, k) for k, (key, each) in enumerate(controls)]
        names = [entry.part.name for entry in entries]
        for k, name in enumerate(names):
            if name in names[:k]:
                message = f"expected names that differ, found {name!r} twice: give the controls names"
                self.values.complain(f"control.{k}.name", message)
        self._one_conductivity(entries)
        return _shared_nodes(entries)

    def _one_conductivity(self, entries: list[Entry]) -> None:
        """Complain of cells whose conductivity comes from two controls, or from all of them and the file."""
        made = [entry for entry in entries if entry.cells is not None]
        for k, entry in enumerate(made):
            assert entry.cells is not None
            for other in made[:k]:
                assert other.cells is not None
                if len(np.intersect1d(entry.cells, other.cells)):
                    message = f"expected cells whose conductivity no other control makes, found some of {other.key}"
                    self.values.complain(f"{entry.key}.on", message)
        given = getattr(self.values.file.spec.pde, "conductivity", Expression(1))
        everywhere = sum(len(entry.cells) for entry in made if entry.cells is not None)
        if made and everywhere == self.values.domain.mesh.nelements and getattr(given, "constant", None) != 1.0:
            message = f"expected none, as {made[0].key} makes the conductivity of every cell"
            self.values.complain("pde.conductivity", message)

    def _entry(self, key: str, spec: ControlSpec, number: int) -> Entry:
        gain = f"gain_{number}" if number else "gain"
        match spec:
            case SourceControl():
                return self._source(key, spec, gain)
            case NeumannControl():
                return self._boundary(key, spec, gain, "flux")
            case RobinControl():
                return self._boundary(key, spec, gain, "value")
            case DirichletControl():
                return self._dirichlet(key, spec)
            case InitialControl():
                return self._initial(key, spec)
            case ConductivityControl():
                return self._conductivity(key, spec, lambda v: v)
            case LogConductivityControl():
                return self._conductivity(key, spec, torch.exp)
            case DensityControl():
                return density_entry(self.spaces, self.interior.coefficients, key, spec, f"_{number}" if number else "")
            case ParameterControl():
                return self._parameter(key, spec)
            case PythonControl():
                return self._python(key, spec)

    # One method for each kind of control

    def _source(self, key: str, spec: SourceControl, gain: str) -> Entry:
        if "source" not in self.interior.coefficients:
            self.values.complain(f"{key}.kind", "expected an equation with a source, found one without")
        x = self.state.cells.quadrature.flat
        count = self._components(key, spec)
        part, functions, weight = self.spaces.in_cells(key, spec, count)
        factor = self._gain(key, spec.gain, x)
        gains = self.values.tensor(factor)
        coefficients = {gain: gains if getattr(spec, "on", None) is None else gains * weight.reshape(-1)}
        if self.interior.vector is None:
            maps: tuple[ControlMap, ...] = (added("source", gain),)
        else:
            maps = tuple(added("source", gain, i) for i in range(count))
        return Entry(key, part, None, maps, functions, coefficients)

    def _boundary(self, key: str, spec: NeumannControl | RobinControl, gain: str, name: str) -> Entry:
        facets = self._facets(key, spec.on)
        count = self._components(key, spec)
        functions = self.spaces.on_facets(spec.space, facets, count)
        points = functions.each[0].quadrature.flat
        factor = self.values.tensor(self._gain(key, spec.gain, points))
        part = replace(self.spaces.part(key, spec, spec.space, functions), facets=facets)
        whole = self.interior.vector is None
        maps = (added(name, gain),) if whole else tuple(added(name, gain, i) for i in range(count))
        acts_on = frozenset({name})
        return Entry(key, part, spec.on, maps, functions.each, {gain: factor}, acts_on, side=spec.on, facets=facets)

    def _dirichlet(self, key: str, spec: DirichletControl) -> Entry:
        # P0 functions have two values on a facet inside the domain.
        facets = self._facets(key, spec.on, inside=spec.space != "P0")
        count = self._components(key, spec)
        functions = self.spaces.on_facets(spec.space, facets, count)
        space_, dofs = functions.space, functions.dofs
        self.values.constant_in_time(f"{key}.gain", spec.gain)
        blocks = []
        for i in range(count):
            # Nodes that two sides share keep the Dirichlet values of the file on the other side.
            others = np.setdiff1d(self.fixed[i], facets)
            fixed = np.setdiff1d(self.state.facet_dofs(facets, i), self.state.facet_dofs(others, i))
            here = fixed - self.state.offsets[i]
            factor = self._gain(key, spec.gain, self.state.parts[i].nodes[:, here], np.zeros(1)).reshape(-1)
            if space_ is None or dofs is None:
                values = sp.csr_matrix(factor[:, None])
            else:
                shares = interpolation(space_, self.state.parts[i])[here][:, dofs]
                # The mean over the cells around a node leaves out cells without a control.
                means = 1.0 if space_.element != "P0" else 1.0 / np.asarray(shares.sum(axis=1)).reshape(-1)
                values = sp.diags_array(factor * means) @ shares
            rows = sp.csr_matrix((np.ones(len(fixed)), (fixed, np.arange(len(fixed)))), (self.state.size, len(fixed)))
            blocks.append(sp.csr_matrix(rows @ values))
        if space_ is not None and dofs is not None:
            acting = np.flatnonzero(sum(abs(block).sum(axis=0) for block in blocks))
            if not len(acting):
                self.values.complain(f"{key}.on", f"every node of {spec.on!r} has a Dirichlet value of another side")
            elif len(acting) < len(dofs):
                functions, blocks = functions.columns(acting), [block[:, acting] for block in blocks]
        part = replace(self.spaces.part(key, spec, spec.space, functions), facets=facets)
        return Entry(key, part, data=sp.csr_matrix(sp.hstack(blocks)), side=spec.on, facets=facets)

    def _initial(self, key: str, spec: InitialControl) -> Entry:
        if self.spaces.clock is None:
            self.values.complain(f"{key}.kind", "expected a problem with time, found a steady one")
        count = self.state.groups[0].components
        part, _, _ = self.spaces.in_cells(key, spec, count, varying=False)
        assert part.space is not None
        one = interpolation(part.space, self.state.parts[0])
        rest = self.state.size - count * one.shape[0]
        data = sp.block_diag([*[one] * count, sp.csr_matrix((rest, 0))], format="csr")
        return Entry(key, part, data=data, initial=True)

    def _conductivity(
        self, key: str, spec: ConductivityControl | LogConductivityControl, by: Callable[[Tensor], Tensor]
    ) -> Entry:
        given = self.interior.coefficients.get("conductivity")
        if given is None or given.ndim > 2:
            message = "expected an equation with a scalar conductivity, found one without"
            self.values.complain(f"{key}.kind", message)
        part, functions, weight = self.spaces.in_cells(key, spec, 1, varying=False)
        if isinstance(spec, ConductivityControl):
            lowest = -np.inf if part.lower is None else float(part.lower.min())
            if lowest <= 0.0:
                message = f"expected a positive lower bound for a conductivity, found {lowest:g}"
                self.values.complain(
                    f"{key}.bounds", message if part.lower is not None else message.replace("-inf", "null")
                )
        region = None if spec.on is None else weight.reshape(-1)
        cells = np.flatnonzero(weight.reshape(weight.shape[1], -1)[:, 0].cpu().numpy())
        maps = (replaced("conductivity", lambda _, v: by(v), region),)
        certain = isinstance(spec, ConductivityControl)
        return Entry(key, part, None, maps, functions, additive=False, cells=cells, certain=certain)

    def _parameter(self, key: str, spec: ParameterControl) -> Entry:
        part, functions, _ = self.spaces.in_cells(key, spec, 1, varying=False)
        return Entry(key, part, None, (), functions, additive=False, parameter=spec.name)

    def _python(self, key: str, spec: PythonControl) -> Entry:
        part, functions, _ = self.spaces.in_cells(key, spec, 1)
        enter = load_function(self.values.file, f"{key}.python", spec.python)
        name = Function.written(spec.python)
        trial = torch.zeros_like(functions[0].quadrature.weights).reshape(1, -1)
        given = Recorded(self.interior.coefficients | self.values.exposed(self.interior.coefficients))
        try:
            found = enter(given, trial)
        except Exception as error:
            raise self.values.file.error(f"{key}.python", f"{name} raised {type(error).__name__}: {error}") from error
        if not isinstance(found, Mapping) or not found.keys() >= self.interior.coefficients.keys():
            kind = f"a mapping of {', '.join(found)}" if isinstance(found, Mapping) else type(found).__name__
            known = ", ".join(self.interior.coefficients)
            message = f"{name} returned {kind}; expected the coefficients {known}, some of them changed"
            self.values.complain(f"{key}.python", message)
        self.values.dependence.use(CELLS, given.asked & self.values.parameters.keys())
        changed = frozenset(name for name in given if isinstance(found, Mapping) and found.get(name) is not given[name])
        return Entry(key, part, None, (enter,), functions, acts_on=changed, additive=False)

    def _gain(self, key: str, gain: Expression, x: Tensor | np.ndarray, times: np.ndarray | None = None) -> np.ndarray:
        before = len(self.values.issues)
        factor = self.values.formula(f"{key}.gain", gain, x, times)
        if len(self.values.issues) == before and not factor.any():
            message = f"expected a gain that is not zero wherever the control acts, found {gain}"
            self.values.complain(f"{key}.gain", message)
        return factor

    def _components(self, key: str, spec: SourceControl | SideControl) -> int:
        """The number of fields that a control acts on: the first group, or the real part of a complex field."""
        group = self.state.groups[0]
        if spec.complex and not group.complex:
            kind = self.values.file.spec.pde.kind
            self.values.complain(f"{key}.complex", f"expected false, found true: the field of {kind} is real")
        return 1 if group.complex and not spec.complex else group.components

    def _facets(self, key: str, name: str, inside: bool = False) -> np.ndarray:
        if inside and name in self.values.domain.inside:
            return self.values.domain.inside[name]
        if name in self.facets:
            seams = self.values.domain.seams
            if any(len(np.intersect1d(self.facets[name], seam.facets)) for seam in seams):
                message = f"expected a part of the boundary, found {name!r}, which is periodic: nothing is given there"
                self.values.complain(f"{key}.on", message)
            if len(self.facets[name]):
                return self.facets[name]
            others = ", ".join(each for each in self.values.file.spec.pde.boundary if each != "all")
            message = f"expected facets to act on, found none: as in pde.boundary, 'all' leaves out {others}"
            self.values.complain(f"{key}.on", message)
            return self.values.domain.boundaries["all"]
        self.values.mistakes.unknown(self.values.domain, f"{key}.on", "boundary", name, self.facets)
        return self.facets["all"]


def _shared_nodes(entries: list[Entry]) -> list[Entry]:
    """The controls, with the mean of the values of several Dirichlet controls at nodes that their sides share."""
    sides: dict[str, np.ndarray] = {}
    for entry in entries:
        if entry.data is not None and entry.side is not None:
            rows = np.diff(entry.data.indptr) > 0
            sides[entry.side] = sides[entry.side] | rows if entry.side in sides else rows
    if len(sides) < 2:
        return entries
    share = sp.diags_array(1.0 / np.maximum(np.sum(list(sides.values()), axis=0), 1))
    return [
        replace(entry, data=sp.csr_matrix(share @ entry.data))
        if entry.data is not None and entry.side is not None
        else entry
        for entry in entries
    ]


def starting_parameters(spec: ProblemSpec, dim: int, mistakes: IssueCollector) -> dict[str, float]:
    """The starting values of the controls that are parameters, by name."""
    found = {}
    for key, each in spec.keyed_controls:
        if isinstance(each, ParameterControl):
            found[each.name] = _start_between_bounds(each, key, mistakes)
            if each.name in COORDINATES[:dim]:
                message = f"the name {each.name!r} is taken: it is a coordinate of the mesh"
                mistakes.complain(f"{key}.name", message)
    return found


def _start_between_bounds(spec: ParameterControl, key: str, mistakes: IssueCollector) -> float:
    value = spec.initial.constant if not isinstance(spec.initial, tuple) else None
    if value is None:
        mistakes.complain(f"{key}.initial", f"expected a number for a parameter, found {spec.initial}")
    lower, upper = (None if bound is None else bound.constant for bound in spec.bounds)
    value = value or 0.0
    value = value if lower is None else max(value, lower)
    return value if upper is None else min(value, upper)


def check_parameters_used(values: Values, entries: Sequence[Entry]) -> None:
    """Complain of parameters that no expression uses."""
    used = values.dependence.used
    for entry in entries:
        if entry.parameter is not None and entry.parameter not in used:
            message = f"expected a parameter that an expression of pde uses, found {entry.parameter!r}"
            values.complain(f"{entry.key}.name", message)
