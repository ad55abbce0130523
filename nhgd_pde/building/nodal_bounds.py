"""From a section of kind `state` to bounds of the state at nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..fem.evaluation_operator import EvaluationOperator
from ..objective.state_bounds import Between, StateBounds
from ..problem_file.expressions import COORDINATES, Expression
from .constraint_builder import ConstraintBuilder
from .constraint_kinds.state import StateSpec
from .evaluator import point_text
from .values import Values


@dataclass(frozen=True)
class NodalBounds:
    """Makes bounds of the state at nodes for the builder of the constraints."""

    builder: ConstraintBuilder

    @property
    def values(self) -> Values:
        return self.builder.values

    def of(self, key: str, spec: StateSpec) -> StateBounds:
        component, count = spec.component, self.builder.terms.state.groups[0].components
        if component >= count:
            self.values.complain(f"{key}.component", f"expected a component below {count}, found {component}")
            component = 0
        state, clock = self.builder.terms.state, self.builder.clock
        evaluation, region = self.builder.terms.region(f"{key}.on", spec.on)
        nodes, shares = self._nodes(spec.on, evaluation, region, component)
        x = state.parts[component].nodes[:, nodes]
        # Initial values are bounded only where a control changes them.
        first = 0 if clock is None or any(entry.initial for entry in self.builder.entries) else 1
        times = None if clock is None else clock.levels[first:]
        copies = 1 if times is None else len(times)
        given = {f"{key}.lower": spec.lower, f"{key}.upper": spec.upper}
        lower, upper = self.values.limits(given, x, times, copies)
        crossed = np.flatnonzero((lower > upper).any(axis=0))
        if len(crossed):
            level, k = int(np.flatnonzero(lower[:, crossed[0]] > upper[:, crossed[0]])[0]), int(crossed[0])
            found = f"found lower {lower[level, k]:g} above upper {upper[level, k]:g} at {point_text(x, k)}"
            self.values.complain(f"{key}.lower", f"expected lower <= upper everywhere, {found}")
        offset = state.offsets[component] + nodes
        places = np.tile(x.T, (copies, 1))
        if times is not None:
            places = np.column_stack([places, times.repeat(len(nodes))])
        tensor = self.values.tensor
        return StateBounds(
            indices=torch.from_numpy((state.size * np.arange(first, first + copies)[:, None] + offset).reshape(-1)),
            lower=tensor(lower.reshape(-1)),
            upper=tensor(upper.reshape(-1)),
            weights=tensor(np.tile(shares * (1.0 if clock is None else clock.step), copies)),
            given=torch.zeros(copies * len(nodes), dtype=torch.bool),
            places=tensor(places),
            names=(*COORDINATES[: len(x)], *(("t",) if clock is not None else ())),
            tolerance=spec.tolerance,
            between=self._between(given, evaluation, region, component, times),
            penalty=None if spec.penalty == "auto" else float(spec.penalty),
            stages=spec.stages,
            key=key,
        )

    def _nodes(
        self, on: str | None, evaluation: EvaluationOperator, region: np.ndarray, component: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nodes of a region in the space of a field, and the share of its measure that falls to each.

        The shares are those of the integrals of the absolute values of the nodal functions: the integrals themselves
        are zero at the vertices of quadratic triangles.
        """
        state = self.builder.terms.state
        part, first = state.parts[component], int(state.offsets[component])
        if evaluation is not state.cells:
            assert on is not None
            nodes = part.facet_dofs(self.builder.terms.facets[on])
        elif on is None:
            nodes = np.arange(part.size)
        else:
            nodes = part.cell_dofs(np.flatnonzero(region.any(axis=1)))
        absolute = replace(evaluation, tables=tuple(table.abs() for table in evaluation.tables))
        density = np.zeros((evaluation.components, 1, region.size))
        density[evaluation.stride * component] = region.reshape(-1)
        shares = absolute.test(self.values.tensor(density)).cpu().numpy()[0, first + nodes]
        measure = float((evaluation.quadrature.weights.cpu().numpy() * region).sum())
        return nodes, measure * shares / shares.sum()

    def _between(
        self,
        given: Mapping[str, Expression | None],
        evaluation: EvaluationOperator,
        region: np.ndarray,
        component: int,
        times: np.ndarray | None,
    ) -> Between:
        copies = 1 if times is None else len(times)
        lower, upper = self.values.limits(given, evaluation.quadrature.flat, times, copies)
        inside = region.reshape(-1) > 0.0
        return Between(
            evaluation,
            evaluation.stride * component,
            self.values.tensor(np.where(inside, lower, -np.inf)),
            self.values.tensor(np.where(inside, upper, np.inf)),
            0 if self.builder.clock is None else self.builder.clock.steps + 1 - copies,
        )
