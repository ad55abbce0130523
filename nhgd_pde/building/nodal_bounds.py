"""From a section of kind `state` to bounds of the state at nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from ..objective.state_bounds import Between, StateBounds
from ..problem_file.expressions import COORDINATES
from .clock import Clock
from .constraint_kinds.state import StateSpec
from .entry import Entry
from .evaluator import point_text
from .objective_builder import ObjectiveBuilder
from .values import Values


@dataclass(frozen=True)
class NodalBounds:
    """
    Attributes:
        values: evaluates expressions and collects mistakes.
        entries: the controls.
        terms: has the state space and the regions of integrals.
        clock: the times of an evolution; None of a steady problem.
    """

    values: Values
    entries: Sequence[Entry]
    terms: ObjectiveBuilder
    clock: Clock | None

    def of(self, key: str, spec: StateSpec) -> StateBounds:
        component, count = spec.component, self.terms.state.groups[0].components
        if component >= count:
            self.values.complain(f"{key}.component", f"expected a component below {count}, found {component}")
            component = 0
        state, clock = self.terms.state, self.clock
        evaluation, region = self.terms.region(f"{key}.on", spec.on)
        nodes, shares = self._nodes(spec.on, evaluation, region, component)
        x = state.parts[component].nodes[:, nodes]
        # Initial values are bounded only where a control changes them.
        first = 0 if clock is None or any(entry.initial for entry in self.entries) else 1
        times = None if clock is None else clock.levels[first:]
        copies = 1 if times is None else len(times)
        lower, upper = self._sides(key, spec, x, times, copies)
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
            between=self._between(key, spec, evaluation, region, component, times),
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
        state = self.terms.state
        part, first = state.parts[component], int(state.offsets[component])
        if evaluation is not state.cells:
            assert on is not None
            nodes = part.facet_dofs(self.terms.facets[on])
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

    def _sides(
        self, key: str, spec: StateSpec, x: Tensor | np.ndarray, times: np.ndarray | None, copies: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound (copies, points), infinite where there is none."""
        shape = copies, x.shape[1]
        lower, upper = (
            np.full(shape, none)
            if given is None
            else np.broadcast_to(self.values.formula(f"{key}.{side}", given, x, times), shape)
            for side, given, none in (("lower", spec.lower, -np.inf), ("upper", spec.upper, np.inf))
        )
        return lower, upper

    def _between(
        self,
        key: str,
        spec: StateSpec,
        evaluation: EvaluationOperator,
        region: np.ndarray,
        component: int,
        times: np.ndarray | None,
    ) -> Between:
        copies = 1 if times is None else len(times)
        lower, upper = self._sides(key, spec, evaluation.quadrature.flat, times, copies)
        inside = region.reshape(-1) > 0.0
        return Between(
            evaluation,
            evaluation.stride * component,
            self.values.tensor(np.where(inside, lower, -np.inf)),
            self.values.tensor(np.where(inside, upper, np.inf)),
            0 if self.clock is None else self.clock.steps + 1 - copies,
        )
