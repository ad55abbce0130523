"""Matrices of the derivatives of one integral by the state and by the controls."""

from __future__ import annotations

from torch import Tensor

from ..fem.pattern import Blocks
from ..linalg.sparse import ScenarioMatrix
from .form import Integral
from .scaled import shared


def derivatives(
    integral: Integral, stages: Tensor, rows: Tensor, affine: bool, acts: bool
) -> tuple[Blocks, ScenarioMatrix | None]:
    """The derivative of an integrand by the state at its points, and that of the integral by the controls (N, width).

    Args:
        integral: the integral.
        stages: coefficients of the state (rows, size of the space).
        rows: coefficients of the controls (R, columns).
        affine: the equation is affine in both, so that a closed form needs no values of the controls.
        acts: controls act in the integral, and its derivative by them is wanted; it is None otherwise.
    """
    if affine and integral.closed is not None:
        return integral.closed_blocks(), _control_matrix(integral, stages, rows) if acts else None
    controls, at_points = integral.control_values(rows), integral.evaluation.evaluate(stages)
    by_state = integral.state_blocks(at_points, controls)
    trial = integral.control_evaluation
    if not acts or trial is None:
        return by_state, None
    return by_state, integral.evaluation.assemble(trial, shared(integral.control_blocks(at_points, controls)))


def _control_matrix(integral: Integral, stages: Tensor, rows: Tensor) -> ScenarioMatrix:
    """The derivative of an affine integral by the controls (N, width).

    That of one scenario is computed for some elements after the other, so that no values at all points are stored.
    """
    test, trial = integral.evaluation, integral.control_evaluation
    assert trial is not None

    def blocks(piece: Integral) -> Blocks:
        return piece.control_blocks(piece.evaluation.evaluate(stages), piece.control_values(rows))

    if len(stages) > 1:
        return test.assemble(trial, shared(blocks(integral)))
    return test.assemble_pieces(trial, lambda first, end: blocks(integral.piece(first, end)))
