"""From the `objective` section to the terms of the objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import chain

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..control.controls import Controls, ControlSpace
from ..fem.evaluation_operator import EvaluationOperator, side_by_side
from ..fem.quadrature_points import same_points
from ..fem.state_space import StateSpace
from ..linalg.products import KroneckerMatrix, repeated
from ..linalg.sparse import SparseMatrix
from ..objective.integral import Density, IntegralTerm
from ..objective.sensor_terms import SensorTerm
from ..objective.terms import Objective, Regularisation
from ..problem_file.equation_parts import Vector
from ..problem_file.expressions import Expression
from ..problem_file.term_parts import TermSpec
from .clock import Clock
from .objective_terms.base import Term
from .values import Values


@dataclass
class ObjectiveBuilder:
    """Makes the terms of the objective one after the other.

    Fields for output are added to `fields`, sensors to `sensors`; `l1_weights` are those of all l1 terms, known once
    they are built.

    Attributes:
        values: evaluates expressions and collects mistakes.
        state: the state space.
        controls: the discrete controls.
        facets: facets of every boundary that is named in the mesh.
        clock: the times of an evolution; None of a steady problem.
        loads: for every integral with a source or a flux, the functions of the state and the load at its points.
        joint_control: a term in Python depends on a control.
    """

    values: Values
    state: StateSpace
    controls: Controls
    facets: dict[str, np.ndarray]
    clock: Clock | None
    loads: Sequence[tuple[EvaluationOperator, Tensor]] = ()
    fields: dict[str, np.ndarray] = field(default_factory=dict)
    sensors: list[SensorTerm] = field(default_factory=list)
    l1_weights: Tensor | None = None
    joint_control: bool = False

    def build(self, wanted: Callable[[TermSpec], bool] = lambda term: True) -> Objective:
        """The terms that are wanted, by default all; terms that no random input changes are made once."""
        parts = [
            self.values.kept(
                ("objective", k),
                self.values.names.in_loads if term.of_loads else frozenset(),
                partial(self._term, f"objective.{k}", term),
            )
            for k, term in enumerate(self.values.file.spec.objective)
            if wanted(term)
        ]
        if self.values.file.spec.inference is not None:
            parts += self.values.once("priors", self._priors)
        kinks = [part.l1_weights for part in parts if part.l1_weights is not None]
        self.l1_weights = reduce(torch.add, kinks) if kinks else None
        return Objective(
            tuple(chain.from_iterable(part.state for part in parts)),
            tuple(chain.from_iterable(part.control for part in parts)),
            tuple(chain.from_iterable(part.joint for part in parts)),
            sections=tuple(parts),
        )

    def _term(self, key: str, term: TermSpec) -> Objective:
        if self.clock is None and getattr(term, "time", "all") != "all":
            self.values.complain(f"{key}.time", "expected a problem with time, found a steady one")
        assert isinstance(term, Term)
        return term.build(key, self)

    # Terms of controls

    def _priors(self) -> list[Objective]:
        """1/2 (m - mean)^T R (m - mean) of every prior of the file, summed over the controls that have it."""
        inference = self.values.file.spec.inference
        assert inference is not None
        found = []
        for key, prior in inference.priors:
            terms: list[Regularisation] = []
            for first, part in self.parts(key, prior.control):
                if part.prior is not None and inference.prior_of(part.name) == (key, prior):
                    whole = self.values.tensor(np.zeros(self.controls.size))
                    whole[first : first + part.size] = part.prior.mean
                    gram = self.spread(first, part, part.prior.precision.host)
                    terms.append(Regularisation(SparseMatrix(gram, self.state.device, symmetric=True), whole))
            found.append(Objective((), tuple(terms)))
        return found

    def precision(self, key: str) -> float:
        """1 / noise^2 of the measured values of a term, a factor of its weight; 1 where nothing is inferred."""
        inference = self.values.file.spec.inference
        return 1.0 if inference is None else inference.noise_of(int(key.rpartition(".")[2])) ** -2.0

    def parts(self, key: str, name: str | None) -> list[tuple[int, ControlSpace]]:
        """The controls that a term is about, each with its first entry in v."""
        every = zip(self.controls.rows.offsets, self.controls.parts, strict=False)
        found = [(first, part) for first, part in every if name is None or part.name == name]
        if not found:
            known = ", ".join(part.name for part in self.controls.parts)
            self.values.complain(f"{key}.control", f"expected the name of a control ({known}), found {name!r}")
        return found

    def spread(self, first: int, part: ControlSpace, one: sp.csr_matrix) -> sp.csr_matrix:
        """A matrix for one time step of a control, as a matrix (p, p) for all controls and times."""
        whole = one if part.rule is None else sp.kron(sp.diags_array(part.rule.weights), one)
        before, after = first, self.controls.size - first - part.size
        if before == after == 0:
            return sp.csr_matrix(whole)
        return sp.block_diag([sp.csr_matrix((before, before)), whole, sp.csr_matrix((after, after))], format="csr")

    def control_times(self, key: str, value: Expression | Vector, part: ControlSpace) -> np.ndarray | None:
        """The times at which an expression for a control is taken; complain of t for a control that does not vary."""
        if self.clock is None:
            return None
        if part.rule is None:
            self.values.constant_in_time(key, value)
            return np.zeros(1)
        return part.rule.times

    # Terms of the state

    def region(self, key: str, on: str | None) -> tuple[EvaluationOperator, np.ndarray]:
        """The functions of the state at the points of an integral, and a mask (elements, points) of its region."""
        facets = self._facets_of(on)
        if facets is not None:
            evaluation = self.state.facets(facets)
            return evaluation, np.broadcast_to(1.0, tuple(evaluation.quadrature.weights.shape))
        if on is not None and on not in self.state.domain.subdomains:
            self.values.mistakes.unknown(
                self.values.domain, key, "subdomain", on, self.state.domain.subdomains, self.facets
            )
            on = None
        cells = self.state.cells
        return cells, self.values.indicator(key, on, cells).reshape(cells.quadrature.weights.shape)

    def finer_region(self, key: str, on: str | None) -> tuple[EvaluationOperator, np.ndarray]:
        """The values of one field of the first group at more points, and a mask (elements,) of the region."""
        facets = self._facets_of(on)
        values = self.state.parts[0].finer_values(facets)
        mask = np.full(len(values.dofs), on is None or facets is not None)
        if on is not None and facets is None:
            mask[self.values.subdomain(key, on)] = True
        return values, mask

    def _facets_of(self, on: str | None) -> np.ndarray | None:
        """The facets of a region on the boundary; None where it consists of cells."""
        return None if on is None or on in self.state.domain.subdomains else self.facets.get(on)

    def chosen(self, key: str, component: int | None) -> range:
        """The fields that a term is about: the first group of fields, or one of them."""
        count = self.state.groups[0].components
        if component is None:
            return range(count)
        if component >= count:
            self.values.complain(f"{key}.component", f"expected a component below {count}, found {component}")
            return range(1)
        return range(component, component + 1)

    def over_time(self, key: str, matrix: SparseMatrix, time: str) -> tuple[SparseMatrix, SparseMatrix | None]:
        """A matrix of the state space at the end or at all weighted stages, and the map of values to these times."""
        if self.clock is None:
            return matrix, None
        if time == "final":
            return matrix, KroneckerMatrix(self.clock.last, self.state.size, self.state.device)
        return repeated(matrix, self.clock.steps, self.clock.step), self._stages()

    def _stages(self) -> SparseMatrix:
        """The map of coefficients at all levels to those at the stages."""
        assert self.clock is not None
        return KroneckerMatrix(self.clock.averages, self.state.size, self.state.device)

    def times(self, time: str) -> np.ndarray | None:
        if self.clock is None:
            return None
        return self.clock.levels[-1:] if time == "final" else self.clock.stages

    def nodal(self, key: str, value: object, chosen: range, times: np.ndarray | None) -> np.ndarray:
        """Values at nodes (rows, size of the state space), zero in fields that are not chosen."""
        nodes = self.state.parts[chosen[0]].nodes
        given = self.values.components(key, value, len(chosen), nodes, times)  # type: ignore[arg-type]
        found = np.zeros((given.shape[1], self.state.size))
        for k, each in zip(chosen, given, strict=True):
            found[:, self.state.offsets[k] : self.state.offsets[k + 1]] = each
        return found

    def tested(self, evaluation: EvaluationOperator, weight: np.ndarray) -> np.ndarray:
        """int weight . phi for a weight (components, rows, P) of the first group: (rows, size of the state space)."""
        density = np.zeros((evaluation.components, *weight.shape[1:]))
        density[[k * evaluation.stride for k in range(len(weight))]] = weight
        return evaluation.test(self.values.tensor(density)).cpu().numpy()

    def over_levels(self, rows: np.ndarray, time: str) -> Tensor:
        """Covectors (rows, size of the state space) as covectors on all coefficients, (N,), or (S, N) in scenarios."""
        if self.clock is not None:
            share = self.clock.last if time == "final" else self.clock.step * self.clock.averages
            rows = (share.T @ np.broadcast_to(rows, (share.shape[0], self.state.size))).reshape(1, -1)
        return self.values.tensor(rows[0] if len(rows) == 1 else rows)

    def integral(self, density: Density, key: str, on: str | None, weight: float) -> IntegralTerm:
        """weight times the integral of a density over a region, and over all times of an evolution."""
        evaluation, region = self.region(f"{key}.on", on)
        stages = None
        if self.clock is not None:
            stages = self._stages()
        rows = self.controls.rows
        placed = [
            part.evaluation.shifted(first, rows.width)
            for part, first in zip(self.controls.parts, rows.column_offsets, strict=False)
            if same_points(part.evaluation.quadrature, evaluation.quadrature)
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
