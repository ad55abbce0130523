"""Fields of final.vtu besides state, control and derivatives: subdomains, coefficients, stresses, magnitudes.

None of them is a reason for a run to fail: what cannot be computed is left out, and a sentence says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from ..fem.mesh import Domain
    from ..pde_problem import PDEProblem

Fields = dict[str, np.ndarray]

SUBDOMAIN = "subdomain"
# What the two parts of a complex field end in, and their absolute value.
_REAL, _IMAGINARY, _MAGNITUDE = "_real", "_imag", "_magnitude"


def subdomain_numbers(domain: Domain) -> tuple[np.ndarray, dict[str, int]]:
    """(cells,) the number of the subdomain of each cell, and the numbers by name; cells in none have the number 0.

    Cells that are in several subdomains have a number of their own, whose name has the names of all of these.
    """
    numbers = np.zeros(domain.mesh.nelements, dtype=np.int32)
    members: list[tuple[str, ...]] = [()]
    for name, cells in domain.subdomains.items():
        before, which = np.unique(numbers[cells], return_inverse=True)
        numbers[cells] = len(members) + which
        members += [(*members[number], name) for number in before]
    present = np.unique(numbers)
    place = np.zeros(len(members), dtype=np.int32)
    # The number 0 is kept for cells in no subdomain, also where there are none.
    place[present] = np.arange(len(present)) + (0 if present[0] == 0 else 1)
    names = {" and ".join(members[number]): int(place[number]) for number in present if number}
    return place[numbers], names


def with_magnitudes(fields: Mapping[str, np.ndarray]) -> Fields:
    """The fields, and the magnitude of each complex one beside its real and imaginary part."""
    found = dict(fields)
    for name in fields:
        base = name.removesuffix(_REAL)
        if base != name and base + _IMAGINARY in fields and base + _MAGNITUDE not in fields:
            found[base + _MAGNITUDE] = np.hypot(fields[name], fields[base + _IMAGINARY])
    return found


def cell_fields(
    problem: PDEProblem, state: np.ndarray | None, control: np.ndarray, step: int, taken: Collection[str]
) -> tuple[Fields, tuple[str, ...]]:
    """Subdomains, coefficients and derived quantities in the cells; and sentences on those that could not be computed.

    Args:
        state: (N,) the state at one time; None for no quantities of the state.
        control: (p,).
        step: the row of the equation, from the end if negative.
        taken: names of other fields; a coefficient of such a name is called `coefficient_NAME`.
    """
    equation, shown = problem.equation, problem.cell_fields
    device = equation.lift.device
    found: Fields = {}
    troubles: list[str] = []

    def add(what: str, make: Callable[[], Mapping[str, np.ndarray]]) -> None:
        try:
            made = dict(make())
        except Exception as error:  # forms and controls may be functions of users, and memory may be short
            troubles.append(f"{what}: left out of the fields: {type(error).__name__}: {error}")
            return
        for name, values in made.items():
            label = f"coefficient_{name}" if name in taken or name in found else name
            found.update(_scalars(label, values, problem.space.groups[0].labels))

    v = torch.from_numpy(control).to(device)

    def physical() -> torch.Tensor:
        return problem.control.physical(v)

    if problem.space.domain.subdomains:
        add(SUBDOMAIN, lambda: {SUBDOMAIN: subdomain_numbers(problem.space.domain)[0]})
    add("coefficients of the equation", lambda: shown.coefficients(equation, physical(), step))
    if state is not None:
        row = torch.from_numpy(state).to(device)
        add("quantities of the state", lambda: shown.derived(equation, row, physical(), step))
    return found, tuple(troubles)


def _scalars(name: str, values: np.ndarray, labels: tuple[str, ...]) -> Fields:
    """A field as what a file can hold: a scalar, a vector of up to three components, a matrix; else its components."""
    if values.ndim == 2 and values.shape[1] == 1:
        return {name: values[:, 0]}
    if values.ndim == 3 and values.shape[1:] == (1, 1):
        return {name: values[:, 0, 0]}
    if values.ndim == 2 and values.shape[1] == len(labels):
        return {f"{name}_{label}": own for label, own in zip(labels, values.T, strict=True)}
    if values.ndim < 2 or values.shape[1] <= 3:
        return {name: values}
    return {f"{name}_{k}": own for k, own in enumerate(values.reshape(len(values), -1).T)}
