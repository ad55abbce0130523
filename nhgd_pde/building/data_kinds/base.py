"""What every kind of data is read into."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Points (dim, P) -> values (P,).
FieldFunction = Callable[[np.ndarray], np.ndarray]


class DataFieldError(ValueError):
    """A file or an array that is not what the problem file says; `key` is the key below that of the data."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def chosen_name(names: list[str], wanted: str | None, what: str) -> str:
    """One of the names of columns, arrays or fields; without a wanted name the only one there is."""
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return str(wanted)
    if not names:
        raise DataFieldError("file", f"expected a file with {what}s of values, found none")
    listed = ", ".join(names)
    if wanted is None:
        raise DataFieldError("field", f"missing; expected the name of one of the {len(names)} {what}s: {listed}")
    raise DataFieldError("field", f"expected one of the {what}s of the file, found {wanted!r}; it has: {listed}")


def real_numbers(key: str, values: np.ndarray) -> np.ndarray:
    """An array in double precision.

    Raises:
        DataFieldError: it has complex numbers, texts, dates or records.
    """
    if values.dtype.kind not in "biuf":
        raise DataFieldError(key, f"expected real numbers, found an array of the type {values.dtype}"[:200])
    return values.astype(np.float64)
