"""The posterior of a run: its fields, its numbers, and what is said about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from ..engine.loop import Status
from ..inference.chain import Chain
from ..inference.intervals import PredictedInterval
from ..inference.posterior import Posterior, PosteriorOptions
from ..output.fields import FieldData, Grid
from ..pde_problem import PDEProblem
from ..problem_file.inference_spec import InferenceSpec
from .drawing import control_fields, output_grid

# Controls of numbers up to which each has an interval of its own in words.
_MOST_NUMBERS = 20
# States of a chain that are kept as controls.
_MOST_SAMPLES = 1_000
# Independent samples below which the intervals of a chain are too rough.
_FEWEST_SAMPLES = 100


@dataclass(frozen=True, eq=False)
class Inferred:
    """What a run tells about the posterior at its end.

    Attributes:
        problem: the problem that was solved.
        spec: the section `inference` of its file.
        v: (p,) the control at which the run has ended.
        status: how it has ended.
        seed: of all random numbers.
    """

    problem: PDEProblem
    spec: InferenceSpec
    v: Tensor
    status: Status
    seed: int

    @cached_property
    def posterior(self) -> Posterior:
        """The posterior.

        Raises:
            ValueError: the run has not converged; the control is no minimum.
        """
        if self.status != "converged":
            raise ValueError(
                f"expected a run that has converged, found one that is {self.status}: its control is not the most "
                "likely one; take more outer.iterations, or a larger outer.rtol"
            )
        spec = self.spec
        options = PosteriorOptions(spec.hessian, spec.threshold, spec.rank, spec.exact, spec.level, self.seed)
        return Posterior(self.problem, self.v, options)

    @cached_property
    def intervals(self) -> list[PredictedInterval]:
        """Those of controls that are numbers, then those of the predictions of the file."""
        posterior, found = self.posterior, []
        for first, part in zip(self.problem.control.rows.offsets, self.problem.control.parts, strict=False):
            if part.space is not None or part.size > _MOST_NUMBERS:
                continue
            for k in range(part.size):
                unit = np.zeros(posterior.prior.size)
                unit[first + k] = 1.0
                own = asdict(posterior.interval(unit))
                name = part.name if part.size == 1 else f"{part.name}[{k}]"
                found.append(PredictedInterval(**{**own, "name": name}))
        return [*found, *posterior.predicted()]

    def chain(self, states: int) -> Chain:
        """A chain of so many states, whose predictions are those of `intervals`."""
        return self.posterior.chain(states, self.seed, every=max(1, states // _MOST_SAMPLES))

    def fields(self) -> tuple[Grid, FieldData] | None:
        """Mean, standard deviations and samples as fields; None where every control is a number."""
        if all(part.space is None for part in self.problem.control.parts):
            return None
        posterior = self.posterior
        named = {
            "mean": posterior.mean,
            "posterior_std": np.sqrt(posterior.variance),
            "prior_std": np.sqrt(posterior.prior_variance),
        }
        for kind, draw in (("posterior_sample", posterior.sample), ("prior_sample", posterior.prior_sample)):
            named |= {f"{kind}_{k}": row for k, row in enumerate(draw(self.spec.samples, self.seed))}
        point: dict[str, np.ndarray] = {}
        cell: dict[str, np.ndarray] = {}
        for name, values in named.items():
            on_points, on_cells = control_fields(self.problem, values, name)
            point, cell = {**point, **on_points}, {**cell, **on_cells}
        return output_grid(self.problem), FieldData(point, cell)

    def numbers(self) -> Mapping[str, Any]:
        """The content of posterior.json."""
        posterior = self.posterior
        spectrum, noise = posterior.spectrum, posterior.forward.noise
        return {
            "name": self.problem.name,
            "hessian": self.spec.hessian,
            "control_dofs": posterior.prior.size,
            "measured_values": int((noise.precision > 0.0).sum()),
            "noise": self.spec.noise,
            "misfit": posterior.misfit,
            "noise_ratio": posterior.noise_ratio,
            "noise_doubtful": posterior.noise_doubtful,
            "eigenvalues": posterior.eigenvalues.tolist(),
            "left_out": {
                "largest_eigenvalue": spectrum.next,
                "sum": spectrum.left,
                "sum_standard_error": spectrum.left_error,
                "variance_share_at_most": posterior.share_left_out,
            },
            "products": spectrum.products,
            "log_determinant": posterior.log_determinant,
            "information_gain": posterior.information_gain,
            "divergence": posterior.divergence,
            "prior_variance_error": posterior.prior_variance_error,
            "intervals": [asdict(each) for each in self.intervals],
        }

    def lines(self) -> list[str]:
        """What the command line prints about the posterior."""
        if self.status != "converged":
            return [f"no posterior: the run is {self.status}, so that its control is not the most likely one"]
        try:
            return self._lines()
        except ValueError as error:
            return [f"no posterior: {error}"]

    def _lines(self) -> list[str]:
        posterior = self.posterior
        kept, size = posterior.eigenvalues, posterior.prior.size
        informed = int((kept > 1.0).sum())
        found = [
            f"posterior: the data inform {_counted(informed, 'direction')} of {size:,} more than the prior does "
            f"(eigenvalues above 1); {_counted(len(kept), 'eigenvalue')} kept, those left out change no variance by "
            f"more than {100.0 * posterior.share_left_out:.2g} %",
            f"information gain {posterior.information_gain:.4g} nats; divergence of posterior from prior "
            f"{posterior.divergence:.4g} nats",
            f"noise: measured and computed values differ by {posterior.noise_ratio:.3g} of the given noise",
        ]
        if posterior.noise_doubtful:
            found[-1] += ", far from 1: inference.noise, the prior or the equation does not fit the data"
        for each in self.intervals:
            found.append(
                f"{each.name} = {each.value:.5g}, {100.0 * each.level:g} % interval [{each.low:.5g}, {each.high:.5g}]; "
                f"standard deviation {each.std:.3g}, before the data {each.prior_std:.3g}"
            )
        return found


def chain_numbers(chain: Chain) -> dict[str, Any]:
    """The entry `chain` of posterior.json."""
    return {
        "states": chain.size,
        "step": chain.step,
        "accepted": chain.accepted,
        "effective": chain.effective,
        "intervals": [asdict(each) for each in chain.intervals()],
    }


def chain_lines(chain: Chain) -> list[str]:
    """What the command line prints about a chain."""
    found = [
        f"chain of {chain.size:,} states: {100.0 * chain.accepted:.0f} % of the proposals of step {chain.step:.2g} "
        f"accepted, worth {chain.effective:,.0f} independent samples"
    ]
    if chain.effective < _FEWEST_SAMPLES:
        found[0] += ", too few to judge by: take more states"
    for each in chain.intervals():
        found.append(
            f"{each.name}: mean {each.value:.5g}, {100.0 * each.level:g} % interval [{each.low:.5g}, {each.high:.5g}], "
            f"standard deviation {each.std:.3g} by the chain"
        )
    return found


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
