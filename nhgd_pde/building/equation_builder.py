"""From the parts of a problem to its state equation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import Tensor

from ..linalg.solvers.base import LinearSolver
from ..linalg.sparse import ScenarioMatrix
from ..pde.boundary import neumann
from ..pde.equation import StateEquation
from ..pde.evolution import EvolutionEquation, capacity_matrix
from ..pde.form import Integral, Pointwise
from .dependence import INERTIA
from .dirichlet import controlled_coefficients
from .entry import Entry
from .families.base import Interior
from .frame import Frame
from .integrals import acting_controls, inertia_integral, place_of
from .linear_solver import linear_solver, solver_of
from .values import Values


@dataclass(frozen=True, eq=False)
class EquationBuilder:
    """Makes the state equation in one stage of a continuation, nominal or in scenarios.

    Attributes:
        frame: the parts of the problem.
        stage: the number of the stage.
        coefficients: the coefficients of the controls that have other values in other stages.
    """

    frame: Frame
    stage: int
    coefficients: dict[str, Tensor]

    def build(self, values: Values, nominal: StateEquation | None = None) -> StateEquation:
        """The equation in the scenarios of `values`.

        Args:
            values: the values in the nominal problem or in scenarios.
            nominal: the nominal equation, for an equation in scenarios.
        """
        frame, affine = self.frame, self.frame.interior(self.frame.values).affine
        interior, given, integrals = frame.interior(values), frame.given(values), self._integrals(values)
        data = values.kept(
            "controlled values",
            values.names.in_given,
            partial(controlled_coefficients, frame.state, given, frame.entries, frame.controls, frame.clock),
        )
        common = {
            "integrals": integrals,
            "rows": frame.controls.rows,
            "lift": given.unparametrised,
            "scenarios": values.rows,
            "affine": affine and all(entry.additive for entry in frame.entries),
            "linear": affine,
            "counts": frame.counts,
            "data": data,
            "solver": self._solver(interior),
        }
        free = np.flatnonzero(~frame.fixed)
        if frame.clock is not None:
            return self._evolution(values, free, common)
        found = StateEquation(
            size=frame.state.size,
            free=free,
            symmetric=frame.properties.symmetric,
            zero_mean=frame.zero_mean(frame.values),
            easier=None if interior.eased is None else partial(_easier, integrals, interior.eased),
            **common,  # type: ignore[arg-type]
        )
        return found if nominal is None else replace(found, known_control=_known_control(found, nominal))

    def _solver(self, interior: Interior) -> LinearSolver:
        frame = self.frame
        options = frame.values.once("solver", partial(solver_of, frame.file))
        free, steady = np.flatnonzero(~frame.fixed), frame.clock is None
        return linear_solver(options, frame.state, free, interior, frame.properties, steady)

    def _evolution(self, values: Values, free: np.ndarray, common: dict[str, object]) -> EvolutionEquation:
        frame, interior, names = self.frame, self.frame.interior(values), values.names.in_cells
        clock, state = frame.clock, frame.state
        assert clock is not None and interior.capacity is not None
        capacity, count = interior.capacity, state.groups[0].components
        derived = range(count) if interior.derived is None else interior.derived
        still = np.arange(state.offsets[len(derived)], state.size)
        inertia = values.kept(
            "inertia", names, lambda: self._acting(INERTIA, inertia_integral(values, state, interior), [])
        )
        return EvolutionEquation(
            size=(clock.steps + 1) * state.size,
            free=(np.arange(1, clock.steps + 1)[:, None] * state.size + free).reshape(-1),
            mass=values.kept("mass", names, lambda: capacity_matrix(state.cells, derived, capacity, interior.carrier)),
            inertia=inertia if inertia.controls else None,
            theta=clock.theta,
            first=clock.first,
            step=clock.step,
            symmetric_steps=frame.properties.symmetric,
            multipliers=still if len(still) else None,
            **common,  # type: ignore[arg-type]
        )

    def _integrals(self, values: Values) -> tuple[Integral, ...]:
        """The integrals of the equation, the first of which is over the cells, with the controls in them."""
        frame = self.frame

        def with_controls(name: str | None, integral: Integral) -> Integral:
            acting = [entry for entry in frame.entries if entry.maps and entry.where == name]
            return self._acting(place_of(name), integral, acting)

        found = []
        for name, integral in frame.integrals(values).items():
            make = partial(with_controls, name, integral)
            found.append(values.kept(("integral", name, self.stage), values.names.in_integral(name), make))
        return tuple(found)

    def _acting(self, place: str, integral: Integral, acting: list[Entry]) -> Integral:
        frame, like = self.frame, integral.evaluation
        make = partial(acting_controls, frame.values, place, like, frame.entries, frame.controls, acting)
        return frame.values.once(("acting controls", place), make).enter(integral, self.coefficients)


def _known_control(equation: StateEquation, nominal: StateEquation) -> ScenarioMatrix | None:
    """R_v of the nominal problem where random inputs do not change it."""
    if not equation.affine:
        return None
    # There a control adds to what stands beside phi alone, whatever the other coefficients are. A form may be
    # closed in these scenarios and not in the nominal one: that of advection where there is nothing to stabilise.
    every = (*equation.integrals, *nominal.integrals)
    acting = [integral for integral in every if integral.control_evaluation is not None]
    if any(integral.closed is None and integral.form is not neumann for integral in acting):
        return None
    if isinstance(nominal, EvolutionEquation):
        return None
    known = nominal.constant_linearisation.control.direct
    assert known is None or isinstance(known, ScenarioMatrix)
    return known


def _easier(integrals: tuple[Integral, ...], form: Callable[[float], Pointwise], share: float) -> tuple[Integral, ...]:
    """The integrals of an equation with a share of what makes the first of them, over the cells, nonlinear."""
    return replace(integrals[0], form=form(share)), *integrals[1:]
