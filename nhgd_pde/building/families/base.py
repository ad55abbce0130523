"""What a family of equations is to the builder, and what several of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ...fem.evaluation import Evaluation
from ...fem.state_space import FieldGroup, StateSpace
from ...inner.residual import TestNorm
from ...pde.form import ClosedForm, Pointwise
from ...pde.ranges import CONDUCTIVITY, POSITIVE
from ...problem_file.expressions import Expression
from ..dependence import CELLS, INERTIA, Traced, stacked
from ..values import Values


@dataclass(frozen=True)
class UndeterminedField:
    """A field, such as a pressure, that is undetermined up to a constant where nothing can flow out.

    Attributes:
        field: its number.
        outflow: (N,) the net flux through the boundary of each function of the state space.
    """

    field: int
    outflow: np.ndarray


@dataclass(frozen=True)
class Interior:
    """The equation in the cells.

    Attributes:
        form: the integrand.
        coefficients: by the names it uses.
        affine: it is affine in the state and in what a control may add to sources.
        symmetric: its derivative in the state is.
        coercive: affine in the state, with an energy that is not negative.
        absorbing: it may fix the level of the state without any condition on the boundary.
        capacity: factor (P,) or (steps, P) of the time derivative of the first fields; None in a steady equation.
        norms: the product that each field is tested in.
        vector: components of `source`; None where it is a scalar.
        evaluation: the state's functions as the form takes them; None for those of the state space.
        level: (P,) factor of the value beside the gradient in the product of `norms`; None: none where there are
            Dirichlet values, else 1.
        unseen: by what people call them, the states (N,) of a vector equation without energy, which conditions on the
            boundary have to rule out.
        eased: share -> the integrand with that share of what makes it nonlinear; None where there is nothing such.
        undetermined: a field that conditions on the boundary may leave undetermined up to a constant.
        closed: the integrand as sums of products, where it is affine and that simple.
    """

    form: Pointwise
    coefficients: dict[str, Tensor]
    affine: bool
    symmetric: bool
    coercive: bool
    absorbing: bool
    capacity: Tensor | None = None
    norms: tuple[TestNorm, ...] = ("h1",)
    vector: int | None = None
    evaluation: Evaluation | None = None
    level: Tensor | None = None
    unseen: dict[str, np.ndarray] = field(default_factory=dict)
    eased: Callable[[float], Pointwise] | None = None
    undetermined: UndeterminedField | None = None
    closed: ClosedForm | None = None


@dataclass(frozen=True)
class Family:
    """
    Attributes:
        groups: (section, dimension, element) -> the fields of the state, the one that sources act on first.
        interior: (values, section, space) -> the equation in the cells; `values` collects what is wrong.
        absorbing: (values, section, points (dim, P) of facets, the cell of each facet, key of the condition) -> the
            condition that lets waves out, and its coefficients; None of an equation without waves.
        time: whether the equation evolves in time.
    """

    groups: Callable[[Any, int, str], tuple[FieldGroup, ...]]
    interior: Callable[[Values, Any, StateSpace], Interior]
    absorbing: Callable[[Values, Any, Tensor, np.ndarray, str], tuple[Pointwise, dict[str, Tensor]]] | None = None
    time: Literal["never", "may", "always"] = "never"


def scalar_state(spec: Any, dim: int, element: str) -> tuple[FieldGroup, ...]:
    """One scalar field."""
    return (FieldGroup("state", 1, element),)


def points(space: StateSpace) -> Tensor:
    """(dim, P) the quadrature points in the cells."""
    return space.cells.quadrature.flat


def conductivity_of(
    values: Values, given: Expression | dict[str, Expression] | tuple[tuple[Expression, ...], ...], x: Tensor
) -> tuple[np.ndarray, bool]:
    """The conductivity (P,) or (dim, dim, 1, P), which must be positive definite; whether it is symmetric."""
    key, symmetric = "pde.conductivity", True
    if isinstance(given, tuple):
        traced, symmetric = _matrix(values, key, given, x)
    else:
        traced = values.traced_regions(key, given, x)
    return values.admitted(key, values.recorded(CELLS, "conductivity", traced), x, CONDUCTIVITY), symmetric


def _matrix(values: Values, key: str, given: tuple[tuple[Expression, ...], ...], x: Tensor) -> tuple[Traced, bool]:
    """(dim, dim, 1, P) and whether it is symmetric, whatever the parameters in it are."""
    dim = len(x)
    if len(given) != dim:
        values.complain(key, f"expected a {dim} x {dim} matrix on a {dim}-D mesh, found {len(given)} x {len(given)}")
        return Traced(np.broadcast_to(np.eye(dim)[:, :, None, None], (dim, dim, 1, x.shape[1])).copy()), True
    entries = [values.traced(f"{key}.{i}.{j}", entry, x) for i, row in enumerate(given) for j, entry in enumerate(row)]
    whole = np.stack(np.broadcast_arrays(*(np.atleast_2d(entry.values) for entry in entries)))
    whole = whole.reshape(dim, dim, -1, x.shape[1])
    symmetric = bool((whole == whole.swapaxes(0, 1)).all())
    if all(entry.follow is None for entry in entries):
        return Traced(whole), symmetric
    # Entries that agree at the start agree at every step where they are the same expression.
    for i in range(dim):
        for j in range(i):
            moving = entries[i * dim + j].follow or entries[j * dim + i].follow
            symmetric = symmetric and (moving is None or given[i][j] == given[j][i])
    names = frozenset().union(*(entry.names for entry in entries))
    return Traced(whole, stacked([entry.follow for entry in entries], (dim, dim)), names), symmetric


def capacity_of(values: Values, given: Expression | dict[str, Expression], space: StateSpace) -> Tensor:
    """The factor (P,) or (steps, P) of the time derivative, which must be positive.

    It stands in an integral of its own, which parameters alone enter.
    """
    x = points(space)
    capacity = values.regional("pde.capacity", given, x, INERTIA)
    return values.tensor(values.admitted("pde.capacity", capacity, x, POSITIVE))
