"""The files of a result. A new one is one function, listed in `RESULTS` under the name of its file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol

from .names import ARRAYS, BOUNDARY, EVOLUTION, FINAL, IMAGES, SCENARIOS, SENSORS, STATE_SCRIPT
from .storage import StorageError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

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

    def scenario_rows(self) -> Iterable[Mapping[str, Any]]:
        """A row for each scenario; none without random inputs."""
        ...

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Named arrays of an answer that is no field."""
        ...

    def images(self) -> Figure | None:
        """A picture of images that are the answer; None where there are none."""
        ...


def _final(run: RunFolder, frame: tuple[Grid, FieldData] | None) -> None:
    if frame is not None:
        run.write_final(*frame)


def _beside(
    name: str, fields: Callable[[Result], tuple[Grid, FieldData] | None]
) -> Callable[[RunFolder, Result], None]:
    """Writes a file without which a result is complete: if its fields cannot be computed, there is a warning."""

    def write(run: RunFolder, result: Result) -> None:
        try:
            found = fields(result)
            if found is not None:
                run.write_fields(name, *found)
        except StorageError:
            raise
        except Exception as error:
            run.warn(f"{name} could not be made: {type(error).__name__}: {error}")

    return write


def _state_script(run: RunFolder) -> None:
    """Writes the state of ParaView beside the fields that it opens."""
    if (run.path / FINAL).exists():
        source = files(__package__).joinpath("paraview_state.py").read_text(encoding="utf-8")
        run.write_text(STATE_SCRIPT, source)


# The names are cleared from a folder before a new run writes there; one without a suffix is a series in a folder.
RESULTS: dict[str, Callable[[RunFolder, Result], object]] = {
    FINAL: lambda run, result: _final(run, result.fields()),
    EVOLUTION: lambda run, result: run.write_evolution(result.frames()),
    SENSORS: _beside(SENSORS, lambda result: result.sensors()),
    BOUNDARY: _beside(BOUNDARY, lambda result: result.boundary()),
    STATE_SCRIPT: lambda run, result: _state_script(run),
    SCENARIOS: lambda run, result: run.write_scenarios(result.scenario_rows()),
    ARRAYS: lambda run, result: run.write_arrays(result.arrays()),
    IMAGES: lambda run, result: run.write_images(result.images()),
}
