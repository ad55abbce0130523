"""Means over the cells of the coefficients of an equation, and of quantities such as a stress, for output."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .equation import StateEquation
from .form import Coefficients, Integral

# (u, grad, coefficients) at points, as for a `Pointwise` -> named values (..., rows, P) at these points.
Quantities = Callable[[Tensor, Tensor, Coefficients], Mapping[str, Tensor]]

# The name of a component of a vector among coefficients: `velocity 0`.
_COMPONENT = re.compile(r"(.+) ([0-9]+)")
# The part of the largest value by which rounding makes the means of a constant differ.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class CellFields:
    """What is shown of an equation in the cells besides its state.

    Attributes:
        names: the coefficients of the integral over the cells that are shown.
        quantities: further quantities, which follow from state and coefficients; None without.
        constant: coefficients (P,) or (steps, P) that stand in no integral and that no control changes, by name.
    """

    names: tuple[str, ...] = ()
    quantities: Quantities | None = None
    constant: Mapping[str, Tensor] = field(default_factory=dict)

    def coefficients(self, equation: StateEquation, v: Tensor, step: int) -> dict[str, np.ndarray]:
        """The means (M, ...) of the coefficients at controls v (p,) that vary, in one row of the equation.

        A scalar has the shape (M,), a vector (M, components), a matrix (M, rows, columns). A coefficient with one value
        everywhere that no control changes is left out.
        """
        controls, k = equation.rows.spread(v), step % equation.rows.steps
        found, kept = _means(equation.integrals[0], controls, k, self.names)
        inertia = getattr(equation, "inertia", None)
        if inertia is not None:
            found["capacity"] = _means(inertia, controls, k, ("capacity",))[0]["capacity"]
            kept.add("capacity")
        weights = equation.integrals[0].evaluation.quadrature.weights
        for name, values in self.constant.items():
            found[name] = _stored(_mean(values if values.ndim == 1 else values[min(k, len(values) - 1)], weights))
            if _moves(values) or _varies(found[name]):
                kept.add(name)
        vectors = {_base(name) for name in kept}
        return _joined({name: means for name, means in found.items() if _base(name) in vectors})

    def derived(self, equation: StateEquation, state: Tensor, v: Tensor, step: int) -> dict[str, np.ndarray]:
        """The means (M, ...) of the quantities at the state (N,) of one time."""
        if self.quantities is None:
            return {}
        controls, integral = equation.rows.spread(v), equation.integrals[0]
        found: dict[str, list[np.ndarray]] = {}
        for piece, rows in _pieces(integral, controls, step % equation.rows.steps):
            weights = piece.evaluation.quadrature.weights
            values = piece.evaluation.evaluate(state[None])
            fields = values.reshape(piece.evaluation.fields, -1, *values.shape[1:])
            u, grad = fields[:, 0], fields[:, 1:]
            if len(fields) == 1:
                u, grad = u[0], grad[0]
            for name, each in self.quantities(u, grad, piece.entered(rows)).items():
                found.setdefault(name, []).append(_stored(_mean(each.squeeze(-2), weights)))
        return {name: np.concatenate(parts) for name, parts in found.items()}


def _pieces(integral: Integral, controls: Tensor, step: int) -> list[tuple[Integral, Tensor]]:
    """The integral in one row, cut into pieces that take little memory, each with the controls of this row."""
    row, own = integral.row(step), controls[min(step, len(controls) - 1)][None]
    return [(row.piece(first, end), own) for first, end in row.evaluation.pieces()]


def _means(
    integral: Integral, controls: Tensor, step: int, names: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], set[str]]:
    """The means of the coefficients with these names, and the names of those that vary or that controls change."""
    parts: dict[str, list[np.ndarray]] = {}
    kept = {name for name in names if _moves(integral.coefficients[name])}
    for piece, rows in _pieces(integral, controls, step):
        entered, weights = piece.entered(rows), piece.evaluation.quadrature.weights
        for name in names:
            values = entered[name]
            if values is not piece.coefficients[name]:
                kept.add(name)
            one = values if values.ndim == 1 else values.squeeze(-2)
            parts.setdefault(name, []).append(_stored(_mean(one, weights)))
    means = {name: np.concatenate(each) for name, each in parts.items()}
    return means, kept | {name for name, each in means.items() if _varies(each)}


def _moves(values: Tensor) -> bool:
    """Whether a coefficient has different values in different time steps."""
    return values.ndim > 1 and values.shape[-2] > 1


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The means (..., cells) of values (..., P) or (..., 1) over the cells."""
    whole = values.detach().expand(*values.shape[:-1], weights.numel()).reshape(*values.shape[:-1], *weights.shape)
    return torch.einsum("...eq,eq->...e", whole, weights) / weights.sum(-1)


def _stored(means: Tensor) -> np.ndarray:
    """(..., cells) -> (cells, ...)."""
    return np.ascontiguousarray(np.moveaxis(means.cpu().numpy(), -1, 0))


def _varies(means: np.ndarray) -> bool:
    spread, size = np.ptp(means, axis=0), np.abs(means).max(initial=0.0)
    # Values that are not finite are no constant.
    return not bool((spread <= _ROUNDING * size).all())


def _base(name: str) -> str:
    """The name of the vector that a coefficient is a component of; its own name if it is none."""
    match = _COMPONENT.fullmatch(name)
    return name if match is None else match[1]


def _joined(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The fields with `name 0`, `name 1`, ... as one vector `name`."""
    groups: dict[str, list[str]] = {}
    for name in found:
        groups.setdefault(_base(name), []).append(name)
    return {
        base: found[base] if names == [base] else np.stack([found[name] for name in sorted(names)], axis=-1)
        for base, names in groups.items()
    }
