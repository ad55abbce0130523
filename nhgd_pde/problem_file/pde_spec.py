"""The vocabulary of `pde` and `time`: equations, their coefficients and boundary conditions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.fields import Flag, Formula, Function, Number, Numbers, OneOf, RegionFormula, Section, issue

Vector = tuple[Expression, ...]
Scalar = Annotated[Expression, Formula()]
RegionCoefficient = Annotated[Expression | dict[str, Expression], RegionFormula()]
VectorCoefficient = Annotated[Expression | dict[str, Expression] | Vector, RegionFormula(vector=True)]
TensorCoefficient = Annotated[
    Expression | dict[str, Expression] | tuple[tuple[Expression, ...], ...], RegionFormula(matrix=True)
]
Components = Annotated[
    Expression | tuple[Expression | None, ...] | None, Formula(null=True, vector=True, null_entries=True)
]


class RobinData(Section):
    """flux + coefficient u = coefficient value, with the flux conductivity du/dn."""

    coefficient: Scalar = Field(description="The transfer coefficient, an expression.")
    value: Annotated[Expression | Vector, Formula(vector=True)] = Field(
        description="The ambient value, an expression, or a list of them for a vector."
    )


class BoundarySpec(Section):
    """The condition on one part of the boundary: exactly one of dirichlet, neumann, robin, absorbing."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    dirichlet: Components = Field(
        default=None, description="Value of u, interpolated at the nodes; of a vector a list, null where it is free."
    )
    neumann: Annotated[Expression | Vector | None, Formula(null=True, vector=True)] = Field(
        default=None, description="Flux conductivity du/dn into the domain; of a vector a list, the traction."
    )
    robin: RobinData | None = Field(
        default=None, description="Conductivity du/dn = coefficient (value - u), as {coefficient, value}."
    )
    absorbing: Annotated[bool | None, Flag(only=True)] = Field(
        default=None, description="Waves go out: conductivity du/dn = i wavenumber sqrt(conductivity) u; of helmholtz."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> BoundarySpec:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            known = ", ".join(type(self).model_fields)
            raise issue(f"expected exactly one of {known}; found {' and '.join(given) or 'none'}")
        return self

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class PointSpec(Section):
    """What holds at one point: exactly one of dirichlet, load."""

    at: Annotated[tuple[float, ...], Numbers(Number(), single=False)] = Field(description="Coordinates of the point.")
    dirichlet: Components = Field(
        default=None, description="Value of u at a node of the mesh; of a vector a list, null where it is free."
    )
    load: Annotated[Expression | Vector | None, Formula(null=True, vector=True)] = Field(
        default=None, description="A point source, of a vector a point force as a list."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> PointSpec:
        given = [name for name in ("dirichlet", "load") if getattr(self, name) is not None]
        if len(given) != 1:
            raise issue(f"expected exactly one of dirichlet, load; found {' and '.join(given) or 'none'}")
        return self

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


Conductivity = Annotated[
    TensorCoefficient,
    Field(description="Expression, mapping from subdomain (or default) to expression, or square matrix."),
]
Coefficient = Annotated[
    RegionCoefficient, Field(description="Expression, or mapping from subdomain (or default) to expression.")
]
Conditions = Annotated[
    dict[str, BoundarySpec],
    Field(description="Conditions by the name of a side, or 'all'; a side without one has no flux."),
]


Points = Annotated[
    tuple[PointSpec, ...], Field(description="Loads and values at single points, a list of {at, load or dirichlet}.")
]


class PoissonSpec(Section):
    """-div(conductivity grad u) + reaction u = source."""

    kind: Literal["poisson"]
    conductivity: Conductivity = Expression(1.0)
    reaction: Coefficient = Expression(0)
    source: Coefficient = Expression(0)
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()


class SemilinearSpec(Section):
    """-div(conductivity grad u) + nonlinearity(u) = source."""

    kind: Literal["semilinear"]
    conductivity: Conductivity = Expression(1.0)
    nonlinearity: Annotated[Expression, Formula(names=("u",))] = Field(
        description="An expression in u and the coordinates, such as 'u**3'."
    )
    source: Coefficient = Expression(0)
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()


class HeatSpec(Section):
    """capacity u_t - div(conductivity grad u) + reaction u = source; needs `time`."""

    kind: Literal["heat"]
    capacity: Coefficient = Expression(1.0)
    conductivity: Conductivity = Expression(1.0)
    reaction: Coefficient = Expression(0)
    source: Coefficient = Expression(0)
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()


class BurgersSpec(Section):
    """u_t - viscosity lap u + u . grad u = source, u a scalar in 1-D, else a vector; steady without `time`."""

    kind: Literal["burgers"]
    viscosity: Coefficient = Expression(1.0)
    source: Annotated[
        VectorCoefficient, Field(description="Expression in 1-D; else a list, an expression a component, or 0.")
    ] = Expression(0)
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()


class AllenCahnSpec(Section):
    """u_t - epsilon lap u + (u^3 - u)/epsilon = source; needs `time`."""

    kind: Literal["allen_cahn"]
    epsilon: Coefficient = Field(
        description="Thickness of the layers between phases; expression, or mapping from subdomain to expression."
    )
    source: Coefficient = Expression(0)
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()


class AdvectionDiffusionSpec(Section):
    """-div(conductivity grad u) + velocity . grad u + reaction u = source."""

    kind: Literal["advection_diffusion"]
    conductivity: Conductivity = Expression(1.0)
    velocity: Annotated[Expression | Vector, Formula(vector=True)] = Field(
        description="A list of expressions, one a coordinate."
    )
    reaction: Coefficient = Expression(0)
    source: Coefficient = Expression(0)
    stabilisation: Literal["auto", "none", "supg"] = Field(
        default="auto",
        description="Streamline-upwind weighting of the residual: in cells with a Peclet number above 1, nowhere, or "
        "everywhere.",
    )
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()


class HelmholtzSpec(Section):
    """-div(conductivity grad u) - wavenumber^2 u = source, for a complex u."""

    kind: Literal["helmholtz"]
    conductivity: Conductivity = Expression(1.0)
    wavenumber: Coefficient = Field(description="Positive; expression, or mapping from subdomain to expression.")
    source: Annotated[VectorCoefficient, Field(description="Its real part, or a list [real, imaginary].")] = Expression(
        0
    )
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()


class ElasticitySpec(Section):
    """-div sigma(u) = source with the stress sigma of an isotropic linear elastic material; u is a vector."""

    kind: Literal["elasticity"]
    young: Coefficient = Expression(1.0)
    poisson_ratio: Coefficient = Expression(0.3)
    plane: Literal["strain", "stress"] = Field(
        default="strain", description="In 2-D: no displacement across the plane, or no stress."
    )
    source: VectorCoefficient = Field(
        default=Expression(0), description="Body force, a list of expressions; a single 0 stands for none."
    )
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()


Viscosity = Annotated[
    RegionCoefficient,
    Field(description="Positive expression, or mapping from subdomain (or default) to expression."),
]
Force = Annotated[VectorCoefficient, Field(description="Force a unit of volume, a list with one entry a component.")]
FlowConditions = Annotated[
    dict[str, BoundarySpec],
    Field(
        description="Velocities (dirichlet, a list with null where a component is free) and tractions viscosity du/dn "
        "- p n (neumann, a list) by the name of a side, or 'all'; a side without one has no traction."
    ),
]


class StokesSpec(Section):
    """-viscosity lap u + grad p = source, div u = 0; velocities in P2, pressures in P1."""

    kind: Literal["stokes"]
    viscosity: Viscosity = Expression(1.0)
    source: Force = Expression(0)
    boundary: FlowConditions = Field(default_factory=dict)
    points: Points = ()


class NavierStokesSpec(Section):
    """-viscosity lap u + (u . grad) u + grad p = source, div u = 0; velocities in P2, pressures in P1."""

    kind: Literal["navier_stokes"]
    viscosity: Viscosity = Expression(1.0)
    source: Force = Expression(0)
    boundary: FlowConditions = Field(default_factory=dict)
    points: Points = ()


class PythonSpec(Section):
    """A weak form of your own, a function (u, grad, c, x) -> (f0, f1). Runs the code of the file it is in."""

    python: Annotated[Any, Function()] = Field(description="The function, file.py:name.")
    components: Annotated[int, Number(whole=True, least=1)] = Field(default=1, description="Fields of the state.")
    coefficients: dict[str, VectorCoefficient] = Field(
        default_factory=dict, description="What the function finds in c, by name: expressions, or lists of them."
    )
    source: VectorCoefficient = Field(default=Expression(0), description="What it finds as c['source'].")
    capacity: Coefficient = Field(default=Expression(1.0), description="Factor of the time derivative, with time.")
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    @property
    def kind(self) -> str:
        return "python"


PDESpec = Annotated[
    PoissonSpec
    | SemilinearSpec
    | AdvectionDiffusionSpec
    | HeatSpec
    | BurgersSpec
    | AllenCahnSpec
    | ElasticitySpec
    | StokesSpec
    | NavierStokesSpec
    | HelmholtzSpec
    | PythonSpec,
    OneOf(),
]


class TimeSpec(Section):
    """From 0 to the end in equal steps."""

    end: Annotated[float, Number(above=0)] = Field(description="Time at which the evolution ends.")
    steps: Annotated[int, Number(whole=True, least=1)] = Field(description="Steps in time.")
    scheme: Literal["implicit_euler", "crank_nicolson"] = Field(
        default="implicit_euler", description="First or second order; the latter is the implicit midpoint rule."
    )
    initial: Annotated[Expression | Vector, Formula(vector=True)] = Field(
        default=Expression(0), description="State at time 0, interpolated at the nodes; of a vector a list."
    )
