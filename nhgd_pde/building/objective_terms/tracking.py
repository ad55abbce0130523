"""The distance of the state from a wanted state, or from measured values at sensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from ...problem_file.equation_parts import Vector
from ...problem_file.expressions import Expression
from ...problem_file.fields import Formula, Number, issue
from ...problem_file.mesh_spec import PartName
from ...problem_file.term_parts import Weight
from .base import Term

if TYPE_CHECKING:
    import scipy.sparse as sp
    from torch import Tensor

    from ...objective.terms import Objective, StateTerm
    from ..objective_builder import ObjectiveBuilder
    from ..sensors import Sensors
    from ..target_remainder import TargetRemainder

# Rounding error of a time, relative to the end of the evolution.
_ROUNDING = 1e-9


class TrackingTerm(Term):
    """weight/2 int (u - target)^2, or weight/2 times the sum of those squares at sensors."""

    kind: Literal["tracking"]
    at: str | None = Field(
        default=None,
        min_length=1,
        description="A text file of sensors in place of target and on: a row each of coordinates, measured values and "
        "maybe a weight. A first line with names, such as x, y, t, value, gives each measurement its time.",
    )
    target: Annotated[Expression | Vector | None, Formula(vector=True, null=True)] = Field(
        default=None, validate_default=True, description="The wanted state, an expression; of a vector a list."
    )
    target_at: Literal["quadrature", "nodes"] = Field(
        default="quadrature",
        description="Where the target is evaluated: at points of quadrature, or at the nodes of the state, between "
        "which it is then interpolated.",
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

    @field_validator("target_at")
    @classmethod
    def _of_targets(cls, value: str, info: ValidationInfo) -> str:
        if value == "nodes" and info.data.get("at") is not None:
            raise issue("expected none beside `at`, whose file has values at points")
        return value

    @classmethod
    def meaning(cls, content: Mapping[str, Any]) -> str:
        if content.get("at") is None:
            return "weight/2 int (u - target)^2."
        return "weight/2 times the sum of (u - measured)^2 over the measurements in a file."

    @property
    def file(self) -> tuple[str, str] | None:
        return None if self.at is None else ("at", self.at)

    @property
    def moving(self) -> bool:
        return self.at is not None and self.time == "all"

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
        gram = evaluation.assemble(evaluation, blocks, symmetric=True)
        one = SparseMatrix(gram.scaled(self.weight).host(), builder.state.device, symmetric=True)
        mass, rows = builder.over_time(key, one, self.time)
        shape = mass.shape[0] // builder.state.size, builder.state.size
        name = "target" if "target" not in builder.fields else f"target_{key.rpartition('.')[2]}"
        builder.fields[name] = np.broadcast_to(target, shape)
        left = self._remainder(key, target, gram.host(), chosen, builder)

        def tensor(values: np.ndarray) -> Tensor:
            return builder.values.tensor(np.broadcast_to(values, shape).reshape(-1))

        if left is None:
            return Objective((Tracking(mass, tensor(target), rows),), ())
        factor = self.weight * (builder.clock.step if builder.clock and self.time == "all" else 1.0)
        constant = 0.5 * factor * float(np.broadcast_to(left.square, shape[0]).sum())
        return Objective((Tracking(mass, tensor(left.nearby), rows, tensor(factor * left.tested), constant),), ())

    def _remainder(
        self, key: str, target: np.ndarray, mass: sp.csr_matrix, chosen: range, builder: ObjectiveBuilder
    ) -> TargetRemainder | None:
        """What the values (rows, size) at the nodes leave of the target; None where that does not count."""
        from ..target_remainder import TargetIntegrals

        if self.target_at == "nodes" or self.target is None or builder.values.issues:
            return None
        values, region = builder.finer_region(f"{key}.on", self.on)
        times = builder.times(self.time)
        integrals = TargetIntegrals(builder, f"{key}.target", self.target, values, region, chosen, times)
        return integrals.remainder(target, mass)

    def _sensors(self, key: str, name: str, chosen: range, builder: ObjectiveBuilder) -> StateTerm:
        """weight/2 sum of weights (u - values)^2 at points, and at the times of the file if it has some."""
        import scipy.sparse as sp

        from ...fem.interpolation import OutsideMeshError
        from ...linalg.sparse import SparseMatrix
        from ...objective.sensor_terms import SensorTerm
        from ...objective.terms import LinearState, Tracking
        from ..sensors import observation

        found = self._read(key, name, chosen, builder)
        try:
            seen = observation(builder.state, builder.clock, found, chosen)
        except OutsideMeshError as outside:
            builder.values.complain(f"{key}.at", f"{name}: line {found.lines[outside.index]}: {outside}")
            return LinearState(builder.values.tensor(np.zeros(builder.state.size)))
        weights = self.weight * builder.precision(key) * found.weights
        matrix = SparseMatrix(seen, builder.state.device)
        number = int(key.rpartition(".")[2])
        builder.sensors.append(
            SensorTerm(number, found.points, tuple(chosen), found.values, weights, matrix, found.lines, found.times)
        )
        return Tracking(
            SparseMatrix(sp.diags_array(np.tile(weights, len(chosen))).tocsr(), builder.state.device, symmetric=True),
            builder.values.tensor(found.values.reshape(-1)),
            matrix,
        )

    def _read(self, key: str, name: str, chosen: range, builder: ObjectiveBuilder) -> Sensors:
        """The measurements, of a part of an evolution those at its times; none after a complaint."""
        from ..sensors import no_sensors, read_sensors
        from ..text_table import TableError

        dim, clock = builder.state.domain.dim, builder.clock
        path = builder.values.file.resolve(name)
        nothing = no_sensors(dim, len(chosen))
        if path is None:
            builder.values.complain(f"{key}.at", f"expected a file of sensors, found nothing at {name!r}")
            return nothing
        try:
            found = read_sensors(path, dim, len(chosen))
        except TableError as error:
            builder.values.complain(f"{key}.at", f"{name}: {error}")
            return nothing
        if found.times is None:
            if clock is not None and self.time != "final":
                message = (
                    "expected final, or a column t in the file of sensors, whose values have no times; found 'all'"
                )
                builder.values.complain(f"{key}.time", message)
            return found
        if clock is None or self.time == "final":
            where = "in a steady problem" if clock is None else "with time: final"
            builder.values.complain(f"{key}.at", f"{name}: expected no column t {where}")
            return nothing
        assert builder.values.file.spec.time is not None
        end = builder.values.file.spec.time.end
        outside = (found.times < 0.0) | (found.times > end * (1.0 + _ROUNDING))
        if outside.any():
            row = int(np.argmax(outside))
            message = f"{name}: line {found.lines[row]}: expected a time from 0 to {end:g}, found {found.times[row]:g}"
            builder.values.complain(f"{key}.at", message)
            return nothing
        # A time that rounding has put behind the end belongs to the last step.
        times = np.minimum(found.times, end)
        return replace(found, times=times)[clock.contains(times)]
