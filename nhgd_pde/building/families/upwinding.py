"""Diffusion in a flow: its coefficients, with those of the streamline-upwind weighting of the residual."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...fem.evaluation_operator import EvaluationOperator
from ...fem.mesh import Domain
from ...fem.second_derivatives import second_derivatives, with_second_derivatives
from ...fem.spaces import space as scalar_space
from ...fem.state_space import StateSpace
from ...pde.advection import CLOSED_ADVECTION, advection_diffusion, critical, optimal, stabilisation_time
from ...pde.form import Coefficients
from ...problem_file.expressions import Expression
from ..dependence import CELLS, Rule
from ..random_values import names_in
from ..values import Values
from .advection import AdvectionDiffusionSpec
from .base import Interior
from .coefficients import conductivity_of, points

_UPWINDING = {"none": None, "auto": critical, "supg": optimal}


def advection_interior(values: Values, pde: AdvectionDiffusionSpec, space: StateSpace) -> Interior:
    """The equation in the cells."""
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
    evolves = values.times is not None
    absorbing = evolves or bool((reaction != 0.0).any())
    upwinding, evaluation, carrier = _UPWINDING[pde.stabilisation], None, None
    if upwinding is not None and not values.issues:
        lengths = _cell_lengths(values, space, len(velocity))
        coefficients["cell_length"] = lengths({}, coefficients)
        tau = stabilisation_time(coefficients, [coefficients[f"velocity {i}"] for i in range(len(velocity))], upwinding)
        if _controlled(values) or tau.any():
            coefficients["slope"] = _slopes(values, pde.conductivity, x)
            scalar = conductivity.ndim <= 2
            if not scalar and space.element != "P1":
                _known_matrix(values, conductivity)
            curved = partial(_curved, space, conductivity)
            evaluation = values.once("second derivatives", curved) if scalar else curved()
            if evolves:
                carrier = _carrier(values, coefficients, tau, len(velocity))
        else:
            upwinding = None
    form = advection_diffusion(upwinding)
    closed = CLOSED_ADVECTION if upwinding is None else None
    return Interior(
        form,
        coefficients,
        True,
        False,
        False,
        absorbing,
        capacity=x.new_ones(x.shape[1]) if evolves else None,
        carrier=carrier,
        evaluation=evaluation,
        closed=closed,
        computed=("slope", "cell_length"),
    )


def _carrier(values: Values, c: Coefficients, tau: Tensor, dim: int) -> Tensor:
    """tau velocity (dim, 1 or steps, P), with which u_t is tested like the other terms of the residual.

    Without it, the method would not be consistent (E. Burman, Comput. Methods Appl. Mech. Engrg. 199 (2010) 1114-1123).
    """
    if _controlled(values):
        message = "expected none, found stabilisation in time beside a control that may change its coefficients"
        values.complain("pde.stabilisation", f"{message}: take stabilisation none, with cells fine enough")
    components = torch.broadcast_tensors(*(c[f"velocity {i}"] for i in range(dim)), tau)[:dim]
    return (torch.stack(components) * tau).reshape(dim, -1, tau.shape[-1])


def _controlled(values: Values) -> bool:
    """Whether controls may change coefficients that the stabilisation depends on."""
    return _replaced(values) or any(control.kind == "parameter" for control in values.file.spec.controls)


def _known_matrix(values: Values, conductivity: np.ndarray) -> None:
    """Complain of a matrix that changes, because conductivity : grad grad u of P2 elements is tabulated once."""
    changing = "conductivity" in values.dependence.at(CELLS)
    if changing or conductivity.shape[2] > 1:
        message = f"expected a matrix without {'parameters' if changing else 'random inputs'} beside stabilisation with"
        message += " elements P2; take element P1, or stabilisation none"
        values.complain("pde.conductivity", message)


def _replaced(values: Values) -> bool:
    kinds = ("conductivity", "log_conductivity", "density")
    return any(control.kind in kinds for control in values.file.spec.controls)


def _velocity(values: Values, pde: AdvectionDiffusionSpec, x: Tensor) -> list[np.ndarray]:
    """The components of the velocity, each (P,) or (steps, P)."""
    dim = len(x)
    given = pde.velocity if isinstance(pde.velocity, tuple) else (pde.velocity,)
    if len(given) != dim:
        found = f"a list of {len(given)}" if isinstance(pde.velocity, tuple) else "a scalar"
        values.complain("pde.velocity", f"expected {dim} expressions, one a coordinate, found {found}")
        return [np.zeros(x.shape[1])] * dim
    keys = [f"pde.velocity.{i}" if isinstance(pde.velocity, tuple) else "pde.velocity" for i in range(dim)]
    return [values.coefficient(f"velocity {i}", keys[i], each, x) for i, each in enumerate(given)]


def _cell_lengths(values: Values, space: StateSpace, dim: int) -> Rule:
    """The length of each cell along the flow, divided by the degree of the element; zero where the velocity is zero.

    2 |b| / sum |b . grad phi| over the linear functions phi of the vertices: in a simplex, its longest chord along b
    (T. E. Tezduyar, Y. J. Park, Comput. Methods Appl. Mech. Engrg. 59 (1986) 307-325).
    """
    linear = scalar_space(space.domain, "P1", space.device, like=space.parts[0]).cells
    shape = tuple(linear.quadrature.weights.shape)

    def lengths(known: Mapping[str, Tensor], c: Coefficients) -> Tensor:
        components = torch.broadcast_tensors(*(c[f"velocity {i}"] for i in range(dim)))
        local = [component.reshape(*component.shape[:-1], *shape) for component in components]
        along = sum(b[..., None] * gradient for b, gradient in zip(local, linear.tables[1:], strict=True))
        square = sum(b * b for b in local)
        assert isinstance(along, Tensor) and isinstance(square, Tensor)
        across = along.abs().sum(-1)
        flows = across > 0.0
        # Where the velocity is zero, neither the quotient nor the root has a derivative; both get the value 1 there.
        speed = torch.where(flows, square, 1.0).sqrt()
        length = torch.where(flows, 2.0 * speed / torch.where(flows, across, 1.0), 0.0)
        return length.reshape(*length.shape[:-2], -1) / int(space.element[1:])

    if any(f"velocity {i}" in values.dependence.at(CELLS) for i in range(dim)):
        values.dependence.add(CELLS, "cell_length", lengths, ())
    return lengths


def _curved(space: StateSpace, conductivity: np.ndarray) -> EvaluationOperator | None:
    """The functions of the state with their second derivatives; None if all second derivatives vanish."""
    dim, shape = space.domain.dim, tuple(space.cells.quadrature.weights.shape)
    factors = np.eye(dim)[:, :, None, None]
    if conductivity.ndim > 2:
        factors = np.broadcast_to(conductivity[:, :, 0], (dim, dim, math.prod(shape))).reshape(dim, dim, *shape)
    table = second_derivatives(space.basis, factors)
    return with_second_derivatives(space.cells, table) if table.any() else None


Conductivity = Expression | dict[str, Expression] | tuple[tuple[Expression, ...], ...]


def _slopes(values: Values, given: Conductivity, x: Tensor) -> Tensor:
    """The divergence of the columns of the conductivity, (dim, rows, P); for a scalar conductivity, its gradient.

    Data, random fields and controls that replace a conductivity count as constants here.
    """
    if _replaced(values):
        return torch.zeros_like(x)[:, None]
    variables = names_in(given)

    fixed = values.data_at(variables, x)

    def slopes(known: Mapping[str, Tensor], c: Coefficients) -> Tensor:
        return _slope(values.domain, given, x, {**fixed, **known})

    if "conductivity" in values.dependence.at(CELLS):
        values.dependence.add(CELLS, "slope", slopes, variables & (values.parameters.keys() | values.random_names))
    numbers = {name: values.tensor(np.array([[value]])) for name, value in values.parameters.items()}
    return _slope(values.domain, given, x, {**values.given_at(variables, x), **numbers})


def _slope(domain: Domain, given: Conductivity, x: Tensor, known: Mapping[str, Tensor]) -> Tensor:
    """The same divergence, with parameters and random inputs by name, which broadcast against (rows, P)."""
    if isinstance(given, tuple):
        found = [_gradient(entry, x, known)[i] for i, row in enumerate(given) for entry in row]
        entries = torch.stack(torch.broadcast_tensors(*found))
        return entries.reshape(len(x), len(x), *entries.shape[1:]).sum(0)
    if isinstance(given, Expression):
        return _gradient(given, x, known)
    inside = {name: domain.subdomains[name] for name in given if name != "default"}
    if "default" in given:
        every = np.arange(domain.mesh.nelements)
        inside["default"] = np.setdiff1d(every, np.concatenate([[], *inside.values()]))
    cells = x.reshape(len(x), domain.mesh.nelements, -1)
    count = cells.shape[1] * cells.shape[2]
    local = {
        name: value.expand(*value.shape[:-1], count).reshape(-1, *cells.shape[1:]) for name, value in known.items()
    }
    whole = cells.new_zeros(len(x), max([len(value) for value in local.values()], default=1), *cells.shape[1:])
    for name, those in inside.items():
        here = {each: value[:, those] for each, value in local.items()}
        whole[:, :, those] = _gradient(given[name], cells[:, those], here)
    return whole.reshape(len(x), -1, count)


def _gradient(expression: Expression, x: Tensor, known: Mapping[str, Tensor]) -> Tensor:
    """The gradient (dim, rows, ...) of an expression at points (dim, ...). Derivatives pass through it."""
    named = {name: value for name, value in known.items() if name in expression.variables}
    rows = max((value.shape[0] for value in named.values() if value.ndim == x.ndim), default=1)
    with torch.enable_grad():
        at = x.detach()[:, None].expand(-1, rows, *x.shape[1:]).clone().requires_grad_(True)
        value = expression.torch(at, **named)
        if not value.requires_grad:
            return torch.zeros_like(x)[:, None].expand_as(at)
        (found,) = torch.autograd.grad(value.sum(), at, create_graph=True, allow_unused=True)
    if found is None:
        return torch.zeros_like(at)
    return found if any(each.requires_grad for each in named.values()) else found.detach()
