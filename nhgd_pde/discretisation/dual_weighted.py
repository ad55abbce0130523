"""The error of the optimal objective that the mesh leaves, from dual-weighted residuals.

With the Lagrangian L(u, v, p) = f(u, v) - p . R(u, v) on the mesh with halved edges, and x = (u, v, p) the solution of
the coarse problem as functions of this mesh,

    J_fine - J = L(x) - J + 1/2 L'(x)(x_fine - x) + a remainder of third order

(Becker and Rannacher, Acta Numerica 10, 2001; Becker, Kapp and Rannacher, SIAM J. Control Optim. 39, 2000). The
remainder is zero for linear-quadratic problems. The first difference is what other quadrature points, boundary values
and curved boundaries change. In place of x_fine - x stand local recoveries of state and adjoint (see `surplus`); for
the control, whose derivative vanishes in all coarse directions, one Newton step with the second derivative of the
objective by the control at fixed state: on fine scales the share of the state in the reduced Hessian is small.

How uncertain an estimate is shows in a second recovery, from more nodes: where it differs from the first, the function
is not smooth on the scale of the cells. The absolute values of what this changes are added up node by node, so
that contributions that cancel are not taken for small ones.

The error of the coarse objective is J_fine - J times 1 / (1 - 2^-q), where the objective converges with the order q: 2k
for elements of degree k where the solution is smooth. Each part has its own order: that of a control of degree c is
2 (c + 1), and the references of controls are interpolated with the order 2. For the error of the steps in time the fine
problem has steps of half the length; the implicit Euler method is the discontinuous Galerkin method of degree 0, the
method of Crank and Nicolson the continuous one of degree 1 (Meidner and Vexler, SIAM J. Control Optim. 46, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..linalg.safe_lengths import dot
from .enriched import Enriched, Orders

# Conjugate gradients for the surplus of the control: largest number of steps, and relative square of the residual.
_STEPS, _REDUCTION = 20, 1e-4
# Relative error of the products with the inverse of the inner product in these steps, which is far below that.
_ROUGH = 1e-6

# Relative error of contributions for which there are no two recoveries to compare: quadrature errors of data with kinks
# do not fall as regularly as the extrapolation assumes.
_UNSURE = 0.3


@dataclass(frozen=True)
class Contributions:
    """What an estimate of J_fine - J, or of the error of J, consists of.

    Attributes:
        data: L(x) - J without `costs`.
        costs: the change of the terms in the control alone.
        nodes: (N of the fine space,) half the products of residuals and weights of state and adjoint at every
            coefficient, summed over times and scenarios.
        control: half the product of residual and weight of the control.
        uncertainty: how far their sum may be off, not negative.
    """

    data: float
    costs: float
    nodes: np.ndarray
    control: float
    uncertainty: float

    @property
    def total(self) -> float:
        return self.data + self.costs + float(self.nodes.sum()) + self.control

    def extrapolated(self, orders: Orders) -> Contributions:
        """The contributions to the error of J from those to J_fine - J."""
        state, costs, control = (1.0 / (1.0 - 2.0**-order) for order in (orders.state, orders.costs, orders.control))
        return Contributions(
            state * self.data, costs * self.costs, state * self.nodes, control * self.control, costs * self.uncertainty
        )


def contributions(
    finer: Enriched, state: np.ndarray, adjoint: np.ndarray, control: np.ndarray, objective: float
) -> Contributions:
    """The estimate of J_fine - J at a solution of the coarse problem.

    Args:
        state, adjoint: (1, N) coefficients, of an evolution those of all times.
        control: (p,) design variables.
        objective: J.
    """
    fine = finer.problem
    free, zero_mean = fine.equation.free, fine.equation.zero_mean

    def unknowns(whole: np.ndarray) -> Tensor:
        found = torch.from_numpy(np.ascontiguousarray(whole))
        return (found if zero_mean is None else zero_mean.pinned_to_zero(found))[:, free]

    u, p = unknowns(finer.state(state)), unknowns(finer.adjoint(adjoint))
    du, dp = unknowns(finer.state_surplus(state)), unknowns(finer.adjoint_surplus(adjoint))
    v = torch.from_numpy(finer.controls @ control)
    residual = fine.residual(u, v)
    by_state, by_control = fine.outer_derivatives(u, v)
    of_state = by_state - fine.state_product_transposed(u, v, p)
    kinks = 0.0 if fine.l1_weights is None else fine.l1_weights * torch.sign(v)
    of_control = by_control + kinks - fine.control_product_transposed(u, v, p)
    costs = fine.control_value(v) - finer.coarse.control_value(torch.from_numpy(control))
    data = fine.file_value(u, v) - dot(p, residual) - objective - costs
    nodes = np.zeros(fine.equation.size)
    products = 0.5 * (of_state * du - residual * dp)
    nodes[free] = products[0].numpy()
    summed = nodes.reshape(-1, fine.space.size).sum(axis=0)
    doubts = _UNSURE * products
    second = finer.second_surpluses(state, adjoint)
    if second is not None:
        doubts = 0.5 * (of_state * (unknowns(second[0]) - du) - residual * (unknowns(second[1]) - dp))
    better = (u + du, v)
    recovered = fine.outer_derivatives(*better)[1] + kinks - fine.control_product_transposed(*better, p + dp)
    step = _control_surplus(finer, u, v, recovered)
    of_controls = 0.5 * dot(of_control, step)
    uncertainty = float(doubts.abs().sum()) + _UNSURE * (abs(data) + abs(costs) + abs(of_controls))
    return Contributions(data, costs, summed, of_controls, uncertainty)


def _control_surplus(finer: Enriched, u: Tensor, v: Tensor, covector: Tensor) -> Tensor:
    """(p of the fine problem,) the surplus of the control, which is zero at coarse nodes, at bounds and at kinks.

    It is minus the inverse second derivative by the control, applied to the derivative (p,) with the recovered state
    and adjoint variable, both without their parts in the coarse space.
    """
    step = _local_step(finer, u, v, covector)
    transfer = finer.controls
    # Fine values that are those of one coarse coefficient.
    alone = np.flatnonzero((np.diff(transfer.indptr) == 1) & (np.asarray(transfer.sum(axis=1)).reshape(-1) == 1.0))
    unit = sp.csr_matrix(transfer[alone])
    share = 1.0 / np.maximum(np.asarray(unit.sum(axis=0)).reshape(-1), 1.0)
    at_coarse = share * (unit.T @ step.numpy()[alone])
    return step - torch.from_numpy(transfer @ at_coarse)


def _local_step(finer: Enriched, u: Tensor, v: Tensor, covector: Tensor) -> Tensor:
    """(p of the fine problem,) the Newton step of the control at fixed state, in directions that are not coarse."""
    fine, coarse, transfer = finer.problem, finer.coarse, finer.controls
    inside = torch.ones_like(v)
    if fine.bounds is not None:
        low, high = fine.bounds
        inside = ((v > low) & (v < high)).to(v.dtype)
    if fine.l1_weights is not None:
        # Zero is a kink of the term: a control that is zero stays there, as at a bound.
        inside = inside * (v != 0.0)

    def complement(covector: Tensor) -> Tensor:
        """The covector without its part in the coarse space."""
        below = torch.from_numpy(transfer.T @ covector.numpy())
        part = torch.from_numpy(transfer @ coarse.outer_metric.rough_gradient(below[None], _ROUGH)[0].numpy())
        return inside * (covector - fine.outer_metric.covector(part[None])[0])

    zero = torch.zeros_like(u)
    step, residual = torch.zeros_like(v), -complement(covector)
    direction, square, first = torch.zeros_like(v), 0.0, 0.0
    for k in range(_STEPS):
        steepest = inside * fine.outer_metric.rough_gradient(residual[None], _ROUGH)[0]
        before, square = square, dot(residual, steepest)
        first = first or square
        if not square > _REDUCTION * first or first == 0.0:
            break
        direction = steepest if k == 0 else steepest + square / before * direction
        image = inside * fine.outer_second_derivatives(u, v, zero, direction)[1]
        curvature = dot(direction, image)
        if not curvature > 0.0:
            # Nothing but the state holds the control in this direction: there is no local step.
            return step
        length = square / curvature
        step, residual = step + length * direction, residual - length * image
    return step
