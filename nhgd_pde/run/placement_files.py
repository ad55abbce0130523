"""The files of a choice of sensors, and what is said about it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..output.atomic import write_atomically
from ..output.fields import FieldData, Grid, write_vtu
from ..output.names import FIGURE, PLACEMENT, PLACEMENT_CANDIDATES, PLACEMENT_FIELDS, PLACEMENT_SENSORS
from ..output.storage import OutputError, writing
from ..output.strict_json import json_text
from .drawing import control_fields, output_grid
from .placing import Placement

# Chosen sensors up to which each has a line of its own.
_MOST = 20


def check_placement_folder(folder: Path) -> None:
    """
    Raises:
        OutputError: the folder holds other files than those of a choice of sensors.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: expected a folder, found a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / PLACEMENT).is_file():
        raise OutputError(f"{folder}: expected an empty folder or one with {PLACEMENT}, found one with other files")


def write_placement(placement: Placement, folder: Path) -> None:
    """Writes the files of a choice of sensors; the folder is made where it is not there.

    Raises:
        OutputError: the folder holds other files, or cannot be written.
    """
    from ..output.pictures import png
    from ..output.placement_picture import DrawnPlaces, placement_picture

    check_placement_folder(folder)
    with writing(folder, "made"):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PLACEMENT, json_text(placement_numbers(placement), PLACEMENT))
    write_atomically(folder / PLACEMENT_SENSORS, sensors_text(placement))
    grid, data = output_grid(placement.problem), placement_fields(placement)
    if data.point or data.cell:
        write_vtu(folder / PLACEMENT_FIELDS, grid, data)
    write_vtu(folder / PLACEMENT_CANDIDATES, *candidate_points(placement))
    places = DrawnPlaces(placement.candidates, placement.existing, placement.points, placement.alone)
    title = f"{placement.problem.name}: {_counted(len(placement.chosen), 'sensor')} by criterion {placement.criterion}"
    write_atomically(folder / FIGURE, png(placement_picture(grid, data, places, title)))


def placement_fields(placement: Placement) -> FieldData:
    """The standard deviations of all controls that are fields."""
    point: dict[str, np.ndarray] = {}
    cell: dict[str, np.ndarray] = {}
    for name in ("prior_std", "before_std", "std"):
        on_points, on_cells = control_fields(placement.problem, getattr(placement, name), name)
        point, cell = {**point, **on_points}, {**cell, **on_cells}
    return FieldData(point, cell)


def candidate_points(placement: Placement) -> tuple[Grid, FieldData]:
    """The candidates as points, with what each tells alone, its weight, and 1 for the chosen ones."""
    points = placement.candidates
    chosen = np.zeros(len(points), dtype=np.int32)
    chosen[placement.chosen] = 1
    fields = {"alone": placement.alone, "weight": placement.weights, "chosen": chosen}
    return Grid(points, np.arange(len(points))[:, None], "vertex"), FieldData(fields)


def sensors_text(placement: Placement) -> str:
    """The chosen sensors as a file of sensors, with the values that the computed state has there."""
    offered = placement.offered
    axes = ["x", "y", "z"][: placement.candidates.shape[1]]
    values = ["value"] if len(offered.components) == 1 else [f"value_{k}" for k in offered.components]
    timed = offered.times is not None
    lines = [
        "# The values are those of the computed state: put measured ones in their place.",
        ",".join([*axes, *(["t"] if timed else []), *values]),
    ]
    for number in placement.chosen:
        own = placement.expected[number].reshape(len(offered.components), -1)
        for k, time in enumerate(offered.times or (None,)):
            row = [*placement.candidates[number], *([] if time is None else [time]), *own[:, k]]
            lines.append(",".join(f"{float(each):.17g}" for each in row))
    return "\n".join(lines) + "\n"


def placement_numbers(placement: Placement) -> Mapping[str, Any]:
    """The content of placement.json."""
    choice = placement.choice
    return {
        "name": placement.problem.name,
        "criterion": placement.criterion,
        "penalty": placement.penalty,
        "noise": placement.noise,
        "candidates": len(placement.candidates),
        "values_per_sensor": placement.offered.values,
        "existing_sensors": len(placement.existing),
        "value": placement.value,
        "value_less_penalties": choice.net,
        "bound": placement.bound,
        "gap": placement.gap,
        "relaxed": {
            "value": choice.relaxed.value,
            "bound": choice.relaxed.bound,
            "iterations": choice.relaxed.iterations,
        },
        "entropy_bound": choice.entropy,
        "integrated_variance": placement.integrated_variance,
        "chosen": [
            {
                "candidate": int(number),
                "at": placement.candidates[number],
                "weight": placement.weights[number],
                "alone": placement.alone[number],
            }
            for number in placement.chosen
        ],
        "points": placement.candidates,
        "weights": placement.weights,
        "alone": placement.alone,
    }


def placement_lines(placement: Placement) -> list[str]:
    """What the command line prints about a choice of sensors."""
    count, many = len(placement.chosen), len(placement.candidates)
    there = f", beside {_counted(len(placement.existing), 'sensor')} kept" if len(placement.existing) else ""
    bound, value = placement.bound, placement.choice.net
    if placement.criterion == "D":
        what, shown = "information gain", f"{value:.4g} nats"
        limit = f"{bound:.4g} nats"
    else:
        what, shown = "share of the integrated variance that they take away", f"{100.0 * value:.4g} %"
        limit = f"{100.0 * bound:.4g} %"
    less = ", less the penalties," if placement.penalty else ""
    found = [
        f"sensors: {count:,} of {_counted(many, 'candidate')} by criterion {placement.criterion}{there}",
        f"{what}{less} {shown}; no other choice has more than {limit} (gap {100.0 * placement.gap:.2g} %)",
    ]
    for name, (prior, before, after) in placement.integrated_variance.items():
        found.append(
            f"integrated variance of {name}: prior {prior:.4g}, now {before:.4g}, with the sensors {after:.4g}"
        )
    for number in placement.chosen[:_MOST]:
        place = ", ".join(f"{x:.4g}" for x in placement.candidates[number])
        found.append(f"({place}): weight {placement.weights[number]:.2f}, alone {placement.alone[number]:.4g}")
    if count > _MOST:
        found.append(f"... and {count - _MOST:,} more")
    return found


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
