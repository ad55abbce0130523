"""From the `parameters` and `scenarios` sections to random inputs and samples of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..fem.mesh import Domain
from ..fem.spaces import Space, space
from ..fem.state_space import StateSpace
from ..objective.risk import CVaR, Entropic, Mean, MeanPlusDeviation, RiskMeasure, WorstCase
from ..problem_file.errors import Issue, ProblemError
from ..problem_file.expressions import COORDINATES
from ..problem_file.loading import ProblemFile
from ..problem_file.scenario_spec import CVaRSpec, EntropicSpec, FieldSpec, MeanPlusDeviationSpec, ScenariosSpec
from ..uncertainty.covariance import Covariance, Gaussian, Matern
from ..uncertainty.distributions import Distribution, Normal, Uniform
from ..uncertainty.inputs import Field, FieldOnPoints, InputOnPoints, RandomInput, RandomInputs, Scalar
from ..uncertainty.karhunen_loeve import KarhunenLoeve, karhunen_loeve
from ..uncertainty.quadrature import sparse_quadrature, tensor_quadrature
from ..uncertainty.sampling import Samples, Stream, monte_carlo, quasi
from .random_values import names_in

# The number of scenarios of `count: auto`.
_COUNT = 256


def random_inputs(file: ProblemFile, domain: Domain) -> RandomInputs | None:
    """The random inputs of a file; None where there are none.

    Raises:
        ProblemError: a field has more modes than the mesh can represent, a name is a coordinate or is not used.
    """
    inputs: dict[str, RandomInput] = {}
    issues: list[Issue] = []
    nodal: Space | None = None
    used = names_in([file.spec.pde, None if file.spec.time is None else file.spec.time.initial])
    for name, spec in file.spec.parameters.items():
        if name in COORDINATES[: domain.dim]:
            message = f"the name {name!r} is taken: it is a coordinate of the mesh"
            issues.append(file.issue(f"parameters.{name}", message))
        elif name not in used:
            message = f"expected a random input that an expression of pde or time.initial uses, found {name!r}"
            issues.append(file.issue(f"parameters.{name}", message))
        try:
            if spec.normal is not None:
                inputs[name] = Scalar(Normal(*spec.normal))
            elif spec.uniform is not None:
                inputs[name] = Scalar(Uniform(*spec.uniform))
            elif spec.field is not None:
                nodal = nodal or space(domain.unglued, "P1", torch.device("cpu"))
                inputs[name] = Field(_expansion(spec.field, nodal))
        except ValueError as error:
            issues.append(file.issue(f"parameters.{name}" + ("" if spec.field is None else ".field"), str(error)))
    if issues:
        raise ProblemError(issues)
    return RandomInputs(inputs) if inputs else None


def _expansion(spec: FieldSpec, nodal: Space) -> KarhunenLoeve:
    covariance: Covariance = Gaussian(spec.std, spec.length)
    if spec.covariance == "matern":
        covariance = Matern(spec.std, spec.length, 1.5 if spec.smoothness is None else spec.smoothness)
    one = torch.ones_like(nodal.cells.quadrature.weights)[None]
    mass = nodal.cells.assemble(nodal.cells, {(0, 0): one}, symmetric=True).host()
    return karhunen_loeve(covariance, nodal.nodes, mass, modes=spec.modes, share=spec.variance)


@dataclass(frozen=True, eq=False)
class NodalField:
    """A field that is interpolated between nodes at the quadrature points of the cells, and exact elsewhere.

    Attributes:
        field: the field.
        state: the state space that has these quadrature points.
        nodal: the P1 space of the mesh, with the same quadrature points.
    """

    field: RandomInput
    state: StateSpace
    nodal: Space

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        return self.field.distributions

    def on(self, points: np.ndarray) -> InputOnPoints:
        """At points (dim, P)."""
        at = self.state.cells.quadrature.flat.cpu().numpy()
        if points.shape != at.shape or not np.array_equal(points, at):
            return self.field.on(points)
        modes = self.field.on(self.nodal.nodes).at(np.eye(len(self.distributions)))
        values = self.nodal.cells.evaluate(torch.from_numpy(modes).to(self.nodal.device))[0]
        return FieldOnPoints(values.cpu().numpy())


def on_nodes(inputs: RandomInputs, state: StateSpace) -> RandomInputs:
    """The random inputs with fields interpolated from nodes, as the covariance costs time at every point."""
    first = state.parts[0]
    own = first.element == "P1" and first.unglued is None
    # The covariance of a random field is not periodic.
    nodal = first if own else space(state.domain.unglued, "P1", state.device, like=first)
    return RandomInputs(
        {
            name: NodalField(part, state, nodal) if isinstance(part, Field) else part
            for name, part in inputs.inputs.items()
        }
    )


def samples_of(file: ProblemFile, inputs: RandomInputs) -> Samples:
    """The scenarios of a file and their weights.

    Raises:
        ProblemError: a quadrature of too many points, or too many variables for Sobol points.
    """
    spec, seed = file.spec.scenarios or ScenariosSpec(), file.spec.seed
    try:
        if spec.sampling == "quadrature":
            if spec.rule == "tensor":
                return tensor_quadrature(inputs, 5 if spec.points is None else spec.points)
            return sparse_quadrature(inputs, 3 if spec.level is None else spec.level)
        count = _COUNT if spec.count == "auto" else spec.count
        return monte_carlo(inputs, count, seed) if spec.sampling == "monte_carlo" else quasi(inputs, count, seed)
    except ValueError as error:
        raise file.error("scenarios", str(error)) from error


def stream_of(file: ProblemFile, inputs: RandomInputs) -> Stream:
    """Scenarios without an end, the first of which are those of monte_carlo sampling."""
    return Stream(inputs, file.spec.seed)


def risk_of(file: ProblemFile) -> RiskMeasure:
    """The risk measure of a file, with the smoothing that it names."""
    match file.spec.risk:
        case CVaRSpec(cvar=level, smoothing=smoothing):
            return CVaR(level) if smoothing == "auto" else CVaR(level, float(smoothing))
        case EntropicSpec(entropic=factor):
            return Entropic(factor)
        case MeanPlusDeviationSpec(mean_plus_deviation=factor):
            return MeanPlusDeviation(factor)
        case "worst_case":
            return WorstCase()
    return Mean()
