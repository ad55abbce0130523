"""Intervals of predicted numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PredictedInterval:
    """A predicted number, in its unit.

    Attributes:
        name: what is predicted.
        value: its value at the most likely control.
        std, prior_std: its standard deviations after and before the data.
        low, high: the ends of the interval.
        level: the probability of the interval.
    """

    name: str
    value: float
    std: float
    prior_std: float
    low: float
    high: float
    level: float
