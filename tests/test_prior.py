"""Matern priors by an elliptic operator: variance, correlation, boundary, root."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import nhgd_pde as nhgd
from nhgd_pde.inference.prior import ROBIN, NormalPrior
from nhgd_pde.uncertainty.covariance import Matern

STD, LENGTH = 2.0, 0.2


def prior_on(mesh: dict[str, Any], tmp_path: Any, **options: Any) -> tuple[NormalPrior, np.ndarray]:
    """The prior of a source on a mesh, and its nodes."""
    dim = {"interval": 1, "rectangle": 2, "box": 3}[mesh["kind"]]
    path = tmp_path / "one.csv"
    np.savetxt(path, [[0.5] * dim + [0.0]], delimiter=",")
    problem = nhgd.load(
        {
            "name": "prior",
            "mesh": mesh,
            "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
            "control": {"kind": "source", **options.pop("control", {})},
            "objective": [{"kind": "tracking", "at": str(path)}],
            "inference": {"noise": 1, "prior": {"length": LENGTH, "std": STD, **options}},
        }
    )
    part = problem.pde.control.parts[0]
    assert isinstance(part.prior, NormalPrior)
    return part.prior, part.nodes


def covariance(prior: NormalPrior, nodes: np.ndarray, point: list[float]) -> tuple[int, np.ndarray]:
    """The node at a point, and the covariances (p,) with it."""
    node = int(np.argmin(((nodes.T - point) ** 2).sum(axis=1)))
    unit = torch.zeros(1, prior.size, dtype=torch.float64)
    unit[0, node] = 1.0
    return node, prior.covariance(unit)[0].numpy()


@pytest.mark.parametrize(
    ("mesh", "error"),
    [
        ({"kind": "interval", "cells": 100}, 0.01),
        ({"kind": "rectangle", "cells": [50, 50]}, 0.03),
        ({"kind": "rectangle", "cells": [64, 64], "cell": "quadrilateral"}, 0.03),
        # In three dimensions samples have no square-integrable gradient, and the error is of first order in the mesh.
        ({"kind": "box", "cells": [14, 14, 14]}, 0.1),
    ],
)
def test_variance_and_correlation_inside_are_those_of_a_matern_field(
    mesh: dict[str, Any], error: float, tmp_path: Any
) -> None:
    prior, nodes = prior_on(mesh, tmp_path)
    dim = len(nodes)
    node, found = covariance(prior, nodes, [0.5] * dim)
    assert found[node] == pytest.approx(STD**2, rel=error)
    matern = Matern(STD, LENGTH, 2.0 - 0.5 * dim)
    beside = [0.5 + LENGTH, *[0.5] * (dim - 1)]
    other = int(np.argmin(((nodes.T - beside) ** 2).sum(axis=1)))
    exact = matern(nodes[:, [node]], nodes[:, [other]])[0, 0]
    assert found[other] == pytest.approx(exact, rel=max(error, 0.05))


def test_the_variance_converges_with_the_mesh(tmp_path: Any) -> None:
    errors = []
    for cells in (16, 32, 64):
        prior, nodes = prior_on({"kind": "rectangle", "cells": [cells, cells]}, tmp_path)
        node, found = covariance(prior, nodes, [0.5, 0.5])
        errors.append(abs(found[node] / STD**2 - 1.0))
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]


@pytest.mark.parametrize("dim", [1, 2])
def test_the_robin_condition_keeps_the_variance_at_a_flat_side(dim: int, tmp_path: Any) -> None:
    mesh = {"kind": "interval", "cells": 200} if dim == 1 else {"kind": "rectangle", "cells": [64, 64]}
    side = [0.0, *[0.5] * (dim - 1)]
    shares = {}
    for boundary in ("robin", "neumann"):
        prior, nodes = prior_on(mesh, tmp_path, boundary=boundary)
        inside, here = (covariance(prior, nodes, point) for point in ([0.5] * dim, side))
        shares[boundary] = here[1][here[0]] / inside[1][inside[0]]
    assert shares["robin"] == pytest.approx(1.0, abs=0.02)
    # Without the condition the reflection doubles the variance.
    assert shares["neumann"] == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_robin_numbers_make_the_integrals_of_the_variances_equal(dim: int) -> None:
    def integral(of: Any) -> float:
        if dim == 1:
            return float(of(1.0))
        measure = (lambda k: 2.0) if dim == 2 else (lambda k: 2.0 * np.pi * k)
        return float(quad(lambda k: measure(k) * of(np.sqrt(1.0 + k * k)), 0.0, np.inf)[0])

    b = ROBIN[dim]
    side = integral(lambda w: 0.5 / (w * (w + b) ** 2))
    assert side == pytest.approx(integral(lambda w: 0.25 / w**3), rel=1e-7)


def test_root_precision_and_covariance_belong_together(tmp_path: Any) -> None:
    prior, _ = prior_on({"kind": "rectangle", "cells": [7, 5]}, tmp_path)
    x = torch.randn(3, prior.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(prior.covariance(prior.precision.mv(x)), x, rtol=1e-9, atol=1e-9)
    assert torch.allclose(prior.white(prior.coloured(x)), x, rtol=1e-10, atol=1e-10)
    assert torch.allclose(prior.coloured(prior.whitened(x)), prior.covariance(x), rtol=1e-10, atol=1e-12)
    # <x, L^-1 y> = <L^-T x, y>
    assert float((x[0] * prior.coloured(x[1:2])[0]).sum()) == pytest.approx(
        float((prior.whitened(x[:1])[0] * x[1]).sum()), rel=1e-10
    )


def test_a_field_on_a_subdomain_has_the_standard_deviation_up_to_its_edge(tmp_path: Any) -> None:
    path = tmp_path / "one.csv"
    path.write_text("0.5, 0.5, 0\n")
    problem = nhgd.load(
        {
            "name": "prior",
            "mesh": {"kind": "rectangle", "cells": [48, 48]},
            "parts": {"core": {"cells": "abs(x - 0.5) < 0.25 and abs(y - 0.5) < 0.25"}},
            "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
            "control": {"kind": "source", "on": "core"},
            "objective": [{"kind": "tracking", "at": str(path)}],
            "inference": {"noise": 1, "prior": {"length": 0.1, "std": 3}},
        }
    )
    part = problem.pde.control.parts[0]
    assert isinstance(part.prior, NormalPrior)
    for point in ([0.5, 0.5], [0.25, 0.5], [0.5, 0.75]):
        node, found = covariance(part.prior, part.nodes, point)
        assert found[node] == pytest.approx(9.0, rel=0.12)


def test_a_periodic_field_has_no_boundary(tmp_path: Any) -> None:
    path = tmp_path / "one.csv"
    path.write_text("0.5, 0.5, 0\n")
    problem = nhgd.load(
        {
            "name": "prior",
            "mesh": {"kind": "rectangle", "cells": [24, 24]},
            "pde": {
                "kind": "poisson",
                "reaction": 1,
                "boundary": {"left": {"periodic": "right"}, "bottom": {"periodic": "top"}},
            },
            "control": {"kind": "source"},
            "objective": [{"kind": "tracking", "at": str(path)}],
            "inference": {"noise": 1, "prior": {"length": 0.2}},
        }
    )
    prior: Any = problem.pde.control.parts[0].prior
    variances = prior.covariance(torch.eye(prior.size, dtype=torch.float64)).diagonal()
    # Up to the directions of the triangles, every node is the same.
    assert float(variances.max() / variances.min()) < 1.0 + 1e-9


def test_a_field_on_a_side_has_the_correlation_of_its_dimension(tmp_path: Any) -> None:
    path = tmp_path / "one.csv"
    path.write_text("0.5, 0.5, 0\n")
    problem = nhgd.load(
        {
            "name": "prior",
            "mesh": {"kind": "rectangle", "cells": [60, 4]},
            "pde": {"kind": "poisson", "boundary": {"top": {"dirichlet": 0}}},
            "control": {"kind": "neumann", "on": "bottom"},
            "objective": [{"kind": "tracking", "at": str(path)}],
            "inference": {"noise": 1, "prior": {"length": 0.1, "std": 3}},
        }
    )
    part = problem.pde.control.parts[0]
    assert isinstance(part.prior, NormalPrior)
    node, found = covariance(part.prior, part.nodes, [0.5, 0.0])
    assert found[node] == pytest.approx(9.0, rel=0.02)
    other = int(np.argmin(abs(part.nodes[0] - 0.6)))
    assert found[other] == pytest.approx(Matern(3.0, 0.1, 1.5)(np.zeros((1, 1)), np.full((1, 1), 0.1))[0, 0], rel=0.02)
