"""Measures of the answer of a task."""

from __future__ import annotations

import torch
from scipy.stats import rankdata
from torch import Tensor


def auroc(scores: Tensor, positive: Tensor) -> float:
    """The probability that a positive example has the larger score, ties counted half: the area under the ROC curve.

    Args:
        scores: (N,).
        positive: (N,) truth values, both of which occur.
    """
    ranks = torch.from_numpy(rankdata(scores.numpy()))
    count = int(positive.sum())
    above = float(ranks[positive].sum()) - count * (count + 1) / 2
    return above / (count * (len(positive) - count))
