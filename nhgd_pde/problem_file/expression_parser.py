"""Parses the text of an expression into a tree, by an allow-list of syntax; no part of the text is ever executed."""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Mapping
from typing import NoReturn

from nhgd_pde.problem_file.arithmetic import CONDITIONS, FUNCTIONS, Node, folded
from nhgd_pde.problem_file.errors import suggest

# Largest number of characters of a text and of levels of nesting, and largest size of a constant exponent.
MAX_LENGTH = 2000
MAX_DEPTH = 50
MAX_EXPONENT = 64.0

COORDINATES = ("x", "y", "z")
CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e}
VARIABLES = (*COORDINATES, "r", "t")
RESERVED = frozenset({"x", "r", "t", *CONSTANTS, *FUNCTIONS})
"""Names that a file may not give to anything. It may use y and z, where the mesh does not have these coordinates."""

ALLOWED = f"; allowed: {', '.join(FUNCTIONS)}"
"""The end of a message about a function that is not one of these."""

_SYMBOLS: Mapping[type[ast.AST], str] = {
    **{ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"},
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="},
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
    ast.IfExp: "'if ... else'",
    ast.List: "a list",
    ast.Tuple: "a tuple",
    ast.Set: "a set",
    ast.Dict: "a mapping",
    ast.Starred: "an unpacking ('*')",
    ast.Await: "'await'",
    ast.Yield: "'yield'",
    ast.YieldFrom: "'yield'",
}


class ExpressionError(ValueError):
    """The text is not an expression, or the expression uses a variable that has no value."""


def finite_number(value: float) -> float:
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ExpressionError(f"expected a finite number, found {result}")
    return result


def shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


class Parser:
    """Parses a text into a tree, and replaces constant parts by their numbers."""

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
                raise self._error(column, f"the character {character!r} is not allowed")
        indent = len(source) - len(source.lstrip())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Texts such as '1if' cause a warning before they are refused below.
                body = ast.parse(source[indent:], mode="eval").body
        except SyntaxError as error:
            column = indent + min(max(error.offset or 1, 1), len(source) - indent)
            raise self._error(column, f"not an arithmetic expression: {error.msg}") from None
        except (RecursionError, MemoryError, ValueError):
            raise self._error(1, "nested too deeply") from None
        self.indent = indent
        tree = self._node(body, 0)
        if tree[0] == "number" and not math.isfinite(tree[1]):
            raise ExpressionError(f"expected a finite value, found {tree[1]} from {shortened(self.text)}")
        return tree

    def _error(self, column: int, message: str) -> ExpressionError:
        return ExpressionError(f"{message} (column {column} of {shortened(self.text)})")

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
        if isinstance(node, ast.BoolOp):
            parts = tuple(self._node(each, depth + 1) for each in node.values)
            return folded(("all" if isinstance(node.op, ast.And) else "any", parts), *parts)
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        found = _REFUSED.get(type(node), "this")
        self._refuse(node, f"{found} is not allowed: an expression is arithmetic only")

    def _literal(self, node: ast.Constant) -> float:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse(node, f"{value!r} is not a number: an expression is arithmetic only")
        try:
            return finite_number(value)
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
        if isinstance(node.op, ast.Invert):
            self._refuse(node, "'~' is not allowed (a condition is negated by 'not')")
        operand = self._node(node.operand, depth + 1)
        if isinstance(node.op, ast.Not):
            return folded(("not", operand), operand)
        if isinstance(node.op, ast.UAdd):
            # +(x < 1) is a number, as any arithmetic with a comparison is.
            return operand if operand[0] not in CONDITIONS else ("chain", ("number", 0.0), (("+", operand),))
        return folded(("negate", operand), operand)

    def _chain(self, node: ast.BinOp, depth: int) -> Node:
        # The tree of a sum of many terms is deep on its left side. A loop goes down that side, so that a long sum does
        # not count as nested.
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
                result = folded(("chain", result, ((symbol, operand),)), result, operand)
        return result

    def _comparison(self, node: ast.Compare, depth: int) -> Node:
        first = self._node(node.left, depth + 1)
        pairs: list[tuple[str, Node]] = []
        for comparison, operand in zip(node.ops, node.comparators, strict=True):
            symbol = _SYMBOLS.get(type(comparison))
            if symbol is None:
                self._refuse(operand, "only the comparisons < <= > >= == != are allowed")
            pairs.append((symbol, self._node(operand, depth + 1)))
        return folded(("compare", first, tuple(pairs)), first, *(operand for _, operand in pairs))

    def _call(self, node: ast.Call, depth: int) -> Node:
        if not isinstance(node.func, ast.Name):
            self._refuse(node.func, "only functions called by their name are allowed")
        name = node.func.id
        if name not in FUNCTIONS:
            self._refuse(node, f"function {name!r} is not allowed{suggest(name, FUNCTIONS)}{ALLOWED}")
        if node.keywords:
            self._refuse(node, f"{name!r} takes no named arguments")
        count = FUNCTIONS[name]
        if len(node.args) != count:
            self._refuse(node, f"{name!r} takes {count} argument{'s' * (count > 1)}, found {len(node.args)}")
        arguments = tuple(self._node(argument, depth + 1) for argument in node.args)
        return folded(("call", name, arguments), *arguments)
