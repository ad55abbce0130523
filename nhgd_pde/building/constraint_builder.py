"""From the `constraints` section to the constraints: an inequality for the outer method, and bounds of the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from ..control.controls import Controls
from ..engine.bilevel import Constraint
from ..objective.constraints import ConstraintReport
from ..objective.state_bounds import StateBounds
from .clock import Clock
from .constraint_kinds.base import Condition
from .entry import Entry
from .objective_builder import ObjectiveBuilder
from .values import Values


class Inequality(Constraint, ConstraintReport, Protocol):
    """An inequality of the controls that reports how well it is satisfied."""


@dataclass
class ConstraintBuilder:
    """Makes the constraints of a file one after the other.

    Attributes:
        values: evaluates expressions and collects mistakes.
        entries: the controls.
        controls: the same controls side by side.
        terms: has the state space and the regions of integrals.
        clock: the times of an evolution; None of a steady problem.
        inequality: coefficients of a stage -> the inequality in that stage; None without one.
        states: the bounds of the state.
    """

    values: Values
    entries: Sequence[Entry]
    controls: Controls
    terms: ObjectiveBuilder
    clock: Clock | None
    inequality: Callable[[dict[str, Tensor]], Inequality] | None = None
    states: list[StateBounds] = field(default_factory=list)

    def build(self) -> None:
        for k, spec in enumerate(self.values.file.spec.constraints):
            assert isinstance(spec, Condition)
            spec.build(f"constraints.{k}", self)

    def inequality_in(self, coefficients: dict[str, Tensor]) -> Inequality | None:
        """The inequality in a stage, which may have coefficients of its own."""
        return None if self.inequality is None else self.inequality(coefficients)
