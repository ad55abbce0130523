"""The files of a result. A new one is one function, listed in `RESULTS` under the name of its file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol

from .names import (
    ARRAYS,
    BOUNDARY,
    BOUNDARY_EVOLUTION,
    CONTROLS,
    EVOLUTION,
    FINAL,
    IMAGES,
    POSTERIOR_FIELDS,
    POSTERIOR_NUMBERS,
    SCENARIOS,
    SENSORS,
    STATE_SCRIPT,
)
from .storage import StorageError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from .controls_over_time import TimeCurve
    from .fields import FieldData, Grid
    from .run_folder import RunFolder


class Result(Protocol):
    """What the files of a result are written from."""

    def fields(self) -> tuple[Grid, FieldData] | None:
        """The fields of the last iterate; of an evolution at its last time. None where there are none."""
        ...

    def frames(self) -> Iterable[tuple[Grid, FieldData]]:
        """The fields of an evolution at each of its times; none of a steady problem."""
        ...

    def sensors(self) -> tuple[Grid, FieldData] | None:
        """The sensors of the objective as points; None without."""
        ...

    def boundary(self) -> tuple[Grid, FieldData] | None:
        """The parts of the boundary that controls act on; None without."""
        ...

    def boundary_frames(self) -> Iterable[tuple[Grid, FieldData]]:
        """The same parts at each time of an evolution with a control on them that varies; else none."""
        ...

    def control_curves(self) -> Iterable[TimeCurve]:
        """The controls that vary in time, as curves; none of a steady problem."""
        ...

    def scenario_rows(self) -> Iterable[Mapping[str, Any]]:
        """A row for each scenario; none without random inputs."""
        ...

    def posterior_fields(self) -> tuple[Grid, FieldData] | None:
        """Mean, standard deviations and samples of a posterior; None without one, or without a field in it."""
        ...

    def posterior_numbers(self) -> Mapping[str, Any]:
        """The content of posterior.json; none without a posterior."""
        ...

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Named arrays of an answer that is no field."""
        ...

    def images(self) -> Figure | None:
        """A picture of images that are the answer; None where there are none."""
        ...


def _fields(run: RunFolder, name: str, frame: tuple[Grid, FieldData] | None) -> None:
    if frame is not None:
        run.write_fields(name, *frame)


def _beside(name: str, write: Callable[[RunFolder, Result], object]) -> Callable[[RunFolder, Result], None]:
    """Writes a file without which a result is complete: if its fields cannot be computed, there is a warning."""

    def written(run: RunFolder, result: Result) -> None:
        try:
            write(run, result)
        except StorageError:
            raise
        except Exception as error:
            run.warn(f"{name} could not be made: {type(error).__name__}: {error}")

    return written


def _state_script(run: RunFolder) -> None:
    """Writes the state of ParaView beside the fields that it opens."""
    if (run.path / FINAL).exists():
        source = files(__package__).joinpath("paraview_state.py").read_text(encoding="utf-8")
        run.write_text(STATE_SCRIPT, source)


# The names are cleared from a folder before a new run writes there; one without a suffix is a series in a folder.
RESULTS: dict[str, Callable[[RunFolder, Result], object]] = {
    FINAL: lambda run, result: _fields(run, FINAL, result.fields()),
    EVOLUTION: lambda run, result: run.write_series(EVOLUTION, result.frames()),
    SENSORS: _beside(SENSORS, lambda run, result: _fields(run, SENSORS, result.sensors())),
    BOUNDARY: _beside(BOUNDARY, lambda run, result: _fields(run, BOUNDARY, result.boundary())),
    BOUNDARY_EVOLUTION: _beside(
        BOUNDARY_EVOLUTION, lambda run, result: run.write_series(BOUNDARY_EVOLUTION, result.boundary_frames())
    ),
    STATE_SCRIPT: lambda run, result: _state_script(run),
    CONTROLS: _beside(
        CONTROLS,
        lambda run, result: run.write_table(CONTROLS, (row for each in result.control_curves() for row in each.rows())),
    ),
    SCENARIOS: lambda run, result: run.write_table(SCENARIOS, result.scenario_rows()),
    POSTERIOR_FIELDS: _beside(
        POSTERIOR_FIELDS, lambda run, result: _fields(run, POSTERIOR_FIELDS, result.posterior_fields())
    ),
    POSTERIOR_NUMBERS: _beside(
        POSTERIOR_NUMBERS, lambda run, result: run.write_numbers(POSTERIOR_NUMBERS, result.posterior_numbers())
    ),
    ARRAYS: lambda run, result: run.write_arrays(result.arrays()),
    IMAGES: lambda run, result: run.write_images(result.images()),
}
