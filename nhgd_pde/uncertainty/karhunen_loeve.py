"""Karhunen-Loeve expansions of random fields on a finite element mesh."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import eigh, solve_triangular

from .covariance import Covariance

# Entries of one block of a table that is not kept.
_BLOCK = 2**17
# Rows of the factor that are allocated at once.
_CHUNK = 64
# Nodes at which residuals are looked at, where the mesh has more.
_PROBES = 400


@dataclass(frozen=True, eq=False)
class KarhunenLoeve:
    """A random field sum_k z_k sqrt(lambda_k) phi_k of zero mean, with standard normal z_k.

    Attributes:
        covariance: of the field.
        points: (dim, r) the pivots' places, which carry the modes everywhere else.
        coefficients: (r, m) of c(x, points) in sqrt(lambda_k) phi_k(x).
        eigenvalues: (m,) lambda_k, descending; lower bounds of those of the mesh, apart from rounding.
        captured: share of the variance integral int c(x, x) dx that the eigenvalues sum to.
        bound: by how much one of them, and all together, can be too small because of the low rank; always holds,
            pessimistic where the covariance is rough.
        residuals: (m,) the norms of C M phi_k - lambda_k phi_k in M: the distance from lambda_k to an eigenvalue of
            the mesh is at most that. Exact up to 400 nodes, estimated from 400 random nodes above.
        pivots: (r,) the nodes chosen, in their order.
    """

    covariance: Covariance
    points: np.ndarray
    coefficients: np.ndarray
    eigenvalues: np.ndarray
    captured: float
    bound: float
    residuals: np.ndarray
    pivots: np.ndarray

    @property
    def modes(self) -> int:
        return len(self.eigenvalues)

    @property
    def rank(self) -> int:
        return len(self.pivots)

    def at(self, points: np.ndarray) -> np.ndarray:
        """(m, P) sqrt(lambda_k) phi_k at any points (dim, P): the Nystrom extension through the pivots.

        At the nodes it equals the nodal values of the modes of the factorised covariance exactly.
        """
        values = np.empty((self.modes, points.shape[1]))
        for part in _blocks(points.shape[1], self.rank):
            values[:, part] = (self.covariance(points[:, part], self.points) @ self.coefficients).T
        return values

    def __repr__(self) -> str:
        return (
            f"{self.modes} modes with {100 * self.captured:.4g} % of the variance, eigenvalues "
            f"{self.eigenvalues[0]:.3g} to {self.eigenvalues[-1]:.3g}, residuals up to {self.residuals.max():.1g}; "
            f"{self.rank} pivots leave {self.bound:.2g}"
        )


def karhunen_loeve(
    covariance: Covariance,
    nodes: np.ndarray,
    mass: sp.csr_matrix,
    modes: int | None = None,
    share: float | None = None,
    *,
    tolerance: float = 1e-3,
    rank: int = 1024,
) -> KarhunenLoeve:
    """The leading eigenpairs of M C M phi = lambda M phi, C the covariances of the nodes, phi^T M phi = 1.

    C is never formed: a pivoted Cholesky factorisation C ~ L L^T of low rank r (Harbrecht, Peters and Schneider, Appl.
    Numer. Math. 62, 2012) leaves the r x r matrix L^T M L, which has the same eigenvalues. What it leaves of C is
    positive semidefinite, and its trace in M bounds the error of the eigenvalues. The rank grows until this
    bound, or the residuals of all modes kept, are below `tolerance` times the smallest eigenvalue kept. Costs
    N r evaluations of the covariance, N r^2 operations and N r numbers; a mesh that resolves the correlation length
    suffices, because the modes can be evaluated at the points of any other.

    The modes do not depend on rounding: those of one eigenvalue are turned to the axes of coordinates, and each is
    positive in its mean weighted by a fixed function.

    Args:
        covariance: of the field.
        nodes: (dim, N) of a nodal finite element space.
        mass: (N, N) mass matrix of the space.
        modes: how many, or at most how many where `share` is given too.
        share: keep the fewest modes that carry this share of the variance, in (0, 1).
        tolerance: relative error of the smallest eigenvalue kept, at which the factorisation stops.
        rank: most pivots (at least twice `modes`); where they do not suffice for the tolerance, `bound` and
            `residuals` say what was reached.

    Raises:
        ValueError: an argument is out of its range, or the mesh carries fewer modes or less variance than asked.
    """
    count, wanted = nodes.shape[1], _Wanted(modes, share)
    _check(count, mass, tolerance, rank)
    wanted.check(count)
    most = min(count, rank if modes is None else max(rank, 2 * modes))
    factor, matrix = _Factor(covariance, nodes), sp.csr_matrix(mass)
    # M is below the diagonal matrix of its absolute row sums (Gershgorin).
    weights = np.asarray(abs(matrix).sum(axis=1)).ravel()
    variance = float((matrix @ covariance.variance(nodes)).sum())
    found, residuals = _accurate_modes(factor, matrix, weights, wanted, variance, most, tolerance)
    return KarhunenLoeve(
        covariance=covariance,
        points=nodes[:, factor.pivots].copy(),
        coefficients=factor.back(found.vectors),
        eigenvalues=found.eigenvalues,
        captured=float(found.eigenvalues.sum()) / variance,
        bound=float(weights @ factor.left),
        residuals=residuals,
        pivots=factor.pivots,
    )


def _accurate_modes(
    factor: _Factor,
    mass: sp.csr_matrix,
    weights: np.ndarray,
    wanted: _Wanted,
    variance: float,
    most: int,
    tolerance: float,
) -> tuple[_Modes, np.ndarray]:
    """The modes and their residuals, from a factorisation that grows until they are accurate or it has `most` rows."""
    count = factor.nodes.shape[1]
    probes = _Probes(factor.covariance, factor.nodes, weights)
    gram = np.empty((0, 0))
    target = min(most, max(32, 2 * (wanted.modes or 0)))
    while True:
        factor.grow(target)
        gram = _gram(factor, mass, gram)
        done = factor.complete or factor.rank == most
        eigenvalues, vectors = _descending(gram)
        bound = float(weights @ factor.left)
        carried = _carried(eigenvalues, bound if factor.complete else 0.0, count)
        kept = wanted.count(eigenvalues, variance)
        if kept <= carried:
            found = _modes(factor, mass, eigenvalues[:carried], vectors[:, :carried], kept)
            residuals = probes.residuals(mass @ found.values.T, found)
            worst = min(bound, float(residuals.max()))
            if done or worst <= tolerance * eigenvalues[kept - 1]:
                return found, residuals
        elif done:
            raise ValueError(wanted.refusal(factor, carried, 100.0 * float(eigenvalues.sum()) / variance))
        target = min(most, factor.rank + max(32, factor.rank // 2))


@dataclass(frozen=True)
class _Wanted:
    """The modes that are asked for: a number, the fewest that carry a share of the variance, or the fewer of both."""

    modes: int | None
    share: float | None

    def check(self, nodes: int) -> None:
        """Raises: ValueError: a mesh of so many nodes cannot carry the modes, or they are not determined."""
        modes, share = self.modes, self.share
        if modes is None and share is None:
            raise ValueError("expected a number of modes or a share of the variance, found neither")
        if modes is not None and modes < 1:
            raise ValueError(f"expected at least 1 mode, found {modes}")
        if modes is not None and modes > nodes:
            raise ValueError(f"{modes:,} modes are asked for, but a mesh of {nodes:,} nodes carries at most {nodes:,}")
        if share is not None and not 0.0 < share < 1.0:
            raise ValueError(f"expected a share of the variance in (0, 1), found {share}")

    def count(self, eigenvalues: np.ndarray, variance: float) -> int:
        """The number of modes; more than there are eigenvalues where these do not carry the share."""
        if self.share is None:
            assert self.modes is not None
            return self.modes
        needed = int(np.searchsorted(np.cumsum(eigenvalues), self.share * variance)) + 1
        return needed if self.modes is None else min(needed, self.modes)

    def refusal(self, factor: _Factor, carried: int, reached: float) -> str:
        """A sentence on why a factorisation does not carry the modes.

        Args:
            factor: the factorisation.
            carried: number of eigenvalues that are more than rounding.
            reached: percentage of the variance that the eigenvalues carry.
        """
        count = factor.nodes.shape[1]
        if self.share is None:
            return (
                f"{self.modes:,} modes are asked for, but on this mesh of {count:,} nodes the covariance has the "
                f"numerical rank {carried:,}: ask for at most {carried:,}"
            )
        asked = f"{100 * self.share:.6g} % of the variance are asked for, but "
        if factor.complete:
            return (
                f"{asked}a mesh of {count:,} nodes carries {reached:.4g} %: ask for a smaller share or refine the mesh"
            )
        return (
            f"{asked}{factor.rank:,} pivots carry {reached:.4g} %: ask for a smaller share, a number of modes, or a "
            "longer correlation length"
        )


class _Factor:
    """L^T of a pivoted Cholesky factorisation, (r, N) in chunks of rows; the pivot is the largest of what is left."""

    def __init__(self, covariance: Covariance, nodes: np.ndarray) -> None:
        self.covariance, self.nodes = covariance, nodes
        self.left = covariance.variance(nodes).astype(float)
        # What rounding makes of zero (LAPACK's dpstrf stops there too).
        self.smallest = nodes.shape[1] * np.finfo(float).eps * self.left.max()
        self.complete = False
        self._chunks: list[np.ndarray] = []
        self._pivots: list[int] = []

    @property
    def rank(self) -> int:
        return len(self._pivots)

    @property
    def pivots(self) -> np.ndarray:
        return np.array(self._pivots, dtype=np.int64)

    def rows(self) -> list[np.ndarray]:
        """The rows found so far, chunk by chunk."""
        return [chunk[: self.rank - _CHUNK * k] for k, chunk in enumerate(self._chunks)]

    def grow(self, rank: int) -> None:
        """More rows, up to a rank or until nothing but rounding is left."""
        while self.rank < rank and not self.complete:
            largest = float(self.left.max())
            if largest <= self.smallest:
                self.complete = True
                break
            # The first of those that are equal apart from rounding, so that rounding does not choose.
            pivot = int(np.argmax(self.left >= (1.0 - 1e-9) * largest))
            row = self.covariance(self.nodes[:, [pivot]], self.nodes)[0]
            for chunk in self.rows():
                row -= chunk[:, pivot] @ chunk
            row /= math.sqrt(self.left[pivot])
            # Zero there by definition.
            row[self._pivots] = 0.0
            self.left = np.maximum(self.left - row**2, 0.0)
            self.left[pivot] = 0.0
            if self.rank == _CHUNK * len(self._chunks):
                self._chunks.append(np.empty((_CHUNK, self.nodes.shape[1])))
            self._chunks[-1][self.rank % _CHUNK] = row
            self._pivots.append(pivot)
        self.complete = self.complete or self.rank == self.nodes.shape[1]

    def times(self, vectors: np.ndarray) -> np.ndarray:
        """(k, N) the columns of L V, V (r, k)."""
        values = np.zeros((vectors.shape[1], self.nodes.shape[1]))
        for k, rows in enumerate(self.rows()):
            values += vectors[_CHUNK * k : _CHUNK * k + len(rows)].T @ rows
        return values

    def back(self, vectors: np.ndarray) -> np.ndarray:
        """(r, k) B such that L V = C[:, pivots] B."""
        lower = np.concatenate([rows[:, self._pivots] for rows in self.rows()]).T
        return np.asarray(solve_triangular(lower, vectors, trans="T", lower=True))


@dataclass(frozen=True)
class _Modes:
    """Eigenpairs: values (m, N) sqrt(lambda_k) phi_k at the nodes, vectors (r, m) with values = (L V)^T."""

    eigenvalues: np.ndarray
    vectors: np.ndarray
    values: np.ndarray


class _Probes:
    """Residuals C M phi - lambda phi in M, from the rows of C of some nodes."""

    def __init__(self, covariance: Covariance, nodes: np.ndarray, weights: np.ndarray) -> None:
        self.covariance, self.nodes = covariance, nodes
        count = len(weights)
        if count <= _PROBES:
            self.chosen, self.weights = np.arange(count), weights
        else:
            # Drawn by weight, the mean of squares times the volume is an unbiased estimate of the squared norm.
            self.chosen = np.random.default_rng(0).choice(count, _PROBES, p=weights / weights.sum())
            self.weights = np.full(_PROBES, weights.sum() / _PROBES)

    def residuals(self, covectors: np.ndarray, found: _Modes) -> np.ndarray:
        """(m,) from covectors (N, m) M sqrt(lambda_k) phi_k."""
        errors = -found.values[:, self.chosen].T * found.eigenvalues
        for part in _blocks(self.nodes.shape[1], len(self.chosen)):
            errors += self.covariance(self.nodes[:, self.chosen], self.nodes[:, part]) @ covectors[part]
        return np.sqrt(self.weights @ errors**2 / found.eigenvalues)


def _blocks(count: int, width: int) -> list[slice]:
    size = max(1, _BLOCK // max(width, 1))
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def _gram(factor: _Factor, mass: sp.csr_matrix, known: np.ndarray) -> np.ndarray:
    """L^T M L (r, r), of which the leading part is known."""
    before, after = len(known), factor.rank
    gram = np.empty((after, after))
    gram[:before, :before] = known
    rows = factor.rows()
    for k, right in enumerate(rows):
        first, last = _CHUNK * k, _CHUNK * k + len(right)
        if last <= before:
            continue
        product = (mass @ right.T).T
        for i, left in enumerate(rows[: k + 1]):
            block = left @ product.T
            gram[_CHUNK * i : _CHUNK * i + len(left), first:last] = block
            gram[first:last, _CHUNK * i : _CHUNK * i + len(left)] = block.T
    return gram


def _descending(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    eigenvalues, vectors = eigh(gram)
    return np.maximum(eigenvalues[::-1], 0.0), vectors[:, ::-1]


def _carried(eigenvalues: np.ndarray, rounding: float, count: int) -> int:
    """How many eigenvalues are more than rounding."""
    return int((eigenvalues > max(rounding, count * np.finfo(float).eps * eigenvalues[0])).sum())


def _modes(factor: _Factor, mass: sp.csr_matrix, eigenvalues: np.ndarray, vectors: np.ndarray, kept: int) -> _Modes:
    """The first modes, in a basis of every eigenspace and with signs that rounding does not choose."""
    nodes = factor.nodes
    low, high = nodes.min(axis=1, keepdims=True), nodes.max(axis=1, keepdims=True)
    # In (-1, 1) along every axis.
    place = (2.0 * nodes - low - high) / np.maximum(high - low, np.finfo(float).tiny)
    axes = np.sqrt(np.arange(1.0, len(nodes) + 1.0))[:, None]
    # Even in every coordinate, so that modes on a box follow its axes, and of all even harmonics on a disk.
    even = (axes * np.cosh(3.0 * place)).sum(axis=0)
    # No symmetry at all, so that no mode has the mean zero.
    skew = np.exp((axes * place).sum(axis=0))
    first, values, turned = 0, eigenvalues.copy(), vectors.copy()
    while first < kept:
        last = first + 1
        while last < len(eigenvalues) and eigenvalues[last] >= (1.0 - 1e-8) * eigenvalues[last - 1]:
            last += 1
        if last - first > 1:
            here = factor.times(vectors[:, first:last])
            form = here @ (mass @ (even * here).T)
            _, turn = eigh(-0.5 * (form + form.T))
            turned[:, first:last] = vectors[:, first:last] @ turn
            values[first:last] = (turn**2).T @ eigenvalues[first:last]
        first = last
    turned, values = turned[:, :kept], values[:kept]
    nodal = factor.times(turned)
    signs = np.where(nodal @ (mass @ skew) < 0.0, -1.0, 1.0)
    return _Modes(values, turned * signs, nodal * signs[:, None])


def _check(count: int, mass: sp.csr_matrix, tolerance: float, rank: int) -> None:
    if mass.shape != (count, count):
        raise ValueError(f"expected a mass matrix of the {count:,} nodes, found one of shape {mass.shape}")
    if not tolerance >= 0.0:
        raise ValueError(f"expected a tolerance of at least 0, found {tolerance}")
    if rank < 1:
        raise ValueError(f"expected a rank of at least 1, found {rank}")
