"""The vocabulary of `objective`: terms that are added up."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from nhgd_pde.problem_file.equation_parts import Scalar, Vector
from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.fields import Formula, Function, Number, OneOf, Section, issue
from nhgd_pde.problem_file.mesh_spec import PartName

Weight = Annotated[float, Number(above=0)]


class TrackingTerm(Section):
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


class LinearStateTerm(Section):
    """int weight u."""

    kind: Literal["linear_state"]
    weight: Annotated[Expression | Vector, Formula(vector=True)] = Field(
        default=Expression(1), description="Factor of the state, an expression; of a vector a list."
    )
    on: PartName | None = Field(
        default=None, description="Subdomain or part of the boundary of the integral; null for the whole domain."
    )
    time: Literal["final", "all"] = Field(
        default="all", description="Of an evolution: at the end, or integrated over time."
    )


class ComplianceTerm(Section):
    """weight times int source . u and int traction . u over the given loads: the work that they do.

    Of a scalar equation the loads are its source and its boundary fluxes, of an evolution their work is integrated over
    time. What controls add to loads is not counted.
    """

    kind: Literal["compliance"]
    weight: Weight = Field(default=1.0, description="Factor of the term.")


class RegularisationTerm(Section):
    """weight/2 int (v - reference)^2 (l2) or |grad (v - reference)|^2 (h1), weight int |v| (l1) or |grad v| (tv)."""

    kind: Literal["regularisation"]
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


class LinearControlTerm(Section):
    """int weight v."""

    kind: Literal["linear_control"]
    weight: Scalar = Field(description="Factor of the control, an expression.")
    control: str | None = Field(default=None, description="Name of the control it is for; null for every control.")


class PythonTerm(Section):
    """weight int density(u, grad, v, x), a function of your own. Runs the code of the file it is in."""

    kind: Literal["python"]
    python: Annotated[Any, Function()] = Field(description="The function, file.py:name.")
    on: PartName | None = Field(
        default=None, description="Subdomain or part of the boundary of the integral; null for the whole domain."
    )
    weight: Weight = Field(default=1.0, description="Factor of the term.")


ObjectiveTerm = Annotated[
    TrackingTerm | LinearStateTerm | ComplianceTerm | RegularisationTerm | LinearControlTerm | PythonTerm, OneOf()
]
