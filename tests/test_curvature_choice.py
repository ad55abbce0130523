"""The choice of the curvature backend, and refusals before memory is allocated."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.choice.backend import choose_curvature
from nhgd_pde.engine.curvature.block import Block
from nhgd_pde.engine.curvature.dense import Dense
from nhgd_pde.engine.curvature.factored import Factored
from nhgd_pde.engine.curvature.low_rank import LowRank
from nhgd_pde.linalg.memory import available_bytes
from nhgd_pde.problem_file.loading import read_problem

CPU = torch.device("cpu")
POISSON = {
    "name": "small",
    "mesh": {"kind": "rectangle", "cells": [6, 6]},
    "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-4}],
}


def choose(shape: tuple[int, int], sampled: bool, **curvature: Any) -> Any:
    return choose_curvature(read_problem({**POISSON, "curvature": curvature}), shape, sampled, CPU)


@pytest.mark.parametrize(
    ("shape", "sampled", "kind"),
    [
        ((1, 500), False, Factored),
        ((1, 500), True, Factored),
        ((32, 500), False, Factored),
        ((4, 500), True, Dense),
        ((32, 500), True, LowRank),
        ((1, 10**6), True, Factored),
    ],
)
def test_auto_depends_on_structure_and_size_and_gives_the_reason(
    shape: tuple[int, int], sampled: bool, kind: type
) -> None:
    choice = choose(shape, sampled)
    assert isinstance(choice.backend, kind)
    assert choice.reason and f"(auto: {choice.reason})" in str(choice)


def test_the_options_of_the_file_reach_the_backend() -> None:
    assert choose((1, 50), True, kind="dense", forgetting=0.2, prior_weight=7).backend == Dense("riesz", 7.0, 0.2)
    # A multiple of the identity has no information, whatever its estimated distance from F.
    assert choose((1, 50), True, kind="dense", prior="identity").backend == Dense("identity", 1.0, "auto")
    assert choose((1, 50), True, kind="block", block=9, forgetting=None).backend == Block(9)
    assert choose((1, 50), True, kind="low_rank", rank=5).backend == LowRank(5, "riesz")
    assert choose((3, 50), True, kind="low_rank", rank=5).backend == LowRank(5, "factored")
    assert not choose((1, 50), True, kind="dense").reason


@pytest.mark.parametrize("kind", ["dense", "block", "low_rank"])
def test_a_sampled_inverse_needs_samples(kind: str) -> None:
    with pytest.raises(nhgd.ProblemError, match=rf"inner\.tests: expected a number: a {kind} inverse"):
        choose((1, 50), False, kind=kind)


def test_low_rank_has_no_identity_prior() -> None:
    with pytest.raises(nhgd.ProblemError, match=r"curvature\.prior: expected riesz"):
        choose((1, 50), True, kind="low_rank", prior="identity")


def test_a_dense_inverse_beyond_memory_is_refused_with_its_bytes_and_an_alternative() -> None:
    unknowns = int((available_bytes(CPU) / 8.8) ** 0.5) + 1000
    with pytest.raises(nhgd.ProblemError) as refused:
        choose((1, unknowns), True, kind="dense")
    found = re.search(
        r"curvature\.kind: a dense inverse of ([\d,]+) unknowns takes .*\(([\d,]+) bytes\)", str(refused.value)
    )
    assert found is not None
    assert int(found[1].replace(",", "")) == unknowns
    assert int(found[2].replace(",", "")) == pytest.approx(Dense().bytes(unknowns))
    assert "factored needs sparse factors only, low_rank of rank 32" in str(refused.value)
    choose((1, 1000), True, kind="dense")


@pytest.mark.parametrize("kind", ["dense", "block", "low_rank", "factored"])
def test_every_backend_finds_the_same_optimum(kind: str) -> None:
    overrides = {"curvature.kind": kind, "inner.tests": 32}
    found, exact = (nhgd.solve(nhgd.load(POISSON, more)) for more in (overrides, {"method": "adjoint"}))
    assert found.status == "converged"
    assert found.objective == pytest.approx(exact.objective, rel=1e-9)
    assert kind in found.stats["curvature"] or (kind == "low_rank" and "corrections" in found.stats["curvature"])
