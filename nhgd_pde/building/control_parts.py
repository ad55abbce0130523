"""The parts of the controls that terms of the objective are about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from ..control.controls import Controls, ControlSpace
from ..problem_file.expressions import Expression
from .clock import Clock
from .values import Values


@dataclass(frozen=True)
class ControlParts:
    """
    Attributes:
        values: evaluates expressions and collects mistakes.
        controls: the discrete controls.
        clock: the times of an evolution; None of a steady problem.
    """

    values: Values
    controls: Controls
    clock: Clock | None

    def parts(self, key: str, name: str | None) -> list[tuple[int, ControlSpace]]:
        """The controls that a term is about, each with its first entry in v."""
        found = [
            (first, part)
            for first, part in zip(self.controls.rows.offsets, self.controls.parts, strict=False)
            if name is None or part.name == name
        ]
        if not found:
            known = ", ".join(part.name for part in self.controls.parts)
            self.values.complain(f"{key}.control", f"expected the name of a control ({known}), found {name!r}")
        return found

    def spread(self, first: int, part: ControlSpace, one: sp.csr_matrix) -> sp.csr_matrix:
        """A matrix for one time step of a control, as a matrix (p, p) for all controls and times."""
        whole = one if part.rule is None else sp.kron(sp.diags_array(part.rule.weights), one)
        before, after = first, self.controls.size - first - part.size
        return sp.block_diag([sp.csr_matrix((before, before)), whole, sp.csr_matrix((after, after))], format="csr")

    def times(self, key: str, value: Expression | tuple[Expression, ...], part: ControlSpace) -> np.ndarray | None:
        """The times at which an expression for a control is taken; complain of t for a control that does not vary."""
        if self.clock is None:
            return None
        if part.rule is None:
            self.values.constant_in_time(key, value)
            return np.zeros(1)
        return part.rule.times
