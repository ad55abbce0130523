"""The section `population` of a problem file, and what the method that it belongs to does not take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from nhgd_pde.problem_file.fields import Number, Section
from nhgd_pde.problem_file.mesh_spec import Count, Length, Natural

Members = Annotated[int, Number(whole=True, least=2)]
Share = Annotated[float, Number(above=0, below=1)]


class PopulationSpec(Section):
    """Of hpm: a population of designs, from the best of which the run starts."""

    members: Members = Field(default=8, description="Designs in the population.")
    generations: Natural = Field(default=12, description="Generations after the random starts.")
    replaced: Share = Field(default=0.5, description="Share of the members that a generation replaces by mutations.")
    reach: Length = Field(
        default=0.8, description="Standard deviation of a mutation in ranges of the bounds, before the teacher learns."
    )
    rate: Annotated[float, Number(least=0)] = Field(
        default=0.1, description="Length of the teacher's steps; 0: it does not learn."
    )
    steps: Count = Field(default=30, description="Most outer iterations of a member in one generation.")
    rtol: Length = Field(default=1e-3, description="Gradient norm that a member has to reach, relative to its first.")
    processes: Count = Field(default=1, description="Processes that share the members, each with a problem of its own.")


def population_complaints(spec: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What a population search does not take of a problem with an equation: places in the file, and messages."""
    if spec.parameters:
        yield ("method",), "expected a method for random inputs, found 'hpm': take nhgd, or no parameters"
    if spec.state is not None:
        yield ("state",), "expected none with method hpm, which compares objectives to more digits than a network gives"
    if spec.constraints:
        count = len(spec.constraints)
        message = f"expected none with method hpm, whose random designs would not satisfy them; found {count}"
        yield ("constraints",), message
    for key, control in spec.keyed_controls:
        if None in control.bounds:
            text = ", ".join("null" if each is None else str(each) for each in control.bounds)
            message = "expected two bounds with method hpm, which draws designs at random between them"
            yield (*_parts(key), "bounds"), f"{message}; found [{text}]: give bounds: [lower, upper]"


def _parts(key: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))
