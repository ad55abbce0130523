"""Karhunen-Loeve expansions of random fields on a finite element mesh."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import eigh, solve_triangular

from .covariance import Covariance

# Number of entries of one block of a table that is computed block by block.
_BLOCK = 2**17
# Number of rows of the factor that are allocated at once.
_CHUNK = 64
# Number of random nodes at which residuals are computed if the mesh has more nodes.
_PROBES = 400


@dataclass(frozen=True, eq=False)
class KarhunenLoeve:
    """A random field sum_k z_k sqrt(lambda_k) phi_k of zero mean, with standard normal z_k.

    Attributes:
        covariance: the covariance of the field.
        points: (dim, r) the places of the pivots, from which the modes are evaluated everywhere.
        coefficients: (r, m) the coefficients of c(x, points) in sqrt(lambda_k) phi_k(x).
        eigenvalues: (m,) lambda_k, descending; up to rounding they are lower bounds of the eigenvalues of the mesh.
        captured: sum of the eigenvalues, relative to the integral int c(x, x) dx of the variance.
        bound: upper bound of the error of the eigenvalues, and of their sum, because of the low rank. It always holds
            and is pessimistic where the covariance is rough.
        residuals: (m,) the norms of C M phi_k - lambda_k phi_k in M, which are upper bounds of the distance from
            lambda_k to an eigenvalue of the mesh. They are exact up to 400 nodes and else estimated from 400 nodes.
        pivots: (r,) the nodes of the pivots, in their order.
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

        At the nodes it is exactly the modes of the factorised covariance.
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
    """The leading eigenpairs of M C M phi = lambda M phi with phi^T M phi = 1 and the covariances C of the nodes.

    C is never formed. With a pivoted Cholesky factorisation C ~ L L^T of low rank r (Harbrecht, Peters and Schneider,
    Appl. Numer. Math. 62, 2012), the r x r matrix L^T M L has the same eigenvalues. The remainder C - L L^T is positive
    semidefinite, and its trace in M bounds the error of the eigenvalues. The rank grows until this bound or the
    residuals of all modes are below `tolerance` times the smallest eigenvalue of the modes. The costs are N r
    evaluations of the covariance, N r^2 operations and N r numbers. A mesh that resolves the correlation length
    suffices, because the modes can be evaluated at the points of any other mesh.

    The modes do not depend on rounding: the modes of a multiple eigenvalue are aligned with the axes of coordinates,
    and the sign of every mode makes its mean, weighted by a fixed function, positive.

    Args:
        covariance: the covariance of the field.
        nodes: (dim, N) nodes of a nodal finite element space.
        mass: (N, N) mass matrix of the space.
        modes: number of modes, or the largest number of modes if `share` is given too.
        share: take the fewest modes with this share of the variance, in (0, 1).
        tolerance: relative error of the smallest eigenvalue at which the factorisation stops.
        rank: largest number of pivots (at least twice `modes`); if it does not suffice for the tolerance, `bound` and
            `residuals` have the accuracy.

    Raises:
        ValueError: an argument is out of its range, or the mesh carries fewer modes or less variance than asked.
    """
    count, wanted = nodes.shape[1], _Wanted(modes, share)
    if mass.shape != (count, count):
        raise ValueError(f"expected a mass matrix of the {count:,} nodes, found one of shape {mass.shape}")
    if not tolerance >= 0.0:
        raise ValueError(f"expected a tolerance of at least 0, found {tolerance}")
    if rank < 1:
        raise ValueError(f"expected a rank of at least 1, found {rank}")
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
        eigenvalues, vectors = (each[..., ::-1] for each in eigh(gram))
        eigenvalues = np.maximum(eigenvalues, 0.0)
        bound = float(weights @ factor.left)
        rounding = max(bound if factor.complete else 0.0, count * np.finfo(float).eps * eigenvalues[0])
        carried = int((eigenvalues > rounding).sum())
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

        `carried` eigenvalues are more than rounding; all of them have the percentage `reached` of the variance.
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
    """L^T (r, N) of a pivoted Cholesky factorisation, in chunks of rows; the next pivot has the largest remainder."""

    def __init__(self, covariance: Covariance, nodes: np.ndarray) -> None:
        self.covariance, self.nodes = covariance, nodes
        self.left = covariance.variance(nodes).astype(float)
        # A remainder below this number is only rounding; LAPACK's dpstrf has the same limit.
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
        """Adds rows up to a rank, or until the remainder is only rounding."""
        while self.rank < rank and not self.complete:
            largest = float(self.left.max())
            if largest <= self.smallest:
                self.complete = True
                break
            # Of the nodes whose remainders are equal up to rounding, the first one is the pivot, so that rounding does
            # not choose.
            pivot = int(np.argmax(self.left >= (1.0 - 1e-9) * largest))
            row = self.covariance(self.nodes[:, [pivot]], self.nodes)[0]
            for chunk in self.rows():
                row -= chunk[:, pivot] @ chunk
            row /= math.sqrt(self.left[pivot])
            # The remainder at earlier pivots is zero.
            row[self._pivots] = 0.0
            self.left = np.maximum(self.left - row**2, 0.0)
            self.left[pivot] = 0.0
            if self.rank == _CHUNK * len(self._chunks):
                self._chunks.append(np.empty((_CHUNK, self.nodes.shape[1])))
            self._chunks[-1][self.rank % _CHUNK] = row
            self._pivots.append(pivot)
        self.complete = self.complete or self.rank == self.nodes.shape[1]

    def times(self, vectors: np.ndarray) -> np.ndarray:
        """(k, N) the columns of L V for V (r, k)."""
        values = np.zeros((vectors.shape[1], self.nodes.shape[1]))
        for k, rows in enumerate(self.rows()):
            values += vectors[_CHUNK * k : _CHUNK * k + len(rows)].T @ rows
        return values

    def back(self, vectors: np.ndarray) -> np.ndarray:
        """(r, k) the matrix B with L V = C[:, pivots] B."""
        lower = np.concatenate([rows[:, self._pivots] for rows in self.rows()]).T
        return np.asarray(solve_triangular(lower, vectors, trans="T", lower=True))


@dataclass(frozen=True)
class _Modes:
    """(m,) lambda_k, V (r, m), and the values (L V)^T (m, N), which are sqrt(lambda_k) phi_k at the nodes."""

    eigenvalues: np.ndarray
    vectors: np.ndarray
    values: np.ndarray


class _Probes:
    """Computes norms in M of residuals C M phi - lambda phi, from rows of C."""

    def __init__(self, covariance: Covariance, nodes: np.ndarray, weights: np.ndarray) -> None:
        self.covariance, self.nodes = covariance, nodes
        count = len(weights)
        if count <= _PROBES:
            self.chosen, self.weights = np.arange(count), weights
        else:
            # For nodes drawn by weight, the mean of squares times the volume is an unbiased estimate of the squared
            # norm.
            self.chosen = np.random.default_rng(0).choice(count, _PROBES, p=weights / weights.sum())
            self.weights = np.full(_PROBES, weights.sum() / _PROBES)

    def residuals(self, covectors: np.ndarray, found: _Modes) -> np.ndarray:
        """(m,) the norms, given the covectors (N, m) M sqrt(lambda_k) phi_k."""
        errors = -found.values[:, self.chosen].T * found.eigenvalues
        for part in _blocks(self.nodes.shape[1], len(self.chosen)):
            errors += self.covariance(self.nodes[:, self.chosen], self.nodes[:, part]) @ covectors[part]
        return np.sqrt(self.weights @ errors**2 / found.eigenvalues)


def _blocks(count: int, width: int) -> list[slice]:
    size = max(1, _BLOCK // max(width, 1))
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def _gram(factor: _Factor, mass: sp.csr_matrix, known: np.ndarray) -> np.ndarray:
    """L^T M L (r, r), whose leading part is known."""
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


def _modes(factor: _Factor, mass: sp.csr_matrix, eigenvalues: np.ndarray, vectors: np.ndarray, kept: int) -> _Modes:
    """The first modes, with a basis of every eigenspace and signs that do not depend on rounding."""
    nodes = factor.nodes
    low, high = nodes.min(axis=1, keepdims=True), nodes.max(axis=1, keepdims=True)
    # Coordinates in (-1, 1) along every axis.
    place = (2.0 * nodes - low - high) / np.maximum(high - low, np.finfo(float).tiny)
    axes = np.sqrt(np.arange(1.0, len(nodes) + 1.0))[:, None]
    # This function is even in every coordinate, so that modes on a box follow the axes; it has all even harmonics on a
    # disk.
    even = (axes * np.cosh(3.0 * place)).sum(axis=0)
    # This function has no symmetry, so that no mode has the weighted mean zero.
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
