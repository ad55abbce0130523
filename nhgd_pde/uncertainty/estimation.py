"""The expectation of a function of random inputs, estimated from few scenarios with a confidence interval.

The expectations of polynomials in the standard variables are known. With polynomials phi_j of expectation zero and
ratios w of the density of the inputs to that of the sample,

    E f = E [w f - beta_0 (w - 1) - sum_j beta_j w phi_j]     for any beta.

w f is fitted with least squares by a constant, w - 1 and w phi_j, and the constant is the estimate (control variates,
Owen and Zhou 2000, J. Amer. Stat. Assoc. 95). The residual is smaller than f and less skewed. Of several sets of
polynomials, the one is taken that predicts scenarios best which the fit leaves out. The standard error is that of the
jackknife (HC3: MacKinnon and White 1985, J. Econometrics 29), and the interval is Student's with the correction for
skewness of Hall (1992, J. R. Stat. Soc. B 54).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np

from .distributions import Normal
from .fresh import FreshSample

# Least number of scenarios for each coefficient of a fit.
_OF_EACH = 10
# Highest degree of the polynomials.
_HIGHEST = 6
# Least number of scenarios for an interval.
_LEAST_SCENARIOS = 4
# Least value of one minus the leverage of a scenario; if it is zero, the fit goes through the scenario.
_FREE = 1e-9
# Below this skewness of the mean, the correction for skewness changes no digit.
_SYMMETRIC = 1e-6


@dataclass(frozen=True)
class ExpectationEstimate:
    """An estimate of an expectation.

    Attributes:
        value: the estimate.
        error: its standard error.
        interval: the confidence interval.
        degree: degree of the polynomials of the fit; 0 where no polynomial is used.
        functions: number of these polynomials.
    """

    value: float
    error: float
    interval: tuple[float, float]
    degree: int = 0
    functions: int = 0


# The variables of one product with their powers: (variable, power), ..., where no power is zero.
_Term = tuple[tuple[int, int], ...]


def expectation(values: np.ndarray, sample: FreshSample, confidence: float) -> ExpectationEstimate:
    """The expectation of a function with values (F,) in the scenarios of a sample."""
    # The unit is chosen so that no square underflows or overflows.
    size = float(np.abs(values).max(initial=0.0))
    unit = size if math.isfinite(size) and size > 0.0 else 1.0
    found = _expectation(values / unit, sample, confidence)
    low, high = found.interval
    return replace(found, value=unit * found.value, error=unit * found.error, interval=(unit * low, unit * high))


def _expectation(values: np.ndarray, sample: FreshSample, confidence: float) -> ExpectationEstimate:
    ratios, count = sample.ratios, len(values)
    if count < _LEAST_SCENARIOS:
        middle = float(sample.weights @ values)
        return ExpectationEstimate(middle, math.nan, (math.nan, math.nan))
    constant = [ratios - 1.0] if sample.wide else []
    best, chosen = _fit(ratios * values, constant if count >= 2 * _OF_EACH else []), (0, 0)
    for degree, functions in _functions(sample, count // _OF_EACH - 1 - len(constant)):
        found = _fit(ratios * values, [*constant, *(ratios * each for each in functions)])
        if found.left < best.left:
            best, chosen = found, (degree, len(functions))
    return ExpectationEstimate(best.value, best.error, best.interval(confidence), *chosen)


def _functions(sample: FreshSample, most: int) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Degrees, and lists of at most `most` functions of expectation zero, evaluated in the scenarios (F,)."""
    if most < 1:
        return
    table = [one.polynomials(sample.z[:, k], _HIGHEST) for k, one in enumerate(sample.distributions)]
    for degree, terms in _candidates(len(table), most):
        yield degree, [math.prod(table[k][power] for k, power in term) for term in terms]
    if sample.direction is None or len(table) == 1:
        return
    # Polynomials of the main direction, which is a normal variable, without and with linear functions of all variables.
    along = Normal().polynomials(sample.z @ sample.direction, _HIGHEST)
    for degree in range(1, min(_HIGHEST, most) + 1):
        yield degree, list(along[1 : degree + 1])
    for degree in range(2, min(_HIGHEST, most + 1 - len(table)) + 1):
        yield degree, [*(of_one[1] for of_one in table), *along[2 : degree + 1]]


@dataclass(frozen=True, eq=False)
class _Fit:
    """The constant of a fit and its error.

    Attributes:
        value: the constant.
        influence: (F,) minus the change of the constant if the scenario were left out.
        left: mean square error of the prediction of scenarios that are left out.
        freedom: number of scenarios minus number of coefficients.
    """

    value: float
    influence: np.ndarray
    left: float
    freedom: int

    @property
    def error(self) -> float:
        return float(np.linalg.norm(self.influence))

    def interval(self, confidence: float) -> tuple[float, float]:
        """The interval by Hall's transformation of t = (value - truth) / error, which is skewed as the influences are.

        The degrees of freedom are those of the estimated variance (Satterthwaite 1946, Biometrics 2). They are few if a
        few scenarios contribute most of the variance.
        """
        spread = self.influence - self.influence.mean()
        # Influences are divided by the largest one, because third powers may underflow.
        size = float(np.abs(spread).max())
        if not size > 0.0:
            return self.value, self.value
        spread = spread / size
        square = float((spread**2).mean())
        excess = float((spread**4).mean()) / square**2 - 1.0
        freedom = min(self.freedom, 2.0 * len(spread) / excess) if excess > 0.0 else self.freedom
        # scipy.stats takes long to load, and problems without random inputs do not need it.
        import scipy.stats

        quantile = float(scipy.stats.t.ppf(0.5 + 0.5 * confidence, freedom))
        skewness = float((spread**3).mean()) / square**1.5 / math.sqrt(len(spread))

        def back(x: float) -> float:
            if abs(skewness) < _SYMMETRIC:
                return x
            return 3.0 / skewness * (float(np.cbrt(1.0 + skewness * (x - skewness / 6.0))) - 1.0)

        return self.value - self.error * back(quantile), self.value - self.error * back(-quantile)


def _fit(response: np.ndarray, columns: list[np.ndarray]) -> _Fit:
    q, r = np.linalg.qr(np.column_stack([np.ones(len(response)), *columns]))
    coefficients = np.linalg.solve(r, q.T @ response)
    rest = response - q @ (q.T @ response)
    left_out = rest / np.maximum(1.0 - (q**2).sum(axis=1), _FREE)
    shares = np.linalg.solve(r, q.T)[0]
    freedom = len(response) - len(coefficients)
    return _Fit(float(coefficients[0]), shares * left_out, float((left_out**2).mean()), freedom)


def _candidates(variables: int, most: int) -> Iterator[tuple[int, list[_Term]]]:
    """Degrees, and the at most `most` terms of polynomials up to a degree, without and with products of variables."""
    for degree in range(1, _HIGHEST + 1):
        powers: list[_Term] = [((k, p),) for p in range(1, degree + 1) for k in range(variables)]
        if len(powers) <= most:
            yield degree, powers
        if degree > 1 and variables > 1 and math.comb(variables + degree, degree) - 1 <= most:
            yield degree, [term for total in range(1, degree + 1) for term in _products(variables, total)]


def _products(variables: int, total: int) -> Iterator[_Term]:
    """All terms of a total degree."""
    for chosen in combinations_with_replacement(range(variables), total):
        yield tuple((k, chosen.count(k)) for k in sorted(set(chosen)))
