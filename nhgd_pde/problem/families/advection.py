"""Diffusion in a flow."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...fem.evaluation import Evaluation
from ...fem.second_derivatives import second_derivatives, with_second_derivatives
from ...fem.spaces import space as scalar_space
from ...fem.state_space import StateSpace
from ...pde.advection import CLOSED_ADVECTION, advection_diffusion, critical, optimal, stabilisation_time
from ..expressions import Expression
from ..pde_spec import AdvectionDiffusionSpec
from ..values import Values
from .base import Family, Interior, conductivity_of, points, scalar_state

_UPWINDING = {"none": None, "auto": critical, "supg": optimal}


def _advection_diffusion(values: Values, pde: AdvectionDiffusionSpec, space: StateSpace) -> Interior:
    x = points(space)
    conductivity, _ = conductivity_of(values, pde.conductivity, x)
    reaction = values.regional("pde.reaction", pde.reaction, x)
    velocity = _velocity(values, pde, x)
    coefficients = {
        "conductivity": values.tensor(conductivity),
        "reaction": values.tensor(reaction),
        "source": values.tensor(values.regional("pde.source", pde.source, x)),
        **{f"velocity {i}": values.tensor(component) for i, component in enumerate(velocity)},
    }
    absorbing = bool((reaction != 0.0).any())
    upwinding, evaluation = _UPWINDING[pde.stabilisation], None
    if upwinding is not None and not values.issues:
        coefficients["cell_length"] = values.tensor(_cell_length(space, velocity))
        tau = stabilisation_time(coefficients, [coefficients[f"velocity {i}"] for i in range(len(velocity))], upwinding)
        if _controlled(values) or tau.any():
            slope = _slope(values, pde.conductivity, x)
            coefficients["slope"] = torch.zeros_like(x)[:, None] if _controlled(values) else slope
            scalar = conductivity.ndim <= 2
            curved = partial(_curved, space, conductivity)
            evaluation = values.once("second derivatives", curved) if scalar else curved()
        else:
            upwinding = None
    form = advection_diffusion(upwinding)
    closed = CLOSED_ADVECTION if upwinding is None else None
    return Interior(form, coefficients, True, False, False, absorbing, evaluation=evaluation, closed=closed)


def _controlled(values: Values) -> bool:
    """Whether coefficients that the stabilisation depends on may change: those that controls replace."""
    return any(
        control.kind in ("conductivity", "log_conductivity", "parameter", "density")
        for control in values.file.spec.controls
    )


def _velocity(values: Values, pde: AdvectionDiffusionSpec, x: Tensor) -> list[np.ndarray]:
    """Its components, each (P,) or (steps, P)."""
    dim = len(x)
    given = pde.velocity if isinstance(pde.velocity, tuple) else (pde.velocity,)
    if len(given) != dim:
        found = f"a list of {len(given)}" if isinstance(pde.velocity, tuple) else "a scalar"
        values.complain("pde.velocity", f"expected {dim} expressions, one a coordinate, found {found}")
        return [np.zeros(x.shape[1])] * dim
    keys = [f"pde.velocity.{i}" if isinstance(pde.velocity, tuple) else "pde.velocity" for i in range(dim)]
    return [values.coefficient(f"velocity {i}", keys[i], each, x) for i, each in enumerate(given)]


def _cell_length(space: StateSpace, velocity: list[np.ndarray]) -> np.ndarray:
    """The length of each cell along the flow, over the degree of the element; zero where nothing flows.

    2 |b| / sum |b . grad phi| over the linear functions phi of the vertices: in a simplex, its longest chord along b
    (T. E. Tezduyar, Y. J. Park, Comput. Methods Appl. Mech. Engrg. 59 (1986) 307-325).
    """
    linear = scalar_space(space.domain, "P1", space.device, like=space.parts[0]).cells
    shape = tuple(linear.quadrature.weights.shape)
    components = [component.reshape(*component.shape[:-1], *shape)[..., None] for component in velocity]
    gradients = [table.cpu().numpy() for table in linear.tables[1:]]
    along = np.abs(sum(b * gradient for b, gradient in zip(components, gradients, strict=True))).sum(-1)
    speed = np.sqrt(sum(b[..., 0] ** 2 for b in components))
    length = np.divide(2.0 * speed, along, out=np.zeros_like(along), where=along > 0.0)
    return length.reshape(*length.shape[:-2], -1) / int(space.element[1:])


def _curved(space: StateSpace, conductivity: np.ndarray) -> Evaluation | None:
    """The state's functions with their second derivatives beside them; None where all of these vanish."""
    dim, shape = space.domain.dim, tuple(space.cells.quadrature.weights.shape)
    factors = np.eye(dim)[:, :, None, None]
    if conductivity.ndim > 2:
        factors = np.broadcast_to(conductivity[:, :, 0], (dim, dim, math.prod(shape))).reshape(dim, dim, *shape)
    table = second_derivatives(space.basis, factors)
    return with_second_derivatives(space.cells, table) if table.any() else None


def _slope(
    values: Values, given: Expression | dict[str, Expression] | tuple[tuple[Expression, ...], ...], x: Tensor
) -> Tensor:
    """The divergence of the columns of the conductivity, (dim, rows, P): of a scalar, its gradient.

    Random fields count as constants there, as controls do.
    """
    if isinstance(given, tuple):
        rows = [[_gradient(values, entry, x)[i] for entry in row] for i, row in enumerate(given)]
        return torch.stack([torch.stack(row) for row in rows]).sum(0)
    if isinstance(given, Expression):
        return _gradient(values, given, x)
    cells = x.reshape(len(x), values.domain.mesh.nelements, -1)
    found = cells.new_zeros(len(x), values.rows, *cells.shape[1:])
    rest = np.ones(values.domain.mesh.nelements, dtype=bool)
    for name in (each for each in given if each != "default"):
        inside = values.domain.subdomains[name]
        found[:, :, inside] = _gradient(values, given[name], cells[:, inside])
        rest[inside] = False
    if "default" in given:
        found[:, :, rest] = _gradient(values, given["default"], cells[:, rest])
    return found.reshape(len(x), values.rows, -1)


def _gradient(values: Values, expression: Expression, x: Tensor) -> Tensor:
    """Of an expression in the coordinates, at points (dim, ...); (dim, rows, ...)."""
    with torch.enable_grad():
        at = x.detach()[:, None].expand(-1, values.rows, *x.shape[1:]).clone().requires_grad_(True)
        value = expression.torch(at, **values.random_at(expression, x))
        if not value.requires_grad:
            return torch.zeros_like(at)
        (found,) = torch.autograd.grad(value.sum(), at)
    return found


ADVECTION_DIFFUSION = Family(scalar_state, _advection_diffusion)
