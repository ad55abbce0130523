"""What a value in the problem file may be: numbers, words, expressions, one of several kinds.

Each marker here goes into an `Annotated` type of the schema and brings its check, its wording of what was
expected and found, and its JSON schema. `Section` is the base of every mapping in the file.
"""

from .formulas import Context, Formula, Function, RegionFormula
from .mistakes import expectation, found, issue, raise_issues
from .numbers import Flag, Number, Numbers, PerAxis
from .sections import OneOf, OneOrMore, Section

__all__ = [
    "Context",
    "Flag",
    "Formula",
    "Function",
    "Number",
    "Numbers",
    "OneOf",
    "OneOrMore",
    "PerAxis",
    "RegionFormula",
    "Section",
    "expectation",
    "found",
    "issue",
    "raise_issues",
]
