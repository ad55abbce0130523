"""What functions of the state space leave of a target, integrated with a rule of its own.

With a function t_h of the space near a target t, such as its interpolant, r = t - t_h and e = u - t_h,

    1/2 int (u - t)^2 = 1/2 int e^2 - int e r + 1/2 int r^2.

No term is much larger than the sum where t_h is about as near to t as any function of the space is, so that no digits
are lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import cg

from ..fem.element_matrices import ranges
from ..fem.evaluation_operator import EvaluationOperator
from ..problem_file.equation_parts import Vector
from ..problem_file.expressions import Expression

if TYPE_CHECKING:
    from .objective_builder import ObjectiveBuilder

# Numbers at the points of the rule that are worked on at the same time, for all rows of a group.
_AT_ONCE = 1 << 21
# Rounding errors of a target and its interpolant, relative to the target.
_ROUNDING = 64.0 * np.finfo(np.float64).eps
# Where a function of the space leaves less than this share of int r^2, it takes the place of t_h.
_SHARE = 1e-3


@dataclass(frozen=True, eq=False)
class TargetRemainder:
    """The integrals of r = t - t_h over a region; rows are times, or one.

    Attributes:
        nearby: (rows, size of the state space) t_h.
        tested: (rows, size of the state space) int r phi for every function phi.
        square: (rows,) int r^2.
        size: (rows,) int t^2.
    """

    nearby: np.ndarray
    tested: np.ndarray
    square: np.ndarray
    size: np.ndarray

    def best_change(self, mass: sp.csr_matrix) -> np.ndarray:
        """The change of t_h that makes int r^2 least, (rows, size), up to a few digits.

        Args:
            mass: the mass matrix of the region; rows of functions that vanish there are zero.
        """
        inside = np.flatnonzero(mass.diagonal() > 0.0)
        own = mass[inside][:, inside]
        scaled = sp.diags_array(1.0 / own.diagonal())
        change = np.zeros_like(self.tested)
        for row, tested in zip(change, self.tested, strict=True):
            row[inside] = cg(own, tested[inside], rtol=1e-9, maxiter=100, M=scaled)[0]
        return change


@dataclass(frozen=True, eq=False)
class TargetIntegrals:
    """Integrates what functions of the space leave of a target.

    The rule is exact for polynomials of degree 2 q + 2 on straight cells, with the degree q of the elements: the least
    with which the leading term of the error of interpolation is squared without an error.

    Attributes:
        builder: evaluates the target and collects mistakes.
        key: the key of the target in the file.
        target: the target, of a vector or a complex field one for each of its fields.
        values: the functions of one field at the points of the rule.
        region: (elements,) a mask of the region.
        chosen: the fields that the target is for, which all have the same space.
        times: the times of the rows, of a target that has several.
    """

    builder: ObjectiveBuilder
    key: str
    target: Expression | Vector
    values: EvaluationOperator
    region: np.ndarray
    chosen: range
    times: np.ndarray | None

    def remainder(self, interpolant: np.ndarray, mass: sp.csr_matrix) -> TargetRemainder | None:
        """The integrals with t_h near the interpolant (rows, size); None where nothing is left, or after a complaint.

        The interpolant is far from the target where this jumps between a region and its neighbours. Then t_h is the
        nearest function of the space.
        """
        each = self.target if isinstance(self.target, tuple) else (self.target,)
        if all(one.constant is not None for one in each):
            return None
        found = self._left_by(interpolant)
        if found is None or (found.square <= _ROUNDING**2 * found.size).all():
            return None
        change = found.best_change(mass)
        left = found.square - (change * found.tested).sum(axis=1)
        return self._left_by(interpolant + change) if (left < _SHARE * found.square).any() else found

    def _left_by(self, nearby: np.ndarray) -> TargetRemainder | None:
        """The integrals with t_h (rows, size); None after a complaint."""
        count, points = len(nearby), self.values.quadrature.weights.shape[1]
        found = TargetRemainder(nearby, np.zeros_like(nearby), np.zeros(count), np.zeros(count))
        rows = max(_AT_ONCE // max(self.values.quadrature.points, 1), 1)
        for low in range(0, count, rows):
            own = slice(low, min(low + rows, count))
            for first, end in ranges(len(self.values.dofs), (own.stop - low) * points):
                if self.region[first:end].any() and not self._add(found, own, first, end):
                    return None
        return found

    def _add(self, found: TargetRemainder, own: slice, first: int, end: int) -> bool:
        """Add the integrals over some elements at some times; whether nothing was complained of."""
        tensor, offsets = self.builder.values.tensor, self.builder.state.offsets
        piece = self.values.piece(first, end)
        inside = tensor(np.repeat(self.region[first:end], self.values.quadrature.weights.shape[1]))
        times = self.times if self.times is None or len(found.square) == 1 else self.times[own]
        wanted = self.builder.values.components(self.key, self.target, len(self.chosen), piece.quadrature.flat, times)
        if self.builder.values.issues:
            return False
        for k, exact in zip(self.chosen, wanted, strict=True):
            columns = slice(offsets[k], offsets[k + 1])
            given = tensor(exact) * inside
            left = given - piece.evaluate(tensor(found.nearby[own, columns]))[0] * inside
            weights = piece.quadrature.weights.reshape(-1)
            found.tested[own, columns] += piece.test(left[None]).cpu().numpy()
            found.square[own] += (left * left * weights).sum(-1).cpu().numpy()
            found.size[own] += (given * given * weights).sum(-1).cpu().numpy()
        return True
