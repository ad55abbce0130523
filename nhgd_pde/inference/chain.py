"""A Markov chain that samples the posterior itself, to check its normal approximation.

The proposal is that of the preconditioned Crank-Nicolson method with the normal approximation N(mean, C) in place of
the prior (Cotter, Roberts, Stuart and White 2013, Stat. Sci. 28; Rudolf and Sprungk 2018, Found. Comput. Math. 18):

    m' = mean + sqrt(1 - step^2) (m - mean) + step C^1/2 white,

which is accepted with the probability min(1, exp(D(m) - D(m'))), where D is the negative log-posterior minus that of
the approximation. If this is exact, every proposal is accepted. The acceptance does not depend on the mesh.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..bridges.solved_state import StateOptions, StateSolver
from ..objective.terms import Prediction
from .effective_size import effective_size
from .intervals import PredictedInterval

if TYPE_CHECKING:
    from .posterior import Posterior

# The step is made smaller by this factor until this share of the proposals of a trial is accepted. The first half of a
# trial is not counted: it starts from a sample of the normal approximation, where the posterior may be unlikely.
_FACTOR, _ACCEPTED, _TRIAL = 0.6, 0.25, 50
_SMALLEST = 1e-4
# Leading directions whose coordinates are kept of every state.
_DIRECTIONS = 10


@dataclass(frozen=True, eq=False)
class Chain:
    """States of a chain, one after the other.

    Attributes:
        posterior: what it samples, by its normal approximation.
        samples: (n / every, p) the controls of some states, `every` states apart.
        predictions: (n, k) the predictions of the problem file at every state, the equation not linearised.
        coordinates: (n, r) the leading coordinates of every state: independent and standard normal if the posterior is.
        differences: (n,) the negative log-posterior minus that of the normal approximation, up to a constant.
        names: what is predicted.
        accepted: the share of the proposals that were accepted.
        step: the length of the proposals, in (0, 1].
        every: states between those that are kept as controls.
        seed: of all random numbers; the state number k depends on seed and k alone, so that a chain can be continued.
        white: (p,) the last state in the coordinates of the proposals.
    """

    posterior: Posterior
    samples: np.ndarray
    predictions: np.ndarray
    coordinates: np.ndarray
    differences: np.ndarray
    names: tuple[str, ...]
    accepted: float
    step: float
    every: int
    seed: int
    white: Tensor

    @property
    def size(self) -> int:
        """n, the number of states."""
        return len(self.differences)

    @property
    def mean(self) -> np.ndarray:
        """(p,) the mean of the samples."""
        return self.samples.mean(axis=0)

    @property
    def std(self) -> np.ndarray:
        """(p,) the standard deviation of the samples."""
        return self.samples.std(axis=0, ddof=1)

    @property
    def effective(self) -> float:
        """The least effective sample size of the leading coordinates, the predictions and the differences."""
        series = [*self.coordinates.T, *self.predictions.T]
        return min((effective_size(each) for each in series), default=effective_size(self.differences))

    def intervals(self, level: float | None = None) -> list[PredictedInterval]:
        """The intervals of the predictions, between quantiles of their values; `value` is their mean."""
        wanted = level or self.posterior.options.level
        normal = {each.name: each for each in self.posterior.predicted()}
        found = []
        for name, values in zip(self.names, self.predictions.T, strict=True):
            low, high = np.quantile(values, [0.5 - 0.5 * wanted, 0.5 + 0.5 * wanted])
            std, prior = float(values.std(ddof=1)), normal[name].prior_std
            found.append(PredictedInterval(name, float(values.mean()), std, prior, float(low), float(high), wanted))
        return found

    def continued(self, count: int) -> Chain:
        """The chain with `count` further states: the same as if it had been made as long at once."""
        more = _walk(self.posterior, count, self.step, self.every, self.seed, self.white, self.size)
        total = self.size + count
        return replace(
            more,
            samples=np.concatenate([self.samples, more.samples]),
            predictions=np.concatenate([self.predictions, more.predictions]),
            coordinates=np.concatenate([self.coordinates, more.coordinates]),
            differences=np.concatenate([self.differences, more.differences]),
            accepted=(self.accepted * self.size + more.accepted * count) / total,
        )


def sampled_chain(posterior: Posterior, count: int, seed: int, step: float | None, every: int) -> Chain:
    """A chain of `count` states.

    Args:
        step: in (0, 1]; None: as long as a fourth of the proposals of short trials is accepted.
        every: states between those that are kept as controls.

    Raises:
        ValueError: a number is out of its range; no step has acceptable proposals.
    """
    if count < 1 or every < 1:
        raise ValueError(f"expected at least 1 sample, every at least 1; found {count} and {every}")
    if step is not None and not 0.0 < step <= 1.0:
        raise ValueError(f"step: expected a number above 0 and at most 1, found {step!r}")
    start = _white(posterior, seed, -1)
    if step is None:
        step, start = _step_length(posterior, seed, start)
    return _walk(posterior, count, step, every, seed, start, 0)


def _step_length(posterior: Posterior, seed: int, start: Tensor) -> tuple[float, Tensor]:
    """The longest step of a sequence with acceptable proposals, and the state after the trials."""
    step, number = 1.0, -1
    while step >= _SMALLEST:
        for _ in range(2):
            number -= _TRIAL
            trial = _walk(posterior, _TRIAL, step, _TRIAL, seed, start, number)
            start = trial.white
        if trial.accepted >= _ACCEPTED:
            return step, start
        step *= _FACTOR
    raise ValueError("no step of the chain has proposals that are accepted: the normal approximation is wrong")


def _walk(posterior: Posterior, count: int, step: float, every: int, seed: int, white: Tensor, first: int) -> Chain:
    """`count` states after the one with the coordinates `white`, the first of which has the number `first`."""
    target = _Target(posterior)
    known = target.at(white)
    samples, values, coordinates, differences, accepted = [], [], [], [], 0
    for number in range(first, first + count):
        proposal = math.sqrt(1.0 - step * step) * white + step * _white(posterior, seed, number)
        tried = target.at(proposal)
        if math.log(_uniform(seed, number)) < known.difference - tried.difference:
            white, known, accepted = proposal, tried, accepted + 1
        if number % every == 0:
            samples.append(known.v.cpu().numpy())
        values.append(known.predictions)
        coordinates.append((white @ target.vectors[:_DIRECTIONS].T).cpu().numpy())
        differences.append(known.difference)
    names = tuple(each.name for each in target.predictions)
    return Chain(
        posterior,
        np.array(samples).reshape(-1, len(white)),
        np.array(values).reshape(count, len(names)),
        np.array(coordinates),
        np.array(differences),
        names,
        accepted / count,
        step,
        every,
        seed,
        white,
    )


@dataclass(frozen=True, eq=False)
class _Known:
    """A control v, the difference D there, and the predictions."""

    v: Tensor
    difference: float
    predictions: list[float]


class _Target:
    """Evaluates the posterior at m = mean + C^1/2 white.

    With m - m0 = L^-1 (a + white - sum s c v), a = L (mean - m0), c the coordinates of white on the eigenvectors v and
    s = 1 - (1 + lambda)^-1/2, the terms with |white|^2 cancel:

        D = misfit + a . (a/2 + white - sum s c v) - 1/2 sum lambda / (1 + lambda) c^2
    """

    def __init__(self, posterior: Posterior) -> None:
        self.posterior, self.vectors = posterior, posterior.spectrum.vectors
        self.predictions: Sequence[Prediction] = posterior.problem.predictions
        eigenvalues = posterior.spectrum.eigenvalues
        self._less, self._shares = 1.0 - (1.0 + eigenvalues).rsqrt(), eigenvalues / (1.0 + eigenvalues)
        self._mean = posterior.forward.point.v
        self._solver = StateSolver(posterior.problem, StateOptions(kept=1, derivatives=False))
        self._offset = posterior.prior.white((self._mean - posterior.prior.mean)[None])[0]

    def at(self, white: Tensor) -> _Known:
        coordinates = white @ self.vectors.T
        reduced = white - (self._less * coordinates) @ self.vectors
        v = self._mean + self.posterior.prior.coloured(reduced[None])[0]
        point = self._solver.at(v)
        if point.message:
            return _Known(v, math.inf, [])
        state = self.posterior.problem.state(point.u, v)
        difference = self.posterior.forward.noise.misfit(state)
        difference += float(self._offset @ (0.5 * self._offset + reduced))
        difference -= 0.5 * float(self._shares @ coordinates.square())
        return _Known(v, difference, [each.value(state, v) for each in self.predictions])


def _white(posterior: Posterior, seed: int, number: int) -> Tensor:
    numbers = _generator(seed, number).standard_normal(posterior.prior.size)
    return torch.from_numpy(numbers).to(posterior.prior.mean)


def _uniform(seed: int, number: int) -> float:
    return 1.0 - float(_generator(seed, number, 1).random())


def _generator(seed: int, number: int, use: int = 0) -> np.random.Generator:
    """The random numbers of one state; those of the trials have negative numbers."""
    return np.random.default_rng([seed, abs(number), int(number < 0), use])
