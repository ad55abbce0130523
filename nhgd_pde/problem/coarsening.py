"""The same problem on a mesh of twice the width, and controls on the one in terms of controls on the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..control.spaces import Controls, ControlSpace
from ..fem.interpolation import OutsideMeshError, at_points
from .loading import ProblemFile

# Cells along an axis that a coarse mesh has at least.
_LEAST_CELLS = 4


def coarser(file: ProblemFile) -> ProblemFile | None:
    """The file with a mesh of about twice the width; None where there is none.

    A mesh that is made by refinement is refined once less, another one of a built-in shape has half the cells along
    every axis.
    """
    mesh = file.spec.mesh
    changes: dict[str, Any]
    if mesh.refine:
        changes = {"refine": mesh.refine - 1}
    elif hasattr(mesh, "cells") and min(mesh.cells) >= 2 * _LEAST_CELLS:
        changes = {"cells": tuple((count + 1) // 2 for count in mesh.cells)}
    else:
        return None
    return replace(file, spec=file.spec.model_copy(update={"mesh": mesh.model_copy(update=changes)}))


def prolongation(fine: Controls, coarse: Controls) -> sp.csr_matrix | None:
    """(p, p_c) values of coarse controls at the nodes of fine ones; None where the controls do not match.

    Steady controls only.
    """
    blocks = [_prolongation(a, b) for a, b in zip(fine.parts, coarse.parts, strict=True)]
    if any(block is None for block in blocks):
        return None
    return sp.block_diag(blocks, format="csr")


def _prolongation(fine: ControlSpace, coarse: ControlSpace) -> sp.csr_matrix | None:
    if fine.steps is not None or coarse.steps is not None:
        return None
    if fine.space is None or coarse.space is None:
        return sp.identity(fine.size, format="csr") if fine.size == coarse.size else None
    assert fine.dofs is not None and coarse.dofs is not None
    nodes = fine.nodes[:, : len(fine.dofs)]
    try:
        every = at_points(coarse.space, nodes)[:, coarse.dofs]
    except OutsideMeshError:
        # A curved boundary is another polygon on the coarser mesh.
        return None
    total = np.asarray(every.sum(axis=1)).reshape(-1)
    if (total < 0.5).any():
        return None
    one = sp.csr_matrix(sp.diags_array(1.0 / total) @ every)
    return sp.kron(sp.identity(fine.components), one, format="csr")
