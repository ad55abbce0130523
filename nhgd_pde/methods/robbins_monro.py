"""Stochastic gradients with adjoints (Robbins and Monro 1951; for uncertain PDEs, Geiersbach and Pflug 2019).

    v+ = v - a / (k + k0)^gamma M^-1 mean_{s in B} h_s(v),   J_s^T p_s = grad_u f_s,   h_s = grad_v f_s - R_v^T p_s

Geiersbach and Pflug, SIAM J. Optim. 29. States and adjoints of a batch are solved together, by conjugate gradients that
the factors of the nominal scenario precondition, to a fixed tolerance. `StochasticApproximation(natural=False)` takes
the steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from ..engine.certificate import Sensitivity
from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation, failed_evaluation
from ..engine.plain import from_plain, to_plain
from ..engine.scenarios.footprint import Footprint
from ..engine.scenarios.gradient_spread import deviation
from ..engine.scenarios.minibatches import next_batch
from ..engine.scenarios.part_solution import solve_part
from ..engine.scenarios.scenario_bilevel import ScenarioBilevelProblem
from ..linalg.factorisation import SingularMatrixError
from .compared_method import Compared
from .nominal import Nominal


@dataclass(frozen=True)
class RobbinsMonroState:
    """Data that are carried from one evaluation to the next.

    Attributes:
        nominal: the nominal scenario.
        drawn: number of fresh scenarios so far.
        left: numbers of the scenarios of a sample that its epoch has not drawn yet.
        generator: draws the order of an epoch.
        kept: (u, p) (n,) of every scenario of the sample when last drawn, where they are kept.
    """

    nominal: Nominal
    drawn: int
    left: Tensor
    generator: torch.Generator
    kept: tuple[tuple[Tensor, Tensor] | None, ...] = ()
    q: ClassVar[Tensor | None] = None

    @property
    def u(self) -> Tensor:
        """(1, n) state of the nominal scenario."""
        return self.nominal.u

    @property
    def description(self) -> str:
        return "conjugate gradients with the nominal factors"

    def blend(self, other: RobbinsMonroState, share: float) -> RobbinsMonroState:
        return replace(other, nominal=self.nominal.blend(other.nominal, share))


@dataclass(frozen=True)
class RobbinsMonro(Compared):
    """Options; an `Oracle`.

    Attributes:
        batch: b.
        fresh: use scenarios of the stream; else those of the sample, without replacement in epochs.
        tolerance: relative error of states and adjoints.
        start: start of the iterations: `zero`; the solution of the `nominal` scenario, which takes a few solves per
            step; or the `kept` solution of the scenario, 2 n numbers each, and the nominal solution at first.
        renew: number of evaluations after which the nominal scenario is factorised again, if its J has changed.
        seed: seed of the order.
    """

    batch: int = 8
    fresh: bool = False
    tolerance: float = 1e-2
    start: Literal["zero", "nominal", "kept"] = "nominal"
    renew: int = 10
    seed: int = 0
    name: str = "robbins_monro"
    summary: ClassVar[str] = "stochastic gradients from minibatches of scenarios"
    stepwise: ClassVar[bool] = True

    @classmethod
    def factory(cls, tests: int = 64, **options: Any) -> Self:
        """The method with the options of a problem file. Fresh scenarios have no earlier solution to start from."""
        kept = options["warm"] and not options["fresh"]
        return super().factory(tests, **options, start="kept" if kept else "nominal")

    @property
    def rough(self) -> bool:
        return True

    def scenario_bytes(self, footprint: Footprint) -> float:
        kept = 16.0 * footprint.count * footprint.unknowns if self.start == "kept" else 0.0
        return kept + footprint.working(self.batch)

    def __post_init__(self) -> None:
        if self.fresh and self.start == "kept":
            raise ValueError("start: fresh scenarios have nothing kept to start from; expected zero or nominal")

    def init(self, problem: ScenarioBilevelProblem, u: Tensor, v: Tensor) -> RobbinsMonroState:
        """Raises: ValueError: the risk is not the mean."""
        if not problem.risk.linear:
            raise ValueError(
                "robbins_monro: expected the mean as risk measure, which a minibatch estimates, found another"
            )
        generator = torch.Generator().manual_seed(self.seed)
        kept = (None,) * problem.inner_shape[0] if self.start == "kept" else ()
        return RobbinsMonroState(Nominal.start(problem, v), 0, torch.arange(0), generator, kept)

    def evaluate(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: RobbinsMonroState, accuracy: Accuracy
    ) -> tuple[Evaluation, RobbinsMonroState]:
        try:
            return self._evaluate(problem, v, state)
        except SingularMatrixError as singular:
            return failed_evaluation(v, str(singular)), state

    def _evaluate(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: RobbinsMonroState
    ) -> tuple[Evaluation, RobbinsMonroState]:
        count, nominal = problem.inner_shape[0], state.nominal
        # Starts at zero need the nominal solution only as long as errors have no other length to be relative to.
        if self.start != "zero" or not (bool(nominal.u.any()) and bool(nominal.p.any())):
            nominal, message = nominal.at(problem, v, self.tolerance, self.renew)
            if message:
                return failed_evaluation(v, message), state
        else:
            nominal = nominal.aged(problem, v, self.renew)
        batch, left = torch.arange(0), state.left
        if self.fresh:
            part, size = problem.drawn(state.drawn, self.batch), self.batch
            weights = torch.full((size,), 1.0 / size, dtype=v.dtype, device=v.device)
        else:
            batch, left = next_batch(state.left, count, self.batch, state.generator)
            part, size = problem.part(batch), len(batch)
            weights = count / size * problem.weights[batch]
        u, p = self._starts(state, nominal, batch, size)
        found = solve_part(part, v, u, p, nominal.inverse, nominal.tolerances(problem, self.tolerance))
        if found.message:
            return failed_evaluation(v, found.message), state
        derivative = weights @ found.rows + problem.nominal.control_derivative(v)
        # Without replacement, the variance of the mean of a batch is proportional to 1/b - 1/S.
        share = 1.0 / size - (0.0 if self.fresh else 1.0 / count)
        error = deviation(problem.outer_metric, size * weights[:, None] * found.rows) if size > 1 else 0.0
        evaluation = Evaluation(
            v=v,
            value=float(weights @ found.values) + problem.nominal.control_value(v),
            derivative=derivative,
            gradient=problem.outer_metric.gradient(derivative[None])[0],
            state_error=found.state_error,
            adjoint_error=found.adjoint_error,
            sensitivity=Sensitivity().updated(problem.nominal, u, p, weights @ found.rows, self.tolerance).value,
            inner_steps=found.state_steps,
            refinement_steps=found.adjoint_steps,
            sampling_error=error * math.sqrt(max(share, 0.0)),
            scenarios=size,
        )
        if not evaluation.finite:
            return evaluation, state
        if self.start == "zero":
            nominal = replace(nominal, u=found.u.mean(0, keepdim=True), p=found.p.mean(0, keepdim=True))
        kept = list(state.kept)
        for k, s in enumerate(batch.tolist() if kept else []):
            kept[s] = found.u[k].clone(), found.p[k].clone()
        drawn = state.drawn + (size if self.fresh else 0)
        return evaluation, RobbinsMonroState(nominal, drawn, left, state.generator, tuple(kept))

    def _starts(self, state: RobbinsMonroState, nominal: Nominal, batch: Tensor, size: int) -> tuple[Tensor, Tensor]:
        if self.start == "zero":
            zero = torch.zeros_like(nominal.u).expand(size, -1)
            return zero, zero
        middle = nominal.u[0], nominal.p[0]
        if self.start == "nominal":
            return middle[0].expand(size, -1), middle[1].expand(size, -1)
        pairs = [state.kept[s] or middle for s in batch.tolist()]
        return torch.stack([u for u, _ in pairs]), torch.stack([p for _, p in pairs])

    def save(self, state: RobbinsMonroState) -> dict[str, Any]:
        rest = to_plain(replace(state, nominal=None))  # type: ignore[arg-type]
        return {"state": rest, "nominal": state.nominal.save()}

    def restore(self, problem: ScenarioBilevelProblem, saved: dict[str, Any]) -> RobbinsMonroState:
        state = from_plain(saved["state"], problem.start()[0].device)
        return replace(state, nominal=Nominal.restore(problem, saved["nominal"]))
