"""The comparison: errors at the exact inner solution, after the same numbers of conjugate-gradient steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...engine.bilevel import BilevelProblem
from ...engine.curvature.factored import Factored
from ...engine.hypergradient import hypergradient
from ...linalg.threads import at_most_threads
from ...run.outcome import nominal_of
from ..hypergradients import relative_error
from ..truth import Judge
from . import betty, boat, torchopt
from .bridge import missing, version

STEPS = (20, 500)
_ADAPTERS = (torchopt, betty, boat)

Derivative = Callable[[BilevelProblem, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class PeerError:
    """The hypergradient of one library at one point.

    Attributes:
        name: library and version.
        steps: most conjugate-gradient steps.
        error: |h - h_exact| / |h_exact| in the dual norm of the outer space.
        seconds: of this one hypergradient.
        note: what to know before comparing, or why it failed.
    """

    name: str
    setting: str
    steps: int
    error: float
    seconds: float
    note: str = ""


class _Nothing:
    """No curvature: conjugate gradients without a preconditioner."""

    def solve(self, g: Tensor) -> Tensor:
        return g

    estimate = solve


def _ours(problem: BilevelProblem, u: Tensor, v: Tensor, steps: int, factored: bool) -> Tensor:
    curvature = Factored().init(problem, u, v) if factored else _Nothing()
    return hypergradient(problem, u, v, curvature, None, 1e-13, steps).derivative


def unavailable() -> dict[str, str]:
    """Name of every library that cannot be used -> why."""
    return {adapter.NAME: reason for adapter in _ADAPTERS if (reason := missing(adapter.MODULE, adapter.NAME))}


def compare_peers(judge: Judge) -> tuple[PeerError, ...]:
    """Every library that is installed, and ours, at `Judge.ahead`; those that are not, with the reason."""
    problem = nominal_of(judge.problem)
    exact, u = judge.solution(judge.ahead())
    found = []
    with at_most_threads(1):
        for name, setting, note, derivative in _candidates():
            # The first one is not shown: what is made on first use is on nobody's clock.
            for steps in (1, *STEPS):
                began = time.perf_counter()
                try:
                    h = derivative(problem, u, exact.v, steps)
                    remark = note
                except (ArithmeticError, RuntimeError, ValueError) as error:
                    h, remark = torch.full_like(exact.v, math.nan), f"failed: {error}"
                elapsed = time.perf_counter() - began
                size = relative_error(problem.outer_metric, h, exact.derivative)
                if steps > 1:
                    found.append(PeerError(name, setting, steps, size, elapsed, remark))
    absent = [PeerError(name, "", 0, math.nan, math.nan, reason) for name, reason in unavailable().items()]
    return (*found, *absent)


def _candidates() -> Iterator[tuple[str, str, str, Derivative]]:
    yield "nhgd-pde", "certified, factored curvature", "", partial(_ours, factored=True)
    yield "nhgd-pde", "certified, no curvature", "", partial(_ours, factored=False)
    absent = unavailable()
    for adapter in _ADAPTERS:
        if adapter.NAME not in absent:
            yield version(adapter.NAME), adapter.SETTING, adapter.NOTE, adapter.hypergradient
    if torchopt.NAME not in absent:
        yield version(torchopt.NAME), "solve_normal_cg, rtol 1e-14", "the default solver", torchopt.normal_hypergradient
