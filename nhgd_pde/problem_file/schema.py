"""The vocabulary of the problem file: every key with its type, default, bounds and description.

Help texts, the editor's JSON schema and the resolved copy in a run folder all come from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nhgd_pde.problem_file.catalogue import (
    CONSTRAINTS,
    EQUATIONS,
    TERMS,
    found_at,
)
from nhgd_pde.problem_file.control_spec import AllControls, ControlSpec
from nhgd_pde.problem_file.cross_checks import complaints_between
from nhgd_pde.problem_file.data_spec import Data
from nhgd_pde.problem_file.equation_parts import EquationSpec, Vector
from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.fields import (
    Bytes,
    Context,
    Formula,
    OneOf,
    Section,
    expectation,
    issue,
    raise_issues,
)
from nhgd_pde.problem_file.inference_spec import InferenceSpec
from nhgd_pde.problem_file.mesh_spec import Count, Length, MeshSpec
from nhgd_pde.problem_file.method_spec import (
    AdjointsSpec,
    CurvatureSpec,
    DevicesSpec,
    ExperimentName,
    Files,
    HypergradientSpec,
    InnerSpec,
    MethodChoice,
    OuterSpec,
    OutputSpec,
    Preset,
    Seed,
)
from nhgd_pde.problem_file.part_spec import Parts
from nhgd_pde.problem_file.placement_spec import PlacementSpec
from nhgd_pde.problem_file.population_spec import PopulationSpec
from nhgd_pde.problem_file.presets import with_defaults, with_preset
from nhgd_pde.problem_file.scenario_spec import ParameterSpec, RiskSpec, ScenariosSpec, name_complaint
from nhgd_pde.problem_file.solver_spec import SolverSpec
from nhgd_pde.problem_file.state_spec import NetworkState
from nhgd_pde.problem_file.term_parts import ConditionSpec, TermSpec

# The sections of the catalogue, which type checkers do not see.
if TYPE_CHECKING:
    PDESpec = EquationSpec
    ObjectiveTerm = TermSpec
    ConstraintSpec = ConditionSpec
else:
    PDESpec = Annotated[Union[*map(found_at, EQUATIONS.values())], OneOf()]
    ObjectiveTerm = Annotated[Union[*map(found_at, TERMS.values())], OneOf()]
    ConstraintSpec = Annotated[Union[*map(found_at, CONSTRAINTS.values())], OneOf()]


class TimeSpec(Section):
    """From 0 to the end in equal steps."""

    end: Length = Field(description="Time at which the evolution ends.")
    steps: Count = Field(description="Steps in time.")
    scheme: Literal["implicit_euler", "crank_nicolson"] = Field(
        default="implicit_euler", description="First or second order; the latter is the implicit midpoint rule."
    )
    initial: Annotated[Expression | Vector, Formula(vector=True)] = Field(
        default=Expression(0),
        description="State at time 0, interpolated at the nodes; of a vector a list, of a wave [u, u_t].",
    )
    memory: Annotated[float | None, Bytes()] = Field(
        default=None,
        description="Most bytes of states that are kept, such as 4 GB; others are made again. Null keeps all of them.",
    )


class ProblemSpec(Section):
    """One experiment."""

    name: ExperimentName
    method: MethodChoice = "nhgd"
    mesh: MeshSpec = Field(description="The domain, by kind or by file.")
    parts: Parts
    data: Data
    element: Literal["P1", "P2"] = Field(default="P1", description="Finite elements of the state.")
    pde: PDESpec = Field(description="The equation, a mapping with its kind and coefficients.")
    time: TimeSpec | None = Field(default=None, description="Of an evolution: its end, steps, scheme, initial state.")
    state: NetworkState | None = Field(
        default=None, description="A network in place of finite elements alone: {kind: network, layers: [20, 20]}."
    )
    control: AllControls = Field(description="What is optimised, a mapping with its kind, or a list of them.")
    objective: tuple[ObjectiveTerm, ...] = Field(
        description="A list of terms that are added up.", json_schema_extra={"minItems": 1}
    )
    constraints: tuple[ConstraintSpec, ...] = Field(
        default=(), description="A list of conditions on state and control besides bounds."
    )
    inference: InferenceSpec | None = Field(
        default=None,
        description="Posterior of an inverse problem: {noise: standard deviation, prior: {length, std}}. The objective "
        "is then the negative log-posterior.",
    )
    placement: PlacementSpec | None = Field(
        default=None,
        description="With inference: candidate sensors, of which `nhgd-pde place` chooses the best: {grid: [9, 9], "
        "count: 8}.",
    )
    parameters: dict[str, ParameterSpec] = Field(
        default_factory=dict,
        description="Random inputs by the names that expressions of pde and the initial state use: {normal: [mean, "
        "std]}, {uniform: [low, high]} or {field: ...}.",
    )
    scenarios: ScenariosSpec | None = Field(
        default=None, description="With parameters: which values of theirs are looked at, and in which order."
    )
    risk: RiskSpec | None = Field(
        default=None,
        description="With parameters, what is made of the scenarios' objectives: mean, worst_case, {cvar: level}, "
        "{entropic: factor} or {mean_plus_deviation: factor}; the mean by default.",
    )
    preset: Preset = None
    inner: InnerSpec = Field(default_factory=InnerSpec)
    curvature: CurvatureSpec = Field(default_factory=CurvatureSpec)
    hypergradient: HypergradientSpec = Field(default_factory=HypergradientSpec)
    adjoints: AdjointsSpec = Field(default_factory=AdjointsSpec)
    population: PopulationSpec = Field(default_factory=PopulationSpec)
    outer: OuterSpec = Field(default_factory=OuterSpec)
    solver: SolverSpec = Field(default_factory=SolverSpec)
    devices: DevicesSpec = Field(default_factory=DevicesSpec)
    seed: Seed = 0
    files: Files = None
    output: OutputSpec = Field(default_factory=OutputSpec)

    @field_validator("objective", mode="before")
    @classmethod
    def _some_terms(cls, value: object) -> object:
        if not isinstance(value, list | tuple) or not value:
            raise expectation("a list of at least one term", value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _values_of_preset(cls, data: Any) -> Any:
        return with_preset(data)

    @model_validator(mode="before")
    @classmethod
    def _goal_of_networks(cls, data: Any) -> Any:
        """The gradient of a network's state is not known to more digits."""
        network = isinstance(data, Mapping) and data.get("state") is not None
        return with_defaults(data, {"outer": {"rtol": 1e-3}}) if network else data

    @model_validator(mode="before")
    @classmethod
    def _goal_on_adaptive_meshes(cls, data: Any) -> Any:
        """Coarse meshes need no more digits than they have."""
        mesh = data.get("mesh") if isinstance(data, Mapping) else None
        adapted = isinstance(mesh, Mapping) and mesh.get("adapt") is not None
        return with_defaults(data, {"outer": {"rtol": "auto"}}) if adapted else data

    @model_validator(mode="before")
    @classmethod
    def _newton_of_inference(cls, data: Any) -> Any:
        """The Hessian of a negative log-posterior is close to the identity in the inner product of the prior."""
        infers = isinstance(data, Mapping) and data.get("inference") is not None
        return with_defaults(data, {"outer": {"method": "newton_cg"}}) if infers else data

    @model_validator(mode="before")
    @classmethod
    def _elements_of_flow(cls, data: Any) -> Any:
        """Without `element`, a flow has the element of its velocity."""
        pde = data.get("pde") if isinstance(data, Mapping) else None
        kind = pde.get("kind") if isinstance(pde, Mapping) else None
        mixed = isinstance(kind, str) and kind in EQUATIONS and found_at(EQUATIONS[kind]).mixed
        return {"element": "P2", **data} if mixed else data

    @model_validator(mode="before")
    @classmethod
    def _scenarios_of_parameters(cls, data: Any) -> Any:
        """With random inputs, scenarios and risk have defaults."""
        given = data.get("parameters") if isinstance(data, Mapping) else None
        if not (isinstance(given, Mapping) and given):
            return data
        defaults = {"scenarios": {}, "risk": "mean"}
        return {**data, **{key: value for key, value in defaults.items() if data.get(key) is None}}

    @field_validator("parameters", "data", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if isinstance(value, Mapping):
            wrong = [((name,), issue(text)) for name in value if (text := name_complaint(str(name))) is not None]
            if wrong:
                raise_issues("names", wrong)
        return value

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> ProblemSpec:
        """What several sections have to be together."""
        left_out = info.context.left_out if isinstance(info.context, Context) else ()
        complaints = list(complaints_between(self, left_out))
        if complaints:
            raise_issues("ProblemSpec", [(place, issue(message)) for place, message in complaints])
        return self

    @property
    def controls(self) -> tuple[ControlSpec, ...]:
        """All controls as a tuple, also if there is only one."""
        return self.control if isinstance(self.control, tuple) else (self.control,)

    @property
    def term_kinds(self) -> list[str]:
        """The kinds of the terms of the objective, with those that the priors of an inference add."""
        priors = () if self.inference is None else self.inference.priors
        return [*(term.kind for term in self.objective), *("prior" for _ in priors)]

    @property
    def layered(self) -> bool:
        """Whether the inner variables are the parameters of layers, which have Kronecker factors."""
        return False

    @property
    def convective(self) -> bool:
        """Whether the state is a flow that carries itself."""
        return self.pde.convective

    @property
    def passes_steps(self) -> bool:
        """Whether the steps of an evolution are made and passed, instead of being in memory all at once."""
        return self.method == "fds" or (self.time is not None and self.time.memory is not None)

    @property
    def keyed_controls(self) -> tuple[tuple[str, ControlSpec], ...]:
        """Every control with its key in the file: `control`, or `control.0`, `control.1`, ... of a list."""
        several = isinstance(self.control, tuple)
        return tuple((f"control.{k}" if several else "control", each) for k, each in enumerate(self.controls))

    @property
    def bounds_state(self) -> bool:
        """Whether a constraint bounds the state."""
        return any(each.of_state for each in self.constraints)
