"""Hints: what to write in place of what people write first. Tables of a text and what its message says."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nhgd_pde as nhgd
from nhgd_pde.fem.mesh_file_hints import HINTS
from nhgd_pde.problem_file.errors import ProblemError, suggest
from nhgd_pde.problem_file.expression_hints import ROWS, hint
from nhgd_pde.problem_file.expressions import Expression, ExpressionError
from nhgd_pde.problem_file.loading import read_problem
from nhgd_pde.problem_file.other_names import OTHER_NAMES
from nhgd_pde.problem_file.schema import ProblemSpec
from problems import BASE

# A text, and the expression that the message tells to write.
MENDED = {
    "np.sin(x[0])": "sin(x)",
    "numpy.exp(-x[1]) * math.cos(x[0])": "exp(-y) * cos(x)",
    "x[0]": "x",
    "x[:, 1] + X[2, :]": "y + z",
    "x[0]**2 + x[1]**2": "x**2 + y**2",
    "x^2": "x**2",
    "x.^2": "x**2",
    "e^-x": "e**-x",
    "sin(pi x)": "sin(pi*x)",
    "sin pi": "sin(pi)",
    "sin(x)cos(y)": "sin(x)*cos(y)",
    "(1-x)(1-y)": "(1-x)*(1-y)",
    "x(1 - x)": "x*(1 - x)",
    "2x": "2*x",
    "2 pi": "2*pi",
    "2.5e-3x": "2.5e-3*x",
    "math.pi": "pi",
    "Pi*x": "pi*x",
    "π*x": "pi*x",
    "x²": "x**2",
    "√x": "sqrt(x)",
    "2·x": "2*x",
    "x ≤ 1": "x <= 1",
    "lambda x: x[0]": "x",
    "lambda x, y: x*y": "x*y",
    "1e-3 if x > 0 else 1": "where(x > 0, 1e-3, 1)",
    "2*(1 if x < y else 0)": "2*where(x < y, 1, 0)",
    "x > 0 ? 1 : 2": "where(x > 0, 1, 2)",
    "np.where(x[0] < 0.5, 1, 10)": "where(x < 0.5, 1, 10)",
    "if(x < 0, 1, 2)": "where(x < 0, 1, 2)",
    "x > 0 & y > 0": "x > 0 and y > 0",
    "(x > 0) && (y > 0)": "(x > 0) and (y > 0)",
    "(x > 0) | (y > 0)": "(x > 0) or (y > 0)",
    "np.logical_and(x < 1, y < 1)": "(x < 1 and y < 1)",
    "~(x > 0)": "not (x > 0)",
    "|x - 1|": "abs(x - 1)",
    "ln(x)": "log(x)",
    "log10(x)": "(log(x)/log(10))",
    "arctan(x)": "atan(x)",
    "arctan2(y, x)": "atan2(y, x)",
    "max(x, y)": "maximum(x, y)",
    "min(x, y)": "minimum(x, y)",
    "fabs(x)": "abs(x)",
    "pow(x, 3)": "(x)**(3)",
    "heaviside(x - 1, 0)": "(x - 1 > 0)",
    "x % 2": "(x - 2*floor(x/2))",
    "x // 2": "floor(x/2)",
    "Constant(1.5)": "1.5",
    "True": "1",
    "$x$": "x",
    r"\sin(\pi x)": "sin(pi*x)",
    "1,5*x": "1.5*x",
}


@pytest.mark.parametrize("text", MENDED)
def test_a_text_that_can_be_mended_is_told_mended(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert str(caught.value).startswith(f"write {MENDED[text]!r} ("), str(caught.value)
    Expression(MENDED[text])


def test_mended_texts_have_the_values_that_were_meant() -> None:
    x, y = np.random.default_rng(0).uniform(-2.0, 2.0, (2, 50))
    meant = {
        "1e-3 if x > 0 else 1": np.where(x > 0, 1e-3, 1),
        "~(x > 0)": ~(x > 0),
        "x % 2": x % 2,
        "x // 2": x // 2,
        "arctan2(y, x)": np.arctan2(y, x),
        "heaviside(x - 1, 0)": np.heaviside(x - 1, 0),
        "pow(x, 3)": x**3,
    }
    for text, values in meant.items():
        np.testing.assert_allclose(Expression(MENDED[text]).numpy(np.stack([x, y])), values, atol=1e-14)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("grad(u)", "an expression has no derivatives"),
        ("u.dx(0)", "an expression has no derivatives"),
        ("inner(grad(u), grad(v))", "write a weak form of your own (pde.python)"),
        ("u**2", "the state u can stand only in pde.nonlinearity of kind semilinear"),
        ("[x, y]", "a vector is a list of YAML"),
        ("(x, y)", "a vector is a list of YAML"),
        ("2j*x", "a complex value is a list [real part, imaginary part]"),
        ("np.random.rand()", "random inputs get a name under parameters"),
        ("Piecewise((x, x < 1))", "a choice is written where(condition, yes, no)"),
        ("x = 1", "a comparison is written =="),
        ("np.sin(q)", "functions and constants have no prefix such as np."),
    ],
)
def test_other_texts_are_told_what_to_write(text: str, expected: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert expected in str(caught.value)
    assert "; allowed:" not in str(caught.value), "the list of functions hides the hint"


def test_names_of_parameters_are_no_mistakes() -> None:
    with pytest.raises(ExpressionError, match=r"write 'X\*\*2'"):
        Expression("X^2", names=["X"])
    with pytest.raises(ExpressionError, match="unknown name 'w'") as caught:
        Expression("u + w", names=["u"])
    assert "semilinear" not in str(caught.value)
    with pytest.raises(ExpressionError, match=r"write 'I\*x'"):
        Expression("I x", names=["I"])


def test_hints_of_long_and_strange_texts_end() -> None:
    accepted = frozenset()
    for text in ("x and " * 400, " " * 190 + "&", "(" * 199, "if " * 66, "x" + "^" * 198, "a" * 199 + "²"):
        hint(text, accepted, lambda mended: False)
        with pytest.raises(ExpressionError):
            Expression(text)


def test_sentences_of_the_table_fit_into_a_message() -> None:
    for row in ROWS:
        assert row.sentence[0].islower() and "\n" not in row.sentence and len(row.sentence) < 120, row


# A value that people write, and what the message names.
KINDS = {
    "pde.kind": {
        "laplace": "'poisson'",
        "diffusion": "'poisson'",
        "Laplacian": "'poisson'",
        "thermal": "'poisson' or 'heat'",
        "heat-equation": "'heat'",
        "linear_elasticity": "'elasticity'",
        "elastic": "'elasticity'",
        "ns": "'navier_stokes'",
        "navier": "'navier_stokes'",
        "NavierStokes": "'navier_stokes'",
        "helmholz": "'helmholtz'",
        "wave equation": "'wave'",
        "convection_diffusion": "'advection_diffusion'",
        "reaction_diffusion": "'semilinear'",
        "phase_field": "'allen_cahn'",
        "ufl": "'python: ...'",
    },
    "mesh.kind": {"UnitSquareMesh": "'rectangle'", "square": "'rectangle'", "circle": "'disk'", "gmsh": "'file: ...'"},
    "control.kind": {
        "distributed": "'source'",
        "boundary": "'neumann' or 'dirichlet'",
        "topology": "'density'",
        "diffusivity": "'conductivity'",
    },
    "objective.0.kind": {"misfit": "'tracking'", "tikhonov": "'regularisation'", "regularization": "'regularisation'"},
    "outer.method": {
        "cg": "'conjugate_gradient'",
        "pdas": "'active_set'",
        "L-BFGS-B": "'lbfgs'",
        "newton": "'newton_cg'",
    },
    "solver.kind": {"lu": "'superlu'", "mumps": "'petsc'", "multigrid": "'amg'"},
    "method": {"saa": "'sample_average'"},
}


@pytest.mark.parametrize(("key", "name"), [(key, name) for key, names in KINDS.items() for name in names])
def test_other_names_of_kinds(key: str, name: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read_problem(copy.deepcopy(BASE), {key: name})
    assert f"found {name!r} (did you mean {KINDS[key][name]}?)" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("pde.rhs", "source"),
        ("pde.kappa", "conductivity"),
        ("pde.bcs", "boundary"),
        ("outer.tol", "rtol"),
        ("outer.maxiter", "iterations"),
        ("pde.boundary.left.flux", "neumann"),
    ],
)
def test_other_names_of_keys(key: str, word: str) -> None:
    with pytest.raises(ProblemError, match=f"unknown key \\(did you mean '{word}'\\?\\)"):
        read_problem(copy.deepcopy(BASE), {key: 1})


def test_every_word_with_other_names_is_a_word_of_the_file() -> None:
    """A word that has been renamed would leave its line in the table without an effect."""
    from nhgd_pde.problem_file.json_schema import json_schema

    known: set[str] = set()

    def collect(schema: Any) -> None:
        if isinstance(schema, list):
            for each in schema:
                collect(each)
        elif isinstance(schema, dict):
            known.update(schema.get("properties", {}))
            known.update(each for each in schema.get("enum", ()) if isinstance(each, str))
            known.add(schema.get("const", "")) if isinstance(schema.get("const", ""), str) else None
            collect(list(schema.values()))

    collect(json_schema())
    assert {word.removesuffix(": ...") for word in OTHER_NAMES} <= known
    assert suggest("laplace", ["heat", "wave"]) == "", "a hint whose word may not stand here"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plate.geo", "`gmsh -2 plate.geo -o plate.msh`"),
        ("Plate.GEO", "`gmsh -2 Plate.GEO -o Plate.msh`"),
        ("part.step", "`gmsh -3 part.step -o part.msh`"),
        ("run.pvd", "name one of the .vtu files"),
        ("old.vtk", "write it as old.vtu"),
    ],
)
def test_files_that_are_no_meshes(name: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("Point(1) = {0, 0, 0};\n")
    with pytest.raises(ProblemError) as caught:
        nhgd.load(copy.deepcopy(BASE), {"mesh": {"file": str(tmp_path / name)}})
    (issue,) = caught.value.issues
    assert issue.key == "mesh.file" and expected in issue.message and name in issue.message


def test_the_surface_of_a_body_is_told_how_to_fill_it(tmp_path: Path) -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    facets = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    lines = ["solid s"]
    for facet in facets:
        vertices = [f"vertex {' '.join(map(str, corners[k]))}" for k in facet]
        lines += ["facet normal 0 0 1", "outer loop", *vertices, "endloop", "endfacet"]
    path = tmp_path / "body.stl"
    path.write_text("\n".join([*lines, "endsolid s\n"]))
    with pytest.raises(ProblemError, match=r"Merge \"body\.stl\"; Surface Loop\(1\) = Surface\{:\}; Volume\(1\)"):
        nhgd.load(copy.deepcopy(BASE), {"mesh": {"file": str(path)}})


def test_all_hints_of_mesh_files_can_be_written() -> None:
    from nhgd_pde.fem.mesh_file_hints import hint as of_file

    for suffix in HINTS:
        text = of_file(Path(f"folder/a{suffix}"))
        assert text and "{name}" not in text and "{stem}" not in text
    assert of_file(Path("a.msh")) is None


# Time


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("poisson", "does not evolve in time: take time out, or write pde.kind: heat"),
        ("helmholtz", "or write pde.kind: wave"),
        ("elasticity", "or write a weak form of your own"),
    ],
)
def test_time_with_a_steady_equation(kind: str, expected: str) -> None:
    pde = {"kind": kind, "boundary": {"all": {"dirichlet": 0}}} | ({"wavenumber": 1} if kind == "helmholtz" else {})
    with pytest.raises(ProblemError) as caught:
        read_problem(copy.deepcopy(BASE), {"pde": pde, "time": {"end": 1, "steps": 2}})
    assert any(issue.key == "time" and expected in issue.message for issue in caught.value.issues)


@pytest.mark.parametrize(("kind", "steady"), [("heat", "poisson"), ("wave", "helmholtz"), ("allen_cahn", "semilinear")])
def test_an_evolution_without_time(kind: str, steady: str) -> None:
    pde = {"kind": kind, "boundary": {"all": {"dirichlet": 0}}} | ({"epsilon": 1} if kind == "allen_cahn" else {})
    with pytest.raises(ProblemError) as caught:
        read_problem(copy.deepcopy(BASE), {"pde": pde})
    (issue,) = caught.value.issues
    assert issue.key == "time" and f"or pde.kind: {steady}, which is steady" in issue.message


# All mistakes in one round

MANY = """\
name: my problem
mesh: {kind: rectangle, cells: x}
time: {end: 1, steps: 5}
pde:
  kind: poisson
  conductivity: {core: 10, default: "np.sin(x[0])"}
  boundary:
    lefft: {dirichlet: 0}
    top: {robin: {value: 3}}
control: {kind: neumann, on: rigt}
objective:
  - {kind: tracking, target: "x^2", on: interior}
  - {kind: regularisation, wieght: 1}
  - {kind: tracking, target: 0, on: nowhere}
constraints:
  - {kind: state, upper: 1, on: rim}
outer: {iterations: 1.5}
risk: mean
"""


def issues_of(path: Path) -> list[tuple[str, str]]:
    with pytest.raises(ProblemError) as caught:
        nhgd.load(path)
    return [(issue.key, issue.message) for issue in caught.value.issues]


def test_every_mistake_is_found_in_one_round(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(MANY)
    found = issues_of(path)
    assert [key for key, _ in found] == [
        "name",
        "mesh.cells",
        "time",
        "pde.conductivity.default",
        "pde.conductivity.core",
        "pde.boundary.lefft",
        "pde.boundary.top.robin.coefficient",
        "control.on",
        "objective.0.target",
        "objective.1.weight",
        "objective.1.wieght",
        "objective.2.on",
        "constraints.0.on",
        "outer.iterations",
        "risk",
    ]
    messages = dict(found)
    assert messages["pde.boundary.lefft"] == (
        "unknown boundary 'lefft' (did you mean 'left'?); this mesh has: all, bottom, left, right, top"
    )
    assert messages["control.on"].startswith("unknown boundary 'rigt' (did you mean 'right'?)")


MENDING = {
    "name: my problem": "name: many",
    "cells: x": "cells: 4",
    "time: {end: 1, steps: 5}\n": "",
    '{core: 10, default: "np.sin(x[0])"}': "1",
    "lefft": "left",
    "robin: {value: 3}": "robin: {coefficient: 1, value: 3}",
    "rigt": "right",
    '"x^2", on: interior': "x",
    "wieght": "weight",
    "target: 0, on: nowhere": "target: 0",
    "upper: 1, on: rim": "upper: 1",
    "iterations: 1.5": "iterations: 3",
    "risk: mean\n": "",
}


def test_once_these_are_mended_there_are_no_others(tmp_path: Path) -> None:
    text = MANY
    for wrong, right in MENDING.items():
        assert wrong in text
        text = text.replace(wrong, right)
    path = tmp_path / "mended.yaml"
    path.write_text(text)
    nhgd.load(path)


@pytest.mark.parametrize("left", list(MENDING))
def test_no_mistake_follows_from_another(left: str, tmp_path: Path) -> None:
    """With one mistake left, its messages are among those that it had together with all the others."""
    path = tmp_path / "p.yaml"
    path.write_text(MANY)
    among = set(issues_of(path))
    text = MANY
    for wrong, right in MENDING.items():
        text = text if wrong == left else text.replace(wrong, right)
    path.write_text(text)
    assert set(issues_of(path)) <= among


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"pde.kind": "laplace", "pde.boundary.topp": {"neumann": 1}}, {"pde.kind", "pde.boundary.topp"}),
        ({"parameters": {"a": {"nromal": [0, 1]}}, "risk": "mean"}, {"parameters.a.nromal"}),
        ({"mesh.kind": "square", "pde.boundary.topp": {"neumann": 1}}, {"mesh.kind"}),
        ({"time": {"end": 1, "stps": 3}, "pde.kind": "heat"}, {"time.stps", "time.steps"}),
        ({"control": {"kind": "surce", "on": "nowhere"}, "seed": -1}, {"control.kind", "seed"}),
        ({"objective": [], "pde.boundary.topp": {"neumann": 1}}, {"objective", "pde.boundary.topp"}),
        ({"mesh": {"file": "none.msh"}, "outer.rtol": -1}, {"mesh.file", "outer.rtol"}),
        ({"pde.boundary.left": {"dirichlet": 0, "neumann": 1}, "seed": -1}, {"pde.boundary.left", "seed"}),
        ({"mesh.cells": [1000000, 1000000, 3], "seed": -1}, {"mesh.cells", "seed"}),
    ],
)
def test_no_cascades(overrides: dict[str, Any], expected: set[str]) -> None:
    with pytest.raises(ProblemError) as caught:
        nhgd.load(copy.deepcopy(BASE), overrides)
    assert {issue.key for issue in caught.value.issues} == expected, str(caught.value)


def test_a_file_with_mistakes_is_refused_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(MANY)
    code = (
        "import sys\nfrom nhgd_pde.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, "check", str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"] and done.stderr.count("\n") == 15


# Regularisation

WARNING = "is a field with neither regularisation nor two bounds"


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        ({}, False),
        ({"objective.1.weight": 0}, True),
        ({"objective": BASE["objective"][:1]}, True),
        ({"objective": BASE["objective"][:1], "control.bounds": [-1, 1]}, False),
        ({"objective": BASE["objective"][:1], "control.bounds": [-1, None]}, True),
        ({"objective": BASE["objective"][:1], "control.bounds": ["-1", "1 + x"]}, False),
        ({"objective": BASE["objective"][:1], "control.space": "constant"}, False),
        ({"objective": BASE["objective"][:1], "control.space": "P0"}, True),
        ({"objective.1.norm": "l1"}, False),
        ({"objective.1": {"kind": "linear_control", "weight": 1}}, True),
    ],
)
def test_a_control_without_regularisation_is_told(overrides: dict[str, Any], warned: bool) -> None:
    problem = nhgd.load(copy.deepcopy(BASE), overrides)
    assert any(WARNING in notice for notice in problem.notices) == warned
    assert (WARNING in problem.report()) == warned


def test_each_control_needs_regularisation_of_its_own() -> None:
    controls = [{"kind": "source", "name": "f"}, {"kind": "source", "name": "g", "space": "P0"}]
    terms = [BASE["objective"][0], {"kind": "regularisation", "weight": 1e-3, "control": "f"}]
    problem = nhgd.load(copy.deepcopy(BASE), {"control": controls, "objective": terms})
    (notice,) = problem.notices
    assert notice.startswith("control.1 is a field")


def test_a_run_tells_of_missing_regularisation_too() -> None:
    problem = nhgd.load(copy.deepcopy(BASE), {"objective.1.weight": 0, "outer.iterations": 1})
    assert any(WARNING in each for each in nhgd.solve(problem).stats["warnings"])


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "problems").glob("*.yaml")), ids=lambda p: p.stem)
def test_no_shipped_problem_lacks_regularisation(path: Path) -> None:
    """Also a check that few parameters, and densities of a given volume, are not warned about."""
    spec = read_problem(path).spec
    if isinstance(spec, ProblemSpec) and not hasattr(spec.mesh, "file"):
        dim = len(getattr(spec.mesh, "cells", (1, 1)))
        coarse = {"mesh.cells": [6] * dim} if hasattr(spec.mesh, "cells") else {"mesh.refine": 2}
        try:
            problem = nhgd.load(path, coarse)
        except ProblemError as error:
            pytest.skip(f"not on a coarse mesh: {error}")
        assert not any(WARNING in notice for notice in problem.notices)
