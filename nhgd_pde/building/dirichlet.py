"""Given coefficients of the state: Dirichlet and initial values, and how they follow from controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..control.controls import Controls
from ..fem.state_space import StateSpace
from ..linalg.sparse import SparseMatrix
from ..pde.given import GivenData, ParameterData
from ..pde.ranges import Guard
from ..problem_file.expressions import Expression
from .clock import Clock
from .entry import Entry
from .evaluator import place_text
from .points import fix_point
from .values import Values


@dataclass
class Given:
    """Coefficients of the state that the file gives.

    Attributes:
        values: evaluates expressions and collects mistakes.
        lift: (rows, N) values at the starting values of the parameters; rows are scenarios or levels in time.
        fixed: (N,) mask of the coefficients that are given.
        times: (levels,) the times of the levels of an evolution; None for a steady problem.
        owner: (levels or 1, N) the index in `pieces` of each coefficient; -1 for coefficients without parameters.
        pieces: key, expression and (dim, N) nodes of the coefficients that follow from parameters.
    """

    values: Values
    lift: np.ndarray
    fixed: np.ndarray
    times: np.ndarray | None
    owner: np.ndarray = field(init=False)
    pieces: list[tuple[str, Expression, np.ndarray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.owner = np.full((1 if self.times is None else len(self.times), self.lift.shape[1]), -1)

    def give(self, key: str, expression: Expression, dofs: np.ndarray, nodes: np.ndarray) -> None:
        """Give the values of some degrees of freedom (M,); nodes (dim, N) has the points of all of them."""
        self.lift[:, dofs] = self.values.given(key, expression, nodes[:, dofs], self.times)
        self.fixed[dofs] = True
        self._own(key, expression, dofs, nodes, slice(None))

    def start(self, key: str, expression: Expression, dofs: np.ndarray, nodes: np.ndarray) -> None:
        """Give the values at time 0."""
        assert self.times is not None
        self.lift[0, dofs] = self.values.given(key, expression, nodes[:, dofs], self.times[:1])
        self._own(key, expression, dofs, nodes, slice(1))

    def _own(self, key: str, expression: Expression, dofs: np.ndarray, nodes: np.ndarray, levels: slice) -> None:
        self.owner[levels, dofs] = -1
        if expression.variables & self.values.parameters.keys():
            self.owner[levels, dofs] = len(self.pieces)
            self.pieces.append((key, expression, nodes))

    @property
    def tensor(self) -> Tensor:
        """The given coefficients: (N,) with all levels of an evolution, or (S, N) in scenarios."""
        return self._whole(self.lift)

    @property
    def unparametrised(self) -> Tensor:
        """The given coefficients, with zeros where parameters give the values."""
        own = self.owner >= 0
        return self._whole(np.where(own, 0.0, self.lift)) if own.any() else self.tensor

    def _whole(self, lift: np.ndarray) -> Tensor:
        random = self.values.random
        uncertain = random is not None and random.rows is not None
        return self.values.tensor(lift if uncertain else lift.reshape(-1))

    def parameter_data(self, columns: Mapping[str, int], controls: int) -> tuple[ParameterData, ...]:
        """How the coefficients follow from parameters, which are the entries `columns` of p controls."""
        found = []
        for number, (key, expression, nodes) in enumerate(self.pieces):
            levels, dofs = np.nonzero(self.owner == number)
            if not len(dofs):
                continue
            x = self.values.tensor(nodes[:, dofs])
            known = self.values.given_at(expression.variables, x)
            if self.times is not None:
                known["t"] = self.values.tensor(self.times[levels])
            names = [name for name in columns if name in expression.variables]
            found.append(
                ParameterData(
                    tuple(columns[name] for name in names),
                    torch.from_numpy(levels * self.owner.shape[1] + dofs).to(x.device),
                    partial(_followed, expression, x, known, names),
                    controls,
                    Guard({"given": key}, {}, partial(place_text, self.values.random, x)),
                )
            )
        return tuple(found)


def _followed(
    expression: Expression, x: Tensor, known: Mapping[str, Tensor], names: Sequence[str], numbers: Sequence[Tensor]
) -> Tensor:
    found = expression.torch(x, **known, **dict(zip(names, numbers, strict=True)))
    return found if found.ndim > 1 else found[None]


def given_coefficients(
    values: Values, state: StateSpace, facets: Mapping[str, np.ndarray], entries: list[Entry], clock: Clock | None
) -> Given:
    """The given coefficients: of every level of an evolution, or of every scenario."""
    rows = values.rows if clock is None else clock.steps + 1
    times = None if clock is None else clock.levels
    found = Given(values, np.zeros((rows, state.size)), np.zeros(state.size, dtype=bool), times)
    for name, indices in facets.items():
        _give_on_side(found, state, name, indices)
    for k, point in enumerate(values.file.spec.pde.points):
        if point.dirichlet is not None:
            fix_point(values, state, k, found.give)
    for entry in entries:
        if entry.data is not None and not entry.initial:
            _fix_controlled(found.fixed, state, entry.data)
    count = state.groups[0].components
    if found.fixed[: state.offsets[count]].all():
        values.complain("mesh", "every node of the mesh has a Dirichlet value: use more cells")
    if clock is not None:
        _initial(found, state, values.file.spec.pde.initial_fields(state.domain.dim))
    return found


def _give_on_side(found: Given, state: StateSpace, name: str, indices: np.ndarray) -> None:
    """Give the Dirichlet values of the file on a side, if it has some."""
    values, count = found.values, state.groups[0].components
    given, key = values.file.spec.pde.boundary[name].dirichlet, f"pde.boundary.{name}.dirichlet"
    if given is None:
        return
    if isinstance(given, tuple):
        if len(given) != count:
            values.complain(key, f"expected {count} values, one a component, found {len(given)}")
            return
        components = [(f"{key}.{i}", each) for i, each in enumerate(given)]
    elif values.complex:
        # One expression is the real part of a complex field.
        components = [(key, each) for each in (given, Expression(0))]
    elif count > 1 and given.constant != 0.0:
        values.complain(key, f"expected a list of {count} values, one a component, found a scalar")
        return
    else:
        components = [(key, given)] * count
    for i, (at, each) in enumerate(components):
        if each is not None:
            found.give(at, each, state.facet_dofs(indices, i), state.nodes)


def _fix_controlled(fixed: np.ndarray, state: StateSpace, data: sp.csr_matrix) -> None:
    """Mark the coefficients that a control gives as fixed."""
    those = np.flatnonzero(np.diff(data.indptr))
    fixed[those] = True
    if state.groups[0].complex:
        # A control of the real part alone leaves the imaginary part to the given values.
        fixed[those[those < state.offsets[1]] + state.offsets[1]] = True


def _initial(given: Given, state: StateSpace, count: int) -> None:
    """Give the state at time 0, where initial values replace all boundary values."""
    time = given.values.file.spec.time
    assert time is not None
    given.lift[0], given.owner[0] = 0.0, -1
    value, key = time.initial, "time.initial"
    several, components = isinstance(value, tuple), state.groups[0].components
    # A single expression of a wave is its displacement.
    single = () if isinstance(value, tuple) else (value,) * components + (Expression(0),) * (count - components)
    expressions = value if isinstance(value, tuple) else single
    if len(expressions) != count:
        wanted = "one expression" if count == 1 else f"{count} expressions, one a component"
        given.values.complain(key, f"expected {wanted}, found {len(expressions)}")
        return
    if components > 1 and not several and expressions[0].constant != 0.0:
        given.values.complain(key, f"expected a list of {count} expressions, one a component, found a scalar")
        return
    for i, expression in enumerate(expressions):
        dofs = np.arange(state.offsets[i], state.offsets[i + 1])
        given.start(f"{key}.{i}" if several else key, expression, dofs, state.nodes)


def controlled_coefficients(
    state: StateSpace, given: Given, entries: list[Entry], controls: Controls, clock: Clock | None
) -> GivenData | None:
    """How given coefficients follow from the controls; None if controls do not change them."""
    columns = {
        entry.parameter: first
        for entry, first in zip(entries, controls.rows.offsets, strict=False)
        if entry.parameter is not None
    }
    added = given.values.once("values by controls", partial(_added, state, entries, clock))
    followed = given.parameter_data(columns, controls.size)
    if added is None and not followed:
        return None
    return GivenData(given.owner.size, added, followed)


def _added(state: StateSpace, entries: list[Entry], clock: Clock | None) -> SparseMatrix | None:
    """(N, p) the matrix of what the controls add to given coefficients; None if they add nothing."""
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
            # One column for each window in time; a control that does not vary has one window.
            windows = sp.kron(sp.identity(part.steps or 1), np.ones(((levels - 1) // (part.steps or 1), 1)))
            blocks.append(sp.kron(times @ windows, entry.data))
    return SparseMatrix(sp.csr_matrix(sp.hstack(blocks)), state.device)
