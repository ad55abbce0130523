"""How a population searches for the start of a run: the genes of the controls, and the local search of a member."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..control.controls import ControlSpace
from ..pde_problem import PDEProblem
from ..population.genes import Genes, genes_of
from ..population.members import LocalSearch
from ..population.options import PopulationOptions
from ..problem_file.loading import ProblemFile
from .method import Method

# Distance between the components of a field where genes are placed, in units of its extent: they share no gene.
_APART = 10.0


@dataclass(frozen=True, eq=False)
class PopulationMethod:
    """How a population searches for the start of a run.

    Attributes:
        genes: the coordinates of designs.
        options: of the search.
        rtol: gradient norm that a member has to reach, relative to its first one.
        processes: number of processes that share the members.
    """

    genes: Genes
    options: PopulationOptions
    rtol: float
    processes: int

    def __str__(self) -> str:
        alone = self.processes == 1
        shared = "" if alone else f" in {self.processes} processes"
        return f"a population of {self.options.members} in {self.options.generations} generations{shared}"


def population_method(file: ProblemFile, problem: PDEProblem) -> PopulationMethod:
    """The population search that a file asks for.

    Raises:
        ProblemError: a continuation, or bounds that leave no room at a point.
    """
    spec = file.spec.population
    if problem.earlier:
        message = f"expected a problem of one stage with method hpm, found a continuation of {len(problem.earlier) + 1}"
        raise file.error("control", f"{message}: give one penalty, and no projection")
    assert problem.bounds is not None
    lower, upper = (each.cpu() for each in problem.bounds)
    try:
        genes = genes_of([_places(part) for part in problem.control.parts], (lower, upper))
    except ValueError as error:
        raise file.error(file.spec.keyed_controls[0][0], f"bounds with method hpm: {error}") from error
    options = PopulationOptions(
        spec.members, spec.generations, spec.replaced, spec.reach, spec.rate, spec.steps, file.spec.seed
    )
    return PopulationMethod(genes, options, spec.rtol, spec.processes)


def local_search(
    problem: PDEProblem, method: Method, rtol: float, interrupted: Callable[[], bool] = lambda: False
) -> LocalSearch:
    """The local search of a member: some steps of the method from a design.

    Args:
        rtol: gradient norm to reach, relative to the first one.
    """
    stopping = replace(method.stopping, rtol=max(rtol, method.stopping.rtol))
    return LocalSearch(
        lambda v: started_at(problem, v),
        method.oracle,
        method.outer,
        stopping,
        method.judge,
        problem.counts,
        interrupted,
    )


def started_at(problem: PDEProblem, v: Tensor) -> PDEProblem:
    """The problem with a design (p,) as its start."""
    v = v.to(problem.control.initial)
    return replace(problem, origin=(problem.cold_start(v), v), sibling=problem)


def _places(part: ControlSpace) -> Tensor | None:
    """(size, d) where the values of a control are, in space, in time, and apart for its components; None for a number.

    Time is as long as the extent in space.
    """
    if part.size == 1:
        return None
    nodes = torch.as_tensor(part.nodes.T.copy())
    extent = float((nodes.amax(0) - nodes.amin(0)).max()) or 1.0
    each = part.columns // part.components
    component = _APART * extent * (torch.arange(part.columns) // each).to(nodes)
    steps = part.steps or 1
    times = torch.arange(steps).to(nodes) * (extent / max(steps - 1, 1))
    return torch.cat(
        [nodes.repeat(steps, 1), component.repeat(steps)[:, None], times.repeat_interleave(part.columns)[:, None]], 1
    )
