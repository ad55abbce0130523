"""The Newton code that an expert writes by hand for `problems/log_conductivity_inversion.yaml`.

    -div(exp(m) grad u) = 1,     minimise 1/2 sum_i w_i (u(x_i) - d_i)^2 + alpha/2 ||grad m||^2

with the mesh, the spaces and the tools of `newton_baselines`. Nothing is imported from nhgd_pde.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from .newton_baselines import MOST_STEPS, Factors, Optimum, Square, Vector, conjugate_gradients

_SENSORS = Path(__file__).parents[1] / "problems" / "data" / "log_conductivity_sensors.csv"


class _Inversion:
    """The state equation of `log_conductivity`, its misfit, and the products with the Hessian at one point."""

    def __init__(self, n: int, alpha: float) -> None:
        self.square, self.factors, self.alpha = square, _, _ = Square(n), Factors(), alpha
        cells = square.cells
        data = np.loadtxt(_SENSORS, delimiter=",")
        self.values, self.weights = data[:, 2], data[:, 3]
        self.seen = csr_matrix(square.basis.probes(data[:, :2].T))[:, square.free].tocsr()
        self.seen_back = self.seen.T.tocsr()
        self.local = np.einsum("idc,jdc->ijc", square.slopes, square.slopes).reshape(9, -1)
        self.ends = np.arange(cells.shape[1] + 1) * 3
        slopes = [csr_matrix((each.T.ravel(), cells.T.ravel(), self.ends)) for each in square.slopes.swapaxes(0, 1)]
        self.slopes = [each[:, square.free].tocsr() for each in slopes]
        self.slopes_back = [each.T.tocsr() for each in self.slopes]
        self.load = square.load(np.ones_like(square.weights))[square.free]

    def move(self, m: Vector) -> float:
        """The objective at m; the factors are those of its state equation."""
        square, factors = self.square, self.factors
        self.m, self.kappa = m, square.weights * np.exp(square.at_points(m))
        factors.factorise(square.matrix(self.local * self.kappa.sum(axis=1)))
        self.u = factors.solve(self.load)
        self.misfit = self.seen @ self.u - self.values
        steep = m @ (square.stiffness @ m)
        return float(0.5 * self.misfit @ (self.weights * self.misfit) + 0.5 * self.alpha * steep)

    def derivative(self) -> Vector:
        """The derivative of the objective at the point."""
        square = self.square
        p = self.factors.solve(-(self.seen_back @ (self.weights * self.misfit)))
        self.of_u, self.of_p = ([each @ w for each in self.slopes] for w in (self.u, p))
        # The change of the coefficient of each cell by the control.
        self.mean = csr_matrix(((self.kappa @ square.shape.T).ravel(), square.cells.T.ravel(), self.ends))
        self.mean_back = self.mean.T.tocsr()
        self.power = self.of_u[0] * self.of_p[0] + self.of_u[1] * self.of_p[1]
        return self.alpha * (square.stiffness @ self.m) + self.mean_back @ self.power

    def product(self, d: Vector, gauss: bool) -> tuple[Vector, list[Vector]]:
        """The Hessian, or its Gauss-Newton part, times d."""
        square, factors = self.square, self.factors
        change = self.mean @ d
        du = -factors.solve(self._flux(change, self.of_u))
        right = self.seen_back @ (self.weights * (self.seen @ du))
        dp = -factors.solve(right if gauss else right + self._flux(change, self.of_p))
        image = self.alpha * (square.stiffness @ d)
        along = sum((g @ dp) * w for g, w in zip(self.slopes, self.of_u, strict=True))
        if not gauss:
            along = along + sum((g @ du) * w for g, w in zip(self.slopes, self.of_p, strict=True))
            image += square.load(self.power[:, None] * np.exp(square.at_points(self.m)) * square.at_points(d))
        return image + self.mean_back @ along, []

    def _flux(self, change: Vector, slope: list[Vector]) -> Vector:
        """The derivative of the matrix along a change of the coefficients, times the vector with this gradient."""
        return sum(back @ (change * g) for back, g in zip(self.slopes_back, slope, strict=True))


def log_conductivity(n: int, rtol: float = 1e-8, alpha: float = 1e-8) -> Optimum:
    """Inexact Newton-CG with Armijo's rule, preconditioned by the regularisation (Villa, Petra and Ghattas 2021).

    As there, the first steps are Gauss-Newton steps, whose matrix is always positive. The coefficient of the matrix of
    a cell is the integral of exp(m), so that nothing but this integral needs quadrature.
    """
    at, metric = _Inversion(n, alpha), Factors()
    metric.factorise((at.square.mass + at.square.stiffness / (4 * np.pi**2)).tocsc())
    value = at.move(np.full(at.square.x.shape[1], np.log(2.0)))
    first, steps = 0.0, 0
    while True:
        h = at.derivative()
        norm = float(np.sqrt(h @ metric.solve(h)))
        first = first or norm
        if norm <= rtol * first or steps >= MOST_STEPS:
            break
        # The systems are not solved better than the goal asks.
        goal = max(min(0.5, norm / first) * norm, 0.3 * rtol * first)
        product = partial(at.product, gauss=norm > 1e-2 * first)
        d, _ = conjugate_gradients(product, -h, metric.solve, goal)
        m, slope, share = at.m, float(h @ d), 1.0
        while (reached := at.move(m + share * d)) > value + 1e-4 * share * slope and share > 1e-6:
            share /= 2
        value, steps = reached, steps + 1
    return Optimum(value, norm / first, steps, at.factors.factorisations, at.factors.solves, at.m)
