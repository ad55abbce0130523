"""A bound of the error of an estimate over some scenarios, from those among them that were not used for any step.

Weights that are fitted to the scenarios seen, and residuals of the same scenarios, give too small errors where a few of
the scenarios left out are much larger than all others. Scenarios 1 .. u have been used to choose the point; n fresh
ones, u + 1 .. b, are used there for the first time. The used ones predict every quantity h_s by the model of
`weights.py`, p_s = sum_(t <= u) a_st h_t, and the fresh ones show, without any model, the mean error of the predictions
(difference estimator: Saerndal, Swensson and Wretman 1992, Model Assisted Survey Sampling, 6.3):

    H* = sum_(s <= u) W_s h_s + sum_(s > u) W_s p_s + (S - u) mean_(u < s <= b) W_s (h_s - p_s)

is an unbiased estimate of the mean over all scenarios, whose variance is that of the last terms. The error of an
estimate H over the same scenarios then is at most |H - H*| plus Student's quantile times the standard error of H*,
unless scenarios left out are larger than all fresh ones (`extremes.py`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .weights import MOST_SCENARIOS, Balance, model, random_signs

# Least number of fresh scenarios from which a variance can be estimated, and confidence of the bound. The confidence is
# high because a run evaluates the bound several times, and ends where it happens to be small.
_LEAST = 32
_CONFIDENCE = 0.99


def fresh_enough(balance: Balance, used: int) -> bool:
    """Whether there are enough fresh scenarios among the first ones to estimate their variance."""
    return balance.count - used >= _LEAST


def unseen(variables: Tensor, weights: Tensor, balance: Balance, used: int, squares: Tensor) -> Tensor:
    """Compare the estimate with the weights of a balance with an unbiased estimate by the fresh scenarios.

    Args:
        variables: (S, m) standard variables of all scenarios.
        weights: (S,) W, the weights of all scenarios, with the sum one.
        balance: the balance; its weights (b + 1,) are those of the estimate.
        used: u, less than b.
        squares: (b,) squared distances of the h_s from their mean.

    Returns:
        (b + 1, 1 + k) coefficients, the nominal scenario first: in the first column those of H - H*, in the others c
        for which sum_j |sum_s c_sj h_s|^2 is the variance of H*, times the square of Student's quantile.
    """
    active, count = balance.count, len(weights)
    fresh, left = active - used, count - used
    prediction, ahead = _predictions(variables, weights, used, active)
    terms = -left * weights[used:active, None] * torch.nn.functional.pad(prediction, (0, fresh))
    terms[:, used + 1 :] += torch.diag(left * weights[used:active])
    known = torch.cat([weights.new_zeros(1), weights[:used], weights.new_zeros(fresh)])
    known[: used + 1] += ahead
    mean = terms.mean(0)
    factor = _quantile(squares, fresh) ** 2 * (1.0 - fresh / left) / (fresh * (fresh - 1))
    deviations = (terms - mean).T
    signs = random_signs(fresh, deviations)
    spread = deviations if signs is None else deviations @ signs
    return torch.cat([(balance.weights - known - mean)[:, None], math.sqrt(factor) * spread], 1)


def _predictions(variables: Tensor, weights: Tensor, used: int, active: int) -> tuple[Tensor, Tensor]:
    """a_st of the fresh scenarios, (b - u, u + 1), and sum_(s > u) W_s a_st, (u + 1,); t = 0 is the nominal one."""
    if used + 1 > MOST_SCENARIOS or bool((weights < 0.0).any()):
        even = weights.new_full((used + 1,), 1.0 / (used + 1))
        return even.expand(active - used, -1), weights[used:].sum() * even
    scaled, _ = model(variables, weights)
    seen, others = scaled[: used + 1], scaled[used + 1 :]
    root = torch.linalg.cholesky(seen @ seen.T + torch.eye(used + 1).to(seen))
    right = torch.cat([others[: active - used], (weights[used:] @ others)[None]]) @ seen.T
    found = torch.cholesky_solve(right.T, root).T
    return found[:-1], found[-1]


def _quantile(squares: Tensor, fresh: int) -> float:
    """Student's quantile, with the degrees of freedom of the estimated variance (Satterthwaite 1946, Biometrics 2).

    The variance of a sample variance is proportional to the fourth moment, which is large where a few scenarios
    contribute most of it.
    """
    total = float(squares.mean())
    if not total > 0.0:
        return 0.0
    excess = float(squares.square().mean()) / total**2 - 1.0
    freedom = min(fresh - 1.0, 2.0 * fresh / excess if excess > 0.0 else math.inf)
    # scipy.stats takes long to load, and problems without random inputs do not need it.
    import scipy.stats

    return float(scipy.stats.t.ppf(0.5 + 0.5 * _CONFIDENCE, freedom))
