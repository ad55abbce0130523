"""From the `control` section to the discrete controls, and how each of them enters the equation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..control import ControlSpace, added, replaced
from ..fem.evaluation import Evaluation, stacked
from ..fem.interpolation import interpolation
from ..fem.spaces import Space, space
from ..fem.state_space import StateSpace
from ..linalg.counts import Counts
from ..linalg.factorisation import factorised_riesz_map
from ..linalg.riesz import RieszMap, diagonal_riesz_map, mass_riesz_map
from ..linalg.sparse import SparseMatrix
from ..pde.form import Coefficients, ControlMap
from .control_spec import (
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
    SourceControl,
)
from .densities import density_entry
from .entry import Entry
from .errors import suggest
from .families import Interior
from .fields import Function
from .objective_spec import RegularisationTerm
from .python_code import load_function
from .values import Values, point_text


@dataclass
class ControlBuilder:
    """Makes the controls of a file one after the other.

    Attributes:
        values: evaluates expressions and collects mistakes.
        state: the state space.
        interior: the equation in the cells.
        facets: facets of every boundary that is named in the mesh.
        counts: where work is counted.
        step: length of a time step; None of a steady problem.
    """

    values: Values
    state: StateSpace
    interior: Interior
    facets: dict[str, np.ndarray]
    counts: Counts
    step: float | None

    def build(self) -> list[Entry]:
        spec = self.values.file.spec
        several = isinstance(spec.control, tuple)
        entries = [
            self._entry(f"control.{k}" if several else "control", each, k) for k, each in enumerate(spec.controls)
        ]
        names = [entry.part.name for entry in entries]
        for k, name in enumerate(names):
            if name in names[:k]:
                message = f"expected names that differ, found {name!r} twice: give the controls names"
                self.values.complain(f"control.{k}.name", message)
        return entries

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
                return density_entry(self, key, spec, f"_{number}" if number else "")
            case ParameterControl():
                return self._parameter(key, spec)
            case PythonControl():
                return self._python(key, spec)

    # Kinds

    def _source(self, key: str, spec: SourceControl, gain: str) -> Entry:
        if "source" not in self.interior.coefficients:
            self.values.complain(f"{key}.kind", "expected an equation with a source, found one without")
        x = self.state.cells.quadrature.x.reshape(self.state.domain.dim, -1)
        count = self._components(key, spec)
        part, functions, weight = self.in_cells(key, spec, count)
        factor = self.values.formula(f"{key}.gain", spec.gain, x)
        coefficients = {gain: self.values.tensor(factor) * weight.reshape(-1)}
        if self.interior.vector is None:
            maps: tuple[ControlMap, ...] = (added("source", gain),)
        else:
            maps = tuple(added("source", gain, i) for i in range(count))
        return Entry(key, part, None, maps, functions, coefficients)

    def _boundary(self, key: str, spec: NeumannControl | RobinControl, gain: str, name: str) -> Entry:
        facets = self._facets(key, spec.on)
        count = self._components(key, spec)
        functions, space_, dofs, nodes = self._on_facets(spec.space, facets, count)
        evaluation = stacked(functions)
        points = functions[0].quadrature.x.reshape(self.state.domain.dim, -1)
        factor = self.values.tensor(self.values.formula(f"{key}.gain", spec.gain, points))
        weight = torch.ones_like(functions[0].quadrature.weights)[None]
        part = self._part(key, spec, spec.space, evaluation, nodes, weight, count, space_, dofs)
        whole = self.interior.vector is None
        maps = (added(name, gain),) if whole else tuple(added(name, gain, i) for i in range(count))
        return Entry(key, part, spec.on, maps, functions, {gain: factor}, frozenset({name}))

    def _dirichlet(self, key: str, spec: DirichletControl) -> Entry:
        facets = self._facets(key, spec.on)
        count = self._components(key, spec)
        functions, space_, dofs, nodes = self._on_facets(spec.space, facets, count)
        weight = torch.ones_like(functions[0].quadrature.weights)[None]
        part = self._part(key, spec, spec.space, stacked(functions), nodes, weight, count, space_, dofs)
        self.values.constant_in_time(f"{key}.gain", spec.gain)
        blocks = []
        for i in range(count):
            fixed = self.state.facet_dofs(facets, i)
            here = fixed - self.state.offsets[i]
            points = self.state.parts[i].nodes[:, here]
            factor = self.values.formula(f"{key}.gain", spec.gain, points, np.zeros(1)).reshape(-1)
            if space_ is None or dofs is None:
                values = sp.csr_matrix(factor[:, None])
            else:
                values = sp.diags_array(factor) @ interpolation(space_, self.state.parts[i])[here][:, dofs]
            rows = sp.csr_matrix((np.ones(len(fixed)), (fixed, np.arange(len(fixed)))), (self.state.size, len(fixed)))
            blocks.append(rows @ values)
        return Entry(key, part, data=sp.csr_matrix(sp.hstack(blocks)))

    def _initial(self, key: str, spec: InitialControl) -> Entry:
        if self.step is None:
            self.values.complain(f"{key}.kind", "expected a problem with time, found a steady one")
        count = self.state.groups[0].components
        part, _, _ = self.in_cells(key, spec, count, varying=False)
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
        part, functions, weight = self.in_cells(key, spec, 1, varying=False)
        if isinstance(spec, ConductivityControl):
            lowest = -np.inf if part.lower is None else float(part.lower.min())
            if lowest <= 0.0:
                message = f"expected a positive lower bound for a conductivity, found {lowest:g}"
                self.values.complain(
                    f"{key}.bounds", message if part.lower is not None else message.replace("-inf", "null")
                )
        region = None if spec.on is None else weight.reshape(-1)
        return Entry(key, part, None, (replaced("conductivity", by, region),), functions, additive=False)

    def _parameter(self, key: str, spec: ParameterControl) -> Entry:
        name, values = spec.name, self.values
        part, functions, _ = self._numbers(key, spec)
        dependent = dict(values.dependent)
        starts = dict(values.parameters)

        def enter(coefficients: Coefficients, v: Tensor) -> Coefficients:
            known = {
                each: coefficients.get(f"parameter {each}", torch.full_like(v, start)) for each, start in starts.items()
            }
            known[name] = v
            after = {coefficient: follow(known) for coefficient, follow in dependent.items()}
            return {**coefficients, f"parameter {name}": v, **after}

        if name not in values.used:
            values.complain(f"{key}.name", f"expected a parameter that an expression of pde uses, found {name!r}")
        return Entry(key, part, None, (enter,), functions, additive=False)

    def _python(self, key: str, spec: PythonControl) -> Entry:
        part, functions, _ = self.in_cells(key, spec, 1)
        enter = load_function(self.values.file, f"{key}.python", spec.python)
        name = Function.written(spec.python)
        trial = torch.zeros_like(functions[0].quadrature.weights).reshape(1, -1)
        try:
            found = enter(dict(self.interior.coefficients), trial)
        except Exception as error:
            raise self.values.file.error(f"{key}.python", f"{name} raised {type(error).__name__}: {error}") from error
        if not isinstance(found, Mapping) or not found.keys() >= self.interior.coefficients.keys():
            kind = f"a mapping of {', '.join(found)}" if isinstance(found, Mapping) else type(found).__name__
            known = ", ".join(self.interior.coefficients)
            message = f"{name} returned {kind}; expected the coefficients {known}, some of them changed"
            self.values.complain(f"{key}.python", message)
        return Entry(key, part, None, (enter,), functions, additive=False)

    def _components(self, key: str, spec: SourceControl | NeumannControl | RobinControl | DirichletControl) -> int:
        """Fields that a control acts on: those of the first group, or the real part of a complex one."""
        group = self.state.groups[0]
        if spec.complex and not group.complex:
            kind = self.values.file.spec.pde.kind
            self.values.complain(f"{key}.complex", f"expected false, found true: the field of {kind} is real")
        return 1 if group.complex and not spec.complex else group.components

    # Spaces

    def _facets(self, key: str, name: str) -> np.ndarray:
        if name in self.facets:
            return self.facets[name]
        known = ", ".join(sorted(self.facets))
        self.values.complain(
            f"{key}.on", f"unknown boundary {name!r}{suggest(name, self.facets)}; this mesh has: {known}"
        )
        return self.facets["all"]

    def in_cells(
        self, key: str, spec: ControlSpec, count: int, varying: bool = True
    ) -> tuple[ControlSpace, tuple[Evaluation, ...], Tensor]:
        """A control on the cells, the functions of its components, and where it acts (1, elements, points)."""
        kind = getattr(spec, "space", "constant")
        cells = self.state.cells
        on = getattr(spec, "on", None)
        known = on is None or on in self.state.domain.subdomains
        elements = None
        if on is not None:
            before = len(self.values.issues)
            elements = self.values.subdomain(f"{key}.on", on)
            if not len(elements) and len(self.values.issues) == before:
                self.values.complain(f"{key}.on", f"subdomain {on!r} has no cells: the control is empty")
        indicator = self.values.indicator(f"{key}.on", on if known else None, cells)
        weight = self.values.tensor(indicator.reshape(cells.quadrature.weights.shape))[None]
        space_, dofs = None, None
        if kind in ("P0", "P1"):
            space_ = self.state.parts[0] if kind == self.state.element else self.finite_elements(kind)
            dofs = np.arange(space_.size)
            if elements is not None and len(elements):
                dofs = space_.cell_dofs(elements)
            one, nodes = space_.cells.columns(dofs), space_.nodes[:, dofs]
        else:
            one, nodes = _one_number(cells), np.zeros((self.state.domain.dim, 1))
        functions = (one,) * count
        nodes = np.tile(nodes, count)
        part = self._part(key, spec, kind, stacked(functions), nodes, weight, count, space_, dofs, varying)
        return part, functions, weight

    def _numbers(self, key: str, spec: ControlSpec) -> tuple[ControlSpace, tuple[Evaluation, ...], Tensor]:
        return self.in_cells(key, spec, 1, varying=False)

    def finite_elements(self, element: str) -> Space:
        return space(self.state.domain, element, self.state.device, like=self.state.parts[0])

    def _on_facets(
        self, kind: str, facets: np.ndarray, count: int
    ) -> tuple[tuple[Evaluation, ...], Space | None, np.ndarray | None, np.ndarray]:
        like = self.state.parts[0]
        if kind in ("P0", "P1"):
            space_ = like if kind == self.state.element else self.finite_elements(kind)
            dofs = space_.facet_dofs(facets) if kind == "P1" else np.unique(self.state.domain.mesh.f2t[0, facets])
            one, nodes = space_.facets(facets, like).columns(dofs), space_.nodes[:, dofs]
            return (one,) * count, space_, dofs, np.tile(nodes, count)
        one = _one_number(like.facets(facets))
        return (one,) * count, None, None, np.zeros((self.state.domain.dim, count))

    def _part(
        self,
        key: str,
        spec: ControlSpec,
        kind: str,
        evaluation: Evaluation,
        nodes: np.ndarray,
        weight: Tensor,
        count: int,
        space_: Space | None,
        dofs: np.ndarray | None,
        varying: bool = True,
    ) -> ControlSpace:
        steps = len(self.values.times) if self.values.times is not None else 0
        moves = varying and self.step is not None and kind != "constant"
        if not moves:
            self.values.constant_in_time(f"{key}.initial", spec.initial)
            for i, bound in enumerate(spec.bounds):
                if bound is not None:
                    self.values.constant_in_time(f"{key}.bounds.{i}", bound)
        times = self.values.times if moves else np.zeros(1)
        copies = steps if moves else 1

        initial = self.values.components(
            f"{key}.initial", spec.initial, count, nodes[:, : nodes.shape[1] // count], times
        )
        start = np.broadcast_to(initial, (count, copies, initial.shape[2])).swapaxes(0, 1).reshape(-1)
        bounds = [
            np.full(len(start), sign * np.inf)
            if bound is None
            else np.broadcast_to(
                self.values.formula(f"{key}.bounds.{i}", bound, nodes, times), (copies, nodes.shape[1])
            ).reshape(-1)
            for i, (bound, sign) in enumerate(zip(spec.bounds, (-1.0, 1.0), strict=True))
        ]
        bounded = any(bound is not None for bound in spec.bounds)
        crossed = np.flatnonzero(bounds[0] > bounds[1])
        if len(crossed):
            k = int(crossed[0])
            crossing = f"found lower {bounds[0][k]:g} above upper {bounds[1][k]:g} at {point_text(nodes, k)}"
            self.values.complain(f"{key}.bounds", f"expected lower <= upper, {crossing}")
        lower, upper = (self.values.tensor(bound) for bound in bounds) if bounded else (None, None)
        name = spec.name or ("control" if key == "control" else spec.kind)
        riesz = self._metric(name, kind, evaluation, weight, bounded)
        return ControlSpace(
            name, nodes, evaluation, riesz, self.values.tensor(start), lower, upper, weight,
            copies if moves else None, self.step if moves and self.step is not None else 1.0, count, space_, dofs,
        )  # fmt: skip

    def _metric(self, name: str, kind: str, evaluation: Evaluation, weight: Tensor, bounded: bool) -> RieszMap:
        """L2; H1 where the gradient is penalised; lumped L2 with bounds or an l1 term, whose steps act node by node."""
        device = self.state.device
        if kind in ("time", "constant"):
            unit = SparseMatrix(sp.identity(evaluation.size, format="csr"), device, symmetric=True)
            return diagonal_riesz_map(unit.diagonal(), unit)
        stride = evaluation.components // evaluation.fields
        values = {(i, i): weight for i in range(0, evaluation.components, stride)}
        mass = SparseMatrix(evaluation.assemble(evaluation, values, True).host(), device, True)
        smooth = any(
            isinstance(term, RegularisationTerm)
            and term.norm in ("h1", "tv")
            and term.weight > 0
            and term.control in (None, name)
            for term in self.values.file.spec.objective
        )
        sparse = any(
            isinstance(term, RegularisationTerm) and term.norm == "l1" and term.control in (None, name)
            for term in self.values.file.spec.objective
        )
        if bounded or sparse:
            weights = torch.from_numpy(np.asarray(mass.host.sum(axis=1)).reshape(-1)).to(device)
            lumped = SparseMatrix(sp.diags_array(weights.cpu().numpy()).tocsr(), device, symmetric=True)
            return diagonal_riesz_map(weights, lumped)
        if kind == "P0":
            return diagonal_riesz_map(mass.diagonal(), mass)
        if smooth:
            blocks = {(i, i): weight for i in range(evaluation.components)}
            gram = SparseMatrix(evaluation.assemble(evaluation, blocks, True).host(), device, True)
            return factorised_riesz_map(gram, Counts())
        return mass_riesz_map(mass, self.counts)


def _one_number(like: Evaluation) -> Evaluation:
    """The one function that is 1 everywhere, at the points of another evaluation."""
    elements = like.quadrature.weights.shape[0]
    one = like.quadrature.weights.new_ones(elements, 1, 1)
    tables = (one, *[torch.zeros_like(one)] * like.quadrature.x.shape[0])
    return Evaluation(tables, np.zeros((elements, 1), dtype=np.int64), 1, like.quadrature)
