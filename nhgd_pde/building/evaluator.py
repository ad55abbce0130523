"""Evaluates single expressions of a problem file at points of a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from ..fem.mesh import Domain
from ..problem_file.errors import Issue
from ..problem_file.expressions import Expression, ExpressionError
from ..problem_file.loading import ProblemFile
from .data_fields import DataFields
from .dependence import Traced, follower
from .issue_collector import IssueCollector
from .random_values import RandomValues, host_tensor, host_tensors

# The beginnings of the keys of expressions in which random inputs may stand.
_RANDOM = ("pde.", "time.initial")


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Evaluates expressions in the nominal problem or in scenarios.

    After a mistake the values are zeros, so that the rest of the file can be looked at as well.

    Attributes:
        file: the problem file.
        domain: the mesh.
        device: where tensors are.
        mistakes: the list of mistakes and notices.
        times: (steps,) at which the integrals of an evolution are taken; None of a steady problem.
        parameters: starting values of the controls that expressions name.
        complex: the state is a complex field, so that a scalar is a real part where a list would be [real, imag].
        random: the random inputs in the scenarios; None where there are none.
        data: the fields from files, arrays and functions.
    """

    file: ProblemFile
    domain: Domain
    device: torch.device
    mistakes: IssueCollector
    times: np.ndarray | None = None
    parameters: dict[str, float] = field(default_factory=dict)
    complex: bool = False
    random: RandomValues | None = None
    data: DataFields = field(default_factory=DataFields)

    @property
    def issues(self) -> list[Issue]:
        return self.mistakes.issues

    @property
    def random_names(self) -> frozenset[str]:
        return frozenset() if self.random is None else self.random.names

    @property
    def nominal(self) -> bool:
        """Whether all standard variables are zero, as in a problem without random inputs."""
        return self.random is None or self.random.numbers is None

    @property
    def rows(self) -> int:
        """The length of the axis of the scenarios; 1 without such an axis."""
        return 1 if self.random is None else self.random.rows or 1

    def complain(self, key: str, message: str) -> None:
        self.mistakes.complain(key, message)

    def tell(self, message: str) -> None:
        self.mistakes.tell(message)

    def formula(
        self, key: str, expression: Expression, x: Tensor | np.ndarray, times: np.ndarray | None = None
    ) -> np.ndarray:
        """Values at points (dim, ...), which must be finite; zeros after a complaint.

        An expression in t gives (times, ...), by default at those of the integrals.
        """
        used = sorted(expression.variables & self.parameters.keys())
        if used:
            self.complain(key, f"expected an expression without parameters here, found {used[0]!r}")
        random = sorted(expression.variables & self.random_names)
        if random and not key.startswith(_RANDOM):
            message = f"expected an expression without random inputs here, found {random[0]!r}: they may stand in pde "
            self.complain(key, message + "and in time.initial")
        return self.values_at(key, expression, x, times)

    def values_at(
        self, key: str, expression: Expression, x: Tensor | np.ndarray, times: np.ndarray | None = None
    ) -> np.ndarray:
        """Values at points (dim, ...) of an expression in which parameters and random inputs may stand."""
        points = np.asarray(x.cpu() if isinstance(x, Tensor) else x)
        if expression.constant is not None and np.isfinite(expression.constant):
            # One number in memory, however many points there are.
            return np.broadcast_to(np.float64(expression.constant), points.shape[1:])
        random = expression.variables & self.random_names
        if self.random is None or self.nominal or random or expression.constant is not None:
            return self._evaluated(key, expression, points, times, random)
        # The values are the same in every scenario.
        known = self.random.place(points).known
        if (key, str(expression)) not in known:
            known[key, str(expression)] = self._evaluated(key, expression, points, times, random)
        return known[key, str(expression)]

    def _evaluated(
        self, key: str, expression: Expression, points: np.ndarray, times: np.ndarray | None, random: frozenset[str]
    ) -> np.ndarray:
        shape = points.shape[1:]
        named: dict[str, Any] = {name: value for name, value in self.parameters.items() if name in expression.variables}
        if random and self.random is not None:
            named.update(self.random.at(random, points))
        named.update(self.data.at(expression.variables, points))
        if "t" in expression.variables:
            given = self.times if times is None else times
            assert given is not None
            named["t"] = given.reshape(-1, *[1] * len(shape))
            points = np.broadcast_to(points[:, None], (len(points), len(given), *shape))
            shape = points.shape[1:]
        if random and self.random is not None and self.random.rows is not None:
            shape = (self.random.rows, *shape)
        try:
            if random:
                # Torch is faster than numpy for many numbers.
                values = np.broadcast_to(expression.torch(host_tensor(points), **host_tensors(named)).numpy(), shape)
            else:
                values = expression.numpy(points, **named)
        except ExpressionError as error:
            self.complain(key, str(error))
            return np.zeros(shape)
        if not np.isfinite(values).all():
            where = int(np.flatnonzero(~np.isfinite(values.reshape(-1)))[0])
            bad = values.reshape(-1)[where]
            self.complain(key, f"expected finite values, found {bad} at {place_text(self.random, points, where)}")
            return np.zeros(shape)
        return values

    def traced(
        self, key: str, expression: Expression, x: Tensor | np.ndarray, times: np.ndarray | None = None
    ) -> Traced:
        """Values at points (dim, ...), and how they follow from the parameters that the expression uses."""
        values = self.values_at(key, expression, x, times)
        if not expression.variables & self.parameters.keys():
            return Traced(values)
        given = self.times if times is None else times
        at = None if given is None else self.tensor(given)
        points = x if isinstance(x, Tensor) else self.tensor(x)
        fixed = self.data_at(expression.variables, points)
        return Traced(values, follower(expression, points, at, fixed), self.followed_names(expression))

    def followed_names(self, expression: Expression) -> frozenset[str]:
        """The parameters and random inputs among the names in an expression."""
        return expression.variables & (self.parameters.keys() | self.random_names)

    def data_at(self, variables: frozenset[str], x: Tensor) -> dict[str, Tensor]:
        """The data among the variables of an expression, at points x (dim, ...)."""
        return {name: self.tensor(each) for name, each in self.data.at(variables, np.asarray(x.cpu())).items()}

    def given_at(self, variables: frozenset[str], x: Tensor) -> dict[str, Tensor]:
        """The data and the random inputs among the variables of an expression, at points x (dim, ...)."""
        found = self.data_at(variables, x)
        if self.random is not None:
            random = self.random.at(variables & self.random.names, np.asarray(x.cpu()))
            found |= {name: values.to(self.device) for name, values in random.items()}
        return found

    def limits(
        self, given: Mapping[str, Expression | None], x: Tensor | np.ndarray, times: np.ndarray | None, copies: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound (copies, P) by their keys, infinite where there is none; points x (dim, P)."""
        shape = copies, x.shape[1]
        lower, upper = (
            np.full(shape, none) if bound is None else np.broadcast_to(self.formula(key, bound, x, times), shape)
            for (key, bound), none in zip(given.items(), (-np.inf, np.inf), strict=True)
        )
        return lower, upper

    def number(self, key: str, value: Expression | tuple[Expression, ...] | None) -> None:
        """Complain of an expression that is not one number at a time."""
        for each in value if isinstance(value, tuple) else () if value is None else (value,):
            if each.variables - {"t"}:
                self.complain(key, f"expected a number, as the control is one, found {each}")

    def constant_in_time(self, key: str, value: Expression | tuple[Expression, ...]) -> None:
        """Complain of an expression in t for a quantity that has one value for all times."""
        for each in value if isinstance(value, tuple) else (value,):
            if "t" in each.variables:
                self.complain(key, f"expected an expression without the time t, as this does not change, found {each}")

    def single(self, key: str, value: Expression | tuple[Expression, ...]) -> Expression:
        """The expression of a scalar, which may also be a list of one expression; zero after a complaint."""
        if not isinstance(value, tuple):
            return value
        if len(value) != 1:
            self.complain(key, f"expected one expression, found {len(value)}")
            return Expression(0)
        return value[0]

    def indicator(self, key: str, name: str | None, cells: EvaluationOperator) -> np.ndarray:
        """(P,), one at the points of a named subdomain, zero elsewhere."""
        shape = cells.quadrature.weights.shape
        if name is None:
            return np.broadcast_to(1.0, shape[0] * shape[1])
        values = np.zeros(shape)
        values[self.subdomain(key, name)] = 1.0
        return values.reshape(-1)

    def subdomain(self, key: str, name: str) -> np.ndarray:
        if name not in self.domain.subdomains:
            self.mistakes.unknown(self.domain, key, "subdomain", name, self.domain.subdomains)
            return np.arange(0)
        return self.domain.subdomains[name]

    def tensor(self, values: np.ndarray) -> Tensor:
        if values.size > 1 and not any(values.strides):
            # A constant is one number in memory, however many points there are.
            return host_tensor(np.asarray(values, dtype=np.float64)).to(self.device)
        return torch.as_tensor(np.require(values, np.float64, ["C", "W"]), device=self.device)


def place_text(random: RandomValues | None, x: Tensor | np.ndarray, index: int) -> str:
    """The point in x (dim, ...) and the scenario of the value with an index, among values (..., points)."""
    if random is None:
        return point_text(x, index)
    return point_text(x, index) + random.scenario(index // int(np.prod(x.shape[1:])) % (random.rows or 1))


def point_text(x: Tensor | np.ndarray, index: int) -> str:
    """Coordinates of one of the points (dim, ...), for people."""
    points = np.asarray(x.cpu() if isinstance(x, Tensor) else x)
    flat = points.reshape(points.shape[0], -1)
    values = flat[:, index % flat.shape[1]]
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
