"""From a checked problem file to the method that solves it: oracle, outer method, stopping rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..engine.curvature.base import LocalBackend
from ..engine.loop import Stopping
from ..engine.nhgd import NHGD
from ..engine.oracle import Oracle
from ..engine.outer.base import Feasible, OuterMethod, Setting, Smoothing
from ..methods.compared_method import Compared
from ..problem_file.catalogue import SEARCHES
from ..problem_file.loading import ProblemFile
from .one_scenario import choose_oracle, judge_of
from .outer_method import check_outer, choose_outer, has_design


@dataclass(frozen=True)
class Method:
    """Everything that `minimise` needs besides the problem.

    Attributes:
        oracle: how the objective and its derivative are found.
        outer: how the control moves.
        stopping: when to stop.
        description: a few words for people.
        threads: largest number of threads of torch that is worth while; None for all.
        judge: tells whether the start is a solution, where the first evaluation of the oracle cannot tell.
    """

    oracle: Oracle
    outer: OuterMethod
    stopping: Stopping
    description: str
    threads: int | None
    judge: Oracle | None = None

    @property
    def ends(self) -> tuple[float | None, int]:
        """The relative gradient with which a run ends, None where steps of a design decide; the most iterations."""
        return self.stopping.rtol if self.stopping.change is None else None, self.stopping.iterations


def build_method(
    file: ProblemFile,
    shape: tuple[int, int],
    device: torch.device,
    space: Feasible | None = None,
    smoothing: Smoothing | None = None,
) -> Method:
    """The method that a file asks for.

    Args:
        file: the problem file.
        shape: (S, n) of the inner variables.
        device: where the inverse will be.
        space: the outer space; None where only the inverse is asked for.
        smoothing: of the derivative in steps; None for none.

    Raises:
        ProblemError: an outer method that does not take what the problem has, options that contradict each
            other, or a dense inverse that is too large for the device.
    """
    if file.spec.method in SEARCHES:
        # The local searches, and the run from the best design, are those of nhgd.
        file = replace(file, spec=file.spec.model_copy(update={"method": "nhgd"}))
    spec = file.spec
    oracle, description = choose_oracle(file, shape, device)
    searched = not (isinstance(oracle, Compared) and oracle.tracking)
    setting = Setting(space, smoothing, searched, has_design(file))
    outer = choose_outer(file, setting, oracle)
    if spec.parameters:
        # Problems without random inputs are solved without loading what scenarios need.
        from .scenario_method import over_scenarios

        oracle, outer, description = over_scenarios(file, oracle, outer, description)
    change = outer.standstill(setting) if spec.outer.change == "auto" else spec.outer.change
    rtol = Stopping.rtol if spec.outer.rtol == "auto" else spec.outer.rtol
    stopping = Stopping(spec.outer.iterations, rtol, spec.outer.atol, change=change)
    if spec.state is not None:
        from .neural import stopping_of_networks

        stopping = stopping_of_networks(file, stopping)
    if spec.parameters:
        from ..engine.scenarios.growth import GrowthOptions

        stopping = replace(stopping, roughest=GrowthOptions.roughest)
    check_outer(file, outer, setting, oracle)
    # Products with a large inverse are long enough for several threads. Factorisations and the solves with them, which
    # take most of the time of other inverses, have one thread.
    backend = oracle.curvature if isinstance(oracle, NHGD) else None
    parallel = isinstance(backend, LocalBackend) and backend.parallel(shape[0] * shape[1])
    return Method(oracle, outer, stopping, description, None if parallel else 1, _judge(file, oracle))


def _judge(file: ProblemFile, oracle: Oracle) -> Oracle | None:
    spec = file.spec
    if not spec.parameters:
        return judge_of(oracle)
    from .scenario_judges import judge_over_scenarios

    # The first nodes of a quadrature do not represent all of them, and bounds of the state have multipliers in every
    # scenario.
    quadrature = spec.scenarios is not None and spec.scenarios.sampling == "quadrature"
    return judge_over_scenarios(oracle, quadrature or spec.bounds_state)
