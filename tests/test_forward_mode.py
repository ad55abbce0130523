"""Forward-mode differentiation with sharing: against the exact adjoint, in memory, in runs, and what it refuses."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from benchmarks.forward_memory import measured, problem
from nhgd_pde.bench.contenders import Contender
from nhgd_pde.bench.trials import Budget, Task, run
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.reduced_objective import Evaluation
from nhgd_pde.horizon_problem import HorizonPart, HorizonProblem
from nhgd_pde.pde.rows import ControlRows
from nhgd_pde.pde.stretch import Excerpt
from nhgd_pde.problem_file.errors import ProblemError

SHIPPED = Path(__file__).parents[1] / "problems" / "heat_windows_fds.yaml"
SMALL = {"mesh.cells": 8, "time.steps": 200}
IN_TIME = {
    "objective": [
        {"kind": "tracking", "target": "0.3*x*exp(-t)"},
        {"kind": "tracking", "target": "0.1*x", "time": "final", "weight": 2},
        {"kind": "linear_state", "weight": "t*x"},
        {"kind": "linear_control", "weight": "1 + t"},
        {"kind": "regularisation", "weight": 0.01, "reference": "t"},
    ],
    "control.gain": "sin(2*pi*x)*(1 + t)",
    "pde.source": "t*x",
    "pde.boundary": {"left": {"dirichlet": "t"}, "right": {"dirichlet": 0}},
}
TWO_D: dict[str, Any] = {
    "name": "plate",
    "mesh": {"kind": "rectangle", "cells": [4, 4]},
    "pde": {
        "kind": "heat",
        "conductivity": "exp(k)*(1 + x)",
        "boundary": {"left": {"dirichlet": 0}, "right": {"robin": {"coefficient": 2, "value": "t"}}},
    },
    "time": {"end": 0.5, "steps": 72, "initial": "x*(1 - y)", "scheme": "crank_nicolson"},
    "control": [
        {"kind": "parameter", "name": "k", "initial": 0.1},
        {"kind": "source", "name": "inside", "space": "P0", "windows": 2, "initial": 0.3},
        {"kind": "neumann", "on": "top", "space": "time", "windows": 9},
        {"kind": "robin", "on": "right", "space": "constant"},
    ],
    "objective": [
        {"kind": "tracking", "target": "x*y*t", "on": "bottom"},
        {"kind": "tracking", "target": "x", "time": "final"},
        {"kind": "regularisation", "weight": 0.1},
    ],
}
PHASES = {
    **{key: TWO_D[key] for key in ("name", "mesh")},
    "pde": {"kind": "allen_cahn", "epsilon": 0.2},
    "time": {"end": 0.2, "steps": 70, "initial": "cos(pi*x)*cos(pi*y)"},
    "control": {"kind": "source", "space": "time", "windows": 7, "gain": "x", "initial": 0.5},
    "objective": [{"kind": "tracking", "target": "1", "time": "final"}],
}


def evaluated(source: Any, overrides: dict[str, Any], method: str, seed: int = 0) -> Evaluation:
    """The evaluation by a method at a random control."""
    loaded = nhgd.load(source, {**overrides, "method": method})
    pde, oracle = loaded.pde, loaded.method.oracle
    u, v = pde.start()
    v = v + torch.from_numpy(np.random.default_rng(seed).standard_normal(len(v)))
    found, _ = oracle.evaluate(pde, v, oracle.init(pde, u, v), Accuracy(1e-13, 1e-13))
    return found


def agree(source: Any, overrides: dict[str, Any]) -> None:
    ours, exact = (evaluated(source, overrides, method) for method in ("fds", "adjoint"))
    assert ours.value == pytest.approx(exact.value, rel=1e-11)
    assert float((ours.derivative - exact.derivative).norm()) <= 1e-10 * float(exact.derivative.norm())
    assert ours.state_error < 1e-12 and ours.adjoint_error < 1e-12


@pytest.mark.parametrize("equation", ["heat", "burgers"])
def test_the_gradient_is_that_of_the_adjoint_after_a_thousand_steps(equation: str) -> None:
    agree(problem(equation, "fds", 1000, cells=16), {})


@pytest.mark.parametrize("scheme", ["implicit_euler", "crank_nicolson"])
@pytest.mark.parametrize("equation", ["heat", "burgers"])
def test_every_term_may_depend_on_time(equation: str, scheme: str) -> None:
    agree(problem(equation, "fds", 90, cells=8), {**IN_TIME, "time.scheme": scheme})


@pytest.mark.parametrize("source", [TWO_D, PHASES], ids=["plate", "phases"])
def test_controls_of_several_kinds_share_one_pass(source: dict[str, Any]) -> None:
    agree(source, {})


@pytest.mark.parametrize("steps", [1, 63, 64, 65, 130])
def test_the_length_of_the_last_part_does_not_matter(steps: int) -> None:
    agree(problem("heat", "fds", steps, cells=8), {"control.windows": 1, **IN_TIME})


def test_an_excerpt_is_the_part_of_the_controls_in_its_steps() -> None:
    rows = ControlRows((2, 1, 3), (True, False, True), 12, (), (3, 1, 12))
    v = torch.arange(43, dtype=torch.float64)
    spread = rows.spread(v)
    for before, steps in ((0, 12), (0, 5), (3, 4), (11, 1)):
        excerpt = Excerpt(rows, before, steps)
        local = ControlRows((2, 1, 3), (True, False, True), steps).spread(excerpt.local(v))
        assert torch.equal(local, spread[before : before + steps])
        w = torch.cos(torch.arange(len(excerpt.local(v)), dtype=torch.float64))
        assert float(excerpt.local(v) @ w) == pytest.approx(float(v @ excerpt.gathered(w)), rel=1e-14)
        expected = sorted(set(Excerpt(rows, 0, before + steps).acting.tolist()))
        assert sorted(excerpt.begun.tolist()) == expected


def live_bytes() -> int:
    """The bytes of all arrays and tensors."""
    gc.collect()
    found = (each.values() if each.layout == torch.sparse_csr else each for each in _tensors())
    tensors = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in found}
    return sum(tensors.values()) + sum(each.nbytes for each in gc.get_objects() if type(each) is np.ndarray)


def _tensors() -> Iterator[torch.Tensor]:
    return (each for each in gc.get_objects() if type(each) is torch.Tensor)


def most_bytes(equation: str, steps: int) -> int:
    """The largest number of bytes of arrays after any of the parts that are looked at."""
    loaded = nhgd.load(problem(equation, "fds", steps, cells=8))
    pde = loaded.pde
    assert isinstance(pde, HorizonProblem)
    v = pde.control.initial
    state, most = pde.first_state(v), 0
    derivative = state.new_zeros(len(v), len(state))
    for number, part in enumerate(pde.parts()):
        assert isinstance(part, HorizonPart)
        passed = part.passed(v, state, derivative)
        state, derivative = passed.state, passed.derivative
        if number in (0, 5, 15, 50, 100, 150):
            most = max(most, live_bytes())
    return most


def test_the_bytes_of_all_arrays_do_not_depend_on_the_number_of_steps() -> None:
    few, many = (most_bytes("heat", steps) for steps in (1_000, 10_000))
    assert many <= 1.05 * few


@pytest.mark.slow
@pytest.mark.parametrize("equation", ["heat", "burgers"])
def test_the_peak_of_the_process_does_not_depend_on_the_number_of_steps(equation: str) -> None:
    few, many = (measured(equation, "fds", steps) for steps in (1_000, 5_000))
    assert many["peak"] <= 1.05 * few["peak"]
    # What the whole process takes hides little: storing the states of 5,000 steps would take 150 MB more.
    assert many["grown"] <= 40e6 and many["kept"] <= 5e6


def test_the_shipped_problem_has_the_optimum_of_the_adjoint() -> None:
    ours, exact = (nhgd.solve(nhgd.load(SHIPPED, {"method": method})) for method in ("fds", "adjoint"))
    assert ours.status == exact.status == "converged"
    assert ours.objective == pytest.approx(exact.objective, rel=1e-10)
    np.testing.assert_allclose(ours.control, exact.control, atol=1e-6 * np.abs(exact.control).max())
    assert ours.objective == pytest.approx(2.45851773e-3, rel=1e-8)
    # Only the last state is kept.
    assert ours.state.shape == (1, 65)
    np.testing.assert_allclose(ours.state[0], exact.evolution[-1], atol=1e-8)


def test_sign_steps_converge_on_the_shipped_problem() -> None:
    found = nhgd.solve(nhgd.load(SHIPPED, {"outer.method": "sign", "outer.rtol": 1e-3}))
    assert found.status == "converged", found.message
    assert found.objective == pytest.approx(2.45851773e-3, rel=1e-4)


def test_a_run_that_is_resumed_has_the_numbers_of_one_that_is_not(tmp_path: Path) -> None:
    more = {**SMALL, "outer.method": "sign", "outer.rtol": 1e-2}
    whole = nhgd.solve(nhgd.load(SHIPPED, more))
    folder = tmp_path / "run"
    stopped = nhgd.solve(nhgd.load(SHIPPED, {**more, "outer.iterations": 4}), output=folder)
    assert stopped.status == "stopped"
    resumed = nhgd.solve(nhgd.load(SHIPPED, more), output=folder, resume=True)
    assert resumed.objective == whole.objective and np.array_equal(resumed.control, whole.control)
    assert resumed.stats["outer_iterations"] == whole.stats["outer_iterations"] > 4
    assert (folder / "final.vtu").is_file()


def test_a_state_that_cannot_be_found_is_a_failed_run() -> None:
    huge = {"control.initial": 1e200, "time.steps": 70}
    found = nhgd.solve(nhgd.load(problem("burgers", "fds", 70, cells=8), huge))
    assert found.status == "failed" and "the state equation is not solved in steps 1 to 64" in found.message


def test_derivatives_are_verified_with_all_steps_at_once() -> None:
    loaded = nhgd.load(SHIPPED, {"mesh.cells": 6, "time.steps": 20})
    assert nhgd.verify(loaded).passed
    assert nhgd.verify(loaded, nhgd.solve(loaded)).passed


def test_what_needs_all_states_says_so() -> None:
    with pytest.raises(ValueError, match="method: expected nhgd or adjoint, found fds"):
        _ = nhgd.load(SHIPPED, SMALL).reduced


@pytest.mark.parametrize(
    ("source", "overrides", "words"),
    [
        ("poisson_control", {}, "method: expected a method for steady problems, found 'fds', which needs time"),
        ("robust_poisson", {}, "method: expected a method for random inputs, found 'fds'"),
        ("heat_initial", {"mesh.cells": [4, 4]}, "control.kind: expected a control that enters the equation"),
        ("heat_windows_fds", {"control.windows": 7}, "control.windows: expected a divisor of time.steps (1,000)"),
        (
            "heat_windows_fds",
            {"control.space": "P1", "control.windows": 100},
            "control: expected at most 1,000 control unknowns with method fds, found 6,500, whose derivatives of one "
            "state take 3 MB: give control.windows",
        ),
        (
            "heat_control",
            {"time.steps": 64},
            "control: expected at most 1,000 control unknowns with method fds, found 4,160",
        ),
    ],
)
def test_what_forward_mode_does_not_take_is_refused(source: str, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(words)):
        nhgd.load(SHIPPED.parent / f"{source}.yaml", {"method": "fds", **overrides})


def test_check_says_what_is_carried() -> None:
    text = nhgd.load(SHIPPED, {"control.windows": 100}).report()
    assert "derivatives of states 3 MB" in text


def test_a_horizon_that_would_not_fit_is_taken_by_forward_mode_alone() -> None:
    room = {"devices.memory": 6e8, "time.steps": 20_000}
    with pytest.raises(ProblemError, match=r"time\.steps: expected a problem that fits"):
        nhgd.load(SHIPPED, {**room, "method": "adjoint"})
    assert nhgd.load(SHIPPED, room).inner_shape == (1, 63)


def test_bench_compares_it_with_the_adjoint() -> None:
    task = Task(SHIPPED, SMALL)
    runs = [run(task, Contender(method, method), 0, Budget()) for method in ("fds", "adjoint")]
    assert [each.status for each in runs] == ["converged", "converged"]
    ours, exact = (each.points[-1].objective for each in runs)
    assert ours == pytest.approx(exact, rel=1e-10)
    with pytest.raises(ProblemError, match="which needs time"):
        Task(SHIPPED.parent / "poisson_control.yaml", {}).build(Contender("fds", "fds"))
