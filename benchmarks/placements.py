"""The figures of docs/sensor_placement.md: python -m benchmarks.placements."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch

import nhgd_pde as nhgd
from nhgd_pde.inference.posterior import Posterior, PosteriorOptions
from nhgd_pde.placement.exchange import greedy, value_of
from nhgd_pde.placement.information import SensorInformation
from nhgd_pde.run.placing import Placement, sensed_subspace

PROBLEM = Path(__file__).parents[1] / "problems" / "sensor_placement.yaml"
RANDOM = 1_000


def information_of(problem: nhgd.Problem, placement: Placement) -> SensorInformation:
    """The criterion of all sets of the candidates of a placement."""
    control = problem.pde.start()[1].new_tensor(placement.control)
    posterior = Posterior(problem.pde, control, PosteriorOptions())
    return sensed_subspace(posterior, placement.offered, placement.noise, True).information(placement.criterion)


def number(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.4g}"


def against_random_sets(cells: int) -> None:
    problem = nhgd.load(PROBLEM, {"mesh.cells": [cells, cells]})
    solution = nhgd.solve(problem)
    for criterion in ("D", "A"):
        found = nhgd.place_sensors(problem, criterion=criterion, at=solution)
        information, rng = information_of(problem, found), np.random.default_rng(0)
        count, many = len(found.chosen), len(found.candidates)
        drawn = [value_of(information, rng.choice(many, count, replace=False).tolist()) for _ in range(RANDOM)]
        values = [found.value, value_of(information, greedy(information, count)), max(drawn), float(np.mean(drawn))]
        values += [found.choice.relaxed.bound, found.choice.entropy]
        iterations = found.choice.relaxed.iterations
        shown = " | ".join(map(number, values))
        print(f"| {cells} x {cells} | {criterion} | {shown} | {100.0 * found.gap:.2g} % | {iterations} |")


def over_counts() -> None:
    problem = nhgd.load(PROBLEM)
    solution = nhgd.solve(problem)
    for criterion in ("D", "A"):
        for count in (3, 8, 16, 32):
            found = nhgd.place_sensors(problem, criterion=criterion, count=count, at=solution)
            shown = " | ".join(map(number, (found.value, found.choice.relaxed.bound, found.choice.entropy)))
            print(f"| {criterion} | {count} | {shown} | {100.0 * found.gap:.2g} % |")


def against_all_sets(count: int) -> None:
    """The value of every set of so many candidates, each with one value, by matrices of the size of a set."""
    problem = nhgd.load(PROBLEM)
    solution = nhgd.solve(problem)
    for criterion in ("D", "A"):
        found = nhgd.place_sensors(problem, criterion=criterion, count=count, at=solution)
        information = information_of(problem, found)
        rows, covariance = information.rows[:, 0], torch.linalg.inv(information.base)
        own, seen = rows @ covariance @ rows.T, rows @ covariance @ information.spread @ covariance @ rows.T
        sets = torch.tensor(list(itertools.combinations(range(len(rows)), count)))
        square = sets[:, :, None], sets[:, None, :]
        ones = torch.eye(count, dtype=own.dtype) + own[square]
        if criterion == "D":
            values = 0.5 * torch.logdet(ones)
        else:
            values = torch.linalg.solve(ones, seen[square]).diagonal(dim1=1, dim2=2).sum(1)
        best = float(values.max())
        print(f"{criterion}: {len(sets):,} sets of {count}, the best {best:.6g}, found {found.value:.6g}")


if __name__ == "__main__":
    for cells in (12, 24, 48):
        against_random_sets(cells)
    over_counts()
    against_all_sets(3)
    against_all_sets(4)
