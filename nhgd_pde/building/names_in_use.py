"""The names that the expressions in each part of a problem file use: random inputs, parameters and coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..problem_file.schema import ProblemSpec
from .random_values import names_in


@dataclass(frozen=True, eq=False)
class NamesInUse:
    """The names in each part of the equation of a problem file."""

    spec: ProblemSpec

    @cached_property
    def in_cells(self) -> frozenset[str]:
        """The names in the equation in the cells."""
        fields = type(self.spec.pde).model_fields
        return names_in([getattr(self.spec.pde, name) for name in fields if name not in ("boundary", "points")])

    @cached_property
    def in_conditions(self) -> dict[str, frozenset[str]]:
        """The names in each integral over a side and at a point, by the name of the integral."""
        # A condition that absorbs waves has the coefficients of the cells beside it.
        sides = {
            name: self.in_cells if given.absorbing else names_in([given.neumann, given.robin])
            for name, given in self.spec.pde.boundary.items()
        }
        points = {f"pde.points.{k}": names_in(point.load) for k, point in enumerate(self.spec.pde.points)}
        return sides | points

    @cached_property
    def in_boundary(self) -> frozenset[str]:
        """The names in all integrals over sides and at points."""
        return frozenset().union(*self.in_conditions.values())

    @cached_property
    def in_loads(self) -> frozenset[str]:
        """The names in all integrals of the equation, which have the loads."""
        return self.in_cells | self.in_boundary

    @cached_property
    def in_given(self) -> frozenset[str]:
        """The names in given values of the state: Dirichlet and initial values."""
        sides = [each.dirichlet for each in self.spec.pde.boundary.values()]
        points = [each.dirichlet for each in self.spec.pde.points]
        return names_in([sides, points, None if self.spec.time is None else self.spec.time.initial])

    def in_integral(self, name: str | None) -> frozenset[str]:
        """The names in an integral of the equation; None is the name of the integral over the cells."""
        return self.in_cells if name is None else self.in_conditions.get(name, frozenset())
