"""The choice of sensors: criteria and gradients, the relaxed problem and its bounds, and sets against all others."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inverse_problems import (
    LENGTH,
    NOISE,
    STD,
    DensePoisson,
    conductivity_inversion,
    grid_points,
    sensor_file,
    source_inversion,
)

import nhgd_pde as nhgd
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.inference.posterior import Posterior, PosteriorOptions
from nhgd_pde.placement.design_problem import DesignProblem
from nhgd_pde.placement.entropy_bound import EntropyBound, entropy_bound
from nhgd_pde.placement.exchange import exchanged, greedy, indicator, value_of
from nhgd_pde.placement.information import Criterion, SensorInformation
from nhgd_pde.placement.relaxed import relaxed_design, upper_bound
from nhgd_pde.run.placing import sensed_subspace
from nhgd_pde.tasks.solving import BilevelOptions

CRITERIA: tuple[Criterion, ...] = ("D", "A")


def random_information(criterion: Criterion, count: int = 10, values: int = 1, rank: int = 6) -> SensorInformation:
    """Candidates with directions of decaying size, beside four sensors that are there."""
    g = torch.Generator().manual_seed(3)
    sizes = torch.logspace(0.5, -2.0, rank, dtype=torch.float64)
    rows = torch.randn(count, values, rank, generator=g, dtype=torch.float64) * sizes
    there = torch.randn(4, rank, generator=g, dtype=torch.float64) * sizes
    spread = torch.randn(rank, rank, generator=g, dtype=torch.float64)
    base = torch.eye(rank, dtype=torch.float64) + there.T @ there
    return SensorInformation(rows, base, spread @ spread.T / rank, criterion)


def random_weights(count: int) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# The relaxed problem


@pytest.mark.parametrize("values", [1, 2])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_gradient_agrees_with_differences_and_with_the_hypergradient(criterion: Criterion, values: int) -> None:
    information = random_information(criterion, values=values)
    weights, step = random_weights(10), 1e-5
    gradient = information.gradient(weights)
    units = step * torch.eye(10, dtype=torch.float64)
    differences = [(information.value(weights + e) - information.value(weights - e)) / (2.0 * step) for e in units]
    assert np.allclose(gradient, differences, rtol=1e-7)
    # NHGD: the inner problem is solved with the Fisher information of the sensors, the gradient by its adjoint.
    problem, oracle = DesignProblem(information, 3, penalty=0.25), BilevelOptions().oracle()
    state = oracle.init(problem, *problem.start())
    evaluation, _ = oracle.evaluate(problem, weights, state, Accuracy(1e-10, 1e-10))
    assert evaluation.value == pytest.approx(0.25 * float(weights.sum()) - information.value(weights), rel=1e-12)
    assert np.allclose(evaluation.derivative, 0.25 - gradient, rtol=1e-10)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_what_a_candidate_adds_is_the_difference_of_the_criterion(criterion: Criterion) -> None:
    information = random_information(criterion, values=2)
    there = indicator(information, [2, 5])
    gains = information.gains(information.covariance(there))
    for k in (0, 3, 5):
        more = there.clone()
        more[k] += 1.0
        assert float(gains[k]) == pytest.approx(information.value(more) - information.value(there), rel=1e-10)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_relaxed_optimum_is_stationary_and_bounds_every_set(criterion: Criterion) -> None:
    information = random_information(criterion)
    found = relaxed_design(information, 3)
    # Kiefer and Atwood: candidates with weights between 0 and 1 have one slope, those with 0 smaller and with 1 larger.
    assert found.bound == pytest.approx(found.value, rel=1e-5)
    assert float(found.weights.sum()) == pytest.approx(3.0, rel=1e-6)
    values = [value_of(information, each) for each in itertools.combinations(range(10), 3)]
    assert max(values) <= found.bound
    # The bound holds at any weights.
    assert max(values) <= upper_bound(information, random_weights(10), 3)
    penalised = relaxed_design(information, None, penalty=0.2 * found.value)
    sets = [each for k in range(11) for each in itertools.combinations(range(10), k)]
    best = max(value_of(information, each, 0.2 * found.value) for each in sets)
    assert best <= penalised.bound
    assert penalised.bound == pytest.approx(penalised.value, rel=1e-4)


@pytest.mark.parametrize("values", [1, 2])
def test_the_entropy_bound_is_the_gain_of_a_set_and_bounds_all_of_them(values: int) -> None:
    information = random_information("D", values=values)
    bound = EntropyBound.of(information, 3)
    for chosen in ((0, 4, 9), (1, 2, 3)):
        x = indicator(information, chosen).numpy()
        for log_factor in (-2.0, 0.5):
            assert bound.value(x, log_factor)[0] == pytest.approx(value_of(information, chosen), rel=1e-10)
    x, step = 0.1 + 0.8 * random_weights(10).numpy(), 1e-6
    slopes = [(bound.value(x + e, -1.0)[0] - bound.value(x - e, -1.0)[0]) / (2.0 * step) for e in step * np.eye(10)]
    assert np.allclose(bound.value(x, -1.0)[1], slopes, rtol=1e-6)
    best = max(value_of(information, each) for each in itertools.combinations(range(10), 3))
    assert best <= entropy_bound(information, 3) < relaxed_design(information, 3).bound * 1.5
    assert math.isinf(entropy_bound(random_information("A"), 3))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_with_a_penalty_the_best_set_of_any_size_is_found(criterion: Criterion) -> None:
    information = random_information(criterion)
    penalty = 0.15 * information.value(torch.ones(10, dtype=torch.float64))
    sets = [each for k in range(11) for each in itertools.combinations(range(10), k)]
    best = max(value_of(information, each, penalty) for each in sets)
    found = exchanged(information, greedy(information, 10, penalty), penalty)
    assert 0 < len(found) < 10
    assert value_of(information, found, penalty) == pytest.approx(best, rel=1e-12)


# On an equation


def problem_with(folder: Path, there: np.ndarray, cells: int = 8, **sections: Any) -> nhgd.Problem:
    """The source of Poisson's equation with sensors at places `there`."""
    return nhgd.load(source_inversion(sensor_file(folder, there, np.zeros(len(there))), cells, **sections))


def posterior_of(problem: nhgd.Problem) -> Posterior:
    return Posterior(problem.pde, problem.pde.start()[1], PosteriorOptions(threshold=1e-14))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_three_of_ten_sensors_are_the_best_of_all_120_sets(criterion: Criterion, tmp_path: Path) -> None:
    candidates = np.random.default_rng(5).uniform(0.05, 0.95, (10, 2))
    problem = problem_with(tmp_path, np.array([[0.4, 0.4]]))
    found = nhgd.place_sensors(problem, candidates, 3, criterion)
    # Every set by dense formulas of the covariance, with matrices of the test alone.
    mesh = problem.pde.space.domain.mesh
    dense = DensePoisson(mesh.p.T, mesh.t.T)
    covariance, mass = dense_prior(dense), np.diag(dense.lumped)
    forward = np.stack([dense.state(unit) for unit in np.eye(len(mass))], axis=1)

    def posterior(points: np.ndarray) -> np.ndarray:
        rows = dense.observation(points) @ forward
        return np.linalg.inv(np.linalg.inv(covariance) + rows.T @ rows / NOISE**2)

    before = posterior(np.array([[0.4, 0.4]]))

    def value(chosen: tuple[int, ...]) -> float:
        after = posterior(np.vstack([[[0.4, 0.4]], candidates[list(chosen)]]))
        if criterion == "D":
            return 0.5 * float(np.linalg.slogdet(before)[1] - np.linalg.slogdet(after)[1])
        return 1.0 - float(mass @ np.diag(after)) / float(mass @ np.diag(before))

    values = {each: value(each) for each in itertools.combinations(range(10), 3)}
    best = max(values, key=lambda each: values[each])
    assert tuple(found.chosen) == best
    assert found.value == pytest.approx(values[best], rel=1e-6)
    assert max(values.values()) <= found.bound * (1.0 + 1e-6)
    assert found.gap == pytest.approx((found.bound - found.value) / found.bound)
    after = posterior(np.vstack([[[0.4, 0.4]], found.points]))
    assert np.allclose(found.std, np.sqrt(np.diag(after)), rtol=1e-5)
    assert np.allclose(found.before_std, np.sqrt(np.diag(before)), rtol=1e-5)
    ratio = found.integrated_variance["control"][2] / found.integrated_variance["control"][1]
    assert ratio == pytest.approx(float(mass @ np.diag(after)) / float(mass @ np.diag(before)), rel=1e-5)


def dense_prior(dense: DensePoisson) -> np.ndarray:
    """The covariance A^-1 D A^-1 in two dimensions, for which nu = 1."""
    kappa = math.sqrt(2.0) / LENGTH
    gamma = 1.0 / (math.sqrt(4.0 * math.pi) * kappa * STD)
    operator = gamma * dense.stiffness + kappa**2 * gamma * dense.mass + 0.5508819467298669 * kappa * gamma * dense.edge
    inverse = np.linalg.inv(operator)
    return inverse @ dense.lumped @ inverse


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_choice_is_better_than_a_thousand_random_ones(criterion: Criterion, tmp_path: Path) -> None:
    problem, candidates = problem_with(tmp_path, grid_points(1)), grid_points(7)
    found = nhgd.place_sensors(problem, candidates, 6, criterion)
    space = sensed_subspace(posterior_of(problem), found.offered, NOISE, kept=True)
    information, rng = space.information(criterion), np.random.default_rng(0)
    assert value_of(information, found.chosen.tolist()) == pytest.approx(found.value, rel=1e-9)
    random = [value_of(information, rng.choice(49, 6, replace=False).tolist()) for _ in range(1000)]
    assert max(random) < found.value <= found.bound
    # With one sensor fewer, or more, the criterion is smaller, and larger.
    smaller, larger = (nhgd.place_sensors(problem, candidates, count, criterion).value for count in (5, 7))
    assert smaller < found.value < larger


def test_the_gain_is_that_of_the_posterior_with_the_chosen_sensors(tmp_path: Path) -> None:
    there, candidates = grid_points(2), grid_points(5)
    problem = problem_with(tmp_path, there)
    gain = posterior_of(problem).information_gain
    found = nhgd.place_sensors(problem, candidates, 4)
    both = problem_with(tmp_path, np.vstack([there, found.points]))
    assert found.value == pytest.approx(posterior_of(both).information_gain - gain, rel=1e-6)
    assert np.allclose(found.std, np.sqrt(posterior_of(both).variance), rtol=1e-6)
    assert np.allclose(found.existing, there)
    alone = nhgd.place_sensors(problem, candidates, 4, existing="replace")
    assert len(alone.existing) == 0
    assert alone.value == pytest.approx(posterior_of(problem_with(tmp_path, alone.points)).information_gain, rel=1e-6)
    assert alone.value > found.value


@pytest.mark.parametrize("criterion", CRITERIA)
def test_other_units_change_nothing(criterion: Criterion, tmp_path: Path) -> None:
    length, size = 1e3, 1e-4
    # Places without symmetry, so that no two sets are equally good.
    candidates, there = np.random.default_rng(2).uniform(0.05, 0.95, (16, 2)), np.array([[0.4, 0.3]])
    one = nhgd.place_sensors(problem_with(tmp_path, there), candidates, 3, criterion)
    units = {
        "mesh": {"kind": "rectangle", "cells": [8, 8], "size": [length, length]},
        "inference": {"noise": NOISE * size * length**2, "prior": {"length": LENGTH * length, "std": STD * size}},
    }
    other = nhgd.place_sensors(problem_with(tmp_path, there * length, **units), candidates * length, 3, criterion)
    assert np.array_equal(one.chosen, other.chosen)
    assert other.value == pytest.approx(one.value, rel=1e-8)
    assert np.allclose(other.weights, one.weights, atol=1e-4)
    assert np.allclose(other.std, one.std * size)
    penalised = [
        nhgd.place_sensors(
            problem_with(tmp_path, there * scale, **change),
            candidates * scale,
            criterion=criterion,
            penalty=0.3 * one.value,
        )
        for scale, change in ((1.0, {}), (length, units))
    ]
    assert np.array_equal(penalised[0].chosen, penalised[1].chosen)


def test_candidates_that_see_nothing_are_not_chosen_and_doubles_count_twice(tmp_path: Path) -> None:
    problem = problem_with(tmp_path, grid_points(1))
    blind = np.array([[0.5, 0.0], [0.3, 0.4], [0.3, 0.4], [0.0, 0.2]])
    found = nhgd.place_sensors(problem, blind, 2, existing="replace")
    assert found.chosen.tolist() == [1, 2]
    assert found.alone[[0, 3]] == pytest.approx(0.0, abs=1e-12 * found.alone.max())
    halved = nhgd.place_sensors(problem, blind[1:2], 1, existing="replace", noise=NOISE / math.sqrt(2.0))
    assert found.value == pytest.approx(halved.value, rel=1e-9)
    # All of them.
    every = nhgd.place_sensors(problem, blind, 4, existing="replace")
    assert every.chosen.tolist() == [0, 1, 2, 3]
    assert every.value == pytest.approx(found.value, rel=1e-12)
    assert every.gap < 1e-3


def test_a_nonlinear_problem_is_linearised_at_its_most_likely_control(tmp_path: Path) -> None:
    where = grid_points(3)
    problem = nhgd.load(conductivity_inversion(sensor_file(tmp_path, where, where[:, 1] + 0.05), 6))
    solution = nhgd.solve(problem)
    found = nhgd.place_sensors(problem, grid_points(4), 3)
    given = nhgd.place_sensors(problem, grid_points(4), 3, at=solution)
    assert np.allclose(found.control, solution.control, rtol=1e-8)
    assert given.value == pytest.approx(found.value, rel=1e-6)
    elsewhere = nhgd.place_sensors(problem, grid_points(4), 3, at=np.zeros(problem.outer_size))
    assert elsewhere.value != pytest.approx(found.value, rel=1e-3)
    short = nhgd.load(problem.file.spec.model_dump(mode="json"), {"outer.iterations": 1})
    with pytest.raises(ArithmeticError, match="expected a run that has converged, found one that is stopped"):
        nhgd.place_sensors(short, grid_points(4), 3)


def test_variances_of_many_unknowns_are_estimated_beside_the_directions_of_the_sensors(tmp_path: Path) -> None:
    there, candidates = grid_points(2), grid_points(4)
    exact = nhgd.place_sensors(problem_with(tmp_path, there), candidates, 4)
    sampled = nhgd.place_sensors(problem_with(tmp_path, there, inference={"exact": 1}), candidates, 4)
    # 1,024 samples estimate a standard deviation with a standard error of 2.2 %.
    assert np.allclose(sampled.prior_std, exact.prior_std, rtol=0.1)
    assert not np.array_equal(sampled.prior_std, exact.prior_std)
    # What the sensors take away is known exactly, and no variance falls below zero.
    for one, other in ((exact.prior_std, sampled.prior_std), (exact.before_std, sampled.before_std)):
        assert np.allclose(one**2 - exact.std**2, other**2 - sampled.std**2, rtol=1e-6)
    assert sampled.value == pytest.approx(exact.value, rel=1e-10)


def test_sensors_of_an_evolution_measure_at_their_times(tmp_path: Path) -> None:
    there = np.array([[0.3, 0.3, 0.1, 0.0]])

    def heat(rows: np.ndarray) -> nhgd.Problem:
        file = tmp_path / "timed.csv"
        np.savetxt(file, rows, delimiter=",", header="x,y,t,value", comments="", fmt="%.17g")
        sections = source_inversion(str(file), 6)
        sections |= {
            "pde": {"kind": "heat", "boundary": {"all": {"dirichlet": 0}}},
            "time": {"end": 0.1, "steps": 4},
            "control": {"kind": "initial", "space": "P1"},
        }
        return nhgd.load(sections)

    problem, times = heat(there), [0.03, 0.075]
    found = nhgd.place_sensors(problem, grid_points(3), 2, times=times)
    rows = [[*place, time, 0.0] for place in found.points for time in times]
    both = heat(np.vstack([there, rows]))
    gain = posterior_of(both).information_gain - posterior_of(problem).information_gain
    assert found.value == pytest.approx(gain, rel=1e-6)
    assert found.expected.shape == (9, 2)


def test_with_several_controls_criterion_a_is_the_mean_of_their_shares(tmp_path: Path) -> None:
    where = grid_points(2)
    sections = source_inversion(sensor_file(tmp_path, where, 0.0 * where[:, 0]), 6)
    sections["pde"] |= {"source": "a*x"}
    sections["control"] = [{"kind": "source", "name": "s"}, {"kind": "parameter", "name": "a"}]
    sections["inference"]["prior"] = [{"control": "s", "length": LENGTH, "std": STD}, {"control": "a", "std": 20.0}]
    found = nhgd.place_sensors(nhgd.load(sections), grid_points(3), 2, "A")
    shares = [1.0 - after / before for _, before, after in found.integrated_variance.values()]
    assert found.value == pytest.approx(sum(shares) / 2.0, rel=1e-8)
    assert len(shares) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "placement.count: expected a whole number of at least 1, or null, found 0"),
        ({"count": 10}, "placement.count: expected at most 9, the number of candidates; found 10"),
        ({}, "placement: expected exactly one of count, penalty; found none"),
        ({"count": 2, "penalty": 0.1}, "placement: expected exactly one of count, penalty; found both"),
        ({"count": 2, "criterion": "E"}, "placement.criterion: expected"),
        ({"count": 2, "noise": 0.0}, "placement.noise: expected a number above 0, or null, found 0"),
        ({"count": 2, "times": [1.0]}, "placement.times: expected none in a steady problem"),
        ({"count": 2, "component": 1}, "placement.component: expected a component below 1, found 1"),
        (
            {"count": 1, "candidates": [[0.5, 0.5], [2.0, 0.5]]},
            "candidates: candidate 1: the point (2, 0.5) is outside the mesh",
        ),
        (
            {"count": 1, "candidates": [[0.0, 0.5]]},
            "candidates: expected candidates whose values depend on the control",
        ),
    ],
)
def test_mistakes_name_the_key(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    problem = problem_with(tmp_path, grid_points(1), 4)
    with pytest.raises(nhgd.ProblemError) as caught:
        nhgd.place_sensors(problem, **{"candidates": grid_points(3), **arguments})
    assert message in str(caught.value)


def test_arrays_of_another_shape_are_refused(tmp_path: Path) -> None:
    problem = problem_with(tmp_path, grid_points(1), 4)
    for candidates in (np.zeros(3), np.zeros((2, 3)), np.zeros((0, 2)), np.full((1, 2), np.nan)):
        with pytest.raises(ValueError, match=r"candidates: expected an array \(m, 2\) of finite numbers"):
            nhgd.place_sensors(problem, candidates, 1)
    with pytest.raises(ValueError, match=r"at: expected an array \(25\)"):
        nhgd.place_sensors(problem, grid_points(2), 1, at=np.zeros(3))
