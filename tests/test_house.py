"""The house rules that a program can check: simple functions, short files, one meaning for each name.

The lists of exceptions may only shrink: a test also fails if one of its exceptions is not needed any more.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from radon.complexity import cc_visit
from radon.visitors import Class, Function

PACKAGE = Path(__file__).parents[1] / "nhgd_pde"
FILES = sorted(PACKAGE.rglob("*.py"))

# Largest cyclomatic complexity of a function, with the functions inside it.
MOST_COMPLEX = 15
# Largest number of lines of a function, its signature and docstring included.
MOST_LINES_OF_FUNCTION = 70
# Largest number of lines of a file.
MOST_LINES_OF_FILE = 400

# Functions that may be more complex: "module:function" -> their complexity and the reason.
COMPLEX: dict[str, tuple[int, str]] = {}
# Functions that may be longer: "module:function" -> the reason.
LONG: dict[str, str] = {}
# Files that may be longer: module -> the reason.
LONG_FILES: dict[str, str] = {}
# Names that several modules have: name -> the reason. `__init__` and `base` need none.
SHARED_MODULES: dict[str, str] = {
    "advection": "the family and the pointwise functions of one equation",
    "elasticity": "the family and the pointwise functions of one equation",
    "flow": "the family and the pointwise functions of one equation",
    "helmholtz": "the family and the pointwise functions of one equation",
    "wave": "the family and the pointwise functions of one equation",
}
# Names that several public classes have: name -> the reason.
SHARED_CLASSES: dict[str, str] = {}


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """The functions and methods of a file with their names, "module:function" or "module:Class.method"."""
    blocks: list[Function | Class] = cc_visit(path.read_text(encoding="utf-8"))
    for block in blocks:
        # A class is listed beside its methods; its own complexity is the mean of theirs.
        if isinstance(block, Function):
            yield f"{module(path)}:{block.fullname}", block


def test_functions_are_simple() -> None:
    found = {name: function.complexity for path in FILES for name, function in functions(path)}
    assert {name: each for name, each in found.items() if each > COMPLEX.get(name, (MOST_COMPLEX, ""))[0]} == {}
    assert [name for name in COMPLEX if found.get(name, 0) <= MOST_COMPLEX] == [], "exceptions that are not needed"


def test_functions_are_short() -> None:
    lengths = {name: each.endline - each.lineno + 1 for path in FILES for name, each in functions(path)}
    found = {name: length for name, length in lengths.items() if length > MOST_LINES_OF_FUNCTION}
    assert found.keys() == LONG.keys(), found


def test_files_are_short() -> None:
    lengths = {module(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    found = {name: length for name, length in lengths.items() if length > MOST_LINES_OF_FILE}
    assert found.keys() == LONG_FILES.keys(), found


def test_a_name_of_a_module_has_one_meaning() -> None:
    found = defaultdict(list)
    for path in FILES:
        found[path.stem].append(module(path))
    shared = {name for name, where in found.items() if len(where) > 1} - {"__init__", "base"}
    assert shared == set(SHARED_MODULES), {name: found[name] for name in sorted(shared ^ set(SHARED_MODULES))}


def test_a_name_of_a_public_class_has_one_meaning() -> None:
    found = defaultdict(list)
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(module(path))
    shared = {name for name, where in found.items() if len(where) > 1}
    assert shared == set(SHARED_CLASSES), {name: found[name] for name in sorted(shared ^ set(SHARED_CLASSES))}
