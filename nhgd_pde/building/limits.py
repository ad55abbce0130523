"""Reports overflow and lack of memory while a problem is built as mistakes of its file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..linalg.memory import host_bytes
from ..problem_file.loading import ProblemFile
from ..problem_file.room import size_text


@contextmanager
def limits_told(file: ProblemFile) -> Iterator[None]:
    """Raise a `ProblemError` where numbers leave double precision, or memory ends, while a problem is built.

    All values in the file are finite. Products that are not finite come from its units.
    """
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            yield
    except ArithmeticError as error:
        what = str(error.args[-1]) if error.args else type(error).__name__
        message = (
            f"numbers of this problem leave the range of double precision while it is built ({what}): choose other "
            "units of length, of the state or of the coefficients"
        )
        raise file.error("", message) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        message = f"there is not enough memory to build this problem, with {size_text(host_bytes())} left"
        raise file.error("", message) from error
