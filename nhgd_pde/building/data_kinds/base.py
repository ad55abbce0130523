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
    listed = ", ".join(names) or "none"
    if wanted is None:
        raise DataFieldError("field", f"missing; expected the name of a {what}, as the file has {len(names)}: {listed}")
    raise DataFieldError("field", f"expected a {what} of the file, found {wanted!r}; it has: {listed}")
