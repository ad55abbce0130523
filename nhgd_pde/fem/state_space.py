"""The space of a state: one scalar field, a vector, velocity and pressure, ... on one mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import skfem
import torch

from .evaluation import Evaluation, stacked
from .mesh import Domain
from .spaces import Space, space


@dataclass(frozen=True)
class FieldGroup:
    """A scalar or a vector that a state consists of.

    Attributes:
        name: for people and for output; the only group of a state is called `state`.
        components: scalar fields in it.
        element: P1 or P2.
        labels: what tells the components apart in output, where they are not those of a vector in space.
    """

    name: str
    components: int
    element: str
    labels: tuple[str, ...] = ()

    @property
    def complex(self) -> bool:
        """Its components are the real and the imaginary part of a complex field."""
        return self.labels == ("real", "imag")


@dataclass(frozen=True, eq=False)
class StateSpace:
    """Scalar spaces side by side, with the same quadrature; unknowns are numbered field by field.

    Attributes:
        groups: what the fields are.
        parts: the scalar space of each field.
    """

    groups: tuple[FieldGroup, ...]
    parts: tuple[Space, ...]

    @property
    def domain(self) -> Domain:
        return self.parts[0].domain

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    @property
    def element(self) -> str:
        """Of the first field, which is the richest."""
        return self.parts[0].element

    @property
    def basis(self) -> skfem.CellBasis:
        """Of the first field."""
        return self.parts[0].basis

    @cached_property
    def offsets(self) -> np.ndarray:
        """(fields + 1,) where the unknowns of each field begin."""
        return np.concatenate([[0], np.cumsum([part.size for part in self.parts])])

    @property
    def size(self) -> int:
        return int(self.offsets[-1])

    @property
    def nodes(self) -> np.ndarray:
        """(dim, size) the point of every degree of freedom."""
        return np.concatenate([part.nodes for part in self.parts], axis=1)

    @cached_property
    def cells(self) -> Evaluation:
        """Evaluation of all fields on the cells."""
        return stacked([part.cells for part in self.parts])

    def facets(self, facets: np.ndarray) -> Evaluation:
        """Evaluation of all fields on some facets, at one set of points."""
        quadrature = None
        bases = []
        for part in self.parts:
            basis = part.facet_basis(facets, quadrature)
            quadrature = quadrature or basis.quadrature
            bases.append(part.on(basis))
        return stacked(bases)

    def contains(self, x: np.ndarray) -> bool:
        """Whether a point (dim, 1) lies in the mesh."""
        return self.parts[0].cells_at(x) is not None

    def points(self, x: np.ndarray) -> Evaluation:
        """Evaluation of all fields at points (dim, k) of the mesh, each with the weight one: a sum, not an integral."""
        return stacked([part.points(x) for part in self.parts])

    def facet_dofs(self, facets: np.ndarray, field: int = 0) -> np.ndarray:
        """Indices of one field's degrees of freedom on some facets, sorted."""
        return self.offsets[field] + self.parts[field].facet_dofs(facets)

    def cell_dofs(self, cells: np.ndarray) -> np.ndarray:
        """Indices of the first field's degrees of freedom whose functions live on some of these cells, sorted."""
        return self.parts[0].cell_dofs(cells)

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """(..., size) -> (..., size of the field), one a field."""
        return [values[..., first:end] for first, end in zip(self.offsets[:-1], self.offsets[1:], strict=True)]


def state_space(domain: Domain, groups: Sequence[FieldGroup], device: torch.device) -> StateSpace:
    """The space of some groups of fields; the element of the first group fixes the quadrature."""
    first = space(domain, groups[0].element, device)
    known = {groups[0].element: first}
    parts = []
    for group in groups:
        if group.element not in known:
            known[group.element] = space(domain, group.element, device, like=first)
        parts += [known[group.element]] * group.components
    return StateSpace(tuple(groups), tuple(parts))
