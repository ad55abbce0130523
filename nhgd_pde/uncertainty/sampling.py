"""Scenarios: weighted samples of the standard variables of random inputs, and endless streams of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .inputs import RandomInputs


@dataclass(frozen=True, eq=False)
class Samples:
    """Scenarios and their weights.

    Attributes:
        z: (S, m) standard variables.
        weights: (S,) weights, whose sum is one; those of a sparse quadrature may be negative.
    """

    z: np.ndarray
    weights: np.ndarray

    @property
    def count(self) -> int:
        return len(self.weights)


@dataclass(frozen=True)
class Stream:
    """An endless sequence of independent scenarios, each of which is a function of its number.

    The random numbers come from Philox4x64 (Salmon et al., SC 2011), a function of a counter. So all processes, and
    runs that resume, have the same scenarios without drawing the earlier ones.

    Attributes:
        inputs: the random inputs.
        seed: seed of the sequence, at least 0.
        branch: streams of one seed and different branches are independent.

    Raises:
        ValueError: the seed or the branch is negative.
    """

    inputs: RandomInputs
    seed: int
    branch: int = 0

    def __post_init__(self) -> None:
        for name, value in (("seed", self.seed), ("branch", self.branch)):
            if value < 0:
                raise ValueError(f"{name} of a stream: expected at least 0, found {value}")

    @property
    def fresh(self) -> Stream:
        """An independent stream, for judgements out of sample."""
        return replace(self, branch=self.branch + 1)

    def draw(self, count: int, first: int = 0) -> Samples:
        """The scenarios first, ..., first + count - 1, with equal weights.

        Raises:
            ValueError: `count` is below 1 or `first` negative.
        """
        _at_least_one("scenario", count)
        if first < 0:
            raise ValueError(f"first scenario of a stream: expected at least 0, found {first}")
        # Each count of the generator gives four numbers, and a scenario takes whole counts.
        counts = -(-self.inputs.dimension // 4)
        generator = np.random.Philox(key=self._key, counter=first * counts)
        raw = generator.random_raw(4 * counts * count).reshape(count, 4 * counts)[:, : self.inputs.dimension]
        # The probabilities are the middles of 2^52 intervals, which are exact, symmetric, and neither 0 nor 1.
        z = self.inputs.quantile(((raw >> np.uint64(12)) + 0.5) * 2.0**-52)
        return Samples(z, np.full(count, 1.0 / count))

    @cached_property
    def _key(self) -> np.ndarray:
        return np.random.SeedSequence(self.seed, spawn_key=(self.branch,)).generate_state(2, np.uint64)


def monte_carlo(inputs: RandomInputs, count: int, seed: int) -> Samples:
    """The first scenarios of the stream of a seed."""
    return Stream(inputs, seed).draw(count)


def quasi(inputs: RandomInputs, count: int, seed: int) -> Samples:
    """The first points of a scrambled Sobol sequence (Owen, 1998), with which every mean is unbiased.

    A sample with a smaller count is the beginning of a larger sample. Counts that are powers of two are best.

    Raises:
        ValueError: `count` is below 1, or there are more variables than the sequence has dimensions.
    """
    # scipy.stats takes long to load, and problems without random inputs do not need it.
    from scipy.stats import qmc

    _at_least_one("scenario", count)
    if inputs.dimension > qmc.Sobol.MAXDIM:
        raise ValueError(
            f"{inputs.dimension:,} random variables, but Sobol points have at most {qmc.Sobol.MAXDIM:,} dimensions"
        )
    bits = 52
    # The seed is a generator, because the keyword for a plain number depends on the version of scipy.
    sequence = qmc.Sobol(inputs.dimension, scramble=True, bits=bits, seed=np.random.default_rng(seed))
    # scipy warns if the count is not a power of two, so more points are drawn.
    p = sequence.random_base2((count - 1).bit_length())[:count]
    # Multiples of 2^-bits are moved to the middles of intervals, away from zero.
    return Samples(inputs.quantile(p + 0.5 * 2.0**-bits), np.full(count, 1.0 / count))


def _at_least_one(what: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"expected at least 1 {what}, found {count}")
