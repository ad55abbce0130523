"""Objectives: sums of terms in the state and in the control."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from ..linalg.safe_lengths import dot
from ..linalg.sparse import SparseMatrix
from ..pde.rows import ControlRows
from .integral import IntegralTerm


class StateTerm(Protocol):
    """A term of the state, with one value for each scenario.

    Attributes:
        quadratic: the second derivative is constant.
    """

    @property
    def quadratic(self) -> bool: ...

    def value(self, u: Tensor) -> Tensor:
        """(S, N) -> (S,)."""
        ...

    def derivative(self, u: Tensor) -> Tensor:
        """(S, N), one covector for each scenario."""
        ...

    def second_derivative(self, u: Tensor, direction: Tensor) -> Tensor:
        """The second derivative at u, applied to a direction (S, N)."""
        ...


class ControlTerm(Protocol):
    """A term of the control (p,)."""

    @property
    def quadratic(self) -> bool: ...
    def value(self, v: Tensor) -> float: ...

    def derivative(self, v: Tensor) -> Tensor:
        """(p,)."""
        ...

    def second_derivative(self, v: Tensor, direction: Tensor) -> Tensor:
        """The second derivative at v, applied to a direction (p,)."""
        ...


@dataclass(frozen=True, eq=False)
class Tracking:
    """1/2 e^T M e - remainder . e + constant with e = C u - target, C a sparse matrix or the identity.

    Attributes:
        mass: M (k, k), such as the weighted mass matrix of the state space on a region.
        target: (k,) the target at the nodes or sensors.
        rows: C (k, N), such as values at some times or sensors; None for the identity.
        remainder: (k,) the integrals of what the values at the nodes leave of the target, with every function; None
            where that is nothing.
        constant: half the integral of its square.
    """

    mass: SparseMatrix
    target: Tensor
    rows: SparseMatrix | None = None
    remainder: Tensor | None = None
    constant: float = 0.0
    quadratic: bool = True

    def value(self, u: Tensor) -> Tensor:
        misfit = self._seen(u) - self.target
        weighted = 0.5 * self.mass.mv(misfit)
        if self.remainder is not None:
            weighted = weighted - self.remainder
        return (misfit * weighted).sum(-1) + self.constant

    def derivative(self, u: Tensor) -> Tensor:
        weighted = self.mass.mv(self._seen(u) - self.target)
        return self._back(weighted if self.remainder is None else weighted - self.remainder)

    def second_derivative(self, u: Tensor, direction: Tensor) -> Tensor:
        return self._back(self.mass.mv(self._seen(direction)))

    def _seen(self, u: Tensor) -> Tensor:
        return u if self.rows is None else self.rows.mv(u)

    def _back(self, covector: Tensor) -> Tensor:
        return covector if self.rows is None else self.rows.rmv(covector)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A number that is predicted: a linear functional of the state or of the control.

    Attributes:
        name: what it is called.
        state: (N,) the covector on all coefficients of the state; None of a functional of the control.
        control: (p,) the covector on the control; None of a functional of the state.
    """

    name: str
    state: Tensor | None
    control: Tensor | None

    def value(self, state: Tensor, control: Tensor) -> float:
        """Its value for coefficients (1, N) of the state and a control (p,)."""
        if self.state is not None:
            return float(state[0] @ self.state)
        assert self.control is not None
        return float(control @ self.control)


@dataclass(frozen=True, eq=False)
class LinearState:
    """<covector, u>, such as int weight u, or the compliance int source . u.

    The covector is (N,), or (S, N) where the scenarios have different covectors.
    """

    covector: Tensor
    quadratic: bool = True

    def value(self, u: Tensor) -> Tensor:
        return u @ self.covector if self.covector.ndim == 1 else (u * self.covector).sum(-1)

    def derivative(self, u: Tensor) -> Tensor:
        return self.covector.expand(u.shape)

    def second_derivative(self, u: Tensor, direction: Tensor) -> Tensor:
        return torch.zeros_like(direction)


@dataclass(frozen=True, eq=False)
class Regularisation:
    """weight/2 int (v - reference)^2, or weight/2 int |grad (v - reference)|^2.

    Attributes:
        gram: (p, p) mass or stiffness matrix of the control space times the weight.
        reference: (p,) the reference control.
    """

    gram: SparseMatrix
    reference: Tensor
    quadratic: bool = True

    def value(self, v: Tensor) -> float:
        deviation = (v - self.reference)[None]
        return 0.5 * dot(deviation, self.gram.mv(deviation))

    def derivative(self, v: Tensor) -> Tensor:
        return self.gram.mv((v - self.reference)[None])[0]

    def second_derivative(self, v: Tensor, direction: Tensor) -> Tensor:
        return self.gram.mv(direction[None])[0]


@dataclass(frozen=True, eq=False)
class TotalVariation:
    """int sqrt(|grad v|^2 + smoothing^2) of one control.

    Attributes:
        rows: maps controls to their values in the time steps.
        evaluation: the functions of the control, with the columns of all controls.
        weight: (P,) the factor of the integrand, which includes the length of a time step.
        smoothing: the length of a gradient below which the integrand is nearly quadratic.
    """

    rows: ControlRows
    evaluation: EvaluationOperator
    weight: Tensor
    smoothing: float
    quadratic: bool = False

    def value(self, v: Tensor) -> float:
        _, length = self._gradients(v)
        return float((length * self.weight * self.evaluation.quadrature.weights.reshape(-1)).sum())

    def derivative(self, v: Tensor) -> Tensor:
        grad, length = self._gradients(v)
        return self._tested(grad / length)

    def second_derivative(self, v: Tensor, direction: Tensor) -> Tensor:
        grad, length = self._gradients(v)
        step, _ = self._gradients(direction)
        unit = grad / length
        return self._tested((step - unit * (unit * step).sum(0)) / length)

    def _gradients(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient (components, rows, P), with zero in place of the value, and its smoothed length."""
        grad = self.evaluation.evaluate(self.rows.spread(v))
        grad[:: self.evaluation.stride] = 0.0
        # Unlike the root of a sum of squares, hypot neither overflows nor underflows.
        return grad, reduce(torch.hypot, grad, torch.full_like(grad[0], self.smoothing))

    def _tested(self, fluxes: Tensor) -> Tensor:
        return self.rows.gather(self.evaluation.test(fluxes * self.weight))


@dataclass(frozen=True, eq=False)
class LinearControl:
    """<covector, v> with a covector (p,), such as int weight v."""

    covector: Tensor
    quadratic: bool = True

    def value(self, v: Tensor) -> float:
        return float(v @ self.covector)

    def derivative(self, v: Tensor) -> Tensor:
        return self.covector

    def second_derivative(self, v: Tensor, direction: Tensor) -> Tensor:
        return torch.zeros_like(direction)


@dataclass(frozen=True, eq=False)
class Objective:
    """f(u, v): the mean over the scenarios of the terms with the state, plus the terms of the control.

    Attributes:
        state, control, joint: the terms of the file that depend on the state, on the control, and on both.
        relaxed: terms of the state that enforce its bounds.
        sections: the objectives of the sections of the file, whose sum this is without `relaxed`; empty where this is
            one of them.
        l1_weights: (p,) the weights of |v| in a section, whose value none of the terms has; None without.
    """

    state: tuple[StateTerm, ...]
    control: tuple[ControlTerm, ...]
    joint: tuple[IntegralTerm, ...] = ()
    relaxed: tuple[StateTerm, ...] = ()
    sections: tuple[Objective, ...] = ()
    l1_weights: Tensor | None = None

    def section_values(self, u: Tensor, v: Tensor) -> list[float]:
        """The value of every section of the file, with u (S, N) including Dirichlet values and v (p,)."""
        kinks = [each.l1_weights for each in self.sections]
        l1 = [0.0 if weights is None else dot(weights, v.abs()) for weights in kinks]
        return [each.value(u, v) + more for each, more in zip(self.sections, l1, strict=True)]

    @property
    def _of_state(self) -> tuple[StateTerm, ...]:
        return *self.state, *self.relaxed

    def surplus(self, u: Tensor) -> float:
        """The part of the value at the state u (S, N) that enforces its bounds."""
        return sum((float(term.value(u).mean()) for term in self.relaxed), 0.0)

    @property
    def quadratic(self) -> bool:
        terms: tuple[StateTerm | ControlTerm | IntegralTerm, ...] = (*self._of_state, *self.joint, *self.control)
        return all(term.quadratic for term in terms)

    def value(self, u: Tensor, v: Tensor) -> float:
        """f(u, v), with u (S, N) including Dirichlet values and v (p,)."""
        misfit = sum((float(term.value(u).mean()) for term in self._of_state), 0.0)
        misfit += sum((float(term.value(u, v).mean()) for term in self.joint), 0.0)
        return misfit + self.control_value(v)

    def control_value(self, v: Tensor) -> float:
        """The terms of the control."""
        return sum((term.value(v) for term in self.control), 0.0)

    def control_derivative(self, v: Tensor) -> Tensor:
        """The derivative of the terms of the control; (p,)."""
        return sum((term.derivative(v) for term in self.control), torch.zeros_like(v))

    def control_curvature(self, d: Tensor) -> Tensor:
        """The second derivative of the terms of the control, all quadratic, applied to a direction (p,)."""
        return sum((term.second_derivative(d, d) for term in self.control), torch.zeros_like(d))

    def scenario_values(self, u: Tensor, v: Tensor) -> Tensor:
        """The terms of the file with the state, for each scenario; (S,)."""
        values = sum((term.value(u) for term in self.state), u.new_zeros(u.shape[0]))
        return sum((joint.value(u, v) for joint in self.joint), values)

    def scenario_penalties(self, u: Tensor) -> Tensor:
        """The terms that enforce the bounds of the state, for each scenario; (S,)."""
        return sum((term.value(u) for term in self.relaxed), u.new_zeros(u.shape[0]))

    def scenario_derivatives(self, u: Tensor, v: Tensor, slopes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Derivatives of slopes * `scenario_values` + `scenario_penalties`: by u (S, N), and by v (S, p) at fixed u.

        The slopes (S,) are one by default.
        """
        control = u.new_zeros(u.shape[0], v.shape[0])
        state = sum((term.derivative(u) for term in self.state), torch.zeros_like(u))
        for joint in self.joint:
            for_state, for_control = joint.derivatives(u, v)
            state, control = state + for_state, control + for_control
        if slopes is not None:
            state, control = slopes[:, None] * state, slopes[:, None] * control
        return sum((term.derivative(u) for term in self.relaxed), state), control

    def derivatives(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """df/du (S, N) and df/dv at fixed u (p,)."""
        control = torch.zeros_like(v)
        state = sum((term.derivative(u) for term in self._of_state), torch.zeros_like(u))
        for joint in self.joint:
            for_state, for_control = joint.derivative(u, v)
            state, control = state + for_state, control + for_control / u.shape[0]
        return state / u.shape[0], sum((term.derivative(v) for term in self.control), control)

    def second_derivatives(self, u: Tensor, v: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor, Tensor]:
        """The derivative of `derivatives` in the direction (du, dv)."""
        control = torch.zeros_like(v)
        state = sum((term.second_derivative(u, du) for term in self._of_state), torch.zeros_like(u))
        for joint in self.joint:
            for_state, for_control = joint.second_derivative(u, v, du, dv)
            state, control = state + for_state, control + for_control / u.shape[0]
        return state / u.shape[0], sum((term.second_derivative(v, dv) for term in self.control), control)
