"""The block preconditioner of flows with convection: Navier-Stokes equations, linearised by Picard or by Newton."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from .base import Hints, Velocity
from .convection_cycle import ConvectionCycle
from .gmres import Cycle, MassSteps, cycled


class FlowBlocks:
    """[F B'; B 0]^-1 by blocks, with F = K + N the sum of the viscous terms and all others.

    With exact blocks the preconditioner [F B'; 0 -S]^-1, S = B F^-1 B', needs two steps. The inverse of S is a sum,

        S^-1 ~ M^-1 + L^-1 (B Q^-1 N Q^-1 B') L^-1,   L = B Q^-1 B',

    with M the mass matrix of pressures over the viscosity, and Q the diagonal of the mass matrix of velocities. The
    first term is that of a Stokes flow. The second one is the least-squares commutator (Elman, Howle, Shadid,
    Shuttleworth and Tuminaro 2006, SIAM J. Sci. Comput. 27) for N alone; for the step of an evolution, in which N
    contains the mass over the length of the step, the sum is that of Cahouet and Chabard (1988). For the whole F the
    commutator is wrong beside walls, where the viscous terms do not vanish, and the number of steps grows on finer
    meshes: with exact solves inside, from 54 to 86 between 16^2 and 32^2 cells of a cavity at a Reynolds number of 100,
    where the sum takes 54 and 55.

    F is approximated by a symmetric Gauss-Seidel sweep over the components of the velocity, each with a cycle.

    Args:
        matrix: the whole matrix.
        hints: what is known of it.
        velocity: what is known of F.
        mass: M.
        poisson: makes a symmetric cycle for L.
    """

    def __init__(
        self,
        matrix: sp.csr_matrix,
        hints: Hints,
        velocity: Velocity,
        mass: sp.csr_matrix,
        poisson: Callable[[sp.csr_matrix], Cycle],
    ) -> None:
        starts = velocity.starts
        self._first = first = int(starts[-1])
        self._parts = [slice(int(start), int(end)) for start, end in pairwise(starts)]
        # Sweep there and back, the last component once.
        self._order = [*range(len(self._parts)), *reversed(range(len(self._parts) - 1))]
        top = matrix[:first].tocsr()
        whole, self._upper = top[:, :first].tocsr(), top[:, first:].tocsr()
        self._lower = self._upper.T.tocsr()
        self._rows = {False: [whole[part] for part in self._parts]}
        self._viscous = velocity.viscous()
        blocks = [sp.csr_matrix(whole[part, part]) for part in self._parts]
        self._scale = 1.0 / velocity.mass()
        self._cycles = [
            ConvectionCycle(block, hints, part.start) for block, part in zip(blocks, self._parts, strict=True)
        ]
        self._mass = MassSteps(mass)
        self._poisson = poisson(sp.csr_matrix(self._lower @ sp.diags_array(self._scale) @ self._upper))

    @property
    def bytes(self) -> int:
        held = [self._upper, self._lower, self._viscous, *(row for rows in self._rows.values() for row in rows)]
        own = 12 * sum(each.nnz for each in held) + self._mass.bytes
        return own + self._poisson.bytes + sum(cycle.bytes for cycle in self._cycles)

    def apply(self, r: np.ndarray, transposed: bool) -> np.ndarray:
        pressure = -self._schur_inverse(r[self._first :], transposed)
        velocity = self._velocity(r[: self._first] - self._upper @ pressure, transposed)
        return np.concatenate([velocity, pressure])

    def _schur_inverse(self, r: np.ndarray, transposed: bool) -> np.ndarray:
        y = self._scale * (self._upper @ self._pressures(r))
        moved = np.concatenate([row @ y for row in self._oriented(transposed)]) - self._viscous @ y
        return self._mass.inverse(r) + self._pressures(self._lower @ (self._scale * moved))

    def _pressures(self, r: np.ndarray) -> np.ndarray:
        """L^-1 r by two cycles, with which the number of steps is that of an exact L^-1."""
        x = cycled(self._poisson, r)
        return x + cycled(self._poisson, r - self._lower @ (self._scale * (self._upper @ x)))

    def _velocity(self, r: np.ndarray, transposed: bool) -> np.ndarray:
        rows, x = self._oriented(transposed), np.zeros_like(r)
        for k in self._order:
            part = self._parts[k]
            x[part] += self._cycles[k].apply(r[part] - rows[k] @ x, transposed)
        return x

    def _oriented(self, transposed: bool) -> list[sp.csr_matrix]:
        """F, or its transpose, in rows of one component each."""
        if transposed not in self._rows:
            whole = sp.vstack(self._rows[False]).T.tocsr()
            self._rows[True] = [whole[part] for part in self._parts]
        return self._rows[transposed]
