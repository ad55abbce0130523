"""The space of a state on one mesh, such as a scalar field, a vector, or velocity and pressure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import skfem
import torch

from .evaluation_operator import EvaluationOperator, stacked
from .mesh import Domain
from .spaces import Space, space


@dataclass(frozen=True)
class FieldGroup:
    """A scalar or a vector of a state.

    Attributes:
        name: name in messages and in output, such as `state`, `displacement` or `velocity`.
        components: number of scalar fields.
        element: P1 or P2.
        labels: names of the components in output; empty for a scalar and for a vector in space.
    """

    name: str
    components: int
    element: str
    labels: tuple[str, ...] = ()

    @property
    def complex(self) -> bool:
        """Whether the components are the real and the imaginary part of a complex field."""
        return self.labels == ("real", "imag")


@dataclass(frozen=True, eq=False)
class StateSpace:
    """Scalar spaces side by side, with the same quadrature; unknowns are numbered field by field.

    Attributes:
        groups: the groups of the fields.
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
        """The element of the first field, which has the highest degree."""
        return self.parts[0].element

    @property
    def basis(self) -> skfem.CellBasis:
        """The basis of the first field."""
        return self.parts[0].basis

    @cached_property
    def offsets(self) -> np.ndarray:
        """(fields + 1,) the first unknown of each field, and the number of all unknowns."""
        return np.concatenate([[0], np.cumsum([part.size for part in self.parts])])

    @property
    def size(self) -> int:
        return int(self.offsets[-1])

    @property
    def nodes(self) -> np.ndarray:
        """(dim, size) the point of every degree of freedom."""
        return np.concatenate([part.nodes for part in self.parts], axis=1)

    @cached_property
    def cells(self) -> EvaluationOperator:
        """Evaluation of all fields on the cells."""
        return stacked([part.cells for part in self.parts])

    @property
    def mass(self) -> sp.csr_matrix:
        """The mass matrix of all fields, which is made once."""
        cells = self.cells
        one = cells.quadrature.weights.new_ones(()).expand(1, *cells.quadrature.weights.shape)
        blocks = {(i, i): one for i in range(0, cells.components, cells.stride)}
        return cells.assemble(cells, blocks, symmetric=True).host()

    def facets(self, facets: np.ndarray) -> EvaluationOperator:
        """Evaluation of all fields on some facets, at the same points."""
        return stacked([part.facets(facets, self.parts[0]) for part in self.parts])

    def contains(self, x: np.ndarray) -> bool:
        """Whether a point (dim, 1) lies in the mesh."""
        return self.parts[0].cells_at(x) is not None

    def points(self, x: np.ndarray) -> EvaluationOperator:
        """Evaluation of all fields at points (dim, k) of the mesh, each with the weight one."""
        return stacked([part.points(x) for part in self.parts])

    def facet_dofs(self, facets: np.ndarray, field: int = 0) -> np.ndarray:
        """Sorted indices of the degrees of freedom of one field on some facets."""
        return self.offsets[field] + self.parts[field].facet_dofs(facets)

    def cell_dofs(self, cells: np.ndarray) -> np.ndarray:
        """Sorted indices of the degrees of freedom of the first field on some cells."""
        return self.parts[0].cell_dofs(cells)

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """(..., size) -> (..., size of the field), one array for each field."""
        return [values[..., first:end] for first, end in zip(self.offsets[:-1], self.offsets[1:], strict=True)]


def state_space(domain: Domain, groups: Sequence[FieldGroup], device: torch.device) -> StateSpace:
    """The space of some groups of fields; the element of the first group determines the quadrature."""
    first = space(domain, groups[0].element, device)
    known = {groups[0].element: first}
    parts = []
    for group in groups:
        if group.element not in known:
            known[group.element] = space(domain, group.element, device, like=first)
        parts += [known[group.element]] * group.components
    return StateSpace(tuple(groups), tuple(parts))
