"""Values of expressions at points, with every mistake collected under its key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..fem.evaluation import Evaluation
from ..fem.mesh import Domain
from ..pde.form import Coefficients
from ..pde.ranges import Range
from ..problem_file.errors import Issue, suggest
from ..problem_file.expressions import Expression, ExpressionError
from ..problem_file.loading import ProblemFile
from .dependence import (
    CELLS,
    GIVEN,
    Dependence,
    Follow,
    Traced,
    follower,
    on_cells,
    parameter_coefficient,
    random_coefficient,
    stacked,
)
from .mistakes import Mistakes
from .names_in_use import NamesInUse
from .random_values import RandomValues, host_tensor, host_tensors

T = TypeVar("T")

# Where random inputs may stand.
_RANDOM = ("pde.", "time.initial")


@dataclass(frozen=True, eq=False)
class Values:
    """Evaluates what a problem file says on a mesh; `issues` grows by every mistake found.

    After a mistake the values are zeros, so that the rest of the file can be looked at as well.

    Attributes:
        mistakes: the list of mistakes and notices.
        names: the names in each part of the equation.
        times: (steps,) at which the integrals of an evolution are taken; None of a steady problem.
        parameters: starting values of the controls that expressions name.
        dependence: the coefficients that follow from parameters.
        ranges: key in the file -> the admissible values of the coefficient there, where they have a range.
        complex: the state is a complex field, so that a scalar is a real part where a list would be [real, imag].
        random: the random inputs in the scenarios that are looked at; None where there are none.
        memo: parts of the problem that are the same in all scenarios, by key.
        own: parts of the problem in these scenarios, by key.
    """

    file: ProblemFile
    domain: Domain
    device: torch.device
    mistakes: Mistakes
    names: NamesInUse
    times: np.ndarray | None = None
    parameters: dict[str, float] = field(default_factory=dict)
    dependence: Dependence = field(default_factory=Dependence)
    ranges: dict[str, Range] = field(default_factory=dict)
    complex: bool = False
    random: RandomValues | None = None
    memo: dict[Hashable, Any] = field(default_factory=dict)
    own: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def issues(self) -> list[Issue]:
        return self.mistakes.issues

    @property
    def random_names(self) -> frozenset[str]:
        return frozenset() if self.random is None else self.random.names

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
        return self._evaluate(key, expression, x, times)

    def _evaluate(
        self, key: str, expression: Expression, x: Tensor | np.ndarray, times: np.ndarray | None = None
    ) -> np.ndarray:
        points = np.asarray(x.cpu() if isinstance(x, Tensor) else x)
        random = expression.variables & self.random_names
        if self.random is None or self.nominal or random or expression.constant is not None:
            return self._evaluated(key, expression, points, times, random)
        # The same in every scenario.
        known = self.random.place(points).known
        if (key, str(expression)) not in known:
            known[key, str(expression)] = self._evaluated(key, expression, points, times, random)
        return known[key, str(expression)]

    def _evaluated(
        self, key: str, expression: Expression, points: np.ndarray, times: np.ndarray | None, random: frozenset[str]
    ) -> np.ndarray:
        named: dict[str, Any] = {name: value for name, value in self.parameters.items() if name in expression.variables}
        shape = points.shape[1:]
        if random and self.random is not None:
            named.update(self.random.at(random, points))
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
                # Faster than with numpy for many numbers.
                values = np.broadcast_to(expression.torch(host_tensor(points), **host_tensors(named)).numpy(), shape)
            else:
                values = expression.numpy(points, **named)
        except ExpressionError as error:
            self.complain(key, str(error))
            return np.zeros(shape)
        if not np.isfinite(values).all():
            where = int(np.flatnonzero(~np.isfinite(values.reshape(-1)))[0])
            bad = values.reshape(-1)[where]
            self.complain(key, f"expected finite values, found {bad} at {self.place_text(points, where)}")
            return np.zeros(shape)
        return values

    def traced(
        self, key: str, expression: Expression, x: Tensor | np.ndarray, times: np.ndarray | None = None
    ) -> Traced:
        """Values at points (dim, ...), and how they follow from the parameters that the expression uses."""
        values = self._evaluate(key, expression, x, times)
        if not expression.variables & self.parameters.keys():
            return Traced(values)
        given = self.times if times is None else times
        at = None if given is None else self.tensor(given)
        points = x if isinstance(x, Tensor) else self.tensor(x)
        return Traced(values, follower(expression, points, at), self._names(expression))

    def given(self, key: str, expression: Expression, x: np.ndarray, times: np.ndarray | None = None) -> np.ndarray:
        """Values (rows or 1, M) of given coefficients of the state at nodes (dim, M)."""
        values = self._evaluate(key, expression, x, times)
        if expression.variables & self.parameters.keys():
            self.dependence.use(GIVEN, self._names(expression))
        return values

    def _names(self, expression: Expression) -> frozenset[str]:
        return expression.variables & (self.parameters.keys() | self.random_names)

    def coefficient(self, name: str, key: str, expression: Expression, x: Tensor, place: str = CELLS) -> np.ndarray:
        """The values of a coefficient of the equation, which parameters may change later."""
        return self.recorded(place, name, self.traced(key, expression, x))

    def recorded(self, place: str, name: str, traced: Traced) -> np.ndarray:
        """The values of a coefficient of an integral, whose dependence is kept."""
        if traced.follow is not None:
            follow = traced.follow
            self.dependence.add(place, name, lambda known, c: follow(known, c[name]), traced.names)
        return traced.values

    def function(self, key: str, expression: Expression, x: Tensor) -> Callable[[Coefficients, Tensor, Tensor], Tensor]:
        """(coefficients, u, points) -> values of an expression in u and the coordinates; it is tried at x for u = 0.

        The parameters it uses are among the coefficients.
        """
        named = self.random_at(expression.variables, x)
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
        """Parameters under their bare names, which functions of the user's own may ask for among the coefficients."""
        start = {name: self.tensor(np.array([value])) for name, value in self.parameters.items()}
        found = {name: value for name, value in start.items() if name not in coefficients}
        self.dependence.exposed |= found.keys()
        return found

    def starting_parameters(self) -> dict[str, Tensor]:
        """The parameters as coefficients of an integral, at their starting values."""
        start = {name: self.tensor(np.array([value])) for name, value in self.parameters.items()}
        return {parameter_coefficient(name): value for name, value in start.items()}

    def number(self, key: str, value: Expression | tuple[Expression, ...] | None) -> None:
        """Complain of an expression that is not one number at a time."""
        for each in value if isinstance(value, tuple) else () if value is None else (value,):
            if each.variables - {"t"}:
                self.complain(key, f"expected a number, as the control is one, found {each}")

    @property
    def nominal(self) -> bool:
        """No scenarios but that with all standard variables zero are looked at."""
        return self.random is None or self.random.numbers is None

    @property
    def rows(self) -> int:
        """Scenarios along an axis of their own, or one."""
        return 1 if self.random is None else self.random.rows or 1

    def random_at(self, variables: frozenset[str], x: Tensor) -> dict[str, Tensor]:
        """The random inputs among the variables of an expression, at points x (dim, ...)."""
        if self.random is None:
            return {}
        found = self.random.at(variables & self.random.names, np.asarray(x.cpu()))
        return {name: values.to(self.device) for name, values in found.items()}

    def kept(self, key: Hashable, names: frozenset[str], make: Callable[[], T]) -> T:
        """A part of the problem, made once for all scenarios, or once for these if it depends on random inputs.

        Args:
            key: what the part is called.
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

    def companions(self, place: str, x: Tensor) -> dict[str, Tensor]:
        """Additional coefficients of an integral with points x (dim, P), from which others follow.

        They are the parameters at their starting values, and the random inputs that are used together with them.
        """
        names = self.dependence.names_at(place)
        found = {key: value for key, value in self.starting_parameters().items() if names}
        if self.random is None:
            return found
        random = self.random.at(sorted(names & self.random_names), np.asarray(x.cpu()))
        return found | {random_coefficient(name): values.to(self.device) for name, values in random.items()}

    def place_text(self, x: Tensor | np.ndarray, index: int) -> str:
        """Coordinates of one of the points (dim, ...), and the scenario, of one of the values (..., points) there."""
        return place_text(self.random, x, index)

    def tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.require(values, np.float64, ["C", "W"]), device=self.device)

    def constant_in_time(self, key: str, value: Expression | tuple[Expression, ...]) -> None:
        """Complain of an expression in t for something that has one value for all times."""
        for each in value if isinstance(value, tuple) else (value,):
            if "t" in each.variables:
                self.complain(key, f"expected an expression without the time t, as this does not change, found {each}")

    def complain(self, key: str, message: str) -> None:
        self.mistakes.complain(key, message)

    def tell(self, message: str) -> None:
        self.mistakes.tell(message)

    def unknown(
        self,
        key: str,
        kind: str,
        name: str,
        known: Mapping[str, np.ndarray],
        sides: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Complain of the name of a part that the mesh does not have; `sides` are boundaries that may stand there."""
        names = ", ".join(sorted(known)) or "none"
        also = "" if sides is None else f"; its boundaries: {', '.join(sorted(sides))}"
        described = self.domain.described(name)
        hint = suggest(name, {**known, **(sides or {})})
        wrong = (
            f"expected a {kind}, found {name!r}, which {described}" if described else f"unknown {kind} {name!r}{hint}"
        )
        self.complain(key, f"{wrong}; this mesh has: {names}{also}")

    def indicator(self, key: str, name: str | None, cells: Evaluation) -> np.ndarray:
        """(P,), one at the points of a named subdomain, zero elsewhere."""
        shape = cells.quadrature.weights.shape
        values = np.ones(shape) if name is None else np.zeros(shape)
        if name is not None:
            values[self.subdomain(key, name)] = 1.0
        return values.reshape(-1)

    def subdomain(self, key: str, name: str) -> np.ndarray:
        if name not in self.domain.subdomains:
            self.unknown(key, "subdomain", name, self.domain.subdomains)
            return np.arange(0)
        return self.domain.subdomains[name]

    def regional(
        self, key: str, value: Expression | dict[str, Expression], x: Tensor, place: str = CELLS
    ) -> np.ndarray:
        """A coefficient (P,), or (steps, P) where it depends on time, given by one expression or one a subdomain.

        The points x (dim, P) are those of every cell in turn.
        """
        return self.recorded(place, key.rpartition(".")[2], self.traced_regions(key, value, x))

    def traced_regions(
        self, key: str, value: Expression | dict[str, Expression], x: Tensor, at: np.ndarray | None = None
    ) -> Traced:
        """The same coefficient with its dependence, at points of every cell in turn, or of the cells `at`."""
        if isinstance(value, Expression):
            return self.traced(key, value, x)
        every = np.arange(self.domain.mesh.nelements) if at is None else at
        points = x.reshape(self.domain.dim, len(every), -1)
        moving = any("t" in expression.variables for expression in value.values())
        shape = (*((len(self.times),) if moving and self.times is not None else ()), *points.shape[1:])
        uncertain = any(expression.variables & self.random_names for expression in value.values())
        if uncertain and self.random is not None and self.random.rows is not None:
            shape = (self.random.rows, *shape)
        values = np.zeros(shape)
        missing = np.ones(len(every), dtype=bool)
        before = len(self.issues)
        parts: list[tuple[Follow, Tensor]] = []
        names: frozenset[str] = frozenset()

        def fill(name: str, cells: np.ndarray) -> None:
            nonlocal names
            part = self.traced(f"{key}.{name}", value[name], points[:, cells])
            values[..., cells, :] = part.values
            if part.follow is not None:
                parts.append((part.follow, torch.from_numpy(cells).to(self.device)))
                names = names | part.names

        for name in value:
            if name != "default":
                cells = np.flatnonzero(np.isin(every, self.subdomain(f"{key}.{name}", name)))
                fill(name, cells)
                missing[cells] = False
        if "default" in value:
            fill("default", np.flatnonzero(missing))
        elif missing.any() and len(self.issues) == before:
            message = f"{missing.sum():,} cells belong to none of {', '.join(value)}; add a value named default"
            self.complain(key, message)
        flat = values.reshape(*shape[:-2], -1)
        return Traced(flat, on_cells(parts, (points.shape[1], points.shape[2])) if parts else None, names)

    def admitted(self, key: str, values: np.ndarray, x: Tensor, range_: Range) -> np.ndarray:
        """The values (..., P), or matrices (dim, dim, rows, P), of a coefficient, which have to be in a range.

        The range is kept for the values that controls give to the coefficient later.
        """
        self.ranges[key] = range_
        breach = range_.breach(host_tensor(values))
        # Values of an expression that has been complained of are zeros.
        if breach is not None and not any(issue.key.startswith(key) for issue in self.issues):
            self.complain(
                key, f"expected {breach.expected}, found {breach.found} at {self.place_text(x, breach.index)}"
            )
        return values

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
        traced = self.traced_components(key, value, count, x, times, place is not None)
        return traced.values if place is None else self.recorded(place, name, traced)

    def single(self, key: str, value: Expression | tuple[Expression, ...]) -> Expression:
        """The expression of a scalar, for which a list of one may stand; zero after a complaint."""
        if not isinstance(value, tuple):
            return value
        if len(value) != 1:
            self.complain(key, f"expected one expression, found {len(value)}")
            return Expression(0)
        return value[0]

    def traced_components(
        self,
        key: str,
        value: Expression | tuple[Expression, ...] | dict[str, Expression],
        count: int,
        x: Tensor | np.ndarray,
        times: np.ndarray | None = None,
        following: bool = True,
    ) -> Traced:
        """The same vector with its dependence on parameters, where parameters are allowed."""
        shape = tuple(x.shape[1:])

        def one(at: str, each: Expression) -> Traced:
            return self.traced(at, each, x, times) if following else Traced(self.formula(at, each, x, times))

        if isinstance(value, tuple):
            if len(value) != count:
                wanted = "one expression" if count == 1 else f"{count} expressions, one a component"
                self.complain(key, f"expected {wanted}, found {len(value)}")
                return Traced(np.zeros((count, 1, *shape)))
            entries = [one(f"{key}.{i}", each) for i, each in enumerate(value)]
        else:
            regional = isinstance(value, dict) and isinstance(x, Tensor)
            single = self.traced_regions(key, value, x) if regional else one(key, value)  # type: ignore[arg-type]
            real = self.complex and count == 2
            if count > 1 and (single.values.any() or single.follow is not None) and not real:
                self.complain(key, f"expected a list of {count} expressions, one a component, found a scalar")
            nothing = Traced(np.zeros_like(single.values))
            entries = [single, nothing] if real else [single] * count
        rows = [each.values if each.values.ndim > len(shape) else each.values[None] for each in entries]
        whole = np.stack(np.broadcast_arrays(*rows))
        if all(each.follow is None for each in entries):
            return Traced(whole)
        names = frozenset().union(*(each.names for each in entries))
        return Traced(whole, stacked([each.follow for each in entries], (count,)), names)


def place_text(random: RandomValues | None, x: Tensor | np.ndarray, index: int) -> str:
    """See `Values.place_text`."""
    if random is None:
        return point_text(x, index)
    return point_text(x, index) + random.scenario(index // int(np.prod(x.shape[1:])) % (random.rows or 1))


def point_text(x: Tensor | np.ndarray, index: int) -> str:
    """Coordinates of one of the points (dim, ...), for people."""
    points = np.asarray(x.cpu() if isinstance(x, Tensor) else x)
    flat = points.reshape(points.shape[0], -1)
    values = flat[:, index % flat.shape[1]]
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
