"""States and adjoints of the scenarios seen so far, from which the next solves start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class KnownSolutions:
    """States and adjoints of the scenarios seen so far; nothing else is stored of a scenario.

    Attributes:
        u, p: (b, n) states and adjoints of the b scenarios of this rank.
        at: u and p (1, n) of the nominal scenario at the point where these were solved for; None before.
        moved: (1, n) shifts to be added to every row of u and p; kept apart to avoid copies of all rows.
        gains: (2, b) lower bounds of the factors by which states and adjoints of a scenario are larger than solutions
            with the shared inverse, from earlier solves; None before.
    """

    u: Tensor
    p: Tensor
    at: tuple[Tensor, Tensor] | None = None
    moved: tuple[Tensor, Tensor] | None = None
    gains: Tensor | None = None

    def following(self, u: Tensor, p: Tensor) -> KnownSolutions:
        """Shifts states and adjoints by the change of u and p (1, n) of the nominal scenario.

        Without a solve, the error of the new starts is the step times the difference of a scenario from the nominal
        one.
        """
        if self.at is None:
            return replace(self, at=(u, p), moved=None)
        return replace(self, at=(u, p), moved=(u - self.at[0], p - self.at[1]))

    def gain(self, kind: int, indices: Tensor) -> Tensor:
        """(k,) gains of states (kind 0) or adjoints (1) for the rows at given places; 1 for scenarios not seen
        before."""
        found = self.u.new_ones(len(indices))
        if self.gains is not None:
            known = indices < self.gains.shape[1]
            found[known] = self.gains[kind, indices[known]]
        return found

    def starts(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(k, n) starts of the rows at given places: the nominal solutions for scenarios not seen before."""
        assert self.at is not None
        known = indices < len(self.u)
        found = []
        for k, rows in enumerate((self.u, self.p)):
            start = self.at[k].expand(len(indices), -1).clone()
            start[known] = rows[indices[known]] + (self.moved[k] if self.moved is not None else 0.0)
            found.append(start)
        return found[0], found[1]

    @property
    def deviations(self) -> tuple[Tensor, Tensor]:
        """(b, n) differences of states and adjoints from the nominal ones."""
        assert self.at is not None
        shifts = self.at if self.moved is None else tuple(a - m for a, m in zip(self.at, self.moved, strict=True))
        return self.u - shifts[0], self.p - shifts[1]

    def guided(
        self, before: KnownSolutions, after: KnownSolutions, count: int, transfer: Callable[[Tensor], Tensor]
    ) -> KnownSolutions:
        """Extrapolates states and adjoints of `count` scenarios by their change on the coarse mesh.

        There they were solved for between `before` and `after`; the transfer prolongs differences to this mesh.
        """
        assert self.at is not None
        found = []
        for own, nominal, old, new in zip(self.deviations, self.at, before.deviations, after.deviations, strict=True):
            seen = min(len(own), len(old))
            moved = nominal + own
            moved[:seen] += transfer(new[:seen] - old[:seen])
            found.append(torch.cat([moved, nominal + transfer(new[len(own) : count])]))
        return KnownSolutions(found[0], found[1], self.at, gains=self.gains)

    def of(self, rows: Tensor) -> KnownSolutions:
        """The solutions of the scenarios with some numbers."""
        gains = None if self.gains is None else self.gains[:, rows]
        return replace(self, u=self.u[rows], p=self.p[rows], gains=gains)

    def blend(self, other: KnownSolutions, share: float) -> KnownSolutions:
        """Scenarios that only the other state has seen move with the nominal scenario."""
        if self.at is None or other.at is None:
            return other
        at = torch.lerp(self.at[0], other.at[0], share), torch.lerp(self.at[1], other.at[1], share)
        count, rows = min(len(self.u), len(other.u)), []
        for own, theirs, new, old in zip((self.u, self.p), (other.u, other.p), at, other.at, strict=True):
            moved = theirs[count:] + (new - old)
            rows.append(torch.cat([torch.lerp(own[:count], theirs[:count], share), moved]))
        return KnownSolutions(rows[0], rows[1], at, gains=other.gains)
