"""Values of expressions at points, with every mistake collected under its key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..fem.evaluation import Evaluation
from ..fem.mesh import Domain
from .errors import Issue, suggest
from .expressions import Expression, ExpressionError
from .loading import ProblemFile


@dataclass
class Values:
    """Evaluates what a problem file says on a mesh; `issues` grows by every mistake found.

    After a mistake the values are zeros, so that the rest of the file can be looked at as well.
    """

    file: ProblemFile
    domain: Domain
    device: torch.device
    issues: list[Issue] = field(default_factory=list)

    def formula(self, key: str, expression: Expression, x: Tensor | np.ndarray) -> np.ndarray:
        """Values at points (dim, ...), which must be finite; zeros after a complaint."""
        points = np.asarray(x.cpu() if isinstance(x, Tensor) else x)
        try:
            values = expression.numpy(points)
        except ExpressionError as error:
            self.complain(key, str(error))
            return np.zeros(points.shape[1:])
        if not np.isfinite(values).all():
            where = np.flatnonzero(~np.isfinite(values.reshape(-1)))[0]
            bad = values.reshape(-1)[where]
            self.complain(key, f"expected finite values, found {bad} at {point_text(points, where)}")
            return np.zeros(points.shape[1:])
        return values

    def function(self, key: str, expression: Expression, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """(u, points) -> values of an expression in u and the coordinates; it is tried at the points x for u = 0."""

        def evaluate(u: Tensor, points: Tensor) -> Tensor:
            return expression.torch(points, u=u)

        try:
            evaluate(x.new_zeros(x.shape[1:]), x)
        except ExpressionError as error:
            self.complain(key, str(error))
        return evaluate

    def tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values, dtype=np.float64), device=self.device)

    def complain(self, key: str, message: str) -> None:
        self.issues.append(self.file.issue(key, message))

    def indicator(self, key: str, name: str | None, cells: Evaluation) -> np.ndarray:
        """(P,) one at the points of a named subdomain, zero elsewhere."""
        shape = cells.quadrature.weights.shape
        values = np.ones(shape) if name is None else np.zeros(shape)
        if name is not None:
            values[self.subdomain(key, name)] = 1.0
        return values.reshape(-1)

    def subdomain(self, key: str, name: str) -> np.ndarray:
        if name not in self.domain.subdomains:
            known = ", ".join(sorted(self.domain.subdomains)) or "none"
            self.complain(
                key,
                f"unknown subdomain {name!r}{suggest(name, self.domain.subdomains)}; this mesh has: {known}",
            )
            return np.arange(0)
        return self.domain.subdomains[name]

    def regional(self, key: str, value: Expression | dict[str, Expression], x: Tensor) -> np.ndarray:
        """A coefficient (P,) given by one expression, or by one a subdomain."""
        if isinstance(value, Expression):
            return self.formula(key, value, x)
        points = x.reshape(self.domain.dim, self.domain.mesh.nelements, -1)
        values = np.zeros(points.shape[1:])
        missing = np.ones(self.domain.mesh.nelements, dtype=bool)
        before = len(self.issues)
        for name, expression in value.items():
            if name != "default":
                cells = self.subdomain(f"{key}.{name}", name)
                values[cells] = self.formula(f"{key}.{name}", expression, points[:, cells])
                missing[cells] = False
        if "default" in value:
            values[missing] = self.formula(f"{key}.default", value["default"], points[:, missing])
        elif missing.any() and len(self.issues) == before:
            message = f"{missing.sum():,} cells belong to none of {', '.join(value)}; add a value named default"
            self.complain(key, message)
        return values.reshape(-1)


def point_text(x: Tensor | np.ndarray, index: int) -> str:
    """Coordinates of one of the points (dim, ...), for people."""
    points = np.asarray(x.cpu() if isinstance(x, Tensor) else x)
    values = points.reshape(points.shape[0], -1)[:, index]
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
