"""A weighted integral of controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...problem_file.equation_parts import Scalar
from .base import Term

if TYPE_CHECKING:
    from ...objective.terms import ControlTerm, Objective
    from ..objective_builder import ObjectiveBuilder


class LinearControlTerm(Term):
    """int weight v."""

    kind: Literal["linear_control"]
    of_controls: ClassVar[bool] = True
    weight: Scalar = Field(description="Factor of the control, an expression.")
    control: str | None = Field(default=None, description="Name of the control it is for; null for every control.")

    def build(self, key: str, builder: ObjectiveBuilder) -> Objective:
        from ...objective.terms import LinearControl, Objective

        found: list[ControlTerm] = []
        for first, part in builder.parts(key, self.control):
            x = part.evaluation.quadrature.flat
            times = builder.control_times(f"{key}.weight", self.weight, part)
            weight = np.atleast_2d(builder.values.formula(f"{key}.weight", self.weight, x, times))
            if part.space is None:
                builder.values.number(f"{key}.weight", self.weight)
                one = np.broadcast_to(weight.mean(axis=1, keepdims=True), (len(weight), part.columns))
            else:
                density = np.zeros((part.evaluation.components, *weight.shape))
                density[:: part.evaluation.stride] = weight * part.weight.cpu().numpy().reshape(-1)
                one = part.evaluation.test(builder.values.tensor(density)).cpu().numpy()
            whole = np.zeros(builder.controls.size)
            if part.rule is not None:
                one = np.broadcast_to(one, (len(part.rule.times), part.columns))
                one = part.rule.weights[:, None] * one
            whole[first : first + part.size] = one.reshape(-1)
            found.append(LinearControl(builder.values.tensor(whole)))
        return Objective((), tuple(found))
