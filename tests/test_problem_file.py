"""The problem file: accepted values, and mistakes with their places."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image
from ruamel.yaml import YAML

from nhgd_pde import load, solve
from nhgd_pde.building.blueprint import build
from nhgd_pde.building.objective_terms.regularisation import RegularisationTerm
from nhgd_pde.building.objective_terms.tracking import TrackingTerm
from nhgd_pde.problem_file.control_spec import ControlSpec
from nhgd_pde.problem_file.equation_parts import RobinData
from nhgd_pde.problem_file.errors import Issue, ProblemError, suggest
from nhgd_pde.problem_file.expressions import Expression
from nhgd_pde.problem_file.json_schema import json_schema, json_schema_text
from nhgd_pde.problem_file.loading import ProblemFile, parse_override, read_problem
from nhgd_pde.problem_file.mesh_spec import IntervalMesh, RectangleMesh
from nhgd_pde.problem_file.schema import ObjectiveTerm, PDESpec
from problems import BASE

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted((ROOT / "problems").glob("*.yaml"))

TEXT = """\
name: example
mesh: {kind: rectangle, cells: 8}
pde:
  kind: poisson
  conductivity: {core: 10, default: 1}
  boundary:
    left: {dirichlet: "x*y"}
    top: {robin: {coefficient: 5, value: 1}}
control: {kind: source}
objective:
  - {kind: tracking, target: "sin(pi*x)"}
  - {kind: regularisation, weight: 1e-6}
outer:
  iterations: 30
"""


def known(union: Any) -> str:
    """The kinds of a union of sections, in order."""
    members = get_args(get_args(union)[0])
    return ", ".join(
        get_args(each.model_fields["kind"].annotation)[0] for each in members if "kind" in each.model_fields
    )


def read(tmp_path: Path, text: str, overrides: dict[str, Any] | None = None) -> ProblemFile:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return read_problem(path, overrides)


def complaints(tmp_path: Path, text: str, overrides: dict[str, Any] | None = None) -> list[str]:
    """The issues as text without the folder."""
    with pytest.raises(ProblemError) as caught:
        read(tmp_path, text, overrides)
    assert str(caught.value) == "\n".join(str(issue) for issue in caught.value.issues)
    return [str(issue).removeprefix(f"{tmp_path}/") for issue in caught.value.issues]


def test_values_and_defaults(tmp_path: Path) -> None:
    spec = read(tmp_path, TEXT).spec
    assert spec.mesh == RectangleMesh(kind="rectangle", size=(1.0, 1.0), origin=(0.0, 0.0), cells=(8, 8), refine=0)
    assert spec.pde.conductivity == {"core": Expression(10), "default": Expression(1)}
    assert spec.pde.boundary["left"].dirichlet == Expression("x*y")
    assert spec.pde.boundary["top"].robin == RobinData(coefficient=Expression(5), value=Expression(1))
    term = spec.objective[1]
    assert isinstance(term, RegularisationTerm) and term.weight == 1e-6 and term.norm == "l2"
    assert spec.control.bounds == (None, None) and spec.control.space == "P1"
    assert spec.outer.iterations == 30 and spec.outer.rtol == 1e-8
    assert spec.inner.noise == 1.0 and spec.hypergradient.refine == "auto"


def test_the_spec_is_frozen(tmp_path: Path) -> None:
    spec = read(tmp_path, TEXT).spec
    with pytest.raises(ValueError, match="frozen"):
        spec.seed = 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "iterations: 30",
            "itrations: 30",
            "p.yaml:14: outer.itrations: unknown key (did you mean 'iterations'?)",
        ),
        (
            "iterations: 30",
            "iterations: abc",
            "14: outer.iterations: expected a whole number of at least 1, found 'abc'",
        ),
        (
            "iterations: 30",
            "iterations: 0",
            "14: outer.iterations: expected a whole number of at least 1, found 0",
        ),
        (
            "iterations: 30",
            "iterations: 2.5",
            "14: outer.iterations: expected a whole number of at least 1, found 2.5",
        ),
        ("iterations: 30", "rtol: true", "14: outer.rtol: expected a number above 0, or auto, found true"),
        ("iterations: 30", "rtol: .nan", "14: outer.rtol: expected a number above 0, or auto, found nan"),
        ("iterations: 30", "rtol: -.inf", "14: outer.rtol: expected a number above 0, or auto, found -inf"),
        ("iterations: 30", 'rtol: "1e-3"', "found '1e-3' (a number is written without quotes)"),
        (
            "iterations: 30",
            "step: outo",
            "expected a number above 0, or auto, found 'outo' (did you mean 'auto'?)",
        ),
        (
            "iterations: 30",
            "method: lbfg",
            "expected one of auto, gradient, adam, lbfgs, active_set, conjugate_gradient, newton_cg, mma, oc, sign, "
            "found 'lbfg' (did you mean 'lbfgs'?)",
        ),
        ("outer:\n  iterations: 30", "outer: 3", "13: outer: expected a mapping with method, iterations"),
        (
            "outer:\n  iterations: 30",
            "hypergradient: {refine: false}",
            "found false (to switch it off, write off)",
        ),
        (
            "outer:\n  iterations: 30",
            "devices: {inner: gpu}",
            "13: devices.inner: expected auto, cpu, cuda or cuda:N, found 'gpu'",
        ),
        (
            "outer:\n  iterations: 30",
            "curvature: {forgetting: 1}",
            "expected a number above 0 and below 1, or auto, or null, found 1",
        ),
        ("outer:\n  iterations: 30", "seed: -1", "13: seed: expected a whole number of at least 0, found -1"),
        ("outer:\n  iterations: 30", "obective: []", "13: obective: unknown key (did you mean 'objective'?)"),
        ("name: example", "name: ../up", "1: name: expected a name of letters, digits, '_', '-' and '.'"),
        ("name: example", "name: .", "1: name: expected a name of letters"),
        ("name: example", "seed: 3", "1: name: missing; expected a name of letters"),
        (
            "kind: rectangle",
            "kind: rectangl",
            "2: mesh.kind: expected one of interval, rectangle, box, disk, l_shape, found 'rectangl' (did",
        ),
        ("kind: rectangle, ", "", "2: mesh.kind: missing; expected kind: one of interval"),
        (
            "kind: rectangle, cells: 8",
            "kind: rectangle, cells: [8]",
            "2: mesh.cells: expected 2 values, one an axis, found a list of 1",
        ),
        (
            "kind: rectangle, cells: 8",
            "kind: rectangle, cells: [8, 0]",
            "2: mesh.cells.1: expected a whole number of at least 1, found 0",
        ),
        (
            "kind: rectangle, cells: 8",
            "kind: rectangle, size: 0",
            "2: mesh.size: expected a number above 0, found 0",
        ),
        (
            "kind: rectangle, cells: 8",
            "file: a.msh, cells: 8",
            "2: mesh.cells: unknown key (did you mean 'cell'?); known: file, facets, refine",
        ),
        ("kind: poisson", "kind: plasma", f"4: pde.kind: expected one of {known(PDESpec)}, found 'plasma'"),
        (
            "core: 10",
            "core: sni(x)",
            "5: pde.conductivity.core: function 'sni' is not allowed (did you mean 'sin'?)",
        ),
        ("{core: 10, default: 1}", "[[1, 0]]", "5: pde.conductivity: expected a square matrix"),
        (
            "{core: 10, default: 1}",
            "[[1, 0], [xx, 1]]",
            "5: pde.conductivity.1.0: unknown name 'xx' (did you mean 'x'?)",
        ),
        (
            "{core: 10, default: 1}",
            "{}",
            "5: pde.conductivity: expected an expression for at least one subdomain",
        ),
        ("{core: 10, default: 1}", "null", "5: pde.conductivity: expected a number, an expression"),
        (
            "{core: 10, default: 1}",
            "1\n  reaction: [[1]]",
            "6: pde.reaction: expected a number, an expression or a mapping by subdomain, found a list of 1",
        ),
        (
            'dirichlet: "x*y"',
            "dirichlet: 0, neumann: 1",
            "expected exactly one of dirichlet, neumann, robin, absorbing, periodic; found dirichlet",
        ),
        (
            'dirichlet: "x*y"',
            "",
            "7: pde.boundary.left: expected exactly one of dirichlet, neumann, robin, absorbing, periodic; found none",
        ),
        (
            'dirichlet: "x*y"',
            "dirichlet: true",
            "7: pde.boundary.left.dirichlet: expected a number, an expression or a list of expressions or null, found "
            "true",
        ),
        ('dirichlet: "x*y"', "dirichlet: t", "7: pde.boundary.left.dirichlet: uses the time 't'"),
        (
            'dirichlet: "x*y"',
            "dirchlet: 0",
            "7: pde.boundary.left.dirchlet: unknown key (did you mean 'dirichlet'?)",
        ),
        (
            "coefficient: 5, ",
            "",
            "8: pde.boundary.top.robin.coefficient: missing; expected the transfer coefficient",
        ),
        (
            "{kind: source}",
            "{kind: source, bounds: [2, 1]}",
            "9: control.bounds: expected lower <= upper, found lower 2 above upper 1",
        ),
        (
            "{kind: source}",
            "{kind: source, bounds: 2}",
            "9: control.bounds: expected a list [lower, upper], found 2",
        ),
        ("{kind: source}", "{kind: source, bounds: [a, 2]}", "9: control.bounds.0: unknown name 'a'"),
        (
            "{kind: source}",
            "{kind: surce}",
            f"9: control.kind: expected one of {known(ControlSpec)}, found 'surce' (did you mean 'source'?)",
        ),
        ('target: "sin(pi*x)"', "weight: 2", "11: objective.0.target: missing; expected the wanted state"),
        (
            "kind: regularisation",
            "kind: penalty",
            f"12: objective.1.kind: expected one of {known(ObjectiveTerm)}, found 'penalty'",
        ),
        ("weight: 1e-6", "weight: -1", "12: objective.1.weight: expected a number of at least 0, found -1"),
        (
            "weight: 1e-6",
            "weight: 1, wieght: 2",
            "12: objective.1.wieght: unknown key (did you mean 'weight'?)",
        ),
        (
            "weight: 1e-6",
            "weight: 1, weight: 2",
            "12: objective.1.weight: duplicate key 'weight', first given in line 12",
        ),
        ("outer:", "name:", "13: name: duplicate key 'name', first given in line 1"),
    ],
)
def test_a_mistake_is_reported_with_its_key_and_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in TEXT
    found = complaints(tmp_path, TEXT.replace(old, new))
    assert any(expected in complaint for complaint in found), found
    assert all(complaint.startswith("p.yaml:") for complaint in found)


def test_all_mistakes_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = TEXT.replace("cells: 8", "cells: x").replace("core: 10", "core: q").replace("weight: 1e-6", "wieght: 1")
    found = complaints(tmp_path, text.replace("iterations: 30", "iterations: 1.5\nname: again"))
    places = [complaint.split(": ")[:2] for complaint in found]
    assert places == [
        ["p.yaml:2", "mesh.cells"],
        ["p.yaml:5", "pde.conductivity.core"],
        ["p.yaml:12", "objective.1.weight"],
        ["p.yaml:12", "objective.1.wieght"],
        ["p.yaml:14", "outer.iterations"],
        ["p.yaml:15", "name"],
    ]


def test_a_wrong_kind_is_the_only_complaint_about_its_section(tmp_path: Path) -> None:
    found = complaints(tmp_path, TEXT.replace("kind: poisson", "kind: plasma\n  speed: 1"))
    assert [complaint.split(": ")[1] for complaint in found] == ["pde.kind"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nmesh: [1, 2\npde: 3\n", "p.yaml:3: not YAML: expected ',' or ']'"),
        ("name: a\n\tmesh: 1\n", "p.yaml:2: not YAML: found character '\\t'"),
        ("a: b: c", "p.yaml:1: not YAML: mapping values are not allowed"),
        ("a: *b", "p.yaml:1: not YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2: not YAML: but found another document"),
        ("", "p.yaml:1: expected a mapping with name, method, mesh"),
        ("- 1\n- 2\n", "p.yaml:1: expected a mapping with name, method, mesh"),
        ("just text", "p.yaml:1: expected a mapping with name, method, mesh"),
        ("a: " + "[" * 5000, "p.yaml:1: nested too deeply"),
        ("a: &a [*a]", "p.yaml:1: nested too deeply"),
        ("seed: 1\nname: !!python/object:os.system x", "p.yaml:2: name: the YAML tag"),
        ("seed: !!int abc", "p.yaml:1: seed: cannot read 'abc' as int"),
        ("[a, b]: 1", "p.yaml:1: expected a name as key"),
    ],
)
def test_text_that_is_not_a_problem_file_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert any(complaint.startswith(expected) for complaint in complaints(tmp_path, text))


def test_aliases_share_values_but_may_not_expand_without_limit(tmp_path: Path) -> None:
    shared = TEXT.replace('left: {dirichlet: "x*y"}', "left: &cold {dirichlet: 0}\n    right: *cold")
    boundary = read(tmp_path, shared).spec.pde.boundary
    assert boundary["left"] == boundary["right"]
    levels = ["l0: &l0 [1]", *(f"l{i + 1}: &l{i + 1} [{', '.join([f'*l{i}'] * 9)}]" for i in range(9))]
    assert "at most 20,000 values" in complaints(tmp_path, "\n".join(levels))[0]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=r"none\.yaml: no such file"):
        read_problem(tmp_path / "none.yaml")
    with pytest.raises(ProblemError, match="expected a file, found a folder"):
        read_problem(str(tmp_path))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProblemError, match="not UTF-8 text"):
        read_problem(tmp_path / "binary.yaml")


def test_yaml_1_2_words_and_numbers(tmp_path: Path) -> None:
    text = TEXT.replace("outer:", "hypergradient: {refine: off}\ninner: {noise: 1e-3, tests: all}\nouter:")
    spec = read(tmp_path, text.replace("{kind: source}", "{kind: source, on: no}")).spec
    assert spec.hypergradient.refine == "off" and spec.inner.noise == 1e-3 and spec.inner.tests == "all"
    assert spec.control.on == "no"


def test_subdomains_may_be_called_by_numbers(tmp_path: Path) -> None:
    spec = read(tmp_path, TEXT.replace("{core: 10, default: 1}", "{12: 10, default: 1}")).spec
    assert spec.pde.conductivity == {"12": Expression(10), "default": Expression(1)}


def test_overrides(tmp_path: Path) -> None:
    overrides = {"objective.1.weight": 1e-4, "outer.rtol": 1e-3, "pde.boundary.right.neumann": "y", "seed": 3}
    problem = read(tmp_path, TEXT, {**overrides, "mesh.cells": [4, 6], "inner.steps": 2})
    spec = problem.spec
    assert spec.objective[1].weight == 1e-4 and spec.outer.rtol == 1e-3 and spec.outer.iterations == 30
    assert spec.pde.boundary["right"].neumann == Expression("y")
    assert (spec.seed, spec.inner.steps) == (3, 2)
    assert isinstance(spec.mesh, RectangleMesh) and spec.mesh.cells == (4, 6)
    assert problem.issue("outer.rtol", "no").place == "--set"
    assert problem.issue("outer.iterations", "no").place == f"{tmp_path}/p.yaml:14"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("outter.iterations", 5, "--set: outter: unknown key (did you mean 'outer'?)"),
        ("outer.iteratons", 5, "--set: outer.iteratons: unknown key (did you mean 'iterations'?)"),
        (
            "outer.iterations",
            "x",
            "--set: outer.iterations: expected a whole number of at least 1, found 'x'",
        ),
        (
            "objective.4.weight",
            1,
            "--set: objective.4.weight: expected an index below 2 in objective, found '4'",
        ),
        ("objective.one.weight", 1, "expected an index below 2 in objective, found 'one'"),
        ("name.x", 1, "--set: name.x: name is 'example', which has no 'x'; set name as a whole"),
        ("outer..rtol", 1, "--set: outer..rtol: expected names separated by single dots"),
        ("pde", {"kind": "plasma"}, f"--set: pde.kind: expected one of {known(PDESpec)}, found 'plasma'"),
        ("control.bounds", [2, 1], "--set: control.bounds: expected lower <= upper"),
    ],
)
def test_mistakes_in_overrides(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    (found,) = complaints(tmp_path, TEXT, {key: value})
    assert expected in found


def test_a_mapping_is_read_and_not_changed() -> None:
    data: dict[str, Any] = {
        "name": "a",
        "mesh": {"kind": "interval"},
        "pde": {"kind": "poisson"},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": "x"}],
    }
    before = copy.deepcopy(data)
    problem = read_problem(data, {"objective.0.target": "2*x", "mesh.cells": 5})
    assert problem.spec.objective[0] == TrackingTerm(kind="tracking", target=Expression("2*x"))
    assert problem.spec.mesh == IntervalMesh(kind="interval", cells=(5,))
    assert data == before
    assert problem.issue("mesh.size", "no") == Issue("mesh.size", "no", None)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("outer.rtol=1e-6", "outer.rtol", 1e-6),
        ("mesh.cells=[8, 8]", "mesh.cells", [8, 8]),
        ("hypergradient.refine = off", "hypergradient.refine", "off"),
        ("objective.0.target=x == y", "objective.0.target", "x == y"),
        ("control.on=null", "control.on", None),
        ("pde.boundary.all={dirichlet: 0}", "pde.boundary.all", {"dirichlet": 0}),
    ],
)
def test_parse_override(text: str, key: str, value: Any) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize("text", ["outer.rtol", "=3", "a=[1", "a=!!python/name:os.system x"])
def test_parse_override_refuses(text: str) -> None:
    with pytest.raises(ProblemError, match="--set"):
        parse_override(text)


@pytest.mark.parametrize(
    "mesh",
    [
        {"kind": "interval", "size": 2, "cells": [3]},
        {"kind": "box", "origin": [0, 1, 2]},
        {"kind": "disk", "size": 2, "refine": 1},
        {"kind": "l_shape"},
        {"file": "a.msh"},
    ],
)
def test_dump_reads_back_to_the_same_problem(tmp_path: Path, mesh: dict[str, Any]) -> None:
    changes = {
        "mesh": mesh,
        "pde.conductivity": [[1, "1e-3"], ["x*y", 2.0]],
        "control.bounds": [None, "x\n + 1"],
    }
    problem = read(tmp_path, TEXT, {**changes, "hypergradient.refine": "off", "control.on": "no"})
    again = read(tmp_path, problem.dump())
    assert again.spec == problem.spec
    assert again.dump() == problem.dump()
    assert "rtol: 1e-08" in problem.dump() and "memory: auto" in problem.dump()


def test_errors_found_after_reading_have_a_line_too(tmp_path: Path) -> None:
    problem = read(tmp_path, TEXT)
    error = problem.error("pde.boundary.left.dirichlet", "no")
    assert str(error) == f"{tmp_path}/p.yaml:7: pde.boundary.left.dirichlet: no"
    assert problem.issue("mesh.refine", "no").place == f"{tmp_path}/p.yaml:2"
    assert problem.issue("inner.steps", "no").place == f"{tmp_path}/p.yaml:1"


def test_mesh_files_are_found_beside_and_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("problems/beside.msh", "meshes/above.msh", "elsewhere/here.msh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    problem = read(tmp_path / "problems", TEXT)
    assert problem.directory == tmp_path / "problems"
    assert problem.resolve("beside.msh") == tmp_path / "problems/beside.msh"
    assert problem.resolve("meshes/above.msh") == tmp_path / "meshes/above.msh"
    assert problem.resolve("here.msh") == Path("here.msh")
    assert problem.resolve("nowhere.msh") is None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_problems_load(path: Path, tmp_path: Path) -> None:
    problem = read_problem(path)
    assert problem.spec.name == path.stem
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")
    assert read(tmp_path, problem.dump()).spec == problem.spec


def test_there_are_shipped_problems() -> None:
    assert len(SHIPPED) >= 5


def test_the_schema_file_is_up_to_date() -> None:
    assert (ROOT / "problems/schema.json").read_text() == json_schema_text()


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    assert schema["then"] == {"$ref": "#/$defs/TaskSpec"} and schema["else"] == {"$ref": "#/$defs/ProblemSpec"}
    for name, section in schema["$defs"].items():
        assert section["additionalProperties"] is False, name
        assert section["description"], name
        for key, value in section["properties"].items():
            assert key == "kind" or "description" in value or "$ref" in value, f"{name}.{key}"
    assert json.loads(json_schema_text()) == schema
    assert schema["$defs"]["PoissonSpec"]["properties"]["conductivity"]["default"] == 1.0


def test_suggestions_for_misspelled_names() -> None:
    assert suggest("dirchlet", ["dirichlet", "neumann"]) == " (did you mean 'dirichlet'?)"
    assert suggest("zzz", ["dirichlet"]) == ""


def test_reading_a_problem_imports_no_torch() -> None:
    code = "import sys, nhgd_pde.problem_file.loading; print({'torch', 'skfem', 'meshio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"


DOCUMENT = (Path(__file__).parents[1] / "docs" / "problem_file.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of data that the document names."""
    folder = tmp_path_factory.mktemp("data")
    Image.new("L", (4, 4), 128).save(folder / "photo.png")
    (folder / "points.csv").write_text("x, y, temperature\n0, 0, 1\n1, 0, 2\n0, 1, 3\n")
    solve(load(copy.deepcopy(BASE), {"mesh.cells": [4, 4]}), output=folder / "outputs" / "first")
    return folder


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL))
def test_the_examples_of_the_document_load(example: str, tmp_path: Path, data_folder: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(example, encoding="utf-8")
    keys = YAML(typ="safe").load(path)
    build(read_problem({**copy.deepcopy(BASE), "files": str(data_folder), **keys}))


TUTORIAL = (Path(__file__).parents[1] / "docs" / "tutorial_uncertainty.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", TUTORIAL, re.DOTALL))
def test_the_files_of_the_tutorial_are_complete(example: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(example, encoding="utf-8")
    build(read_problem(path))


def test_every_key_is_in_the_document() -> None:
    def keys(schema: Any) -> set[str]:
        if isinstance(schema, list):
            return set().union(*map(keys, schema))
        if not isinstance(schema, dict):
            return set()
        own = schema.get("properties", {})
        return {*own} | set().union(*(keys(each) for each in schema.values()))

    missing = sorted(key for key in keys(json_schema()) if not re.search(rf"\b{key}\b", DOCUMENT))
    assert not missing
