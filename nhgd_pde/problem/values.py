"""Values of expressions at points, with every mistake collected under its key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..fem.evaluation import Evaluation
from ..fem.mesh import Domain
from .errors import Issue, suggest
from .expressions import Expression, ExpressionError
from .loading import ProblemFile
from .random_values import RandomValues

T = TypeVar("T")

# Where random inputs may stand.
_RANDOM = ("pde.", "time.initial")


@dataclass
class Values:
    """Evaluates what a problem file says on a mesh; `issues` grows by every mistake found.

    After a mistake the values are zeros, so that the rest of the file can be looked at as well.

    Attributes:
        notices: what is no mistake, and yet has to be told.
        times: (steps,) at which the integrals of an evolution are taken; None of a steady problem.
        parameters: starting values of the controls that expressions name.
        dependent: coefficient -> how it follows from the parameters and random inputs by name, and from what it is
            without them, for the coefficients that do.
        used: the parameters among them.
        positives: coefficients that must be positive.
        complex: the state is a complex field, so that a scalar is a real part where a list would be [real, imag].
        random: the random inputs in the scenarios that are looked at; None where there are none.
        followed: the random inputs that coefficients which depend on parameters use too.
    """

    file: ProblemFile
    domain: Domain
    device: torch.device
    issues: list[Issue] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    times: np.ndarray | None = None
    parameters: dict[str, float] = field(default_factory=dict)
    dependent: dict[str, Callable[[Mapping[str, Tensor], Tensor], Tensor]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    positives: set[str] = field(default_factory=set)
    complex: bool = False
    random: RandomValues | None = None
    followed: set[str] = field(default_factory=set)

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
                values = np.broadcast_to(expression.torch(_host_tensor(points), **_tensors(named)).numpy(), shape)
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

    def coefficient(self, name: str, key: str, expression: Expression, x: Tensor) -> np.ndarray:
        """The values of a coefficient of the equation, which parameters may change later."""
        if expression.variables & self.parameters.keys():
            times = None if self.times is None else self.tensor(self.times)[:, None]
            self.followed |= expression.variables & self.random_names

            def follow(parameters: Mapping[str, Tensor], given: Tensor) -> Tensor:
                named = {each: parameters[each] for each in parameters if each in expression.variables}
                if "t" in expression.variables:
                    assert times is not None
                    return expression.torch(x[:, None].expand(-1, len(times), -1), t=times, **named)
                return expression.torch(x, **named)

            self.dependent[name] = follow
            self.used |= expression.variables & self.parameters.keys()
        return self._evaluate(key, expression, x)

    def function(self, key: str, expression: Expression, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """(u, points) -> values of an expression in u and the coordinates; it is tried at the points x for u = 0."""

        named = self.random_at(expression, x)

        def evaluate(u: Tensor, points: Tensor) -> Tensor:
            return expression.torch(points, u=u, **named)

        try:
            evaluate(x.new_zeros(x.shape[1:]), x)
        except ExpressionError as error:
            self.complain(key, str(error))
        return evaluate

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

    def random_at(self, expression: Expression, x: Tensor) -> dict[str, Tensor]:
        """The random inputs that an expression uses, at points x (dim, ...)."""
        if self.random is None:
            return {}
        found = self.random.at(expression.variables & self.random.names, np.asarray(x.cpu()))
        return {name: values.to(self.device) for name, values in found.items()}

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What is the same in all scenarios is made for the first of them."""
        if self.random is None:
            return make()
        if key not in self.random.kept:
            self.random.kept[key] = make()
        found: T = self.random.kept[key]
        return found

    def companions(self, x: Tensor) -> dict[str, Tensor]:
        """What integrands over the cells, with points x (dim, P), need of the random inputs besides coefficients."""
        if self.random is None or not self.followed:
            return {}
        found = self.random.at(sorted(self.followed), np.asarray(x.cpu()))
        return {random_coefficient(name): values.to(self.device) for name, values in found.items()}

    def place_text(self, x: Tensor | np.ndarray, index: int) -> str:
        """Coordinates of one of the points (dim, ...), and the scenario, of one of the values (..., points) there."""
        if self.random is None:
            return point_text(x, index)
        points = int(np.prod(x.shape[1:]))
        return point_text(x, index) + self.random.scenario(index // points if self.rows > 1 else 0)

    def tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.require(values, np.float64, ["C", "W"]), device=self.device)

    def constant_in_time(self, key: str, value: Expression | tuple[Expression, ...]) -> None:
        """Complain of an expression in t for something that has one value for all times."""
        for each in value if isinstance(value, tuple) else (value,):
            if "t" in each.variables:
                self.complain(key, f"expected an expression without the time t, as this does not change, found {each}")

    def complain(self, key: str, message: str) -> None:
        self.issues.append(self.file.issue(key, message))

    def tell(self, message: str) -> None:
        self.notices.append(message)

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
        self, key: str, value: Expression | dict[str, Expression], x: Tensor, at: np.ndarray | None = None
    ) -> np.ndarray:
        """A coefficient (P,), or (steps, P) where it depends on time, given by one expression or one a subdomain.

        The points x (dim, P) are those of every cell in turn, or of the cells `at`, where parameters change nothing.
        """
        if isinstance(value, Expression):
            return self.coefficient(key.rpartition(".")[2], key, value, x)
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
        parts: list[tuple[Expression, np.ndarray]] = []

        def fill(name: str, cells: np.ndarray) -> None:
            expression = value[name]
            evaluate = self._evaluate if at is None else self.formula
            values[..., cells, :] = evaluate(f"{key}.{name}", expression, points[:, cells])
            if at is None and expression.variables & self.parameters.keys():
                parts.append((expression, cells))
                self.followed |= expression.variables & self.random_names
                if moving:
                    message = "expected parameters or the time 't' in the values of subdomains, found both"
                    self.complain(f"{key}.{name}", message)

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
        if parts:
            self._follow_regions(key.rpartition(".")[2], parts, points)
        return values.reshape(*shape[:-2], -1)

    def _follow_regions(self, name: str, parts: list[tuple[Expression, np.ndarray]], points: Tensor) -> None:
        """The same as in `coefficient` for expressions on some of the cells each."""
        shape = points.shape[1:]

        def follow(parameters: Mapping[str, Tensor], given: Tensor) -> Tensor:
            at = {
                each: known.expand(*known.shape[:-1], shape.numel()).reshape(-1, *shape)
                for each, known in parameters.items()
            }
            rows = max([len(each) for each in at.values()] + [given.numel() // shape.numel()])
            whole = given.reshape(-1, *shape).expand(rows, *shape).clone()
            for expression, cells in parts:
                here = {each: known[:, cells] for each, known in at.items() if each in expression.variables}
                whole[:, cells] = expression.torch(points[:, cells], **here)
            return whole.reshape(rows, -1)

        self.dependent[name] = follow
        for expression, _ in parts:
            self.used |= expression.variables & self.parameters.keys()

    def positive(self, key: str, values: np.ndarray, x: Tensor) -> np.ndarray:
        """The values (..., P) of a coefficient that must be positive."""
        self.positives.add(key.rpartition(".")[2])
        if not self.issues and (values <= 0.0).any():
            where = int(np.argmin(values))
            self.complain(
                key, f"expected a positive value, found {values.reshape(-1)[where]:g} at {self.place_text(x, where)}"
            )
        return values

    def components(
        self,
        key: str,
        value: Expression | tuple[Expression, ...] | dict[str, Expression],
        count: int,
        x: Tensor | np.ndarray,
        times: np.ndarray | None = None,
    ) -> np.ndarray:
        """A vector (count, rows, ...) given by a list of expressions, rows the times or one; a single 0 stands for all.

        Without a list, the expression is that of a scalar, or of the real part of a complex field.
        """
        shape = tuple(x.shape[1:])
        if isinstance(value, tuple):
            if len(value) != count:
                wanted = "one expression" if count == 1 else f"{count} expressions, one a component"
                self.complain(key, f"expected {wanted}, found {len(value)}")
                return np.zeros((count, 1, *shape))
            entries = [self.formula(f"{key}.{i}", each, x, times) for i, each in enumerate(value)]
        else:
            every = np.arange(self.domain.mesh.nelements)
            regional = isinstance(value, dict) and isinstance(x, Tensor)
            single = self.regional(key, value, x, every) if regional else self.formula(key, value, x, times)  # type: ignore[arg-type]
            real = self.complex and count == 2
            if count > 1 and single.any() and not real:
                self.complain(key, f"expected a list of {count} expressions, one a component, found a scalar")
            entries = [single, np.zeros_like(single)] if real else [single] * count
        rows = [each if each.ndim > len(shape) else each[None] for each in entries]
        return np.stack(np.broadcast_arrays(*rows))


def random_coefficient(name: str) -> str:
    """What a random input is called among the coefficients of an integral."""
    return f"random {name}"


def _host_tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.require(values, requirements=["W"]))


def _tensors(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(each) if isinstance(each, np.ndarray) else each for name, each in named.items()}


def point_text(x: Tensor | np.ndarray, index: int) -> str:
    """Coordinates of one of the points (dim, ...), for people."""
    points = np.asarray(x.cpu() if isinstance(x, Tensor) else x)
    flat = points.reshape(points.shape[0], -1)
    values = flat[:, index % flat.shape[1]]
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
