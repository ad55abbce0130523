"""Digits that are said to count where few cells resolve layers and waves, or bounds make kinks between the nodes.

    python -m benchmarks.unresolved

Printed are the runs in which the true error is more than 1.5 times the sum of the estimate and its uncertainty, or in
which a digit that is said to count is wrong: width, cells, effectivity, that share, digits said / right. It takes about
one minute.
"""

from __future__ import annotations

from collections.abc import Iterator

import nhgd_pde as nhgd
from benchmarks.closed_forms import ENDS, INTERVAL, R, cos, exp, fixed, pi, sin
from benchmarks.manufactured import Control, Manufactured
from benchmarks.mesh_error import Case, digits_right, digits_said, measured
from benchmarks.weak_forms import X, diffusion

CELLS = (12, 16, 24, 32, 48, 64)


def problems(k: int) -> Iterator[tuple[str, Manufactured]]:
    """Layers of the width 1 / k, waves of the wave number k, and bounds."""
    width = R(1, k)
    layer = (exp((X - 1) / width) - exp(-1 / width)) / (1 - exp(-1 / width))
    cost = Control(alpha=R(1, 10))
    wind = diffusion(width, velocity=(1,))
    yield "layer", Manufactured(INTERVAL, wind, (X - layer,), (sin(pi * X) / 10,), cost, ENDS)
    state, adjoint = X - exp((X - 1) / width), (1 - X - exp(-X / width) + X * exp(-1 / width)) / 10
    yield "two layers", Manufactured(INTERVAL, wind, (state,), (adjoint,), cost, ENDS)
    state, adjoint = exp(-X / width) + X, (exp(-X / width) - 1 + X * (1 - exp(-1 / width))) / 10
    yield "reaction", Manufactured(INTERVAL, diffusion(width**2, 1), (state,), (adjoint,), cost, ENDS)
    state, adjoint = cos(k * X), X * (1 - X) * sin(k * X) / 100
    yield "waves", Manufactured(INTERVAL, diffusion(1, 1), (state,), (adjoint,), Control(alpha=R(1, 100)), ENDS)
    bounds = Control(alpha=R(1, 10), bounds=(R(-1, 3), R(k, 100) + R(1, 5)))
    adjoint = sin(R(k, 3) * X) / 10
    yield "bounds", Manufactured(INTERVAL, diffusion(1, 1), (cos(3 * X),), (adjoint,), bounds, fixed("left"))


def main() -> None:
    count, wrong = 0, 0
    for k in (8, 13, 20, 30, 45, 70, 110):
        for name, problem in problems(k):
            case = Case(lambda n, problem=problem: nhgd.load(problem.content(n)), CELLS)
            for n in CELLS:
                objective, error, estimate = measured(case, n, problem.optimum)
                said, right = digits_said(objective, estimate), digits_right(objective, error)
                share = abs(error) / (abs(estimate.value) + estimate.uncertainty)
                count, wrong = count + 1, wrong + (said > right)
                if share > 1.5 or said > right:
                    effectivity = estimate.value / error
                    print(f"| {name} {k} | {n} | {effectivity:.2f} | {share:.2f} | {said} / {right} |", flush=True)
    print(f"{count} runs, in {wrong} of them a digit that is said to count is wrong")


if __name__ == "__main__":
    main()
