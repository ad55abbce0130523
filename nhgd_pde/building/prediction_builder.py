"""From the predictions of a problem file to functionals of the state and of the controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..control.controls import Controls
from ..fem.evaluation_operator import EvaluationOperator
from ..fem.interpolation import OutsideMeshError, at_points
from ..fem.spaces import Space
from ..fem.state_space import StateSpace
from ..objective.terms import Prediction
from ..problem_file.inference_spec import PredictionSpec
from .clock import Clock
from .values import Values


@dataclass(frozen=True)
class PredictionBuilder:
    """Makes the predictions of a problem file.

    Attributes:
        values: evaluates expressions and collects mistakes.
        state: the state space.
        controls: the discrete controls.
        clock: the times of an evolution, whose state is that at its end; None of a steady problem.
    """

    values: Values
    state: StateSpace
    controls: Controls
    clock: Clock | None

    def build(self, specs: Sequence[PredictionSpec]) -> tuple[Prediction, ...]:
        """Every prediction that is without a mistake."""
        found = (self._one(f"inference.predict.{k}", each) for k, each in enumerate(specs))
        return tuple(each for each in found if each is not None)

    def _one(self, key: str, spec: PredictionSpec) -> Prediction | None:
        if spec.of == "state":
            count, spaces = self.state.groups[0].components, self.state.parts
            first, size = 0 if self.clock is None else self.clock.steps * self.state.size, self._state_size
            before = first + int(self.state.offsets[min(spec.component, count - 1)])
            dofs = None
        else:
            names = [part.name for part in self.controls.parts]
            if spec.of not in names or self.controls.parts[names.index(spec.of)].space is None:
                fields = [part.name for part in self.controls.parts if part.space is not None]
                known = ", ".join(["state", *fields])
                self.values.complain(
                    f"{key}.of", f"expected state or a control that is a field ({known}), found {spec.of!r}"
                )
                return None
            part = self.controls.parts[names.index(spec.of)]
            assert part.space is not None and part.dofs is not None
            count, spaces, size, dofs = part.components, (part.space,) * part.components, self.controls.size, part.dofs
            before = int(self.controls.rows.offsets[names.index(spec.of)]) + spec.component * len(dofs)
        if spec.component >= count:
            self.values.complain(f"{key}.component", f"expected a component below {count}, found {spec.component}")
            return None
        own = self._covector(key, spec, spaces[spec.component])
        if own is None:
            return None
        own = own if dofs is None else own[dofs]
        whole = np.zeros(size)
        whole[before : before + len(own)] = own
        covector = self.values.tensor(whole)
        of_state = spec.of == "state"
        return Prediction(self._name(spec), covector if of_state else None, None if of_state else covector)

    @property
    def _state_size(self) -> int:
        return self.state.size * (1 if self.clock is None else self.clock.steps + 1)

    def _covector(self, key: str, spec: PredictionSpec, space: Space) -> np.ndarray | None:
        """The functional of the coefficients (size of the space,); None after a complaint."""
        if spec.at is None:
            return self._integral(key, spec, space)
        dim = self.values.domain.dim
        if len(spec.at) != dim:
            self.values.complain(f"{key}.at", f"expected {dim} coordinates, found {len(spec.at)}")
            return None
        try:
            return np.asarray(at_points(space, np.array(spec.at)[:, None]).todense())[0]
        except OutsideMeshError as outside:
            self.values.complain(f"{key}.at", str(outside))
            return None

    def _integral(self, key: str, spec: PredictionSpec, space: Space) -> np.ndarray:
        assert spec.integral is not None
        evaluation, region = self._region(key, spec.on, space)
        self.values.constant_in_time(f"{key}.integral", spec.integral)
        x = evaluation.quadrature.flat
        weight = self.values.formula(f"{key}.integral", spec.integral, x, np.zeros(1)).reshape(-1)
        density: Tensor = self.values.tensor(np.zeros((evaluation.components, 1, evaluation.quadrature.points)))
        density[0, 0] = self.values.tensor(weight * region)
        return evaluation.test(density)[0].cpu().numpy()

    def _region(self, key: str, on: str | None, space: Space) -> tuple[EvaluationOperator, np.ndarray | float]:
        """The functions of a space at the points of an integral, and one where it is taken."""
        domain = self.values.domain
        if on is not None and on in domain.facets and on not in domain.subdomains:
            return space.facets(domain.facets[on]), 1.0
        if on is not None and on not in domain.subdomains:
            self.values.mistakes.unknown(domain, f"{key}.on", "subdomain", on, domain.subdomains, domain.facets)
            return space.cells, 1.0
        return space.cells, self.values.indicator(f"{key}.on", on, space.cells)

    @staticmethod
    def _name(spec: PredictionSpec) -> str:
        if spec.name is not None:
            return spec.name
        what = spec.of if spec.component == 0 else f"component {spec.component} of {spec.of}"
        if spec.at is not None:
            return f"{what} at ({', '.join(f'{x:g}' for x in spec.at)})"
        weighted = "" if spec.integral is not None and spec.integral.constant == 1.0 else f"{spec.integral} times "
        return f"integral of {weighted}{what}{'' if spec.on is None else f' over {spec.on}'}"
