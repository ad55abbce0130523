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
from ..expressions import Expression
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
        absorbing: (values, section, points (dim, P) of facets, the cell of each facet) -> the condition that lets waves
            out, and its coefficients; None of an equation without waves.
        time: whether the equation evolves in time.
    """

    groups: Callable[[Any, int, str], tuple[FieldGroup, ...]]
    interior: Callable[[Values, Any, StateSpace], Interior]
    absorbing: Callable[[Values, Any, Tensor, np.ndarray], tuple[Pointwise, dict[str, Tensor]]] | None = None
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
    symmetric, dim = True, x.shape[0]
    values.positives.add("conductivity")
    before = len(values.issues)
    if isinstance(given, tuple):
        if len(given) != dim:
            message = f"expected a {dim} x {dim} matrix on a {dim}-D mesh, found {len(given)} x {len(given)}"
            values.complain("pde.conductivity", message)
            conductivity = np.broadcast_to(np.eye(dim)[:, :, None, None], (dim, dim, 1, x.shape[1]))
        else:
            entries = [
                np.atleast_2d(values.formula(f"pde.conductivity.{i}.{j}", entry, x))
                for i, row in enumerate(given)
                for j, entry in enumerate(row)
            ]
            conductivity = np.stack(np.broadcast_arrays(*entries)).reshape(dim, dim, -1, x.shape[1])
            symmetric = bool((conductivity == conductivity.swapaxes(0, 1)).all())
        even = np.moveaxis(0.5 * (conductivity + conductivity.swapaxes(0, 1)), (0, 1), (-2, -1))
        smallest = np.linalg.eigvalsh(even)[..., 0]
    else:
        conductivity = values.regional("pde.conductivity", given, x)
        smallest = conductivity
    if len(values.issues) == before and (smallest <= 0.0).any():
        where = int(np.argmin(smallest))
        matrix = isinstance(given, tuple)
        kind = "a positive definite conductivity" if matrix else "a positive conductivity"
        least = smallest.reshape(-1)[where]
        value = f"the eigenvalue {least:g}" if matrix else f"{least:g}"
        values.complain("pde.conductivity", f"expected {kind}, found {value} at {values.place_text(x, where)}")
    return conductivity, symmetric
