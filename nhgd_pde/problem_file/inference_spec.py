"""The section `inference` of a problem file: noise, prior and predictions of a posterior, and what goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from nhgd_pde.problem_file.equation_parts import Vector
from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.fields import Formula, Number, Numbers, OneOrMore, Section, issue
from nhgd_pde.problem_file.mesh_spec import Count, Natural, PartName

Positive = Annotated[float, Number(above=0)]
Share = Annotated[float, Number(above=0, below=1)]


class PriorSpec(Section):
    """A normal prior of a control: a Matern field of smoothness 2 - d/2 in d dimensions, or independent numbers."""

    control: str | None = Field(default=None, description="Name of the control it is for; null for every other one.")
    length: Annotated[float | None, Number(above=0, null=True)] = Field(
        default=None, description="Correlation length of a field, in the mesh's units; null for controls of numbers."
    )
    std: Positive = Field(default=1.0, description="Standard deviation at a point, or of each number.")
    mean: Annotated[Expression | Vector | None, Formula(vector=True, null=True)] = Field(
        default=None, description="Mean, an expression; null for the initial values of the control."
    )
    boundary: Literal["robin", "neumann"] = Field(
        default="robin",
        description="Condition of the field's operator: robin keeps the standard deviation up to the boundary, neumann "
        "lets it grow there.",
    )


class PredictionSpec(Section):
    """A number whose interval is wanted: the value of the state or of a control at a point, or an integral of it."""

    name: str | None = Field(default=None, min_length=1, description="What it is called; null for what it is.")
    at: Annotated[Any, Numbers(Number(null=True))] = Field(
        default=None, description="Coordinates of the point; null for an integral."
    )
    integral: Annotated[Expression | None, Formula(null=True)] = Field(
        default=None, description="Weight in the integral, an expression; 1 for the integral itself."
    )
    on: PartName | None = Field(
        default=None, description="Subdomain or part of the boundary of the integral; null for the whole domain."
    )
    of: str = Field(default="state", description="state, or the name of a control; of an evolution at its end.")
    component: Natural = Field(default=0, description="Component of a vector, from 0.")

    @field_validator("at")
    @classmethod
    def _coordinates(cls, value: Any) -> Any:
        if isinstance(value, tuple) and None in value:
            raise issue(f"expected the coordinates of a point, found {list(value)}")
        return (value,) if isinstance(value, float) else value

    @model_validator(mode="after")
    def _one_kind(self) -> PredictionSpec:
        if (self.at is None) == (self.integral is None):
            raise issue(f"expected exactly one of at, integral; found {'none' if self.at is None else 'both'}")
        if self.at is not None and self.on is not None:
            raise issue(f"expected no on beside at, which is a point; found {self.on!r}")
        return self


class InferenceSpec(Section):
    """The posterior of the control: its normal approximation at the most likely control."""

    noise: Annotated[Any, Numbers(Number(above=0))] = Field(
        description="Standard deviation of the measured values; a list has one for each tracking term. A weight w in "
        "the file of the sensors makes it noise / sqrt(w)."
    )
    prior: Annotated[PriorSpec | tuple[PriorSpec, ...], OneOrMore()] = Field(
        description="Prior of the control, {length, std, mean}, or a list with one for each control."
    )
    hessian: Literal["gauss_newton", "full"] = Field(
        default="gauss_newton",
        description="Curvature of the misfit: the Fisher information of the noise model, or with the second "
        "derivatives of the equation.",
    )
    threshold: Share = Field(
        default=0.01, description="Eigenvalues of the misfit's Hessian against the prior's below this are left out."
    )
    rank: Annotated[int | None, Number(whole=True, least=1, null=True)] = Field(
        default=None, description="Most eigenvalues that are kept; null for all above the threshold."
    )
    predict: tuple[PredictionSpec, ...] = Field(default=(), description="A list of numbers whose intervals are wanted.")
    level: Share = Field(default=0.95, description="Of the intervals.")
    samples: Natural = Field(default=3, description="Samples of prior and posterior that are written as fields.")
    exact: Count = Field(
        default=10_000,
        description="Control unknowns up to which the prior's variance is computed by a solve each; above, it is "
        "estimated from samples.",
    )

    @property
    def priors(self) -> tuple[tuple[str, PriorSpec], ...]:
        """Every prior with its key in the file."""
        if isinstance(self.prior, tuple):
            return tuple((f"inference.prior.{k}", each) for k, each in enumerate(self.prior))
        return (("inference.prior", self.prior),)

    def prior_of(self, control: str) -> tuple[str, PriorSpec] | None:
        """The key and the prior of a control: the one with its name, else the one without a name."""
        named = [pair for pair in self.priors if pair[1].control == control]
        return next(iter(named + [pair for pair in self.priors if pair[1].control is None]), None)

    def noise_of(self, number: int) -> float:
        """The standard deviation of the noise in the tracking term with this number among them."""
        return float(self.noise[number] if isinstance(self.noise, tuple | list) else self.noise)


def inference_complaints(spec: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What a posterior does not take: places in the file, and messages."""
    inference = spec.inference
    for key, what in (("parameters", "random inputs"), ("constraints", "constraints")):
        if getattr(spec, key):
            yield (key,), f"expected none beside inference: a normal posterior takes no {what}"
    if spec.state is not None:
        yield ("state",), "expected none beside inference, which needs exact derivatives of the state"
    if spec.method not in ("nhgd", "adjoint"):
        yield ("method",), f"expected nhgd or adjoint beside inference, found {spec.method!r}"
    if spec.time is not None and spec.time.memory is not None:
        yield ("time", "memory"), "expected none beside inference, which needs the states of all steps"
    yield from _terms(spec)
    for key, control in spec.keyed_controls:
        if any(bound is not None for bound in control.bounds):
            message = (
                "expected no bounds beside inference, as a normal prior has none: of a positive quantity take the "
                "logarithm as the control (log_conductivity, or exp(name) of a parameter)"
            )
            yield (*_parts(key), "bounds"), message
    names = [prior.control for _, prior in inference.priors]
    for k, name in enumerate(names):
        if name in names[:k]:
            what = "without a control" if name is None else f"of {name!r}"
            yield ("inference", "prior", k), f"expected one prior {what}, found several"


def _terms(spec: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    tracked = 0
    for k, term in enumerate(spec.objective):
        if term.kind != "tracking":
            what = "the prior is the regularisation" if term.kind == "regularisation" else "others are no likelihood"
            yield ("objective", k, "kind"), f"expected tracking terms only beside inference: {what}"
        elif term.at is None:
            message = (
                "missing beside inference; expected a file of sensors: noise of a standard deviation is that of "
                "measured values at points, and white noise over a domain has none"
            )
            yield ("objective", k, "at"), message
        tracked += term.kind == "tracking"
    noise = spec.inference.noise
    if isinstance(noise, tuple | list) and len(noise) != tracked:
        yield ("inference", "noise"), f"expected a number for each of {tracked} tracking terms, found {len(noise)}"


def _parts(key: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))
