"""Posteriors: against dense formulas, under refinement of the mesh, and over many data."""

from __future__ import annotations

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
from scipy.stats import binom

import nhgd_pde as nhgd
from nhgd_pde.inference.effective_size import effective_size
from nhgd_pde.inference.posterior import Posterior, PosteriorOptions


def solved(sections: dict[str, Any]) -> tuple[nhgd.Solution, Posterior]:
    solution = nhgd.solve(nhgd.load(sections))
    return solution, solution.posterior()


def eye(n: int) -> torch.Tensor:
    return torch.eye(n, dtype=torch.float64)


def test_a_linear_problem_has_the_mean_and_covariance_of_the_dense_formulas(tmp_path: Path) -> None:
    where, rng = grid_points(4), np.random.default_rng(0)
    measured = 0.03 * rng.standard_normal(len(where))
    weights = rng.uniform(0.5, 2.0, len(where))
    path = tmp_path / "sensors.csv"
    np.savetxt(path, np.column_stack([where, measured, weights]), delimiter=",", fmt="%.17g")
    predict = [{"at": [0.5, 0.4]}, {"at": [0.2, 0.7], "of": "control"}, {"integral": "1 + x", "of": "control"}]
    solution, posterior = solved(source_inversion(str(path), 9, inference={"predict": predict}))
    assert solution.status == "converged"

    mesh = solution.problem.space.domain.mesh
    dense = DensePoisson(mesh.p.T, mesh.t.T)
    n = len(dense.points)
    seen = dense.observation(where)
    forward = np.column_stack([seen @ dense.state(column) for column in np.eye(n)])
    kappa = np.sqrt(2.0) / LENGTH
    gamma = 1.0 / (np.sqrt(4.0 * np.pi) * kappa * STD)
    operator = gamma * (dense.stiffness + kappa**2 * dense.mass + 0.5508819467298669 * kappa * dense.edge)
    precision = operator @ np.linalg.inv(dense.lumped) @ operator
    noise = np.diag(weights / NOISE**2)
    covariance = np.linalg.inv(forward.T @ noise @ forward + precision)
    mean0, fixed = 0.5 * dense.points[:, 1], seen @ dense.state(dense.points[:, 0])
    left = measured - fixed - forward @ mean0
    mean = mean0 + covariance @ forward.T @ noise @ left

    assert np.abs(posterior.mean - mean).max() <= 1e-8 * np.abs(mean).max()
    scale = np.abs(covariance).max()
    assert np.abs(posterior.covariance(np.eye(n)) - covariance).max() <= 1e-8 * scale
    assert np.abs(posterior.variance - np.diag(covariance)).max() <= 1e-8 * scale
    assert np.abs(posterior.prior_variance - np.diag(np.linalg.inv(precision))).max() <= 1e-8 * STD**2
    gain = 0.5 * np.linalg.slogdet(np.eye(n) + np.linalg.solve(precision, forward.T @ noise @ forward))[1]
    assert posterior.information_gain == pytest.approx(gain, rel=1e-9)
    away = mean - mean0
    traces = np.trace(precision @ covariance) - n + away @ precision @ away
    assert posterior.divergence == pytest.approx(gain + 0.5 * traces, rel=1e-8)

    point = dense.observation(np.array([[0.5, 0.4], [0.2, 0.7]]))
    through = np.column_stack([point[:1] @ dense.state(column) for column in np.eye(n)])
    moment = dense.mass @ (1.0 + dense.points[:, 0])
    for found, functional in zip(posterior.predicted(), (through[0], point[1], moment), strict=True):
        std = np.sqrt(functional @ covariance @ functional)
        assert found.std == pytest.approx(std, rel=1e-7)
        assert found.high - found.low == pytest.approx(2.0 * 1.959963984540054 * std, rel=1e-7)
        assert found.prior_std == pytest.approx(np.sqrt(functional @ np.linalg.solve(precision, functional)), rel=1e-7)
    assert posterior.predicted()[1].value == pytest.approx(point[1] @ mean, rel=1e-7)
    assert posterior.predicted()[0].value == pytest.approx(point[0] @ dense.state(mean + dense.points[:, 0]), rel=1e-7)


def test_every_tracking_term_has_its_noise(tmp_path: Path) -> None:
    """Two terms with their noise are one term with weights in its file; a weight of zero leaves a value out."""
    where, noise = grid_points(3), np.array([0.002] * 4 + [0.01] * 5)
    values = 0.02 * np.sin(4.0 * where[:, 0])
    files = [sensor_file(tmp_path, where[k], values[k], f"{k.start}.csv") for k in (slice(0, 4), slice(4, 9))]
    terms = [{"kind": "tracking", "at": file} for file in files]
    _, apart = solved({**source_inversion(files[0], 6, inference={"noise": [0.002, 0.01]}), "objective": terms})
    rows = np.column_stack([where, values, (0.01 / noise) ** 2])
    rows = np.vstack([rows, [0.3, 0.3, 100.0, 0.0]])
    np.savetxt(tmp_path / "one.csv", rows, delimiter=",", fmt="%.17g")
    _, together = solved(source_inversion(str(tmp_path / "one.csv"), 6, inference={"noise": 0.01}))
    assert np.allclose(apart.mean, together.mean, rtol=1e-9, atol=1e-9)
    assert np.allclose(apart.variance, together.variance, rtol=1e-9)
    assert len(apart.eigenvalues) == len(together.eigenvalues) == 9


def test_data_that_do_not_count_leave_the_prior(tmp_path: Path) -> None:
    path = tmp_path / "sensors.csv"
    path.write_text("0.4, 0.4, 1, 0\n")
    _, posterior = solved(source_inversion(str(path), 5))
    assert len(posterior.eigenvalues) == 0
    assert posterior.information_gain == 0.0
    assert np.allclose(posterior.mean, posterior.prior.mean.numpy())
    assert np.allclose(posterior.variance, posterior.prior_variance)


def test_fewer_eigenvalues_leave_out_no_more_than_is_reported(tmp_path: Path) -> None:
    where = grid_points(6)
    file = sensor_file(tmp_path, where, 0.03 * np.sin(5.0 * where[:, 0]))
    solution, exact = solved(source_inversion(file, inference={"noise": 0.02}))
    problem, v = solution.problem, torch.from_numpy(solution.control)
    coarse = Posterior(problem, v, PosteriorOptions(threshold=0.05))
    kept = len(coarse.eigenvalues)
    assert 3 < kept < len(exact.eigenvalues)
    assert np.allclose(coarse.eigenvalues, exact.eigenvalues[:kept], rtol=1e-4)
    assert coarse.spectrum.next == pytest.approx(exact.eigenvalues[kept], rel=0.2)
    excess = coarse.variance / exact.variance - 1.0
    assert excess.min() > -1e-6
    assert ((coarse.variance - exact.variance) / coarse.prior_variance).max() <= 1.2 * coarse.share_left_out
    rest = exact.eigenvalues[kept:].sum()
    assert abs(coarse.spectrum.left - rest) <= 4.0 * coarse.spectrum.left_error + 1e-3 * rest
    # log(1 + x) <= x
    assert 0.0 < exact.information_gain - coarse.information_gain <= 0.5 * rest


def test_the_fisher_information_is_the_gauss_newton_hessian_and_the_covariance_of_scores(tmp_path: Path) -> None:
    where = grid_points(3)
    file = sensor_file(tmp_path, where, where[:, 1] + 0.02)
    _, posterior = solved(conductivity_inversion(file, 6))
    forward, n = posterior.forward, posterior.prior.size
    fisher = forward.fisher(eye(n))
    point = forward.point
    misfit = forward.problem
    # The Gauss-Newton product of the engine includes the prior, the only term of the control.
    engine = torch.stack([point.hessian_of(misfit).gauss_newton(d) for d in eye(n)])
    precise = posterior.prior.precision(eye(n))
    assert float((engine - precise - fisher).abs().max()) <= 1e-9 * float(engine.abs().max())
    count = 20_000
    scores = forward.scores(count, torch.Generator().manual_seed(1))
    # Quadratic forms of the sample covariance have the relative standard error sqrt(2 / count).
    directions = torch.randn(20, n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    sampled = (directions @ scores.T).square().mean(1)
    exact = (directions * (directions @ fisher)).sum(1)
    assert float((sampled / exact - 1.0).abs().max()) <= 4.5 * np.sqrt(2.0 / count)
    # At a nonlinear fit with misfits the full Hessian differs from it.
    full = Posterior(misfit, point.v, PosteriorOptions(hessian="full"))
    assert np.abs(full.eigenvalues[:3] / posterior.eigenvalues[:3] - 1.0).max() > 1e-6


LEFT_RIGHT = {"left": {"dirichlet": 0}, "right": {"robin": {"coefficient": 1, "value": 0}}}
KINDS: dict[str, dict[str, Any]] = {
    "neumann": {"control": {"kind": "neumann", "on": "top"}},
    "dirichlet": {"control": {"kind": "dirichlet", "on": "left"}},
    "several": {
        "pde": {"kind": "poisson", "source": 1, "conductivity": "exp(a)", "boundary": LEFT_RIGHT},
        "control": [{"kind": "parameter", "name": "a"}, {"kind": "robin", "on": "right"}],
        "inference": {"prior": [{"control": "a", "std": 0.3, "mean": 0.1}, {"length": 0.4, "mean": "y"}]},
    },
    "semilinear": {
        "pde": {"kind": "semilinear", "source": 5, "nonlinearity": "u + u**3", "boundary": LEFT_RIGHT},
        "control": {"kind": "log_conductivity"},
    },
    "quadrilaterals": {"mesh": {"kind": "rectangle", "cells": [5, 4], "cell": "quadrilateral"}, "element": "P2"},
    "vectors": {
        "pde": {"kind": "elasticity", "young": 1, "poisson_ratio": 0.3, "boundary": {"left": {"dirichlet": [0, 0]}}},
        "control": {"kind": "neumann", "on": "right"},
        "vector": True,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_derivative_of_the_measured_values_and_its_transpose(kind: str, tmp_path: Path) -> None:
    where, changes = grid_points(2), dict(KINDS[kind])
    count = 2 if changes.pop("vector", False) else 1
    path = tmp_path / "sensors.csv"
    np.savetxt(path, np.column_stack([where, *[0.1 * where[:, 0]] * count]), delimiter=",", fmt="%.17g")
    base = source_inversion(str(path), 5, pde={"kind": "poisson", "source": 1, "boundary": LEFT_RIGHT})
    base["inference"] |= {"noise": 0.05, "prior": {"length": 0.4, "std": 0.5}} | changes.pop("inference", {})
    base["control"] = {"kind": "source"}
    solution, posterior = solved({**base, **changes})
    forward, n = posterior.forward, posterior.prior.size
    assert solution.status == "converged"
    rows = forward.transposed(eye(len(where) * count))
    assert float((forward.apply(eye(n)).T - rows).abs().max()) <= 1e-10 * float(rows.abs().max())
    phi, v = nhgd.reduced(solution.problem), posterior.mean
    step = 1e-5 * np.random.default_rng(0).standard_normal(n)
    ends = [forward.noise.observed(torch.from_numpy(phi.state(v + sign * step)))[0] for sign in (1.0, -1.0)]
    assert torch.allclose(0.5 * (ends[0] - ends[1]), rows @ torch.from_numpy(step), rtol=1e-6, atol=1e-13)
    # The misfit, the prior and their sum are the terms of the objective.
    away = torch.from_numpy(v)[None] - posterior.prior.mean
    prior = 0.5 * float((away * posterior.prior.precision(away)).sum())
    assert posterior.misfit + prior == pytest.approx(solution.objective, rel=1e-9)
    assert sum(solution.terms.values()) == pytest.approx(solution.objective, rel=1e-9)


def test_the_full_hessian_of_a_linear_problem_is_the_gauss_newton_one(tmp_path: Path) -> None:
    where = grid_points(3)
    file = sensor_file(tmp_path, where, 0.03 * where[:, 0])
    _, first = solved(source_inversion(file, 6))
    _, second = solved(source_inversion(file, 6, inference={"hessian": "full", "threshold": 1e-9}))
    kept = len(second.eigenvalues)
    assert np.allclose(first.eigenvalues[:kept], second.eigenvalues, rtol=1e-7)


def test_the_spectrum_does_not_depend_on_the_mesh(tmp_path: Path) -> None:
    where = grid_points(5)
    file = sensor_file(
        tmp_path, where, where[:, 1] + 0.05 * np.sin(4.0 * where[:, 0]) * where[:, 1] * (1 - where[:, 1])
    )
    found = [solved(conductivity_inversion(file, cells))[1] for cells in (12, 24, 48)]
    values = [each.eigenvalues[:8] for each in found]
    coarse, fine = (np.abs(values[k] / values[k + 1] - 1.0).max() for k in (0, 1))
    assert fine < 0.06
    assert fine < 0.6 * coarse
    assert [len(each.eigenvalues) for each in found][1] == pytest.approx(len(found[2].eigenvalues), abs=1)
    assert found[1].information_gain == pytest.approx(found[2].information_gain, rel=0.03)


def test_samples_have_the_mean_and_covariance(tmp_path: Path) -> None:
    where = grid_points(3)
    _, posterior = solved(source_inversion(sensor_file(tmp_path, where, 0.02 * where[:, 0]), 6))
    n, count = posterior.prior.size, 20_000
    samples = posterior.sample(count, seed=5)
    assert np.allclose(samples[:7], posterior.sample(7, seed=5), rtol=1e-9, atol=1e-9)
    directions = np.random.default_rng(0).standard_normal((20, n))
    exact = ((posterior.covariance(directions)) * directions).sum(axis=1)
    projected = (samples - posterior.mean) @ directions.T
    assert np.abs(projected.mean(axis=0) / np.sqrt(exact / count)).max() < 4.5
    assert np.abs((projected**2).mean(axis=0) / exact - 1.0).max() < 4.5 * np.sqrt(2.0 / count)
    before = posterior.prior_sample(count, seed=5) - posterior.prior.mean.numpy()
    plain = (posterior.prior.covariance(torch.from_numpy(directions)).numpy() * directions).sum(axis=1)
    assert np.abs(((before @ directions.T) ** 2).mean(axis=0) / plain - 1.0).max() < 4.5 * np.sqrt(2.0 / count)


def test_the_variance_of_many_unknowns_is_estimated_with_the_error_that_is_told(tmp_path: Path) -> None:
    where = grid_points(3)
    sections = source_inversion(sensor_file(tmp_path, where, 0.02 * where[:, 0]), 8)
    solution, exact = solved(sections)
    rough = Posterior(solution.problem, torch.from_numpy(solution.control), PosteriorOptions(exact=5))
    assert exact.prior_variance_error == 0.0
    errors = rough.prior_variance / exact.prior_variance - 1.0
    assert 0.0 < np.sqrt((errors**2).mean()) <= 1.2 * rough.prior_variance_error < 0.06


def test_an_initial_state_is_inferred_from_later_values(tmp_path: Path) -> None:
    where = np.array([[0.21, 0.1], [0.52, 0.1], [0.83, 0.1], [0.4, 0.35], [0.61, 0.2]])
    path = tmp_path / "sensors.csv"
    rows = np.column_stack([where, [0.1, 0.2, 0.1, 0.05, 0.1]])
    np.savetxt(path, rows, delimiter=",", header="x, t, value", comments="", fmt="%.17g")
    problem = nhgd.load(
        {
            "name": "backwards",
            "mesh": {"kind": "interval", "cells": 20},
            "pde": {"kind": "heat", "conductivity": 0.1, "boundary": {"all": {"dirichlet": 0}}},
            "time": {"end": 0.4, "steps": 8, "scheme": "crank_nicolson"},
            "control": {"kind": "initial"},
            "objective": [{"kind": "tracking", "at": str(path)}],
            "inference": {
                "noise": 0.01,
                "prior": {"length": 0.3},
                "threshold": 1e-12,
                "predict": [{"at": [0.5]}, {"integral": 1}],
            },
            "outer": {"rtol": 1e-12},
        }
    )
    posterior = nhgd.solve(problem).posterior()
    # The dense formulas with the columns of the forward map from differences of whole evolutions.
    phi, n = nhgd.reduced(problem), posterior.prior.size
    zero = np.zeros(n)
    state0 = phi.state(zero)[0]
    states = np.column_stack([phi.state(unit)[0] - state0 for unit in np.eye(n)])
    rows = posterior.forward.noise.rows[0].host.toarray()
    forward = rows @ states
    assert np.abs(forward - posterior.forward.transposed(eye(5)).numpy()).max() < 1e-11
    precision = posterior.prior.precision(eye(n)).numpy()
    covariance = np.linalg.inv(forward.T @ forward / 1e-4 + precision)
    assert np.abs(posterior.covariance(np.eye(n)) - covariance).max() < 1e-8
    end = states[-n:]
    middle = np.sqrt(end[n // 2] @ covariance @ end[n // 2])
    assert posterior.predicted()[0].std == pytest.approx(middle, rel=1e-7)


@pytest.mark.slow
def test_two_numbers_agree_with_quadrature_and_with_a_chain(tmp_path: Path) -> None:
    file = sensor_file(tmp_path, np.array([[0.3], [0.72]]), np.array([0.083, 0.05]))
    sections = {
        "name": "two_numbers",
        "mesh": {"kind": "interval", "cells": 8},
        "pde": {
            "kind": "poisson",
            "conductivity": "exp(a + b*x)",
            "source": 1,
            "boundary": {"left": {"dirichlet": 0}, "right": {"dirichlet": 0}},
        },
        "control": [{"kind": "parameter", "name": "a"}, {"kind": "parameter", "name": "b"}],
        "objective": [{"kind": "tracking", "at": file}],
        "inference": {
            "noise": 0.03,
            "prior": [{"control": "a", "std": 0.6}, {"std": 0.8, "mean": 0.2}],
            "predict": [{"at": [0.5]}],
            "hessian": "full",
        },
    }
    _, posterior = solved(sections)
    # Gauss-Hermite quadrature in the coordinates of the normal approximation.
    phi = nhgd.reduced(nhgd.load(sections))
    nodes, weights = np.polynomial.hermite_e.hermegauss(10)
    root = np.linalg.cholesky(posterior.covariance(np.eye(2)))
    z = np.stack([axis.reshape(-1) for axis in np.meshgrid(nodes, nodes, indexing="ij")], axis=1)
    controls = posterior.mean + z @ root.T
    logs = np.array([-phi.value(v) for v in controls]) + 0.5 * (z**2).sum(axis=1)
    shares = np.outer(weights, weights).reshape(-1) * np.exp(logs - logs.max())
    shares /= shares.sum()
    mean = shares @ controls
    std = np.sqrt(shares @ (controls - mean) ** 2)
    chain = posterior.chain(800, seed=4)
    assert chain.samples.shape == (800, 2)
    assert 0.2 < chain.accepted <= 1.0
    assert chain.effective > 100
    for k in range(2):
        size = effective_size(chain.samples[:, k])
        assert abs(chain.mean[k] - mean[k]) < 4.0 * std[k] / np.sqrt(size)
        assert abs(chain.std[k] / std[k] - 1.0) < 4.0 / np.sqrt(size)
    # The normal approximation differs from the posterior by more than the chain can miss.
    assert np.abs((posterior.mean - mean) / std).max() > 0.05
    assert chain.intervals()[0].low < posterior.predicted()[0].value < chain.intervals()[0].high


def test_a_chain_of_a_normal_posterior_accepts_everything_and_can_be_continued(tmp_path: Path) -> None:
    where = grid_points(2)
    _, posterior = solved(source_inversion(sensor_file(tmp_path, where, 0.02 * where[:, 0]), 4))
    whole = posterior.chain(40, seed=3, step=0.7, every=4)
    parts = posterior.chain(17, seed=3, step=0.7, every=4).continued(23)
    assert whole.accepted == parts.accepted == 1.0
    assert np.array_equal(whole.samples, parts.samples)
    assert np.array_equal(whole.coordinates, parts.coordinates)
    assert np.abs(whole.differences - whole.differences[0]).max() < 1e-8
    with pytest.raises(ValueError, match="step: expected a number above 0"):
        posterior.chain(10, step=1.5)


def test_the_effective_size_of_an_autoregression_is_the_known_one() -> None:
    rng, share = np.random.default_rng(0), 0.8
    values = np.zeros(40_000)
    for k in range(1, len(values)):
        values[k] = share * values[k - 1] + rng.standard_normal()
    known = len(values) * (1.0 - share) / (1.0 + share)
    assert effective_size(values) == pytest.approx(known, rel=0.15)
    assert effective_size(rng.standard_normal(10_000)) > 9_000
    assert effective_size(np.ones(100)) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_intervals_cover_the_truth_as_often_as_they_say(kind: str, tmp_path: Path) -> None:
    where, runs = grid_points(4), 100 if kind == "linear" else 40
    predict = [{"at": [0.5, 0.4]}, {"at": [0.3, 0.6], "of": "control"}, {"integral": 1, "of": "control"}]
    file = sensor_file(tmp_path, where, np.zeros(len(where)))
    make = source_inversion if kind == "linear" else conductivity_inversion
    sections = make(file, 8, inference={"predict": predict, "threshold": 1e-4}, outer={"rtol": 1e-8})
    problem = nhgd.load(sections)
    phi, pde = nhgd.reduced(problem), problem.pde
    prior = problem.pde.control.parts[0].prior
    noise = sections["inference"]["noise"]
    rng, inside = np.random.default_rng(7), np.zeros(3)
    for _ in range(runs):
        white = torch.from_numpy(rng.standard_normal((1, pde.outer_size)))
        truth = (prior.mean + prior.coloured(white)[0]).numpy()
        state = torch.from_numpy(phi.state(truth))
        values = pde.sensors[0].rows.mv(state)[0].numpy()
        sensor_file(tmp_path, where, values + noise * rng.standard_normal(len(where)))
        solution = nhgd.solve(nhgd.load(sections))
        assert solution.status == "converged"
        wanted = [each.value(state, torch.from_numpy(truth)) for each in pde.predictions]
        found = solution.posterior().predicted()
        inside += [each.low <= value <= each.high for value, each in zip(wanted, found, strict=True)]
    total = int(inside.sum())
    if kind == "linear":
        assert (inside >= 90).all() and total <= 3 * 99
    # 95 % intervals: the number of hits is binomial, of the nonlinear problem roughly.
    assert total >= binom.ppf(1e-4, 3 * runs, 0.95)
