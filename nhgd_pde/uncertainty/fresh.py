"""Fresh scenarios that judge an answer, with the rare ones among them often enough to be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .distributions import Distribution, Normal
from .sampling import Stream

# Of the variance of a normal variable in every second scenario, where it is the only one; less of many, so that the
# typical distance from the middle grows by as many of its standard deviations.
_WIDER = 3.0


@dataclass(frozen=True, eq=False)
class FreshSample:
    """Independent scenarios.

    Attributes:
        z: (F, m) standard variables.
        ratios: (F,) how much more often each is drawn by the inputs' law than it was here, at most 2; their
            expectation is one.
        distributions: of the variables, m of them.
    """

    z: np.ndarray
    ratios: np.ndarray
    distributions: tuple[Distribution, ...]

    @property
    def weights(self) -> np.ndarray:
        """(F,) of the sum one."""
        return np.asarray(self.ratios / self.ratios.sum())

    @property
    def wide(self) -> bool:
        return bool((self.ratios != 1.0).any())


def fresh_sample(stream: Stream, count: int, wide: bool = True) -> FreshSample:
    """Scenarios of a stream.

    With `wide` the normal variables of every second scenario are stretched, and the ratios are those of the mixture of
    both laws (Hesterberg 1995, Technometrics 37; Owen and Zhou 2000, J. Amer. Stat. Assoc. 95). The mean of an
    exponential of a normal variable lives where hardly any scenario of the plain law is: a hundred of these tell
    neither the mean nor how far off they are.
    """
    z, ratios = stream.draw(count).z, np.ones(count)
    distributions = stream.inputs.distributions
    normal = np.array([isinstance(one, Normal) for one in distributions])
    m = int(normal.sum())
    if not (wide and m):
        return FreshSample(z, ratios, distributions)
    variance = 1.0 + _WIDER / math.sqrt(m)
    stretched = np.ix_(np.arange(1, count, 2), np.flatnonzero(normal))
    z[stretched] *= math.sqrt(variance)
    squares = (z[:, normal] ** 2).sum(axis=1)
    share = len(stretched[0]) / count
    density = np.exp(0.5 * squares * (1.0 - 1.0 / variance) - 0.5 * m * math.log(variance))
    return FreshSample(z, 1.0 / (1.0 - share + share * density), distributions)
