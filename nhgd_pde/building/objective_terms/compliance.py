"""The work of the loads."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...problem_file.term_parts import Weight
from .base import Term

if TYPE_CHECKING:
    from ...objective.terms import Objective
    from ..objective_builder import ObjectiveBuilder


class ComplianceTerm(Term):
    """weight times int source . u and int traction . u over the given loads: the work that they do.

    Of a scalar equation the loads are its source and its boundary fluxes, of an evolution their work is integrated over
    time. What controls add to loads is not counted.
    """

    kind: Literal["compliance"]
    weight: Weight = Field(default=1.0, description="Factor of the term.")

    of_loads: ClassVar[bool] = True

    def build(self, key: str, builder: ObjectiveBuilder) -> Objective:
        from ...objective.terms import LinearState, Objective

        if any(name in ("source", "flux") for rules in builder.values.dependence.rules.values() for name in rules):
            builder.values.complain(f"{key}.kind", "expected loads without parameters, which would change the work")
        count = builder.state.groups[0].components
        total = np.zeros((1, builder.state.size))
        for evaluation, load in builder.loads:
            total = total + builder.tested(evaluation, load.cpu().numpy().reshape(count, -1, load.shape[-1]))
        if not total.any():
            builder.values.complain(
                f"{key}.kind", "expected a source or a neumann condition, whose work it is; found none"
            )
        return Objective((LinearState(builder.over_levels(self.weight * total, "all")),), ())
