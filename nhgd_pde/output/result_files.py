"""The files of a result. A new one is one function, listed in `RESULTS` under the name of its file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from .names import EVOLUTION, FINAL, SCENARIOS

if TYPE_CHECKING:
    from .fields import FieldData, Grid
    from .run_folder import RunFolder


class Result(Protocol):
    """What the files of a result are written from."""

    def fields(self) -> tuple[Grid, FieldData]:
        """The fields of the last iterate; of an evolution at its last time."""
        ...

    def frames(self) -> Iterable[tuple[Grid, FieldData]]:
        """The fields of an evolution at each of its times; none of a steady problem."""
        ...

    def scenario_rows(self) -> Iterable[Mapping[str, Any]]:
        """A row for each scenario; none without random inputs."""
        ...


# The names are cleared from a folder before a new run writes there; one without a suffix is a series in a folder.
RESULTS: dict[str, Callable[[RunFolder, Result], object]] = {
    FINAL: lambda run, result: run.write_final(*result.fields()),
    EVOLUTION: lambda run, result: run.write_evolution(result.frames()),
    SCENARIOS: lambda run, result: run.write_scenarios(result.scenario_rows()),
}
