"""A PDE-constrained problem over scenarios, whose equations are built when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .engine.bilevel import Constraint
from .linalg.counts import Counts
from .linalg.riesz import RieszMap
from .linalg.safe_lengths import dot
from .linalg.sparse import SparseMatrix
from .objective.risk import RiskMeasure
from .objective.state_bounds import Relaxation, StateBounds
from .objective.terms import LinearState
from .pde_problem import PDEProblem
from .uncertainty.fresh import FreshSample

# The largest number of extreme scenarios in which a problem is verified.
_EXTREMES = 4
# The largest number of standard variables in the description of a scenario.
_SHOWN = 4


@dataclass(frozen=True, eq=False)
class ScenarioProblem:
    """Minimise a risk measure of f(u_s, v) over the scenarios of a sample. Implements the engine's `ScenarioProblem`.

    Attributes:
        nominal: the scenario with all standard variables at zero; it has the spaces, the controls and the metric.
        z: (S, m) standard variables of the scenarios.
        weights: (S,) their probabilities.
        risk: the risk measure of the objectives of the scenarios.
        make: (standard variables (b, m), numbers of the scenarios (b,)) -> the problem of these scenarios.
        at_once: scenarios that are worked on at the same time.
        kept: scenarios whose matrices may be in memory at the same time; None for `at_once`.
        mixed: controls may bring a coefficient out of its range in some scenarios only.
        stream: (first, count) -> standard variables (count, m) of scenarios first, first + 1, ... of an endless
            sequence that is independent of the sample.
        judges: (count, wide, direction in which the objective varies most) -> fresh scenarios that judge the answer,
            independent of the sample and of the stream; see `uncertainty.fresh.fresh_sample`.
        same_data: boundary and initial values of the state are the same in all scenarios.
        coarsened: makes the same problem on a coarser mesh, or None if that is of no use.
    """

    nominal: PDEProblem
    z: np.ndarray
    weights: Tensor
    risk: RiskMeasure
    make: Callable[[np.ndarray, np.ndarray], PDEProblem]
    at_once: int = 16
    stream: Callable[[int, int], np.ndarray] | None = None
    judges: Callable[[int, bool, np.ndarray | None], FreshSample] | None = None
    same_data: bool = True
    coarsened: Callable[[], Coarse | None] | None = None
    kept: int | None = None
    mixed: bool = False
    relaxations: tuple[Relaxation, ...] = ()

    @property
    def name(self) -> str:
        return self.nominal.name

    @property
    def inner_shape(self) -> tuple[int, int]:
        return len(self.z), self.nominal.inner_shape[1]

    @cached_property
    def variables(self) -> Tensor:
        return torch.as_tensor(self.z, dtype=self.weights.dtype, device=self.weights.device)

    def part(self, indices: Tensor) -> PDEProblem:
        """The problem of some scenarios of the sample. The last parts are kept, as small samples are one batch."""
        numbers = indices.cpu().numpy()
        key = numbers.tobytes()
        made = self._parts.pop(key, None)
        if made is None:
            most = (self.at_once if self.kept is None else self.kept) - len(numbers)
            while self._parts and sum(part.inner_shape[0] for part in self._parts.values()) > most:
                del self._parts[next(iter(self._parts))]
            own = tuple(each.of(numbers) for each in self.relaxations)
            made = self.make(self.z[numbers], numbers)
            made = made.relaxed(own) if own else made
        # The last used comes last.
        self._parts[key] = made
        return made

    @property
    def state_bounds(self) -> tuple[StateBounds, ...]:
        return self.nominal.state_bounds

    def relaxed(self, relaxations: tuple[Relaxation, ...]) -> ScenarioProblem:
        """The problem with the bounds of the states of its scenarios replaced by terms of the objective of each.

        The nominal problem has the mean of their multipliers. Scenarios of a coarser mesh have none.
        """
        nominal = self.nominal.relaxed(tuple(each.averaged(self._penalty_shares) for each in relaxations))
        coarsened = None if relaxations else self.coarsened
        return replace(self, nominal=nominal, relaxations=relaxations, coarsened=coarsened)

    def shifted(self, covector: Tensor) -> ScenarioProblem:
        """The problem with <covector, u_s> added to the objective of every scenario, covector (1, n)."""
        free = torch.as_tensor(self.nominal.equation.free, device=covector.device)
        whole = covector.new_zeros(self.nominal.equation.size).index_copy(0, free, covector[0])

        def with_term(problem: PDEProblem) -> PDEProblem:
            terms = *problem.objective.state, LinearState(whole)
            return replace(problem, objective=replace(problem.objective, state=terms))

        return replace(self, nominal=with_term(self.nominal), make=lambda z, numbers: with_term(self.make(z, numbers)))

    def surplus(self, u: Tensor, v: Tensor) -> float:
        """The terms of the objective that enforce the bounds of the states, which are not in the file."""
        if not self.relaxations:
            return 0.0
        state = self.state(u, v)
        terms = [term for each in self.relaxations if (term := each.term()) is not None]
        return sum(float(self._penalty_shares @ term.value(state)) for term in terms)

    @property
    def penalty_weights(self) -> Tensor | None:
        """(S,) positive weights of the terms that enforce the bounds of the states; None if rho adds them correctly.

        Bounds hold in all scenarios, but a risk measure may leave scenarios out, and a quadrature may subtract some.
        """
        if not self.relaxations or (self.risk.linear and self._positive):
            return None
        return self._penalty_shares

    @cached_property
    def _positive(self) -> bool:
        return bool((self.weights > 0.0).all())

    @cached_property
    def _penalty_shares(self) -> Tensor:
        weights = self.weights if self._positive else torch.ones_like(self.weights)
        return weights / weights.sum()

    def extremes(self) -> Iterator[tuple[PDEProblem, str]]:
        """Problems of a few scenarios that are the most unlike the nominal one, one each, and what they are called.

        These are the scenarios with the longest vector of standard variables, and with the largest and smallest values
        of the first two.
        """
        found = [int(np.linalg.norm(self.z, axis=1).argmax())]
        for column in self.z.T[:2]:
            found += [int(column.argmax()), int(column.argmin())]
        for number in list(dict.fromkeys(found))[:_EXTREMES]:
            values = ", ".join(f"{value:.3g}" for value in self.z[number][:_SHOWN])
            more = ", ..." if self.z.shape[1] > _SHOWN else ""
            told = f"in scenario {number}, with the standard variables ({values}{more})"
            yield self.part(torch.tensor([number])), told

    def drawn(self, first: int, count: int) -> PDEProblem:
        """Scenarios of the stream."""
        assert self.stream is not None
        return self.make(self.stream(first, count), np.arange(first, first + count))

    def fresh(self, count: int, wide: bool, direction: np.ndarray | None = None) -> FreshSample:
        """Scenarios that judge the answer."""
        if not count:
            return FreshSample(self.z[:0], np.ones(0), ())
        assert self.judges is not None
        return self.judges(count, wide, direction)

    @cached_property
    def _parts(self) -> dict[bytes, PDEProblem]:
        return {}

    @cached_property
    def coarse(self) -> Coarse | None:
        return None if self.coarsened is None else self.coarsened()

    # Properties of the nominal problem

    @property
    def outer_size(self) -> int:
        return self.nominal.outer_size

    @property
    def inner_metric(self) -> RieszMap:
        return self.nominal.inner_metric

    @property
    def outer_metric(self) -> RieszMap:
        return self.nominal.outer_metric

    @property
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        return self.nominal.bounds

    @property
    def constraint(self) -> Constraint | None:
        return self.nominal.constraint

    @property
    def l1_weights(self) -> Tensor | None:
        return self.nominal.l1_weights

    @property
    def quadratic(self) -> bool:
        """Whether the problem is quadratic while the scenarios stay the same."""
        return self.nominal.quadratic and self.risk.linear

    @property
    def linear(self) -> bool:
        return self.nominal.linear

    @property
    def counts(self) -> Counts:
        return self.nominal.counts

    def refusal(self, v: Tensor) -> str:
        """A coefficient that v brings out of its range, in the nominal scenario or in one of the sample."""
        return self._said(lambda problem: problem.refusal(v))

    def barrier(self, start: Tensor, end: Tensor) -> str:
        """A coefficient that is not finite between two controls, in the nominal scenario or in one of the sample."""
        return self._said(lambda problem: problem.barrier(start, end))

    def _said(self, question: Callable[[PDEProblem], str]) -> str:
        said = question(self.nominal)
        if said or not self.mixed:
            return said
        parts = torch.split(torch.arange(len(self.z)), self.at_once)
        return next((said for indices in parts if (said := question(self.part(indices)))), "")

    def ends_at(self, v: Tensor) -> str:
        return self.nominal.ends_at(v)

    def start(self) -> tuple[Tensor, Tensor]:
        """The nominal state for every scenario, as one row that stands for all, and the first control."""
        u, v = self.nominal.start()
        return u.expand(len(self.z), -1), v

    def state(self, u: Tensor, v: Tensor) -> Tensor:
        """All coefficients (b, N) of the states of the first b scenarios, given coefficients included."""
        if self.same_data:
            return self.nominal.state(u, v)
        parts = torch.split(torch.arange(len(u)), self.at_once)
        return torch.cat([self.part(indices).state(u[indices], v) for indices in parts])

    def outer_value(self, u: Tensor, v: Tensor) -> float:
        """The objective over the first scenarios, whose states are u (b, n), with penalties and control terms."""
        return self._rho(u, v) + self.surplus(u, v) + self.nominal.control_value(v)

    def file_value(self, u: Tensor, v: Tensor) -> float:
        """The objective of the file, with its l1 terms and without the terms that enforce the bounds of the states."""
        l1 = 0.0 if self.l1_weights is None else dot(self.l1_weights, v.abs())
        return self._rho(u, v) + self.nominal.control_value(v) + l1

    def _rho(self, u: Tensor, v: Tensor) -> float:
        parts = torch.split(torch.arange(len(u)), self.at_once)
        values = torch.cat([self.part(indices).scenario_values(u[indices], v) for indices in parts])
        weights = self.weights[: len(u)]
        return self.risk.value(values, weights / weights.sum())


@dataclass(frozen=True, eq=False)
class Coarse:
    """The same scenarios on a coarser mesh. Implements the engine's `Coarse`.

    The restriction is the projection in the inner product of the controls, R = M_c^-1 P^T M.

    Attributes:
        problem: the problem on the coarser mesh.
        prolongation: (p, p_c) P, which gives the values of a coarse control at the nodes of the fine one.
        states: (n, n_c) the same matrix for states.
        metric: M, the inner product of the fine control.
    """

    problem: ScenarioProblem
    prolongation: SparseMatrix
    states: SparseMatrix
    metric: RieszMap

    def restrict(self, v: Tensor) -> Tensor:
        return self.problem.outer_metric.gradient(self.prolongation.rmv(self.metric.covector(v[None])))[0]

    def prolong(self, states: Tensor) -> Tensor:
        return self.states.mv(states)

    def shift(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.states.rmv(fine) - coarse

    def shifted(self, covector: Tensor) -> Coarse:
        known = self._shifted.get("last")
        if known is None or not torch.equal(known[0], covector):
            # The problem keeps its parts, whose matrices are made once.
            self._shifted["last"] = known = covector, replace(self, problem=self.problem.shifted(covector))
        return known[1]

    @cached_property
    def _shifted(self) -> dict[str, tuple[Tensor, Coarse]]:
        return {}

    def restrict_transposed(self, derivatives: Tensor) -> Tensor:
        if not len(derivatives):
            return derivatives.new_zeros(0, self.prolongation.shape[0])
        return self.metric.covector(self.prolongation.mv(self.problem.outer_metric.gradient(derivatives)))
