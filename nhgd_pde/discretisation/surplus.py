"""Recovery of a smoother function from nodal values, by local polynomials of one degree more.

At every node of the finer space a polynomial is fitted to the nodal values of the coarse function around it, by least
squares. Where the coarse nodal values are those of a smooth function, the fitted polynomial has one order more than
the coarse function itself (patch recovery; Zienkiewicz and Zhu 1992, Zhang and Naga 2005 for values in place of
gradients).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import scipy.sparse as sp

from ..fem.spaces import Space

# A patch has at least this many nodes for each coefficient of the polynomial, where the mesh has them.
_NODES_PER_COEFFICIENT = 1.3
# Share of the mean diagonal entry that is added to the normal equations, so that patches with too few nodes, or with
# nodes in special position, have a solution as well. It is far above rounding errors and far below the entries.
_RIDGE = 1e-12
# Largest number of values of monomials that are in memory at once: few enough for the caches of a processor.
_AT_ONCE = 200_000
# Entries of a prolongation below this size are rounding errors of values that are zero.
_ZERO = 1e-12


def surplus(
    coarse: Space, prolongation: sp.csr_matrix, points: np.ndarray, labels: np.ndarray, wider: bool = False
) -> sp.csr_matrix:
    """The matrix (points, coarse.size) from nodal values to recovered minus interpolated values at points.

    Rows of points that are nodes of the coarse space are zero, so that the surplus vanishes at coarse nodes. Rows give
    zero for polynomials of the degree of the coarse space.

    Args:
        coarse: a scalar space without seams.
        prolongation: (points, coarse.size) from nodal values to values at the points.
        points: (dim, points) places.
        labels: (cells,) numbers of subdomains of the coarse cells. A patch stays within the cells of one label, because
            a function may have a kink where a coefficient jumps.
        wider: take patches with one more layer of cells. Where the function is smooth on the scale of the cells, this
            changes little.
    """
    degree = max(int(coarse.element[1:]), 0) + 1
    kept = prolongation.copy()
    kept.data[np.abs(kept.data) < _ZERO] = 0.0
    kept.eliminate_zeros()
    among = np.flatnonzero(np.diff(kept.indptr) > 1) if coarse.element != "P0" else np.arange(points.shape[1])
    powers = np.array([p for p in product(range(degree + 1), repeat=len(points)) if sum(p) <= degree])
    patches = _patches(coarse, kept[among], labels, int(np.ceil(_NODES_PER_COEFFICIENT * len(powers))), wider)
    fitted = _fits(coarse.nodes, points[:, among], patches, powers)
    place = sp.csr_matrix((np.ones(len(among)), (among, np.arange(len(among)))), shape=(points.shape[1], len(among)))
    return sp.csr_matrix(place @ (fitted - kept[among]))


def _patches(coarse: Space, kept: sp.csr_matrix, labels: np.ndarray, least: int, wider: bool) -> sp.csr_matrix:
    """The coarse nodes (points, coarse.size) around each point, as a matrix whose stored entries are the patches."""
    touching = sp.csr_matrix(kept.astype(bool), dtype=np.int32)
    found: sp.csr_matrix | None = None
    for label in np.unique(labels):
        own = _neighbours(coarse, np.flatnonzero(labels == label))
        # A point belongs to the first label for which it lies in or on a cell: all nodes that it is interpolated from
        # are nodes of cells of this label.
        inside = own.diagonal() > 0
        whole = (touching @ inside.astype(np.int32)) == np.diff(touching.indptr)
        if found is not None:
            whole &= np.diff(found.indptr) == 0
        patch = _grown(touching, own, whole, least)
        if wider:
            patch = _pattern(patch + _pattern(patch @ own))
        found = patch if found is None else found + patch
    assert found is not None
    found.sum_duplicates()
    return found


def _grown(touching: sp.csr_matrix, own: sp.csr_matrix, rows: np.ndarray, least: int) -> sp.csr_matrix:
    """Patches of the chosen rows that are widened by layers of cells until they have enough nodes, or stay as large."""
    chosen = sp.csr_matrix(sp.diags_array(rows.astype(float)) @ touching)
    patch = _pattern(chosen @ own)
    for _ in range(3):
        count = np.diff(patch.indptr)
        small = rows & (count < least)
        if not small.any():
            break
        wider = _pattern(sp.diags_array(small.astype(float)) @ patch @ own)
        patch = _pattern(patch + wider)
    return patch


def _pattern(matrix: sp.csr_matrix) -> sp.csr_matrix:
    found = sp.csr_matrix(matrix)
    found.eliminate_zeros()
    found.data = np.ones_like(found.data)
    return found


def _neighbours(coarse: Space, cells: np.ndarray) -> sp.csr_matrix:
    """(size, size) whose entries are the pairs of nodes with a common cell; of P0, of cells with a common vertex."""
    size, mesh = coarse.size, coarse.domain.mesh
    dofs = np.asarray(coarse.basis.element_dofs)[:, cells]
    corners = mesh.t[:, cells]
    if coarse.element == "P0":
        rows, columns = np.broadcast_to(dofs, corners.shape), corners
    else:
        rows, columns = dofs, np.broadcast_to(cells, dofs.shape)
    shape = size, max(mesh.nelements, mesh.nvertices)
    incidence = sp.csr_matrix(
        (np.ones(rows.size, dtype=np.int32), (rows.reshape(-1), columns.reshape(-1))), shape=shape
    )
    return _pattern(incidence @ incidence.T)


def _fits(nodes: np.ndarray, points: np.ndarray, patches: sp.csr_matrix, powers: np.ndarray) -> sp.csr_matrix:
    """(points, nodes): from nodal values to the values of the fitted polynomials at their points."""
    counts, width = np.diff(patches.indptr), len(powers)
    data = np.zeros(patches.nnz)
    for count in np.unique(counts[counts > 0]):
        alike = np.flatnonzero(counts == count)
        share = max(_AT_ONCE // (int(count) * width), 1)
        for first in range(0, len(alike), share):
            rows = alike[first : first + share]
            entries = patches.indptr[rows][:, None] + np.arange(count)
            data[entries] = _weights(nodes[:, patches.indices[entries]] - points[:, rows, None], powers)
    return sp.csr_matrix((data, patches.indices, patches.indptr), shape=patches.shape)


def _weights(offsets: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """(rows, count) the weights of the nodal values in the value at the point of each fit.

    Args:
        offsets: (dim, rows, count) places of the nodes relative to the point.
        powers: (coefficients, dim) the exponents of the monomials, the constant first.
    """
    # Fits come last in memory, so that each operation is one over many of them.
    offsets = np.ascontiguousarray(offsets.swapaxes(1, 2))
    square = (offsets**2).sum(axis=0)
    largest = square.max(axis=0)
    monomials = np.ones((len(powers), *square.shape))
    for monomial, exponents in zip(monomials, powers, strict=True):
        for x, exponent in zip(offsets / np.sqrt(largest), exponents, strict=True):
            if exponent:
                monomial *= x**exponent
    # Nearer nodes count more. The nearest ones do not decide alone, as the distance is measured in patches.
    weighted = monomials / (0.1 + square / largest)
    normal = np.empty((len(powers), *monomials.shape[::2]))
    for k, one in enumerate(weighted):
        normal[k, : k + 1] = normal[: k + 1, k] = np.einsum("cr,mcr->mr", one, monomials[: k + 1])
    ridge = _RIDGE * np.trace(normal) / len(powers)
    solve = _solver(normal + ridge * np.eye(len(powers))[..., None])
    unit = np.zeros(normal.shape[1:])
    unit[0] = 1.0
    first = solve(unit)
    # One step of refinement: the ridge then changes the fit by its relative size squared only.
    first = first + solve(unit - np.einsum("mlr,lr->mr", normal, first))
    found = np.einsum("mcr,mr->cr", weighted, first)
    # The ridge must not change the value for constants, which may be large beside the rest.
    return (found / found.sum(axis=0)).T


def _solver(matrices: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Solves systems with symmetric and positive definite matrices (m, m, rows), for right-hand sides (m, rows).

    The factors L D L^T of all matrices are computed at once, which for matrices this small takes a fraction of the time
    of LAPACK's solver for one matrix after the other.
    """
    factors, size = matrices.copy(), len(matrices)
    for k in range(size):
        below = factors[k + 1 :, k] / factors[k, k]
        factors[k + 1 :, k + 1 :] -= below[:, None] * factors[k, None, k + 1 :]
        factors[k + 1 :, k] = below

    def solve(right: np.ndarray) -> np.ndarray:
        found = right.copy()
        for k in range(size):
            found[k + 1 :] -= factors[k + 1 :, k] * found[k]
        found /= np.einsum("kkr->kr", factors)
        for k in reversed(range(size)):
            found[:k] -= factors[k, :k] * found[k]
        return found

    return solve
