"""Interpolation between spaces on one mesh."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from .spaces import Space


def interpolation(source: Space, target: Space) -> sp.csr_matrix:
    """(target.size, source.size): coefficients in the source space -> values at the nodes of the target space.

    Where cells differ in their value, as they do for P0, the mean of those around a node.
    """
    reference = np.asarray(target.basis.elem.doflocs).T
    values = np.stack(
        [
            np.broadcast_to(source.basis.elem.lbasis(reference, i)[0], reference.shape[1:])
            for i in range(source.basis.Nbfun)
        ]
    )
    rows = np.asarray(target.basis.element_dofs)
    columns = np.asarray(source.basis.element_dofs)
    shape = (values.shape[1], values.shape[0], rows.shape[1])
    data = np.broadcast_to(values.T[:, :, None], shape)
    where = np.broadcast_to(rows[:, None], shape), np.broadcast_to(columns[None], shape)
    total = sp.csr_matrix(
        (data.reshape(-1), (where[0].reshape(-1), where[1].reshape(-1))), shape=(target.size, source.size)
    )
    total.eliminate_zeros()
    meetings = np.bincount(rows.reshape(-1), minlength=target.size)
    return sp.csr_matrix(sp.diags_array(1.0 / meetings) @ total)
