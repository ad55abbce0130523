"""The picture that a solve ends with, and the report of a run: complete, exact, self-contained and safe."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from matplotlib import image

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.output.colour_images import Raster
from nhgd_pde.output.field_layout import Pictured, field_panels, pictured, shown_levels
from nhgd_pde.output.field_panels import Plane, colours_of, on_boundary_alone
from nhgd_pde.output.fields import FieldData, Grid
from nhgd_pde.output.pictures import picture
from nhgd_pde.reports.markup import tag
from nhgd_pde.reports.material import Material
from nhgd_pde.reports.report_page import report_page

ROOT = Path(__file__).parents[1]
SECTIONS = ["result", "problem", "setting", "convergence", "certificates", "work", "warnings"]
# Shipped problems of all kinds, as small as they can be, and the further sections of their reports.
KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "poisson_control": ({"mesh.cells": [8, 8]}, ["fields"]),
    "poisson_control_3d": ({"mesh.cells": [3, 3, 3]}, ["fields"]),
    "heat_control": ({"mesh.cells": [8]}, ["fields"]),
    "heat_boundary": ({"outer.iterations": 2}, ["fields"]),
    "stokes_control": ({"mesh.cells": [4, 4]}, ["fields"]),
    "helmholtz_control": ({"mesh.cells": [6, 6]}, ["fields"]),
    "mbb_beam": ({"outer.iterations": 3}, ["fields"]),
    "state_constraint": ({"mesh.cells": [8, 8]}, ["fields"]),
    "parameter_fit": ({"mesh.cells": [6, 6]}, ["fields"]),
    "robust_poisson": ({"mesh.cells": [6, 6], "scenarios.count": 8}, ["fields", "uncertainty"]),
    "inversion_posterior": ({"mesh.cells": [8, 8]}, ["fields", "posterior"]),
    "minimal_surface": ({"mesh.cells": [6, 6]}, ["fields"]),
    "digits_cleaning": ({"outer.iterations": 1}, []),
    "digits_distillation": ({"outer.iterations": 1}, ["fields"]),
}


class Page(HTMLParser):
    """The parts of a page that the tests ask for; a tag that is closed in the wrong order is an error."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: dict[str, str] = {}
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "data" and "data-key" in found:
            self.numbers[str(found["data-key"])] = str(found["value"])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data

    @property
    def sections(self) -> list[str]:
        return [str(found["id"]) for name, found in self.tags if name == "section"]


def entry(content: Any, key: str) -> Any:
    """The entry of summary.json at a place such as `uncertainty.objective_quantiles.0.05` or `constraints.0.value`."""
    if isinstance(content, list):
        content = {str(place): each for place, each in enumerate(content)}
    if key in content:
        return content[key]
    head, _, rest = key.partition(".")
    return entry(content[head], rest)


def solved(name: str, folder: Path, **settings: Any) -> nhgd.Solution:
    options = {**KINDS[name][0], **settings} if name in KINDS else settings
    return nhgd.solve(nhgd.load(ROOT / f"problems/{name}.yaml", options), output=folder)


def invoked(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.mark.parametrize("name", KINDS)
def test_a_report_is_complete_exact_and_needs_no_other_file(name: str, tmp_path: Path) -> None:
    if name.startswith("digits"):
        pytest.importorskip("sklearn")
    folder = tmp_path / "run"
    solution = solved(name, folder)
    said = invoked("report", folder)
    assert said.exit_code == 0 and said.output == f"{folder / 'report.html'}: open it in a browser\n"
    text = (folder / "report.html").read_text(encoding="utf-8")
    page, summary = Page(text), json.loads((folder / "summary.json").read_text())
    assert set(page.sections) == {*SECTIONS, *KINDS[name][1]}
    # Links of the page lead to its sections.
    links = {str(found["href"]) for each, found in page.tags if each == "a"}
    assert links == {f"#{each}" for each in page.sections}
    # Every number of summary.json is there with all its digits.
    assert {"objective", "gradient_norm", "state_residual", "adjoint_residual", "seconds"} <= page.numbers.keys()
    for key, shown in page.numbers.items():
        value = entry(summary, key)
        assert shown == ("" if value is None else repr(value)), key
    assert {key.removeprefix("terms.") for key in page.numbers if key.startswith("terms.")} == set(
        summary.get("terms", {})
    )
    assert summary["status"] in page.text and summary["message"] in page.text and name in page.text
    assert (folder / "problem.yaml").read_text() in page.text
    # Nothing is loaded from elsewhere, and nothing runs.
    for name_of_tag, found in page.tags:
        assert name_of_tag not in ("script", "link", "iframe", "object")
        assert all(
            str(found[key]).startswith(("data:image/png;base64,", "#")) for key in ("src", "href") if key in found
        )
        assert not any(key.startswith("on") for key in found)
    assert not re.search(r"url\(|@import|https?:", text)
    # From memory it is the same, but for the seconds that files have taken.
    memory = Page(solution.report(tmp_path / "memory.html").read_text(encoding="utf-8"))
    assert memory.sections == page.sections
    assert {**memory.numbers, "seconds_output": ""} == {**page.numbers, "seconds_output": ""}


def test_text_that_looks_like_html_is_text() -> None:
    evil = "<script>alert('x')</script> & \"quoted\""
    material = Material(
        f'# <b>comment</b>\nname: a\ntask: {{kind: data_cleaning, data: "{evil[:30]}"}}\n',
        {"name": evil, "method": evil, "status": evil, "message": evil, "objective": 1.0, "warnings": [evil]},
    )
    text = report_page(material)
    page = Page(text)
    assert not [found for found in page.tags if found[0] in ("script", "b")]
    assert page.text.count(evil) >= 4 and "<b>comment</b>" in page.text
    assert tag("p", evil, class_='"><script>') == (
        '<p class="&quot;&gt;&lt;script&gt;">&lt;script&gt;alert(\'x\')&lt;/script&gt; &amp; "quoted"</p>'
    )


def test_a_run_that_was_interrupted_and_one_without_a_history_have_reports(tmp_path: Path) -> None:
    problem = nhgd.load(ROOT / "problems/poisson_control.yaml", {"mesh.cells": [8, 8]})
    nhgd.solve(problem, output=tmp_path / "run", callback=lambda row: row["iteration"] == 1)
    assert invoked("report", tmp_path / "run").exit_code == 0
    page = Page((tmp_path / "run/report.html").read_text())
    assert "interrupted" in page.text
    (tmp_path / "run/history.csv").unlink()
    (tmp_path / "run/final.vtu").unlink()
    assert invoked("report", tmp_path / "run").exit_code == 0
    page = Page((tmp_path / "run/report.html").read_text())
    assert "The run has no history." in page.text and "fields" not in page.sections


def test_a_failed_run_has_a_report_without_numbers_that_are_not_finite(tmp_path: Path) -> None:
    problem = {
        "name": "singular",
        "mesh": {"kind": "interval", "cells": 3},
        "pde": {"kind": "poisson", "reaction": -10.8, "source": 1, "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": 1}, {"kind": "regularisation", "weight": 1}],
    }
    assert nhgd.solve(nhgd.load(problem), output=tmp_path / "run").status == "failed"
    assert invoked("report", tmp_path / "run").exit_code == 0
    assert invoked("plot", tmp_path / "run").exit_code == 0
    page = Page((tmp_path / "run/report.html").read_text())
    assert "failed" in page.text and "not known" in page.text


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no run": lambda folder: [each.unlink() for each in folder.glob("*.*")],
    "summary cut": lambda folder: (folder / "summary.json").write_text('{"name": "x'),
    "summary of another kind": lambda folder: (folder / "summary.json").write_text("[1, 2]"),
    "terms of a wrong type": lambda folder: changed(folder, terms=3.5),
    "seconds of a wrong type": lambda folder: changed(folder, seconds="soon"),
    "constraints of a wrong type": lambda folder: changed(folder, constraints=[1]),
    "no name": lambda folder: changed(folder, name=None, left_out=("name",)),
    "history of another kind": lambda folder: (folder / "history.csv").write_text("a,b\n1,2\n3,4\n"),
    "history cut": lambda folder: (folder / "history.csv").write_text("iteration,objective\n1\n"),
    "history without text": lambda folder: (folder / "history.csv").write_bytes(b"\xff\xfe\n\x00\n"),
    "fields cut": lambda folder: (folder / "final.vtu").write_bytes((folder / "final.vtu").read_bytes()[:500]),
    "problem of another kind": lambda folder: (folder / "problem.yaml").write_text(
        (folder / "problem.yaml").read_text().splitlines()[0] + "\n- 1\n- 2\n"
    ),
    "problem without an equation": lambda folder: (folder / "problem.yaml").write_text(
        (folder / "problem.yaml").read_text().splitlines()[0] + "\nname: x\n"
    ),
}


def changed(folder: Path, left_out: tuple[str, ...] = (), **entries: Any) -> None:
    summary = json.loads((folder / "summary.json").read_text()) | entries
    (folder / "summary.json").write_text(json.dumps({k: v for k, v in summary.items() if k not in left_out}))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_told_in_a_sentence(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    solved("poisson_control", folder)
    DAMAGES[name](folder)
    said = invoked("report", folder)
    assert said.exit_code == 2 and said.exception.__class__ is SystemExit
    assert str(folder) in said.output and len(said.output.splitlines()) == 1
    assert not (folder / "report.html").exists() and not list(folder.glob(".*.tmp"))


def test_a_new_run_removes_the_report_of_an_earlier_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for resume in (False, True):
        solved("poisson_control", folder)
        assert invoked("report", folder).exit_code == 0
        nhgd.solve(
            nhgd.load(ROOT / "problems/poisson_control.yaml", KINDS["poisson_control"][0]), output=folder, resume=resume
        )
        assert not (folder / "report.html").exists()


@pytest.mark.parametrize("name", ["poisson_control", "heat_control", "robust_poisson", "digits_distillation"])
def test_notebooks_show_a_problem_and_its_answer(name: str) -> None:
    if name.startswith("digits"):
        pytest.importorskip("sklearn")
    problem = nhgd.load(ROOT / f"problems/{name}.yaml", KINDS[name][0])
    solution = nhgd.solve(problem)
    before, after = Page(problem._repr_html_()), Page(solution._repr_html_())
    assert name in before.text and len(before.text) < 3000
    assert solution.message in after.text and repr(solution) in after.text
    assert {key: float(value) for key, value in after.numbers.items()} == {
        f"terms.{key}": value for key, value in solution.stats.get("terms", {}).items()
    }
    assert sum(each == "img" for each, _ in after.tags) == 1


# The picture of a solve


@pytest.mark.parametrize("name", ["poisson_control", "poisson_control_3d", "heat_control", "heat_boundary"])
def test_solve_ends_with_a_picture(name: str, tmp_path: Path) -> None:
    settings = [f"{key}={json.dumps(value)}" for key, value in KINDS[name][0].items()]
    options = [each for setting in settings for each in ("--set", setting)]
    said = invoked("solve", ROOT / f"problems/{name}.yaml", *options, "--output", tmp_path / "run")
    last = said.output.splitlines()[-1]
    assert last.startswith(f"{tmp_path / 'run'}: open figure.png in any viewer, ") and "in ParaView" in last
    assert ("evolution/evolution.pvd in ParaView" in last) == name.startswith("heat")
    drawn = image.imread(tmp_path / "run/figure.png")
    assert min(drawn.shape[:2]) > 300 and drawn[..., :3].std() > 0.05
    # `plot` draws the same from the files.
    (tmp_path / "run/figure.png").unlink()
    assert invoked("plot", tmp_path / "run").exit_code == 0
    assert np.allclose(image.imread(tmp_path / "run/figure.png"), drawn, atol=0.02)
    plain = invoked("solve", ROOT / f"problems/{name}.yaml", *options, "--output", tmp_path / "run", "--no-figure")
    assert not (tmp_path / "run/figure.png").exists() and "figure.png" not in plain.output


def test_a_picture_that_cannot_be_drawn_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    solved("poisson_control", folder)
    (folder / "figure.png").mkdir()
    before = invoked("solve", ROOT / "problems/poisson_control.yaml", "--output", folder)
    assert before.exit_code == 2 and "expected a file, found a folder" in before.output
    (folder / "figure.png").rmdir()
    # The style of a user that matplotlib does not take.
    monkeypatch.setitem(__import__("matplotlib").rcParams, "axes.formatter.use_locale", False)
    monkeypatch.setitem(__import__("matplotlib").rcParams, "font.size", 1e9)
    said = invoked("solve", ROOT / "problems/poisson_control.yaml", "--set", "mesh.cells=[6,6]", "--output", folder)
    assert said.exit_code == 0 and (folder / "summary.json").exists()
    assert "warning: the picture was not drawn (" in said.output and "figure.png in any" not in said.output


def test_python_writes_a_picture_only_when_it_is_asked(tmp_path: Path) -> None:
    solution = solved("poisson_control", tmp_path / "run")
    solution.save(tmp_path / "saved")
    assert not list(tmp_path.glob("*/figure.png"))


def test_a_table_is_shown_from_python(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    problem = nhgd.load(ROOT / "problems/poisson_control.yaml", {"mesh.cells": [8, 8]})
    watched = nhgd.solve(problem, callback=lambda row: seen.append(row["iteration"]), progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(problem) and lines[1].split()[0] == "iter"
    assert lines[-1] == f"{watched.status}: {watched.message}"
    assert seen == [row["iteration"] for row in watched.history]
    ended = nhgd.solve(problem, callback=lambda row: True, progress=True)
    assert ended.status == "interrupted" and nhgd.solve(problem).objective == watched.objective
    assert "interrupted" in capsys.readouterr().out


# How fields are drawn


def square(n: int, kind: str = "triangle") -> Grid:
    x = np.linspace(0.0, 2.0, n + 1)
    points = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
    a = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    quads = np.stack([a, a + 1, a + n + 2, a + n + 1], axis=1)
    cells = quads if kind == "quad" else np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return Grid(points, cells, kind)


@pytest.mark.parametrize("n", [1, 7, 150])
@pytest.mark.parametrize("at_points", [True, False])
def test_a_sampled_image_has_the_values_of_the_triangles(n: int, at_points: bool) -> None:
    grid = square(n)
    plane = Plane.of(grid)
    raster = Raster(plane.points, plane.triangles)
    own = grid.points if at_points else grid.points[grid.cells].mean(axis=1)
    drawn = raster.image(1.0 + 2.0 * own[:, 0] + 3.0 * own[:, 1], at_points)
    assert np.isfinite(drawn).all(), "a pixel inside is empty"
    left, right, bottom, top = raster.extent
    rows, columns = drawn.shape
    x, y = ((np.arange(k) + 0.5) * (b - a) / k + a for k, a, b in ((columns, left, right), (rows, bottom, top)))
    exact = 1.0 + 2.0 * x + 3.0 * y[:, None]
    # Samples are means over a pixel, or of the cell that it is in.
    pixel = (right - left) / columns
    assert np.abs(drawn - exact).max() <= 5.0 * (pixel + (0.0 if at_points else 2.0 / n))


def test_a_sampled_image_leaves_holes_and_what_is_not_finite_empty() -> None:
    grid = square(60)
    middle = grid.points[grid.cells].mean(axis=1)
    hole = np.all(np.abs(middle - 1.0) < 0.5, axis=1)
    values = np.where(grid.points[:, 0] < 0.2, np.nan, 1.0)
    drawn = Raster(grid.points, grid.cells[~hole]).image(values, True)
    rows, columns = drawn.shape
    assert np.isnan(drawn[rows // 2, columns // 2]) and np.isnan(drawn[rows // 2, 5])
    assert drawn[10, columns // 2] == 1.0
    assert np.mean(np.isnan(drawn)) == pytest.approx(0.25 + 0.1, abs=0.02)


def test_a_mesh_with_two_million_triangles_is_drawn_as_an_image() -> None:
    grid = square(1000)
    figure = picture(Pictured(grid, FieldData({"state": grid.points[:, 0]})), ["state"], "large")
    axes = figure.axes[0]
    assert len(axes.images) == 1 and not axes.collections
    assert axes.images[0].get_array().size < 10**6


def test_colours_tell_signs_and_constants() -> None:
    signed = colours_of([np.array([-1.0, 3.0, np.nan])])
    assert (signed.map_name, signed.low, signed.high) == ("RdBu_r", -3.0, 3.0)
    positive = colours_of([np.array([-1e-9, 2.0]), np.array([np.inf, 5.0])])
    assert (positive.map_name, positive.high) == ("viridis", 5.0)
    for constant in (0.0, 3.0, -2e-30, np.nan):
        flat = colours_of([np.full(4, constant)])
        assert flat.low < flat.high and np.isfinite([flat.low, flat.high]).all()
        assert np.isnan(constant) or flat.low <= constant <= flat.high
    # Rounding errors of a constant do not become a pattern.
    nearly = colours_of([np.array([1.0, 1.0 + 1e-15])])
    assert nearly.high - nearly.low > 0.5


def test_states_and_targets_of_similar_size_share_their_colours() -> None:
    grid = square(3)
    x = grid.points[:, 0]
    shown = {"state": x, "target": 1.5 * x, "control": 100.0 * x}
    figure = picture(Pictured(grid, FieldData(shown)), list(shown), "three")
    limits = {axes.get_title(): axes.collections[0].get_clim() for axes in figure.axes[:3]}
    assert limits["state"] == limits["target"] == (0.0, 3.0) and limits["control"] == (0.0, 200.0)


def test_a_quick_look_leaves_out_what_explains_the_others() -> None:
    point, cell = np.zeros(4), np.ones(2)
    points = ("target", "adjoint", "velocity", "control", "wave_magnitude", "sensitivity", "multiplier", "pressure")
    cells = ("subdomain", "conductivity", "stress", "control_a", "density_a", "density_b")
    data = FieldData(dict.fromkeys(points, point), dict.fromkeys(cells, cell) | {"density_b": 2.0 * cell})
    assert pictured(data) == ("velocity", "pressure", "control", "control_a", "density_b", "target")


def test_the_times_of_an_evolution_that_are_drawn() -> None:
    assert shown_levels(1, 1) == [] and shown_levels(2, 2) == [0, 1] and shown_levels(41, 3) == [0, 20, 40]
    assert (
        shown_levels(5, 1) == [0, 1, 2, 3, 4] and shown_levels(1000, 1)[-1] == 999 and len(shown_levels(1000, 1)) == 61
    )
    grid = square(2)
    moments = [
        FieldData({"state": t * grid.points[:, 0], "control": grid.points[:, 1]}, time=t) for t in (0.0, 1.0, 2.0)
    ]
    titles = [panel.title for panel in field_panels(Pictured(grid, moments[-1], moments), ["state", "control"])]
    # A state that is zero at the start, and a control that does not change.
    assert titles == ["state at t = 1", "state at t = 2", "control"]


@pytest.mark.parametrize("kind", ["triangle", "quad"])
def test_a_control_on_the_boundary_is_seen_as_such(kind: str) -> None:
    grid = square(8, kind)
    x, y = grid.points.T
    on_side = np.where(x == 2.0, 1.0 + y, 0.0)
    assert on_boundary_alone(grid, on_side)
    assert not on_boundary_alone(grid, on_side + np.where((x == 1.0) & (y == 1.0), 1.0, 0.0))
    assert not on_boundary_alone(grid, np.zeros(len(x)))
    (panel,) = field_panels(Pictured(grid, FieldData({"control": on_side})), ["control"])
    from matplotlib.figure import Figure

    lines = panel.draw(Figure().subplots())
    assert len(lines.get_segments()) == 8
    assert np.sort(np.asarray(lines.get_array())) == pytest.approx(1.0 + (np.arange(8) + 0.5) * 0.25)


def test_values_of_intervals_are_constant_between_their_ends() -> None:
    grid = Grid(np.array([[0.0], [2.0], [1.0]]), np.array([[2, 1], [0, 2]]), "line")
    data = FieldData(
        {"state": np.array([0.0, 4.0, 1.0]), "target": np.array([1.0, 1.0, 1.0])}, {"control": np.array([7.0, 5.0])}
    )
    figure = picture(Pictured(grid, data), ["state", "control", "target"], "curves")
    both, control = figure.axes
    assert both.get_title() == "state and target" and len(both.lines) == 2
    assert np.array_equal(both.lines[0].get_xydata(), [[0.0, 0.0], [1.0, 1.0], [2.0, 4.0]])
    assert np.array_equal(control.lines[0].get_xydata(), [[0.0, 5.0], [1.0, 5.0], [1.0, 7.0], [2.0, 7.0]])


def test_a_picture_of_nothing_finite_is_drawn(tmp_path: Path) -> None:
    grid = square(4)
    data = FieldData({"state": np.full(len(grid.points), np.nan)}, {"control": np.full(len(grid.cells), np.inf)})
    picture(Pictured(grid, data), ["state", "control"], "x" * 300).savefig(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="expected one of heat, found state, control"):
        picture(Pictured(grid, data), ["heat"], "none")


# The words of the report


def page_of(problem: dict[str, Any] | Path, folder: Path, **settings: Any) -> tuple[nhgd.Solution, Page]:
    solution = nhgd.solve(nhgd.load(problem, settings))
    return solution, Page(solution.report(folder / "report.html").read_text(encoding="utf-8"))


def test_a_report_names_what_the_file_gives_and_nothing_else(tmp_path: Path) -> None:
    poisson = ROOT / "problems/poisson_control.yaml"
    _, page = page_of(poisson, tmp_path, **{"mesh.cells": [4, 4]})
    assert "poisson: -div(conductivity grad u) + reaction u = source." in page.text
    assert (
        "weight/2 int (u - target)^2. Here target" in page.text and "weight/2 int (v - reference)^2. Here" in page.text
    )
    for other in ("mean_gradient", "sensors", "measured", "|grad", "|v|"):
        assert other not in page.text.split("The problem file with all its values")[0], other
    # With a mean gradient, sensors and another norm there are the others.
    (tmp_path / "s.csv").write_text("0.3 0.4 1\n")
    settings = {
        "mesh.cells": [4, 4],
        "pde.mean_gradient": [1, 0],
        "objective.0": {"kind": "tracking", "at": str(tmp_path / "s.csv")},
        "objective.1.norm": "h1",
    }
    _, page = page_of(poisson, tmp_path, **settings)
    said = page.text.split("The problem file with all its values")[0]
    assert "-div(conductivity (grad u + mean_gradient)) + reaction u = source." in said
    assert "weight/2 times the sum of (u - measured)^2 over the measurements in a file. Here at" in said
    assert "target" not in said and "weight/2 int |grad (v - reference)|^2." in said and "int (v - ref" not in said


def test_the_equation_of_a_report_has_no_advice_on_the_file(tmp_path: Path) -> None:
    _, page = page_of(ROOT / "problems/heat_control.yaml", tmp_path, **{"mesh.cells": 6, "time.steps": 3})
    assert "heat: capacity u_t - div(conductivity grad u) + reaction u = source." in page.text
    assert "needs `time`" not in page.text


def test_the_parts_of_the_gradient_error_are_explained(tmp_path: Path) -> None:
    solution, page = page_of(ROOT / "problems/poisson_control.yaml", tmp_path, **{"mesh.cells": [6, 6]})
    parts = solution.stats["gradient_error_parts"]
    for key in ("inner", "adjoint", "sampling"):
        assert page.numbers[f"gradient_error_parts.{key}"] == repr(parts[key])
    for sentence in (
        "The state satisfies its equation only up to the error above.",
        "The adjoint variable satisfies its equation only up to the error above.",
        "The gradient was taken from a part of the scenarios; zero without random inputs, and where all were used.",
    ):
        assert sentence in page.text


def test_counts_and_times_of_a_report_say_what_they_are_of(tmp_path: Path) -> None:
    explained = "The objective is quadratic in the control"
    solution, page = page_of(ROOT / "problems/poisson_control.yaml", tmp_path, **{"mesh.cells": [6, 6]})
    assert solution.stats["evaluations"] < solution.stats["outer_iterations"]
    assert "controls at which state and adjoint were solved for" in page.text and explained in page.text
    assert "after the last iteration" in page.text and "judg" not in page.text
    # Every step of a nonlinear problem is evaluated.
    _, page = page_of(ROOT / "problems/semilinear_control.yaml", tmp_path, **{"mesh.cells": [6, 6]})
    assert explained not in page.text
    _, page = page_of(ROOT / "problems/robust_poisson.yaml", tmp_path, **KINDS["robust_poisson"][0])
    assert "judging the answer in fresh scenarios" in page.text
