"""The circle onto which refinement moves the new vertices on the boundary of a disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..problem_file.mesh_spec import DiskMesh


def onto_boundary(mesh: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """Moves points (dim, k) near the boundary of a disk onto it; None for other meshes.

    Args:
        mesh: the `mesh` section of a problem file.
    """
    if not isinstance(mesh, DiskMesh):
        return None
    centre, radius = np.array(mesh.origin, dtype=float)[:, None], mesh.size

    def moved(x: np.ndarray) -> np.ndarray:
        return centre + radius * (x - centre) / np.linalg.norm(x - centre, axis=0)

    return moved
