"""A bound of the material that a density takes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ...problem_file.fields import Number
from .base import Condition

if TYPE_CHECKING:
    from torch import Tensor

    from ...objective.constraints import VolumeConstraint
    from ..constraint_builder import ConstraintBuilder


class VolumeSpec(Condition):
    """The material of a density takes at most a fraction of its region."""

    kind: Literal["volume"]
    fraction: Annotated[float, Number(above=0)] = Field(description="Most of the region that it may take.")
    control: str | None = Field(default=None, description="Name of the density, where there are several.")

    def build(self, key: str, builder: ConstraintBuilder) -> None:
        if builder.inequality is not None:
            builder.values.complain(f"{key}.kind", "expected one volume constraint, found a second one")
        number = self._density(key, builder)
        if number is not None:
            builder.inequality = partial(self._constraint, builder, number)

    def _density(self, key: str, builder: ConstraintBuilder) -> int | None:
        """The number of the density among the controls; None after a complaint."""
        densities = {entry.part.name: k for k, entry in enumerate(builder.entries) if entry.density is not None}
        if self.control is None and len(densities) == 1:
            return next(iter(densities.values()))
        if self.control in densities:
            return densities[self.control]
        known = ", ".join(densities)
        if not densities:
            builder.values.complain(f"{key}.kind", "expected a control of kind density, whose volume it is; found none")
        else:
            given = "null" if self.control is None else repr(self.control)
            builder.values.complain(f"{key}.control", f"expected the name of a density ({known}), found {given}")
        return None

    def _constraint(self, builder: ConstraintBuilder, number: int, coefficients: dict[str, Tensor]) -> VolumeConstraint:
        """The constraint, with the slope of the projection in a stage among the coefficients."""
        from ...objective.constraints import VolumeConstraint

        entry = builder.entries[number]
        evaluation = entry.part.evaluation
        weights = (evaluation.quadrature.weights * entry.part.weight[0]).reshape(-1)
        density, material = entry.density, None
        if density is not None and density.projection is not None:
            chosen, slope = density, coefficients.get(density.slope, entry.coefficients[density.slope])

            def material(v: Tensor) -> Tensor:
                return chosen.material(v, slope)

        return VolumeConstraint(builder.controls, number, evaluation, weights / weights.sum(), self.fraction, material)
