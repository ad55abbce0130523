"""Solving a bilevel problem of one's own with the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..engine.bilevel import BilevelProblem
from ..engine.curvature.base import BackendOptions
from ..engine.inner_loop import InnerOptions
from ..engine.loop import Iterate, Minimum, Status, Stopping
from ..engine.minimise import minimise
from ..engine.nhgd import NHGD, HypergradientOptions
from ..engine.outer.base import OuterMethod, Setting
from ..engine.search import outer_space
from ..problem_file.catalogue import CURVATURES, OUTER_METHODS, found_at


@dataclass(frozen=True)
class BilevelOptions:
    """How a bilevel problem is solved; the names are those of a problem file.

    Attributes:
        outer: `lbfgs`, `newton_cg`, `adam`, `gradient` or `mma`, or an outer method with its options.
        curvature: `factored`, `dense`, `block`, `low_rank`, or `kfac` for a problem that has layers.
        tests: number of scores per batch of a sampled inverse.
        refine: relative residual of the adjoint system; None ties it to outer progress; `off`: none.
        iterations, rtol: largest number of outer iterations, and the gradient norm to reach relative to the first.
        seed: of all random numbers.
    """

    outer: str | OuterMethod[Any] = "lbfgs"
    curvature: str = "factored"
    tests: int = 64
    refine: float | Literal["off"] | None = None
    iterations: int = 200
    rtol: float = 1e-8
    seed: int = 0

    def oracle(self) -> NHGD:
        """The method that evaluates the objective and its hypergradient."""
        backend = found_at(CURVATURES[self.curvature])
        return NHGD(
            InnerOptions(tests=self.tests if backend.sampled else None),
            backend.of_options(BackendOptions(forgetting="auto"), scenarios=1),
            HypergradientOptions(self.refine != "off", None if self.refine == "off" else self.refine),
            self.seed,
        )


@dataclass(frozen=True, eq=False)
class BilevelSolution:
    """The result of `solve_bilevel`.

    Attributes:
        status: `converged`, `stopped`, `interrupted` or `failed`.
        message: a sentence that says why.
        objective: f(u*(v), v).
        v: (p,) the outer variables.
        u: (S, n) the inner variables.
        gradient: (p,) the gradient in the inner product of the outer space.
        state_error, adjoint_error: relative residuals of both systems, bounds of errors where the problem has the
            means, see `engine.stability`.
        iterations: number of outer iterations.
    """

    status: Status
    message: str
    objective: float
    v: np.ndarray
    u: np.ndarray
    gradient: np.ndarray
    state_error: float
    adjoint_error: float
    iterations: int


def solve_bilevel(
    problem: BilevelProblem,
    options: BilevelOptions | None = None,
    callback: Callable[[Iterate], None] | None = None,
) -> BilevelSolution:
    """Minimise f(u*(v), v) with Natural Hypergradient Descent.

    Args:
        problem: a `LossProblem`, or an object with the members of `engine.bilevel.BilevelProblem` that the method uses.
        options: see `BilevelOptions`.
        callback: called with every accepted outer iterate, the first one included.

    Returns:
        The solution; numerical failure is its status.

    Raises:
        ValueError: an unknown name, or an outer method that does not take what the problem has.
        TypeError: a problem without the members that the inverse needs.
    """
    given = options or BilevelOptions()
    for name, known, value in (
        ("curvature", CURVATURES, given.curvature),
        ("outer", OUTER_METHODS, given.outer if isinstance(given.outer, str) else "lbfgs"),
    ):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
    outer: OuterMethod[Any] = (
        found_at(OUTER_METHODS[given.outer]).suited(Setting(outer_space(problem)))
        if isinstance(given.outer, str)
        else given.outer
    )
    found = minimise(problem, given.oracle(), outer, Stopping(given.iterations, given.rtol), callback)
    return _solution(found)


def _solution(found: Minimum) -> BilevelSolution:
    evaluation = found.last.evaluation
    return BilevelSolution(
        status=found.status,
        message=found.message,
        objective=evaluation.objective,
        v=evaluation.v.cpu().numpy(),
        u=found.last.oracle.u.cpu().numpy(),
        gradient=evaluation.gradient.cpu().numpy(),
        state_error=evaluation.state_error,
        adjoint_error=evaluation.adjoint_error,
        iterations=found.last.iteration,
    )
