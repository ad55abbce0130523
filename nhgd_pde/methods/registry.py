"""The tables of the compared methods: by name, how to make one from the options that they have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, NamedTuple, Protocol

from ..engine.oracle import Oracle
from .amigo import AmIGO
from .broyden import Broyden
from .nbo import NBOCG, NBOGD, NSBOSGD
from .neumann import Neumann
from .robbins_monro import RobbinsMonro
from .saba import SABA
from .sample_average import SampleAverage
from .soba import SOBA
from .stocbio import StocBiO
from .truncated_cg import TruncatedCG


class Factory(Protocol):
    """Options -> oracle; None is the method's own default, and an option that a method does not have is ignored."""

    def __call__(
        self,
        tests: int,
        steps: int | None = None,
        inner_step: float | None = None,
        linear_step: float | None = None,
        seed: int = 0,
        inner_steps: int | None = None,
    ) -> Oracle: ...


class Entry(NamedTuple):
    """
    Attributes:
        factory: makes the oracle.
        stochastic: it draws samples.
        description: a line.
        tracking: u or q belong to the point before, so that only short steps of v make sense: no line search.
    """

    factory: Factory
    stochastic: bool
    description: str
    tracking: bool


def _factory(kind: Callable[..., Oracle], inner_steps_name: str = "inner_steps") -> Factory:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]

    def make(
        tests: int,
        steps: int | None = None,
        inner_step: float | None = None,
        linear_step: float | None = None,
        seed: int = 0,
        inner_steps: int | None = None,
    ) -> Oracle:
        given: dict[str, Any] = {
            "tests": tests,
            "steps": steps,
            "inner_step": inner_step,
            "linear_step": linear_step,
            "seed": seed,
            inner_steps_name: inner_steps,
        }
        return kind(**{name: value for name, value in given.items() if name in known and value is not None})

    return make


METHODS: dict[str, Entry] = {
    "truncated_cg": Entry(
        _factory(TruncatedCG), False, "implicit differentiation with truncated conjugate gradients", False
    ),
    "neumann": Entry(_factory(Neumann), False, "implicit differentiation with a truncated Neumann series", False),
    "broyden": Entry(
        _factory(Broyden), False, "limited-memory Broyden inverse of the inner solver (SHINE, BPN)", False
    ),
    "stocbio": Entry(_factory(StocBiO), True, "stochastic inner steps and Neumann series", True),
    "amigo": Entry(_factory(AmIGO), True, "warm-started stochastic steps on the state and the linear system", True),
    "soba": Entry(_factory(SOBA), True, "state, linear system and control move at the same time", True),
    "saba": Entry(_factory(SABA), True, "soba with variance reduction on a finite pool of samples", True),
    "nbo_gd": Entry(
        _factory(NBOGD, "rounds"), False, "Newton step and linear system together, by gradient descent", True
    ),
    "nbo_cg": Entry(
        _factory(NBOCG, "rounds"), False, "Newton step and linear system together, by conjugate gradients", True
    ),
    "nsbo_sgd": Entry(
        _factory(NSBOSGD, "rounds"), True, "Newton step and linear system together, by stochastic steps", True
    ),
}


class ScenarioFactory(Protocol):
    """Options -> oracle over scenarios; None is its own default, and an option that it does not have is ignored."""

    def __call__(
        self,
        solver: Literal["factors", "nominal"] = "factors",
        tolerance: float | None = None,
        warm: bool = True,
        batch: int = 8,
        fresh: bool = False,
        seed: int = 0,
    ) -> Oracle: ...


class ScenarioEntry(NamedTuple):
    """
    Attributes:
        factory: makes the oracle.
        description: a line.
        stepwise: every evaluation is of other scenarios, so that its steps cannot be searched.
    """

    factory: ScenarioFactory
    description: str
    stepwise: bool


def _sample_average(
    solver: Literal["factors", "nominal"] = "factors",
    tolerance: float | None = None,
    warm: bool = True,
    batch: int = 8,
    fresh: bool = False,
    seed: int = 0,
) -> SampleAverage:
    return SampleAverage(solver, tolerance, warm)


def _robbins_monro(
    solver: Literal["factors", "nominal"] = "factors",
    tolerance: float | None = None,
    warm: bool = True,
    batch: int = 8,
    fresh: bool = False,
    seed: int = 0,
) -> RobbinsMonro:
    tolerance = RobbinsMonro.tolerance if tolerance is None else tolerance
    # Scenarios that do not come again have nothing to start from.
    return RobbinsMonro(batch, fresh, tolerance, "kept" if warm and not fresh else "nominal", seed=seed)


OVER_SCENARIOS: dict[str, ScenarioEntry] = {
    "sample_average": ScenarioEntry(_sample_average, "exact or inexact adjoints of all scenarios", False),
    "robbins_monro": ScenarioEntry(_robbins_monro, "stochastic gradients from minibatches of scenarios", True),
}
"""Those for problems with random inputs, and for no other."""
