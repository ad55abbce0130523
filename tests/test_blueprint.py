"""One code path for all standard variables: the nominal problem is the one at zero, and scenarios do not mix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from units import SMALL, content

import nhgd_pde as nhgd
from benchmarks.shipped import PROBLEMS
from nhgd_pde.pde_problem import PDEProblem

RANDOM = [path for path in PROBLEMS if content(path).get("parameters")]


def quantities(problem: PDEProblem, u: Tensor, v: Tensor, w: Tensor, d: Tensor) -> list[Tensor]:
    """Values and derivatives of the equation and the objective, a row a scenario."""
    state, control = problem.scenario_derivatives(u, v)
    return [
        problem.residual(u, v),
        problem.state_product(u, v, w),
        problem.state_product_transposed(u, v, w),
        problem.control_product(u, v, d),
        problem.scenario_control_products(u, v, w),
        problem.scenario_values(u, v)[:, None],
        state,
        control,
        problem.state(u, v),
    ]


def arguments(nominal: PDEProblem, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, a control, and directions of both."""
    generator = torch.Generator().manual_seed(2)
    n, p = nominal.inner_shape[1], nominal.outer_size
    u, w = (torch.rand(count, n, generator=generator, dtype=torch.float64) for _ in range(2))
    d = torch.rand(p, generator=generator, dtype=torch.float64)
    return u, nominal.start()[1], w, d


@pytest.mark.parametrize("path", RANDOM, ids=lambda path: path.stem)
def test_scenarios_built_together_are_those_built_one_by_one(path) -> None:  # type: ignore[no-untyped-def]
    blueprint = nhgd.load(path, SMALL[path.stem]).scenarios
    assert blueprint is not None
    z = blueprint.samples.z[:4]
    u, v, w, d = arguments(blueprint.nominal, len(z))
    together = quantities(blueprint.at(z), u, v, w, d)
    for s in range(len(z)):
        alone = quantities(blueprint.at(z[[s]]), u[[s]], v, w[[s]], d)
        for mine, wanted in zip(together, alone, strict=True):
            torch.testing.assert_close(mine[[s]], wanted, rtol=1e-13, atol=1e-13 * float(wanted.abs().max()))


@pytest.mark.parametrize("path", RANDOM, ids=lambda path: path.stem)
def test_the_nominal_problem_is_that_of_zero(path) -> None:  # type: ignore[no-untyped-def]
    blueprint = nhgd.load(path, SMALL[path.stem]).scenarios
    assert blueprint is not None
    assert blueprint.at(0) is blueprint.nominal
    found = arguments(blueprint.nominal, 1)
    zero = blueprint.at(np.zeros((1, blueprint.inputs.dimension)))
    for mine, wanted in zip(quantities(zero, *found), quantities(blueprint.nominal, *found), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-13, atol=1e-13 * float(wanted.abs().max()))
