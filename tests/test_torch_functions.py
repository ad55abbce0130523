"""States and objectives as functions of torch: first and second derivatives, batches, types and failures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import nhgd_pde as nhgd

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "poisson": ("poisson_control", {"mesh.cells": [3, 3], "control.gain": 100}),
    "semilinear": ("semilinear_control", {"mesh.cells": [3, 3], "control.gain": 100}),
    "log-conductivity": ("log_conductivity_inversion", {"mesh.cells": [3, 3], "pde.source": "100"}),
    "heat": ("heat_control", {"mesh.cells": 4, "time.steps": 3, "control.gain": 10}),
    "dirichlet": ("dirichlet_control", {"mesh.cells": [3, 3]}),
    "burgers": ("burgers_control", {"mesh.cells": 4, "time.steps": 3, "control.gain": 10}),
}


def functions(name: str) -> nhgd.TorchFunctions:
    file, overrides = CASES[name]
    return nhgd.as_torch(nhgd.load(f"problems/{file}.yaml", overrides))


def controls(pde: nhgd.TorchFunctions, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (pde.start + 0.1 * torch.rand(*shape, pde.size, dtype=torch.float64, generator=generator)).requires_grad_()


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences(name: str) -> None:
    pde = functions(name)
    v = controls(pde, 2)
    jacobian = torch.autograd.functional.jacobian(pde.state, v[0].detach())
    # The tolerance is far below the derivatives.
    assert float(jacobian.abs().max()) > 1e-1
    for function in (pde.state, pde.objective):
        assert gradcheck(function, (v,), eps=1e-5, atol=1e-6, rtol=1e-5)
        assert gradgradcheck(function, (v[:1].detach().requires_grad_(),), eps=1e-5, atol=1e-6, rtol=1e-5)


def test_rows_of_a_batch_are_controls_of_their_own() -> None:
    pde = functions("semilinear")
    v = controls(pde, 2, 3)
    states, values = pde.state(v), pde.objective(v)
    assert states.shape == (2, 3, pde.nodes.shape[1]) and values.shape == (2, 3)
    assert torch.allclose(states[1, 2], pde.state(v[1, 2]), rtol=1e-12, atol=1e-12)
    (whole,) = torch.autograd.grad(values.square().sum(), v)
    (one,) = torch.autograd.grad(pde.objective(v[0, 1]).square(), v)
    assert torch.allclose(whole[0, 1], one[0, 1], rtol=1e-10, atol=1e-14)


def test_points_whose_factors_are_gone_have_the_same_derivatives() -> None:
    file, overrides = CASES["log-conductivity"]
    found = []
    for kept in (1, 8):
        pde = nhgd.as_torch(nhgd.load(f"problems/{file}.yaml", overrides), kept=kept)
        v = controls(pde, 4)
        (slope,) = torch.autograd.grad(pde.state(v).square().sum(), v, create_graph=True)
        (bend,) = torch.autograd.grad(slope.square().sum(), v)
        found.append(torch.cat([slope.detach(), bend]))
    assert torch.allclose(found[0], found[1], rtol=1e-10, atol=1e-14)


def test_the_state_is_that_of_the_reduced_objective() -> None:
    problem = nhgd.load("problems/heat_control.yaml", {"mesh.cells": 4, "time.steps": 3})
    pde, phi = nhgd.as_torch(problem), problem.reduced
    v = pde.start + 1.0
    state = pde.state(v).unflatten(-1, (len(pde.times), -1))
    assert state.shape == (4, pde.nodes.shape[1])
    assert torch.equal(state.reshape(1, -1), phi.state(v))
    assert torch.equal(pde.objective(v), phi.value(v))
    assert phi is problem.reduced


def test_results_have_the_type_of_the_control() -> None:
    pde = functions("poisson")
    v = controls(pde).detach().float().requires_grad_()
    state = pde.state(v)
    assert state.dtype == torch.float32
    (slope,) = torch.autograd.grad(pde.objective(v), v)
    assert slope.dtype == torch.float32
    double = v.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(pde.objective(double), double)
    assert torch.allclose(slope.double(), exact, rtol=1e-6)


def test_no_rows_are_no_states() -> None:
    pde = functions("poisson")
    assert pde.state(pde.start.new_zeros(0, pde.size)).shape == (0, pde.nodes.shape[1])
    assert pde.objective(pde.start.new_zeros(0, pde.size)).shape == (0,)


def test_a_row_without_a_state_is_named() -> None:
    pde = functions("poisson")
    v = controls(pde, 3).detach()
    v[1, 0] = torch.nan
    with pytest.raises(nhgd.StateUnsolvedError, match="row 1 of 3: 1 of 16 numbers"):
        pde.objective(v)


def test_mistakes_are_told() -> None:
    pde = functions("poisson")
    with pytest.raises(ValueError, match=r"v: expected a tensor \(..., 16\), found the shape \(3,\)"):
        pde.state(torch.zeros(3))
    robust = nhgd.load("problems/robust_poisson.yaml", {"mesh.cells": [4, 4], "scenarios.count": 4})
    with pytest.raises(ValueError, match="without random inputs"):
        nhgd.as_torch(robust)
