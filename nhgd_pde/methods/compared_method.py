"""The base of the compared methods, which describe themselves for lists and choices of methods."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, Self

from ..engine.scenarios.footprint import Footprint


class Compared:
    """Options of a method, a frozen dataclass, which is an `Oracle` too.

    Attributes:
        summary: one line for people.
        stochastic: the method draws samples of the inner problem.
        tracking: the inner variables or the adjoint belong to the outer point before, so that only short steps make
            sense and there can be no line search.
        stepwise: every evaluation uses other scenarios, so that there can be no line search.
    """

    summary: ClassVar[str] = ""
    stochastic: ClassVar[bool] = False
    tracking: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False

    @property
    def rough(self) -> bool:
        """Whether evaluations over scenarios are too rough to decide whether a start is a solution."""
        return False

    @classmethod
    def factory(cls, tests: int = 64, **options: Any) -> Self:
        """The method with the options of a problem file.

        Args:
            tests: number of random test functions per batch.
            options: for the inner problem and the linear system `inner_step`, `inner_steps`, `linear_step`, `steps`; of
                scenarios `solver`, `tolerance`, `warm`, `batch`, `fresh`; and `seed`. None stands for the default of
                the method, and an option that the method does not have is ignored.
        """
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        given = {"tests": tests, **options}
        return cls(**{name: value for name, value in given.items() if name in known and value is not None})

    def scenario_bytes(self, footprint: Footprint) -> float:
        """See `engine.scenarios.footprint.OverScenarios`."""
        return footprint.rows + footprint.working()
