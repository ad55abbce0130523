"""The discrete state equation R(u, v) = 0: residual, derivatives and their products for all scenarios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from ..fem.pattern import Blocks
from ..linalg.counts import Counts
from ..linalg.differences import PointFunction
from ..linalg.factorisation import DIRECT
from ..linalg.solvers.base import LinearSolver
from ..linalg.sparse import Cuts, ScenarioMatrix
from .assembly import Assembly
from .form import Integral
from .given import GivenData
from .linearisation import ControlDerivative, Jacobian, Linearisation, StateDerivative
from .pointwise import integrand
from .ranges import InadmissibleError
from .rows import ControlRows
from .stiffness import Stiffness, stiffness_of
from .unassembled import UnassembledDerivative, loses_digits
from .zero_mean import ZeroMean

if TYPE_CHECKING:
    from .second_blocks import SecondProduct


@dataclass(frozen=True, eq=False)
class StateEquation:
    """R(u, v) = sum of integrals, tested with the free functions of the state space.

    Dirichlet values are condensed: the unknowns are the free coefficients; the other coefficients are the constants in
    `lift` or follow from controls. J is symmetric where the form is symmetric.

    Attributes:
        integrals: the integrals whose sum is R, with the same state space.
        size: N, the number of coefficients of the state.
        rows: maps controls to their values in the rows of the integrals.
        free: (n,) indices of the unknowns.
        lift: (N,) Dirichlet values, zero at the unknowns.
        scenarios: S, the number of scenarios.
        affine: R is affine in (u, v) jointly; its derivatives are assembled once.
        symmetric: J is symmetric.
        counts: counters of the work.
        data: the coefficients that follow from controls; None where there are none.
        linear: R is affine in u for every v; this holds for affine equations.
        zero_mean: a field that R determines up to a constant; None where there is none.
        easier: share -> the integrals with this share of their nonlinear parts; the equation with the share 0 is
            linear. None where the nonlinear parts cannot be scaled.
        solver: the solver of systems with J, or with its blocks.
        known_control: (n, width) the derivative of the integrals by the controls, if it is known from another equation.
    """

    integrals: tuple[Integral, ...]
    size: int
    rows: ControlRows
    free: np.ndarray
    lift: Tensor
    scenarios: int = 1
    affine: bool = False
    symmetric: bool = False
    counts: Counts = field(default_factory=Counts)
    data: GivenData | None = None
    linear: bool = False
    zero_mean: ZeroMean | None = None
    easier: Callable[[float], tuple[Integral, ...]] | None = None
    known_control: ScenarioMatrix | None = None
    solver: LinearSolver = DIRECT

    def eased(self, share: float) -> StateEquation:
        """The equation with a share of the parts that are nonlinear in u; the equation itself at the share 1."""
        if self.easier is None or share == 1.0:
            return self
        return replace(self, integrals=self.easier(share), easier=None)

    @property
    def unknowns(self) -> int:
        """n, the number of unknowns."""
        return len(self.free)

    @property
    def controls(self) -> int:
        """p, the number of entries of the controls."""
        return self.rows.size

    @property
    def repeats(self) -> int:
        """The number of copies of the state space in the unknowns: the steps of an evolution."""
        return self.rows.steps

    @property
    def spatial_free(self) -> np.ndarray:
        """The unknowns of one copy of the state space."""
        return self.free

    @property
    def measure(self) -> float:
        """The length of a step in time."""
        return 1.0

    def embed(self, u: Tensor, v: Tensor | None = None) -> Tensor:
        """Unknowns (S, n) -> all coefficients (S, N), with Dirichlet values and with those of a control v if given."""
        full = self.lift.expand(u.shape[0], -1).clone()
        if v is not None and self.data is not None:
            full = self.data.added(full, v)
        full[:, self._free] = u
        return full if self.zero_mean is None else self.zero_mean.apply(full)

    def extend(self, w: Tensor, v: Tensor | None = None, d: Tensor | None = None) -> Tensor:
        """The change of all coefficients (S, N) for changes w (S, n) of the unknowns and d (p,) of the controls v."""
        full = w.new_zeros(w.shape[0], self.size)
        if v is not None and d is not None and self.data is not None:
            full = self.data.moved(full, v, d)
        full[:, self._free] = w
        return full if self.zero_mean is None else self.zero_mean.apply(full)

    def restrict(self, covector: Tensor) -> Tensor:
        """Restricts a covector (S, N) on the whole space to the unknowns; (S, n)."""
        whole = covector if self.zero_mean is None else self.zero_mean.transposed(covector)
        return whole[:, self._free]

    def restrict_data(self, covector: Tensor, v: Tensor) -> Tensor:
        """Pulls a covector (S, N) back to the controls that determine coefficients; (p,), summed over the scenarios."""
        return covector.new_zeros(self.controls) if self.data is None else self.data.at(v).rmv_summed(covector)

    def bent_data(self, covector: Tensor, v: Tensor, d: Tensor) -> Tensor:
        """The derivative of `restrict_data` by v in a direction d (p,) with a fixed covector; (p,)."""
        return torch.zeros_like(v) if self.data is None else torch.zeros_like(v) + self.data.second(v, covector, d)

    def refusal(self, v: Tensor) -> str:
        """A sentence on a coefficient that leaves its range at the controls v (p,); empty where there is none."""
        if not (self._judged and torch.equal(self._judged[0][0], v)):
            rows = self.rows.spread(v)
            said = next((said for integral in self.guarded if (said := integral.refusal(rows))), "")
            said = said or ("" if self.data is None else self.data.refusal(v))
            self._judged[:] = [(v.clone(), said)]
        return self._judged[0][1]

    @cached_property
    def _judged(self) -> list[tuple[Tensor, str]]:
        return []

    @property
    def guarded(self) -> tuple[Integral, ...]:
        """The integrals with coefficients that have ranges."""
        return self.integrals

    def _admit(self, v: Tensor) -> None:
        if said := self.refusal(v):
            raise InadmissibleError(said)

    @cached_property
    def _free(self) -> Tensor:
        return torch.from_numpy(np.asarray(self.free, dtype=np.int64)).to(self.lift.device)

    @property
    def _symmetric_integrals(self) -> bool:
        """Whether the derivatives of the integrals by the coefficients are symmetric."""
        return self.symmetric

    @property
    def tests(self) -> tuple[EvaluationOperator, ...]:
        """The free functions of the state space, at the points of each integral."""
        return tuple(integral.evaluation.columns(self.spatial_free) for integral in self.integrals)

    def integrands(self, u: Tensor, v: Tensor) -> tuple[PointFunction, ...]:
        """The integrands as functions of values at points, with the derivatives that the equation computes."""
        stages, blocks = self._stages(self.embed(u, v)), self.linearise(u, v).blocks
        return tuple(
            integrand(integral, own, stages, v, self.rows, self.affine)
            for integral, own in zip(self.integrals, blocks, strict=True)
        )

    def integrated(self, u: Tensor, v: Tensor) -> Tensor:
        """R(u, v) from the integrals; the `residual` of an affine equation is computed from its derivatives instead."""
        return self._residual(self.embed(u, v), v)

    def residual(self, u: Tensor, v: Tensor) -> Tensor:
        """R(u, v), a dual vector (S, n)."""
        self.counts.residuals += u.shape[0]
        if self.affine:
            derivative, constant = self._affine_parts
            return self._operator(derivative).mv(u) + derivative.control.mv(v) + constant
        self._admit(v)
        if self.stiffness is not None:
            return self.restrict(self.stiffness.residual(self.embed(u, v), v))
        return self._residual(self.embed(u, v), v)

    def _residual(self, full: Tensor, v: Tensor) -> Tensor:
        return self.restrict(self._integrate(full, v))

    def _integrate(self, stages: Tensor, v: Tensor) -> Tensor:
        """The integrals tested with every function, at coefficients of the state; both (rows, size of the space)."""
        total = torch.zeros_like(stages)
        rows = self.rows.spread(v)
        for integral in self.integrals:
            density = integral.density(integral.evaluation.evaluate(stages), integral.control_values(rows))
            total = total + integral.evaluation.test(density)
        return total

    def linearise(self, u: Tensor, v: Tensor) -> Linearisation:
        """J and R_v at (u, v). Those of the last point are kept with the factors of J."""
        if self.affine:
            return self._affine_parts[0]
        self._admit(v)
        known: Jacobian | None = None
        for at_u, at_v, derivative in self._last:
            if torch.equal(at_v, v):
                if torch.equal(at_u, u):
                    return derivative
                # The factors are kept where only R_v has changed.
                known = derivative.jacobian if self.linear else None
        full = self.embed(u, v)
        found = self.stiffness
        derivative = self._linearise(full, v) if found is None else found.linearised(self, full, v, known)
        if known is not None and found is None:
            derivative = replace(derivative, jacobian=known)
        self._last[:] = [(u.clone(), v.clone(), derivative)]
        return derivative

    def load_share(self, g: Tensor) -> float | None:
        """c where R(u, v) = J(v) u - b with a symmetric J, and g (S, n) is c b; None where it is not, or not known."""
        return None if self.stiffness is None else self.stiffness.load_share(g)

    @cached_property
    def stiffness(self) -> Stiffness | None:
        """R as a sum with the coefficients that controls change; None where the equation is of another kind."""
        return stiffness_of(self)

    @cached_property
    def _last(self) -> list[tuple[Tensor, Tensor, Linearisation]]:
        return []

    @property
    def constant_linearisation(self) -> Linearisation:
        """The derivatives of an affine equation."""
        return self._affine_parts[0]

    @cached_property
    def _affine_parts(self) -> tuple[Linearisation, Tensor]:
        v = self.lift.new_zeros(self.controls)
        full = self.embed(self.lift.new_zeros(self.scenarios, self.unknowns), v)
        derivative = self._linearise(full, v)
        return derivative, self._constant(full, v, derivative)

    def _constant(self, full: Tensor, v: Tensor, derivative: Linearisation) -> Tensor:
        """R of an affine equation at the coefficients `full` of the zero state, with Dirichlet values."""
        if any(integral.closed is None for integral in self.integrals):
            return self._residual(full, v)
        load = sum((integral.closed_load() for integral in self.integrals), full.new_zeros(1, self.size))
        if torch.count_nonzero(full):
            load = load + derivative.whole.mv(full)
        return self.restrict(load).expand(self.scenarios, -1)

    def _assemble(self, stages: Tensor, v: Tensor) -> tuple[ScenarioMatrix, ScenarioMatrix | None, tuple[Blocks, ...]]:
        """The derivatives of the integrals by the coefficients (N, N) and the controls (N, width), and the blocks.

        The blocks are the derivatives of the integrands by the state, of which the first matrix is assembled.
        """
        # A known derivative by the controls is not computed again.
        acting = [self.known_control is None and integral.controlled for integral in self.integrals]
        if not any(acting) and not self._controlled:
            raise ValueError("the control does not enter the equation")
        return self._assembly.derivatives(stages, self.rows.spread(v), acting)

    @cached_property
    def _assembly(self) -> Assembly:
        return Assembly(self.integrals, self.affine, self._symmetric_integrals)

    @cached_property
    def _cuts(self) -> Cuts:
        return Cuts()

    @property
    def _controlled(self) -> bool:
        """Whether controls enter the equation in another way than through the integrals."""
        return self.data is not None or self.known_control is not None

    def _linearise(self, full: Tensor, v: Tensor) -> Linearisation:
        state, control, blocks = self._assemble(full, v)
        # All matrices are assembled with one pattern on the whole space, then Dirichlet rows and columns are cut out.
        direct = self.known_control if control is None else self._assembly.restricted(control, self.free)
        derivative = ControlDerivative(self.rows, direct, scenarios=self.scenarios)
        if self.data is not None:
            through = state.restrict(self.free, np.arange(self.size))
            derivative = replace(derivative, through=through, data=self.data.at(v))
        # The J of an affine equation is cut once.
        cut = Cuts() if self.affine else self._cuts
        jacobian = Jacobian(cut.of(state, self.free, self.free), lambda: state, self.counts, self.solver)
        return Linearisation(jacobian, derivative, lambda: blocks)

    def state_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """J w, (S, n)."""
        self.counts.products += w.shape[0]
        return self._operator(self.linearise(u, v)).mv(w)

    def state_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """J^T w, (S, n)."""
        self.counts.products += w.shape[0]
        return self._operator(self.linearise(u, v)).rmv(w)

    def _operator(self, derivative: Linearisation) -> StateDerivative | UnassembledDerivative:
        """The operator with which products with J are computed."""
        return derivative.state if self._accurate is None else self._accurate

    @cached_property
    def _accurate(self) -> UnassembledDerivative | None:
        """J of one scenario without its matrix, where J is constant and rounding errors of its products matter."""
        if not self.affine or self.scenarios > 1:
            return None
        derivative = self.constant_linearisation
        if not isinstance(derivative.state, ScenarioMatrix) or not loses_digits(derivative.state):
            return None
        evaluations = (integral.evaluation for integral in self.integrals)
        return UnassembledDerivative(self, tuple(zip(evaluations, derivative.blocks, strict=True)))

    def control_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """R_v w for a control direction w (p,); (S, n)."""
        return self.linearise(u, v).control.mv(w)

    def control_product_transposed(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """R_v^T w for w (S, n); (p,), summed over the scenarios."""
        return self.linearise(u, v).control.rmv(w)

    def scenario_control_products(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """R_v^T w for w (S, n); (S, p), for each scenario."""
        return self.linearise(u, v).control.each_rmv(w)

    def each_restrict_data(self, covector: Tensor, v: Tensor) -> Tensor:
        """Pulls a covector (S, N) back to the controls that determine coefficients; (S, p), for each scenario."""
        return covector.new_zeros(len(covector), self.controls) if self.data is None else self.data.at(v).rmv(covector)

    def second_derivative(self, u: Tensor, v: Tensor, w: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of (J^T w, R_v^T w) in the direction (du, dv) with fixed w (S, n); (S, n) and (p,)."""
        if self.affine:
            return torch.zeros_like(u), torch.zeros_like(v)
        whole, control = self.second_parts(self.embed(u, v), v, w, self.extend(du, v, dv), dv)
        control = control + self.restrict_data(whole, v)
        if self.data is not None and self.data.parameters:
            # R_v^T w has the derivative of the given coefficients as a factor, which also changes with v.
            control = control + self.bent_data(self.linearise(u, v).control.whole_rmv(w), v, dv)
        return self.restrict(whole), control

    def second_parts(self, full: Tensor, v: Tensor, w: Tensor, step: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        """w times the second derivative along (step, dv): by all coefficients (S, N), and by the controls (p,)."""
        stages, step = self._stages(full), self._stages(step)
        state, control = torch.zeros_like(stages), torch.zeros_like(v)
        moves = self.rows.spread(dv)
        for integral, second in zip(self.integrals, self._second(stages, v, w), strict=True):
            for_state, for_control = second(integral.evaluation.evaluate(step), integral.control_values(moves))
            if for_state is not None:
                state = state + integral.evaluation.test(for_state)
            if for_control is not None:
                control = control + self.rows.gather(integral.control_test(for_control))
        return self._stages_transposed(state), control

    def _second(self, stages: Tensor, v: Tensor, w: Tensor) -> tuple[SecondProduct, ...]:
        """The second derivatives of the integrals, tested with w. Those of the last point with one row are kept."""
        if self._last_second and all(map(torch.equal, self._last_second[0][0], (stages, v, w))):
            return self._last_second[0][1]
        from .second_blocks import second_product

        rows, tests = self.rows.spread(v), self._tests(w)
        at = [(each, each.evaluation.evaluate) for each in self.integrals]
        found = tuple(second_product(each, of(stages), each.control_values(rows), of(tests)) for each, of in at)
        self._last_second[:] = [((stages.clone(), v.clone(), w.clone()), found)] if len(stages) == 1 else []
        return found

    @cached_property
    def _last_second(self) -> list[tuple[tuple[Tensor, Tensor, Tensor], tuple[SecondProduct, ...]]]:
        return []

    # The coefficients at which the integrals are evaluated; in an evolution they lie between the levels in time.

    def _stages(self, full: Tensor) -> Tensor:
        """All coefficients (S, N) -> coefficients (rows, size of the space) at which the integrands are evaluated."""
        return full

    def _stages_transposed(self, covector: Tensor) -> Tensor:
        """The transpose of `_stages`; (S, N)."""
        return covector

    def _tests(self, w: Tensor) -> Tensor:
        """The test functions w (S, n) of the rows, as coefficients of the space."""
        return self.extend(w)
