"""Arithmetic expressions of a problem file, such as `sin(2*pi*x)*where(r < 0.5, 1, 0)`.

The text is parsed once into a small tree (`expression_parser`), which is evaluated with NumPy or with PyTorch
(`arithmetic`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nhgd_pde.problem_file.arithmetic import Arithmetic, Node, numpy_functions, numpy_number, torch_functions
from nhgd_pde.problem_file.expression_parser import (
    ALLOWED,
    COORDINATES,
    RESERVED,
    ExpressionError,
    Parser,
    finite_number,
    shortened,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["COORDINATES", "RESERVED", "Expression", "ExpressionError"]


@dataclass(frozen=True)
class Expression:
    """An arithmetic expression in x, y, z, r (distance from the origin), t and the further `names`.

    `original` is the text or the number it was written as; two expressions are equal when they were written
    alike. A comparison is 1 where it holds and 0 elsewhere.

    Raises ExpressionError, naming the part and its column, for anything that is not in the grammar.
    """

    original: str | float
    names: frozenset[str] = field(default=frozenset(), compare=False)
    _tree: Node = field(init=False, repr=False, compare=False)
    variables: frozenset[str] = field(init=False, repr=False, compare=False)
    """The variables it uses, pi and e not among them."""

    def __init__(self, original: str | float | Expression, names: Collection[str] = ()) -> None:
        if isinstance(original, Expression):
            original = original.original
        clashes = sorted(set(names) & RESERVED)
        if clashes:
            raise ExpressionError(f"the name {clashes[0]!r} is taken: it is part of every expression")
        if isinstance(original, bool) or not isinstance(original, str | int | float):
            raise ExpressionError(f"expected a number or the text of an expression, found {original!r}")
        if not isinstance(original, str):
            tree: Node = ("number", finite_number(original))
            variables: frozenset[str] = frozenset()
        else:
            tree, variables = _parsed(original, frozenset(names))
        for name, value in (
            ("original", original),
            ("names", frozenset(names)),
            ("_tree", tree),
            ("variables", variables),
        ):
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[type[Expression], tuple[str | float, frozenset[str]]]:
        return (type(self), (self.original, self.names))

    def __str__(self) -> str:
        return str(self.original)

    @property
    def constant(self) -> float | None:
        """The value of an expression without variables; None of others."""
        return self._tree[1] if self._tree[0] == "number" else None

    def numpy(self, x: NDArray[np.float64], **named: Any) -> NDArray[np.float64]:
        """Values at the points `x` of shape (dim, ...), float64 of shape (...), a new array.

        `named` holds t and the further names, numbers or arrays that broadcast against (...).
        Raises ExpressionError for a variable without a value, such as y in one dimension.
        """
        x = np.asarray(x, dtype=np.float64)
        arithmetic = Arithmetic(numpy_functions(), np.asarray, numpy_number)
        with np.errstate(all="ignore"):
            radius = np.sqrt(np.sum(x**2, axis=0)) if "r" in self.variables else None
            floats = {name: numpy_number(value) for name, value in named.items()}
            values = self._values(x, radius, floats)
            result = np.asarray(arithmetic.number(arithmetic.evaluate(self._tree, values)), dtype=np.float64)
        return np.array(np.broadcast_to(result, np.broadcast_shapes(result.shape, x.shape[1:])))

    def torch(self, x: Tensor, **named: Any) -> Tensor:
        """Values at the points `x` of shape (dim, ...), on its device, of shape (...).

        Derivatives pass through it, in `x` and in `named` (t and the further names: numbers, or tensors that
        broadcast against (...)). The result may share memory with an argument.
        Raises ExpressionError for a variable without a value, such as y in one dimension.
        """
        import torch

        def tensor(value: Any) -> Tensor:
            if isinstance(value, torch.Tensor):
                return value if value.is_floating_point() or value.dtype == torch.bool else value.to(x.dtype)
            return torch.full((), float(value), dtype=x.dtype, device=x.device)

        def number(value: Any) -> Any:
            return value.to(x.dtype) if isinstance(value, torch.Tensor) and value.dtype == torch.bool else value

        arithmetic = Arithmetic(torch_functions(), tensor, number)
        radius = torch.sqrt(torch.sum(x**2, dim=0)) if "r" in self.variables else None
        values = self._values(x, radius, {name: tensor(value) for name, value in named.items()})
        result = tensor(number(arithmetic.evaluate(self._tree, values)))
        return result.expand(np.broadcast_shapes(result.shape, x.shape[1:])).contiguous()

    def _values(self, x: Any, radius: Any, named: Mapping[str, Any]) -> dict[str, Any]:
        values = {**named, **dict(zip(COORDINATES, x, strict=False)), "r": radius}
        for name in sorted(self.variables - values.keys()):
            where = f"in {len(x)}-D" if name in COORDINATES else "here"
            raise ExpressionError(f"{name!r} has no value {where}, in {shortened(str(self))}")
        return values


def _parsed(text: str, names: frozenset[str]) -> tuple[Node, frozenset[str]]:
    """The tree of a text and its variables.

    Raises:
        ExpressionError: the text is not an expression; the message begins with what to write, where that is known.
    """
    parser = Parser(text, names)
    try:
        return parser.parse(), frozenset(parser.used)
    except ExpressionError as error:
        # Texts without mistakes are read without loading the table of hints.
        from nhgd_pde.problem_file.expression_hints import hint

        told = hint(text, names, lambda mended: _accepted(mended, names))
        if told is None:
            raise
        raise ExpressionError(f"{told}: {str(error).replace(ALLOWED, '')}") from None


def _accepted(text: str, names: frozenset[str]) -> bool:
    try:
        Parser(text, names).parse()
    except ExpressionError:
        return False
    return True
