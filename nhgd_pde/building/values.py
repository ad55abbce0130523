"""Values of the coefficients of an equation, and how they follow from parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from ..fem.quadrature_points import Quadrature
from ..pde.form import Coefficients
from ..pde.ranges import Range
from ..problem_file.expressions import Expression, ExpressionError
from .composed import traced_components, traced_regions
from .dependence import CELLS, GIVEN, Dependence, Traced, parameter_coefficient, random_coefficient
from .evaluator import Evaluator, place_text
from .names_in_use import NamesInUse
from .random_values import host_tensor

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Values(Evaluator):
    """Evaluates the coefficients of an equation in the nominal problem or in scenarios.

    Attributes:
        dependence: how coefficients follow from parameters; it grows by every coefficient.
        ranges: key in the file -> the admissible values of the coefficient there, where they have a range.
        memo: parts of the problem that are the same in all scenarios, by key.
        own: parts of the problem in these scenarios, by key.
    """

    dependence: Dependence = field(default_factory=Dependence)
    ranges: dict[str, Range] = field(default_factory=dict)
    memo: dict[Hashable, Any] = field(default_factory=dict)
    own: dict[Hashable, Any] = field(default_factory=dict)

    @cached_property
    def names(self) -> NamesInUse:
        """The names in each part of the equation."""
        return self.once("names", lambda: NamesInUse(self.file.spec))

    def given(self, key: str, expression: Expression, x: np.ndarray, times: np.ndarray | None = None) -> np.ndarray:
        """Values (rows or 1, M) of given coefficients of the state at nodes (dim, M)."""
        values = self.values_at(key, expression, x, times)
        if expression.variables & self.parameters.keys():
            self.dependence.use(GIVEN, self.followed_names(expression))
        return values

    def coefficient(self, name: str, key: str, expression: Expression, x: Tensor, place: str = CELLS) -> np.ndarray:
        """The values of a coefficient of the equation at points x; parameters may change them later."""
        return self.recorded(place, name, self.traced(key, expression, x))

    def recorded(self, place: str, name: str, traced: Traced) -> np.ndarray:
        """The values of a coefficient of an integral; how they follow from parameters is recorded."""
        if traced.follow is not None:
            follow = traced.follow
            self.dependence.add(place, name, lambda known, c: follow(known, c[name]), traced.names)
        return traced.values

    def regional(
        self, key: str, value: Expression | dict[str, Expression], x: Tensor, place: str = CELLS
    ) -> np.ndarray:
        """A coefficient (P,), or (steps, P) where it depends on time, given by one expression or one a subdomain.

        The points x (dim, P) are those of every cell in turn.
        """
        return self.recorded(place, key.rpartition(".")[2], traced_regions(self, key, value, x))

    def components(
        self,
        key: str,
        value: Expression | tuple[Expression, ...] | dict[str, Expression],
        count: int,
        x: Tensor | np.ndarray,
        times: np.ndarray | None = None,
        place: str | None = None,
        name: str = "source",
    ) -> np.ndarray:
        """A vector (count, rows, ...) given by a list of expressions, rows the times or one; a single 0 stands for all.

        Without a list, the expression is that of a scalar, or of the real part of a complex field. The values are those
        of the coefficient `name` of the integral at a place; without a place no parameters may stand there.
        """
        traced = traced_components(self, key, value, count, x, times, place is not None)
        return traced.values if place is None else self.recorded(place, name, traced)

    def admitted(self, key: str, values: np.ndarray, x: Tensor, range_: Range) -> np.ndarray:
        """The values (..., P), or matrices (dim, dim, rows, P), of a coefficient, which have to be in a range.

        The range is kept for the values that controls give to the coefficient later.
        """
        self.ranges[key] = range_
        breach = range_.breach(host_tensor(values))
        # After a complaint about an expression its values are zeros, which are not checked.
        if breach is not None and not any(issue.key.startswith(key) for issue in self.issues):
            self.complain(
                key, f"expected {breach.expected}, found {breach.found} at {place_text(self.random, x, breach.index)}"
            )
        return values

    def function(self, key: str, expression: Expression, x: Tensor) -> Callable[[Coefficients, Tensor, Tensor], Tensor]:
        """(coefficients, u, points) -> values of an expression in u and the coordinates; it is tried at x for u = 0.

        The parameters it uses are among the coefficients.
        """
        named = self.given_at(expression.variables, x)
        parameters = sorted(expression.variables & self.parameters.keys())
        self.dependence.use(CELLS, parameters)

        def evaluate(c: Coefficients, u: Tensor, points: Tensor) -> Tensor:
            own = {name: c[parameter_coefficient(name)] for name in parameters}
            return expression.torch(points, u=u, **named, **own)

        try:
            evaluate(self.starting_parameters(), x.new_zeros(x.shape[1:]), x)
        except ExpressionError as error:
            self.complain(key, str(error))
        return evaluate

    def exposed(self, coefficients: Collection[str]) -> dict[str, Tensor]:
        """Parameters under their own names, which functions of users may ask for among the coefficients."""
        start = {name: self.tensor(np.array([value])) for name, value in self.parameters.items()}
        found = {name: value for name, value in start.items() if name not in coefficients}
        self.dependence.exposed |= found.keys()
        return found

    def starting_parameters(self) -> dict[str, Tensor]:
        """The parameters as coefficients of an integral, at their starting values."""
        start = {name: self.tensor(np.array([value])) for name, value in self.parameters.items()}
        return {parameter_coefficient(name): value for name, value in start.items()}

    def companions(self, place: str, quadrature: Quadrature) -> dict[str, Tensor]:
        """Additional coefficients of an integral with these points, from which others follow.

        They are the parameters at their starting values, and the random inputs that are used together with them.
        """
        names = self.dependence.names_at(place)
        found = {key: value for key, value in self.starting_parameters().items() if names}
        if self.random is None:
            return found
        random = self.random.at(sorted(names & self.random_names), np.asarray(quadrature.flat.cpu()))
        return found | {random_coefficient(name): values.to(self.device) for name, values in random.items()}

    def kept(self, key: Hashable, names: frozenset[str], make: Callable[[], T]) -> T:
        """A part of the problem, made once for all scenarios, or once for these if it depends on random inputs.

        Args:
            key: the name of the part.
            names: the names that its expressions use.
            make: makes the part.
        """
        store = self.own if names & self.random_names else self.memo
        if key not in store:
            store[key] = make()
        found: T = store[key]
        return found

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """A part of the problem that is the same in all scenarios."""
        return self.kept(key, frozenset(), make)
