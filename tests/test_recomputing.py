"""Evolutions with a limit of kept states: schedules, equality with all states in memory, bytes, runs, refusals."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_forward_mode import IN_TIME, PHASES, TWO_D

import nhgd_pde as nhgd
from benchmarks.forward_memory import problem
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.reduced_objective import Evaluation
from nhgd_pde.engine.reversal import Advance, Reversal
from nhgd_pde.horizon_problem import HorizonProblem
from nhgd_pde.linalg.safe_lengths import dot
from nhgd_pde.methods.adjoint import Adjoint
from nhgd_pde.methods.recomputing import Recomputing, RecomputingState
from nhgd_pde.problem_file.errors import ProblemError

SHIPPED = Path(__file__).parents[1] / "problems"
WARM: dict[str, Any] = {
    "name": "warm",
    "mesh": {"kind": "interval", "cells": 6},
    "pde": {
        "kind": "heat",
        "capacity": "1 + a*x",
        "boundary": {"left": {"dirichlet": "b*t"}, "right": {"neumann": 0}},
    },
    "time": {"end": 0.5, "steps": 20, "initial": "b**2*x"},
    "control": [
        {"kind": "parameter", "name": "a", "initial": 0.4},
        {"kind": "parameter", "name": "b", "initial": 0.7},
        {"kind": "dirichlet", "on": "right"},
        {"kind": "initial"},
    ],
    "objective": [
        {"kind": "tracking", "target": "x*t"},
        {"kind": "linear_state", "weight": "x", "time": "final"},
        {"kind": "regularisation", "weight": 0.1},
    ],
}

# The schedule


@cache
def fewest(steps: int, room: int) -> float:
    """The smallest number of forward steps of any schedule, by trying every place of the next kept state."""
    if steps <= room:
        return steps
    if room < 2:
        return float("inf")
    return min(k + fewest(steps - k, room - 1) + fewest(k, room) for k in range(1, steps))


@pytest.mark.parametrize("room", [2, 3, 5, 8])
def test_a_schedule_makes_nearly_as_few_steps_as_possible(room: int) -> None:
    for steps in range(1, 60):
        assert fewest(steps, room) <= Reversal(steps, room).forward_steps <= 1.05 * fewest(steps, room)


@pytest.mark.parametrize("block", [1, 4, 7])
def test_a_schedule_passes_every_step_within_its_room(block: int) -> None:
    for room in range(2 * block, 40, 3):
        for steps in range(1, 120, 5):
            reversal, kept, reached = Reversal(steps, room, block), {0}, steps
            made = np.zeros(steps, dtype=int)
            for action in reversal.actions():
                assert action.start in kept
                made[action.start : action.end] += 1
                if isinstance(action, Advance):
                    assert action.end % block == 0
                    kept.add(action.end)
                    assert len(kept) - 1 <= room
                else:
                    assert action.end == reached and len(kept) - 1 + action.end - action.start <= room
                    kept.remove(action.start)
                    reached = action.start
            assert reached == 0 and not kept
            assert made.max() == reversal.repeats and made.sum() == reversal.forward_steps


def test_one_further_forward_solve_takes_the_root_of_twice_the_steps() -> None:
    for steps in (10, 200, 10_000, 1_000_000):
        room = int(np.ceil(np.sqrt(2 * steps)))
        assert steps <= Reversal(steps, room).forward_steps <= 2 * steps
    assert Reversal(200, 200).forward_steps == 200
    with pytest.raises(ValueError, match="expected more room for 5 steps, found 1"):
        Reversal(5, 1)


# Equality with all states in memory


def evaluated(source: Any, overrides: dict[str, Any], memory: Any) -> tuple[Evaluation, torch.Tensor, Any, Any]:
    """The evaluation at a random control, the product of the Hessian with a vector, the oracle's state, the problem."""
    loaded = nhgd.load(source, {"method": "adjoint", **overrides, "time.memory": memory})
    pde, oracle = loaded.pde, loaded.method.oracle
    assert isinstance(oracle, Adjoint if memory is None else Recomputing)
    u, v = pde.start()
    generator = np.random.default_rng(1)
    v = v + 0.2 * torch.from_numpy(generator.standard_normal(len(v)))
    evaluation, state = oracle.evaluate(pde, v, oracle.init(pde, u, v), Accuracy(1e-13, 1e-13))
    return evaluation, oracle.hessian(pde, v, state)(torch.from_numpy(generator.standard_normal(len(v)))), state, pde


SHORT = {"time.steps": 40, "control.windows": 4}
CASES = {
    "plate": (TWO_D, {"time.steps": 36}, "3 kB"),
    "plate in blocks": (TWO_D, {}, "8 kB"),
    "phases": (PHASES, {"time.steps": 28}, 3000),
    "Burgers": (problem("burgers", "adjoint", 90, cells=8), {**IN_TIME, **SHORT}, 1000),
    "Burgers, midpoint": (
        problem("burgers", "adjoint", 90, cells=8),
        {"time.scheme": "crank_nicolson", **SHORT},
        1000,
    ),
    "given values": (WARM, {}, 700),
    "given values, midpoint": (WARM, {"time.scheme": "crank_nicolson"}, 700),
    "everything kept": (WARM, {}, "1 MB"),
}


@pytest.mark.parametrize("case", CASES)
def test_values_gradients_and_hessians_are_those_with_all_states_in_memory(case: str) -> None:
    source, overrides, memory = CASES[case]
    ours, product, state, pde = evaluated(source, overrides, memory)
    exact, expected, _, _ = evaluated(source, overrides, None)
    assert ours.value == pytest.approx(exact.value, rel=1e-12)
    assert float((ours.derivative - exact.derivative).norm()) <= 1e-12 * float(exact.derivative.norm())
    assert float((product - expected).norm()) <= 1e-11 * float(expected.norm())
    assert ours.state_error < 1e-12 and ours.adjoint_error < 1e-12
    # States that are kept are counted while the steps are passed.
    limit = float("inf") if memory == "1 MB" else {"3 kB": 3000, "8 kB": 8000}.get(memory, memory)
    assert state.kept_bytes <= limit
    assert state.forward_steps == Reversal(pde.steps, pde.room, pde.at_once).forward_steps
    assert (state.forward_steps == pde.steps) == (memory == "1 MB")


def test_certificates_are_dual_norms_summed_over_the_steps() -> None:
    """The norms of the residuals of states that are no solution, part by part and at once."""
    loaded = nhgd.load(WARM, {"method": "adjoint", "time.memory": 700})
    ours, exact = loaded.pde, nhgd.load(WARM, {"method": "adjoint"}).pde
    assert isinstance(ours, HorizonProblem)
    v = exact.control.start + 0.1
    u = torch.from_numpy(np.random.default_rng(0).standard_normal(exact.inner_shape))
    levels = exact.state(u, v).reshape(ours.steps + 1, -1)
    sizes, start = [], levels[0]
    for k, part in enumerate(ours.parts()):
        ends = levels[1 + k * ours.at_once : 1 + (k + 1) * ours.at_once]
        sizes.append(part.returned(v, start, ends, torch.zeros_like(start), 0.0).state_size)
        start = ends[-1]
    total = sizes[0]
    for each in sizes[1:]:
        total = total + each
    assert len(sizes) > 4
    assert total.error == pytest.approx(exact.inner_error(u, v, 0.0), rel=1e-10)
    assert total.error > 1e-3


def test_the_derivative_is_that_of_the_value() -> None:
    """A Taylor test of the way back itself, whose adjoint variables are not compared with any others."""
    loaded = nhgd.load(WARM, {"method": "adjoint", "time.memory": 700})
    pde, oracle = loaded.pde, loaded.method.oracle
    u, v = pde.start()
    d = torch.from_numpy(np.random.default_rng(2).standard_normal(len(v)))

    def at(step: float) -> tuple[Evaluation, RecomputingState]:
        return oracle.evaluate(pde, v + step * d, oracle.init(pde, u, v), Accuracy(1e-13, 1e-13))

    first, state = at(0.0)
    slope, curvature = dot(first.derivative, d), dot(oracle.hessian(pde, v, state)(d), d)
    steps = [0.1, 0.05, 0.025]
    rests = [at(h)[0].value - first.value - h * slope for h in steps]
    second = [abs(rest - 0.5 * h * h * curvature) for rest, h in zip(rests, steps, strict=True)]
    assert np.log2(abs(rests[1] / rests[2])) == pytest.approx(2.0, abs=0.1)
    assert np.log2(second[1] / second[2]) == pytest.approx(3.0, abs=0.2)


# Work and memory


def heat(cells: int, steps: int, memory: Any) -> dict[str, Any]:
    found = {"mesh.cells": [cells, cells], "time.steps": steps, "method": "adjoint"}
    return found if memory is None else {**found, "time.memory": memory}


def test_constant_coefficients_share_one_factorisation() -> None:
    for more in ({}, {"pde.source": "t*x"}):
        loaded = nhgd.load(SHIPPED / "heat_initial.yaml", {**heat(8, 50, "8 kB"), **more})
        pde, oracle = loaded.pde, loaded.method.oracle
        u, v = pde.start()
        state = oracle.init(pde, u, v)
        for _ in range(2):
            _, state = oracle.evaluate(pde, v, state, Accuracy(1e-8, 1e-8))
        # That of a step, and that of the inner product of the certificates.
        assert pde.counts.factorisations == 2


def test_memory_grows_with_the_root_of_the_number_of_steps() -> None:
    """With 16 times as many steps 4 times as many states are enough for one further forward solve."""
    for steps, room in ((50, 10), (800, 40)):
        state_bytes = 8 * 9 * 9
        loaded = nhgd.load(SHIPPED / "heat_initial.yaml", heat(8, steps, (room + 1) * state_bytes))
        pde, oracle = loaded.pde, loaded.method.oracle
        u, v = pde.start()
        _, state = oracle.evaluate(pde, v, oracle.init(pde, u, v), Accuracy(1e-8, 1e-8))
        assert isinstance(state, RecomputingState) and isinstance(pde, HorizonProblem)
        assert state.kept_bytes <= (room + 1) * state_bytes
        assert state.forward_steps <= 2 * steps


# Runs


@pytest.mark.parametrize("name", ["heat_initial", "heat_boundary"])
def test_a_run_has_the_optimum_of_one_with_all_states(name: str, tmp_path: Path) -> None:
    small = {"mesh.cells": [6, 6], "time.steps": 10}
    found = nhgd.solve(
        nhgd.load(SHIPPED / f"{name}.yaml", {**small, "time.memory": 8 * 49 * 6}), output=tmp_path / name
    )
    exact = nhgd.solve(nhgd.load(SHIPPED / f"{name}.yaml", small))
    assert found.status == exact.status == "converged"
    assert found.objective == pytest.approx(exact.objective, rel=1e-9)
    np.testing.assert_allclose(found.state[0], exact.evolution[-1], atol=1e-6 * np.abs(exact.state).max())
    assert (tmp_path / name / "final.vtu").is_file()


def test_newton_steps_take_products_with_the_hessian() -> None:
    overrides = {"mesh.cells": [4, 4], "time.steps": 20, "outer.method": "newton_cg"}
    found = nhgd.solve(nhgd.load(SHIPPED / "heat_initial.yaml", {**overrides, "time.memory": "2 kB"}))
    assert found.status == "converged" and found.stats["outer_iterations"] <= 3


def test_check_says_what_is_kept_and_what_it_costs() -> None:
    text = nhgd.load(SHIPPED / "heat_initial.yaml", heat(16, 200, "50 kB")).report()
    assert "kept states 49 kB, 1.9" in text and "forward solves a gradient" in text


def test_derivatives_are_verified_with_all_steps_at_once() -> None:
    loaded = nhgd.load(WARM, {"time.memory": 700})
    assert nhgd.verify(loaded).passed


def test_a_horizon_that_would_not_fit_is_taken_with_a_limit() -> None:
    room = {"devices.memory": 6e8, "time.steps": 20_000, "method": "adjoint"}
    with pytest.raises(ProblemError, match=r"time\.steps: expected a problem that fits"):
        nhgd.load(SHIPPED / "heat_windows_fds.yaml", room)
    assert nhgd.load(SHIPPED / "heat_windows_fds.yaml", {**room, "time.memory": "1 MB"}).inner_shape == (1, 63)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            {"time.memory": "2 floppies"},
            "expected a positive number of bytes, or one with a unit such as 500 MB or 4 GB",
        ),
        ({"time.memory": 0}, "or null, found 0"),
        ({"time.memory": 100}, "expected room for a few states of 648 B, such as 3 kB, found 100 B"),
        ({"method": "fds"}, "expected none with method fds"),
        ({"method": "truncated_cg"}, "expected none with method truncated_cg; nhgd and adjoint take it"),
        ({"inner.tests": 16}, "expected auto with time.memory, whose states and adjoints are exact, found 16"),
        ({"constraints": [{"kind": "state", "upper": 3}]}, "expected none with time.memory, found 1"),
    ],
)
def test_what_needs_all_states_is_refused(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(words)):
        nhgd.load(SHIPPED / "heat_initial.yaml", {"mesh.cells": [8, 8], "time.memory": "10 kB", **overrides})


def test_functions_of_the_control_need_all_states() -> None:
    loaded = nhgd.load(SHIPPED / "heat_initial.yaml", {"mesh.cells": [4, 4], "time.memory": "10 kB"})
    with pytest.raises(ValueError, match=r"time\.memory: expected none"):
        _ = loaded.reduced
