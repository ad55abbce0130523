"""The kinds of values in a problem file: numbers, amounts of memory, words, expressions, and one of several sections.

Each marker here goes into an `Annotated` type of the schema. It has the check of the value, the words of the message
about a mistake, and the JSON schema. `Section` is the base of every mapping in the file.
"""

from .amounts import Bytes
from .formulas import Context, Formula, Function, MeshValue, RegionFormula
from .mistakes import expectation, found, issue, raise_issues
from .numbers import AutoCount, AutoPositive, Flag, Number, Numbers, PerAxis
from .sections import Alternatives, OneOf, OneOrMore, Section

__all__ = [
    "Alternatives",
    "AutoCount",
    "AutoPositive",
    "Bytes",
    "Context",
    "Flag",
    "Formula",
    "Function",
    "MeshValue",
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
