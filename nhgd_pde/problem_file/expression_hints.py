r"""What to write in place of texts that other programs take as expressions, such as `np.sin(x[0])` or `x^2`.

To add a hint, add a row to the table `ROWS`. The tests of the table are in tests/test_hints.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

# No hint is looked for in longer texts: some patterns take a time that grows with the cube of the length.
_LONGEST = 200

_ATOM = r"[^&|(),]"
_MODULES = "np|numpy|math|cmath|torch|jnp|jax|sp|sympy|scipy|ufl|dolfin|dolfinx|fd|firedrake|fe|tf"
_FUNCTIONS = "a?sin|a?cos|a?tan|sinh|cosh|tanh|exp|log|sqrt|abs"


class Row(NamedTuple):
    """One hint.

    Attributes:
        pattern: a regular expression that finds the mistake in a text.
        mended: the text that takes its place, as in `re.sub`; None where a text cannot be mended by a program.
        sentence: what an expression has instead, as a part of a sentence.
    """

    pattern: str
    mended: str | None
    sentence: str


_NO_PREFIX = "functions and constants have no prefix such as np."
_COORDINATES = "the coordinates are x, y and z"
_WHERE = "a choice is written where(condition, yes, no)"
_AND = "conditions are combined by and, or, not"
_TIMES = "products are written with *"
_NAMES = "some functions have other names here"
_WEAK_FORM = "an expression has no derivatives and no products of vectors: write a weak form of your own (pde.python)"

# Rows are applied from the first to the last one, each to what the rows before have made of the text.
ROWS = (
    # What no program can mend.
    Row(r"\b(?:grad|nabla|div|curl|inner|dot|diff|jump|avg|ds|dS|dx)\s*(?:\(|\b)|\.dx\(", None, _WEAK_FORM),
    Row(
        r"^\s*[\[(][^()]*,.*[\])]\s*$",
        None,
        "a vector is a list of YAML with one expression per component, such as [x, y] without quotes around the list",
    ),
    Row(r"(?<![\w.])[\d.]+j\b|\b[IJ]\b|\bimag\b", None, "a complex value is a list [real part, imaginary part]"),
    Row(
        r"\b(?:rand|randn|random|normal|uniform|gauss)\w*\s*\(",
        None,
        "random inputs get a name under parameters, and expressions use that name",
    ),
    Row(r"(?i)\bpiecewise\b", None, _WHERE),
    Row(r"\bu\b(?!\s*\()", None, "the state u can stand only in pde.nonlinearity of kind semilinear"),
    Row(r"(?<![<>=!:])=(?!=)", None, "an expression has no assignments; a comparison is written =="),
    # Python, NumPy and C.
    Row(r"^\s*lambda\b[^:]*:\s*", "", "an expression is written without lambda"),
    Row(rf"\b(?:{_MODULES})(?:\.linalg|\.special)?\.(?=\w)", "", _NO_PREFIX),
    Row(r"\b[xXp]\s*\[\s*(?:(?:\.\.\.|:)\s*,\s*)?0\s*(?:,\s*:\s*)?\]", "x", _COORDINATES),
    Row(r"\b[xXp]\s*\[\s*(?:(?:\.\.\.|:)\s*,\s*)?1\s*(?:,\s*:\s*)?\]", "y", _COORDINATES),
    Row(r"\b[xXp]\s*\[\s*(?:(?:\.\.\.|:)\s*,\s*)?2\s*(?:,\s*:\s*)?\]", "z", _COORDINATES),
    Row(r"\bX\b", "x", _COORDINATES),
    Row(r"\bY\b", "y", _COORDINATES),
    Row(r"\bZ\b", "z", _COORDINATES),
    Row(r"\b(?:Constant|Expression|as_ufl|float)\(([^()]*)\)", r"\1", "a number or formula stands alone"),
    Row(r"\bTrue\b", "1", "true is written 1, and false 0"),
    Row(r"\bFalse\b", "0", "true is written 1, and false 0"),
    Row(r"\(([^()]+?)\s+if\s+([^()]+?)\s+else\s+([^()]+)\)", r"where(\2, \1, \3)", _WHERE),
    Row(r"^(.+?)\s+if\s+(.+?)\s+else\s+(.+)$", r"where(\2, \1, \3)", _WHERE),
    Row(r"^(.+?)\s*\?\s*(.+?)\s*:\s*(.+)$", r"where(\1, \2, \3)", _WHERE),
    Row(r"\b(?:if|iif|ifelse|conditional|select)\s*\(", "where(", _WHERE),
    Row(r"^\s*\|([^|]+)\|\s*$", r"abs(\1)", "the absolute value is written abs(x)"),
    Row(r"\s*&&?\s*", " and ", _AND),
    Row(r"\s*\|\|?\s*", " or ", _AND),
    Row(r"\blogical_and\(([^(),]+),\s*([^(),]+)\)", r"(\1 and \2)", _AND),
    Row(r"\blogical_or\(([^(),]+),\s*([^(),]+)\)", r"(\1 or \2)", _AND),
    Row(r"(?:~|!(?!=))\s*(?=[\w(.])", "not ", _AND),
    Row(r"([\w.]+)\s*//\s*([\w.]+)", r"floor(\1/\2)", "whole quotients are written floor(a/b)"),
    Row(r"([\w.]+)\s*%\s*([\w.]+)", r"(\1 - \2*floor(\1/\2))", "remainders are written a - b*floor(a/b)"),
    Row(r"\b(?:f?mod|remainder)\(([\w.]+),\s*([\w.]+)\)", r"(\1 - \2*floor(\1/\2))", "remainders use floor"),
    # Other names of functions and constants.
    Row(r"\b(?:ln)(?=\s*\()", "log", _NAMES),
    Row(r"\barc(?=(?:sin|cos|tan|tan2)\s*\()", "a", _NAMES),
    Row(r"\b(?:max|max_value|fmax)(?=\s*\()", "maximum", _NAMES),
    Row(r"\b(?:min|min_value|fmin)(?=\s*\()", "minimum", _NAMES),
    Row(r"\b(?:fabs|absolute)(?=\s*\()", "abs", _NAMES),
    Row(r"\bsgn(?=\s*\()", "sign", _NAMES),
    Row(r"\bhypot\(([^(),]+),\s*([^(),]+)\)", r"sqrt((\1)**2 + (\2)**2)", _NAMES),
    Row(r"\blog10\(([^()]+)\)", r"(log(\1)/log(10))", "log is the natural logarithm"),
    Row(r"\blog2\(([^()]+)\)", r"(log(\1)/log(2))", "log is the natural logarithm"),
    Row(r"\b(?:[Hh]eaviside|H|step)\(([^(),]+)[^()]*\)", r"(\1 > 0)", "a comparison is 1 where it holds, 0 elsewhere"),
    Row(r"\bnear\(([^(),]+),\s*([^(),]+)[^()]*\)", r"(abs(\1 - (\2)) < 1e-9)", "a comparison is 1 where it holds"),
    Row(r"\b(?:pow|power)\(([^(),]+),\s*([^(),]+)\)", r"(\1)**(\2)", "a power is written with **"),
    Row(r"\bsquare\(([^(),]+)\)", r"(\1)**2", "a power is written with **"),
    Row(r"\bP[iI]\b", "pi", "the constants are pi and e"),
    # Mathematical and LaTeX notation.
    Row(r"\\(?=[a-z])|\$", "", "an expression is not LaTeX"),
    Row("π", "pi", "characters are those of ASCII"),
    Row("²", "**2", "a power is written with **"),
    Row("³", "**3", "a power is written with **"),
    Row(r"√\s*(\w+|\([^()]*\))", r"sqrt(\1)", "a root is written sqrt(x)"),
    Row("[·×⋅∙]", "*", _TIMES),
    Row("[−–]", "-", "characters are those of ASCII"),
    Row("≤", "<=", "characters are those of ASCII"),
    Row("≥", ">=", "characters are those of ASCII"),
    Row(r"\.?\^", "**", "a power is written with **"),
    Row(r"\.(?=[*/])", "", "products and powers have no dot"),
    Row(r"^([^()]*\d),(\d[^()]*)$", r"\1.\2", "the decimal mark is a point"),
    Row(rf"\b({_FUNCTIONS})\s+(\w+)", r"\1(\2)", "arguments of functions stand in brackets"),
    Row(r"(?<![\w.])(\d+\.?\d*|\.\d+)\s*(?=(?!e[-+]?\d)[A-Za-z(])", r"\1*", _TIMES),
    Row(r"(?<=[\w)])\s+(?=[\w(])", "*", _TIMES),
    Row(r"\)(?=[\w(])", ")*", _TIMES),
    Row(r"\b(x|y|z|r|t|pi|e)\(", r"\1*(", _TIMES),
)


def hint(text: str, names: Collection[str], accepted: Callable[[str], bool]) -> str | None:
    """What to write in place of a text that is not an expression; None where no row of the table knows.

    Args:
        text: the text, which is not an expression.
        names: names that the file has given to parameters: they are no mistakes.
        accepted: whether a text is an expression.
    """
    if len(text) > _LONGEST:
        return None
    reasons: list[str] = []
    mended = text
    for row in ROWS:
        if any(re.fullmatch(row.pattern, name) for name in names):
            continue
        if row.mended is None:
            if re.search(row.pattern, mended):
                return row.sentence
            continue
        changed = re.sub(row.pattern, row.mended, mended)
        if changed == mended:
            continue
        mended, reasons = changed, reasons if row.sentence in reasons else [*reasons, row.sentence]
        # Later rows would change what is right already.
        if len(mended) <= _LONGEST and accepted(mended):
            return f"write {mended.strip()!r} ({_joined(reasons)})"
    return reasons[0] if reasons else None


def _joined(reasons: list[str]) -> str:
    return ", and ".join((*reasons[:1], *reasons[-1:]) if len(reasons) > 1 else reasons)
