"""The distance of the state from a wanted state, or from measured values at sensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from ...problem_file.equation_parts import Vector
from ...problem_file.expressions import Expression
from ...problem_file.fields import Formula, Number, issue
from ...problem_file.mesh_spec import PartName
from ...problem_file.term_parts import Weight
from .base import Term

if TYPE_CHECKING:
    from ...objective.terms import Objective, StateTerm
    from ..objective_builder import ObjectiveBuilder


class TrackingTerm(Term):
    """weight/2 int (u - target)^2, or weight/2 times the sum of those squares at sensors."""

    kind: Literal["tracking"]
    at: str | None = Field(
        default=None,
        min_length=1,
        description="A text file of sensors in place of target and on: a row each of coordinates, measured values and "
        "maybe a weight.",
    )
    target: Annotated[Expression | Vector | None, Formula(vector=True, null=True)] = Field(
        default=None, validate_default=True, description="The wanted state, an expression; of a vector a list."
    )
    on: PartName | None = Field(
        default=None, description="Subdomain or part of the boundary of the integral; null for the whole domain."
    )
    time: Literal["final", "all"] = Field(
        default="all", description="Of an evolution: at the end, or integrated over time."
    )
    component: Annotated[int | None, Number(whole=True, least=0, null=True)] = Field(
        default=None, description="Component of a vector, from 0; null for all of them."
    )
    weight: Weight = Field(default=1.0, description="Factor of the term.")

    @field_validator("target")
    @classmethod
    def _one_source(cls, value: object, info: ValidationInfo) -> object:
        if "at" in info.data and (value is None) == (info.data["at"] is None):
            if value is None:
                raise issue("missing; expected the wanted state, or a file of sensors under `at`")
            raise issue("expected none beside `at`, whose file has the values")
        return value

    @field_validator("on")
    @classmethod
    def _of_integrals(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and info.data.get("at") is not None:
            raise issue("expected none beside `at`, whose file has the points")
        return value

    @property
    def file(self) -> tuple[str, str] | None:
        return None if self.at is None else ("at", self.at)

    def build(self, key: str, builder: ObjectiveBuilder) -> Objective:
        from ...linalg.sparse import SparseMatrix
        from ...objective.terms import Objective, Tracking

        chosen = builder.chosen(key, self.component)
        if self.at is not None:
            return Objective((self._sensors(key, self.at, chosen, builder),), ())
        times = builder.times(self.time)
        target = builder.nodal(f"{key}.target", self.target, chosen, times)
        evaluation, region = builder.region(f"{key}.on", self.on)
        blocks = {(k * evaluation.stride, k * evaluation.stride): builder.values.tensor(region)[None] for k in chosen}
        gram = evaluation.assemble(evaluation, blocks, symmetric=True).scaled(self.weight).host()
        one = SparseMatrix(gram, builder.state.device, symmetric=True)
        mass, rows = builder.over_time(key, one, self.time)
        wanted = np.broadcast_to(target, (mass.shape[0] // builder.state.size, builder.state.size))
        builder.fields["target" if "target" not in builder.fields else f"target_{key.rpartition('.')[2]}"] = wanted
        found = Tracking(
            mass,
            builder.values.tensor(wanted.reshape(-1)),
            rows,
        )
        return Objective((found,), ())

    def _sensors(self, key: str, name: str, chosen: range, builder: ObjectiveBuilder) -> StateTerm:
        """weight/2 sum of weights (u - values)^2 at points."""
        import scipy.sparse as sp

        from ...fem.interpolation import OutsideMeshError, at_points
        from ...linalg.sparse import SparseMatrix
        from ...objective.terms import LinearState, SensorTerm, Tracking
        from ..sensors import SensorFileError, Sensors, read_sensors

        dim, size = builder.state.domain.dim, builder.state.size
        found = Sensors(np.zeros((dim, 0)), np.zeros((len(chosen), 0)), np.zeros(0), ())
        path = builder.values.file.resolve(name)
        if builder.clock is not None and self.time != "final":
            builder.values.complain(
                f"{key}.time", "expected final with `at`, whose file has one value a sensor; found 'all'"
            )
        if path is None:
            builder.values.complain(f"{key}.at", f"expected a file of sensors, found nothing at {name!r}")
        else:
            try:
                found = read_sensors(path, dim, len(chosen))
            except SensorFileError as error:
                builder.values.complain(f"{key}.at", f"{name}: {error}")
        rows = []
        for k in chosen:
            try:
                one = at_points(builder.state.parts[k], found.points)
            except OutsideMeshError as outside:
                message = f"{name}: line {found.lines[outside.index]}: {outside}"
                builder.values.complain(f"{key}.at", message)
                return LinearState(builder.values.tensor(np.zeros(size)))
            before, after = builder.state.offsets[k], size - builder.state.offsets[k + 1]
            empty = [sp.csr_matrix((one.shape[0], int(width))) for width in (before, after)]
            rows.append(sp.hstack([empty[0], one, empty[1]]))
        seen = sp.csr_matrix(sp.vstack(rows))
        if builder.clock is not None:
            seen = sp.csr_matrix(sp.kron(builder.clock.last, seen))
        weights = self.weight * found.weights
        matrix = SparseMatrix(seen, builder.state.device)
        number = int(key.rpartition(".")[2])
        builder.sensors.append(SensorTerm(number, found.points, tuple(chosen), found.values, weights, matrix))
        return Tracking(
            SparseMatrix(sp.diags_array(np.tile(weights, len(chosen))).tocsr(), builder.state.device, symmetric=True),
            builder.values.tensor(found.values.reshape(-1)),
            matrix,
        )
