"""Counts of the work a run has done: the machine-independent side of every timing."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass
class Counts:
    """Work done so far. Each problem has one such object, and whatever does work adds to it.

    `solves` counts right-hand sides put through a factorisation of the state's size (of J, of its transpose or of K),
    `factorisations` these factorisations, `residuals` evaluations of R, one per scenario, `products` applications of J
    or its transpose to one vector, `riesz_solves` solves with the Riesz map of the control space, and `coarse_solves`
    the solves on a coarser mesh. `notes` are sentences on work that was done in another way than asked for, such as by
    another solver; they are not counts, and are not exchanged between processes.
    """

    solves: int = 0
    factorisations: int = 0
    residuals: int = 0
    products: int = 0
    riesz_solves: int = 0
    coarse_solves: int = 0
    notes: list[str] = field(default_factory=list)

    def __sub__(self, earlier: Counts) -> Counts:
        """The work done since an earlier copy."""
        return Counts(**{name: value - getattr(earlier, name) for name, value in self.as_dict().items()})

    def add(self, more: Counts) -> None:
        """Adds work that was done elsewhere, such as in another process."""
        for name, value in more.as_dict().items():
            setattr(self, name, getattr(self, name) + value)

    def note(self, sentence: str) -> None:
        """Keep a sentence, once; an empty one is none."""
        if sentence and sentence not in self.notes:
            self.notes.append(sentence)

    def as_dict(self) -> dict[str, int]:
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "notes"}
