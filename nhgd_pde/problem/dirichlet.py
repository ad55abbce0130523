"""Coefficients of the state that are given: Dirichlet and initial values, and what controls add to them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from ..fem.state_space import StateSpace
from ..linalg.sparse import SparseMatrix
from .clock import Clock
from .entry import Entry
from .expressions import Expression
from .points import fix_point
from .values import Values


def given_coefficients(
    values: Values, state: StateSpace, facets: dict[str, np.ndarray], entries: list[Entry], clock: Clock | None
) -> tuple[Tensor, np.ndarray]:
    """Given coefficients (N,), those of every level of an evolution, and which of the state space's are fixed.

    In scenarios that have rows of their own, they are (S, N).
    """
    uncertain = values.random is not None and values.random.rows is not None
    rows = len(values.random.z) if uncertain and values.random is not None else 1 if clock is None else clock.steps + 1
    lift = np.zeros((rows, state.size))
    times = None if clock is None else clock.levels
    fixed = np.zeros(state.size, dtype=bool)
    count = state.groups[0].components
    for name, indices in facets.items():
        given = values.file.spec.pde.boundary[name].dirichlet
        key = f"pde.boundary.{name}.dirichlet"
        if given is None:
            continue
        if isinstance(given, tuple) and len(given) != count:
            values.complain(key, f"expected {count} values, one a component, found {len(given)}")
            continue
        real = values.complex and not isinstance(given, tuple)
        if count > 1 and not isinstance(given, tuple) and given.constant != 0.0 and not real:
            values.complain(key, f"expected a list of {count} values, one a component, found a scalar")
            continue
        for i in range(count):
            value = given[i] if isinstance(given, tuple) else given if i == 0 or not real else Expression(0)
            if value is None:
                continue
            dofs = state.facet_dofs(indices, i)
            at = f"{key}.{i}" if isinstance(given, tuple) else key
            lift[:, dofs] = values.formula(at, value, state.nodes[:, dofs], times)
            fixed[dofs] = True
    for k, point in enumerate(values.file.spec.pde.points):
        if point.dirichlet is not None:
            fix_point(values=values, state=state, number=k, lift=lift, fixed=fixed, times=times)
    for entry in entries:
        if entry.data is not None and not entry.initial:
            those = np.flatnonzero(np.diff(entry.data.indptr))
            fixed[those] = True
            if state.groups[0].complex:
                # A control of the real part alone leaves the imaginary part to the given values.
                fixed[those[those < state.offsets[1]] + state.offsets[1]] = True
    if fixed[: state.offsets[count]].all():
        values.complain("mesh", "every node of the mesh has a Dirichlet value: use more cells")
    if clock is not None:
        assert values.file.spec.time is not None and times is not None
        nodes = state.parts[0].nodes
        initial = values.components("time.initial", values.file.spec.time.initial, count, nodes, times[:1])
        lift[0] = 0.0
        lift[0, : state.offsets[count]] = initial[:, 0].reshape(-1)
    return values.tensor(lift if uncertain else lift.reshape(-1)), fixed


def controlled_coefficients(state: StateSpace, entries: list[Entry], clock: Clock | None) -> SparseMatrix | None:
    """(N, p) what the controls add to given coefficients; None where they do not."""
    if all(entry.data is None for entry in entries):
        return None
    levels = 1 if clock is None else clock.steps + 1
    blocks = []
    for entry in entries:
        part = entry.part
        if entry.data is None:
            blocks.append(sp.csr_matrix((levels * state.size, part.size)))
        elif clock is None:
            blocks.append(entry.data)
        elif entry.initial:
            blocks.append(sp.kron(sp.identity(levels, format="csr")[:, :1], entry.data))
        else:
            times = sp.identity(levels, format="csr")[:, 1:]
            blocks.append(sp.kron(times if part.steps is not None else times.sum(axis=1), entry.data))
    return SparseMatrix(sp.csr_matrix(sp.hstack(blocks)), state.device)
