"""The controls of an answer that vary in time, as curves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..control.controls import ControlSpace
from ..output.controls_over_time import TimeCurve
from ..pde_problem import PDEProblem
from .drawing import split_controls

# More values in a step than these are shown by their norm, also where they belong to single points.
_FEW = 4


def control_curves(problem: PDEProblem, control: np.ndarray) -> Iterator[TimeCurve]:
    """A curve for each component of the controls that are numbers; of those that are fields, their norm over time.

    The norm is that of the inner product of the control, such as the one of L2. A control at the ends of an interval
    has a curve for each end.

    Args:
        control: (p,) the coefficients of all controls.
    """
    for part, own in zip(problem.control.parts, split_controls(problem, control).values(), strict=True):
        if part.steps is None or part.rule is None:
            continue
        starts, ends = _times(part, part.steps)
        if part.space is None or (part.facets is not None and part.nodes.shape[0] == 1 and part.columns <= _FEW):
            bounds = [_bound(part, side) for side in ("lower", "upper")]
            for k in range(part.columns):
                yield TimeCurve(part.name, _label(part, k), starts, ends, own[:, k], *(each[:, k] for each in bounds))
        else:
            none = np.full(part.steps, np.inf)
            yield TimeCurve(part.name, "norm", starts, ends, _norms(part, own), -none, none)


def _times(part: ControlSpace, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """From when to when each value acts."""
    assert part.rule is not None
    ends = part.measure * np.arange(1, steps + 1)
    # Boundary values of the trapezoidal rule stand at the ends of the steps, and are linear between them.
    if part.rule.averaged and abs(part.rule.times[0] - ends[0]) < 0.25 * part.measure:
        return ends, ends
    return ends - part.measure, ends


def _label(part: ControlSpace, k: int) -> str:
    places = part.columns // part.components
    words = [f"component {k // places}"] if part.components > 1 else []
    if part.space is not None:
        words.append(f"at x = {part.nodes[0, k]:.6g}")
    return ", ".join(words)


def _bound(part: ControlSpace, side: str) -> np.ndarray:
    """(steps, m)"""
    given = getattr(part, side)
    if given is None:
        return np.full((part.steps or 1, part.columns), -np.inf if side == "lower" else np.inf)
    return np.asarray(given.cpu().numpy().reshape(part.steps or 1, part.columns))


def _norms(part: ControlSpace, rows: np.ndarray) -> np.ndarray:
    """(steps, m) -> (steps,)"""
    every = torch.from_numpy(np.ascontiguousarray(rows)).to(part.initial)
    return np.array([part.riesz.norm(row[None]) for row in every])
