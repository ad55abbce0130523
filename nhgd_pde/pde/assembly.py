"""Matrices of the derivatives of integrals by the state and by the controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from ..fem.pattern import Blocks
from ..linalg.sparse import ScenarioMatrix, added
from .form import Integral
from .scaled import shared


class Assembly:
    """Assembles the derivatives of a sum of integrals; a derivative by the controls that does not change is kept.

    Args:
        integrals: the integrals, with the same state space.
        affine: the sum is affine in state and controls, so that a closed form needs no values of the controls.
        symmetric: the derivatives by the state are symmetric.
    """

    def __init__(self, integrals: Sequence[Integral], affine: bool, symmetric: bool) -> None:
        self._integrals = [(integral, LastMatrix(), LastMatrix()) for integral in integrals]
        self._affine, self._symmetric = affine, symmetric
        self._restricted: tuple[ScenarioMatrix, ScenarioMatrix] | None = None

    def derivatives(
        self, stages: Tensor, rows: Tensor, acting: Sequence[bool]
    ) -> tuple[ScenarioMatrix, ScenarioMatrix | None, tuple[Blocks, ...]]:
        """The matrices by the coefficients (N, N) and by the controls (N, width), and the derivatives of the integrands
        by the state.

        Args:
            stages: coefficients of the state (rows, size of the space).
            rows: coefficients of the controls (R, columns).
            acting: for each integral, whether controls act in it and its derivative by them is wanted.
        """
        state: ScenarioMatrix | None = None
        control: ScenarioMatrix | None = None
        blocks = []
        for (integral, last_flux, last), acts in zip(self._integrals, acting, strict=True):
            by_state, by_control = _derivatives(integral, stages, rows, self._affine, acts, last)
            blocks.append(by_state)
            test = integral.evaluation
            flux = {key: block for key, block in by_state.items() if integral.flux_blocks and key[0] % test.stride}
            rest = {key: block for key, block in by_state.items() if key not in flux}
            assemble = partial(test.assemble, test, symmetric=self._symmetric)
            if flux:
                state = added(state, last_flux.of(shared(flux), assemble))
            if rest or state is None:
                state = added(state, assemble(shared(rest)))
            if by_control is not None:
                control = added(control, by_control)
        assert state is not None
        return state, control, tuple(blocks)

    def restricted(self, control: ScenarioMatrix, free: np.ndarray) -> ScenarioMatrix:
        """The rows `free` of a derivative by the controls; those of one that does not change are kept."""
        if self._restricted is not None and self._restricted[0] is control:
            return self._restricted[1]
        found = control.restrict(free, np.arange(control.shape[1]))
        if any(last.has(control) for _, _, last in self._integrals):
            self._restricted = control, found
        return found


class LastMatrix:
    """The last matrix of an integral, for blocks that are the same memory, or the same single numbers at every point.

    A source that enters a nonlinear equation linearly, for instance, has the same derivative everywhere.
    """

    def __init__(self) -> None:
        self._last: tuple[Blocks, ScenarioMatrix] | None = None

    def has(self, matrix: ScenarioMatrix) -> bool:
        """Whether this is the last matrix, which may be the next one as well."""
        return self._last is not None and self._last[1] is matrix

    def of(self, blocks: Blocks, assemble: Callable[[Blocks], ScenarioMatrix]) -> ScenarioMatrix:
        """The matrix of some blocks; the last one where these are the same."""
        if self._last is None or not _same_blocks(blocks, self._last[0]):
            self._last = blocks, assemble(blocks)
        return self._last[1]


def _same_blocks(some: Blocks, others: Blocks) -> bool:
    return some.keys() == others.keys() and all(_same_values(block, others[key]) for key, block in some.items())


def _same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two blocks are the same memory, or one number each, which is the same."""
    if one.shape != other.shape or one.stride() != other.stride():
        return False
    if one.data_ptr() == other.data_ptr():
        return True
    return not any(one.stride()) and float(one.reshape(-1)[0]) == float(other.reshape(-1)[0])


def _derivatives(
    integral: Integral, stages: Tensor, rows: Tensor, affine: bool, acts: bool, last: LastMatrix
) -> tuple[Blocks, ScenarioMatrix | None]:
    """The derivative of an integrand by the state at its points, and that of the integral by the controls (N, width).

    Args:
        integral: the integral.
        stages: coefficients of the state (rows, size of the space).
        rows: coefficients of the controls (R, columns).
        affine: the equation is affine in both, so that a closed form needs no values of the controls.
        acts: controls act in the integral, and its derivative by them is wanted; it is None otherwise.
        last: the last derivative by the controls.
    """
    if affine and integral.closed is not None:
        return integral.closed_blocks(), _control_matrix(integral, len(stages)) if acts else None
    controls, at_points = integral.control_values(rows), integral.evaluation.evaluate(stages)
    trial = integral.control_evaluation
    by_state, by_control = integral.blocks(at_points, controls, acts and trial is not None)
    if not acts or trial is None:
        return by_state, None
    by_control, assemble = shared(by_control), partial(integral.evaluation.assemble, trial)
    # New arrays are not kept: the next ones are others.
    numbers = not any(any(block.stride()) for block in by_control.values())
    return by_state, last.of(by_control, assemble) if numbers else assemble(by_control)


def _control_matrix(integral: Integral, rows: int) -> ScenarioMatrix:
    """The derivative of an affine integral in closed form by the controls (N, width).

    That of one scenario is computed for some elements after the other, so that no values at all points are stored.
    """
    test, trial = integral.evaluation, integral.control_evaluation
    assert trial is not None

    if rows > 1:
        return test.assemble(trial, shared(integral.closed_control_blocks(rows)))
    return test.assemble_pieces(trial, lambda first, end: integral.piece(first, end).closed_control_blocks(rows))
