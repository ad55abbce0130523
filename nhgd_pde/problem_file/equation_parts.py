"""The parts of the sections of equations: coefficients, boundary conditions, loads and values at points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.fields import Alternatives, Flag, Formula, Number, Numbers, RegionFormula, Section
from nhgd_pde.problem_file.mesh_spec import PartName

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


class BoundarySpec(Alternatives):
    """The condition on one part of the boundary: exactly one of dirichlet, neumann, robin, absorbing, periodic."""

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
        default=None,
        description="Waves go out: conductivity du/dn = i wavenumber sqrt(conductivity) u of helmholtz, "
        "-sqrt(conductivity) u_t of wave.",
    )
    periodic: PartName | None = Field(
        default=None, description="The side that is a translate of this one and has the same values of u."
    )

    @property
    def condition(self) -> str:
        """The name of the condition that is given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def no_flux(self) -> bool:
        """Whether the condition is the one that holds without any condition: a flux of zero."""
        return getattr(self.neumann, "constant", None) == 0.0


class PointSpec(Alternatives):
    """What holds at one point: exactly one of dirichlet, load."""

    at: Annotated[tuple[float, ...], Numbers(Number(), single=False)] = Field(description="Coordinates of the point.")
    dirichlet: Components = Field(
        default=None, description="Value of u at a node of the mesh; of a vector a list, null where it is free."
    )
    load: Annotated[Expression | Vector | None, Formula(null=True, vector=True)] = Field(
        default=None, description="A point source, of a vector a point force as a list."
    )


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


@dataclass(frozen=True)
class Starter:
    """The lines of a starter file of one kind of equation that differ from the defaults.

    Attributes:
        pde: values of coefficients, as they are written.
        boundary: conditions by side, as they are written.
        target: of the tracking term.
        weight: of the regularisation.
        more: whole lines after the mesh, such as the section `time`.
        mesh: the mesh.
        element: the element, and a comment on it.
    """

    pde: dict[str, str] = field(default_factory=dict)
    boundary: dict[str, str] = field(default_factory=lambda: {"all": "{dirichlet: 0}"})
    target: str = '"sin(pi*x)*sin(pi*y)"'
    weight: str = "1.0e-4"
    more: tuple[str, ...] = ()
    mesh: str = "{kind: rectangle, size: [1, 1], cells: [32, 32]}"
    element: tuple[str, str] = ("P1", "P1 or P2")


STARTER_TIME = ('time: {end: 1, steps: 20, scheme: implicit_euler, initial: "0"}',)


class EquationSpec(Section):
    """The base of the sections of equations, with what the checks of a file have to know of an equation.

    Attributes:
        starter: the starter file of its kind; None without one.
        evolves: whether the equation evolves in time.
        mixed: the state has velocities in P2 elements and a pressure in P1 elements, whatever `element` says.
        steady_operator: in time, all steps have the same matrix.
        convective: the state is a flow that carries itself.
        absorbs: the boundary condition `absorbing` has a meaning.
    """

    if TYPE_CHECKING:
        boundary: dict[str, BoundarySpec]
        points: tuple[PointSpec, ...]

        @property
        def kind(self) -> str: ...

    starter: ClassVar[Starter | None] = Starter()
    evolves: ClassVar[Literal["never", "may", "always"]] = "never"
    mixed: ClassVar[bool] = False
    steady_operator: ClassVar[bool] = False
    convective: ClassVar[bool] = False
    absorbs: ClassVar[bool] = False

    def initial_fields(self, dim: int) -> int:
        """The number of fields that have values at time 0, of an evolution."""
        return self.components_of_source(dim)

    def components_of_source(self, dim: int) -> int:
        """The number of fields that the source acts on, in `dim` dimensions."""
        return 1
