"""The parts of the boundary that a problem file names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..fem.mesh import Domain
from ..fem.state_space import StateSpace
from .values import Values


def boundary_facets(values: Values, domain: Domain) -> dict[str, np.ndarray]:
    """The facets of every condition of the file but the periodic ones.

    `all` stands for the facets that no other condition names.
    """
    conditions = values.file.spec.pde.boundary
    facets = {}
    for name, condition in conditions.items():
        if condition.periodic is not None:
            continue
        if name not in domain.boundaries and (name not in domain.inside or condition.dirichlet is None):
            values.mistakes.unknown(values.domain, f"pde.boundary.{name}", "boundary", name, domain.boundaries)
            continue
        facets[name] = domain.facets[name]
    if "all" in facets:
        facets["all"] = other_facets(values, domain)
    return facets


def other_facets(values: Values, domain: Domain) -> np.ndarray:
    """The facets of the boundary that no condition names but `all`."""
    names = [name for name in values.file.spec.pde.boundary if name != "all" and name in domain.facets]
    return np.setdiff1d(domain.boundaries["all"], np.concatenate([[], *(domain.facets[n] for n in names)]))


def fixed_facets(values: Values, state: StateSpace, facets: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """The facets on which the file fixes each component of the state."""
    found: list[list[np.ndarray]] = [[] for _ in range(state.groups[0].components)]
    for name, indices in facets.items():
        given = values.file.spec.pde.boundary[name].dirichlet
        for i, each in enumerate(found):
            if given is not None and not (isinstance(given, tuple) and given[i : i + 1] in ((), (None,))):
                each.append(indices)
    return tuple(np.unique(np.concatenate([np.zeros(0, int), *each])) for each in found)
