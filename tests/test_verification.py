"""`verify` finds wrong derivatives of any size, at any place and at any values."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import nhgd_pde as nhgd
from benchmarks.quasilinear import quasilinear_problem
from benchmarks.shipped import PROBLEMS
from nhgd_pde.linalg.differences import central_difference, sure_difference
from nhgd_pde.output.atomic import OutputError
from nhgd_pde.run.recovery import end_of
from nhgd_pde.verification import Verification, verify_problem

ERRORS = pytest.mark.parametrize("error", [1e-3, 1e-5, 3e-6])


class Cubed(torch.autograd.Function):
    """x^3 with a derivative that is wrong by a relative error where a mask is true."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(x, share)
        return x**3

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        x, share = ctx.saved_tensors
        return outputs[0] * 3.0 * x**2 * (1.0 + share), None


class Slope(torch.autograd.Function):
    """3 x^2 with a wrong derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(x, share)
        return 3.0 * x**2

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        x, share = ctx.saved_tensors
        return outputs[0] * 6.0 * x * (1.0 + share), None


class CubedTwice(torch.autograd.Function):
    """x^3 with a right derivative, whose own derivative is wrong."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(x, share)
        return x**3

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        x, share = ctx.saved_tensors
        return outputs[0] * Slope.apply(x, share), None


def cubed(x: Tensor, share: Any) -> Tensor:
    return Cubed.apply(x, torch.as_tensor(share, dtype=x.dtype))  # type: ignore[no-untyped-call, no-any-return]


def cubed_twice(x: Tensor, share: Any) -> Tensor:
    return CubedTwice.apply(x, torch.as_tensor(share, dtype=x.dtype))  # type: ignore[no-untyped-call, no-any-return]


def problem(
    form: Callable[..., Any] | None = None,
    enter: Callable[..., Any] | None = None,
    density: Callable[..., Any] | None = None,
    cells: int = 5,
    **more: Any,
) -> nhgd.Problem:
    """A problem with the given Python functions, and right functions in place of the others."""
    file: dict[str, Any] = {
        "name": "own",
        "mesh": {"kind": "rectangle", "cells": [cells, cells]},
        "pde": {"python": form or reaction, "source": "4*y", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"} if enter is None else {"kind": "python", "python": enter},
        "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-3}],
    }
    if density is not None:
        file["objective"].append({"kind": "python", "python": density, **more})
    return nhgd.load(file)


def reaction(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return u**3 - c["source"], grad


def failures(found: Verification) -> set[str]:
    return {check.name for check in found.checks if not check.passed}


# Differences


def test_an_extrapolated_difference_and_its_estimated_error() -> None:
    x = torch.linspace(0.1, 3.0, 200, dtype=torch.float64)
    for function, slope in ((torch.exp, torch.exp(x)), (torch.sin, torch.cos(x)), (lambda y: y**5, 5.0 * x**4)):
        found = sure_difference(lambda t, function=function: function(x + t))
        error = (found.value - slope).abs()
        assert float((found.doubt / slope.abs()).median()) < 1e-9
        assert (error <= 10.0 * found.doubt).all()


def test_a_difference_at_a_kink_has_a_large_estimated_error() -> None:
    x = torch.linspace(-1.0, 1.0, 201, dtype=torch.float64)
    found = sure_difference(lambda t: (x + t).abs())
    sure = found.doubt < 1e-6
    assert not sure[100] and float(sure.double().mean()) > 0.95
    assert torch.allclose(found.value[sure], x.sign()[sure], rtol=0, atol=1e-6)
    # With a value that is NaN on one side there is no difference.
    assert not torch.isfinite(
        central_difference(lambda t: torch.log(torch.tensor([t], dtype=torch.float64))).doubt
    ).any()


# Right derivatives


@pytest.mark.parametrize("path", PROBLEMS, ids=lambda path: path.stem)
def test_every_derivative_of_the_shipped_problems_is_right(path: Path) -> None:
    found = nhgd.verify(small(path))
    assert found.passed, str(found)
    assert str(found).endswith("every derivative is right"), str(found)


SMALL: dict[str, dict[str, Any]] = {
    "poisson_plate": {},
    "elastic_control": {"mesh.cells": [8, 2]},
    "mbb_beam": {"mesh.cells": [9, 3]},
    "adaptive_3d": {"mesh.cells": [3, 3, 3]},
    "l_shape_adaptive": {},
    "poisson_control_3d": {"mesh.cells": [3, 3, 3]},
    "robust_poisson_3d": {"mesh.cells": [3, 3, 3], "scenarios.count": 4},
    "darcy_wells": {"mesh.cells": [8, 4], "scenarios.count": 4},
    "uncertain_source": {"mesh.cells": [8, 4], "scenarios.count": 4},
    "cvar_control": {"mesh.cells": [6, 6], "scenarios.count": 4},
    "robust_poisson": {"mesh.cells": [6, 6], "scenarios.count": 4},
    "allen_cahn_control": {"mesh.cells": [4, 4], "time.steps": 3},
    "burgers_control": {"mesh.cells": 10, "time.steps": 4},
    "heat_boundary": {"mesh.cells": [6, 6], "time.steps": 4},
    "heat_control": {"mesh.cells": 10, "time.steps": 4},
    "heat_windows_fds": {"mesh.cells": 10, "time.steps": 10},
    "switched_heaters": {"mesh.cells": 10},
    "heat_initial": {"mesh.cells": [6, 6], "time.steps": 4},
    "navier_stokes_control": {"mesh.cells": [3, 3]},
    "transport_control": {"mesh.cells": [4, 4], "time.steps": 3},
    "wave_source": {"mesh.cells": [4, 4], "time.steps": 3},
    "flow_in_time": {"mesh.cells": [3, 3], "time.steps": 3},
}


def small(path: Path) -> nhgd.Problem:
    return nhgd.load(path, SMALL.get(path.stem, {"mesh.cells": [6, 6]}))


FAULTS = Path(__file__).parent / "faults"


@pytest.mark.parametrize("name", ["warm", "q11", "q5", "mems_twin"])
def test_gradients_that_are_zero_up_to_rounding_are_not_errors(name: str) -> None:
    """The objective does not depend on the control, is at its minimum, or is stiff."""
    found = nhgd.verify(nhgd.load(FAULTS / f"{name}.yaml", {"mesh.cells": [6, 6]}))
    assert found.passed, str(found)


# Wrong derivatives


@ERRORS
def test_a_wrong_derivative_of_an_equation_fails(error: float) -> None:
    found = nhgd.verify(problem(lambda u, grad, c, x: (cubed(u, error) - c["source"], grad)))
    assert "equation in the cells by u" in failures(found), str(found)
    check = next(each for each in found.checks if each.name == "equation in the cells by u")
    assert check.value == pytest.approx(error, rel=0.1)


@ERRORS
def test_a_wrong_derivative_of_a_term_fails(error: float) -> None:
    found = nhgd.verify(problem(density=lambda u, grad, v, x: cubed(u, error)))
    assert any(name.startswith("objective") and name.endswith("by u") for name in failures(found)), str(found)
    found = nhgd.verify(problem(density=lambda u, grad, v, x: u**2 + cubed(v, error)))
    assert any(name.startswith("objective") and name.endswith("by v") for name in failures(found)), str(found)


@ERRORS
def test_a_wrong_derivative_of_a_control_map_fails(error: float) -> None:
    def enter(c: Any, v: Tensor) -> Any:
        return {**c, "source": c["source"] + v + 0.3 * cubed(v, error)}

    found = nhgd.verify(problem(enter=enter))
    assert "equation in the cells by the control" in failures(found), str(found)


@ERRORS
def test_a_wrong_second_derivative_fails(error: float) -> None:
    found = nhgd.verify(problem(lambda u, grad, c, x: (cubed_twice(u, error) - c["source"], grad)))
    assert "second derivatives of equation in the cells" in failures(found), str(found)
    found = nhgd.verify(problem(density=lambda u, grad, v, x: cubed_twice(u, error)))
    assert any("second derivatives" in name for name in failures(found)), str(found)


@ERRORS
@pytest.mark.parametrize("product", ["state_product_transposed", "control_product_transposed"])
def test_a_wrong_transpose_fails(error: float, product: str) -> None:
    wrong = quasilinear_problem(6)
    right = getattr(wrong.equation, product)
    object.__setattr__(wrong.equation, product, lambda u, v, w: (1.0 + error) * right(u, v, w))
    assert failures(verify_problem(wrong)) & {"adjoint of dR/du", "adjoint of dR/dv"}


@ERRORS
def test_a_product_with_one_wrong_row_fails(error: float) -> None:
    wrong = quasilinear_problem(6)
    right = wrong.equation.state_product

    def product(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        image = right(u, v, w).clone()
        image[:, 3] *= 1.0 + error
        return image

    object.__setattr__(wrong.equation, "state_product", product)
    assert "dR/du against differences" in failures(verify_problem(wrong))


@ERRORS
def test_an_error_at_some_values_is_found(error: float) -> None:
    """The state reaches 0.5 only in the middle."""

    def form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return cubed(u, error * (u > 0.5)) - 4.0 * c["source"], grad

    found = problem(form, cells=8)
    v = torch.ones_like(found.pde.control.initial)
    checks = verify_problem(found.pde, at=(None, v))
    assert "equation in the cells by u" in failures(checks), str(checks)


@ERRORS
def test_an_error_at_one_side_is_found(error: float) -> None:
    def density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Tensor:
        return cubed(u + grad[0], error * (x[0] > 0.999))

    for more in ({}, {"on": "right"}):
        found = nhgd.verify(problem(density=density, cells=8 if not more else 5, **more))
        if more:
            assert failures(found), str(found)
            (named,) = [each for each in found.checks if "objective" in each.name and each.name.endswith("by grad u")]
            assert "as at (1, " in named.remark


@ERRORS
def test_an_error_in_one_corner_is_found(error: float) -> None:
    def form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return cubed(u, error * ((x[0] > 0.8) & (x[1] > 0.8))) - c["source"], grad

    found = nhgd.verify(problem(form))
    assert "equation in the cells by u" in failures(found), str(found)


def test_a_small_term_does_not_hide_behind_a_large_one() -> None:
    def density(u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> Tensor:
        return 1e-9 * cubed(u, 1e-5)

    assert not nhgd.verify(problem(density=density)).passed


# Units


@pytest.mark.parametrize("unit", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("of", ["state", "control", "objective"])
def test_verification_does_not_depend_on_units(unit: float, of: str) -> None:
    a, s, c = (unit if of == each else 1.0 for each in ("state", "control", "objective"))
    file = {
        "name": "units",
        "mesh": {"kind": "rectangle", "cells": [4, 4]},
        "pde": {
            "kind": "semilinear",
            "nonlinearity": f"{50 * a!r}*(u/{a!r})**3",
            "source": f"{4 * a!r}*y",
            "boundary": {"all": {"dirichlet": 0}},
        },
        "control": {"kind": "source", "gain": a / s},
        "objective": [
            {"kind": "tracking", "target": f"{a!r}*x*y", "weight": c / a**2},
            {"kind": "regularisation", "weight": 1e-3 * c / s**2},
        ],
    }
    found = nhgd.verify(nhgd.load(file))
    assert found.passed and max(check.accuracy or 0.0 for check in found.checks) < 1e-6, str(found)


# Kinks


KINKED: dict[str, dict[str, Any]] = {
    "abs": {"density": lambda u, grad, v, x: u.abs()},
    "relu": {"density": lambda u, grad, v, x: torch.relu(u - 0.03)},
    "l1": {"density": lambda u, grad, v, x: u**2 + v.abs()},
    "maximum": {"form": lambda u, grad, c, x: (3.0 * u.clamp(min=0.0) - c["source"], grad)},
}


@pytest.mark.parametrize("kind", KINKED)
def test_a_kink_is_reported_and_not_an_error(kind: str) -> None:
    found = nhgd.verify(problem(**KINKED[kind]))
    assert found.passed, str(found)
    if kind != "l1":
        assert "the derivative jumps: kinks of abs, maximum" in str(found)


def test_an_error_beside_a_kink_is_found() -> None:
    found = nhgd.verify(problem(density=lambda u, grad, v, x: u.abs() + cubed(u, 1e-3)))
    assert any(name.startswith("objective") for name in failures(found)), str(found)


# At the end of a run


def late(error: float) -> nhgd.Problem:
    """A form with a wrong derivative for states above 0.5, which are far from those at the start."""

    def form(u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return cubed(u, error * (u > 0.5)) - c["source"], grad

    file = {
        "name": "late",
        "mesh": {"kind": "rectangle", "cells": [6, 6]},
        "pde": {"python": form, "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [
            {"kind": "tracking", "target": "16*x*(1 - x)*y*(1 - y)"},
            {"kind": "regularisation", "weight": 1e-9},
        ],
    }
    return nhgd.load(file)


def test_an_error_at_the_solution_is_found_there(tmp_path: Path) -> None:
    built = late(1e-5)
    solution = nhgd.solve(built, output=tmp_path / "run")
    assert solution.state.max() > 0.5
    for at in (solution, tmp_path / "run", str(tmp_path / "run")):
        found = nhgd.verify(built, at=at)
        assert "equation in the cells by u" in failures(found), str(found)
    assert "at the end of" in str(found).splitlines()[0]


RECOVERED = (
    "burgers_control",
    "dirichlet_control",
    "heat_boundary",
    "heat_sink",
    "navier_stokes_control",
    "darcy_wells",
)


@pytest.mark.parametrize("name", [*RECOVERED, "darcy_wells", "parameter_fit", "helmholtz_control", "elastic_control"])
def test_the_control_of_a_run_is_read_to_the_last_digit(name: str, tmp_path: Path) -> None:
    path = next(each for each in PROBLEMS if each.stem == name)
    file = {**SMALL.get(name, {"mesh.cells": [6, 6]}), "outer.iterations": 1}
    built = nhgd.load(path, file)
    solution = nhgd.solve(built, output=tmp_path / "run")
    end = end_of(built, tmp_path / "run")
    assert np.array_equal(end.v, solution.control) and end.u is not None
    # Without the checkpoint the control is read from the fields, which have all digits as well.
    (tmp_path / "run" / "checkpoint.pt").unlink()
    assert np.array_equal(end_of(built, tmp_path / "run").v, solution.control)
    saved = solution.save(tmp_path / "saved")
    assert np.array_equal(end_of(built, saved).v, solution.control)
    assert np.array_equal(end_of(built, solution).v, solution.control)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    nhgd.solve(poisson(), output=folder)
    return folder


def poisson(**overrides: Any) -> nhgd.Problem:
    path = next(each for each in PROBLEMS if each.stem == "poisson_control")
    return nhgd.load(path, {"mesh.cells": [4, 4], "outer.iterations": 2, **overrides})


def copied(ended: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "copy"))


def test_a_missing_folder_and_one_without_a_run_are_reported(ended: Path, tmp_path: Path) -> None:
    for place, words in (
        (tmp_path / "none", "expected a run folder, found nothing"),
        (ended / "problem.yaml", "expected a run folder, found a file"),
        (tmp_path, "found no problem.yaml of a run"),
    ):
        with pytest.raises(OutputError, match=words):
            nhgd.verify(poisson(), at=place)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"mesh.cells": [5, 5]}, "mesh.cells.0 = 4, the problem has 5"),
        ({"name": "other"}, "name = 'poisson_control', the problem has 'other'"),
        ({"control.space": "P0"}, "control.space = 'P1', the problem has 'P0'"),
        ({"element": "P2"}, "element = 'P1', the problem has 'P2'"),
    ],
)
def test_a_run_of_another_problem_is_reported(ended: Path, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(OutputError, match=re.escape(words)):
        nhgd.verify(poisson(**overrides), at=ended)


def test_a_solution_of_another_problem_is_reported() -> None:
    with pytest.raises(OutputError, match="of another problem: controls"):
        nhgd.verify(poisson(**{"mesh.cells": [5, 5]}), at=nhgd.solve(poisson()))


def test_other_weights_are_the_same_problem_and_are_reported(ended: Path) -> None:
    found = nhgd.verify(poisson(**{"objective.1.weight": 0.25}), at=ended)
    assert found.passed
    assert "which was solved with objective.1.weight" in str(found).splitlines()[0]


def test_a_run_that_has_not_ended_or_is_damaged_is_reported(ended: Path, tmp_path: Path) -> None:
    folder = copied(ended, tmp_path)
    (folder / "checkpoint.pt").write_bytes((ended / "checkpoint.pt").read_bytes()[:2000])
    with pytest.raises(OutputError, match="not a checkpoint that can be read"):
        nhgd.verify(poisson(), at=folder)
    (folder / "checkpoint.pt").unlink()
    (folder / "final.vtu").write_bytes((ended / "final.vtu").read_bytes()[:500])
    with pytest.raises(OutputError, match="not a readable VTU file"):
        nhgd.verify(poisson(), at=folder)
    (folder / "summary.json").write_text('{"status": ')
    with pytest.raises(OutputError, match="is damaged"):
        nhgd.verify(poisson(), at=folder)
    (folder / "summary.json").unlink()
    with pytest.raises(OutputError, match="expected a run that has ended"):
        nhgd.verify(poisson(), at=folder)


def test_a_resumed_run_that_was_cut_off_has_not_ended(ended: Path, tmp_path: Path) -> None:
    """The checkpoint has a later iteration than the summary."""
    folder = copied(ended, tmp_path)
    nhgd.solve(poisson(**{"outer.iterations": 3}), output=folder, resume=True)
    shutil.copy(ended / "summary.json", folder / "summary.json")
    with pytest.raises(OutputError, match="beside a summary of iteration 2"):
        nhgd.verify(poisson(), at=folder)
