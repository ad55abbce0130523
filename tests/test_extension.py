"""Weak forms, objective terms and control maps of the user's own."""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.verification.neighbourhood import TIGHT

ROOT = Path(__file__).parents[1]
DOCS = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES: dict[str, str] = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", DOCS, re.DOTALL))
(EXAMPLE,) = re.findall(r"<!-- example: run by the tests -->\n```python\n(.*?)```", DOCS, re.DOTALL)
(FLOW,) = re.findall(r"<!-- example of a flow: run by the tests -->\n```python\n(.*?)```", DOCS, re.DOTALL)


def of_form(form: Any, **more: Any) -> dict[str, Any]:
    """A problem with a form of one's own."""
    return {
        "name": "own",
        "mesh": {"kind": "rectangle", "cells": [6, 6]},
        "pde": {"python": form, "boundary": {"all": {"dirichlet": 0}}, **more},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-3}],
    }


def diffusion(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return -c["source"], grad


def complaint(source: dict[str, Any]) -> str:
    with pytest.raises(ProblemError) as caught:
        nhgd.load(source)
    return str(caught.value)


# The example of the documentation


def test_the_shipped_example_is_that_of_the_documentation() -> None:
    assert set(FILES) == {"minimal_surface.py", "minimal_surface.yaml"}
    for name, text in FILES.items():
        assert (ROOT / "problems" / name).read_text(encoding="utf-8") == text


def test_the_example_runs_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for verb in ("verify", "solve"):
        done = CliRunner().invoke(main, [verb, "minimal_surface.yaml", "--set", "mesh.cells=[10, 10]"])
        assert done.exit_code == 0, done.output
    assert "converged" in done.stdout
    told = "runs the code of minimal_surface.py:soap_film, minimal_surface.py:actuator, minimal_surface.py:area"
    assert told in " ".join(done.stdout.split())
    assert (tmp_path / "outputs" / "minimal_surface" / "final.vtu").is_file()


@pytest.mark.parametrize("example", [EXAMPLE, FLOW], ids=["reaction", "flow"])
def test_the_examples_in_python_run_as_they_stand(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(example, "docs/extending.md", "exec"), {})
    assert "every derivative is right" in capsys.readouterr().out


def test_the_example_reaches_the_optimum_of_the_exact_adjoint(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = {}
    for method in ("nhgd", "adjoint"):
        problem = nhgd.load(tmp_path / "minimal_surface.yaml", {"mesh.cells": [10, 10], "method": method})
        found[method] = nhgd.solve(problem)
        assert found[method].status == "converged", found[method].message
    assert found["nhgd"].objective == pytest.approx(found["adjoint"].objective, rel=1e-6)
    # The actuator saturates, and the term of one's own is in the objective.
    assert found["nhgd"].history[-1]["iteration"] <= 1.2 * found["adjoint"].history[-1]["iteration"] + 1


# A form of one's own is worth as much as a built-in one


def test_a_form_of_ones_own_is_that_of_the_library() -> None:
    mine = nhgd.load(of_form(diffusion, source="1 + x"))
    theirs = nhgd.load(
        {**of_form(diffusion), "pde": {"kind": "poisson", "source": "1 + x", "boundary": {"all": {"dirichlet": 0}}}}
    )
    assert mine.pde.model.name == theirs.pde.model.name == "energy"
    assert mine.pde.equation.affine and mine.pde.equation.symmetric
    ours, known = nhgd.solve(mine), nhgd.solve(theirs)
    assert ours.objective == pytest.approx(known.objective, rel=1e-12)
    np.testing.assert_allclose(ours.state, known.state, atol=1e-10)


def drift(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return grad[0] - c["source"], grad


def pair(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Two fields that push each other."""
    return torch.stack([u[0] - u[1] ** 3, u[1] + u[0]]) - c["source"], grad


def test_what_kind_of_equation_it_is_shows_in_its_derivatives() -> None:
    built = nhgd.load(of_form(drift)).pde
    assert built.equation.affine and not built.equation.symmetric and built.model.name == "residual"
    built = nhgd.load(of_form(lambda u, grad, c, x: (u**3 - c["source"], grad))).pde
    assert not built.equation.affine and built.equation.symmetric and built.model.name == "residual"
    built = nhgd.load(of_form(lambda u, grad, c, x: (-u - c["source"], grad))).pde
    assert built.equation.affine and built.equation.symmetric and built.model.name == "residual"


def test_two_fields_of_ones_own() -> None:
    source = of_form(pair, components=2, source=[1, "x"])
    source["objective"][0]["target"] = ["x*y", 0]
    problem = nhgd.load(source)
    verified = nhgd.verify(problem)
    assert verified.passed, str(verified)
    assert nhgd.solve(problem).status == "converged"


def test_a_form_of_ones_own_in_time() -> None:
    source = of_form(lambda u, grad, c, x: (u**3 - u - c["source"], 0.1 * grad), source="t")
    source["time"] = {"end": 0.5, "steps": 5, "initial": "x*(1 - x)"}
    problem = nhgd.load(source)
    assert problem.pde.equation.unknowns == 5 * 25
    verified = nhgd.verify(problem)
    assert verified.passed, str(verified)


# What is wrong with a function is said before anything is solved


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda u, grad, c, x: grad, "expected a pair (f0, f1), the factors of the test function phi"),
        (lambda u, grad, c, x: (None, None), "no test function appears"),
        (lambda u, grad, c, x: (u[:, :5], grad), "f0 has shape (1, 5); expected (1, 216)"),
        (lambda u, grad, c, x: (u, u), "f1 has shape (1, 216)"),
        (lambda u, grad, c, x: (u, "grad"), "f1 is of type str; expected a torch tensor"),
        (lambda u, grad, c, x: (u.detach() ** 2, grad), "its derivative is not that of its values"),
        (lambda u, grad, c, x: (torch.floor(10 * u), grad), "its derivative is not that of its values"),
        (lambda u, grad, c, x: (torch.as_tensor(np.sin(u.numpy())), grad), "raised RuntimeError: Can't call numpy()"),
        (lambda u, grad, c, x: (c["alpha"] * u, grad), "asks for the coefficient 'alpha'; the file gives: source"),
        (lambda u, grad, c, x: (torch.log(u), grad), "a value that is not finite"),
        (lambda u, grad: (u, grad), "raised TypeError"),
    ],
    ids=["single", "none", "f0", "f1", "type", "detach", "floor", "numpy", "coefficient", "finite", "arguments"],
)
def test_a_form_that_cannot_be_used_is_told(form: Callable[..., Any], words: str) -> None:
    told = complaint(of_form(form))
    assert "pde.python" in told and words in told and "lambda" in told


def test_a_wrong_f1_of_the_same_size_is_told() -> None:
    told = complaint(of_form(lambda u, grad, c, x: (u, grad.transpose(0, 1))))
    assert "expected (2, 1," in told


@pytest.mark.parametrize(
    ("density", "words"),
    [
        (lambda u, grad, v, x: u.mean(dim=1), "does it mix points?"),
        (lambda u, grad, v, x: u[:, :7], "raised RuntimeError"),
        (lambda u, grad, v, x: u.detach() ** 2, "its derivative is not that of its values"),
        (lambda u: u, "raised TypeError"),
    ],
)
def test_a_density_that_cannot_be_used_is_told(density: Callable[..., Any], words: str) -> None:
    source = of_form(diffusion)
    source["objective"].append({"kind": "python", "python": density})
    told = complaint(source)
    assert "objective.2.python" in told and words in told


@pytest.mark.parametrize(
    ("enter", "words"),
    [
        (lambda c, v: v, "returned Tensor; expected the coefficients source"),
        (lambda c, v: {"sauce": v}, "returned a mapping of sauce"),
        (lambda c: c, "raised TypeError"),
    ],
)
def test_a_control_map_that_cannot_be_used_is_told(enter: Callable[..., Any], words: str) -> None:
    source = of_form(diffusion)
    source["control"] = {"kind": "python", "python": enter}
    told = complaint(source)
    assert "control.python" in told and words in told


# Whatever a function is given has to have its derivative


def no_grad(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        source = 2.0 * c["source"]
    return u - source, grad


def numpy_source(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return u - torch.from_numpy(np.sin(c["source"].detach().numpy())), grad


BLIND: dict[str, Callable[..., Any]] = {
    "detach": lambda u, grad, c, x: (u - c["source"].detach(), grad),
    "data": lambda u, grad, c, x: (u - c["source"].data, grad),
    "no_grad": no_grad,
    "item": lambda u, grad, c, x: (u - c["source"].mean().item() * x[0], grad),
    "numpy": numpy_source,
    "round": lambda u, grad, c, x: (u - torch.round(c["source"]), grad),
    "sign": lambda u, grad, c, x: (u - torch.sign(c["source"]), grad),
}


@pytest.mark.parametrize("kind", BLIND)
def test_a_form_without_a_derivative_by_the_control_is_told(kind: str) -> None:
    told = complaint(of_form(BLIND[kind]))
    assert "pde.python" in told and "that by the control is zero, while the values change with the control" in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c, v: v.detach(), "that by the control is zero"),
        (lambda c, v: v + v.detach(), "as a change of the control shows"),
        (lambda c, v: v.mean().item(), "that by the control is zero"),
        (lambda c, v: v.round(), "that by the control is zero"),
        (lambda c, v: torch.from_numpy(v.numpy()), "raised RuntimeError: Can't call numpy()"),
        (lambda c, v: c["source"].add_(1.0), "changes c['source'], which it is given, in place"),
        (lambda c, v: 0.0, "the control does not enter"),
    ],
    ids=["detach", "half", "item", "round", "numpy", "place", "nothing"],
)
def test_a_map_without_a_derivative_is_told(change: Callable[[Any, Tensor], Any], words: str) -> None:
    source = of_form(diffusion, source="1 + x")
    source["control"] = {"kind": "python", "python": lambda c, v: {**c, "source": c["source"] + change(c, v)}}
    told = complaint(source)
    assert "control" in told and words in told


@pytest.mark.parametrize(
    ("density", "words"),
    [
        (lambda u, grad, v, x: u.detach() ** 2 + (grad**2).sum(0), "that by u is zero"),
        (lambda u, grad, v, x: u**2 + 1e-4 * (grad.detach() ** 2).sum(0), "that by grad u is zero"),
        (lambda u, grad, v, x: u**2 + v.detach() ** 2, "that by v is zero"),
        (lambda u, grad, v, x: torch.round(u), "that by u is zero"),
        (lambda u, grad, v, x: grad.pow_(2).sum(0), "changes u or grad, which it is given, in place"),
    ],
)
def test_every_argument_of_a_density_is_tried(density: Callable[..., Any], words: str) -> None:
    source = of_form(diffusion)
    source["objective"].append({"kind": "python", "python": density})
    told = complaint(source)
    assert "objective.2.python" in told and words in told


def test_a_control_that_does_not_enter_is_told() -> None:
    assert "the control does not enter" in complaint(of_form(lambda u, grad, c, x: (u - x[0], grad)))
    source = of_form(diffusion)
    source["pde"] = {"kind": "poisson", "source": "x + 0*k", "boundary": {"all": {"dirichlet": 0}}}
    source["control"] = {"kind": "parameter", "name": "k", "initial": 1}
    assert "the control does not enter: no value of the equation changes with the control 'k'" in complaint(source)
    source["pde"]["source"] = "x*sign(k)"
    assert "that by the control 'k' is zero" in complaint(source)


@pytest.mark.parametrize(
    "change",
    [torch.tanh, torch.exp, torch.abs, torch.relu, lambda v: v**3, lambda v: 1e-12 * v, lambda v: 1e12 * v],
    ids=["tanh", "exp", "abs", "relu", "cube", "small", "large"],
)
def test_maps_that_have_their_derivative_load(change: Callable[[Tensor], Tensor]) -> None:
    source = of_form(diffusion, source="1 + x")
    source["control"] = {"kind": "python", "python": lambda c, v: {**c, "source": c["source"] + change(v)}}
    nhgd.load(source)


def test_a_control_of_an_objective_alone_loads() -> None:
    """An offset of the state that is no part of the equation."""
    source = of_form(lambda u, grad, c, x: (u - x[0], grad))
    source["objective"] = [{"kind": "python", "python": lambda u, grad, v, x: (u - v - x[1]) ** 2}]
    assert nhgd.solve(nhgd.load(source)).status == "converged"


# Flows


def of_flow(density: Callable[..., Any], kind: str = "stokes") -> dict[str, Any]:
    return {
        "name": "flow",
        "mesh": {"kind": "rectangle", "cells": [3, 3]},
        "pde": {"kind": kind, "source": ["10*y", "20*x*y"], "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [{"kind": "python", "python": density}, {"kind": "regularisation", "weight": 1e-2}],
    }


def test_the_gradient_of_a_flow_is_that_of_its_velocities() -> None:
    """int |grad u|^2 / 2 is half the work of the forces: what it is with the pressure is something else."""
    built = nhgd.load(of_flow(lambda u, grad, v, x: 0.5 * (grad**2).sum((0, 1))))
    v = 0.0 * built.pde.control.initial
    adjoint = Adjoint()
    u, _ = built.pde.start()
    exact, known = adjoint.evaluate(built.pde, v, adjoint.init(built.pde, u, v), TIGHT)
    force = nhgd.load(
        {**of_flow(lambda u, grad, v, x: 0.5 * (10.0 * x[1] * u[0] + 20.0 * x[0] * x[1] * u[1])), "name": "work"}
    )
    assert exact.value == pytest.approx(force.pde.outer_value(known.u, v), rel=1e-10)


@pytest.mark.parametrize("kind", ["stokes", "navier_stokes"])
def test_the_pressure_of_a_flow_is_an_argument_of_its_own(kind: str) -> None:
    shapes: dict[str, tuple[int, ...]] = {}

    def density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor, *, pressure: Tensor, pressure_grad: Tensor) -> Tensor:
        shapes.update(u=u.shape, grad=grad.shape, pressure=pressure.shape, pressure_grad=pressure_grad.shape)
        return pressure**2 + (pressure_grad**2).sum(0) + u[0] ** 2

    verified = nhgd.verify(nhgd.load(of_flow(density, kind)))
    assert verified.passed, str(verified)
    points = shapes["pressure"][-1]
    assert shapes == {
        "u": (2, 1, points),
        "grad": (2, 2, 1, points),
        "pressure": (1, points),
        "pressure_grad": (2, 1, points),
    }


@pytest.mark.parametrize(
    "density",
    [
        lambda u, grad, v, x: u[2] ** 2,
        lambda u, grad, v, x: (grad * torch.ones(3, 1, 1, 1)).sum((0, 1)),
        lambda u, grad, v, x, p: p**2,
    ],
)
def test_a_density_that_takes_a_third_component_is_told(density: Callable[..., Any]) -> None:
    told = complaint(of_flow(density))
    assert "u and grad are those of the velocity alone, of 2 components, and pressure and pressure_grad" in told


def test_files_and_functions_that_are_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def form(u, grad, c, x):\n    return u, grad\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    assert "expected a function as file.py:name, found 'form'" in complaint(of_form("form"))
    assert "found nothing at 'absent.py'" in complaint(of_form("absent.py:form"))
    assert "found 'fom'; it has: form" in complaint(of_form(f"{tmp_path}/mine.py:fom"))
    assert "cannot be imported: ModuleNotFoundError" in complaint(of_form(f"{tmp_path}/broken.py:form"))


# A new choice in the package is one file, and one line where it is listed

PACKAGE_FILES: dict[str, str] = dict(re.findall(r"<!-- package file: (\S+) -->\n```python\n(.*?)```", DOCS, re.DOTALL))
LINES: list[tuple[str, str]] = re.findall(r'^    ("\w+": "[\w.:]+",) +# in (\w+)$', DOCS, re.MULTILINE)
CATALOGUE = "problem_file/catalogue.py"

# Everything that is new, by its name in a problem file alone.
TRIAL = """
import json
from pathlib import Path
import nhgd_pde as nhgd
from nhgd_pde.choice.estimate import estimate
from nhgd_pde.problem_file.json_schema import json_schema
from nhgd_pde.problem_file.loading import read_problem
from nhgd_pde.problem_file.starter import starter
from nhgd_pde.choice.vocabulary import vocabulary
mesh = {"kind": "rectangle", "cells": [5, 5]}
terms = [
    {"kind": "tracking", "target": "0.1*sin(pi*x)*sin(pi*y)"},
    {"kind": "mean_state", "weight": 0.001},
    {"kind": "regularisation", "weight": 1e-3},
]
pde = {"kind": "membrane", "tension": 2, "boundary": {"all": {"dirichlet": 0}}}
first = nhgd.load({
    "name": "first", "mesh": mesh, "pde": pde, "control": {"kind": "source"}, "objective": terms,
    "curvature": {"kind": "prior"}, "outer": {"method": "averaged", "iterations": 60, "rtol": 1e-3},
})
second = nhgd.load({
    "name": "second", "mesh": mesh, "pde": pde, "control": {"kind": "source", "bounds": [0, 3]}, "objective": terms,
    "constraints": [{"kind": "budget", "most": 0.5}], "method": "two_terms",
    "outer": {"method": "mma", "iterations": 10},
})
solved = [nhgd.solve(first, output="first"), nhgd.solve(second, output="second")]
try:
    read_problem({"name": "bad", "mesh": mesh, "pde": {**pde, "tensoin": 1}, "control": {"kind": "source"},
                  "objective": terms, "outer": {"method": "averagd"}, "curvature": {"kind": "prioor"}})
except nhgd.ProblemError as error:
    mistakes = str(error)
print(json.dumps({
    "status": [each.status for each in solved],
    "fall": [each.history[-1]["objective"] / each.history[0]["objective"] for each in solved],
    "budget": solved[1].stats["constraints"][0]["value"],
    "memory": str(estimate(first.pde, first.method)),
    "verified": nhgd.verify(first).passed,
    "files": sorted(each.name for each in Path("first").iterdir()),
    "mistakes": mistakes,
    "starter": starter("membrane"),
    "schema": sorted({"MembraneSpec", "MeanStateTerm", "BudgetSpec"} & json_schema()["$defs"].keys()),
    "listed": vocabulary(),
}))
"""


def changed_lines(before: str, after: str) -> int:
    return sum(
        line[:1] in "+-" and line[:3] not in ("+++", "---")
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
    )


def test_a_new_choice_is_one_file_and_one_line(tmp_path: Path) -> None:
    package = tmp_path / "nhgd_pde"
    shutil.copytree(ROOT / "nhgd_pde", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in PACKAGE_FILES.items():
        assert not (package / name).exists()
        (package / name).write_text(text, encoding="utf-8")
    catalogue = (package / CATALOGUE).read_text(encoding="utf-8")
    longer = catalogue
    for line, table in LINES:
        longer = longer.replace(f"\n{table} = {{\n", f"\n{table} = {{\n    {line}\n")
    (package / CATALOGUE).write_text(longer, encoding="utf-8")
    results = (package / "output/result_files.py").read_text(encoding="utf-8")
    write = 'lambda run, result: (run.path / "control.txt").write_text(str(len(result.control)))'
    added = f'    "control.txt": {write},\n}}\n'
    (package / "output/result_files.py").write_text(results.removesuffix("}\n") + added, encoding="utf-8")

    # Six new kinds are six files and six lines; the file of the result is one line more.
    assert len(PACKAGE_FILES) == len(LINES) == changed_lines(catalogue, longer) == 6

    code = [sys.executable, "-W", "error::DeprecationWarning", "-c", TRIAL]
    done = subprocess.run(
        code, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["verified"] and max(found["fall"]) < 0.8
    assert found["status"][0] == "converged" and found["budget"] < 0.5 + 1e-6
    assert "the sampled inverse" in found["memory"]
    assert "control.txt" in found["files"]
    for words in ("did you mean 'tension'", "did you mean 'averaged'", "did you mean 'prior'"):
        assert words in found["mistakes"]
    assert "kind: membrane" in found["starter"] and "tension: 2" in found["starter"]
    assert found["schema"] == ["BudgetSpec", "MeanStateTerm", "MembraneSpec"]
    listed = str(found["listed"])
    assert all(name in listed for name in ("membrane", "mean_state", "budget", "two_terms", "averaged", "prior"))
