"""Plain multi-start, with which every population search is compared: local searches from random designs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .generations import start_design
from .genes import Genes
from .members import Candidate, Searcher
from .options import PopulationOptions


@dataclass(frozen=True, eq=False)
class Starts:
    """The result of multi-start.

    Attributes:
        best: the best end of all starts.
        count: number of starts.
        evaluations: number of evaluations of all of them, at least the number that was asked for.
    """

    best: Candidate
    count: int
    evaluations: int


def multistart(
    genes: Genes,
    search: Searcher,
    options: PopulationOptions,
    first: Tensor,
    evaluations: int,
    interrupted: Callable[[], bool] = lambda: False,
) -> Starts | None:
    """Local searches from the designs of the first generation, then from further random ones, until as many evaluations
    are spent; the last search is not cut short. None where it was interrupted.

    Args:
        search: the local search; it takes as many steps as a member of the population may take altogether.
        first: (p,) the first design, as in `evolve`.
        evaluations: number of evaluations to spend.
    """
    found: list[Candidate] = []
    spent = 0
    while spent < evaluations:
        # As many at a time as there are members; those that the budget does not reach are not counted.
        numbers = range(len(found), len(found) + options.members)
        for each in search([start_design(genes, options, k) if k else first for k in numbers]):
            if spent < evaluations:
                found.append(each)
                spent += each.evaluations
        if interrupted():
            return None
    return Starts(min(found, key=lambda each: each.value), len(found), spent)
