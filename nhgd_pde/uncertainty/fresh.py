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
        direction: (m,) of length one, in which the function of interest varies most, zero for variables that are not
            normal; found without these scenarios. None where it is not known.
    """

    z: np.ndarray
    ratios: np.ndarray
    distributions: tuple[Distribution, ...]
    direction: np.ndarray | None = None

    @property
    def weights(self) -> np.ndarray:
        """(F,) of the sum one."""
        return np.asarray(self.ratios / self.ratios.sum())

    @property
    def wide(self) -> bool:
        return bool((self.ratios != 1.0).any())


def fresh_sample(stream: Stream, count: int, wide: bool = True, direction: np.ndarray | None = None) -> FreshSample:
    """Scenarios of a stream.

    With `wide` the normal variables of every second scenario are stretched, and the ratios are those of the mixture of
    both laws (Hesterberg 1995, Technometrics 37; Owen and Zhou 2000, J. Amer. Stat. Assoc. 95). The mean of an
    exponential of a normal variable lives where hardly any scenario of the plain law is: a hundred of these tell
    neither the mean nor how far off they are. Where a direction (m,) is known, scenarios are stretched in it alone, as
    far as one variable, so that the rare scenarios are those that matter.
    """
    z, ratios = stream.draw(count).z, np.ones(count)
    distributions = stream.inputs.distributions
    normal = np.flatnonzero([isinstance(one, Normal) for one in distributions])
    if not (wide and len(normal)):
        return FreshSample(z, ratios, distributions, direction)
    # Orthonormal directions in which scenarios are stretched (k, m).
    ways = np.eye(len(distributions))[normal] if direction is None else direction[None]
    variance = 1.0 + _WIDER / math.sqrt(len(ways))
    z[1::2] += (math.sqrt(variance) - 1.0) * (z[1::2] @ ways.T) @ ways
    squares = ((z @ ways.T) ** 2).sum(axis=1)
    share = len(z[1::2]) / count
    density = np.exp(0.5 * squares * (1.0 - 1.0 / variance) - 0.5 * len(ways) * math.log(variance))
    return FreshSample(z, 1.0 / (1.0 - share + share * density), distributions, direction)
