"""Betty: its conjugate-gradient hypergradient (betty.hypergradient.cg), on the quantities that it differentiates."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from torch import Tensor

from ...engine.bilevel import BilevelProblem
from .bridge import inner_loss, load

MODULE = "betty.hypergradient.cg"
NAME = "betty-ml"
SETTING = "cg, cg_alpha 1"
NOTE = "as released, the new direction is made from the old residual: not conjugate"


@dataclass(frozen=True, eq=False)
class _Level:
    """As much of Betty's `Problem` as its hypergradient reads."""

    problem: BilevelProblem
    u: Tensor
    v: Tensor
    mine: Tensor
    config: SimpleNamespace
    paths: tuple[()] = ()
    cur_batch: None = None

    def training_step_exec(self, batch: None) -> Tensor:
        return inner_loss(self.problem, self.u, self.v)

    def parameters(self) -> list[Tensor]:
        return [self.mine]

    def trainable_parameters(self) -> list[Tensor]:
        return [self.mine]


def hypergradient(problem: BilevelProblem, u: Tensor, v: Tensor, steps: int) -> Tensor:
    """The hypergradient (p,) after this many steps."""
    u, v = u.detach().requires_grad_(), v.detach().requires_grad_()
    inner, outer = problem.outer_derivatives(u.detach(), v.detach())
    config = SimpleNamespace(cg_iterations=steps, cg_alpha=1.0)
    lower, upper = (_Level(problem, u, v, mine, config) for mine in (u, v))
    indirect = load(MODULE).cg([inner], lower, upper)
    return outer + indirect[0].detach()
