"""The choice of sensors for a problem with a posterior: from its candidates to the best ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from ..building.candidate_sensors import CandidateBuilder, CandidateSensors
from ..building.issue_collector import IssueCollector
from ..inference.forward_map import ForwardMap
from ..inference.noise import SensorNoise
from ..inference.posterior import Posterior, PosteriorOptions, estimated_variance, joint_prior
from ..inference.prior import JointPrior
from ..linalg.sparse import SparseMatrix
from ..pde_problem import PDEProblem
from ..placement.chosen import SensorChoice, best_choice
from ..placement.exchange import indicator
from ..placement.information import Criterion, SensorInformation
from ..problem_file.errors import ProblemError
from ..problem_file.loading import ProblemFile
from ..problem_file.placement_spec import PlacementSpec, placement_complaints

# Rows of the derivative that are solved for at once.
_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class SensedSubspace:
    """The r directions of the control that sensors tell about, orthonormal in the inner product of the prior.

    Attributes:
        prior: the prior of all controls.
        directions: (r, p).
        rows: (m, b, r) the derivative of what each candidate measures, over its noise, along the directions.
        existing: (q, r) the same of the sensors that are there already.
        prior_variance: (p,) of every coefficient of the control.
    """

    prior: JointPrior
    directions: Tensor
    rows: Tensor
    existing: Tensor
    prior_variance: Tensor

    @cached_property
    def base(self) -> Tensor:
        """(r, r) the precision of the control along the directions, with the sensors that are there already."""
        return torch.eye(len(self.directions)).to(self.directions) + self.existing.T @ self.existing

    def variance(self, precision: Tensor) -> Tensor:
        """(p,) the variance of every coefficient of the control for a precision (r, r)."""
        root = torch.linalg.cholesky(precision)
        left = torch.linalg.solve_triangular(root, self.directions, upper=False).square().sum(0)
        found = self.prior_variance - self.directions.square().sum(0) + left
        # Where the prior's variance is an estimate, its error must not make the difference negative.
        return found.clamp(min=torch.finfo(found.dtype).tiny)

    def information(self, criterion: Criterion) -> SensorInformation:
        """The criterion. With several controls, A is the mean of the shares of their integrated variances."""
        before, spread, first = self.variance(self.base), torch.zeros_like(self.base), 0
        for part in self.prior.parts:
            own = slice(first, first + part.size)
            mass = torch.from_numpy(part.mass).to(before)
            directions = self.directions[:, own]
            total = float((mass * before[own]).sum()) * len(self.prior.parts)
            spread, first = spread + (mass * directions) @ directions.T / total, own.stop
        return SensorInformation(self.rows, self.base, spread, criterion)


@dataclass(frozen=True, eq=False, repr=False)
class Placement:
    """The result of `place_sensors`.

    Attributes:
        problem: the problem.
        offered: the candidates, and what they measure.
        choice: the best set, and the relaxed problem.
        candidates: (m, dim) the places that were offered.
        existing: (k, dim) the places of the sensors that stay.
        points: (k, dim) the places of the chosen ones.
        expected: (m, b) the values that the computed state has at the candidates, those of one component together.
        integrated_variance: for each control by its name the variance of the prior, now, and with the chosen sensors,
            each integrated over the domain; of numbers the sum.
        chosen: (k,) the numbers of the best ones, rising.
        weights: (m,) the solution of the relaxed problem, in which every weight is between 0 and 1.
        alone: (m,) the criterion of every candidate alone.
        criterion: D or A.
        value: the criterion of the chosen ones. D: the expected information gain in nats. A: the share of the
            integrated variance that they take away.
        penalty: what a sensor has to add; 0 where their number was given.
        bound: no other set of sensors has a larger value, less the penalty for each of its sensors.
        gap: the largest share of the bound by which another set can be better.
        noise: standard deviation of the values of a new sensor.
        control: (p,) where the equation was linearised.
        prior_std, before_std, std: (p,) the standard deviation of every coefficient of the control: of the prior, with
            the sensors that are there already, and with the chosen ones, too.
    """

    problem: PDEProblem
    offered: CandidateSensors
    choice: SensorChoice
    alone: np.ndarray
    criterion: Criterion
    penalty: float
    noise: float
    existing: np.ndarray
    expected: np.ndarray
    control: np.ndarray
    prior_std: np.ndarray
    before_std: np.ndarray
    std: np.ndarray

    def __repr__(self) -> str:
        sensors = f"{len(self.chosen):,} of {len(self.candidates):,} sensors of {self.problem.name!r}"
        return f"Placement({sensors}: {self.criterion} = {self.value:.6g}, gap {100.0 * self.gap:.2g} %)"

    @property
    def candidates(self) -> np.ndarray:
        return self.offered.points

    @property
    def chosen(self) -> np.ndarray:
        return np.array(self.choice.chosen, dtype=int)

    @property
    def points(self) -> np.ndarray:
        return np.asarray(self.candidates[self.chosen])

    @property
    def weights(self) -> np.ndarray:
        return self.choice.relaxed.weights.cpu().numpy()

    @property
    def value(self) -> float:
        return self.choice.value

    @property
    def bound(self) -> float:
        return self.choice.bound

    @property
    def gap(self) -> float:
        return self.choice.gap

    @property
    def integrated_variance(self) -> dict[str, tuple[float, float, float]]:
        found, first = {}, 0
        for part, prior in zip(self.problem.control.parts, joint_prior(self.problem).parts, strict=True):
            own = slice(first, first + prior.size)
            sums = [float(prior.mass @ each[own] ** 2) for each in (self.prior_std, self.before_std, self.std)]
            found[part.name], first = (sums[0], sums[1], sums[2]), own.stop
        return found


def with_placement(file: ProblemFile, changes: Mapping[str, Any]) -> ProblemFile:
    """A file with other values in its section `placement`; count and penalty replace each other.

    Raises:
        ProblemError: values that are wrong or missing.
    """
    own = {} if file.spec.placement is None else file.spec.placement.model_dump()
    for key, other in (("count", "penalty"), ("penalty", "count"), ("at", "grid"), ("grid", "at")):
        if key in changes and other not in changes:
            own[other] = None
    try:
        placement = PlacementSpec.model_validate({**own, **changes})
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        keyed = [(".".join(["placement", *map(str, each["loc"])]), each["msg"]) for each in found]
        raise ProblemError([file.issue(key, message) for key, message in keyed]) from None
    spec = file.spec.model_copy(update={"placement": placement})
    complaints = [file.issue(".".join(map(str, place)), message) for place, message in placement_complaints(spec)]
    if complaints:
        raise ProblemError(complaints)
    return replace(file, spec=spec)


def placed(problem: PDEProblem, file: ProblemFile, control: np.ndarray, points: np.ndarray | None = None) -> Placement:
    """The best sensors for a problem, linearised at a control (p,), by the section `placement` of a file.

    Args:
        points: (m, dim) candidates in place of those of the section.

    Raises:
        ProblemError: candidates that cannot be used, or that see nothing of the control.
        ValueError: an array of another shape, or with numbers that are not finite.
        StateUnsolvedError: there is no state at the control.
    """
    spec = file.spec.placement
    assert spec is not None and file.spec.inference is not None
    for name, given, shape in (
        ("candidates", points, (None, problem.space.domain.dim)),
        ("at", control, (problem.outer_size,)),
    ):
        if given is not None:
            _check(name, np.asarray(given), shape)
    mistakes = IssueCollector(file)
    builder = CandidateBuilder(mistakes, problem.space, spec)
    offered = builder.build(None if points is None else np.asarray(points, dtype=float))
    mistakes.raise_found()
    assert offered is not None
    inference = file.spec.inference
    noise = inference.noise_of(0) if spec.noise is None else spec.noise
    options = PosteriorOptions(exact=inference.exact, seed=file.spec.seed)
    v = torch.as_tensor(np.asarray(control), dtype=torch.float64, device=problem.equation.lift.device)
    posterior = Posterior(problem, v, options)
    kept = spec.existing == "keep"
    space = sensed_subspace(posterior, offered, noise, kept)
    if not len(space.directions) or not bool(space.rows.any()):
        raise file.error(
            builder.key(points),
            "expected candidates whose values depend on the control; those of all of them do not",
        )
    information = space.information(spec.criterion)
    choice = best_choice(information, spec.count, spec.penalty or 0.0, file.spec.seed)
    reached = information.precision(indicator(information, choice.chosen))
    stds = [each.sqrt().cpu().numpy() for each in map(space.variance, (space.base, reached))]
    return Placement(
        problem=problem,
        offered=offered,
        choice=choice,
        alone=information.gains(torch.linalg.inv(space.base)).cpu().numpy(),
        criterion=spec.criterion,
        penalty=spec.penalty or 0.0,
        noise=noise,
        existing=_places(problem) if kept else np.zeros((0, offered.points.shape[1])),
        expected=(offered.rows @ posterior.forward.state[0].cpu().numpy()).reshape(-1, offered.values),
        control=v.cpu().numpy(),
        prior_std=space.prior_variance.sqrt().cpu().numpy(),
        before_std=stds[0],
        std=stds[1],
    )


def _places(problem: PDEProblem) -> np.ndarray:
    """(k, dim) the places of the sensors of a problem that count, each once."""
    every = [each.points[:, each.weights > 0.0].T for each in problem.sensors]
    return np.unique(np.concatenate(every), axis=0)


def _check(name: str, given: np.ndarray, shape: tuple[int | None, ...]) -> None:
    fits = given.ndim == len(shape) and all(want in (None, has) for want, has in zip(shape, given.shape, strict=True))
    if not fits or not given.size or not np.isfinite(given).all():
        wanted = ", ".join("m" if each is None else str(each) for each in shape)
        raise ValueError(f"{name}: expected an array ({wanted}) of finite numbers, found one of shape {given.shape}")


def sensed_subspace(posterior: Posterior, offered: CandidateSensors, noise: float, kept: bool) -> SensedSubspace:
    """The directions that the candidates see and, if they are `kept`, the sensors of the problem.

    Every number that a candidate measures costs one adjoint solve.
    """
    prior, there = posterior.prior, posterior.forward
    device = prior.mean.device
    count = offered.rows.shape[0]
    values = torch.zeros(count, dtype=torch.float64, device=device)
    new = SensorNoise([SparseMatrix(offered.rows, device)], values, values + noise**-2.0)
    whitened = [_scaled_rows(prior, ForwardMap(there.problem, there.point, new))]
    if kept:
        whitened.append(_scaled_rows(prior, there))
    every = torch.cat(whitened)
    left, sizes, right = torch.linalg.svd(every, full_matrices=False)
    limit = float(sizes.max()) * max(every.shape) * torch.finfo(every.dtype).eps
    rank = int((sizes > limit).sum())
    rows = left[:, :rank] * sizes[:rank]
    directions = prior.coloured(right[:rank]) if rank else right[:0]
    if prior.size <= posterior.options.exact:
        variance = torch.from_numpy(posterior.prior_variance).to(every)
    else:
        variance = estimated_variance(prior, right[:rank], directions, posterior.options.seed + 1)
    blocks = rows[:count].reshape(len(offered.points), offered.values, rank)
    return SensedSubspace(prior, directions, blocks, rows[count:], variance)


def _scaled_rows(prior: JointPrior, forward: ForwardMap) -> Tensor:
    """N^-1/2 F L^-1 (q, p), for the root R = L^T L of the prior."""
    root = forward.noise.root
    found = []
    for first in range(0, len(root), _AT_ONCE):
        units = torch.zeros(min(_AT_ONCE, len(root) - first), len(root)).to(root)
        units[:, first:].diagonal().copy_(root[first : first + len(units)])
        found.append(prior.whitened(forward.transposed(units)))
    return torch.cat(found)
