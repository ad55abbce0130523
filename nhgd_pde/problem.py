"""A problem that is ready to be solved: what `load` returns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .building.blueprint import Blueprint, blueprint_of
from .building.limits import limits_told
from .building.python_code import functions_of
from .choice.method import Method, build_method
from .engine.search import outer_space
from .linalg.counts import Counts
from .linalg.threads import at_most_threads
from .output.provenance import stamped
from .pde_problem import PDEProblem
from .problem_file.catalogue import SEARCHES
from .problem_file.loading import ProblemFile, read_problem
from .scenario_problem import ScenarioProblem

if TYPE_CHECKING:
    from .bridges.objective_function import ReducedObjective
    from .choice.population_method import PopulationMethod


class Problem:
    """A problem that is ready to be solved, from `load`, or made of Python objects.

    `problem = nhgd.Problem(mesh=nhgd.Rectangle(cells=[32, 32]), pde=nhgd.Poisson(...), control=..., objective=[...])`

    Args:
        name: names the run folder.
        mesh, pde, control, objective: the sections of a problem file, as mappings or as objects such as
            `nhgd.Rectangle`, `nhgd.Poisson`, `nhgd.SourceControl` and `nhgd.Tracking`. `objective` is a list of terms;
            `control` is one control or a list.
        options: all other keys of a problem file, such as `time`, `element`, `outer`.

    Raises:
        ProblemError: everything that is wrong with them, a line each, as for a file.

    Attributes:
        file: the checked problem file; `file.spec` has every option.
        pde: mesh, spaces, state equation, control and objective.
        method: what `solve` will use.
        seconds: time in seconds that it took to read and build.
        scenarios: builds the problem of any scenarios of the random inputs, with `pde` as the nominal one; None without
            random inputs.
        population: how a population searches for the start of the run; None for a method with one start.
    """

    file: ProblemFile
    pde: PDEProblem
    method: Method
    seconds: float
    scenarios: Blueprint | None
    population: PopulationMethod | None

    def __init__(
        self,
        *,
        name: str = "problem",
        mesh: Mapping[str, Any],
        pde: Mapping[str, Any],
        control: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        objective: Sequence[Mapping[str, Any]],
        **options: Any,
    ) -> None:
        sections = {"name": name, "mesh": mesh, "pde": pde, "control": control, "objective": objective, **options}
        self._build(read_problem(sections))

    @classmethod
    def of_file(cls, file: ProblemFile) -> Problem:
        """The problem of a checked file.

        Raises:
            ProblemError: everything that is wrong with it, a line each; the problem would not fit into memory.
        """
        problem = cls.__new__(cls)
        problem._build(file)
        return problem

    def _build(self, file: ProblemFile) -> None:
        start = time.perf_counter()
        self.file, self.scenarios, self.population = file, None, None
        with at_most_threads(1), limits_told(file):
            if file.spec.passes_steps:
                from .building.horizon import horizon_of

                self.pde = horizon_of(file)
            else:
                blueprint = blueprint_of(file)
                self.pde = blueprint.nominal
                self.scenarios = blueprint if file.spec.parameters else None
            pde = self.pde
            # A device that only the curvature role can see is checked there.
            device = pde.equation.lift.device
            self.method = build_method(file, pde.inner_shape, device, outer_space(pde), pde.control.smoothing)
            if file.spec.method in SEARCHES:
                from .choice.population_method import population_method

                self.population = population_method(file, pde)
        self.seconds = time.perf_counter() - start

    @cached_property
    def stages(self) -> tuple[PDEProblem | ScenarioProblem, ...]:
        """The problems that are solved one after the other: the stages of a continuation, the last one the problem."""
        nominal = (*self.pde.earlier, self.pde)
        if self.scenarios is None:
            return nominal
        blueprints = (*self.scenarios.earlier, self.scenarios)
        return tuple(replace(each.problem, nominal=own) for each, own in zip(blueprints, nominal, strict=True))

    @property
    def inner_shape(self) -> tuple[int, int]:
        """(S, n): the number of scenarios, and of state unknowns in each."""
        return self.stages[-1].inner_shape

    @cached_property
    def reduced(self) -> ReducedObjective:
        """The objective as a function of the control alone, with its derivatives; see `nhgd.reduced`."""
        from .bridges.objective_function import reduced

        return reduced(self)

    @property
    def state_unknowns(self) -> int:
        """The number of unknowns of the state in one scenario; of an evolution in all time steps, kept or not."""
        unknowns = self.inner_shape[1]
        return unknowns * self.pde.equation.repeats if self.file.spec.passes_steps else unknowns

    @property
    def outer_size(self) -> int:
        """p, the number of control unknowns."""
        return self.pde.outer_size

    @property
    def counts(self) -> Counts:
        """The work done so far: numbers of solves, factorisations, products."""
        return self.pde.counts

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user should know about the file though it is no mistake: a sentence each."""
        return self.pde.notices

    @property
    def device(self) -> torch.device:
        """Where states are computed, such as `cpu` or `cuda:0`."""
        return self.pde.equation.lift.device

    @property
    def form(self) -> str:
        """The statistical model of the inner problem, `energy` or `residual`."""
        return self.pde.model.name

    @property
    def name(self) -> str:
        """The name in the problem file."""
        return self.pde.name

    @property
    def solver(self) -> str:
        """The name of the solver of the linear systems."""
        equation = self.pde.equation
        return equation.solver.chosen(len(equation.spatial_free))[0].name

    def __str__(self) -> str:
        scenarios, _ = self.inner_shape
        many = f" in {scenarios:,} scenarios" if scenarios > 1 else ""
        steps = f" in {self.pde.equation.repeats:,} time steps" if self.pde.equation.repeats > 1 else ""
        device = self.device
        if device.type == "cpu":
            count = min(self.method.threads or torch.get_num_threads(), torch.get_num_threads())
            threads = f"{count} thread" + ("s" if count > 1 else "")
        else:
            threads = torch.cuda.get_device_name(device)
        code = functions_of(self.file)
        searched = "" if self.population is None else f"{self.population}, "
        runs = f"; runs the code of {', '.join(code)}" if code else ""
        return (
            f"{self.name}: {self.state_unknowns:,} state{many} and {self.pde.outer_size:,} control unknowns{steps}; "
            f"{self.pde.model.name} form, {searched}{self.method.description}; {self.solver}; {device}, {threads}{runs}"
        )

    def _repr_html_(self) -> str:
        """The problem in a notebook: its equation, control and objective in words."""
        from .reports.notebook_views import problem_view

        return problem_view(str(self), str(self.pde.space.domain), self.file.dump())

    def yaml(self, folder: Path | None = None) -> str:
        """The problem file with all defaults filled in, and with what made it in comments.

        Args:
            folder: where the text will be stored, so that paths in it are right; by default beside the problem file.
        """
        return stamped(self.file.dump() if folder is None else self.file.dump_for(folder))

    def report(self) -> str:
        """What `nhgd-pde check` prints after its first line: the mesh, warnings, and the cost of a solve."""
        from .choice.estimate import estimate
        from .scenario_problem import ScenarioProblem

        last = self.stages[-1]
        scenarios = last if isinstance(last, ScenarioProblem) else None
        notices = "".join(f"warning: {text}\n" for text in self.notices)
        processes = 1 if self.population is None else self.population.processes
        needed = estimate(self.pde, self.method, scenarios, processes)
        adapt = self.file.spec.mesh.adapt
        refined = "" if adapt is None else f"{adapt}; sizes and costs are those of the first mesh\n"
        return f"mesh: {self.pde.space.domain}\n{refined}{notices}{needed}"
