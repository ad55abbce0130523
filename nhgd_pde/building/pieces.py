"""Checks that conditions determine the state in every piece of a mesh whose pieces share no facet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..fem.state_space import StateSpace
from ..pde.boundary import robin
from ..pde.form import Integral
from .entry import Entry
from .evaluator import point_text
from .families.base import Interior
from .values import Values


@dataclass(frozen=True)
class Pieces:
    """The conditions that determine the state in the pieces of a mesh.

    Parts that meet in a vertex alone (in space also in an edge) are different pieces: in the equation a value at one
    point does not determine the state, although it may do so for finite elements. Values under `pde.points` count,
    because they are given on purpose.

    Attributes:
        values: collects mistakes.
        state: the state space.
        fixed: (N,) which coefficients are given.
        facets: the facets of every condition of the file.
        conditions: integrals over them.
        entries: the controls.
    """

    values: Values
    state: StateSpace
    fixed: np.ndarray
    facets: Mapping[str, np.ndarray]
    conditions: Mapping[str, Integral]
    entries: Sequence[Entry]

    def check(self, interior: Interior) -> None:
        """Complain of a piece in which the state is determined up to a constant only."""
        if not self._numbers.any() or interior.capacity is not None:
            return
        if interior.unseen:
            self._check_motions(np.stack(list(interior.unseen.values())))
            return
        for i in range(self.state.groups[0].components):
            known = self._with_reaction(interior)
            for cells, _ in self._held(i):
                known[np.unique(self._numbers[cells])] = True
            if not known.all():
                name = "u" if self.state.groups[0].components == 1 else f"component {i}"
                self._complain(known, f"no Dirichlet or Robin condition and no reaction: {name} is determined up to a")
                return
        if interior.undetermined is not None:
            outflow = interior.undetermined.outflow
            free = ~self.fixed & (np.abs(outflow) > 1e-10 * np.abs(outflow).max())
            known = np.zeros(self._count, dtype=bool)
            for part, offset in zip(self.state.parts, self.state.offsets[:-1], strict=True):
                known[self._numbers[free[offset + np.asarray(part.basis.element_dofs)].any(axis=0)]] = True
            if not known.all():
                self._complain(known, "velocities given all around: its pressure is determined up to a")

    @property
    def _numbers(self) -> np.ndarray:
        return self.state.domain.pieces

    @property
    def _count(self) -> int:
        return int(self._numbers.max()) + 1

    def _complain(self, known: np.ndarray, what: str) -> None:
        where = self._place(int(np.argmin(known)))
        self.values.complain("pde.boundary", f"{where} has {what} constant there")

    def _place(self, piece: int) -> str:
        mesh = self.state.domain.mesh
        cells = np.flatnonzero(self._numbers == piece)
        place = point_text(mesh.p[:, mesh.t[:, cells[:1]]].mean(axis=1), 0)
        size = f"{len(cells):,} cell{'s' if len(cells) > 1 else ''}"
        return f"the mesh is in {self._count:,} pieces that share no facet, and the one with {size} at {place}"

    def _with_reaction(self, interior: Interior) -> np.ndarray:
        """(pieces,) where the equation itself fixes the level of the state."""
        found = np.full(self._count, interior.absorbing)
        if interior.absorbing and "reaction" in interior.coefficients:
            reaction = interior.coefficients["reaction"].cpu().numpy()
            cells = reaction.reshape(-1, len(self._numbers), reaction.shape[-1] // len(self._numbers)) != 0.0
            found[:] = False
            found[self._numbers[cells.any(axis=(0, 2))]] = True
        return found

    def _held(self, component: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Cells with a facet (or a point) where a component is determined, and indices of the coefficients there."""
        state, mesh = self.state, self.state.domain.mesh
        first, end = state.offsets[component : component + 2]
        rest = self.fixed.copy()
        for name, indices in self.facets.items():
            given, condition = self.values.file.spec.pde.boundary[name].dirichlet, self.conditions.get(name)
            if given is not None and not (isinstance(given, tuple) and given[component] is None):
                dofs = state.facet_dofs(indices, component)
                rest[dofs] = False
                yield _beside(mesh.f2t[:, indices]), dofs
            elif condition is not None and condition.form is robin:
                transfer = condition.coefficients["coefficient"].cpu().numpy()
                acting = indices[
                    (transfer.reshape(-1, len(indices), transfer.shape[-1] // len(indices)) != 0.0).any((0, 2))
                ]
                yield _beside(mesh.f2t[:, acting]), state.facet_dofs(acting, component)
        for entry in self.entries:
            if entry.data is not None and entry.facets is not None:
                dofs = np.flatnonzero(np.diff(entry.data.indptr))
                dofs = dofs[(dofs >= first) & (dofs < end)]
                rest[dofs] = False
                yield _beside(mesh.f2t[:, entry.facets if len(dofs) else entry.facets[:0]]), dofs
        at_points = first + np.flatnonzero(rest[first:end])
        yield np.flatnonzero(np.isin(self._local(component), at_points).any(axis=0)), at_points

    def _local(self, component: int) -> np.ndarray:
        """(functions, cells) the coefficients of a component."""
        return self.state.offsets[component] + np.asarray(self.state.parts[component].basis.element_dofs)

    def _check_motions(self, modes: np.ndarray) -> None:
        """Complain of a piece of a body with rigid motions (modes, N) that nothing holds."""
        size, pairs = modes.shape[1], [np.arange(0)]
        for i in range(self.state.groups[0].components):
            for cells, dofs in self._held(i):
                local = self._local(i)[:, cells]
                here = np.broadcast_to(self._numbers[cells], local.shape)
                pairs.append((here * size + local)[np.isin(local, dofs)])
        piece, dof = np.divmod(np.unique(np.concatenate(pairs)), size)
        products = np.zeros((self._count, len(modes), len(modes)))
        np.add.at(products, piece, np.einsum("ik,jk->kij", modes[:, dof], modes[:, dof]))
        least = np.linalg.eigvalsh(products)
        free = (least <= 1e-12 * np.maximum(np.bincount(piece, minlength=self._count), 1)[:, None]).sum(axis=1)
        if free.any():
            number = int(np.argmax(free > 0))
            motions = f"{free[number]} of its {len(modes)} rigid motions {'is' if free[number] == 1 else 'are'} free"
            self.values.complain(
                "pde.boundary", f"{self._place(number)} is not held by conditions of its own: {motions}"
            )


def _beside(cells: np.ndarray) -> np.ndarray:
    """The cells on both sides of some facets, given with -1 where there is none."""
    return np.unique(cells[cells >= 0])
