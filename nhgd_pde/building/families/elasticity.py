"""Linear elasticity in two and three dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...fem.state_space import FieldGroup, StateSpace
from ...inner.residual import TestNorm
from ...pde.elasticity import Plane, elasticity
from ...pde.ranges import POISSON_RATIO, POISSON_RATIO_PLANE_STRESS, POSITIVE
from ...problem_file.pde_spec import ElasticitySpec
from ..dependence import CELLS
from ..values import Values
from .base import Family, Interior, points


def _displacement(spec: Any, dim: int, element: str) -> tuple[FieldGroup, ...]:
    return (FieldGroup("state", dim, element),)


def _elasticity(values: Values, pde: ElasticitySpec, space: StateSpace) -> Interior:
    x, dim = points(space), space.domain.dim
    if dim == 1:
        values.complain("pde.kind", "expected a mesh of two or three dimensions for elasticity, found an interval")
    if dim == 3 and "plane" in pde.model_fields_set:
        values.complain("pde.plane", f"expected no plane on a 3-D mesh, found {pde.plane!r}")
    plane: Plane = pde.plane if dim == 2 else None
    young = values.admitted("pde.young", values.regional("pde.young", pde.young, x), x, POSITIVE)
    range_ = POISSON_RATIO_PLANE_STRESS if plane == "stress" else POISSON_RATIO
    given = values.regional("pde.poisson_ratio", pde.poisson_ratio, x)
    ratio = values.admitted("pde.poisson_ratio", given, x, range_)
    coefficients = {
        "young": values.tensor(young),
        "poisson_ratio": values.tensor(ratio),
        "source": values.tensor(values.components("pde.source", pde.source, dim, x, place=CELLS)),
    }
    norms: list[TestNorm] = ["h1"] * dim
    return Interior(
        elasticity(plane),
        coefficients,
        affine=True,
        symmetric=True,
        coercive=True,
        absorbing=False,
        norms=tuple(norms),
        vector=dim,
        unseen=_rigid_motions(space),
    )


def _rigid_motions(space: StateSpace) -> dict[str, np.ndarray]:
    """Coefficients (N,) of the displacements without strain: translations, and rotations about the centre."""
    dim, nodes = space.domain.dim, space.parts[0].nodes
    centred = nodes - nodes.mean(axis=1, keepdims=True)
    motions = {}
    for i in range(dim):
        motion = np.zeros((dim, nodes.shape[1]))
        motion[i] = 1.0
        motions[f"translation along {'xyz'[i]}"] = motion.reshape(-1)
    for i in range(dim):
        for j in range(i + 1, dim):
            motion = np.zeros((dim, nodes.shape[1]))
            motion[i], motion[j] = -centred[j], centred[i]
            name = "rotation" if dim == 2 else f"rotation about {'xyz'[3 - i - j]}"
            motions[name] = (motion / np.abs(centred).max()).reshape(-1)
    return motions


ELASTICITY = Family(_displacement, _elasticity)
