"""Expressions: values, derivatives, and everything that they refuse."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch

from nhgd_pde.problem_file.arithmetic import FUNCTIONS
from nhgd_pde.problem_file.expression_parser import MAX_DEPTH, MAX_LENGTH
from nhgd_pde.problem_file.expressions import Expression, ExpressionError

POINTS = np.random.default_rng(0).uniform(0.1, 0.9, (3, 4, 5))
X, Y, Z = POINTS

VALUES = {
    "sin(2*pi*x)*cos(y)": np.sin(2 * np.pi * X) * np.cos(Y),
    "tan(x) + asin(y) + acos(z)": np.tan(X) + np.arcsin(Y) + np.arccos(Z),
    "atan(x) - atan2(y - 1, -z)": np.arctan(X) - np.arctan2(Y - 1, -Z),
    "sinh(x)/cosh(y)*tanh(z)": np.sinh(X) / np.cosh(Y) * np.tanh(Z),
    "exp(-x)*log(y) + e": np.exp(-X) * np.log(Y) + math.e,
    "sqrt(x) + abs(y - 0.5) + sign(z - 0.5)": np.sqrt(X) + abs(Y - 0.5) + np.sign(Z - 0.5),
    "floor(10*x) + minimum(x, y) - maximum(y, 0.5)": np.floor(10 * X) + np.minimum(X, Y) - np.maximum(Y, 0.5),
    "clip(x, 0.3, y)": np.clip(X, 0.3, Y),
    "where(x < 0.5, y, -1)": np.where(X < 0.5, Y, -1),
    "where(0.2 < x <= 0.7, 1, z)": np.where((X > 0.2) & (X <= 0.7), 1, Z),
    "where(floor(2*x), 1, 2)": np.where(np.floor(2 * X) != 0, 1, 2),
    "x < 0.5": (X < 0.5) * 1.0,
    "(x < 0.5) + (y >= 0.5)*(z != y) - (x == x)": (X < 0.5) * 1.0 + (Y >= 0.5) - 1.0,
    "-(x > 0.5) + +(x > y)": -1.0 * (X > 0.5) + (X > Y),
    "(x < y) == (y > x)": np.ones_like(X),
    "-x**2": -(X**2),
    "2**-x**2": 2 ** -(X**2),
    "x - y - z/x/y": X - Y - Z / X / Y,
    "x**3*y**-1": X**3 / Y,
    "r**2": X**2 + Y**2 + Z**2,
    "3": np.full_like(X, 3),
    " x\n + y ": X + Y,
}


@pytest.mark.parametrize("text", VALUES)
def test_numpy_and_torch_agree_with_the_formula(text: str) -> None:
    expression = Expression(text)
    values = expression.numpy(POINTS)
    tensor = expression.torch(torch.from_numpy(POINTS))
    assert values.shape == tensor.shape == X.shape
    assert values.dtype == np.float64 and tensor.dtype == torch.float64
    np.testing.assert_allclose(values, VALUES[text], rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(tensor.numpy(), VALUES[text], rtol=1e-13, atol=1e-13)


def test_every_function_is_tested() -> None:
    assert all(any(f"{name}(" in text for text in VALUES) for name in FUNCTIONS)


def test_the_result_is_not_a_view_of_the_points() -> None:
    points = POINTS.copy()
    Expression("x").numpy(points)[:] = 7.0
    np.testing.assert_array_equal(points, POINTS)


def test_the_tensor_keeps_the_precision_of_the_points() -> None:
    points = torch.from_numpy(POINTS).float()
    assert {Expression(text).torch(points).dtype for text in VALUES} == {torch.float32}


@pytest.mark.parametrize(
    ("text", "derivative"),
    [
        ("u**3 + x*u", lambda u, x: 3 * u**2 + x),
        ("sin(u)*exp(-u)", lambda u, x: (torch.cos(u) - torch.sin(u)) * torch.exp(-u)),
        ("where(x < 0.5, u**2, 3*u)", lambda u, x: torch.where(x < 0.5, 2 * u, 3 * torch.ones_like(u))),
        ("clip(2*u, -1, 1)", lambda u, x: 2 * (abs(2 * u) < 1).to(u)),
        ("maximum(u, x)*minimum(u, 9)", lambda u, x: torch.where(u > x, 2 * u, x)),
        ("atan2(u, 2) + r", lambda u, x: 2 / (4 + u**2)),
        ("x", lambda u, x: torch.zeros_like(u)),
    ],
)
def test_derivatives_pass_in_reverse_and_forward_mode(
    text: str, derivative: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> None:
    points = torch.from_numpy(POINTS)
    u = torch.from_numpy(np.random.default_rng(1).normal(size=X.shape))
    expression = Expression(text, names=["u"])
    expected = derivative(u, points[0])

    def value(u: torch.Tensor) -> torch.Tensor:
        return expression.torch(points, u=u)

    forward = torch.func.jvp(value, (u,), (torch.ones_like(u),))[1]
    pullback = torch.func.vjp(value, u)[1]
    torch.testing.assert_close(forward, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pullback(torch.ones_like(u))[0], expected, rtol=1e-12, atol=1e-12)


def test_derivative_of_a_power_at_zero() -> None:
    expression = Expression("u**2", names=["u"])
    zero = torch.zeros(2, dtype=torch.float64)
    tangent = torch.func.jvp(lambda u: expression.torch(torch.zeros(1, 2), u=u), (zero,), (zero + 1,))[1]
    assert torch.equal(tangent, zero)


def test_named_values_broadcast_and_may_be_numbers() -> None:
    expression = Expression("u*x + t/2", names=["u"])
    scenarios = np.arange(1.0, 4.0)[:, None, None]
    values = expression.numpy(POINTS, u=scenarios, t=1)
    assert values.shape == (3, *X.shape)
    np.testing.assert_allclose(values, scenarios * X + 0.5)
    tensor = expression.torch(torch.from_numpy(POINTS), u=torch.from_numpy(scenarios), t=1)
    np.testing.assert_allclose(tensor.numpy(), values, rtol=1e-14)


def test_whole_numbers_as_values_act_like_fractional_ones() -> None:
    point = np.full((1, 1), 0.5)
    assert Expression("t**-1", ()).numpy(point, t=4) == 0.25
    assert torch.isinf(Expression("1/t").torch(torch.from_numpy(point), t=0)).all()


def test_constants_and_variables() -> None:
    assert Expression("2*pi - where(1 < 2, 1, 0)").constant == 2 * math.pi - 1
    assert Expression(3).constant == 3.0
    assert Expression("0*x").constant is None
    assert Expression("sin(x)*r + pi + t").variables == {"x", "r", "t"}
    assert Expression("e**2").variables == frozenset()


def test_expressions_can_be_pickled_and_compared() -> None:
    expression = Expression("x*u", names=["u"])
    again = pickle.loads(pickle.dumps(expression))
    assert again == expression and hash(again) == hash(expression)
    assert again != Expression("x * u", names=["u"]) and again != Expression("x*y")
    np.testing.assert_array_equal(again.numpy(POINTS, u=2.0), 2 * X)
    assert str(expression) == "x*u" and str(Expression(1e-6)) == "1e-06"
    with pytest.raises(AttributeError):
        expression.original = "y"  # type: ignore[misc]


def test_a_sum_of_many_terms_is_not_nested() -> None:
    text = "+".join(["x"] * (MAX_LENGTH // 2))
    np.testing.assert_allclose(Expression(text).numpy(POINTS), X * (MAX_LENGTH // 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os')", "function '__import__' is not allowed; allowed: sin, cos"),
        ("open(1)", r"function 'open' is not allowed; .*\(column 1 of 'open\(1\)'\)"),
        ("x + eval('1')", r"function 'eval' is not allowed; .*\(column 5 of"),
        ("sni(x)", r"function 'sni' is not allowed \(did you mean 'sin'\?\)"),
        ("sin(x)(y)", "only functions called by their name"),
        ("(lambda: 1)()", "only functions called by their name"),
        ("(1).__class__", "an attribute"),
        ("x.real", "an attribute"),
        ("x[0]", "a subscript"),
        ("[x for x in y]", "a comprehension"),
        ("sin(x for x in y)", "a comprehension"),
        ("lambda: 1", "a lambda is not allowed: an expression is arithmetic only"),
        ("(a := 1)", "an assignment"),
        ("f'{x}'", "an f-string"),
        ("'x'", "'x' is not a number"),
        ("b'x'", "b'x' is not a number"),
        ("True", "True is not a number"),
        ("None", "None is not a number"),
        ("...", "Ellipsis is not a number"),
        ("2j", "2j is not a number"),
        ("(x, y)", "a tuple"),
        ("{x}", "a set"),
        ("sin(*x)", "an unpacking"),
        ("sin(x=1)", "takes no named arguments"),
        ("x if y else z", r"write 'where\(y, x, z\)' .*'if \.\.\. else' is not allowed"),
        ("~x", r"write 'not x' .*'~' is not allowed"),
        ("x % 2", r"only the operators \+ - \* / \*\* are allowed"),
        ("x // 2", "only the operators"),
        ("x @ y", "only the operators"),
        ("x << 2", "only the operators"),
        ("x is y", "only the comparisons"),
        ("x in y", "only the comparisons"),
        ("x^2", r"write 'x\*\*2' \(a power is written with \*\*\): the character '\^' is not allowed"),
        ("x # y", "the character '#'"),
        ("x; y", "the character ';'"),
        ("2·x", "the character '·'"),
        ("x\0", "the character"),
        ("x +", "not an arithmetic expression"),
        ("x y", "not an arithmetic expression"),
        ("", "empty"),
        ("  ", "empty"),
        ("q", "unknown name 'q'; known: e, pi, r, t, x, y, z"),
        ("Pi*x", r"unknown name 'Pi' \(did you mean 'pi'\?\).*column 1"),
        ("x*sin", r"the function 'sin' has no arguments \(column 3"),
        ("sin()", "'sin' takes 1 argument, found 0"),
        ("sin(x, y)", "'sin' takes 1 argument, found 2"),
        ("where(x, y)", "'where' takes 3 arguments, found 2"),
        ("9**9**9", "an exponent lies within -64 and 64"),
        ("x**65", "an exponent lies within"),
        ("x**(-100)", "an exponent lies within"),
        ("x**(0/0)", "an exponent lies within"),
        ("1e999", "the number is too large"),
        ("9" * 1000, "the number is too large"),
        ("1/0", "expected a finite value, found inf"),
        ("log(-1)", "expected a finite value, found nan"),
        ("x" * (MAX_LENGTH + 1), f"expected at most {MAX_LENGTH} characters, found {MAX_LENGTH + 1}"),
        ("-" * (MAX_DEPTH + 1) + "x", f"nested more than {MAX_DEPTH} deep"),
        ("sin(" * (MAX_DEPTH + 1) + "x" + ")" * (MAX_DEPTH + 1), "nested more than"),
        ("(" * 900 + "x" + ")" * 900, "too many nested parentheses"),
        ("-" * (MAX_LENGTH - 1) + "x", "nested"),
    ],
)
def test_forbidden_expressions_are_refused(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        Expression(text)


@pytest.mark.parametrize("value", [True, None, [1], math.nan, math.inf, 10**400])
def test_values_that_are_not_numbers_are_refused(value: object) -> None:
    with pytest.raises(ExpressionError, match="expected"):
        Expression(value)  # type: ignore[arg-type]


def test_a_reserved_name_is_refused() -> None:
    with pytest.raises(ExpressionError, match="'pi' is taken"):
        Expression("x", names=["pi"])


def test_a_missing_variable_is_named() -> None:
    line = np.linspace(0, 1, 3)[None]
    with pytest.raises(ExpressionError, match="'y' has no value in 1-D, in 'x\\*y'"):
        Expression("x*y").numpy(line)
    with pytest.raises(ExpressionError, match="'z' has no value in 2-D"):
        Expression("z").torch(torch.zeros(2, 3))
    with pytest.raises(ExpressionError, match="'t' has no value here"):
        Expression("t").numpy(line)
    with pytest.raises(ExpressionError, match="'u' has no value here"):
        Expression("u", names=["u"]).torch(torch.zeros(2, 3))
