"""From the `control` section to the discrete controls, and how each of them enters the equation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

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
from ..linalg.factorisation import SingularMatrixError, factorised_riesz_map
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
from .expressions import Expression
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
        facets: facets of every boundary that is named in the mesh; `all` as in pde.boundary those without another
            name there.
        fixed: facets on which the file gives Dirichlet values, of each component.
        counts: where work is counted.
        step: length of a time step; None of a steady problem.
    """

    values: Values
    state: StateSpace
    interior: Interior
    facets: dict[str, np.ndarray]
    fixed: tuple[np.ndarray, ...]
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
        self._one_conductivity(entries)
        return _shared_nodes(entries)

    def _one_conductivity(self, entries: list[Entry]) -> None:
        """Every cell has its conductivity from one control, or from the file."""
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
        factor = self._gain(key, spec.gain, x)
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
        factor = self.values.tensor(self._gain(key, spec.gain, points))
        weight = torch.ones_like(functions[0].quadrature.weights)[None]
        part = self._part(key, spec, spec.space, evaluation, nodes, weight, count, space_, dofs)
        whole = self.interior.vector is None
        maps = (added(name, gain),) if whole else tuple(added(name, gain, i) for i in range(count))
        acts_on = frozenset({name})
        return Entry(key, part, spec.on, maps, functions, {gain: factor}, acts_on, side=spec.on, facets=facets)

    def _dirichlet(self, key: str, spec: DirichletControl) -> Entry:
        facets = self._facets(key, spec.on)
        count = self._components(key, spec)
        functions, space_, dofs, nodes = self._on_facets(spec.space, facets, count)
        self.values.constant_in_time(f"{key}.gain", spec.gain)
        blocks = []
        for i in range(count):
            # Where the file fixes the state on another side, it keeps the nodes that both have in common.
            others = np.setdiff1d(self.fixed[i], facets)
            fixed = np.setdiff1d(self.state.facet_dofs(facets, i), self.state.facet_dofs(others, i))
            here = fixed - self.state.offsets[i]
            factor = self._gain(key, spec.gain, self.state.parts[i].nodes[:, here], np.zeros(1)).reshape(-1)
            if space_ is None or dofs is None:
                values = sp.csr_matrix(factor[:, None])
            else:
                shares = interpolation(space_, self.state.parts[i])[here][:, dofs]
                # Cells that are not controlled count for nothing in the mean of those around a node.
                means = 1.0 if space_.element != "P0" else 1.0 / np.asarray(shares.sum(axis=1)).reshape(-1)
                values = sp.diags_array(factor * means) @ shares
            rows = sp.csr_matrix((np.ones(len(fixed)), (fixed, np.arange(len(fixed)))), (self.state.size, len(fixed)))
            blocks.append(sp.csr_matrix(rows @ values))
        if space_ is not None and dofs is not None:
            acting = np.flatnonzero(sum(abs(block).sum(axis=0) for block in blocks))
            if not len(acting):
                self.values.complain(f"{key}.on", f"every node of {spec.on!r} has a Dirichlet value of another side")
            elif len(acting) < len(dofs):
                functions = tuple(each.columns(acting) for each in functions)
                nodes = np.tile(nodes[:, : len(dofs)][:, acting], count)
                blocks, dofs = [block[:, acting] for block in blocks], dofs[acting]
        weight = torch.ones_like(functions[0].quadrature.weights)[None]
        part = self._part(key, spec, spec.space, stacked(functions), nodes, weight, count, space_, dofs)
        return Entry(key, part, data=sp.csr_matrix(sp.hstack(blocks)), side=spec.on, facets=facets)

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
        cells = np.flatnonzero(weight.reshape(weight.shape[1], -1)[:, 0].cpu().numpy())
        maps = (replaced("conductivity", by, region),)
        return Entry(key, part, None, maps, functions, additive=False, cells=cells)

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
            for coefficient in values.positives & after.keys():
                if not (after[coefficient] > 0.0).all():
                    least = float(after[coefficient].min())
                    raise SingularMatrixError(f"{coefficient} must be positive and falls to {least:.3g}: bound {name}")
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

    def _gain(self, key: str, gain: Expression, x: Tensor | np.ndarray, times: np.ndarray | None = None) -> np.ndarray:
        before = len(self.values.issues)
        factor = self.values.formula(f"{key}.gain", gain, x, times)
        if len(self.values.issues) == before and not factor.any():
            message = f"expected a gain that is not zero wherever the control acts, found {gain}"
            self.values.complain(f"{key}.gain", message)
        return factor

    @property
    def _nodewise(self) -> bool:
        """Some control has a bound or an l1 term: steps of all of them are projected, node by node, together."""
        spec = self.values.file.spec
        sparse = any(isinstance(term, RegularisationTerm) and term.norm == "l1" for term in spec.objective)
        return sparse or any(bound is not None for each in spec.controls for bound in each.bounds)

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
            if len(self.facets[name]):
                return self.facets[name]
            others = ", ".join(each for each in self.values.file.spec.pde.boundary if each != "all")
            message = f"expected facets to act on, found none: as in pde.boundary, 'all' leaves out {others}"
            self.values.complain(f"{key}.on", message)
            return self.values.domain.boundaries["all"]
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
            one, nodes = space_.traces(facets, like).columns(dofs), space_.nodes[:, dofs]
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
        if kind == "time" and self.step is None:
            self.values.complain(f"{key}.space", "expected a problem with time, found a steady one")
        if space_ is None:
            for end, given in (("initial", spec.initial), *((f"bounds.{i}", b) for i, b in enumerate(spec.bounds))):
                self.values.number(f"{key}.{end}", given)
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
        riesz = self._metric(name, kind, evaluation, nodes, weight)
        return ControlSpace(
            name, nodes, evaluation, riesz, self.values.tensor(start), lower, upper, weight,
            copies if moves else None, self.step if moves and self.step is not None else 1.0, count, space_, dofs,
            boundary=spec.kind in ("neumann", "robin", "dirichlet"),
        )  # fmt: skip

    def _metric(self, name: str, kind: str, evaluation: Evaluation, nodes: np.ndarray, weight: Tensor) -> RieszMap:
        """L2; H1 where the gradient is penalised; lumped L2 with bounds or an l1 term, whose steps act node by node."""
        device = self.state.device
        if kind in ("time", "constant"):
            unit = SparseMatrix(sp.identity(evaluation.size, format="csr"), device, symmetric=True)
            return diagonal_riesz_map(unit.diagonal(), unit)
        stride = evaluation.components // evaluation.fields
        values = {(i, i): weight for i in range(0, evaluation.components, stride)}
        mass = SparseMatrix(evaluation.assemble(evaluation, values, True).host(), device, True)
        if self._nodewise:
            weights = torch.from_numpy(np.asarray(mass.host.sum(axis=1)).reshape(-1)).to(device)
            lumped = SparseMatrix(sp.diags_array(weights.cpu().numpy()).tocsr(), device, symmetric=True)
            return diagonal_riesz_map(weights, lumped)
        if kind == "P0":
            return diagonal_riesz_map(mass.diagonal(), mass)
        smooth = any(
            isinstance(term, RegularisationTerm)
            and term.norm in ("h1", "tv")
            and term.weight > 0
            and term.control in (None, name)
            for term in self.values.file.spec.objective
        )
        if not smooth:
            return mass_riesz_map(mass, self.counts)
        # One wave over the region has as much of its norm in its values as in its gradient, whatever the unit.
        length = float(np.ptp(nodes, axis=1).max()) or 1.0
        share = (0.5 * length / np.pi) ** 2
        blocks = {(i, i): weight * (share if i % stride else 1.0) for i in range(evaluation.components)}
        gram = SparseMatrix(evaluation.assemble(evaluation, blocks, True).host(), device, True)
        return factorised_riesz_map(gram, Counts())


def _shared_nodes(entries: list[Entry]) -> list[Entry]:
    """Where Dirichlet controls of several sides meet, the state is the mean of what each side's would make it."""
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


def _one_number(like: Evaluation) -> Evaluation:
    """The one function that is 1 everywhere, at the points of another evaluation."""
    elements = like.quadrature.weights.shape[0]
    one = like.quadrature.weights.new_ones(elements, 1, 1)
    tables = (one, *[torch.zeros_like(one)] * like.quadrature.x.shape[0])
    return Evaluation(tables, np.zeros((elements, 1), dtype=np.int64), 1, like.quadrature)
