"""A population search before the outer loop, and multi-start beside it: where the run starts, and how it was found.

The state of both is kept in the run folder after every generation and after every start of multi-start. A run that is
resumed goes on from it with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..choice.population_method import PopulationMethod, local_search, started_at
from ..engine.plain import from_plain, to_plain
from ..linalg.counts import Counts
from ..linalg.threads import at_most_threads
from ..output.names import POPULATION
from ..output.sealed import DamagedError
from ..output.storage import OutputError
from ..pde_problem import PDEProblem
from ..population.generations import evolve
from ..population.members import Candidate, Searcher, SearchInterruptedError
from ..population.multistart import Starts, multistart
from ..population.options import Population
from ..population.pool import processes
from ..population.teacher import untrained
from .checkpoint import origin_of, read_own
from .member_process import member_search
from .signals import stops_held_back
from .stopwatch import Stopwatch

if TYPE_CHECKING:
    from ..problem import Problem


@dataclass(frozen=True, eq=False)
class SearchState:
    """The state of a search.

    Attributes:
        population: after the last generation that has ended; None before the first one.
        starts: multi-start so far; None before its first start.
    """

    population: Population | None = None
    starts: Starts | None = None

    def ended(self, method: PopulationMethod) -> bool:
        """Whether both have come to their end."""
        population, starts = self.population, self.starts
        if population is None or starts is None or population.generation < method.options.generations:
            return False
        return starts.evaluations >= population.evaluations

    @property
    def best(self) -> Candidate | None:
        """The better one of the best designs of both; None before there is any."""
        found = [each.best for each in (self.population, self.starts) if each is not None]
        return min(found, key=lambda each: each.value, default=None)


class PopulationStart:
    """Finds the start of a run, and tells what was found.

    Args:
        watch: of the run.
        interrupted: asked before every evaluation; true ends the search.
        note: called with a sentence on every generation.
    """

    def __init__(
        self,
        problem: Problem,
        watch: Stopwatch,
        interrupted: Callable[[], bool],
        note: Callable[[str], None],
    ) -> None:
        assert problem.population is not None
        self._problem, self._method, self._watch = problem, problem.population, watch
        self._interrupted, self._note = interrupted, note
        self.state, self._seconds, self._kept = SearchState(), 0.0, False

    @property
    def ended(self) -> bool:
        """Whether the search has come to its end."""
        return self.state.ended(self._method)

    def read(self, folder: Path) -> tuple[float, Counts]:
        """Takes the state of the search from a run folder; returns the seconds and the work that it had taken.

        Raises:
            OutputError: there is none, it is damaged, or it is of another problem; what differs is named.
        """
        path = folder / POPULATION
        if not path.is_file():
            raise OutputError(f"{path}: expected the state of a search to resume, found none")
        content = read_own(path, origin_of(self._problem))
        try:
            self.state = SearchState(*(from_plain(content[name]) for name in ("population", "starts")))
            self._check()
            self._seconds, counts = float(content["seconds"]), Counts(**content["counts"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            message = f"{path}: the state of the search is malformed, or of another version of the package ({error})"
            raise DamagedError(f"{message}; solve without --resume starts anew") from error
        return self._seconds, counts

    def _check(self) -> None:
        """Raises ValueError where the state does not belong to this problem and these options."""
        genes, options, population, starts = self._method.genes, self._method.options, *self._parts()
        members = () if population is None else (*population.members, population.best)
        if population is not None:
            teacher = untrained(options.reach, torch.Generator())
            if population.teacher.shape != teacher.shape or len(population.members) != options.members:
                raise ValueError("the population or its teacher has another size")
        for each in (*members, *(() if starts is None else (starts.best,))):
            for tensor in (each.v, each.derivative, each.start_derivative):
                if tuple(tensor.shape) != (genes.weights.shape[1],) or not bool(torch.isfinite(tensor).all()):
                    raise ValueError("expected finite designs and derivatives as long as the control")

    def _parts(self) -> tuple[Population | None, Starts | None]:
        return self.state.population, self.state.starts

    def search(self, write: Callable[[Mapping[str, Any]], None], kept: bool) -> None:
        """Searches until the end, or until it is interrupted.

        Args:
            write: keeps the content of the state, from which `read` goes on.
            kept: there is a run folder in which the content is kept.
        """
        self._kept = kept
        began = self._watch.seconds - self._seconds

        def keep(state: SearchState) -> None:
            self.state, self._seconds = state, self._watch.seconds - began
            with self._watch.stopped():
                write(self._content())

        keep(self.state)
        with suppress(SearchInterruptedError, KeyboardInterrupt), at_most_threads(1), self._searcher() as search:
            self._both(search, keep)
        self._note(self.sentence)

    def _both(self, search: Searcher, keep: Callable[[SearchState], None]) -> None:
        genes, options, first = self._method.genes, self._method.options, self._first

        def after_generation(population: Population) -> None:
            keep(SearchState(population))
            self._note(
                f"generation {population.generation} of {options.generations}: objective {population.best.value:.6e} "
                f"after {population.evaluations:,} evaluations"
            )

        population = evolve(genes, search, options, first, after_generation, self.state.population)
        multistart(
            genes,
            search,
            options,
            first,
            population.evaluations,
            lambda starts: keep(SearchState(population, starts)),
            self.state.starts,
            self._method.processes,
        )

    @property
    def _first(self) -> Tensor:
        """(p,) the starting values of the file, between the bounds."""
        pde = self._problem.pde
        assert pde.bounds is not None
        return pde.start()[1].clamp(*pde.bounds).cpu()

    def _searcher(self) -> AbstractContextManager[Searcher]:
        problem, count = self._problem, self._method.processes
        if count == 1:
            return nullcontext(local_search(problem.pde, problem.method, self._method.rtol, self._interrupted))
        path = None if problem.file.path is None else str(problem.file.path)
        make = partial(member_search, problem.file.spec.model_dump(mode="json"), path)
        return processes(make, count, self._interrupted, problem.counts, stops_held_back)

    def _content(self) -> dict[str, Any]:
        state = self.state
        return {
            **origin_of(self._problem),
            "population": to_plain(state.population),
            "starts": to_plain(state.starts),
            "seconds": self._seconds,
            "counts": self._watch.counts.as_dict(),
        }

    # What was found

    def started(self, problem: PDEProblem) -> PDEProblem:
        """The problem, starting at the best design so far."""
        best = self.state.best
        return problem if best is None else started_at(problem, best.v)

    @property
    def sentence(self) -> str:
        """What the search and multi-start have found."""
        population, starts = self._parts()
        if population is None:
            return "the population search was asked to end in its first generation"
        text = (
            f"population search: objective {population.best.value:.6e} after {population.generation} generations and "
            f"{population.evaluations:,} evaluations"
        )
        if starts is not None:
            text += (
                f"; multi-start: {starts.best.value:.6e} after {starts.count} starts and {starts.evaluations:,} "
                "evaluations"
            )
        if not self.ended:
            return f"the search was asked to end; {text}" + ("; --resume goes on with the search" if self._kept else "")
        return f"{text}; the run starts from the best design of {self._better}"

    @property
    def _better(self) -> str:
        """Whose best design is better."""
        population, starts = self._parts()
        worse = population is not None and starts is not None and starts.best.value < population.best.value
        return "multi-start" if worse else "the population"

    def entries(self) -> dict[str, Any]:
        """The entry of summary.json."""
        population, starts = self._parts()
        found: dict[str, Any] = {"ended": self.ended, "seconds": self._seconds}
        if population is not None:
            found |= {
                "generations": population.generation,
                "objective": population.best.value,
                "evaluations": population.evaluations,
                "start": self._better,
            }
        if starts is not None:
            of_starts = {"objective": starts.best.value, "evaluations": starts.evaluations, "starts": starts.count}
            found["multistart"] = of_starts
        return {"population": found}
