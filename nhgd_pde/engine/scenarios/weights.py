"""Weights with which a few scenarios represent all of them, and the error of the weighted mean.

The mean over all scenarios of any function of their random variables costs nothing, as no equation is solved for it.
Let a quantity be h_s = sum_j beta_j phi_j(z_s) + r_s with polynomials phi_j of low degree, independent coefficients of
variance rho_j sigma^2 and rests of variance sigma^2. Weights w of the first b scenarios miss its mean over all of them,
which have weights W, by

    sigma^2 ( sum_j rho_j (sum_s w_s phi_j(z_s) - mean phi_j)^2 + sum_(s <= b) (w_s - W_s)^2 + sum_(s > b) W_s^2 )

in mean square. `balanced` minimises that over w >= 0: the best linear prediction of kriging, and the calibrated
estimator of survey sampling (Deville and Saerndal 1992, J. Amer. Stat. Assoc. 87). sigma^2 is estimated from the
scenarios seen. Even weights are those of rho = 0.

The nominal scenario, whose variables are zero and which is solved anyway, is seen before all others, with W = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

# Assumed variances of the constant, linear, square and product coefficients, relative to the remainder. That of the
# constant is so large because the mean of a constant has to be exact.
_CONSTANT, _LINEAR, _SQUARE, _PRODUCT = 1e6, 10.0, 1.0, 0.3
# Largest numbers of functions and of scenarios for which the dense matrices of the model are worth their cost.
_MOST_FUNCTIONS = 500
MOST_SCENARIOS = 1000
_MOST_CONSTRAINED = 500
_MOST_CONTRASTS = 32


@dataclass(frozen=True, eq=False)
class Balance:
    """
    Attributes:
        weights: (b + 1,) of the nominal scenario and b others, not negative, with the sum one.
        factor: the mean square error of a mean, divided by sigma^2.
        root: (b + 1, b + 1) a matrix which, multiplied by its transpose, gives the inverse of the covariance of the h_s
            over sigma^2, with the constant eliminated; None for the identity.
    """

    weights: Tensor
    factor: float
    root: Tensor | None = None

    @property
    def count(self) -> int:
        """b."""
        return len(self.weights) - 1

    def contrasts(self) -> Tensor:
        """Coefficients c (b + 1, k) for which sum_j |sum_s c_sj h_s|^2 is the mean square error of sum_s w_s h_s.

        Of many scenarios, random combinations of contrasts with the right mean (Hutchinson 1990, Commun. Stat. Simul.
        19): k is 32 at most, whatever b, for a relative standard deviation of the error of 1/8 where the h_s differ in
        one direction, and less in more of them.
        """
        b, w = len(self.weights), self.weights
        if b < 2:
            # The error is taken to be as large as the only value.
            return math.sqrt(self.factor) * torch.ones(b, b).to(w)
        signs = random_signs(b, w)
        probes = torch.eye(b).to(w) if signs is None else signs
        scale = math.sqrt(max(self.factor, 0.0) / (b - 1))
        if self.root is not None:
            return scale * (self.root @ probes)
        spread = (b * w).clamp(min=0.0).sqrt()[:, None] * probes
        return scale * (spread - w[:, None] * spread.sum(0))


def balanced(variables: Tensor, weights: Tensor, count: int) -> Balance:
    """The weights of the nominal scenario and the first b others.

    All scenarios have variables (S, m) and weights (S,) with the sum one.
    """
    wanted = torch.cat([weights.new_zeros(1), weights[:count]])
    if count >= len(weights):
        return Balance(wanted / wanted.sum(), 0.0)
    plain = wanted / wanted.sum() if count else torch.ones_like(wanted)
    rest = float(weights[count:].square().sum())
    if count > MOST_SCENARIOS or bool((weights < 0.0).any()):
        return Balance(plain, float((plain - wanted).square().sum()) + rest)
    scaled, target = model(variables, weights)
    seen = scaled[: count + 1]
    found = _nearest(seen, target, wanted) if count else plain
    missed = float((seen.T @ found - target).square().sum())
    factor = missed + float((found - wanted).square().sum()) + rest
    return Balance(found, factor, _root(seen[:, 1:] @ seen[:, 1:].T + torch.eye(count + 1).to(seen)))


def random_signs(count: int, like: Tensor) -> Tensor | None:
    """(count, 32) random signs over sqrt(32). Sums of squares of products with them are right on average.

    None for small counts, where no signs are needed.
    """
    if count <= _MOST_CONTRASTS:
        return None
    signs = torch.randint(0, 2, (count, _MOST_CONTRASTS), generator=torch.Generator().manual_seed(0))
    return (2.0 * signs - 1.0).to(like) / math.sqrt(_MOST_CONTRASTS)


def model(variables: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(S + 1, k) sqrt(rho_j) phi_j of the nominal scenario and of all others, scaled, and their means (k,)."""
    every, rho = _functions(torch.cat([torch.zeros_like(variables[:1]), variables]))
    means = weights @ every[1:]
    scale = (weights @ (every[1:] - means).square()).sqrt()
    # The constant has no spread, and other functions may have none either.
    scale = torch.where(scale > 1e-12, scale, 1.0)
    scaled = (every / scale) * rho.sqrt()
    return scaled, weights @ scaled[1:]


def _functions(variables: Tensor) -> tuple[Tensor, Tensor]:
    """(S, k) 1, the variables, their squares and products, and rho (k,)."""
    m = variables.shape[1]
    i, j = torch.triu_indices(m, m, 1)
    # Products of the first variables are kept, which belong to the longest waves of a field.
    kept = torch.argsort(i + j, stable=True)[: max(_MOST_FUNCTIONS - 2 * m - 1, 0)]
    products = variables[:, i[kept]] * variables[:, j[kept]]
    parts = [torch.ones_like(variables[:, :1]), variables, variables.square(), products]
    sizes = torch.tensor([part.shape[1] for part in parts])
    rho = torch.tensor([_CONSTANT, _LINEAR, _SQUARE, _PRODUCT], dtype=variables.dtype).repeat_interleave(sizes)
    return torch.cat(parts, dim=1), rho.to(variables.device)


def _nearest(seen: Tensor, target: Tensor, wanted: Tensor) -> Tensor:
    """Weights w >= 0 with the least |seen^T w - target|^2 + |w - wanted|^2, their sum made one."""
    missing = target - seen.T @ wanted
    b = len(wanted)
    free = wanted + torch.linalg.solve(seen @ seen.T + torch.eye(b).to(seen), seen @ missing)
    if bool((free < 0.0).any()) and b <= _MOST_CONSTRAINED:
        matrix = np.concatenate([seen.T.cpu().numpy(), np.eye(b)])
        right = np.concatenate([target.cpu().numpy(), wanted.cpu().numpy()])
        free = torch.from_numpy(scipy.optimize.nnls(matrix, right)[0]).to(wanted)
    free = free.clamp(min=0.0)
    return free / free.sum()


def _root(covariance: Tensor) -> Tensor:
    """A matrix B for which B B^T is the inverse of a covariance once the constant has been eliminated."""
    factor = torch.linalg.cholesky(covariance)
    root = torch.linalg.solve_triangular(factor, torch.eye(len(factor)).to(factor), upper=False).T
    constant = root.sum(0)
    return root - torch.outer(root @ constant, constant) / constant.square().sum()
