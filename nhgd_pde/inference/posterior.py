"""The normal approximation of a posterior at its most likely point (Laplace), with a low-rank change of the covariance.

    C = (H + R)^-1 = R^-1 - sum lambda_i / (1 + lambda_i) w_i w_i^T,   H w_i = lambda_i R w_i,   w_i R w_j = delta_ij

for the Hessian H of the misfit and the precision R of the prior (Bui-Thanh, Ghattas, Martin and Stadler 2013, SIAM J.
Sci. Comput. 35, A2494-A2523). Of a linear equation with normal noise it is the posterior itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy.stats import chi2, norm
from torch import Tensor

from ..bridges.solved_state import StateOptions, StateSolver, StateUnsolvedError
from ..objective.terms import Prediction
from ..pde_problem import PDEProblem
from .forward_map import ForwardMap
from .intervals import PredictedInterval
from .misfit import misfit_hessian
from .noise import SensorNoise
from .prior import JointPrior, NormalPrior
from .spectrum import Spectrum, leading_spectrum

if TYPE_CHECKING:
    from .chain import Chain

# Unit vectors whose covariances are computed at once, and samples that estimate a variance of more unknowns.
_AT_ONCE, _SAMPLES = 256, 1_000


@dataclass(frozen=True)
class PosteriorOptions:
    """How a posterior is computed.

    Attributes:
        hessian: the Fisher information (`gauss_newton`), or the misfit's Hessian itself (`full`).
        threshold: eigenvalues below it are left out.
        rank: most eigenvalues that are kept; None for all above the threshold.
        exact: control unknowns up to which the prior's variance is computed by a solve each.
        level: of the intervals.
        seed: of all random directions and samples.
    """

    hessian: Literal["gauss_newton", "full"] = "gauss_newton"
    threshold: float = 0.01
    rank: int | None = None
    exact: int = 10_000
    level: float = 0.95
    seed: int = 0


class Posterior:
    """The normal distribution N(mean, C) that approximates a posterior.

    Args:
        problem: the problem of one scenario, whose controls have priors and whose objective has sensors.
        v: (p,) the most likely control.
        options: see `PosteriorOptions`.

    Raises:
        StateUnsolvedError: there is no state at the control.

    Attributes:
        prior: the prior of all controls.
        forward: the derivative of the measured values by the control, with its transpose.
        spectrum: the eigenpairs, and what is left out.
    """

    def __init__(self, problem: PDEProblem, v: Tensor, options: PosteriorOptions | None = None) -> None:
        self.problem, self.options = problem, options or PosteriorOptions()
        self.prior = joint_prior(problem)
        point = StateSolver(problem, StateOptions()).at(v)
        if point.message:
            raise StateUnsolvedError(point.message)
        self.forward = ForwardMap(problem, point, SensorNoise.of(problem.sensors))
        self.spectrum = self._leading()

    # The spectrum

    def _leading(self) -> Spectrum:
        options, size, prior, forward = self.options, self.prior.size, self.prior, self.forward
        generator = torch.Generator().manual_seed(options.seed)
        full = options.hessian == "full"
        product: Callable[[Tensor], Tensor] = misfit_hessian(forward) if full else forward.fisher

        def operator(rows: Tensor) -> Tensor:
            return prior.whitened(product(prior.coloured(rows)))

        def directions(count: int) -> Tensor:
            if full or not count:
                return torch.randn(count, size, generator=generator, dtype=torch.float64).to(prior.mean)
            # Scores have the Fisher information as covariance, and so prefer the leading directions.
            return prior.whitened(forward.scores(count, generator))

        rank = size if full else int((forward.noise.precision > 0.0).sum())
        found = leading_spectrum(operator, size, directions, rank, options.threshold, options.rank, generator)
        if bool((found.eigenvalues <= -1.0).any()):
            least = float(found.eigenvalues.min())
            raise ValueError(
                "the control is no minimum of the negative log-posterior: an eigenvalue of the misfit's Hessian is "
                f"{least:.3g}, below -1; take hessian: gauss_newton, or start the run nearer to the most likely control"
            )
        return found

    @property
    def eigenvalues(self) -> np.ndarray:
        """(r,) the eigenvalues lambda of the misfit's Hessian against the prior: data inform directions above 1."""
        return self.spectrum.eigenvalues.cpu().numpy()

    @cached_property
    def directions(self) -> np.ndarray:
        """(r, p) the eigenvectors w, with w R w = 1, in the space of the control."""
        return self._directions.cpu().numpy()

    @cached_property
    def _directions(self) -> Tensor:
        vectors = self.spectrum.vectors
        return self.prior.coloured(vectors) if len(vectors) else vectors

    @property
    def _shares(self) -> Tensor:
        """(r,) lambda / (1 + lambda), by which the data reduce the variance along each direction."""
        found = self.spectrum.eigenvalues
        return found / (1.0 + found)

    # Mean and covariance

    @property
    def mean(self) -> np.ndarray:
        """(p,) the most likely control, the mean of the normal approximation."""
        return self.forward.point.v.cpu().numpy()

    @cached_property
    def variance(self) -> np.ndarray:
        """(p,) the variance of every coefficient of the control: pointwise of a field."""
        reduction = (self._shares[:, None] * self._directions.square()).sum(0).cpu().numpy()
        # Where the prior's variance is an estimate, its error must not make the difference negative.
        return np.maximum(self.prior_variance - reduction, np.finfo(float).tiny)

    @cached_property
    def prior_variance(self) -> np.ndarray:
        """(p,) the variance of the prior, exact up to `options.exact` unknowns; see `prior_variance_error`."""
        size, prior = self.prior.size, self.prior
        if size > self.options.exact:
            kept, directions = self.spectrum.vectors, self._directions
            return estimated_variance(prior, kept, directions, self.options.seed + 1).cpu().numpy()
        found = []
        for first in range(0, size, _AT_ONCE):
            units = torch.zeros(min(_AT_ONCE, size - first), size, dtype=torch.float64).to(prior.mean)
            units[:, first:].diagonal().fill_(1.0)
            found.append(prior.whitened(units).square().sum(1))
        return torch.cat(found).cpu().numpy()

    @property
    def prior_variance_error(self) -> float:
        """A bound of the relative standard error of `prior_variance`: 0 where it is exact, else sqrt(2 / samples)."""
        exact = self.prior.size <= self.options.exact
        return 0.0 if exact else math.sqrt(2.0 / (_AT_ONCE * math.ceil(_SAMPLES / _AT_ONCE)))

    def covariance(self, covectors: np.ndarray) -> np.ndarray:
        """C g for covectors (k, p)."""
        return self._covariance(self._entered(covectors)).cpu().numpy()

    def _covariance(self, covectors: Tensor) -> Tensor:
        reduced = self._shares * (covectors @ self._directions.T)
        return self.prior.covariance(covectors) - reduced @ self._directions

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """(count, p) independent samples, of the same random numbers as those of `prior_sample` with this seed."""
        return (self.forward.point.v + self._deviations(self._white(count, seed))).cpu().numpy()

    def prior_sample(self, count: int, seed: int = 0) -> np.ndarray:
        """(count, p) independent samples of the prior, from the random numbers of `sample` with this seed."""
        return (self.prior.mean + self.prior.coloured(self._white(count, seed))).cpu().numpy()

    def _white(self, count: int, seed: int) -> Tensor:
        # Of NumPy, whose first samples are the same however many are drawn.
        white = np.random.default_rng(seed).standard_normal((count, self.prior.size))
        return torch.from_numpy(white).to(self.prior.mean)

    def _deviations(self, white: Tensor) -> Tensor:
        """Samples of N(0, C) from independent standard normal numbers (k, p)."""
        vectors = self.spectrum.vectors
        less = 1.0 - (1.0 + self.spectrum.eigenvalues).rsqrt()
        return self.prior.coloured(white - (less * (white @ vectors.T)) @ vectors)

    def _entered(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.atleast_2d(np.asarray(rows, dtype=float))).to(self.prior.mean)

    # How well the data fit, and what is left out

    @property
    def misfit(self) -> float:
        """sum (computed - measured)^2 / (2 noise^2) at the most likely control."""
        return self.forward.noise.misfit(self.forward.state)

    @property
    def noise_ratio(self) -> float:
        """The root mean square of (computed - measured) / noise, over the values that the fit leaves free: about 1.

        The fit takes sum lambda / (1 + lambda) of the measured values, so that twice the misfit has about the mean
        q - sum lambda / (1 + lambda).
        """
        free = self._free
        return math.sqrt(2.0 * self.misfit / free) if free > 0.0 else math.nan

    @property
    def noise_doubtful(self) -> bool:
        """Whether twice the misfit is beyond the quantiles 0.1 % and 99.9 % of a chi-squared distribution.

        The noise of the problem file or the equation is then not that of the data, or the prior excludes the truth.
        """
        free = self._free
        return free > 0.0 and not 1e-3 < float(chi2.cdf(2.0 * self.misfit, free)) < 1.0 - 1e-3

    @property
    def _free(self) -> float:
        """q - sum lambda / (1 + lambda), the number of measured values that the fit leaves free."""
        return float((self.forward.noise.precision > 0.0).sum()) - float(self._shares.sum())

    @property
    def share_left_out(self) -> float:
        """The largest share of any variance by which it is too large, as some eigenvalues are left out.

        It is lambda / (1 + lambda) of the largest of them, which the last ones that were found estimate. Negative
        ones, which the full Hessian may have, make a variance too small.
        """
        largest = self.spectrum.next
        if self.options.hessian == "gauss_newton":
            return largest / (1.0 + largest)
        return largest / (1.0 - largest) if largest < 1.0 else math.inf

    # What was learned

    @property
    def log_determinant(self) -> float:
        """log det(I + R^-1 H): minus the logarithm of the ratio of the volumes of posterior and prior, doubled."""
        return float(torch.log1p(self.spectrum.eigenvalues).sum())

    @property
    def information_gain(self) -> float:
        """1/2 log det(I + R^-1 H), in nats: the mean over all data of the divergence of posterior from prior.

        This holds for a linear equation (Alexanderian, Gloor and Ghattas 2016, Bayesian Anal. 11); for others it is
        that of the equation linearised at the most likely control.
        """
        return 0.5 * self.log_determinant

    @cached_property
    def divergence(self) -> float:
        """The Kullback-Leibler divergence of the normal approximation from the prior for these data, in nats.

        1/2 (log det(I + R^-1 H) - sum lambda / (1 + lambda) + (mean - m0) R (mean - m0)).
        """
        deviation = (self.forward.point.v - self.prior.mean)[None]
        distance = float(self.prior.white(deviation).square().sum())
        return 0.5 * (self.log_determinant - float(self._shares.sum()) + distance)

    # Intervals

    def interval(self, covector: np.ndarray, level: float | None = None) -> PredictedInterval:
        """The interval of the linear functional <covector, control> of the control, covector (p,)."""
        own = self._entered(covector)
        return self._interval("functional", float(own[0] @ self.forward.point.v), own, level or self.options.level)

    def predicted(
        self, predictions: Sequence[Prediction] | None = None, level: float | None = None
    ) -> list[PredictedInterval]:
        """The intervals of predictions, by default of those of the problem file, with the equation linearised."""
        wanted = self.problem.predictions if predictions is None else predictions
        state, v = self.forward.state, self.forward.point.v
        found = []
        for each in wanted:
            own = each.control[None] if each.control is not None else self.forward.pulled_back(_rows(each.state))
            found.append(self._interval(each.name, each.value(state, v), own, level or self.options.level))
        return found

    def chain(self, samples: int, seed: int = 0, step: float | None = None, every: int = 1) -> Chain:
        """A Markov chain that samples the posterior itself; each of its states solves the equation once.

        Args:
            samples: number of its states.
            seed: of all its random numbers.
            step: length of the proposals in (0, 1], 1 for independent ones; None finds it by short trials.
            every: states between those that are kept as controls.

        Raises:
            ValueError: a number is out of its range; no step has acceptable proposals.
        """
        from .chain import sampled_chain

        return sampled_chain(self, samples, seed, step, every)

    def _interval(self, name: str, value: float, covector: Tensor, level: float) -> PredictedInterval:
        prior = float((covector * self.prior.covariance(covector)).sum())
        reduction = float((self._shares * (covector @ self._directions.T)[0].square()).sum())
        std = math.sqrt(max(prior - reduction, 0.0))
        reach = float(norm.ppf(0.5 + 0.5 * level)) * std
        return PredictedInterval(name, value, std, math.sqrt(prior), value - reach, value + reach, level)


def estimated_variance(prior: JointPrior, kept: Tensor, directions: Tensor, seed: int) -> Tensor:
    """(p,) the variance of a prior: the mean square of samples beside some directions, whose part is known exactly.

    Args:
        kept: (r, p) orthonormal directions of the white noise.
        directions: (r, p) the same, coloured.
        seed: of the samples.
    """
    total = torch.zeros_like(prior.mean)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(0, _SAMPLES, _AT_ONCE):
        white = torch.randn(_AT_ONCE, prior.size, generator=generator, dtype=torch.float64).to(total)
        white = white - (white @ kept.T) @ kept
        total += prior.coloured(white).square().sum(0)
    return total / (_AT_ONCE * math.ceil(_SAMPLES / _AT_ONCE)) + directions.square().sum(0)


def _rows(covector: Tensor | None) -> Tensor:
    assert covector is not None
    return covector[None]


def joint_prior(problem: PDEProblem) -> JointPrior:
    """The prior of all controls of a problem.

    Raises:
        ValueError: a control has no prior.
    """
    parts = [part.prior for part in problem.control.parts]
    if any(not isinstance(each, NormalPrior) for each in parts):
        raise ValueError("expected a problem with a section inference, whose controls have priors")
    return JointPrior([each for each in parts if isinstance(each, NormalPrior)])
