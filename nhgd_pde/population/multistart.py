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
    """The result of multi-start, or its state between two starts.

    Attributes:
        best: the best end of all starts.
        count: number of starts.
        evaluations: number of evaluations of all of them; in the end at least the number that was asked for.
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
    keep: Callable[[Starts], None] = lambda starts: None,
    resumed: Starts | None = None,
    at_once: int = 1,
) -> Starts:
    """Local searches from the designs of the first generation, then from further random ones, until as many evaluations
    are spent; the last search is not cut short. Each takes as many steps as a member may take in all generations.

    Args:
        search: the local search.
        first: (p,) the first design, as in `evolve`.
        evaluations: number of evaluations to spend.
        keep: called with the state after every start, or after every few of them that are searched at once.
        resumed: such a state to go on from.
        at_once: number of starts that are searched at once; the result does not depend on it.

    Raises:
        SearchInterruptedError: the local search was asked to stop.
    """
    starts = resumed
    while starts is None or starts.evaluations < evaluations:
        begun = 0 if starts is None else starts.count
        designs = [start_design(genes, options, k) if k else first for k in range(begun, begun + at_once)]
        for each in search(designs, options.all_steps):
            # Those that the number of evaluations does not reach are not counted.
            if starts is None:
                starts = Starts(each, 1, each.evaluations)
            elif starts.evaluations < evaluations:
                best = each if each.value < starts.best.value else starts.best
                starts = Starts(best, starts.count + 1, starts.evaluations + each.evaluations)
        assert starts is not None
        keep(starts)
    return starts
