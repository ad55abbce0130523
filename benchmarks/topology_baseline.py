"""The topology optimisation code that an engineer writes by hand, to compare nhgd-pde with.

The MBB half beam by optimality criteria, after the 88 lines of Andreassen, Clausen, Schevenels, Lazarov and Sigmund
(2011, Struct. Multidisc. Optim. 43), from Matlab to NumPy and SciPy: square elements of side one, all with the same
stiffness matrix, SIMP with the power 3, and the density filter (a cone). SuperLU takes the ordering MMD_AT_PLUS_A in
its symmetric mode without pivoting, as nhgd-pde does: the default of SciPy (COLAMD with pivoting) takes several times
as long. The loop ends after two steps in a row that change no density by more than 0.01, instead of one.

`solve(..., published=True)` has the rest as in the paper. By default two things are done better.

- The sparsity pattern is made once. The matrix of the free unknowns is one sparse product a design, where the
  published code sums triplets and cuts out the free unknowns.
- The bisection for the multiplier takes the volume from the design by its derivative, where the published code filters
  the design in every step. So it can afford nine digits of the multiplier in place of three.

Nothing is imported from nhgd_pde.

    python benchmarks/topology_baseline.py [NELX NELY RADIUS] [--published]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

Vector = NDArray[np.float64]
SUPERLU = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
LOW, PENALTY, FRACTION, MOVE, CHANGE = 1e-9, 3.0, 0.5, 0.2, 0.01


@dataclass(frozen=True)
class Beam:
    """The result: compliance, iterations, and the density of the cells, (cells,), column by column."""

    compliance: float
    iterations: int
    density: Vector
    seconds: float


def element_stiffness(ratio: float = 0.3) -> Vector:
    """(8, 8) of a square in plane stress with Young's modulus one; corners lower left, and on against the clock."""
    a = np.array([[12, 3, -6, -3], [3, 12, 3, 0], [-6, 3, 12, -3], [-3, 0, -3, 12]])
    b = np.array([[-6, -3, 0, 3], [-3, -6, -3, -6], [0, -3, -6, 3], [3, -6, 3, -6]])
    c = np.array([[-4, 3, -2, 9], [3, -4, -9, 4], [-2, -9, -4, -3], [9, 4, -3, -4]])
    d = np.array([[2, -3, 4, -9], [-3, 2, 9, -2], [4, 9, 2, 3], [-9, -2, 3, 2]])
    return (np.block([[a, b], [b.T, a]]) + ratio * np.block([[c, d], [d.T, c]])) / (24 * (1 - ratio**2))


def cone(nelx: int, nely: int, radius: float) -> sp.csr_matrix:
    """The matrix of the density filter, whose rows sum to one."""
    x, y = np.divmod(np.arange(nelx * nely), nely)
    reach, rows, columns, weights = int(np.ceil(radius)) - 1, [], [], []
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            weight = radius - np.hypot(i, j)
            if weight > 0:
                row = np.flatnonzero((x + i >= 0) & (x + i < nelx) & (y + j >= 0) & (y + j < nely))
                rows.append(row)
                columns.append(row + i * nely + j)
                weights.append(np.full(len(row), weight))
    matrix = sp.csr_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))))
    return sp.csr_matrix(sp.diags_array(1 / np.asarray(matrix.sum(axis=1)).ravel()) @ matrix)


class Stiffness:
    """The stiffness of the free unknowns, as one sparse map of the moduli of the cells."""

    def __init__(self, dofs: NDArray[np.int64], local: Vector, free: NDArray[np.int64], size: int) -> None:
        number = np.full(size, -1)
        number[free] = np.arange(len(free))
        rows = number[np.repeat(dofs, 8, axis=1)].ravel()
        columns = number[np.tile(dofs, (1, 8))].ravel()
        kept = np.flatnonzero((rows >= 0) & (columns >= 0))
        keys, slots = np.unique(columns[kept] * len(free) + rows[kept], return_inverse=True)
        entries = np.tile(local.ravel(), len(dofs))[kept]
        self.map = sp.csr_matrix((entries, (slots, kept // 64)), shape=(len(keys), len(dofs)))
        indptr = np.searchsorted(keys, np.arange(len(free) + 1) * len(free))
        self.matrix = sp.csc_matrix((np.zeros(len(keys)), keys % len(free), indptr), shape=(len(free),) * 2)

    def at(self, moduli: Vector) -> sp.csc_matrix:
        self.matrix.data = self.map @ moduli
        return self.matrix


class Triplets:
    """The same, by the sum of all entries of all cells, as published."""

    def __init__(self, dofs: NDArray[np.int64], local: Vector, free: NDArray[np.int64], size: int) -> None:
        self.rows, self.columns = np.repeat(dofs, 8, axis=1).ravel(), np.tile(dofs, (1, 8)).ravel()
        self.local, self.free, self.size = local.ravel(), free, size

    def at(self, moduli: Vector) -> sp.csc_matrix:
        entries = np.outer(moduli, self.local).ravel()
        whole = sp.coo_matrix((entries, (self.rows, self.columns)), shape=(self.size, self.size)).tocsc()
        return whole[self.free][:, self.free]


def solve(nelx: int, nely: int, radius: float, most: int = 2000, published: bool = False) -> Beam:
    """The stiffest half beam of half the material, in nelx x nely cells, with at most so many iterations."""
    begin = time.perf_counter()
    x, y = np.divmod(np.arange(nelx * nely), nely)
    corner = x * (nely + 1) + y  # Nodes are numbered column by column, from the bottom upwards.
    nodes = np.stack([corner, corner + nely + 1, corner + nely + 2, corner + 1], axis=1)
    dofs = np.stack([2 * nodes, 2 * nodes + 1], axis=2).reshape(-1, 8)
    size = 2 * (nelx + 1) * (nely + 1)
    fixed = np.append(2 * np.arange(nely + 1), 2 * nelx * (nely + 1) + 1)
    free = np.setdiff1d(np.arange(size), fixed)
    local = element_stiffness()
    stiffness = (Triplets if published else Stiffness)(dofs, local, free, size)
    filtered = cone(nelx, nely, radius)
    back = filtered.T.tocsr()
    load, u = np.zeros(size), np.zeros(size)
    load[2 * nely + 1] = -1.0

    def compliance_at(density: Vector) -> tuple[float, Vector]:
        u[free] = splu(stiffness.at(LOW + density**PENALTY * (1 - LOW)), **SUPERLU).solve(load[free])
        energies = np.einsum("ea,ab,eb->e", u[dofs], local, u[dofs], optimize=True)
        slope = -PENALTY * (1 - LOW) * density ** (PENALTY - 1) * energies
        return float(load @ u), back @ slope

    def volume_of(new: Vector) -> float:
        return float((filtered @ new).sum() if published else volume @ new)

    design = np.full(nelx * nely, FRACTION)
    density, volume = design, back @ np.ones_like(design)
    compliance, derivative = compliance_at(density)
    small, iterations = 0, 0
    while small < 2 and iterations < most:
        low, high = 0.0, 1e9
        ratio = np.sqrt(np.maximum(-derivative, 0.0) / volume)
        least, largest = np.maximum(0.0, design - MOVE), np.minimum(1.0, design + MOVE)
        while high - low > (1e-3 if published else 1e-9) * (high + low):
            middle = 0.5 * (low + high)
            new = np.clip(design * ratio / np.sqrt(middle), least, largest)
            low, high = (middle, high) if volume_of(new) > FRACTION * len(design) else (low, middle)
        density = filtered @ new
        small = small + 1 if np.abs(new - design).max() <= CHANGE else 0
        design, iterations = new, iterations + 1
        compliance, derivative = compliance_at(density)
    return Beam(compliance, iterations, density, time.perf_counter() - begin)


if __name__ == "__main__":
    given = [float(each) for each in sys.argv[1:] if each != "--published"] or [60, 20, 2.4]
    beam = solve(int(given[0]), int(given[1]), given[2], published="--published" in sys.argv)
    print(f"compliance {beam.compliance:.6g}, {beam.iterations} iterations, {beam.seconds:.2f} s")
