"""The vocabulary of a problem file with a `task` in place of an equation: the sections of the method are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Union

from pydantic import Field, model_validator

from nhgd_pde.problem_file.catalogue import SEARCHES, TASKS, found_at
from nhgd_pde.problem_file.fields import OneOf, Section, issue, raise_issues
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
from nhgd_pde.problem_file.presets import with_defaults, with_preset

# The sections of the catalogue, which type checkers do not see.
if TYPE_CHECKING:
    TaskSection = Section
else:
    TaskSection = Annotated[Union[*map(found_at, TASKS.values())], OneOf()]


class TaskSpec(Section):
    """One experiment with a task of machine learning."""

    name: ExperimentName
    method: MethodChoice = "nhgd"
    preset: Preset = None
    task: TaskSection = Field(description="What is learnt from which data, a mapping with its kind.")
    inner: InnerSpec = Field(default_factory=InnerSpec)
    curvature: CurvatureSpec = Field(default_factory=CurvatureSpec)
    hypergradient: HypergradientSpec = Field(default_factory=HypergradientSpec)
    outer: OuterSpec = Field(default_factory=OuterSpec)
    devices: DevicesSpec = Field(default_factory=DevicesSpec)
    seed: Seed = 0
    files: Files = None
    output: OutputSpec = Field(default_factory=OutputSpec)

    # A task has nothing of what an equation has.
    parameters: ClassVar[Mapping[str, Any]] = {}
    controls: ClassVar[tuple[()]] = ()
    objective: ClassVar[tuple[()]] = ()
    bounds_state: ClassVar[bool] = False
    state: ClassVar[None] = None
    convective: ClassVar[bool] = False
    layered: ClassVar[bool] = True
    passes_steps: ClassVar[bool] = False
    adjoints: ClassVar[AdjointsSpec] = AdjointsSpec()

    @model_validator(mode="after")
    def _without_fields(self) -> TaskSpec:
        """Keys that say something of an equation or of its fields alone keep their defaults."""
        usual = {"inner": InnerSpec(), "output": OutputSpec()}
        of_equations = (("inner", "model"), ("inner", "noise"), ("output", "exceedance"))
        given = [
            (section, key)
            for section, key in of_equations
            if getattr(getattr(self, section), key) != getattr(usual[section], key)
        ]
        if given:
            message = "expected none beside task: it belongs to problems with an equation"
            raise_issues("TaskSpec", [(key, issue(message)) for key in given])
        return self

    @model_validator(mode="after")
    def _from_one_start(self) -> TaskSpec:
        if self.method in SEARCHES:
            message = f"expected a method for tasks, found {self.method!r}, which is for problems with an equation"
            raise_issues("TaskSpec", [(("method",), issue(message))])
        return self

    @model_validator(mode="before")
    @classmethod
    def _without_equation(cls, data: Any) -> Any:
        extra = [key for key in ("pde", "mesh", "control", "objective") if isinstance(data, Mapping) and key in data]
        if extra:
            message = "expected none beside task: a file has an equation or a task"
            raise_issues("TaskSpec", [((key,), issue(message)) for key in extra])
        return data

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_task(cls, data: Any) -> Any:
        """The task has its own defaults for keys of other sections."""
        task = data.get("task") if isinstance(data, Mapping) else None
        kind = task.get("kind") if isinstance(task, Mapping) else None
        if not isinstance(kind, str) or kind not in TASKS:
            return data
        return with_defaults(data, found_at(TASKS[kind]).defaults)

    @model_validator(mode="before")
    @classmethod
    def _values_of_preset(cls, data: Any) -> Any:
        """Validators of this mode run last one first: the preset goes before the defaults of the task."""
        return with_preset(data)
