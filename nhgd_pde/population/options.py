"""The options of a population search, and its state between two generations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .members import Candidate


@dataclass(frozen=True)
class PopulationOptions:
    """How a population searches.

    Attributes:
        members: K, number of members.
        generations: number of generations after the first one.
        replaced: share of the members that a generation replaces by mutations.
        reach: standard deviation of a mutation in ranges of the variable, before the teacher has learnt.
        rate: length of the teacher's steps; 0 leaves the mutations as they are at the beginning.
        steps: most steps of the outer method in the local search of a member in one generation.
        seed: of all random numbers.
    """

    summary: ClassVar[str] = "population search for several local optima, with nhgd from its best design"

    members: int = 8
    generations: int = 20
    replaced: float = 0.5
    reach: float = 0.8
    rate: float = 0.1
    steps: int = 30
    seed: int = 0

    @property
    def children(self) -> int:
        """Number of members that a generation replaces: at least one, and never the best one."""
        return min(max(round(self.replaced * self.members), 1), self.members - 1)

    @property
    def all_steps(self) -> int:
        """Most steps of a member in all generations together, the first one included."""
        return self.steps * (self.generations + 1)

    def generator(self, *place: int) -> torch.Generator:
        """The random numbers of one place (purpose, generation, member), whichever process draws them."""
        seed = self.seed
        for number in place:
            seed = (seed * 1_000_003 + number + 1) % 2**61
        return torch.Generator().manual_seed(seed)


@dataclass(frozen=True, eq=False)
class Population:
    """The state of a search between two generations: with the problem and the options, all that it needs to go on.

    Attributes:
        generation: number of generations so far; 0 after the random starts have been searched.
        members: all K of them.
        best: the best member that there has been.
        teacher: the parameters of the teacher.
        evaluations: number of evaluations so far.
    """

    generation: int
    members: tuple[Candidate, ...]
    best: Candidate
    teacher: Tensor
    evaluations: int
