"""Functions of the user's own, named in a problem file as `file.py:function` or handed over from Python.

This runs the code of that file: a problem file that names one is as trustworthy as the program it names.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .fields import Function
from .loading import ProblemFile


def load_function(file: ProblemFile, key: str, given: str | Callable[..., Any]) -> Callable[..., Any]:
    """The function that a file means.

    Raises:
        ProblemError: there is no such file or function, or importing the file raises.
    """
    if callable(given):
        return given
    path_text, _, name = given.rpartition(":")
    path = file.resolve(path_text)
    if path is None:
        raise file.error(key, f"expected a Python file, found nothing at {path_text!r}")
    module = _imported(file, key, path)
    function = getattr(module, name, None)
    if not callable(function):
        known = ", ".join(sorted(each for each, value in vars(module).items() if _own(value, module))) or "none"
        raise file.error(key, f"expected a function of {path_text}, found {name!r}; it has: {known}")
    return function


def functions_of(file: ProblemFile) -> tuple[str, ...]:
    """What the file runs besides the library, as people write it: `file.py:name`, each once."""
    spec = file.spec
    given = [getattr(section, "python", None) for section in (spec.pde, *spec.controls, *spec.objective)]
    return tuple(dict.fromkeys(Function.written(each) for each in given if each is not None))


def _own(value: object, module: Any) -> bool:
    return callable(value) and getattr(value, "__module__", "") == module.__name__


def _imported(file: ProblemFile, key: str, path: Path) -> Any:
    name = f"nhgd_pde_user_{path.stem}_{abs(hash(path.resolve())):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise file.error(key, f"expected a Python file, found {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise file.error(key, f"{path.name} cannot be imported: {type(error).__name__}: {error}") from error
    return module
