"""Sample average approximation: every gradient uses all scenarios.

The equations are solved by the factors of every scenario, or by conjugate gradients that the factors of the nominal
scenario precondition. The matrices of all scenarios stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from ..engine.bilevel import StateFactors
from ..engine.certificate import Sensitivity
from ..engine.oracle import Accuracy
from ..engine.outer.reduced_objective import Evaluation, failed_evaluation
from ..engine.plain import from_plain, to_plain
from ..engine.scales import GradientScales, gradient_scales
from ..engine.scenarios.footprint import Footprint
from ..engine.scenarios.part_equations import RowSolutions, SharedInverse, relative
from ..engine.scenarios.part_solution import PartSolver, solve_part_adjoints, solve_part_states
from ..engine.scenarios.scenario_bilevel import ScenarioBilevelProblem
from ..linalg.factorisation import SingularMatrixError
from ..linalg.memory import available_bytes
from .compared_method import Compared
from .factor_solver import FactorisedPart, FactorSolver
from .nominal import Nominal

# Scenarios with a smaller weight than this, relative to the largest one, change no digit of the gradient.
_NO_SHARE = 1e-16

# The error of a solution, its length, and the least length that the error counts relative to.
_Found = tuple[float, float, float]


@runtime_checkable
class SizedFactors(Protocol):
    """Factors that know how much memory they take."""

    @property
    def bytes(self) -> int: ...


@dataclass
class _Kept:
    """Objects that stay in memory from one evaluation to the next, and are made again after a restart.

    Attributes:
        parts: parts of the scenarios, by the number of their first scenario.
        factors: factors of parts whose J does not change.
    """

    parts: dict[int, FactorisedPart] = field(default_factory=dict)
    factors: dict[int, StateFactors] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleAverageState:
    """Data that are carried from one evaluation to the next.

    Attributes:
        kept: matrices, and factors.
        known: states and adjoints (S, n) of the last evaluation; None before.
        nominal: the nominal scenario; None where every scenario has factors.
        sensitivity: see `Sensitivity`.
    """

    kept: _Kept
    known: tuple[Tensor, Tensor] | None
    start: Tensor
    nominal: Nominal | None
    sensitivity: Sensitivity = field(default_factory=Sensitivity)

    @property
    def u(self) -> Tensor:
        return self.start if self.known is None else self.known[0]

    @property
    def q(self) -> Tensor | None:
        return None

    @property
    def description(self) -> str:
        return "factors of every scenario" if self.nominal is None else "conjugate gradients with the nominal factors"

    def blend(self, other: SampleAverageState, share: float) -> SampleAverageState:
        known, nominal = other.known, other.nominal
        if self.known is not None and known is not None:
            known = torch.lerp(self.known[0], known[0], share), torch.lerp(self.known[1], known[1], share)
        if self.nominal is not None and nominal is not None:
            nominal = self.nominal.blend(nominal, share)
        return replace(other, known=known, nominal=nominal)


@dataclass(frozen=True)
class SampleAverage(Compared):
    """Options; an `Oracle`.

    Attributes:
        solver: `factors` of every scenario, made once where J does not depend on v or u; or `nominal`.
        tolerance: relative error of states and adjoints with `nominal`; None takes that which the outer method needs.
        warm: start from the last solutions; else from that of the nominal scenario.
        memory: bytes that the factors of all scenarios may take; None: three quarters of the free memory.
    """

    solver: Literal["factors", "nominal"] = "nominal"
    tolerance: float | None = 1e-4
    warm: bool = True
    memory: float | None = None
    name: str = "sample_average"
    summary: ClassVar[str] = "exact or inexact adjoints of all scenarios"

    @classmethod
    def factory(cls, tests: int = 64, **options: Any) -> Self:
        """The method with the options of a problem file, in which no tolerance follows the outer method."""
        solver: Literal["factors", "nominal"] = "factors" if options["solver"] == "factors" else "nominal"
        return cls(solver, options["tolerance"], options["warm"])

    @property
    def rough(self) -> bool:
        return self.solver == "nominal"

    def scenario_bytes(self, footprint: Footprint) -> float:
        factors = footprint.factors if self.solver == "factors" else 0.0
        return footprint.rows + footprint.count * (footprint.matrix + factors)

    def init(self, problem: ScenarioBilevelProblem, u: Tensor, v: Tensor) -> SampleAverageState:
        nominal = Nominal.start(problem, v) if self.solver == "nominal" else None
        return SampleAverageState(_Kept(), None, u, nominal)

    def evaluate(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: SampleAverageState, accuracy: Accuracy
    ) -> tuple[Evaluation, SampleAverageState]:
        """Raises: ValueError: the factors of all scenarios do not fit into memory."""
        try:
            return self._evaluate(problem, v, state, accuracy)
        except SingularMatrixError as singular:
            return failed_evaluation(v, str(singular)), state

    def _evaluate(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: SampleAverageState, accuracy: Accuracy
    ) -> tuple[Evaluation, SampleAverageState]:
        tolerance = self.tolerance or min(accuracy.state, accuracy.adjoint)
        nominal = state.nominal
        if nominal is not None:
            nominal, message = nominal.at(problem, v, tolerance, renew=1)
            if message:
                return failed_evaluation(v, message), state
        solves = _Solves(self, problem, v, state, nominal, tolerance)
        parts = list(solves.parts())
        mean = problem.risk.linear and problem.penalty_weights is None
        for indices, part in parts:
            solves.states(indices, part)
            if mean:
                solves.adjoints(indices, part)
        if not mean and not solves.message:
            solves.shares, solves.slopes = _shares(problem, solves.values)
            for indices, part in parts:
                solves.adjoints(indices, part)
        if solves.message:
            return failed_evaluation(v, solves.message), state
        derivative = solves.derivative + problem.nominal.control_derivative(v)
        errors = solves.errors
        sensitivity = state.sensitivity.updated(problem.nominal, solves.u, solves.p, solves.derivative, max(errors))
        risk, weights = problem.risk, problem.weights
        value = risk.value(solves.values, weights)
        evaluation = Evaluation(
            v=v,
            value=value + solves.penalty + problem.nominal.control_value(v),
            derivative=derivative,
            gradient=problem.outer_metric.gradient(derivative[None])[0],
            state_error=errors[0],
            adjoint_error=errors[1],
            sensitivity=sensitivity.value,
            inner_steps=solves.steps[0],
            refinement_steps=solves.steps[1],
            scenarios=len(solves.values),
            smoothing_gap=0.0 if mean else risk.exact(solves.values, weights) - value,
        )
        if not evaluation.finite:
            return evaluation, state
        known = solves.u, solves.p
        return evaluation, replace(state, known=known, nominal=nominal, sensitivity=sensitivity)

    def scales(
        self, problem: ScenarioBilevelProblem, v: Tensor, state: SampleAverageState, evaluation: Evaluation
    ) -> GradientScales:
        """The natural size of the gradient of the last evaluation; takes two solves per scenario."""
        assert state.known is not None
        u, p = state.known
        solves = _Solves(self, problem, v, state, state.nominal, 1.0)
        parts = list(solves.parts())
        values = torch.cat([part.scenario_values(u[indices], v) for indices, part in parts])
        shares, slopes = _shares(problem, values)
        own = problem.nominal.control_derivative(v)
        direct = own + sum(shares[at] @ part.scenario_derivatives(u[at], v, _of(slopes, at))[1] for at, part in parts)

        def derivative_at(changed: Tensor) -> Tensor:
            found = own
            for at, part in parts:
                right, outer = part.scenario_derivatives(changed[at], v, _of(slopes, at))
                left = right - part.state_product_transposed(changed[at], v, p[at])
                adjoint = p[at] + solves.solved_transposed(at, part, u[at], left)
                found = found + shares[at] @ (outer - part.scenario_control_products(changed[at], v, adjoint))
            return found

        return gradient_scales(problem.outer_metric, u, direct, evaluation, derivative_at)

    def save(self, state: SampleAverageState) -> dict[str, Any]:
        nothing: Any = None
        rest = to_plain(replace(state, kept=nothing, nominal=None))
        return {"state": rest, "nominal": None if state.nominal is None else state.nominal.save()}

    def restore(self, problem: ScenarioBilevelProblem, saved: dict[str, Any]) -> SampleAverageState:
        state = from_plain(saved["state"], problem.start()[0].device)
        nominal = None if saved["nominal"] is None else Nominal.restore(problem, saved["nominal"])
        return replace(state, kept=_Kept(), nominal=nominal)


def _shares(problem: ScenarioBilevelProblem, values: Tensor) -> tuple[Tensor, Tensor | None]:
    """(S,) the factors with which hypergradients of scenarios are added up, and the factors of f_s in these if not
    one."""
    weights = problem.weights if problem.risk.linear else problem.risk.derivative(values, problem.weights)
    penalties = problem.penalty_weights
    return (weights, None) if penalties is None else (penalties, weights / penalties)


def _of(slopes: Tensor | None, indices: Tensor) -> Tensor | None:
    return None if slopes is None else slopes[indices]


class _Solves:
    """States and adjoints of one evaluation, part by part."""

    def __init__(
        self,
        options: SampleAverage,
        problem: ScenarioBilevelProblem,
        v: Tensor,
        state: SampleAverageState,
        nominal: Nominal | None,
        tolerance: float,
    ) -> None:
        self.options, self.problem, self.v, self.kept, self.nominal = options, problem, v, state.kept, nominal
        count, n = problem.inner_shape
        self.u, self.p = v.new_zeros(count, n), v.new_zeros(count, n)
        known = state.known if options.warm or nominal is None else None
        if known is not None:
            self.u, self.p = known[0].clone(), known[1].clone()
        elif nominal is not None:
            self.u, self.p = nominal.u.expand(count, -1).clone(), nominal.p.expand(count, -1).clone()
        else:
            self.u = state.start.clone()
        self.goal = None if nominal is None else nominal.tolerances(problem, tolerance)
        self.values, self.derivative = v.new_zeros(count), torch.zeros_like(v)
        self.shares = problem.weights
        # Factors of the f_s in the hypergradients, and the sum of the penalties, which are no part of the measure.
        self.slopes: Tensor | None = None
        self.penalty = 0.0
        # For states and for adjoints, part by part: (error, length, least length that the error counts relative to).
        self.found: tuple[list[_Found], list[_Found]] = ([], [])
        self.steps, self.message = [0, 0], ""

    def parts(self) -> Iterator[tuple[Tensor, FactorisedPart]]:
        """The numbers of the scenarios of each part, and the part, which is made once."""
        for indices in torch.split(torch.arange(len(self.values)), self.problem.at_once):
            first = int(indices[0])
            if first not in self.kept.parts:
                made: Any = self.problem.part(indices)
                self.kept.parts[first] = made
            yield indices, self.kept.parts[first]

    @property
    def errors(self) -> list[float]:
        """The largest relative errors of states and adjoints; solutions of zero count by the lengths of others."""
        found = []
        for parts in self.found:
            longest = max((length for _, length, _ in parts), default=0.0)
            found.append(max((relative(error, least, longest) for error, _, least in parts), default=0.0))
        return found

    def _solver(self, indices: Tensor) -> PartSolver:
        if self.nominal is None or self.goal is None:
            return FactorSolver(partial(self._factors, indices))
        return SharedInverse(self.nominal.inverse, self.goal)

    def states(self, indices: Tensor, part: FactorisedPart) -> None:
        """Solve for the states of a part, and evaluate its values, with the adjoints of the last evaluation."""
        if self.message:
            return
        found = solve_part_states(part, self.v, self.u[indices], self.p[indices], self._solver(indices))
        self._took(0, found.states)
        self.u[indices], self.values[indices] = found.states.solution, found.values
        weights = self.problem.penalty_weights
        if weights is None:
            self.values[indices] += found.penalties
        else:
            self.penalty += float(weights[indices] @ found.penalties)

    def adjoints(self, indices: Tensor, part: FactorisedPart) -> None:
        """Solve for the adjoints of the scenarios of a part that have a weight, and add up their hypergradients."""
        shares = self.shares[indices]
        needed = shares.abs() > _NO_SHARE * self.shares.abs().max()
        if self.message or not bool(needed.any()):
            return
        solver, slopes = self._solver(indices), _of(self.slopes, indices)
        found, rows = solve_part_adjoints(part, self.v, self.u[indices], self.p[indices], solver, slopes, needed)
        self._took(1, found)
        self.p[indices] = torch.where(needed[:, None], found.solution, self.p[indices])
        self.derivative += shares @ rows

    def solved_transposed(self, indices: Tensor, part: FactorisedPart, u: Tensor, right: Tensor) -> Tensor:
        """Adjoints by the factors of the scenarios at u, or by those of the nominal one."""
        if self.nominal is not None:
            return self.nominal.inverse.adjoint(right)
        return self._factors(indices, part, u).solve_transposed(right)

    def _factors(self, indices: Tensor, part: FactorisedPart, u: Tensor) -> StateFactors:
        """The factors of a part at u, which are kept where J is the same everywhere."""
        first = int(indices[0])
        if first in self.kept.factors:
            return self.kept.factors[first]
        factors = part.state_factors(u, self.v)
        if self.problem.nominal.quadratic:
            self._admit(factors, len(indices))
            self.kept.factors[first] = factors
        return factors

    def _admit(self, factors: StateFactors, scenarios: int) -> None:
        """Raises: ValueError: there is no memory for factors of all scenarios like these."""
        if not isinstance(factors, SizedFactors):
            return
        count = len(self.values)
        held = sum(each.bytes for each in self.kept.factors.values() if isinstance(each, SizedFactors))
        allowed = self.options.memory
        if allowed is None:
            allowed = 0.75 * available_bytes(self.v.device) + held + factors.bytes
        needed = factors.bytes / scenarios * count
        if needed > allowed:
            raise ValueError(
                f"sample_average: the factors of {count:,} scenarios take about {needed:,.0f} bytes, of which "
                f"{allowed:,.0f} may be used; take solver nominal, fewer scenarios or a coarser mesh"
            )

    def _took(self, kind: int, found: RowSolutions) -> None:
        self.message = self.message or found.message
        length = float(found.length.max())
        least = length if self.goal is None else (self.goal.state_length, self.goal.adjoint_length)[kind]
        self.found[kind].append((float(found.error.max()), length, least))
        self.steps[kind] = max(self.steps[kind], found.steps)
