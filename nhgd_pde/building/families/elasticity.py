"""Linear elasticity in two and three dimensions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from ...problem_file.equation_parts import Coefficient, Conditions, Points, Starter, VectorCoefficient
from ...problem_file.expressions import Expression
from .base import Equation, Interior

if TYPE_CHECKING:
    import numpy as np

    from ...fem.state_space import FieldGroup, StateSpace
    from ...inner.residual import TestNorm
    from ...pde.elasticity import Plane
    from ..values import Values


class ElasticitySpec(Equation):
    """-div sigma(u) = source with the stress sigma of an isotropic linear elastic material; u is a vector."""

    kind: Literal["elasticity"]
    young: Coefficient = Expression(1.0)
    poisson_ratio: Coefficient = Expression(0.3)
    plane: Literal["strain", "stress"] = Field(
        default="strain", description="In 2-D: no displacement across the plane, or no stress."
    )
    source: VectorCoefficient = Field(
        default=Expression(0), description="Body force, a list of expressions; a single 0 stands for none."
    )
    boundary: Conditions = Field(default_factory=dict)
    points: Points = ()

    starter: ClassVar[Starter] = Starter(
        pde={"source": "[0, 0]"},
        boundary={"left": "{dirichlet: [0, 0]}", "right": "{neumann: [0, 0]}"},
        target='[0, "0.1*x**2"]',
        mesh="{kind: rectangle, size: [4, 1], cells: [32, 8]}",
    )

    def components_of_source(self, dim: int) -> int:
        return dim

    def groups(self, dim: int, element: str) -> tuple[FieldGroup, ...]:
        from ...fem.state_space import FieldGroup

        return (FieldGroup("displacement", dim, element),)

    def interior(self, values: Values, space: StateSpace) -> Interior:
        from ...pde.elasticity import elasticity, stresses
        from ...pde.ranges import POISSON_RATIO, POISSON_RATIO_PLANE_STRESS, POSITIVE
        from ..dependence import CELLS
        from .coefficients import points

        x, dim = points(space), space.domain.dim
        if dim == 1:
            values.complain("pde.kind", "expected a mesh of two or three dimensions for elasticity, found an interval")
        if dim == 3 and "plane" in self.model_fields_set:
            values.complain("pde.plane", f"expected no plane on a 3-D mesh, found {self.plane!r}")
        plane: Plane = self.plane if dim == 2 else None
        young = values.admitted("pde.young", values.regional("pde.young", self.young, x), x, POSITIVE)
        range_ = POISSON_RATIO_PLANE_STRESS if plane == "stress" else POISSON_RATIO
        given = values.regional("pde.poisson_ratio", self.poisson_ratio, x)
        ratio = values.admitted("pde.poisson_ratio", given, x, range_)
        coefficients = {
            "young": values.tensor(young),
            "poisson_ratio": values.tensor(ratio),
            "source": values.tensor(values.components("pde.source", self.source, dim, x, place=CELLS)),
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
            scale="young",
            quantities=partial(stresses, plane=plane),
        )


def _rigid_motions(space: StateSpace) -> dict[str, np.ndarray]:
    """Coefficients (N,) of the displacements without strain: translations, and rotations about the centre.

    On a periodic body, rotations are no motions but those about an axis along the only direction of its period.
    """
    import numpy as np

    dim, nodes = space.domain.dim, space.parts[0].nodes
    centred = nodes - nodes.mean(axis=1, keepdims=True)
    motions = {}
    for i in range(dim):
        motion = np.zeros((dim, nodes.shape[1]))
        motion[i] = 1.0
        motions[f"translation along {'xyz'[i]}"] = motion.reshape(-1)
    shifts = np.array([seam.shift / np.linalg.norm(seam.shift) for seam in space.domain.seams])
    if len(shifts):
        return motions | _rotation_about(shifts, centred)
    for i in range(dim):
        for j in range(i + 1, dim):
            motion = np.zeros((dim, nodes.shape[1]))
            motion[i], motion[j] = -centred[j], centred[i]
            name = "rotation" if dim == 2 else f"rotation about {'xyz'[3 - i - j]}"
            motions[name] = (motion / np.abs(centred).max()).reshape(-1)
    return motions


def _rotation_about(shifts: np.ndarray, centred: np.ndarray) -> dict[str, np.ndarray]:
    """The rotation (N,) of a body with periods along unit vectors (seams, dim); empty where it has none."""
    import numpy as np

    along = abs(shifts @ shifts[0]) > 1.0 - 1e-9
    if shifts.shape[1] == 2 or not along.all():
        return {}
    motion = np.cross(shifts[0], centred.T).T
    return {"rotation about the direction of its period": (motion / np.abs(centred).max()).reshape(-1)}
