"""The pictures of studies: which kind of drawing, which scales, which ticks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

import nhgd_pde as nhgd
from nhgd_pde.bench.figures import Line, Plot, figure_of
from nhgd_pde.cli import main
from nhgd_pde.studies.designs import planned
from nhgd_pde.studies.drawings import drawn
from nhgd_pde.studies.setting_axes import SettingAxis, is_geometric, number_text
from nhgd_pde.studies.study_file import read_study

ROOT = Path(__file__).parents[1]
POISSON = str(ROOT / "problems" / "poisson_control.yaml")
WEIGHT, FACTOR = "objective.1.weight", "pde.conductivity"


def picture(kind: str, vary: Mapping[str, Any], results: Sequence[float], **keys: Any) -> Figure:
    """The picture of a study whose runs have these results, in the order of the combinations."""
    spec = read_study({"study": "a", "problem": POISSON, "kind": kind, "vary": vary, **keys}).spec
    rows = [
        {**run.settings, "run": run.number, "status": "converged", "objective": value}
        for run, value in zip(planned(spec), results, strict=True)
        if np.isfinite(value)
    ]
    figure = drawn(spec, rows, {})
    figure.draw_without_rendering()
    return figure


def labels(axes: Axes, axis: str) -> list[str]:
    return [each.get_text() for each in getattr(axes, f"get_{axis}ticklabels")()]


@pytest.mark.parametrize(
    ("values", "geometric"),
    [
        ([1e-6, 1e-5, 1e-4], True),
        ([1e-8, 1.6e-8, 2.5e-8, 4e-8, 6.3e-8, 1e-7], True),  # as a range of weights in a continuation
        ([1, 2, 4], True),
        ([1, 2, 5, 10], True),
        ([1, 2, 3], False),
        ([0.5, 0.8, 1.1, 1.4, 1.7, 2.0], False),
        ([0.0, 1e-3, 1.0], False),
        ([-1.0, 1.0, 100.0], False),
        ([1, 2], False),
        ([1e-4, 1e-3], True),
        ([3.0], False),
    ],
)
def test_values_in_equal_ratios_get_a_logarithmic_axis(values: list[float], geometric: bool) -> None:
    assert is_geometric(np.array(values)) is geometric


def test_a_range_of_ratios_is_logarithmic_however_short_it_is() -> None:
    assert SettingAxis.of("a", [1.0, 1.1, 1.3], logarithmic=True).logarithmic
    assert not SettingAxis.of("a", [1.0, 1.1, 1.3, 1.4]).logarithmic


@pytest.mark.parametrize(
    "value, text", [(1e-6, "1e-6"), (1e-4, "1e-4"), (3.16e-5, "3.16e-5"), (0.25, "0.25"), (0, "0")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize("kind", ["grid", "continuation"])
def test_two_settings_with_few_values_of_one_are_a_family_of_curves(kind: str) -> None:
    figure = picture(kind, {WEIGHT: [1e-6, 1e-5, 1e-4], FACTOR: [1, 2]}, [1, 10, 2, 20, 3, 30])
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == WEIGHT and axes.get_ylabel() == "objective"
    assert labels(axes, "x") == ["1e-6", "1e-5", "1e-4"]
    one, two = axes.lines
    assert one.get_xydata().tolist() == [[1e-6, 1], [1e-5, 2], [1e-4, 3]] and two.get_ydata().tolist() == [10, 20, 30]
    assert axes.get_legend_handles_labels()[1] == [f"{FACTOR} = 1", f"{FACTOR} = 2"]


def test_names_are_the_family_and_numbers_the_axis() -> None:
    figure = picture("grid", {"mesh.cells": [[8, 8], [16, 16]], WEIGHT: {"log": [1e-4, 1e-2, 3]}}, range(1, 7))
    (axes,) = figure.axes
    assert axes.get_xlabel() == WEIGHT
    assert axes.get_legend_handles_labels()[1] == ["mesh.cells = 8x8", "mesh.cells = 16x16"]


def test_many_values_of_two_settings_are_a_heat_map_on_their_scales() -> None:
    vary = {WEIGHT: {"log": [1e-8, 1e-4, 5]}, FACTOR: {"linear": [1, 5, 5]}}
    results = np.arange(1.0, 26.0)
    results[7] = np.nan  # a run that has failed
    axes, bar = picture("grid", vary, results).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear") and bar.get_ylabel() == "objective"
    (drawn_map,) = (each for each in axes.collections if isinstance(each, QuadMesh))
    cells = np.ma.filled(drawn_map.get_array(), np.nan).reshape(5, 5)
    np.testing.assert_array_equal(cells.T.ravel(), results)
    # Each value is in the middle of its cell, by lengths along the axis.
    corners = drawn_map.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], 10.0 ** np.arange(-8.5, -3.0))
    np.testing.assert_allclose(corners[:, 0, 1], np.arange(0.5, 6.0))
    assert labels(axes, "x") == ["1e-8", "1e-7", "1e-6", "1e-5", "1e-4"] and labels(axes, "y") == list("12345")
    assert sorted(text.get_text() for text in axes.texts) == sorted(number_text(each) for each in np.delete(results, 7))


def test_samples_of_two_settings_are_points_on_their_scales() -> None:
    vary = {WEIGHT: {"log": [1e-7, 1e-3]}, FACTOR: {"linear": [0.5, 2]}}
    axes, _ = picture("latin_hypercube", vary, range(1, 9), samples=8).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert len(axes.collections[0].get_offsets()) == 8


def test_texts_of_parallel_axes_have_a_ground_above_the_lines() -> None:
    vary = {WEIGHT: {"log": [1e-7, 1e-3]}, FACTOR: {"linear": [0.5, 2]}, "element": ["P1", "P2"]}
    axes, _ = picture("latin_hypercube", vary, range(1, 21), samples=20).axes
    assert labels(axes, "x") == [WEIGHT, FACTOR, "element", "objective"]
    highest = max(line.get_zorder() for line in axes.lines)
    assert len(axes.texts) == 4 + 4 + 2 + 4
    for text in axes.texts:
        ground = text.get_bbox_patch()
        assert ground is not None and ground.get_facecolor()[3] == 1.0 and text.get_zorder() > highest
    # The first of two names is at the bottom, as the smallest of numbers is.
    assert {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_text()[0] == "P"} == {
        "P1": 0.0,
        "P2": 1.0,
    }


def test_one_setting_is_a_curve_and_its_scale_fits() -> None:
    (axes,) = picture("continuation", {WEIGHT: {"log": [1e-7, 1e-8, 6]}}, range(1, 7)).axes
    assert axes.get_xscale() == "log" and axes.lines[0].get_xydata()[0].tolist() == [1e-8, 6]
    (axes,) = picture("grid", {"outer.iterations": list(range(1, 12))}, range(1, 12)).axes
    ticks = axes.get_xticks()
    assert axes.get_xscale() == "linear" and np.array_equal(ticks, np.round(ticks))
    (axes,) = picture("grid", {"mesh.cells": [[8, 8], [16, 16], [12, 12]]}, [3, 1, 2]).axes
    assert labels(axes, "x") == ["8x8", "12x12", "16x16"] and axes.lines[0].get_ydata().tolist() == [3, 2, 1]


def test_iterations_of_comparisons_are_whole_numbers() -> None:
    steps = np.arange(4.0)
    line = Line("a", ((steps, 10.0**-steps),))
    figures = [figure_of("a", Plot("", x, "gap", (line,))) for x in ("outer iterations", "seconds")]
    whole, parts = (figure.axes[0].get_xticks() for figure in figures)
    assert np.array_equal(whole, np.round(whole)) and not np.array_equal(parts, np.round(parts))


def test_the_commands_know_a_study_from_a_run(tmp_path: Path) -> None:
    content = {
        "study": "two",
        "problem": POISSON,
        "kind": "grid",
        "vary": {WEIGHT: [1e-4, 1e-3]},
        "overrides": {"mesh.cells": [4, 4]},
    }
    study = nhgd.study(content, output=tmp_path / "two")
    run = CliRunner().invoke
    (study.folder / "figure.png").unlink()
    said = run(main, ["plot", str(study.folder)])
    assert said.exit_code == 0 and said.output == f"{study.folder / 'figure.png'}: open it in any viewer\n"
    assert (study.folder / "figure.png").stat().st_size > 5000
    first = study.folder / study.rows[0]["folder"]
    said = run(main, ["report", str(study.folder)])
    assert said.exit_code == 2
    assert said.output == (
        f"{study.folder}: expected a run folder, found a study: give the folder of one of its runs, such as {first}\n"
    )
    assert run(main, ["report", str(first)]).exit_code == 0
    # A folder of runs that are no study.
    (study.folder / "study.yaml").unlink()
    said = run(main, ["plot", str(study.folder)])
    assert (
        said.exit_code == 2
        and f"found a folder of runs: give the folder of one of its runs, such as {first}" in said.output
    )


def test_a_study_without_an_answer_has_no_picture(tmp_path: Path) -> None:
    content = {
        "study": "none",
        "problem": POISSON,
        "kind": "grid",
        "vary": {WEIGHT: [1e-4]},
        "overrides": {"mesh.cells": [4, 4]},
    }
    study = nhgd.study(content, output=tmp_path / "none", interrupted=lambda: True)
    assert not any(row["status"] == "converged" for row in study.rows)
    said = CliRunner().invoke(main, ["plot", str(study.folder)])
    assert said.exit_code == 2 and f"{study.folder}: no picture: no run has ended with an answer" in said.output
