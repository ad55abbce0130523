"""Functions of users, named in a problem file as `file.py:function` or given from Python.

This runs the code of that file: a problem file that names one is as trustworthy as the program it names. Before a file
is run, the logger `nhgd_pde.code` says so at the level INFO, which the command line prints.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..problem_file.announcing import LOG
from ..problem_file.fields import Function
from ..problem_file.loading import ProblemFile


def load_function(file: ProblemFile, key: str, given: str | Callable[..., Any]) -> Callable[..., Any]:
    """The function that a problem file names; the Python file is announced in the log and run.

    Raises:
        ProblemError: there is no such file or function, or importing the file raises or ends the process.
    """
    if callable(given):
        return given
    path_text, _, name = given.rpartition(":")
    path = file.resolve(path_text)
    if path is None:
        raise file.error(key, f"expected a Python file, found nothing at {path_text!r}")
    LOG.info("this problem runs code of %s", shown(file, path))
    module = _imported(file, key, path)
    function = getattr(module, name, None)
    if not callable(function):
        known = ", ".join(sorted(each for each, value in vars(module).items() if _own(value, module))) or "none"
        raise file.error(key, f"expected a function of {path_text}, found {name!r}; it has: {known}")
    return _staying(function, f"{path.name}:{name}")


def shown(file: ProblemFile, path: Path) -> str:
    """A path for messages: as it is given inside the folder of the problem file, absolute elsewhere."""
    whole = path.resolve()
    return str(path) if whole.is_relative_to(file.directory.resolve()) else str(whole)


def functions_of(file: ProblemFile) -> tuple[str, ...]:
    """The functions of users that a problem runs, as written: `file.py:name`, each once."""
    spec = file.spec
    sections = (spec.pde, *spec.controls, *spec.objective, *spec.data.values())
    given = [getattr(section, "python", None) for section in sections]
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
        with _settings_kept():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        reason = "".join(f": {part}" for part in (type(error).__name__, str(error)[:500]) if part)
        raise file.error(key, f"{path.name} cannot be imported{reason}") from error
    except KeyboardInterrupt as error:
        del sys.modules[name]
        raise file.error(key, f"{path.name} was interrupted while it was imported") from error
    return module


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Restores settings of the process that imported code may change.

    These are the current folder, standard output and error, warnings, and the settings of NumPy and torch that change
    numbers.
    """
    streams, numbers, dtype = (sys.stdout, sys.stderr), np.geterr(), torch.get_default_dtype()
    folder = None
    with suppress(OSError):
        folder = os.getcwd()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.stdout, sys.stderr = streams
        np.seterr(**numbers)
        torch.set_default_dtype(dtype)
        if folder is not None:
            with suppress(OSError):
                os.chdir(folder)


def _staying(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, with a RuntimeError in place of `sys.exit`."""

    @functools.wraps(function)
    def staying(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except SystemExit as error:
            raise RuntimeError(f"{name} would end the process (SystemExit: {error})") from error

    return staying
