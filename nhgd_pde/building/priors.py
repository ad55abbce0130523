"""From the priors of a problem file to the normal distributions of its controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..control.controls import ControlSpace
from ..fem.evaluation_operator import EvaluationOperator
from ..fem.mesh import Domain
from ..inference.prior import MaternNumbers, NormalPrior
from ..problem_file.inference_spec import PriorSpec
from .values import Values

# Distances of nodes in a correlation length below which the variance is wrong by more than some 10 %.
_LEAST = 4.0


def with_prior(values: Values, key: str, part: ControlSpace) -> ControlSpace:
    """A control with its prior, whose precision is the inner product of the control.

    Args:
        values: evaluates expressions and collects mistakes.
        key: the key of the control in the file.
        part: the control.
    """
    inference = values.file.spec.inference
    assert inference is not None
    found = inference.prior_of(part.name)
    if found is None:
        values.complain("inference.prior", f"expected a prior of every control, found none of {part.name!r}")
        return part
    at, spec = found
    if part.rule is not None or part.filter is not None:
        what = "varies in time" if part.rule is not None else "is filtered"
        values.complain(
            f"{key}.space", f"expected a control that is constant in time and not filtered beside inference; it {what}"
        )
        return part
    mean = _mean(values, at, spec, part)
    dim = values.domain.dim - part.boundary
    if part.space is None or dim == 0:
        if spec.length is not None and part.space is None:
            values.complain(
                f"{at}.length", f"expected none for {part.name!r}, which is no field, found {spec.length:g}"
            )
        prior = NormalPrior.of_numbers(mean, spec.std)
    elif part.space.element != "P1":
        values.complain(
            f"{key}.space", f"expected P1 beside inference, whose priors have gradients, found {part.space.element!r}"
        )
        return part
    elif spec.length is None:
        values.complain(f"{at}.length", f"missing; expected the correlation length of the field {part.name!r}")
        return part
    else:
        numbers = MaternNumbers.of(dim, spec.length, spec.std)
        prior = _field_prior(values.domain, part, mean, numbers, spec.boundary == "robin")
        _check_resolved(values, at, spec.length, float(prior.mass.mean() ** (1.0 / dim)))
    return replace(part, prior=prior, riesz=prior.riesz)


def _check_resolved(values: Values, at: str, length: float, spacing: float) -> None:
    """Tell of a correlation length that the mesh does not resolve."""
    if length < _LEAST * spacing:
        values.tell(
            f"{at}.length is {length / spacing:.2g} times the distance of nodes, {spacing:.3g}: below about {_LEAST:g} "
            "times the field does not have the standard deviation std; refine the mesh or take a longer length"
        )


def _mean(values: Values, at: str, spec: PriorSpec, part: ControlSpace) -> Tensor:
    if spec.mean is None:
        return part.initial
    key = f"{at}.mean"
    values.constant_in_time(key, spec.mean)
    if part.space is None:
        values.number(key, spec.mean)
    nodes = part.nodes[:, : part.columns // part.components]
    given = values.components(key, spec.mean, part.components, nodes, np.zeros(1))
    return values.tensor(np.broadcast_to(given, (part.components, 1, nodes.shape[1])).reshape(-1))


def _field_prior(domain: Domain, part: ControlSpace, mean: Tensor, numbers: MaternNumbers, robin: bool) -> NormalPrior:
    evaluation, stride = part.evaluation, part.evaluation.stride
    gradients = {i: part.weight for i in range(evaluation.components) if i % stride}
    values = {i: part.weight for i in range(evaluation.components) if i % stride == 0}
    mass = _gram(evaluation, values)
    operator = numbers.gamma * _gram(evaluation, gradients) + numbers.delta * mass
    if robin and not part.boundary:
        assert part.space is not None and part.dofs is not None
        trace = part.space.facets(_edge(domain, part)).columns(part.dofs)
        edge = _gram(trace, {0: torch.ones_like(trace.quadrature.weights)[None]})
        operator = operator + numbers.robin * sp.block_diag([edge] * part.components, format="csr")
    return NormalPrior(mean, sp.csr_matrix(operator), np.asarray(mass.sum(axis=1)).reshape(-1))


def _gram(evaluation: EvaluationOperator, weights: dict[int, Tensor]) -> sp.csr_matrix:
    return evaluation.assemble(evaluation, {(i, i): weight for i, weight in weights.items()}, symmetric=True).host()


def _edge(domain: Domain, part: ControlSpace) -> np.ndarray:
    """The facets between the cells in which a control acts and all others, and those of the boundary there."""
    acts = part.weight.reshape(part.weight.shape[1], -1)[:, 0].cpu().numpy() > 0.0
    first, second = domain.mesh.f2t
    inside = acts[first].astype(int) + np.where(second >= 0, acts[second], False)
    seams = np.concatenate([np.zeros(0, dtype=int), *(seam.facets.reshape(-1) for seam in domain.seams)])
    return np.setdiff1d(np.flatnonzero(inside == 1), seams)
