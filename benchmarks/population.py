"""Population search beside plain multi-start with as many evaluations, on the switching of heaters.

Prints the table of docs/population.md: python -m benchmarks.population [easier] [SEEDS [GENERATIONS]]

With `easier` the rod has forty heaters, of a longer reach each. The last column is the share of mutations whose local
search ends in the valley of a member of the generation before.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.choice.population_method import local_search
from nhgd_pde.linalg.threads import at_most_threads
from nhgd_pde.population.generations import evolve, near
from nhgd_pde.population.genes import Genes
from nhgd_pde.population.members import Candidate, LocalSearch
from nhgd_pde.population.multistart import multistart
from nhgd_pde.population.options import Population, PopulationOptions

FILE = Path(__file__).resolve().parents[1] / "problems" / "switched_heaters.yaml"
EASIER: dict[str, Any] = {
    "mesh.cells": 40,
    "pde.conductivity": 0.01,
    "objective.0.target": "0.4 + 0.3*sin(7*x) + 0.1*cos(23*x)",
}


def prepared(overrides: Mapping[str, Any] | None = None) -> tuple[Genes, LocalSearch]:
    """The genes of the problem, and the local search of a member."""
    problem = nhgd.load(FILE, overrides)
    assert problem.population is not None
    return problem.population.genes, local_search(problem.pde, problem.method, problem.population.rtol)


def compared(
    seed: int, generations: int, overrides: Mapping[str, Any]
) -> tuple[float, float, float, int, int, int, str]:
    """The best values of the population, of one whose teacher does not learn, and of multi-start; the evaluations of
    the first and the last, the number of starts, and the share of mutations that return to a valley of the first."""
    genes, local = prepared(overrides)
    options = PopulationOptions(generations=generations, seed=seed)
    first = genes.drawn(torch.Generator().manual_seed(100 + seed))
    kept: list[Population] = []
    returns: list[bool] = []

    def search(designs: list[Tensor], steps: int) -> list[Candidate]:
        found = local(designs, steps)
        if kept:
            ends = found[: options.children]
            returns.extend(any(near(genes, end, member) for member in kept[-1].members) for end in ends)
        return found

    found = evolve(genes, search, options, first, kept.append)
    untaught = evolve(genes, local, replace(options, rate=0.0), first)
    starts = multistart(genes, local, options, first, found.evaluations)
    values = found.best.value, untaught.best.value, starts.best.value
    share = f"{100 * sum(returns) / max(len(returns), 1):.0f} %"
    return *values, found.evaluations, starts.evaluations, starts.count, share


def main() -> None:
    given = [text for text in sys.argv[1:] if text != "easier"]
    seeds, generations = (int(text) for text in (*given, *("10", "12")[len(given) :]))
    overrides = EASIER if len(given) < len(sys.argv) - 1 else {}
    print("| seed | population | teacher off | multi-start | evaluations | of multi-start | starts | returned |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    with at_most_threads(1):
        for seed in range(seeds):
            row = compared(seed, generations, overrides)
            rows.append(row[:3])
            print(
                f"| {seed} | " + " | ".join(f"{x:.4e}" if isinstance(x, float) else str(x) for x in row) + " |",
                flush=True,
            )
    print(
        "| median | " + " | ".join(f"{statistics.median(each):.4e}" for each in zip(*rows, strict=True)) + " | | | | |"
    )
    print("| best | " + " | ".join(f"{min(each):.4e}" for each in zip(*rows, strict=True)) + " | | | | |")


if __name__ == "__main__":
    main()
