"""Newton codes that an expert writes by hand, one for each problem, to compare nhgd-pde with.

Unit square, n x n cells cut into triangles, state and control continuous and piecewise linear (P1), u = 0 on the
boundary:

    semilinear   -Lap u + u^3 = f + v,        1/2 ||u - d||^2 + alpha/2 ||v||^2
    bounds       -Lap u = f + v, a <= v <= b  with the same objective

The data are those of `problems/semilinear_control.yaml` and `problems/poisson_bounds.yaml`; `inversion_baseline` has
the code for `problems/log_conductivity_inversion.yaml`. scikit-fem makes the mesh, the constant matrices and the
quadrature; SuperLU factorises, with the options that suit symmetric matrices. Patterns are made once. Nothing is
imported from nhgd_pde.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import skfem
from numpy.typing import NDArray
from scipy.sparse import csc_matrix, csr_matrix
from scipy.sparse.linalg import SuperLU, splu
from skfem.models.poisson import laplace, mass

Vector = NDArray[np.float64]
Product = Callable[[Vector], tuple[Vector, list[Vector]]]

# Newton steps at most, and the relative accuracy of state and adjoint variable at the end.
MOST_STEPS, _WELL_KNOWN = 50, 1e-7


@dataclass(frozen=True)
class Optimum:
    """The result of a code, with its work.

    Attributes:
        objective: the objective at the solution.
        reduction: norm of the gradient there, relative to the one at the start.
        iterations: Newton steps.
        factorisations, solves: of and with matrices of the state equation.
        control: (nodes,) values at the nodes.
    """

    objective: float
    reduction: float
    iterations: int
    factorisations: int
    solves: int
    control: Vector


@dataclass
class Factors:
    """Factors of the last symmetric matrix, and the work so far."""

    factorisations: int = 0
    solves: int = 0
    last: SuperLU | None = None

    def factorise(self, matrix: csc_matrix) -> None:
        self.last = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        self.factorisations += 1

    def solve(self, b: Vector) -> Vector:
        assert self.last is not None
        self.solves += 1
        return self.last.solve(b)


@dataclass
class Square:
    """The mesh, its constant matrices and the integrals over its cells.

    Attributes:
        x: (2, nodes) the nodes.
        free: (N,) the nodes that are not on the boundary.
        cells: (3, cells) the nodes of each triangle.
        shape: (3, points) the basis functions at the quadrature points, which is exact to degree two.
        weights: (cells, points) quadrature weights.
        slopes: (3, 2, cells) the gradients of the basis functions.
        mass, stiffness: (nodes, nodes).
    """

    n: int
    x: Vector = field(init=False)
    places: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        ticks = np.linspace(0.0, 1.0, self.n + 1)
        self.basis = basis = skfem.Basis(skfem.MeshTri.init_tensor(ticks, ticks), skfem.ElementTriP1(), intorder=2)
        self.x, self.cells = basis.mesh.p, basis.mesh.t
        self.free = np.flatnonzero(((self.x > 0.0) & (self.x < 1.0)).all(axis=0))
        self.weights = basis.dx
        self.shape = np.array([np.asarray(basis.basis[k][0])[0] for k in range(3)])
        self.slopes = np.array([basis.basis[k][0].grad[:, :, 0] for k in range(3)])
        self.mass: csr_matrix = mass.assemble(basis)
        self.stiffness: csr_matrix = laplace.assemble(basis)

    @property
    def points(self) -> Vector:
        """(2, cells, points) the quadrature points."""
        return self.basis.global_coordinates()

    def at_points(self, nodal: Vector) -> Vector:
        """Values (nodes,) -> (cells, points)."""
        return nodal[self.cells].T @ self.shape

    def load(self, values: Vector) -> Vector:
        """The integrals (nodes,) of values (cells, points) times each basis function."""
        parts = self.shape @ (self.weights * values).T
        return np.bincount(self.cells.ravel(), parts.ravel(), self.x.shape[1])

    def matrix(self, parts: Vector) -> csc_matrix:
        """The sum of the matrices (9, cells) of the cells between free nodes; its pattern is made once."""
        if self.places is None:
            number = np.full(self.x.shape[1], -1)
            number[self.free] = np.arange(self.free.size)
            rows, columns = (number[self.cells[list(k)]] for k in ([0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2] * 3))
            kept = (rows >= 0) & (columns >= 0)
            keys, places = np.unique(columns[kept] * self.free.size + rows[kept], return_inverse=True)
            ends = np.searchsorted(keys, np.arange(self.free.size + 1) * self.free.size)
            self.places = kept, places, (keys % self.free.size).astype(np.int32), ends.astype(np.int32)
        kept, places, rows, ends = self.places
        return csc_matrix((np.bincount(places, parts[kept], rows.size), rows, ends), (self.free.size,) * 2)

    def spread(self, values: Vector) -> Vector:
        """Values at the free nodes (N,), with zeros on the boundary (nodes,)."""
        whole = np.zeros(self.x.shape[1])
        whole[self.free] = values
        return whole


def conjugate_gradients(
    product: Product, b: Vector, inverse: Callable[[Vector], Vector], goal: float
) -> tuple[Vector, list[Vector]]:
    """H d = b until r . inverse(r) is below the square of a goal, or a direction has no positive curvature.

    A product returns H d and vectors that change linearly with d; these are summed along the way.
    """
    d, r, changes = np.zeros_like(b), b, None
    z = inverse(r)
    direction, square = z, float(r @ z)
    while square > goal**2:
        image, along = product(direction)
        curvature = float(direction @ image)
        if curvature <= 0.0:
            return (direction, along) if changes is None else (d, changes)
        step = square / curvature
        d, r = d + step * direction, r - step * image
        before = changes or [np.zeros_like(each) for each in along]
        changes = [sum_ + step * each for sum_, each in zip(before, along, strict=True)]
        z = inverse(r)
        square, last = float(r @ z), square
        direction = z + square / last * direction
    return d, changes or []


def semilinear(n: int, rtol: float = 1e-8, alpha: float = 1e-3) -> Optimum:
    """Lagrange-Newton steps, each reduced to the control: (alpha + A^-1 W A^-1 M) dv = -gradient.

    M and A = K + 3 u^2 act between free nodes, on the boundary the control is zero as the adjoint variable is. W = M -
    6 u p is the second derivative of the Lagrangian. The conjugate gradients use the inner product of M. After each
    step the factors that are there correct state and adjoint variable until their residuals no longer count.
    """
    square, factors = Square(n), Factors()
    free, points = square.free, square.points
    s = np.sin(np.pi * points)
    y, wave = s[0] * s[1], np.sin(2 * np.pi * points[0]) * np.sin(2 * np.pi * points[1])
    load = square.load(8 * np.pi**2 * y + 64 * y**3 + 10 * wave)[free]
    sx, sy = np.sin(np.pi * square.x)
    wave = np.sin(2 * np.pi * square.x[0]) * np.sin(2 * np.pi * square.x[1])
    target = 4 * sx * sy - 0.01 * (8 * np.pi**2 + 48 * sx**2 * sy**2) * wave
    mass_rows, stiffness = square.mass[free], square.stiffness[free][:, free].tocsc()
    mass_free = mass_rows[:, free]
    pairs = (square.shape[:, None] * square.shape[None]).reshape(9, -1)

    def weighted(values: Vector) -> csc_matrix:
        return square.matrix(pairs @ (square.weights * values).T)

    def norm(a: Vector) -> float:
        return float(np.sqrt(a @ (mass_free @ a)))

    u, v, p = np.zeros(free.size), np.zeros(free.size), np.zeros(free.size)
    accuracy, first, steps = 1e-3, 0.0, 0
    while True:
        # The first state takes Newton steps, the later ones the factors of the last step.
        du = np.full_like(u, np.inf)
        while not norm(du) <= accuracy * norm(u):
            at = square.at_points(square.spread(u))
            if steps == 0:
                factors.factorise(stiffness + weighted(3 * at**2))
            du = factors.solve(load + mass_free @ v - stiffness @ u - square.load(at**3)[free])
            u = u + du
        at = square.at_points(square.spread(u))
        jacobian = stiffness + weighted(3 * at**2)
        misfit = mass_rows @ (square.spread(u) - target)
        dp = np.full_like(p, np.inf)
        while not norm(dp) <= accuracy * norm(p):
            dp = factors.solve(misfit - jacobian @ p)
            p = p + dp
        gradient = alpha * v + p
        left = norm(gradient)
        first = first or left
        if (left <= rtol * first and accuracy <= _WELL_KNOWN) or steps >= MOST_STEPS:
            break
        # The errors of u and p have to be below the gradient that the next step leaves.
        accuracy = min(accuracy, 0.1 * max((left / first) ** 2, 0.1 * rtol))
        factors.factorise(jacobian)
        bent = mass_free - weighted(6 * at * square.at_points(square.spread(p)))
        dv, du = _reduced_step(
            factors, mass_free, bent, alpha, gradient, max(min(0.1, left / first) * left, 0.3 * rtol * first)
        )
        v, u, steps = v + dv, u + du, steps + 1
    misfit_all = square.spread(u) - target
    value = 0.5 * misfit_all @ (square.mass @ misfit_all) + 0.5 * alpha * v @ (mass_free @ v)
    return Optimum(float(value), left / first, steps, factors.factorisations, factors.solves, square.spread(v))


def _reduced_step(
    factors: Factors, mass_free: csr_matrix, bent: csc_matrix, alpha: float, gradient: Vector, goal: float
) -> tuple[Vector, Vector]:
    """Conjugate gradients in the inner product of M; the changes of the control and of the state."""
    d, state, r = np.zeros_like(gradient), np.zeros_like(gradient), -gradient
    mr = mass_free @ r
    square = float(r @ mr)
    direction, m_direction = r.copy(), mr.copy()
    while square > goal**2:
        change = factors.solve(m_direction)
        product = factors.solve(bent @ change) + alpha * direction
        curvature = float(m_direction @ product)
        if curvature <= 0.0:
            break
        step = square / curvature
        d += step * direction
        state += step * change
        r -= step * product
        mr = mass_free @ r
        square, before = float(r @ mr), square
        direction = r + square / before * direction
        m_direction = mr + square / before * m_direction
    return d, state


def bounds(n: int, rtol: float = 1e-8, alpha: float = 1e-2, low: float = -2.0, high: float = 3.0) -> Optimum:
    """The primal-dual active set method (Hintermueller, Ito and Kunisch 2003), a semismooth Newton method.

    The Newton system in the inactive nodes is solved by conjugate gradients, preconditioned by a few Chebyshev steps
    for their mass matrix (Wathen and Rees 2009), so that only the compact part of the Hessian is left to them. State
    and adjoint variable follow the steps: one product takes two solves, and no others are needed.
    """
    square, factors = Square(n), Factors()
    free, x = square.free, square.x
    s = np.sin(np.pi * square.points)
    wave = np.prod(np.sin(2 * np.pi * square.points), axis=0)
    load = square.load(2 * np.pi**2 * s[0] * s[1] - np.clip(-5 * wave, low, high))[free]
    wave = np.prod(np.sin(2 * np.pi * x), axis=0)
    target = np.prod(np.sin(np.pi * x), axis=0) - 0.4 * np.pi**2 * wave
    matrix, rows = square.mass, square.mass[free]
    mass_free, columns = rows[:, free], matrix[:, free].tocsr()
    lumped = np.asarray(matrix.sum(axis=1)).ravel()
    factors.factorise(square.stiffness[free][:, free].tocsc())

    def product(d: Vector) -> tuple[Vector, list[Vector]]:
        """The Hessian times d, and the changes of state and adjoint variable along d."""
        du = factors.solve(rows @ d)
        dp = factors.solve(mass_free @ du)
        return alpha * (matrix @ d) + columns @ dp, [du, dp]

    def distance(v: Vector, h: Vector, unit: float) -> float:
        step = (v - np.clip(v - unit * h / lumped, low, high)) / unit
        return float(np.sqrt(step @ (lumped * step)))

    v = np.zeros(x.shape[1])
    u = factors.solve(load)
    p = factors.solve(rows @ (square.spread(u) - target))
    h = columns @ p
    first = distance(v, h, (high - low) / float(np.sqrt(h @ (h / lumped))))
    left, steps = distance(v, h, 1 / alpha), 0
    while left > rtol * first and steps < MOST_STEPS:
        trial = v - h / (alpha * lumped)
        inactive = ((trial > low) & (trial < high)).astype(float)
        d = np.where(inactive == 1.0, 0.0, np.clip(trial, low, high) - v)
        if d.any():
            image, (du, dp) = product(d)
            v, h, u, p = v + d, h + image, u + du, p + dp

        def restricted(d: Vector, inactive: Vector = inactive) -> tuple[Vector, list[Vector]]:
            image, along = product(d)
            return inactive * image, along

        inverse = partial(_chebyshev, matrix, alpha * lumped, inactive)
        goal = max(0.3 * rtol * first, 0.01 * left) / np.sqrt(alpha)
        d, along = conjugate_gradients(restricted, -inactive * h, inverse, goal)
        if along:
            v, u, p = v + d, u + along[0], p + along[1]
        h = alpha * (matrix @ v) + columns @ p
        left, steps = distance(v, h, 1 / alpha), steps + 1
    misfit = square.spread(u) - target
    value = 0.5 * misfit @ (matrix @ misfit) + 0.5 * alpha * v @ (matrix @ v)
    return Optimum(float(value), left / first, steps, factors.factorisations, factors.solves, v)


def _chebyshev(matrix: csr_matrix, scaled: Vector, inactive: Vector, b: Vector) -> Vector:
    """Six steps for the mass matrix of the inactive nodes; its eigenvalues over the lumped one are in [1/2, 2].

    With alpha times the lumped mass matrix as `scaled`, they are for alpha times the mass matrix.
    """
    alpha = scaled.sum() / matrix.sum()
    centre, half = 1.25, 0.75
    step = inactive * b / scaled / centre
    found, left, ratio = step, b, half / centre
    for _ in range(5):
        left = left - alpha * inactive * (matrix @ step)
        before, ratio = ratio, 1.0 / (2.0 * centre / half - ratio)
        step = ratio * before * step + 2.0 * ratio / half * (inactive * left / scaled)
        found = found + step
    return found
