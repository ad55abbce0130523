"""One control and how it enters the equation."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from ..control.controls import ControlSpace
from ..control.density import Interpolation
from ..fem.evaluation_operator import EvaluationOperator, side_by_side
from ..pde.form import ControlMap


@dataclass(frozen=True)
class Entry:
    """One control and how it enters the equation.

    Attributes:
        key: the key of the control in the file.
        part: the control.
        where: the part of the boundary whose integral it enters; None for the cells.
        maps: how each component enters the coefficients there; empty for a control that fixes coefficients.
        functions: each component's functions at the points of that integral; columns of this control.
        coefficients: further coefficients that the maps need.
        acts_on: the coefficients of that integral that the control changes.
        additive: it only adds to sources and fluxes, so that an affine equation stays affine.
        data: (coefficients of the state in a time step, columns) the values that it fixes; None where it fixes none.
        initial: it fixes the coefficients at time 0.
        stages: the values of `coefficients` in each stage of a continuation; the last stage is the problem of the file.
        density: how a density becomes material; None for other controls.
        side, facets: the part of the boundary that the control acts on, and its facets; None for the cells.
        cells: the cells whose conductivity the control determines; None if it determines none.
        parameter: the name by which expressions know it; None of other controls. It has no maps of its own: in every
            integral it enters the coefficients that use it.
        certain: no value between the bounds of the control brings a coefficient out of its range.
    """

    key: str
    part: ControlSpace
    where: str | None = None
    maps: tuple[ControlMap, ...] = ()
    functions: tuple[EvaluationOperator, ...] = ()
    coefficients: dict[str, Tensor] = field(default_factory=dict)
    acts_on: frozenset[str] = frozenset()
    additive: bool = True
    data: sp.csr_matrix | None = None
    initial: bool = False
    stages: tuple[dict[str, Tensor], ...] = ()
    density: Interpolation | None = None
    side: str | None = None
    facets: np.ndarray | None = None
    cells: np.ndarray | None = None
    parameter: str | None = None
    certain: bool = False

    @property
    def order(self) -> int:
        """The place among the controls of an integral: maps of whole coefficients, then of parts, then additions."""
        return 2 if self.additive else 1 if self.cells is not None else 0

    def placed(self, first: int, width: int) -> EvaluationOperator:
        """The functions of this control as columns of all controls, from column `first` on."""
        parts, column = [], first
        for each in self.functions:
            parts.append(each.shifted(column, width))
            column += each.size
        return side_by_side(parts)
