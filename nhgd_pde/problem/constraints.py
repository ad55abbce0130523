"""From the `constraints` section to the constraints: a volume for the engine, bounds of the state as penalties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..control.spaces import Controls
from ..linalg.sparse import SparseMatrix
from ..objective.constraints import ConstraintReport, StateConstraint, VolumeConstraint
from ..objective.integral import IntegralTerm
from .clock import Clock
from .constraint_spec import StateSpec, VolumeSpec
from .entry import Entry
from .objectives import ObjectiveBuilder
from .values import Values


@dataclass(frozen=True)
class Penalised:
    """A constraint of the state and the factors of its penalty, one a stage; the last is the problem's."""

    constraint: StateConstraint
    factors: tuple[float, ...]

    def term(self, terms: ObjectiveBuilder, factor: float) -> IntegralTerm:
        """factor/2 int of the squared excess (Moreau and Yosida)."""
        constraint, component = self.constraint, self.constraint.component

        def density(u: Tensor, grad: Tensor, v: Tensor, grad_v: Tensor, x: Tensor) -> Tensor:
            values = u if u.ndim == 2 else u[component // (1 + len(x))]
            return 0.5 * factor * constraint.excess(values).square()

        weights = constraint.weights / constraint.evaluation.quadrature.weights.reshape(-1)
        return IntegralTerm(
            density,
            constraint.evaluation,
            None,
            terms.controls.rows,
            weights.reshape(constraint.evaluation.quadrature.weights.shape),
            constraint.stages,
            constraint.measure,
        )


@dataclass
class ConstraintBuilder:
    """
    Attributes:
        values: evaluates expressions and collects mistakes.
        entries: the controls.
        controls: the same side by side.
        terms: what knows the regions of integrals.
        clock: the times of an evolution; None of a steady problem.
    """

    values: Values
    entries: Sequence[Entry]
    controls: Controls
    terms: ObjectiveBuilder
    clock: Clock | None
    volume: tuple[VolumeSpec, int] | None = None
    states: list[Penalised] = field(default_factory=list)

    def build(self) -> None:
        for k, spec in enumerate(self.values.file.spec.constraints):
            key = f"constraints.{k}"
            match spec:
                case VolumeSpec():
                    if self.volume is not None:
                        self.values.complain(f"{key}.kind", "expected one volume constraint, found a second one")
                    number = self._density(key, spec)
                    if number is not None:
                        self.volume = spec, number
                case StateSpec():
                    self.states.append(self._state(key, spec))

    def _density(self, key: str, spec: VolumeSpec) -> int | None:
        densities = {entry.part.name: k for k, entry in enumerate(self.entries) if entry.density is not None}
        if spec.control is None and len(densities) == 1:
            return next(iter(densities.values()))
        if spec.control in densities:
            return densities[spec.control]
        known = ", ".join(densities)
        if not densities:
            self.values.complain(f"{key}.kind", "expected a control of kind density, whose volume it is; found none")
        else:
            given = "null" if spec.control is None else repr(spec.control)
            self.values.complain(f"{key}.control", f"expected the name of a density ({known}), found {given}")
        return None

    def volume_constraint(self, coefficients: dict[str, Tensor]) -> VolumeConstraint | None:
        """With the slope that a stage has among its coefficients."""
        if self.volume is None:
            return None
        spec, number = self.volume
        entry = self.entries[number]
        evaluation = entry.part.evaluation
        weights = (evaluation.quadrature.weights * entry.part.weight[0]).reshape(-1)
        density, material = entry.density, None
        if density is not None and density.projection is not None:
            chosen, slope = density, coefficients.get(density.slope, entry.coefficients[density.slope])

            def material(v: Tensor) -> Tensor:
                return chosen.material(v, slope)

        return VolumeConstraint(self.controls, number, evaluation, weights / weights.sum(), spec.fraction, material)

    def _state(self, key: str, spec: StateSpec) -> Penalised:
        evaluation, region = self.terms.region(f"{key}.on", spec.on)
        count = self.terms.state.groups[0].components
        component = spec.component
        if component >= count:
            self.values.complain(f"{key}.component", f"expected a component below {count}, found {component}")
            component = 0
        x = evaluation.quadrature.flat
        times = None if self.clock is None else self.clock.stages
        bounds: dict[str, Tensor | None] = {}
        for side, given in (("lower", spec.lower), ("upper", spec.upper)):
            bounds[side] = (
                None if given is None else self.values.tensor(self.values.formula(f"{key}.{side}", given, x, times))
            )
        lower, upper = bounds["lower"], bounds["upper"]
        if lower is not None and upper is not None and bool(torch.as_tensor(lower > upper).any()):
            self.values.complain(f"{key}.lower", "expected lower <= upper everywhere, found lower above upper")
        stages = None
        if self.clock is not None:
            stages = SparseMatrix(self.clock.stages_of(self.terms.state.size), self.terms.state.device)
        weights = (evaluation.quadrature.weights * self.values.tensor(region)).reshape(-1)
        constraint = StateConstraint(
            evaluation,
            evaluation.stride * component,
            lower,
            upper,
            weights,
            stages,
            1.0 if self.clock is None else self.clock.step,
        )
        factors = spec.penalty * 10.0 ** np.arange(1 - spec.stages, 1.0)
        return Penalised(constraint, tuple(float(factor) for factor in factors))

    def reports(self, volume: VolumeConstraint | None) -> tuple[ConstraintReport, ...]:
        found: list[ConstraintReport] = [each.constraint for each in self.states]
        return tuple(found if volume is None else [volume, *found])
