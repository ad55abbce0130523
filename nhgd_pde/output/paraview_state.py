"""A state of ParaView for a run folder: its fields with colour maps, deformed bodies, material, sensors.

A copy of this file stands in each run folder as paraview_state.py. Open it with File > Load State, or run
`pvpython paraview_state.py`, which opens a window; `pvpython paraview_state.py picture.png` writes a picture instead.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# The largest displacement as drawn, as a share of the longest side of the domain.
DEFORMATION = 0.1
# The density from which on there is material.
MATERIAL = 0.5
# The largest number of times of an evolution whose values the ranges of colours are taken from.
TIMES = 20
# The first of these fields that is there is shown; otherwise the first field.
FIRST = ("von_mises", "state_magnitude", "velocity", "displacement", "state")
# Colours of subdomains, which are used again where there are more of them.
COLOURS = ((0.85, 0.85, 0.85), (0.12, 0.47, 0.71), (1.0, 0.5, 0.05), (0.17, 0.63, 0.17), (0.84, 0.15, 0.16))


def folder() -> str:
    """The folder of this file. ParaView sets its name also for a state that is loaded."""
    return os.path.dirname(os.path.abspath(globals().get("__file__", "paraview_state.py")))


def show() -> Any:
    """Builds the pipeline; returns the view."""
    from paraview import simple

    # Views are updated when the pipeline is complete.
    simple._DisableFirstRenderCameraReset()
    view = simple.GetActiveViewOrCreate("RenderView")
    series, final = (os.path.join(folder(), *names) for names in (("evolution", "evolution.pvd"), ("final.vtu",)))
    if os.path.exists(series):
        source = simple.PVDReader(FileName=series)
    else:
        source = simple.XMLUnstructuredGridReader(FileName=[final])
    fields = ranges(source)
    for each, (_, components, low, high) in fields.items():
        colour(each, components, low, high)
    shown: Any = source
    name = first(fields)
    bounds = source.GetDataInformation().GetBounds()
    if bounds[2] == bounds[3] and name is not None and fields[name][:2] == ("POINTS", 1):
        shown = curve(shown, name, bounds[1] - bounds[0], fields[name])
    elif fields.get("displacement", ("", 0))[1] > 1:
        shown = warped(shown, fields)
    density = next((label for label in fields if label.startswith("density")), None)
    if density is not None:
        place, _, _, high = fields[density]
        shown = simple.Threshold(Input=shown, Scalars=[place, density], AllScalars=0)
        shown.LowerThreshold, shown.UpperThreshold = MATERIAL, max(high, MATERIAL)
    display = simple.Show(shown, view)
    display.LineWidth = 3.0 if bounds[2] == bounds[3] else 1.0
    if name is not None:
        simple.ColorBy(display, (fields[name][0], name))
        display.SetScalarBarVisibility(view, True)
    points("sensors.vtu", "misfit", view)
    simple.GetAnimationScene().UpdateAnimationUsingDataTimeSteps()
    simple.GetAnimationScene().GoToLast()
    view.InteractionMode = "2D" if bounds[4] == bounds[5] else "3D"
    if view.InteractionMode == "3D":
        view.ResetActiveCameraToNegativeX()
        camera = simple.GetActiveCamera()
        camera.Azimuth(30.0)
        camera.Elevation(20.0)
    view.ResetCamera(False)
    simple.SetActiveSource(shown)
    simple.Render(view)
    return view


def ranges(source: Any) -> dict[str, tuple[str, int, float, float]]:
    """The fields of a source by their names: where their values are, the number of components, least and largest value.

    Those of a vector are lengths.
    """
    times = list(source.TimestepValues or [0.0]) if hasattr(source, "TimestepValues") else [0.0]
    step = max(1, -(-len(times) // TIMES))
    found: dict[str, tuple[str, int, float, float]] = {}
    for time in [*times[::step], times[-1]]:
        source.UpdatePipeline(time)
        for place, arrays in (("POINTS", source.PointData), ("CELLS", source.CellData)):
            for array in arrays:
                components = array.GetNumberOfComponents()
                low, high = array.GetRange(-1 if components > 1 else 0)
                before = found.get(array.Name, (place, components, low, high))
                found[array.Name] = place, components, min(low, before[2]), max(high, before[3])
    return found


def first(fields: dict[str, tuple[str, int, float, float]]) -> str | None:
    """The name of the field to be shown."""
    return next((name for name in (*FIRST, *fields) if name in fields), None)


def curve(source: Any, name: str, length: float, field: tuple[str, int, float, float]) -> Any:
    """A field on an interval as a curve; its values are drawn larger or smaller than they are."""
    from paraview import simple

    size = max(abs(field[2]), abs(field[3]))
    factor = 0.5 * length / size if size > 0.0 else 1.0
    found = simple.WarpByScalar(Input=source, Scalars=["POINTS", name], ScaleFactor=factor)
    found.UseNormal, found.Normal = 1, [0.0, 1.0, 0.0]
    return found


def warped(source: Any, fields: dict[str, tuple[str, int, float, float]]) -> Any:
    """A body as it is deformed; the displacement is drawn larger or smaller than it is."""
    from paraview import simple

    bounds = source.GetDataInformation().GetBounds()
    longest = max(bounds[k + 1] - bounds[k] for k in (0, 2, 4))
    largest = fields["displacement"][3]
    factor = DEFORMATION * longest / largest if largest > 0.0 else 1.0
    return simple.WarpByVector(Input=source, Vectors=["POINTS", "displacement"], ScaleFactor=factor)


def colour(name: str, components: int, low: float, high: float) -> None:
    """Gives a field its colours: categories, a density from white to black, two colours about zero, or one scale."""
    from paraview import simple

    table = simple.GetColorTransferFunction(name)
    if name == "subdomain":
        labels = {0: "none", **{number: label for label, number in subdomains().items()}}
        labels = {number: labels.get(number, str(number)) for number in range(int(low), int(high) + 1)}
        table.InterpretValuesAsCategories = 1
        table.AnnotationsInitialized = 1
        table.Annotations = [text for number, label in labels.items() for text in (str(number), label)]
        table.IndexedColors = [part for number in labels for part in COLOURS[number % len(COLOURS)]]
        return
    if name.startswith("density"):
        table.ApplyPreset("X Ray", True)
        low, high = 0.0, 1.0
    elif low < 0.0 < high and components == 1:
        table.ApplyPreset("Cool to Warm", True)
        low, high = -max(-low, high), max(-low, high)
    else:
        table.ApplyPreset("Inferno (matplotlib)" if name == "von_mises" else "Viridis (matplotlib)", True)
    if components > 1:
        table.VectorMode = "Magnitude"
    if low < high:
        table.RescaleTransferFunction(low, high)


def subdomains() -> dict[str, int]:
    """The numbers of the subdomains by their names."""
    try:
        with open(os.path.join(folder(), "summary.json"), encoding="utf-8") as file:
            found = json.load(file).get("subdomains", {})
    except (OSError, ValueError):
        return {}
    return {str(name): int(number) for name, number in found.items()}


def points(file: str, name: str, view: Any) -> None:
    """Shows a file of points, if it is there, coloured by a field that it has, of a vector by its length."""
    from paraview import simple

    path = os.path.join(folder(), file)
    if not os.path.exists(path):
        return
    source = simple.XMLUnstructuredGridReader(FileName=[path])
    fields = ranges(source)
    display = simple.Show(source, view)
    display.SetRepresentationType("Points")
    display.PointSize = 12.0 if source.GetDataInformation().GetNumberOfPoints() <= 200 else 5.0
    display.RenderPointsAsSpheres = 1
    if name in fields:
        colour(name, *fields[name][1:])
        simple.ColorBy(display, ("POINTS", name))
        display.SetScalarBarVisibility(view, True)


def main() -> None:
    from paraview import servermanager, simple

    view = show()
    if getattr(servermanager, "fromGUI", False):
        return
    if len(sys.argv) > 1:
        simple.SaveScreenshot(sys.argv[1], view, ImageResolution=[1200, 800])
    else:
        simple.Interact(view)


# Only the copies in run folders are run.
if not str(globals().get("__package__") or "").startswith("nhgd_pde"):
    main()
