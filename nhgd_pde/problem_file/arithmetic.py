"""Trees of arithmetic, evaluated with NumPy or with PyTorch, through which derivatives pass."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

_UNARY = "sin cos tan asin acos atan sinh cosh tanh exp log sqrt abs sign floor"
FUNCTIONS: Mapping[str, int] = {
    **dict.fromkeys(_UNARY.split(), 1),
    **{"atan2": 2, "minimum": 2, "maximum": 2, "clip": 3, "where": 3},
}
"""Every function and its number of arguments: `clip(value, lower, upper)`, `where(condition, yes, no)`."""

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    **{"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow},
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    **{"==": operator.eq, "!=": operator.ne},
}

# A node is ("number", value), ("name", name), ("negate", node), ("call", function, nodes),
# ("chain", first, ((operator, node), ...)) evaluated from left to right,
# ("compare", first, ((operator, node), ...)) which holds where every neighbouring pair does, or
# ("all", nodes), ("any", nodes) and ("not", node), for which a number other than 0 is a condition that holds.
Node = tuple[Any, ...]

# The nodes whose values are truth values.
CONDITIONS = frozenset({"compare", "all", "any", "not"})


@dataclass(frozen=True)
class Arithmetic:
    """Evaluates trees with the functions of one array library."""

    functions: Mapping[str, Callable[..., Any]]
    array: Callable[[Any], Any]
    number: Callable[[Any], Any]
    """Turns truth values into 0 and 1 and leaves numbers alone."""

    def evaluate(self, node: Node, values: Mapping[str, Any]) -> Any:
        kind = node[0]
        if kind == "number":
            return node[1]
        if kind == "name":
            return values[node[1]]
        if kind == "negate":
            return -self.number(self.evaluate(node[1], values))
        if kind in ("all", "any"):
            combine = operator.and_ if kind == "all" else operator.or_
            return reduce(combine, (self._truth(self.evaluate(each, values)) for each in node[1]))
        if kind == "not":
            return self._truth(self.evaluate(node[1], values)) == 0
        if kind == "call":
            return self._call(node[1], [self.evaluate(argument, values) for argument in node[2]])
        first = self.number(self.evaluate(node[1], values))
        # One after the other, so that the values of a long sum are not all held at once.
        rest = ((symbol, self.number(self.evaluate(operand, values))) for symbol, operand in node[2])
        return _chained(first, rest) if kind == "chain" else _compared(first, rest)

    def _truth(self, value: Any) -> Any:
        return value if _is_truth(value) else self.array(value) != 0

    def _call(self, name: str, arguments: list[Any]) -> Any:
        first, *others = arguments
        first = self._truth(first) if name == "where" else self.array(self.number(first))
        return self.functions[name](first, *(self.array(self.number(other)) for other in others))


def _chained(result: Any, rest: Iterable[tuple[str, Any]]) -> Any:
    """The result of operations from left to right."""
    for symbol, operand in rest:
        result = _OPERATORS[symbol](result, operand)
    return result


def _compared(left: Any, rest: Iterable[tuple[str, Any]]) -> Any:
    """Whether every comparison of neighbours holds."""
    holds = None
    for symbol, right in rest:
        here = _OPERATORS[symbol](left, right)
        holds = here if holds is None else holds & here
        left = right
    return holds


def _is_truth(value: Any) -> bool:
    return str(getattr(value, "dtype", "")).removeprefix("torch.") == "bool"


def numpy_number(value: Any) -> Any:
    return np.asarray(value).astype(np.float64, copy=False)


def numpy_functions() -> dict[str, Callable[..., Any]]:
    renamed = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2"}
    return {name: getattr(np, renamed.get(name, name)) for name in FUNCTIONS}


def torch_functions() -> dict[str, Callable[..., Any]]:
    import torch

    return {name: getattr(torch, name) for name in FUNCTIONS}


def folded(node: Node, *parts: Node) -> Node:
    """A node whose parts are all numbers as the number that it is; other nodes as they are."""
    if any(part[0] != "number" for part in parts):
        return node
    with np.errstate(all="ignore"):
        arithmetic = Arithmetic(numpy_functions(), np.asarray, numpy_number)
        return ("number", float(arithmetic.number(arithmetic.evaluate(node, {}))))
