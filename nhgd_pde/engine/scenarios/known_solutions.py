"""States and adjoints of the scenarios seen so far, from which the next solves start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class KnownSolutions:
    """States and adjoints of the scenarios seen so far: all that is stored of each.

    Attributes:
        u, p: (b, n), b those of this rank.
        at: u and p (1, n) of the nominal scenario when these were solved for; None before.
        moved: (1, n), to be added to every row of u and p, which copies of all rows would take as much memory for.
        gains: (2, b) for states and adjoints, how much larger solutions of a scenario are than those with the shared
            inverse, as far as earlier solves have shown; None before.
    """

    u: Tensor
    p: Tensor
    at: tuple[Tensor, Tensor] | None = None
    moved: tuple[Tensor, Tensor] | None = None
    gains: Tensor | None = None

    def following(self, u: Tensor, p: Tensor) -> KnownSolutions:
        """Moved on by what u and p (1, n) of the nominal scenario have moved.

        The start that is left is off by the step times what the scenario differs from the nominal one, with no solve.
        """
        if self.at is None:
            return replace(self, at=(u, p), moved=None)
        return replace(self, at=(u, p), moved=(u - self.at[0], p - self.at[1]))

    def gain(self, kind: int, indices: Tensor) -> Tensor:
        """(k,) of states (0) or adjoints (1) for rows by their places: 1 where a scenario has not been seen."""
        found = self.u.new_ones(len(indices))
        if self.gains is not None:
            known = indices < self.gains.shape[1]
            found[known] = self.gains[kind, indices[known]]
        return found

    def starts(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(k, n) for rows by their places: the nominal ones where a scenario has not been seen."""
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
        """(b, n) of states and adjoints from the nominal ones."""
        assert self.at is not None
        shifts = self.at if self.moved is None else tuple(a - m for a, m in zip(self.at, self.moved, strict=True))
        return self.u - shifts[0], self.p - shifts[1]

    def guided(
        self, before: KnownSolutions, after: KnownSolutions, count: int, transfer: Callable[[Tensor], Tensor]
    ) -> KnownSolutions:
        """With `count` scenarios, moved on by what they have moved from the nominal one with fewer unknowns.

        Args:
            before, after: with fewer unknowns, where these scenarios have been solved for.
            count: of them.
            transfer: from differences with fewer unknowns to differences.
        """
        assert self.at is not None
        found = []
        known = zip(self.deviations, self.at, before.deviations, after.deviations, strict=True)
        for own, nominal, old, new in known:
            seen = min(len(own), len(old))
            moved = nominal + own
            moved[:seen] += transfer(new[:seen] - old[:seen])
            found.append(torch.cat([moved, nominal + transfer(new[len(own) : count])]))
        return KnownSolutions(found[0], found[1], self.at, gains=self.gains)

    def first(self, count: int) -> KnownSolutions:
        return replace(
            self, u=self.u[:count], p=self.p[:count], gains=None if self.gains is None else self.gains[:, :count]
        )

    def blend(self, other: KnownSolutions, share: float) -> KnownSolutions:
        """Scenarios that only the other one has seen move with the nominal scenario."""
        if self.at is None or other.at is None:
            return other
        at = torch.lerp(self.at[0], other.at[0], share), torch.lerp(self.at[1], other.at[1], share)
        count, rows = min(len(self.u), len(other.u)), []
        for own, theirs, new, old in zip((self.u, self.p), (other.u, other.p), at, other.at, strict=True):
            moved = theirs[count:] + (new - old)
            rows.append(torch.cat([torch.lerp(own[:count], theirs[:count], share), moved]))
        return KnownSolutions(rows[0], rows[1], at, gains=other.gains)
