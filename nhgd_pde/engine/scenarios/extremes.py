"""The part of scenarios that were not used that exceeds the largest one used, predicted from their random variables.

The variance of a sample does not show scenarios far out in the tail that happen to be left out. A few of them may
contribute more to a mean than all others together. Their random variables are known, however. The distances d_s of a
quantity from its mean grow like exponentials of normal variables where coefficients are log-normal, so that

    log d_s  ~  c_0 + sum_k (a_k z_sk + b_k z_sk^2)

is fitted to the scenarios seen, with weights d_s, because the model has to fit the tail and not the middle. Ridge
regression with the variances of `weights.py` keeps coefficients small that a few scenarios do not determine.
Predictions are the expectations of log-normal numbers, which grow with the variance of the predicted logarithms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Variances of the coefficients of variables and of their squares, relative to that of the remainder of log d.
_LINEAR, _SQUARE = 10.0, 1.0
# Distances below this share of the largest one do not belong to the tail.
_SMALL = 1e-3


def beyond(variables: Tensor, weights: Tensor, distances: Tensor, used: int) -> float:
    """sum_(s > b) W_s max(d_s - max_(used < t <= b) d_t, 0) with the d_s that the model predicts.

    Args:
        variables: (S, m) standard variables of all scenarios.
        weights: (S,) W.
        distances: (b,) d_s of the first scenarios.
        used: number of the first scenarios that are not fresh, less than b.

    Returns:
        A number in the unit of the distances; infinite or NaN where no number can be predicted.
    """
    largest, count = distances.max(), len(distances)
    if not float(largest) > 0.0:
        return float(largest)
    shares = distances / largest
    logarithms = shares.clamp(min=_SMALL).log()
    functions, total, root = _functions(variables), shares.sum(), shares.sqrt()
    # The constant is eliminated; then the weighted squares plus the squares of the coefficients are minimised.
    middle, level = shares @ functions[:count] / total, shares @ logarithms / total
    functions = functions - middle
    seen, others = functions[:count] * root[:, None], functions[count:]
    matrix = seen.T @ seen + torch.eye(seen.shape[1]).to(seen)
    right = root * (logarithms - level)
    slopes = torch.linalg.solve(matrix, seen.T @ right)
    variance = (right - seen @ slopes).square().sum() / total
    # Far out, logarithms are known less well. The mean of exp(x) for a normal x is exp(mean + variance / 2).
    doubt = variance * (1.0 + 1.0 / total + (others * torch.linalg.solve(matrix, others.T).T).sum(1))
    excess = ((level + others @ slopes + 0.5 * doubt).exp() - shares[used:].max()).clamp(min=0.0)
    return float(largest * (weights[count:].abs() @ excess))


def _functions(variables: Tensor) -> Tensor:
    """(k, 2 m) variables and their squares, in units in which all coefficients have the variance one."""
    return torch.cat([math.sqrt(_LINEAR) * variables, math.sqrt(_SQUARE) * variables.square()], dim=1)
