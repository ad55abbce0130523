"""Cold starts: if a solve fails from the last state, it starts as if there were no last state."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import pytest
import torch
from bilevel_problems import Cubic, cubic_problem
from torch import Tensor

from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.inner_loop import InnerOptions
from nhgd_pde.engine.nhgd import NHGD, HypergradientOptions
from nhgd_pde.engine.oracle import Accuracy, Oracle
from nhgd_pde.methods.adjoint import Adjoint

TIGHT = Accuracy(1e-10, 1e-10)
ORACLES: list[Oracle] = [Adjoint(), NHGD(InnerOptions(), Factored(), HypergradientOptions(tolerance=1e-12))]


@dataclass(eq=False)
class Narrow(Cubic):
    """A problem whose residual is finite only within a distance of one from its root."""

    whole: Cubic = field(default_factory=cubic_problem)
    starts: bool = True

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        far = (u - self.solution(v)).norm() > 1.0
        return torch.full_like(u, float("nan")) if far else super().residual(u, v)

    def solution(self, v: Tensor) -> Tensor:
        return self.whole.solution(v)

    def start(self) -> tuple[Tensor, Tensor]:
        v = torch.zeros(self.outer_size, dtype=torch.float64)
        return self.cold_start(v), v

    def cold_start(self, v: Tensor) -> Tensor:
        return self.solution(v) + (0.1 if self.starts else 10.0)


def narrow(starts: bool) -> Narrow:
    whole = cubic_problem()
    return Narrow(**{each.name: getattr(whole, each.name) for each in fields(Cubic)}, whole=whole, starts=starts)


@pytest.mark.parametrize("oracle", ORACLES, ids=["adjoint", "nhgd"])
def test_a_solve_that_fails_from_the_last_state_starts_cold(oracle: Oracle) -> None:
    problem = narrow(starts=True)
    u, v = problem.start()
    first, state = oracle.evaluate(problem, v, oracle.init(problem, u, v), TIGHT)
    far = 20.0 * torch.ones_like(v)
    assert not torch.isfinite(problem.residual(state.u, far)).any()
    found, _ = oracle.evaluate(problem, far, state, TIGHT)
    value, derivative = problem.exact(far)
    assert first.finite and found.finite and found.state_error <= 1e-10
    assert found.value == pytest.approx(value, rel=1e-9)
    assert (found.derivative - derivative).norm() <= 1e-8 * derivative.norm()


@pytest.mark.parametrize("oracle", ORACLES, ids=["adjoint", "nhgd"])
def test_if_the_cold_start_fails_too_the_evaluation_fails_and_the_state_stays(oracle: Oracle) -> None:
    problem = narrow(starts=True)
    u, v = problem.start()
    _, state = oracle.evaluate(problem, v, oracle.init(problem, u, v), TIGHT)
    problem.starts = False
    found, after = oracle.evaluate(problem, 20.0 * torch.ones_like(v), state, TIGHT)
    assert not found.finite and found.message
    assert torch.equal(after.u, state.u)
