"""Load, solve, verify: the library's front door."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .engine.minimise import Iterate, Minimum, minimise
from .linalg.counts import Counts
from .linalg.threads import at_most_threads
from .output.run_folder import RunFolder
from .pde_problem import PDEProblem
from .problem.building import build
from .problem.loading import ProblemFile, read_problem
from .problem.methods import Method, build_method
from .provenance import commit, peak_memory, versions
from .recording import Recorder
from .solution import Certificate, Row, Solution
from .verification import Verification, verify_problem


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem that is ready to be solved.

    Attributes:
        file: the checked problem file; `file.spec` has every option.
        pde: mesh, spaces, state equation, control and objective.
        method: what `solve` will use.
        seconds: time it took to read and build.
    """

    file: ProblemFile
    pde: PDEProblem
    method: Method
    seconds: float

    @property
    def name(self) -> str:
        return self.pde.name

    def __str__(self) -> str:
        scenarios, unknowns = self.pde.inner_shape
        many = f" in {scenarios:,} scenarios" if scenarios > 1 else ""
        device = self.pde.equation.lift.device
        if device.type == "cpu":
            count = min(self.method.threads or torch.get_num_threads(), torch.get_num_threads())
            threads = f"{count} thread" + ("s" if count > 1 else "")
        else:
            threads = torch.cuda.get_device_name(device)
        return (
            f"{self.name}: {unknowns:,} state{many} and {self.pde.outer_size:,} control unknowns; "
            f"{self.pde.model.name} form, {self.method.description}; {device}, {threads}"
        )

    def yaml(self) -> str:
        """The resolved problem file, with what made it in comments."""
        made = ", ".join(f"{name} {version}" for name, version in versions().items())
        return f"# {made}; commit {commit() or 'unknown'}\n{self.file.dump()}"


def load(source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Problem:
    """Read, check and build a problem.

    Args:
        source: a problem file, or the same content as a mapping.
        overrides: values by dotted path, such as {"objective.1.weight": 1e-4}.

    Raises:
        ProblemError: everything that is wrong with it, a line each.
    """
    start = time.perf_counter()
    file = read_problem(source, overrides)
    with at_most_threads(1):
        pde = build(file)
    scenarios, unknowns = pde.inner_shape
    method = build_method(file, scenarios * unknowns)
    return Problem(file, pde, method, time.perf_counter() - start)


def solve(
    problem: Problem,
    callback: Callable[[Row], None] | None = None,
    output: str | Path | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Solution:
    """Solve a problem.

    Args:
        problem: from `load`.
        callback: told the row of history.csv of every outer iteration.
        output: a run folder to write while solving; none by default.
        interrupted: asked before every evaluation; true stops the run with what it has.

    Returns:
        The solution. Numerical failure is its status, not an exception; a KeyboardInterrupt ends the run as
        `interrupted` once there is a first iterate.

    Raises:
        OutputError: `output` is not a folder that may be written to.
    """
    pde, method = problem.pde, problem.method
    text = problem.yaml()
    every = problem.file.spec.output.every
    recorder = Recorder(pde, RunFolder.create(output, text), every) if output is not None else None
    before = replace(pde.counts)
    aside = 0.0
    rows: list[Row] = []
    first: Iterate | None = None
    last: Iterate | None = None
    start = time.perf_counter()

    def seconds() -> float:
        return problem.seconds + time.perf_counter() - start - aside

    def tell(iterate: Iterate) -> None:
        nonlocal aside, first, last
        row = history_row(iterate, pde.counts - before, seconds())
        began = time.perf_counter()
        first, last = first or iterate, iterate
        rows.append(row)
        if recorder is not None:
            recorder.iterate(iterate, row)
        if callback is not None:
            callback(row)
        aside += time.perf_counter() - began

    with recorder or nullcontext():
        if recorder is not None:
            recorder.title(str(problem))
        try:
            with at_most_threads(method.threads):
                found = minimise(pde, method.oracle, method.outer, method.stopping, tell, interrupted)
        except KeyboardInterrupt:
            if first is None or last is None:
                raise
            found = Minimum(last, first, "interrupted", "interrupted in the middle of an iteration")
        solution = _solution(problem, found, tuple(rows), pde.counts - before, seconds(), text)
        if recorder is not None:
            recorder.finish(solution, found.last)
            recorder.summarise(solution)
    return solution


def verify(problem: Problem) -> Verification:
    """Test every derivative of a problem: Taylor, adjoint, symmetry, Fisher and hypergradient tests."""
    with at_most_threads(problem.method.threads):
        return verify_problem(problem.pde, problem.file.spec.seed)


def history_row(iterate: Iterate, counts: Counts, seconds: float) -> Row:
    """One row of history.csv."""
    evaluation = iterate.evaluation
    return {
        "iteration": iterate.iteration,
        "objective": evaluation.value,
        "gradient_norm": iterate.gradient_norm,
        "state_residual": evaluation.state_error,
        "adjoint_residual": evaluation.adjoint_error,
        "gradient_error": evaluation.gradient_error,
        "step": iterate.step,
        "evaluations": iterate.evaluations,
        "inner_steps": evaluation.inner_steps,
        "refinement_steps": evaluation.refinement_steps,
        "solves": counts.solves,
        "factorisations": counts.factorisations,
        "seconds": seconds,
    }


def _solution(
    problem: Problem, found: Minimum, rows: tuple[Row, ...], counts: Counts, seconds: float, text: str
) -> Solution:
    pde, spec = problem.pde, problem.file.spec
    last, evaluation = found.last, found.last.evaluation
    scenarios, unknowns = pde.inner_shape
    certificate = Certificate(evaluation.state_error, evaluation.adjoint_error, evaluation.gradient_error)
    stats = {
        "name": problem.name,
        "method": spec.method,
        "status": found.status,
        "message": found.message,
        "objective": evaluation.value,
        "objective_initial": found.first.evaluation.value,
        "gradient_norm": last.gradient_norm,
        "gradient_norm_initial": found.first.gradient_norm,
        "outer_iterations": last.iteration,
        "evaluations": last.evaluations,
        "state_residual": certificate.state_residual,
        "adjoint_residual": certificate.adjoint_residual,
        "gradient_error": certificate.gradient_error,
        "state_dofs": unknowns,
        "control_dofs": pde.outer_size,
        "scenarios": scenarios,
        "solves": counts.as_dict(),
        "seconds": seconds,
        "seconds_output": 0.0,
        "peak_memory_bytes": peak_memory(),
        "devices": {"inner": str(pde.equation.lift.device), "curvature": str(pde.equation.lift.device)},
        "model": pde.model.name,
        "curvature": last.oracle.description,
        "seed": spec.seed,
        "versions": versions(),
        "commit": commit(),
    }
    adjoint = np.zeros((scenarios, pde.space.size))
    if last.oracle.q is not None and math.isfinite(evaluation.value):
        variable = _adjoint_variable(problem, last)
        adjoint[:, pde.equation.free] = variable.cpu().numpy()
    return Solution(
        status=found.status,
        message=found.message,
        objective=evaluation.value,
        control=evaluation.v.cpu().numpy(),
        state=pde.equation.embed(last.oracle.u).cpu().numpy(),
        adjoint=adjoint,
        gradient=evaluation.gradient.cpu().numpy(),
        certificate=certificate,
        history=rows,
        stats=stats,
        problem=pde,
        problem_yaml=text,
    )


def _adjoint_variable(problem: Problem, last: Iterate) -> torch.Tensor:
    """The adjoint variable (S, n) behind the last gradient."""
    assert last.oracle.q is not None
    if problem.file.spec.method == "adjoint":
        return last.oracle.q
    return problem.pde.adjoint_state(last.oracle.u, last.evaluation.v, last.oracle.q)
