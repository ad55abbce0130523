"""A coarser mesh for a problem, and the transfer of functions from the coarse mesh to the fine one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..control.controls import Controls, ControlSpace
from ..fem.interpolation import OutsideMeshError, at_points
from ..fem.spaces import Space
from ..fem.state_space import StateSpace
from ..linalg.sparse import SparseMatrix
from ..pde_problem import PDEProblem
from ..problem_file.loading import ProblemFile
from ..problem_file.mesh_spec import DiskMesh
from ..scenario_problem import Coarse, ScenarioProblem

# The smallest number of cells along an axis of a coarse mesh.
_LEAST_CELLS = 4


def coarser(file: ProblemFile) -> ProblemFile | None:
    """The file with a mesh of about twice the width; None where there is none.

    A mesh that is made by refinement is refined once less, another one of a built-in shape has half the cells along
    every axis. Refinement moves the boundary of a disk.
    """
    mesh = file.spec.mesh
    changes: dict[str, Any]
    if isinstance(mesh, DiskMesh):
        return None
    if mesh.refine:
        changes = {"refine": mesh.refine - 1}
    elif hasattr(mesh, "cells") and min(mesh.cells) >= 2 * _LEAST_CELLS:
        changes = {"cells": tuple((count + 1) // 2 for count in mesh.cells)}
    else:
        return None
    return replace(file, spec=file.spec.model_copy(update={"mesh": mesh.model_copy(update=changes)}))


@dataclass(frozen=True)
class Prolongations:
    """Values of coarse functions at the nodes of fine spaces, computed once for each pair of spaces.

    Attributes:
        beyond: nodes outside the coarse mesh get values too, see `at_points`.
        known: fine space, coarse space and matrix, by the identities of the two spaces.
    """

    beyond: bool = False
    known: dict[tuple[int, int], tuple[Space, Space, sp.csr_matrix]] = field(default_factory=dict)

    def of_spaces(self, fine: Space, coarse: Space) -> sp.csr_matrix:
        """The matrix (fine.size, coarse.size).

        Raises:
            OutsideMeshError: the coarse mesh does not reach a node: a curved boundary is another polygon there.
        """
        key = id(fine), id(coarse)
        if key not in self.known:
            self.known[key] = fine, coarse, at_points(coarse, fine.nodes, self.beyond)
        return self.known[key][2]

    def of_states(self, fine: StateSpace, coarse: StateSpace) -> sp.csr_matrix:
        """The matrix (N, N_c).

        Raises:
            OutsideMeshError: as of spaces.
        """
        parts = zip(fine.parts, coarse.parts, strict=True)
        return sp.block_diag([self.of_spaces(a, b) for a, b in parts], format="csr")

    def of_controls(self, fine: Controls, coarse: Controls) -> sp.csr_matrix | None:
        """The matrix (p, p_c) of steady controls; None if the controls do not match.

        Raises:
            OutsideMeshError: as of spaces.
        """
        blocks = [self._of_control(a, b) for a, b in zip(fine.parts, coarse.parts, strict=True)]
        if any(block is None for block in blocks):
            return None
        return sp.block_diag(blocks, format="csr")

    def _of_control(self, fine: ControlSpace, coarse: ControlSpace) -> sp.csr_matrix | None:
        if fine.steps is not None or coarse.steps is not None:
            return None
        if fine.space is None or coarse.space is None:
            return sp.identity(fine.size, format="csr") if fine.size == coarse.size else None
        every = self.of_spaces(fine.space, coarse.space)[fine.dofs][:, coarse.dofs]
        total = np.asarray(every.sum(axis=1)).reshape(-1)
        if (total < 0.5).any():
            return None
        one = sp.csr_matrix(sp.diags_array(1.0 / total) @ every)
        return sp.kron(sp.identity(fine.components), one, format="csr")


def coarse_level(fine: PDEProblem, coarse: ScenarioProblem) -> Coarse | None:
    """A coarse problem with its transfer to the fine one; None if functions cannot be transferred."""
    prolongations = Prolongations()
    try:
        states = prolongations.of_states(fine.space, coarse.nominal.space)
        controls = prolongations.of_controls(fine.control, coarse.nominal.control)
    except OutsideMeshError:
        return None
    if controls is None:
        return None
    device = fine.space.device
    free = states[fine.equation.free][:, coarse.nominal.equation.free]
    return Coarse(coarse, SparseMatrix(controls, device), SparseMatrix(free, device), fine.outer_metric)
