"""Pictures of controls that vary in time and of sensors: what is drawn, from memory and from the files of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nhgd_pde as nhgd
from nhgd_pde.output.controls_over_time import TimeCurve, read_curves
from nhgd_pde.output.field_layout import Panel, Pictured, pictured, sensor_places
from nhgd_pde.output.fields import FieldData, Grid
from nhgd_pde.output.figure import pictured_in
from nhgd_pde.output.mesh_panel import mesh_panels
from nhgd_pde.output.pictures import answer_panels, convergence_panels, picture
from nhgd_pde.output.slices import slice_of

PLATE = {"kind": "rectangle", "cells": [4, 4]}
ROD = {"kind": "interval", "cells": 8}


def problem(control: dict[str, Any], mesh: dict[str, Any] = ROD, **more: Any) -> dict[str, Any]:
    return {
        "name": "warm",
        "mesh": mesh,
        "pde": {"kind": "heat", "boundary": {"right": {"dirichlet": 0}}},
        "time": {"end": 2, "steps": 4, "initial": "1 - x"},
        "control": control,
        "objective": [{"kind": "tracking", "target": "t*(1 - x)"}, {"kind": "regularisation", "weight": 1e-2}],
        **more,
    }


def shown_from_both(content: dict[str, Any], folder: Path) -> tuple[nhgd.Solution, Pictured]:
    """A solution, and what its picture is made of; from the files the panels are the same."""
    solution = nhgd.solve(nhgd.load(content), output=folder)
    memory, files = solution.fields_to_draw(), pictured_in(folder)
    assert titles(memory) == titles(files)
    for panel, other in zip(panels(memory), panels(files), strict=True):
        for line, again in zip(drawn(panel).lines, drawn(other).lines, strict=True):
            np.testing.assert_allclose(line.get_xydata(), again.get_xydata(), rtol=1e-12)
    return solution, memory


def panels(shown: Pictured) -> list[Panel]:
    return answer_panels(shown, pictured(shown.data))


def titles(shown: Pictured) -> list[str]:
    return [panel.title for panel in panels(shown)]


def panel(shown: Pictured, title: str) -> Axes:
    return drawn(next(each for each in panels(shown) if each.title == title))


def drawn(panel: Panel) -> Axes:
    axes = Figure().subplots()
    panel.draw(axes)
    return axes


@pytest.mark.parametrize("mesh", [ROD, PLATE], ids=["rod", "plate"])
def test_a_number_for_each_step_is_a_curve_of_steps_with_its_bounds(mesh: dict[str, Any], tmp_path: Path) -> None:
    control = {"kind": "neumann", "on": "left", "space": "time", "bounds": [-1, "1 + t"]}
    solution, shown = shown_from_both(problem(control, mesh), tmp_path / "run")
    assert [title for title in titles(shown) if "control" in title] == ["control over time"]
    axes = panel(shown, "control over time")
    values, lower, upper = (line.get_xydata() for line in axes.lines)
    assert values[:, 0].tolist() == [0, 0.5, 0.5, 1, 1, 1.5, 1.5, 2]
    assert values[:, 1].tolist() == np.repeat(solution.controls["control"].ravel(), 2).tolist()
    assert set(lower[:, 1]) == {-1.0}
    # A bound that depends on t is that in the step, at the time at which the equation of the step is taken.
    assert upper[::2, 1].tolist() == [1.5, 2.0, 2.5, 3.0]
    assert axes.get_xlabel() == "t" and axes.get_legend_handles_labels()[1] == ["bounds"]


def test_windows_and_boundary_values_have_their_own_times(tmp_path: Path) -> None:
    windows = {"kind": "source", "space": "time", "windows": 2, "name": "heater"}
    side = {"kind": "dirichlet", "on": "left", "space": "time", "name": "side"}
    content = problem(windows)
    content["time"]["scheme"] = "crank_nicolson"
    solution, shown = shown_from_both(content | {"control": [windows, side]}, tmp_path / "run")
    heater, edge = (panel(shown, f"{name} over time").lines[0].get_xydata() for name in ("heater", "side"))
    assert heater[:, 0].tolist() == [0, 1, 1, 2]
    assert heater[::2, 1].tolist() == solution.controls["heater"].ravel().tolist()
    # The trapezoidal rule has boundary values at the ends of its steps, with straight lines between them.
    assert edge[::2].tolist() == [
        [t, v] for t, v in zip(solution.times[1:], solution.controls["side"].ravel(), strict=True)
    ]


def test_controls_at_the_ends_of_an_interval_are_curves_and_those_within_are_colours(tmp_path: Path) -> None:
    at_the_end = {"kind": "neumann", "on": "left", "space": "P1"}
    _, shown = shown_from_both(problem(at_the_end), tmp_path / "end")
    assert titles(shown) == ["state", "target", "control over time"]
    assert panel(shown, "control over time").get_legend_handles_labels()[1] == ["at x = 0"]
    _, shown = shown_from_both(problem({"kind": "source"}), tmp_path / "within")
    assert titles(shown) == ["state", "control", "target"]


def test_a_field_in_the_plane_is_drawn_at_several_times_with_its_norm(tmp_path: Path) -> None:
    solution, shown = shown_from_both(problem({"kind": "source"}, PLATE), tmp_path / "run")
    times = [f"control at t = {t:g}" for t in (0, 1, 2)]
    assert [title for title in titles(shown) if "control" in title] == [*times, "norm of control over time"]
    norms = panel(shown, "norm of control over time").lines[0].get_ydata()[::2]
    # The norm is that of L2 at each time; `integrate` finds its square in another way.
    exact = [solution.integrate("control**2", level=level) ** 0.5 for level in (1, 2, 3, 4)]
    np.testing.assert_allclose(norms, exact, rtol=1e-10)


@pytest.mark.parametrize("more", [{"time.memory": "2kB"}, {"method": "fds"}], ids=["memory", "fds"])
def test_an_evolution_that_is_not_kept_has_its_control_over_time(more: dict[str, Any], tmp_path: Path) -> None:
    control = {"kind": "source", "space": "time", "gain": "x"}
    settings = {"time.steps": 40, "mesh.cells": 40, **more}
    solution = nhgd.solve(nhgd.load(problem(control), settings), output=tmp_path / "run")
    shown = pictured_in(tmp_path / "run")
    # The state and the target are those at the end.
    assert titles(shown) == ["state and target at t = 2", "control over time"]
    line = panel(shown, "control over time").lines[0]
    assert line.get_ydata()[::2].tolist() == solution.controls["control"].ravel().tolist()
    assert line.get_xdata()[-1] == pytest.approx(2.0)
    assert solution.integrate("t") == pytest.approx(2.0)


def test_distant_bounds_leave_room_for_the_values() -> None:
    ends = np.array([1.0, 2.0])
    values, wide = np.array([0.1, 0.2]), np.array([1e6, 1e6])
    curve = TimeCurve("v", "", ends - 1.0, ends, values, -wide, values + 0.05)
    grid = Grid(np.array([[0.0, 0], [1, 0], [0, 1]]), np.array([[0, 1, 2]]), "triangle")
    axes = panel(Pictured(grid, FieldData({"state": np.ones(3)}), (), [curve]), "v over time")
    assert len(axes.lines) == 2 and axes.get_ylim()[1] < 1.0


def test_a_table_of_controls_that_is_damaged_is_told(tmp_path: Path) -> None:
    path = tmp_path / "controls_over_time.csv"
    assert read_curves(path) == []
    path.write_text("control,of,from,to,value,lower,upper\nv,,0,1,many,,\n")
    with pytest.raises(nhgd.OutputError, match=r"controls_over_time\.csv: the file is damaged"):
        read_curves(path)


def test_a_steady_problem_has_no_table_of_controls(tmp_path: Path) -> None:
    steady = problem({"kind": "source"}, pde={"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}}, time=None)
    steady["objective"][0]["target"] = "x"
    nhgd.solve(nhgd.load(steady), output=tmp_path / "run")
    assert not (tmp_path / "run/controls_over_time.csv").exists()


# Sensors

READINGS = [(x, 0.5, t, x * t) for x in (0.2, 0.4, 0.5, 0.6, 0.8) for t in (0.5, 1.0, 2.0)]


def test_sensors_over_time_are_curves_with_dots_and_marks_on_the_state(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "s.csv", READINGS, delimiter=",", header="x, y, t, value", comments="")
    content = problem({"kind": "source"}, PLATE)
    content["objective"][0] = {"kind": "tracking", "at": str(tmp_path / "s.csv")}
    solution, shown = shown_from_both(content, tmp_path / "run")
    title = "4 of 5 sensors: measured (dots), computed"
    assert titles(shown)[-2:] == [title, "sensors: computed over measured"]
    lines = panel(shown, title).lines
    # Sensors that are spread over the measured values, each as dots and a line.
    labels = [line.get_label() for line in lines[1::2]]
    assert labels == [f"at ({x}, 0.5)" for x in (0.2, 0.4, 0.6, 0.8)]
    for dots, line, x in zip(lines[::2], lines[1::2], (0.2, 0.4, 0.6, 0.8), strict=True):
        assert dots.get_linestyle() == "None" and line.get_linestyle() == "-"
        np.testing.assert_allclose(dots.get_xydata(), [[t, x * t] for t in (0.5, 1.0, 2.0)])
        computed = [solution.evaluate([[x, 0.5]], level=level)[0] for level in (1, 2, 4)]
        np.testing.assert_allclose(line.get_ydata(), computed, rtol=1e-10)
    # All of them are in the other panel.
    assert len(panel(shown, "sensors: computed over measured").lines[0].get_xdata()) == len(READINGS)
    for at in (" at t = 0", " at t = 1", " at t = 2"):
        marks = panel(shown, f"state{at}").lines[0].get_xydata()
        np.testing.assert_allclose(marks, [[x, 0.5] for x in (0.2, 0.4, 0.5, 0.6, 0.8)])
        assert not panel(shown, f"control{at}").lines


def test_few_sensors_over_time_need_one_panel() -> None:
    def of(count: int) -> list[str]:
        x = np.repeat(np.arange(1.0, count + 1), 3)
        fields = {"measured": x, "computed": x, "time": np.tile([0.0, 1.0, 2.0], count), "term": np.zeros(3 * count)}
        grid = Grid(np.array([[0.0], [9.0]]), np.array([[0, 1]]), "line")
        sensors = Grid(x[:, None], np.arange(len(x))[:, None], "vertex"), FieldData(fields)
        return titles(Pictured(grid, FieldData({"state": np.zeros(2)}), (), (), sensors))

    assert of(3) == ["state", "sensors: measured (dots), computed"]
    assert of(5) == ["state", "4 of 5 sensors: measured (dots), computed", "sensors: computed over measured"]


def test_sensors_of_a_steady_problem_on_an_interval_are_dots_beside_the_state(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("0.25 0.3\n0.5 0.4\n0.75 0.2\n")
    steady = problem({"kind": "source"}, pde={"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}}, time=None)
    steady["objective"][0] = {"kind": "tracking", "at": str(tmp_path / "s.csv")}
    solution, shown = shown_from_both(steady, tmp_path / "run")
    assert titles(shown) == ["state", "control", "sensors: computed over measured"]
    state = panel(shown, "state")
    assert state.lines[0].get_xydata().tolist() == [[0.25, 0.3], [0.5, 0.4], [0.75, 0.2]]
    assert state.get_legend_handles_labels()[1] == ["measured", "state"]
    dots, diagonal = panel(shown, "sensors: computed over measured").lines
    np.testing.assert_allclose(dots.get_ydata(), solution.evaluate(np.array([[0.25], [0.5], [0.75]])), rtol=1e-10)
    assert diagonal.get_slope() == 1.0


def test_components_of_a_vector_have_panels_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("0.3 0.4 0.1 0.2\n0.6 0.5 -0.1 0.3\n")
    content = {
        "name": "bent",
        "mesh": PLATE,
        "pde": {"kind": "elasticity", "young": 1, "poisson_ratio": 0.3, "boundary": {"left": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "at": str(tmp_path / "s.csv")}, {"kind": "regularisation", "weight": 1e-3}],
    }
    _, shown = shown_from_both(content, tmp_path / "run")
    # The third component of the file is a filling.
    assert titles(shown)[-2:] == [f"sensors: computed over measured, {axis}" for axis in "xy"]
    second = panel(shown, "sensors: computed over measured, y").lines[0]
    assert second.get_xdata().tolist() == [0.2, 0.3]


def test_sensors_close_to_a_slice_are_marked_on_it() -> None:
    x = np.array([[i, j, k] for k in (0.0, 1.0) for j in (0.0, 1.0) for i in (0.0, 1.0)])
    body = Grid(x, np.array([[0, 1, 3, 2, 4, 5, 7, 6]]), "hexahedron")
    places = np.array([[0.2, 0.3, 0.51], [0.2, 0.3, 0.9], [0.7, 0.1, 0.5], [0.7, 0.1, 0.5]])
    sensors = Grid(places, np.arange(4)[:, None], "vertex"), FieldData()
    shown = Pictured(body, FieldData(), sensors=sensors)
    assert sensor_places(shown, slice_of(body, 2, 0.5)).tolist() == [[0.2, 0.3], [0.7, 0.1]]


def test_a_report_has_a_picture_of_each_panel(tmp_path: Path) -> None:
    control = {"kind": "neumann", "on": "left", "space": "time"}
    solution = nhgd.solve(nhgd.load(problem(control)))
    text = solution.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(f'alt="Picture: {title}"' in text for title in titles(solution.fields_to_draw()))
    assert 'alt="Picture: control over time"' in text


@pytest.mark.parametrize("count", [2, 3, 7, 60])
def test_iterations_have_whole_numbers(count: int) -> None:
    rows = [{"iteration": k, "objective": 1.0 + 0.5**k, "gradient_norm": 0.1**k} for k in range(count)]
    (panel_of_rows,) = convergence_panels(rows)
    ticks = drawn(panel_of_rows).get_xticks()
    assert len(ticks) > 1 and np.array_equal(ticks, np.round(ticks))


def test_many_panels_fill_their_picture() -> None:
    """No axes are as small as where a layout has found no room for them."""
    grid = Grid(np.array([[0.0, 0], [1, 0], [0, 1]]), np.array([[0, 1, 2]]), "triangle")
    ends = np.arange(1.0, 4.0)
    none = np.full(3, np.inf)
    curves = [TimeCurve(name, "", ends - 1, ends, ends, -none, none) for name in "abcdef"]
    figure = picture(Pictured(grid, FieldData({"state": np.arange(3.0)}), (), curves), ["state"], "seven")
    figure.draw_without_rendering()
    assert min(axes.get_position().width for axes in figure.axes if axes.get_title()) > 0.15


def test_a_graded_mesh_is_drawn_and_an_even_one_is_not() -> None:
    x = np.array([0.0, 0.05, 0.2, 0.6, 1.0])
    points = np.stack(np.meshgrid(x, [0.0, 0.1, 1.0], indexing="ij"), -1).reshape(-1, 2)
    corner = np.array([[3 * k + j for j in (0, 1)] for k in range(4)]).ravel()
    cells = np.stack([corner, corner + 3, corner + 4, corner + 1], axis=1)
    graded = Pictured(Grid(points, cells, "quad"), FieldData({"state": points[:, 0]}))
    (panel,) = (each for each in panels(graded) if each.title.startswith("mesh"))
    assert panel.title == "mesh (8 cells)"
    (lines,) = drawn(panel).collections
    assert len(lines.get_paths()) == 8
    even = np.stack(np.meshgrid(range(5), range(3), indexing="ij"), -1).reshape(-1, 2).astype(float)
    assert not mesh_panels(Pictured(Grid(even, cells, "quad"), graded.data))
