"""The names that the expressions in each part of a problem file use: random inputs, parameters and coordinates."""

from __future__ import annotations

from collections.abc import Iterable

from ..problem_file.schema import ProblemSpec
from .random_values import names_in


def names_in_cells(spec: ProblemSpec) -> frozenset[str]:
    """The names in the equation in the cells."""
    fields = type(spec.pde).model_fields
    return names_in([getattr(spec.pde, name) for name in fields if name not in ("boundary", "points")])


def names_of_condition(spec: ProblemSpec, name: str) -> frozenset[str]:
    """The names in the condition on a part of the boundary, or in the load at a point."""
    if name.startswith("pde.points."):
        return names_in(spec.pde.points[int(name.rpartition(".")[2])].load)
    given = spec.pde.boundary.get(name)
    if given is None:
        return frozenset()
    # A condition that absorbs waves has the coefficients of the cells beside it.
    return names_in_cells(spec) if given.absorbing else names_in([given.neumann, given.robin])


def names_of_given(spec: ProblemSpec) -> frozenset[str]:
    """The names in given values of the state: Dirichlet and initial values."""
    sides = [each.dirichlet for each in spec.pde.boundary.values()]
    points = [each.dirichlet for each in spec.pde.points]
    return names_in([sides, points, None if spec.time is None else spec.time.initial])


def names_of_loads(spec: ProblemSpec, conditions: Iterable[str]) -> frozenset[str]:
    """The names in the cells and in some conditions, which together have all loads."""
    return names_in_cells(spec).union(*(names_of_condition(spec, name) for name in conditions))
