"""Sizes from which multigrid is chosen instead of factors; read without loading any solver."""

from __future__ import annotations

# Number of unknowns from which multigrid is faster than factors with some 20 solves, by the dimension of space; see
# `benchmarks.solvers`. In one and two dimensions factors have little fill: there it is memory that decides.
CROSSOVER = {1: float("inf"), 2: 1.5e6, 3: 1.2e4}
# The same for flows, whose factors are larger, and whose multigrid solves take five times as many cycles.
CROSSOVER_OF_FLOWS = {2: 3e5, 3: 2e4}
