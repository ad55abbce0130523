"""Tensor and sparse Gauss quadrature over the standard variables of random inputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cache, reduce

import numpy as np

from .distributions import Distribution
from .inputs import RandomInputs
from .sampling import Samples

# Largest number of scenarios of a quadrature.
LIMIT = 100_000


def tensor_count(inputs: RandomInputs, points: int) -> int:
    """The number of scenarios of `tensor_quadrature`."""
    return points**inputs.dimension


def tensor_quadrature(inputs: RandomInputs, points: int, limit: int = LIMIT) -> Samples:
    """The product of Gauss rules, which is exact for polynomials of degree 2 points - 1 in every variable.

    Raises:
        ValueError: `points` is below 1, or there would be more scenarios than `limit`.
    """
    if points < 1:
        raise ValueError(f"expected at least 1 point in every variable, found {points}")
    what = f"{_digits(points)} points in each of {inputs.dimension} random variables"
    _check(tensor_count(inputs, points), limit, what)
    nodes, weights = zip(*(one.gauss(points) for one in inputs.distributions), strict=True)
    z = np.stack([axis.ravel() for axis in np.meshgrid(*nodes, indexing="ij")], axis=1)
    return Samples(z, reduce(np.multiply.outer, weights, np.ones(())).ravel())


def sparse_count(inputs: RandomInputs, level: int) -> int:
    """The number of scenarios of `sparse_quadrature`, without building it."""
    m = inputs.dimension
    if m == 1:
        return 2 * ((level + 1) // 2) + 1
    # Numbers of new points of the rules by their cost: one in the middle, then 2k others for the rule of 2k + 1 points.
    others = [k + 1 if k % 2 else 0 for k in range(level + 1)]
    # Points off the middle in all variables belong to one grid only, which has the weight zero if much budget is left.
    unused = sum(_power(others, m)[: max(level - 2 * m + 1, 0)])
    return sum(_power([1, *others[1:]], m)) - unused


def sparse_quadrature(inputs: RandomInputs, level: int, limit: int = LIMIT) -> Samples:
    """Smolyak's quadrature from Gauss rules with odd counts, exact for polynomials of total degree 2 level + 1.

    Level l of one variable is the rule of 2 ceil(l/2) + 1 points, which is exact for degree 2 l + 1, and all rules
    share the middle point (Novak and Ritter, Constr. Approx. 15, 1999). Weights may be negative, so that the mean of
    positive values need not be positive, and the mean of convex functions need not be convex.

    Raises:
        ValueError: `level` is negative, or there would be more scenarios than `limit`.
    """
    if level < 0:
        raise ValueError(f"expected a level of at least 0, found {level}")
    m = inputs.dimension
    what = f"level {_digits(level)} of {m} random variables"
    # This is a lower bound of the number of points, since two variables alone have a triangle of rules. It is used
    # because the time of counting grows with the square of the level.
    least = 0 if m == 1 else level**2 // 8
    _check(least if least > limit else sparse_count(inputs, level), limit, what)

    @cache
    def rule(distribution: Distribution, k: int) -> tuple[np.ndarray, np.ndarray]:
        return distribution.gauss(2 * k + 1)

    # A point is given by the variables off the middle, their rules and their nodes; its weights are summed here.
    found: dict[tuple[tuple[int, int, int], ...], float] = {}
    for grid, left in _grids(m, level):
        factor = _coefficient(m - len(grid), len(grid), left)
        if factor == 0:
            continue
        tables = [rule(inputs.distributions[j], k)[1] for j, k in grid]
        for nodes in itertools.product(*(range(len(table)) for table in tables)):
            key = tuple((j, k, node) for (j, k), node in zip(grid, nodes, strict=True) if node != k)
            weight = factor * math.prod(float(table[node]) for table, node in zip(tables, nodes, strict=True))
            found[key] = found.get(key, 0.0) + weight
    z = np.zeros((len(found), m))
    for row, key in enumerate(found):
        for j, k, node in key:
            z[row, j] = rule(inputs.distributions[j], k)[0][node]
    return Samples(z, np.array(list(found.values())))


def _grids(m: int, budget: int, first: int = 0) -> Iterator[tuple[tuple[tuple[int, int], ...], int]]:
    """Grids ((variable, k), ...) of rules of 2k + 1 > 1 points, which cost 2k - 1 each, and the budget that is left."""
    yield (), budget
    for j in range(first, m):
        for k in range(1, (budget + 1) // 2 + 1):
            for rest, left in _grids(m, budget - (2 * k - 1), j + 1):
                yield ((j, k), *rest), left


def _coefficient(single: int, several: int, left: int) -> int:
    """The factor of a grid in the combination technique.

    It is a sum over the affordable grids that are finer by one rule in some variables, with the sign (-1)^(number of
    these variables). A finer rule costs 1 where one point becomes three, and else 2.
    """
    return sum(
        (-1) ** (a + b) * math.comb(single, a) * math.comb(several, b)
        for b in range(min(several, left // 2) + 1)
        for a in range(min(single, left - 2 * b) + 1)
    )


def _power(series: list[int], exponent: int) -> list[int]:
    """A power of a polynomial, cut off to as many coefficients as the polynomial has."""
    result, base = [1] + [0] * (len(series) - 1), series
    while exponent:
        if exponent & 1:
            result = _product(result, base)
        base = _product(base, base)
        exponent >>= 1
    return result


def _product(a: list[int], b: list[int]) -> list[int]:
    return [sum(a[i] * b[n - i] for i in range(n + 1)) for n in range(len(a))]


def _check(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise ValueError(
            f"quadrature with {what} would take {_digits(count)} points, more than the limit of {limit:,}: take fewer "
            "points or variables, or sample"
        )


def _digits(count: int) -> str:
    """A number in words for messages; Python does not write numbers with thousands of digits."""
    return f"{count:,}" if count < 10**18 else "more than 1e18"
