"""The vocabulary of `control`: what is optimised, and how it enters the equation."""

from __future__ import annotations

from keyword import iskeyword
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from nhgd_pde.problem_file.equation_parts import Scalar, Vector
from nhgd_pde.problem_file.expressions import RESERVED, Expression
from nhgd_pde.problem_file.fields import (
    Flag,
    Formula,
    Function,
    Number,
    Numbers,
    OneOf,
    OneOrMore,
    Section,
    expectation,
    issue,
)
from nhgd_pde.problem_file.mesh_spec import PartName

OptionalScalar = Annotated[Expression | None, Formula(null=True)]
InitialValue = Annotated[Expression | Vector, Formula(vector=True)]
FieldSpace = Literal["P0", "P1", "time", "constant"]


class _Control(Section):
    """What all controls have in common."""

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="A name of letters, digits and '_' in the output; needed where two controls are of the same kind.",
    )
    initial: InitialValue = Field(default=Expression(0), description="Starting values.")
    bounds: tuple[OptionalScalar, OptionalScalar] = Field(
        default=(None, None), description="Lower and upper bound, null where there is none."
    )

    @field_validator("bounds", mode="before")
    @classmethod
    def _two_bounds(cls, value: object) -> object:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise expectation("a list [lower, upper]", value)
        return value

    @field_validator("bounds")
    @classmethod
    def _ordered(cls, value: tuple[Expression | None, Expression | None]) -> object:
        lower, upper = (bound.constant if bound else None for bound in value)
        if lower is not None and upper is not None and lower > upper:
            raise issue(f"expected lower <= upper, found lower {lower:g} above upper {upper:g}")
        return value


Space = Annotated[
    FieldSpace,
    Field(description="Finite elements of the control; time: one number a time step; constant: one number."),
]
Windows = Annotated[
    int | None,
    Number(whole=True, least=1, null=True),
    Field(
        description="Of an evolution: windows of equally many steps in each of which the control is constant in "
        "time; null: it has values of its own in every step. Its formulas are taken in the middle of each window."
    ),
]
InCells = Annotated[Literal["P0", "P1", "constant"], Field(description="Finite elements of the control.")]
Complex = Annotated[
    bool, Flag(), Field(description="Of a complex field: a control with a real and an imaginary part; else real.")
]
Subdomain = Annotated[PartName | None, Field(description="Subdomain it acts on; null for the whole domain.")]
Side = Annotated[PartName, Field(description="Name of the part of the boundary it acts on.")]


class SourceControl(_Control):
    """The control v adds gain v to the source."""

    kind: Literal["source"]
    gain: Scalar = Field(default=Expression(1), description="Factor of the control in the source.")
    on: Subdomain = None
    space: Space = "P1"
    windows: Windows = None
    complex: Complex = False


class SideControl(_Control):
    """The base of controls on a part of the boundary."""

    kind: str
    on: Side
    gain: Scalar
    space: Space = "P1"
    windows: Windows = None
    complex: Complex = False


class NeumannControl(SideControl):
    """The control v adds gain v to the flux through a part of the boundary."""

    kind: Literal["neumann"]
    gain: Scalar = Field(default=Expression(1), description="Factor of the control in the flux.")


class RobinControl(SideControl):
    """The control v adds gain v to the ambient value of a Robin condition."""

    kind: Literal["robin"]
    gain: Scalar = Field(default=Expression(1), description="Factor of the control in the ambient value.")


class DirichletControl(SideControl):
    """The control v adds gain v to the boundary value, interpolated at the nodes."""

    kind: Literal["dirichlet"]
    gain: Scalar = Field(default=Expression(1), description="Factor of the control in the boundary value.")


class InitialControl(_Control):
    """The control v adds v to the state at time 0."""

    kind: Literal["initial"]
    space: Literal["P1"] = Field(default="P1", description="Finite elements of the control.")


class ConductivityControl(_Control):
    """The conductivity is v, which needs a positive lower bound."""

    kind: Literal["conductivity"]
    on: Subdomain = None
    space: InCells = "P1"


class LogConductivityControl(_Control):
    """The conductivity is exp(v)."""

    kind: Literal["log_conductivity"]
    on: Subdomain = None
    space: InCells = "P1"


class ProjectionSpec(Section):
    """A smooth step that pushes densities to 0 and 1, steeper from stage to stage."""

    slope: Annotated[float, Number(above=0)] = Field(
        default=8.0, description="Slope of the step in the last stage; before, it doubles from stage to stage from 1."
    )
    threshold: Annotated[float, Number(above=0, below=1)] = Field(default=0.5, description="Where the step is.")


class DensityControl(_Control):
    """The conductivity or Young's modulus is low + (high - low) v^penalty."""

    kind: Literal["density"]
    low: Annotated[float, Number(above=0)] = Field(description="Value of the coefficient where v = 0.")
    high: Annotated[float, Number(above=0)] = Field(default=1.0, description="Value of the coefficient where v = 1.")
    penalty: Annotated[float | tuple[float, ...], Numbers(Number(least=1))] = Field(
        default=3.0, description="Exponent, at least 1; a list has one for each stage of a continuation."
    )
    filter_radius: Annotated[float | None, Number(above=0, null=True)] = Field(
        default=None, description="Radius over which the design is averaged, in the mesh's units; null for none."
    )
    filter: Literal["helmholtz", "cone", "sensitivity"] = Field(
        default="helmholtz",
        description="An equation with the reach of a cone of that radius, or means of the cells in it (P0 only); "
        "sensitivity leaves the density as it is and takes such means of the derivative in the steps of oc.",
    )
    projection: ProjectionSpec | None = Field(
        default=None, description="Of the filtered density towards 0 and 1, as {slope, threshold}; null for none."
    )
    initial: InitialValue = Field(default=Expression(0.5), description="Starting values.")
    bounds: tuple[OptionalScalar, OptionalScalar] = Field(
        default=(Expression(0), Expression(1)), description="Lower and upper bound."
    )
    on: Subdomain = None
    space: Literal["P0", "P1"] = Field(default="P1", description="Finite elements of the design.")

    @field_validator("filter")
    @classmethod
    def _of_a_radius(cls, value: str, info: ValidationInfo) -> str:
        if value != "helmholtz" and info.data.get("filter_radius", 0.0) is None:
            raise issue(f"expected filter_radius beside the filter, found {value!r} without one")
        return value


class ParameterControl(_Control):
    """The control is a number with a name, which the expressions of the equation use."""

    kind: Literal["parameter"]
    name: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="A name of letters, digits and '_', which expressions of pde use.",
    )

    @field_validator("name")
    @classmethod
    def _of_its_own(cls, value: str) -> str:
        if value in RESERVED | {"u"} or iskeyword(value):
            raise issue(f"the name {value!r} is taken: it means something else in expressions")
        return value


class PythonControl(_Control):
    """The control enters by a function (coefficients, v) -> coefficients. Runs the code of the file it is in."""

    kind: Literal["python"]
    python: Annotated[Any, Function()] = Field(description="The function, file.py:name.")
    on: PartName | None = Field(
        default=None, description="Subdomain its integrals are over; null for the whole domain."
    )
    space: Space = "P1"
    windows: Windows = None


ControlSpec = Annotated[
    SourceControl
    | NeumannControl
    | RobinControl
    | DirichletControl
    | InitialControl
    | ConductivityControl
    | LogConductivityControl
    | DensityControl
    | ParameterControl
    | PythonControl,
    OneOf(),
]
AllControls = Annotated[ControlSpec | tuple[ControlSpec, ...], OneOrMore()]
