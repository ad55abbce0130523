"""The vocabulary of `parameters`, `scenarios` and `risk`: random inputs, their samples and the measure of risk."""

from __future__ import annotations

from keyword import iskeyword
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from nhgd_pde.problem_file.expressions import RESERVED
from nhgd_pde.problem_file.fields import Alternatives, AutoCount, AutoPositive, Number, Numbers, OneOf, Section, issue

Positive = Annotated[float, Number(above=0)]
Share = Annotated[float, Number(above=0, below=1)]
Pair = Annotated[Any, Numbers(Number(), single=False)]

# Names that mean something else in expressions of pde.
_TAKEN = RESERVED | {"u"}


class FieldSpec(Section):
    """A Gaussian random field of mean zero by its covariance, cut after its leading modes (Karhunen-Loeve)."""

    covariance: Literal["matern", "gaussian"] = Field(default="matern", description="The kind of its covariance.")
    length: Positive = Field(description="Correlation length.")
    std: Positive = Field(default=1.0, description="Standard deviation.")
    smoothness: Annotated[float | None, Number(above=0, null=True)] = Field(
        default=None, description="Of matern: samples have fewer derivatives than this; null for 1.5."
    )
    modes: Annotated[int | None, Number(whole=True, least=1, null=True)] = Field(
        default=None, description="Modes that are kept, a standard variable each; null where `variance` tells."
    )
    variance: Annotated[float | None, Number(above=0, below=1, null=True)] = Field(
        default=None, description="Keep the fewest modes that carry this share of the variance, in place of `modes`."
    )

    @model_validator(mode="after")
    def _agreeing(self) -> FieldSpec:
        if (self.modes is None) == (self.variance is None):
            raise issue(f"expected exactly one of modes, variance; found {'none' if self.modes is None else 'both'}")
        if self.covariance == "gaussian" and self.smoothness is not None:
            raise issue("expected no smoothness with a gaussian covariance, whose samples are smooth")
        return self


class ParameterSpec(Alternatives):
    """A random input: exactly one of normal, uniform, field. Other distributions are expressions of these."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    normal: Pair | None = Field(default=None, description="A normal number, [mean, standard deviation].")
    uniform: Pair | None = Field(default=None, description="A number spread evenly over [low, high].")
    field: FieldSpec | None = Field(default=None, description="A field, by its covariance and its modes.")

    @model_validator(mode="before")
    @classmethod
    def _one_given(cls, value: Any) -> Any:
        """Several distributions are the only mistake that is reported, whatever is wrong within them."""
        if isinstance(value, dict) and set(value) <= set(cls.model_fields):
            cls.check_one(name for name in value if value[name] is not None)
        return value

    @model_validator(mode="after")
    def _in_range(self) -> ParameterSpec:
        if self.normal is not None and not (len(self.normal) == 2 and self.normal[1] > 0):
            raise issue(f"expected [mean, standard deviation], the latter positive; found {list(self.normal)}")
        if self.uniform is not None and not (len(self.uniform) == 2 and self.uniform[0] < self.uniform[1]):
            raise issue(f"expected [low, high] with low < high, found {list(self.uniform)}")
        return self


class ScenariosSpec(Section):
    """Which values of the random inputs are looked at, and how the optimisation goes through them."""

    count: AutoCount = Field(
        default="auto",
        description="Scenarios; auto is 256. A quadrature has as many as its rule; of a stream, those a fit looks at.",
    )
    sampling: Literal["monte_carlo", "quasi", "quadrature"] = Field(
        default="quasi", description="Independent scenarios, scrambled Sobol points, or Gauss quadrature."
    )
    rule: Literal["tensor", "sparse"] | None = Field(
        default=None,
        description="Of a quadrature: Gauss points in every variable, or Smolyak's sparse grid; null is sparse.",
    )
    points: Annotated[int | None, Number(whole=True, least=1, null=True)] = Field(
        default=None, description="Of the tensor rule: points in every variable; null is 5."
    )
    level: Annotated[int | None, Number(whole=True, least=0, null=True)] = Field(
        default=None, description="Of the sparse rule: exact up to the total degree 2 level + 1; null is 3."
    )
    batch: AutoCount = Field(default="auto", description="Scenarios that are worked on at once.")
    strategy: Literal["growing", "all", "saga", "streaming"] = Field(
        default="growing",
        description="Batches that grow as the iteration converges, all scenarios at once, batches with a table of "
        "gradients, or fresh scenarios in every step.",
    )
    levels: Annotated[int | Literal["auto"], Number(whole=True, least=1, below=3, words=("auto",))] = Field(
        default="auto",
        description="Meshes of strategy growing: 2 looks at scenarios on a coarser mesh too, as control variates; "
        "auto is 2 where that is cheaper.",
    )
    validation: Annotated[int | Literal["auto"], Number(whole=True, least=0, words=("auto",))] = Field(
        default="auto", description="Fresh scenarios that the final answer is judged by; 0: none."
    )
    confidence: Share = Field(default=0.95, description="Of the interval that is reported for the final answer.")

    @property
    def _quadrature(self) -> bool:
        return self.sampling == "quadrature"

    @model_validator(mode="after")
    def _rule_of_quadrature(self) -> ScenariosSpec:
        rule = self.rule or "sparse"
        for name, where in (("rule", None), ("points", "tensor"), ("level", "sparse")):
            value = getattr(self, name)
            if value is not None and not self._quadrature:
                raise issue(f"expected no {name} with sampling {self.sampling}, found {value!r}: it is of quadrature")
            if value is not None and where not in (None, rule):
                raise issue(f"expected no {name} with rule {rule}, found {value}: it is of {where}")
        if self._quadrature and self.count != "auto":
            raise issue(f"expected no count with sampling quadrature, whose rule gives it; found {self.count}")
        return self

    @model_validator(mode="after")
    def _samples_of_the_strategy(self) -> ScenariosSpec:
        if self.levels == 2 and (self._quadrature or self.strategy != "growing"):
            strategy = "sampling quadrature" if self._quadrature else f"strategy {self.strategy}"
            raise issue(f"expected levels 1 or auto with {strategy}, found 2: it is of growing samples")
        if self._quadrature and self.strategy == "streaming":
            raise issue("expected sampling monte_carlo or quasi with strategy streaming, found 'quadrature'")
        return self


class CVaRSpec(Section):
    """Conditional value at risk: the mean of the worst cases."""

    cvar: Share = Field(description="Its level: the mean of the worst share of 1 - level.")
    smoothing: AutoPositive = Field(
        default="auto", description="Width over which its kink is rounded, as a share of the spread of the objective."
    )


class EntropicSpec(Section):
    """log E exp(factor J) / factor."""

    entropic: Positive = Field(description="The factor: from the mean near 0 to the worst case.")


class MeanPlusDeviationSpec(Section):
    """E J + factor std J."""

    mean_plus_deviation: Positive = Field(description="The factor of the standard deviation.")


RiskSpec = Annotated[Literal["mean", "worst_case"] | CVaRSpec | EntropicSpec | MeanPlusDeviationSpec, OneOf()]


def name_complaint(name: str) -> str | None:
    """What is wrong with the name of a random input, or None."""
    if not (name.isidentifier() and name.isascii()):
        return f"expected a name of letters, digits and '_', found {name!r}"
    if name in _TAKEN or iskeyword(name):
        return f"the name {name!r} is taken: it means something else in expressions"
    return None
