"""Whether boundary conditions determine the state, a pressure included, and the objective determines the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..fem.state_space import StateSpace
from ..pde.boundary import robin
from ..pde.form import Integral
from ..pde.given import GivenData
from ..pde.zero_mean import ZeroMean
from .entry import Entry
from .families.base import UndeterminedField
from .values import Values

# The largest net flux of interpolated data without a net flux, as a share of the flow, on the coarsest meshes.
_LEAST_BALANCE = 1e-2


def check_regularised(values: Values, entries: Sequence[Entry], joint_control: bool) -> None:
    """Tell of controls that are fields with neither regularisation nor two bounds.

    Few numbers are determined by what they do to the state, and fields between bounds have an optimum. A field
    without both can follow the noise of the data, and then is another one on each mesh.

    Args:
        joint_control: a function of the user in the objective depends on the controls, and may regularise them.
    """
    for entry in entries:
        part = entry.part
        bounded = all(bound is not None and bool(torch.isfinite(bound).all()) for bound in (part.lower, part.upper))
        kept = (
            joint_control
            or part.prior is not None
            or any(term.regularises(part.name) for term in values.file.spec.objective)
        )
        # In 1-D a side is a point, where a control is one number.
        numbers = part.space is None or (entry.side is not None and values.domain.dim == 1)
        if not (numbers or bounded or kept):
            values.mistakes.tell(
                f"{entry.key} is a field with neither regularisation nor two bounds: it may follow the noise of the "
                "data, grow and differ from mesh to mesh; add {kind: regularisation, weight: 1e-6} to objective, with "
                "a weight that fits your units, or give bounds: [lower, upper]"
            )


def check_level(values: Values, state: StateSpace, fixed: np.ndarray, absorbing: bool) -> None:
    """Complain of a component that is determined up to a constant only."""
    count = state.groups[0].components
    for i in range(count):
        if not fixed[state.offsets[i] : state.offsets[i + 1]].any() and not absorbing:
            which = "u" if count == 1 else f"component {i} of the {state.groups[0].name}"
            message = f"no Dirichlet or Robin condition and no reaction: {which} is determined up to a constant only"
            values.complain("pde.boundary", message)


def check_held(
    values: Values,
    state: StateSpace,
    unseen: dict[str, np.ndarray],
    fixed: np.ndarray,
    facets: Mapping[str, np.ndarray],
    conditions: Mapping[str, Integral],
) -> None:
    """Complain of states without energy that neither Dirichlet nor Robin conditions rule out."""
    held = fixed.copy()
    for name, condition in conditions.items():
        if condition.form is robin and bool((condition.coefficients["coefficient"] != 0.0).any()):
            for i in range(state.groups[0].components):
                held[state.facet_dofs(facets[name], i)] = True
    modes = np.stack(list(unseen.values()))
    squares, combinations = np.linalg.eigh(modes[:, held] @ modes[:, held].T)
    free = combinations[:, squares <= 1e-12 * held.sum()]
    if free.size:
        names = [name for name, share in zip(unseen, np.abs(free).max(axis=1), strict=True) if share > 1e-4]
        message = (
            f"expected Dirichlet or Robin conditions that hold the body; {free.shape[1]} of its {len(modes)} rigid "
            f"motions {'is' if free.shape[1] == 1 else 'are'} free: {', '.join(names)}"
        )
        values.complain("pde.boundary", message)


def check_balanced(values: Values, candidate: UndeterminedField, data: GivenData, start: Tensor) -> None:
    """Complain of parameters that give a net flux through a boundary on which all velocities are given."""
    outflow = torch.from_numpy(candidate.outflow).to(start.device)
    nothing = 1e-10 * float(outflow.abs().max())
    # Two points are tested, the starting values and others nearby: fluxes may balance at one value by chance.
    for v in (start, 1.1 * start + 0.1):
        derivative = torch.stack([data.at(v).mv(unit)[0] for unit in torch.eye(len(v)).to(v)])
        net, through = derivative @ outflow, derivative.abs() @ outflow.abs()
        if bool((net.abs() > _LEAST_BALANCE * through + nothing * derivative.abs().sum(1)).any()):
            message = (
                "velocities are given all around and let nothing else in or out: expected a net flux of zero for every "
                "value of the parameters; leave a part open"
            )
            values.complain("pde.boundary", message)
            return


def undetermined(
    values: Values,
    state: StateSpace,
    candidate: UndeterminedField | None,
    fixed: np.ndarray,
    lift: Tensor,
    entries: Sequence[Entry],
) -> ZeroMean | None:
    """The condition of mean zero on a pressure that is determined up to a constant; None for other states.

    It is needed if no free velocity has a flux through the boundary.

    Args:
        values: collects mistakes.
        state: the state space.
        candidate: the field that may be undetermined, if there is one.
        fixed: (N,) which coefficients are given.
        lift: given coefficients, (N,) or (S, N) of scenarios, or those of all times of an evolution in a row.
        entries: the controls.
    """
    if candidate is None:
        return None
    rows = lift.reshape(-1, len(fixed))
    if values.times is not None:
        # The values at time 0 are those of a velocity that may have sources.
        rows = rows[1:]
    outflow = candidate.outflow
    nothing = 1e-10 * np.abs(outflow).max()
    if (np.abs(outflow[~fixed]) > nothing).any():
        return None
    for given in rows.cpu().numpy():
        net, through = float(outflow @ given), float(np.abs(outflow) @ np.abs(given))
        if abs(net) > _LEAST_BALANCE * through + nothing * np.abs(given).sum():
            message = (
                "velocities are given all around and let nothing else in or out: expected a net flux of zero, found "
                f"{net:.3g} (outwards) of {through:.3g} that flows through; correct them, or leave a part open"
            )
            values.complain("pde.boundary", message)
    for entry in entries:
        if entry.data is not None and not entry.initial and (np.abs(entry.data.T @ outflow) > nothing).any():
            message = (
                "expected a part of the boundary that is left open, found velocities given all around: the control "
                "would let in what cannot get out"
            )
            values.complain(f"{entry.key}.on", message)
    first, end = (int(each) for each in state.offsets[candidate.field : candidate.field + 2])
    cells = state.parts[candidate.field].cells
    one = torch.zeros(cells.components, 1, cells.quadrature.points, dtype=lift.dtype, device=lift.device)
    one[0] = 1.0
    integrals = cells.test(one)[0]
    return ZeroMean(first, end, first, integrals / integrals.sum())
