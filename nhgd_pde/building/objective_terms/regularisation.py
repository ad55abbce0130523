"""Norms of controls and of their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from ...problem_file.equation_parts import Vector
from ...problem_file.expressions import Expression
from ...problem_file.fields import Formula, Number, issue
from .base import Term

if TYPE_CHECKING:
    from torch import Tensor

    from ...control.controls import ControlSpace
    from ...objective.terms import ControlTerm, Objective
    from ..objective_builder import ObjectiveBuilder

_MEANINGS = {
    "l2": "weight/2 int (v - reference)^2.",
    "h1": "weight/2 int |grad (v - reference)|^2.",
    "l1": "weight int |v|.",
    "tv": "weight int |grad v|, which is smoothed where it is small.",
}


class RegularisationTerm(Term):
    """weight/2 int (v - reference)^2 (l2) or |grad (v - reference)|^2 (h1), weight int |v| (l1) or |grad v| (tv)."""

    kind: Literal["regularisation"]
    of_controls: ClassVar[bool] = True
    norm: Literal["l2", "h1", "l1", "tv"] = Field(
        default="l2", description="Squares of values or of gradients, or absolute values or lengths of gradients."
    )
    smoothing: Annotated[float, Number(above=0)] = Field(
        default=0.1,
        description="Of tv: sqrt(|grad v|^2 + smoothing^2) stands for |grad v|; less takes more iterations.",
    )
    weight: Annotated[float, Number(least=0)] = Field(description="Factor of the term, at least 0.")
    reference: Annotated[Expression | Vector, Formula(vector=True)] = Field(
        default=Expression(0), description="Control without a penalty."
    )
    control: str | None = Field(default=None, description="Name of the control it is for; null for every control.")

    @field_validator("smoothing")
    @classmethod
    def _of_variation(cls, value: float, info: ValidationInfo) -> float:
        norm = info.data.get("norm", "tv")
        if norm != "tv" and value != cls.model_fields["smoothing"].default:
            raise issue(f"expected none beside norm {norm}, as it is that of tv; found {value:g}")
        return value

    @classmethod
    def meaning(cls, content: Mapping[str, Any]) -> str:
        return _MEANINGS[content["norm"]]

    def regularises(self, control: str) -> bool:
        return self.weight > 0.0 and self.control in (None, control)

    def build(self, key: str, builder: ObjectiveBuilder) -> Objective:
        from ...objective.terms import Objective

        found: list[ControlTerm] = []
        weights: Tensor | None = None
        for first, part in builder.parts(key, self.control):
            if part.space is None:
                builder.values.number(f"{key}.reference", self.reference)
            if self.norm in ("h1", "tv") and not self._has_gradient(key, part, builder):
                continue
            if self.norm in ("l2", "h1"):
                found.append(self._squares(key, first, part, builder))
                continue
            if bool(self._reference(key, first, part, builder).any()):
                builder.values.complain(f"{key}.reference", f"expected 0, the only one of norm {self.norm}")
            if self.norm == "l1":
                own = self._absolute(key, first, part, builder)
                weights = own if weights is None else weights + own
            else:
                found += self._variation(key, part, builder)
        return Objective((), tuple(found), l1_weights=weights)

    def _has_gradient(self, key: str, part: ControlSpace, builder: ObjectiveBuilder) -> bool:
        """Whether a control has a gradient; complain of one that has none."""
        if part.space is not None and part.space.element == "P0":
            kind = "a P0 control"
        elif part.space is None:
            kind = "a control of numbers"
        elif part.boundary and builder.state.domain.dim == 1:
            kind = "a control of points"
        else:
            return True
        message = f"expected l2 or l1 for {kind}, which has no gradient, found {self.norm!r}"
        builder.values.complain(f"{key}.norm", message)
        return False

    def _squares(self, key: str, first: int, part: ControlSpace, builder: ObjectiveBuilder) -> ControlTerm:
        """weight/2 int (v - reference)^2 or |grad (v - reference)|^2."""
        import scipy.sparse as sp

        from ...linalg.sparse import SparseMatrix
        from ...objective.terms import Regularisation

        if part.space is None:
            gram = self.weight * sp.identity(part.columns, format="csr")
        else:
            blocks = {
                (i, i): part.weight
                for i in range(part.evaluation.components)
                if (i % part.evaluation.stride == 0) == (self.norm == "l2")
            }
            gram = part.evaluation.assemble(part.evaluation, blocks, symmetric=True).scaled(self.weight).host()
        matrix = SparseMatrix(builder.spread(first, part, gram), builder.state.device, symmetric=True)
        return Regularisation(matrix, self._reference(key, first, part, builder))

    def _absolute(self, key: str, first: int, part: ControlSpace, builder: ObjectiveBuilder) -> Tensor:
        """The weights (p,) of |v| in weight int |v| with the lumped mass matrix, the part's inner product."""
        if part.filter is not None:
            builder.values.complain(f"{key}.norm", "expected l2, h1 or tv for a filtered density, found 'l1'")
        weights = builder.values.tensor(np.zeros(builder.controls.size))
        mass = part.riesz.matrix.diagonal()
        if part.rule is not None:
            mass = (builder.values.tensor(part.rule.weights)[:, None] * mass).reshape(-1)
        weights[first : first + part.size] = self.weight * mass
        return weights

    def _variation(self, key: str, part: ControlSpace, builder: ObjectiveBuilder) -> list[ControlTerm]:
        from ...objective.terms import TotalVariation

        if part.evaluation.quadrature.weights.shape != builder.state.cells.quadrature.weights.shape:
            builder.values.complain(f"{key}.norm", "expected l2, h1 or l1 for a control of the boundary, found 'tv'")
            return []
        rows = builder.controls.rows
        evaluation = part.evaluation.shifted(rows.column_offsets[builder.controls.parts.index(part)], rows.width)
        # The steps in which a control stands still have equal rows, which count once together.
        copies = builder.controls.steps // (part.steps or 1) if any(rows.varying) else 1
        weight = self.weight * part.measure / copies * part.weight.reshape(-1)
        return [TotalVariation(rows, evaluation, weight, self.smoothing)]

    def _reference(self, key: str, first: int, part: ControlSpace, builder: ObjectiveBuilder) -> Tensor:
        times = builder.control_times(f"{key}.reference", self.reference, part)
        nodes = part.nodes[:, : part.columns // part.components]
        given = builder.values.components(f"{key}.reference", self.reference, part.components, nodes, times)
        copies = part.steps or 1
        own = np.broadcast_to(given, (part.components, copies, nodes.shape[1])).swapaxes(0, 1).reshape(-1)
        whole = np.zeros(builder.controls.size)
        whole[first : first + part.size] = own
        return builder.values.tensor(whole)
