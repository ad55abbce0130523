"""Fresh scenarios for the judgement of a control, among which rare scenarios are drawn more often."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .distributions import Distribution, Normal
from .sampling import Stream

# Increase of the variance of a normal variable in every second scenario if there is one such variable. With many
# variables the increase is smaller, so that the typical distance from the mean grows by the same number of its standard
# deviations.
_WIDER = 3.0


@dataclass(frozen=True, eq=False)
class FreshSample:
    """Independent scenarios, drawn from a mixture of the distribution of the inputs and a wider one.

    Attributes:
        z: (F, m) standard variables.
        ratios: (F,) the density of the inputs over that of the sample, at most 2, with the expectation one.
        distributions: the distributions of the m variables.
        direction: (m,) direction of length one in which the function of interest varies most, zero for variables that
            are not normal. It does not depend on these scenarios. None where it is not known.
    """

    z: np.ndarray
    ratios: np.ndarray
    distributions: tuple[Distribution, ...]
    direction: np.ndarray | None = None

    @property
    def weights(self) -> np.ndarray:
        """(F,) the weights of the scenarios, whose sum is one."""
        return np.asarray(self.ratios / self.ratios.sum())

    @property
    def wide(self) -> bool:
        return bool((self.ratios != 1.0).any())


def fresh_sample(stream: Stream, count: int, wide: bool = True, direction: np.ndarray | None = None) -> FreshSample:
    """Scenarios of a stream.

    With `wide`, the normal variables of every second scenario are stretched, and the ratios belong to the mixture of
    both distributions (Hesterberg 1995, Technometrics 37; Owen and Zhou 2000, J. Amer. Stat. Assoc. 95). This is needed
    because scenarios that contribute most to the mean of an exponential of a normal variable are very rare: a hundred
    plain scenarios show neither the mean nor their error. If a direction (m,) is known, scenarios are stretched only
    along it, as far as a single variable, so that the rare scenarios are the relevant ones.
    """
    z, ratios = stream.draw(count).z, np.ones(count)
    distributions = stream.inputs.distributions
    normal = np.flatnonzero([isinstance(one, Normal) for one in distributions])
    if not (wide and len(normal)):
        return FreshSample(z, ratios, distributions, direction)
    # (k, m) the orthonormal directions along which scenarios are stretched.
    ways = np.eye(len(distributions))[normal] if direction is None else direction[None]
    variance = 1.0 + _WIDER / math.sqrt(len(ways))
    z[1::2] += (math.sqrt(variance) - 1.0) * (z[1::2] @ ways.T) @ ways
    squares = ((z @ ways.T) ** 2).sum(axis=1)
    share = len(z[1::2]) / count
    density = np.exp(0.5 * squares * (1.0 - 1.0 / variance) - 0.5 * len(ways) * math.log(variance))
    return FreshSample(z, 1.0 / (1.0 - share + share * density), distributions, direction)
