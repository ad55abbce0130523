"""The spaces of the controls in a problem file: their functions, bounds and inner products."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..control.controls import ControlSpace, TimeRule
from ..fem.evaluation_operator import EvaluationOperator, stacked
from ..fem.spaces import Space, space
from ..fem.state_space import StateSpace
from ..linalg.counts import Counts
from ..linalg.factorisation import factorised_riesz_map
from ..linalg.riesz import RieszMap, diagonal_riesz_map, mass_riesz_map
from ..linalg.sparse import SparseMatrix
from ..problem_file.control_spec import ControlSpec
from .clock import Clock
from .evaluator import point_text
from .objective_terms.regularisation import RegularisationTerm
from .values import Values


@dataclass(frozen=True, eq=False)
class Functions:
    """The functions that a control is made of, at the points of the integrals it acts in.

    Attributes:
        each: the functions of each component.
        nodes: (dim, m) the points of the degrees of freedom, component after component.
        weight: (1, elements, points) one where the control acts, zero elsewhere.
        space: the finite element space of the functions; None for numbers.
        dofs: (m / components,) the degrees of freedom of the functions in that space.
    """

    each: tuple[EvaluationOperator, ...]
    nodes: np.ndarray
    weight: Tensor
    space: Space | None = None
    dofs: np.ndarray | None = None

    def columns(self, kept: np.ndarray) -> Functions:
        """The functions of some degrees of freedom (indices) in every component."""
        assert self.dofs is not None
        nodes = np.tile(self.nodes[:, : len(self.dofs)][:, kept], len(self.each))
        each = tuple(functions.columns(kept) for functions in self.each)
        return replace(self, each=each, nodes=nodes, dofs=self.dofs[kept])


@dataclass(frozen=True)
class ControlSpaces:
    """Makes the spaces that controls live in.

    Attributes:
        values: evaluates expressions and collects mistakes.
        state: the state space.
        counts: where work is counted.
        clock: the times of an evolution; None of a steady problem.
    """

    values: Values
    state: StateSpace
    counts: Counts
    clock: Clock | None

    def in_cells(
        self, key: str, spec: ControlSpec, count: int, varying: bool = True
    ) -> tuple[ControlSpace, tuple[EvaluationOperator, ...], Tensor]:
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
            one, nodes = one_number(cells), np.zeros((self.state.domain.dim, 1))
        functions = Functions((one,) * count, np.tile(nodes, count), weight, space_, dofs)
        return self.part(key, spec, kind, functions, varying), functions.each, weight

    def finite_elements(self, element: str) -> Space:
        return space(self.state.domain, element, self.state.device, like=self.state.parts[0])

    def on_facets(self, kind: str, facets: np.ndarray, count: int) -> Functions:
        """The functions of a control with `count` components on a part of the boundary."""
        like = self.state.parts[0]
        space_, dofs = None, None
        if kind in ("P0", "P1"):
            space_ = like if kind == self.state.element else self.finite_elements(kind)
            dofs = space_.facet_dofs(facets) if kind == "P1" else np.unique(self.state.domain.mesh.f2t[0, facets])
            one, nodes = space_.traces(facets, like).columns(dofs), space_.nodes[:, dofs]
        else:
            one, nodes = one_number(like.facets(facets)), np.zeros((self.state.domain.dim, 1))
        weight = torch.ones_like(one.quadrature.weights)[None]
        return Functions((one,) * count, np.tile(nodes, count), weight, space_, dofs)

    def part(self, key: str, spec: ControlSpec, kind: str, functions: Functions, varying: bool = True) -> ControlSpace:
        """The control with these functions, its values given by the file.

        Args:
            key: the key of the control in the file.
            spec: the section of the control.
            kind: `P0`, `P1`, `time` or `constant`.
            functions: the functions of the control.
            varying: whether the control may have other values in every time step.
        """
        nodes, count = functions.nodes, len(functions.each)
        rule = self._rule(key, spec) if varying and kind != "constant" else None
        self._check_values(key, spec, kind, functions.space is None, rule)
        times = np.zeros(1) if rule is None else rule.times
        copies = len(times)
        first = nodes[:, : nodes.shape[1] // count]
        initial = self.values.components(f"{key}.initial", spec.initial, count, first, times)
        start = np.broadcast_to(initial, (count, copies, initial.shape[2])).swapaxes(0, 1).reshape(-1)
        lower, upper = self._bounds(key, spec, nodes, times, copies)
        evaluation = stacked(functions.each)
        name = spec.name or ("control" if key == "control" else spec.kind)
        found = ControlSpace(
            name=name,
            nodes=nodes,
            evaluation=evaluation,
            riesz=self._metric(name, kind, evaluation, nodes, functions.weight),
            initial=self.values.tensor(start),
            lower=lower,
            upper=upper,
            weight=functions.weight,
            steps=None if rule is None else copies,
            measure=self.clock.step * (self.clock.steps // copies) if rule and self.clock else 1.0,
            rule=rule,
            components=count,
            space=functions.space,
            dofs=functions.dofs,
            boundary=spec.kind in ("neumann", "robin", "dirichlet"),
        )
        if self.values.file.spec.inference is None:
            return found
        # Other problems are solved without loading what a prior needs.
        from .priors import with_prior

        return with_prior(self.values, key, found)

    def _check_values(self, key: str, spec: ControlSpec, kind: str, of_numbers: bool, rule: TimeRule | None) -> None:
        """Complain of initial values, bounds and windows that vary where the control does not."""
        if rule is None and getattr(spec, "windows", None) is not None:
            what = "a steady problem" if self.clock is None else "a control that does not vary in time"
            self.values.complain(f"{key}.windows", f"expected none, as this is {what}, found {spec.windows}")  # type: ignore[union-attr]
        if kind == "time" and self.clock is None:
            self.values.complain(f"{key}.space", "expected a problem with time, found a steady one")
        bounds = [(f"{key}.bounds.{i}", bound) for i, bound in enumerate(spec.bounds) if bound is not None]
        for at, given in ((f"{key}.initial", spec.initial), *bounds):
            if of_numbers:
                self.values.number(at, given)
            if rule is None:
                self.values.constant_in_time(at, given)

    def _rule(self, key: str, spec: ControlSpec) -> TimeRule | None:
        """The quadrature rule in time of a control, which has values at the same times as the data that it replaces."""
        windows = getattr(spec, "windows", None)
        if self.clock is None:
            return None
        rule = self.clock.end_rule() if spec.kind == "dirichlet" else self.clock.middle_rule()
        if windows is None:
            return rule
        steps = self.clock.steps
        if steps % windows:
            near = min((count for count in range(1, steps + 1) if not steps % count), key=lambda n: abs(n - windows))
            message = f"expected a divisor of time.steps ({steps:,}), such as {near}, found {windows}"
            self.values.complain(f"{key}.windows", message)
            return rule
        return rule.windowed(windows)

    def _bounds(
        self, key: str, spec: ControlSpec, nodes: np.ndarray, times: np.ndarray | None, copies: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Lower and upper (copies * m,); None for both where neither is given."""
        given = {f"{key}.bounds.{i}": bound for i, bound in enumerate(spec.bounds)}
        lower, upper = (bound.reshape(-1) for bound in self.values.limits(given, nodes, times, copies))
        crossed = np.flatnonzero(lower > upper)
        if len(crossed):
            k = int(crossed[0])
            crossing = f"found lower {lower[k]:g} above upper {upper[k]:g} at {point_text(nodes, k)}"
            self.values.complain(f"{key}.bounds", f"expected lower <= upper, {crossing}")
        if all(bound is None for bound in spec.bounds):
            return None, None
        return self.values.tensor(lower), self.values.tensor(upper)

    def _metric(
        self, name: str, kind: str, evaluation: EvaluationOperator, nodes: np.ndarray, weight: Tensor
    ) -> RieszMap:
        """The inner product of a control.

        It is L2, or H1 if the gradient is penalised. With bounds or an l1 term, whose steps act node by node, it is the
        lumped L2 product.
        """
        device = self.state.device
        if kind in ("time", "constant"):
            unit = SparseMatrix(sp.identity(evaluation.size, format="csr"), device, symmetric=True)
            return diagonal_riesz_map(unit.diagonal(), unit)
        stride = evaluation.stride
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
        # Values and gradients of a wave as long as the region contribute equally to its norm, in any unit of length.
        length = float(np.ptp(nodes, axis=1).max()) or 1.0
        share = (0.5 * length / np.pi) ** 2
        blocks = {(i, i): weight * (share if i % stride else 1.0) for i in range(evaluation.components)}
        gram = SparseMatrix(evaluation.assemble(evaluation, blocks, True).host(), device, True)
        return factorised_riesz_map(gram, Counts())

    @property
    def _nodewise(self) -> bool:
        """Whether some control has a bound or an l1 term; steps of all controls are then projected node by node."""
        spec = self.values.file.spec
        sparse = any(isinstance(term, RegularisationTerm) and term.norm == "l1" for term in spec.objective)
        return sparse or any(bound is not None for each in spec.controls for bound in each.bounds)


def one_number(like: EvaluationOperator) -> EvaluationOperator:
    """The one function that is 1 everywhere, at the points of another evaluation."""
    elements = like.quadrature.weights.shape[0]
    one = like.quadrature.weights.new_ones(elements, 1, 1)
    tables = (one, *[torch.zeros_like(one)] * like.quadrature.dim)
    return EvaluationOperator(tables, np.zeros((elements, 1), dtype=np.int64), 1, like.quadrature)
