"""Arithmetic expressions of a problem file, such as `sin(2*pi*x)*where(r < 0.5, 1, 0)`.

The text is parsed once into a small tree of tuples by an allow-list of syntax; nothing of it is ever executed
as code. The tree is evaluated with NumPy or with PyTorch, through which derivatives pass.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nhgd_pde.problem_file.errors import suggest

if TYPE_CHECKING:
    from torch import Tensor

MAX_LENGTH = 2000
MAX_DEPTH = 50
MAX_EXPONENT = 64.0

COORDINATES = ("x", "y", "z")
CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e}
VARIABLES = (*COORDINATES, "r", "t")
_UNARY = "sin cos tan asin acos atan sinh cosh tanh exp log sqrt abs sign floor"
FUNCTIONS: Mapping[str, int] = {
    **dict.fromkeys(_UNARY.split(), 1),
    **{"atan2": 2, "minimum": 2, "maximum": 2, "clip": 3, "where": 3},
}
"""Every function and its number of arguments: `clip(value, lower, upper)`, `where(condition, yes, no)`."""

RESERVED = frozenset({"x", "r", "t", *CONSTANTS, *FUNCTIONS})
"""What no name of a file may be; y and z may, where the mesh does not have these coordinates."""

_SYMBOLS: Mapping[type[ast.AST], str] = {
    **{ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"},
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="},
}
_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    **{"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow},
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    **{"==": operator.eq, "!=": operator.ne},
}
_REFUSED: Mapping[type[ast.AST], str] = {
    ast.Attribute: "an attribute ('.')",
    ast.Subscript: "a subscript ('[...]')",
    ast.Lambda: "a lambda",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.NamedExpr: "an assignment (':=')",
    ast.JoinedStr: "an f-string",
    ast.IfExp: "'if ... else' (use where(condition, yes, no))",
    ast.BoolOp: "'and'/'or' (multiply or add comparisons)",
    ast.List: "a list",
    ast.Tuple: "a tuple",
    ast.Set: "a set",
    ast.Dict: "a mapping",
    ast.Starred: "an unpacking ('*')",
    ast.Await: "'await'",
    ast.Yield: "'yield'",
    ast.YieldFrom: "'yield'",
}

# A node is ("number", value), ("name", name), ("negate", node), ("call", function, nodes),
# ("chain", first, ((operator, node), ...)) evaluated from left to right, or
# ("compare", first, ((operator, node), ...)) which holds where every neighbouring pair does.
Node = tuple[Any, ...]


class ExpressionError(ValueError):
    """A text that is no expression, or an expression that uses a variable without a value."""


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
            tree: Node = ("number", _finite(original))
            variables: frozenset[str] = frozenset()
        else:
            parser = _Parser(original, frozenset(names))
            tree, variables = parser.parse(), frozenset(parser.used)
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
        """Its value if it depends on no variable."""
        return self._tree[1] if self._tree[0] == "number" else None

    def numpy(self, x: NDArray[np.float64], **named: Any) -> NDArray[np.float64]:
        """Values at the points `x` of shape (dim, ...), float64 of shape (...), in memory of their own.

        `named` holds t and the further names, numbers or arrays that broadcast against (...).
        Raises ExpressionError for a variable without a value, such as y in one dimension.
        """
        x = np.asarray(x, dtype=np.float64)
        arithmetic = _Arithmetic(_numpy_functions(), np.asarray, _numpy_number)
        with np.errstate(all="ignore"):
            radius = np.sqrt(np.sum(x**2, axis=0)) if "r" in self.variables else None
            floats = {name: _numpy_number(value) for name, value in named.items()}
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

        arithmetic = _Arithmetic(_torch_functions(), tensor, number)
        radius = torch.sqrt(torch.sum(x**2, dim=0)) if "r" in self.variables else None
        values = self._values(x, radius, {name: tensor(value) for name, value in named.items()})
        result = tensor(number(arithmetic.evaluate(self._tree, values)))
        return result.expand(np.broadcast_shapes(result.shape, x.shape[1:])).contiguous()

    def _values(self, x: Any, radius: Any, named: Mapping[str, Any]) -> dict[str, Any]:
        values = {**named, **dict(zip(COORDINATES, x, strict=False)), "r": radius}
        for name in sorted(self.variables - values.keys()):
            where = f"in {len(x)}-D" if name in COORDINATES else "here"
            raise ExpressionError(f"{name!r} has no value {where}, in {_shorten(str(self))}")
        return values


@dataclass(frozen=True)
class _Arithmetic:
    """The meaning of a tree over one array library."""

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
        if kind == "call":
            first, *others = (self.evaluate(argument, values) for argument in node[2])
            if node[1] == "where":
                truth = first if _is_truth(first) else self.array(first) != 0
            else:
                truth = self.array(self.number(first))
            return self.functions[node[1]](truth, *(self.array(self.number(other)) for other in others))
        result = self.number(self.evaluate(node[1], values))
        if kind == "chain":
            for symbol, operand in node[2]:
                result = _OPERATORS[symbol](result, self.number(self.evaluate(operand, values)))
            return result
        left, holds = result, None
        for symbol, operand in node[2]:
            right = self.number(self.evaluate(operand, values))
            here = _OPERATORS[symbol](left, right)
            holds = here if holds is None else holds & here
            left = right
        return holds


def _is_truth(value: Any) -> bool:
    return str(getattr(value, "dtype", "")).removeprefix("torch.") == "bool"


def _numpy_number(value: Any) -> Any:
    return np.asarray(value).astype(np.float64, copy=False)


def _numpy_functions() -> dict[str, Callable[..., Any]]:
    renamed = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2"}
    return {name: getattr(np, renamed.get(name, name)) for name in FUNCTIONS}


def _torch_functions() -> dict[str, Callable[..., Any]]:
    import torch

    return {name: getattr(torch, name) for name in FUNCTIONS}


def _finite(value: float) -> float:
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ExpressionError(f"expected a finite number, found {result}")
    return result


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


class _Parser:
    """Text to tree; constant parts are folded on the way."""

    def __init__(self, text: str, names: frozenset[str]) -> None:
        self.text = text
        self.names = names
        self.used: set[str] = set()

    def parse(self) -> Node:
        if len(self.text) > MAX_LENGTH:
            raise ExpressionError(f"expected at most {MAX_LENGTH} characters, found {len(self.text)}")
        # Line breaks of a folded YAML text and leading blanks would be syntax errors; columns stay the same.
        source = "".join(" " if character.isspace() else character for character in self.text)
        if not source.strip():
            raise ExpressionError("expected an expression, found an empty text")
        for column, character in enumerate(source, start=1):
            if not character.isascii() or not character.isprintable() or character in "#\\^;$?`":
                hint = " (a power is written '**')" if character == "^" else ""
                raise self._error(column, f"the character {character!r} is not allowed{hint}")
        indent = len(source) - len(source.lstrip())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # texts such as '1if' warn before they are refused below
                body = ast.parse(source[indent:], mode="eval").body
        except SyntaxError as error:
            column = indent + min(max(error.offset or 1, 1), len(source) - indent)
            raise self._error(column, f"not an arithmetic expression: {error.msg}") from None
        except (RecursionError, MemoryError, ValueError):
            raise self._error(1, "nested too deeply") from None
        self.indent = indent
        tree = self._node(body, 0)
        if tree[0] == "number" and not math.isfinite(tree[1]):
            raise ExpressionError(f"expected a finite value, found {tree[1]} from {_shorten(self.text)}")
        return tree

    def _error(self, column: int, message: str) -> ExpressionError:
        return ExpressionError(f"{message} (column {column} of {_shorten(self.text)})")

    def _refuse(self, node: ast.AST, message: str) -> NoReturn:
        raise self._error(self.indent + int(getattr(node, "col_offset", 0)) + 1, message)

    def _node(self, node: ast.expr, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self._refuse(node, f"nested more than {MAX_DEPTH} deep")
        if isinstance(node, ast.Constant):
            return ("number", self._literal(node))
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.UnaryOp):
            return self._sign(node, depth)
        if isinstance(node, ast.BinOp):
            return self._chain(node, depth)
        if isinstance(node, ast.Compare):
            return self._comparison(node, depth)
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        found = _REFUSED.get(type(node), "this")
        self._refuse(node, f"{found} is not allowed: an expression is arithmetic only")

    def _literal(self, node: ast.Constant) -> float:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse(node, f"{value!r} is not a number: an expression is arithmetic only")
        try:
            return _finite(value)
        except ExpressionError:
            self._refuse(node, "the number is too large")

    def _name(self, node: ast.Name) -> Node:
        name = node.id
        if name in CONSTANTS:
            return ("number", CONSTANTS[name])
        known = sorted({*VARIABLES, *CONSTANTS, *self.names})
        if name in FUNCTIONS:
            self._refuse(node, f"the function {name!r} has no arguments")
        if name not in known:
            self._refuse(node, f"unknown name {name!r}{suggest(name, known)}; known: {', '.join(known)}")
        self.used.add(name)
        return ("name", name)

    def _sign(self, node: ast.UnaryOp, depth: int) -> Node:
        if not isinstance(node.op, ast.UAdd | ast.USub):
            self._refuse(node, f"{'not' if isinstance(node.op, ast.Not) else '~'!r} is not allowed")
        operand = self._node(node.operand, depth + 1)
        if isinstance(node.op, ast.UAdd):
            # +(x < 1) is a number, as any arithmetic with a comparison is.
            return operand if operand[0] != "compare" else ("chain", ("number", 0.0), (("+", operand),))
        return _folded(("negate", operand), operand)

    def _chain(self, node: ast.BinOp, depth: int) -> Node:
        # Sums of many terms lean to the left: walking down that side keeps them from counting as nested.
        links: list[ast.BinOp] = []
        first: ast.expr = node
        while isinstance(first, ast.BinOp):
            links.append(first)
            first = first.left
        result = self._node(first, depth + 1)
        for link in reversed(links):
            symbol = _SYMBOLS.get(type(link.op))
            if symbol is None:
                self._refuse(link, "only the operators + - * / ** are allowed")
            operand = self._node(link.right, depth + 1)
            if symbol == "**" and operand[0] == "number" and not abs(operand[1]) <= MAX_EXPONENT:
                self._refuse(link.right, f"an exponent lies within -{MAX_EXPONENT:g} and {MAX_EXPONENT:g}")
            if result[0] == "chain":
                result = ("chain", result[1], (*result[2], (symbol, operand)))
            else:
                result = _folded(("chain", result, ((symbol, operand),)), result, operand)
        return result

    def _comparison(self, node: ast.Compare, depth: int) -> Node:
        first = self._node(node.left, depth + 1)
        pairs: list[tuple[str, Node]] = []
        for comparison, operand in zip(node.ops, node.comparators, strict=True):
            symbol = _SYMBOLS.get(type(comparison))
            if symbol is None:
                self._refuse(operand, "only the comparisons < <= > >= == != are allowed")
            pairs.append((symbol, self._node(operand, depth + 1)))
        return _folded(("compare", first, tuple(pairs)), first, *(operand for _, operand in pairs))

    def _call(self, node: ast.Call, depth: int) -> Node:
        if not isinstance(node.func, ast.Name):
            self._refuse(node.func, "only functions called by their name are allowed")
        name = node.func.id
        if name not in FUNCTIONS:
            allowed = ", ".join(FUNCTIONS)
            self._refuse(node, f"function {name!r} is not allowed{suggest(name, FUNCTIONS)}; allowed: {allowed}")
        if node.keywords:
            self._refuse(node, f"{name!r} takes no named arguments")
        count = FUNCTIONS[name]
        if len(node.args) != count:
            self._refuse(node, f"{name!r} takes {count} argument{'s' * (count > 1)}, found {len(node.args)}")
        arguments = tuple(self._node(argument, depth + 1) for argument in node.args)
        return _folded(("call", name, arguments), *arguments)


def _folded(node: Node, *parts: Node) -> Node:
    """The number that `node` stands for when all its parts are numbers, else `node`."""
    if any(part[0] != "number" for part in parts):
        return node
    with np.errstate(all="ignore"):
        arithmetic = _Arithmetic(_numpy_functions(), np.asarray, _numpy_number)
        return ("number", float(arithmetic.number(arithmetic.evaluate(node, {}))))
