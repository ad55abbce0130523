"""Values at points, from a table, an archive of NumPy, or arrays."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..text_table import TableError, read_text_table
from .base import DataFieldError, FieldFunction, chosen_name, real_numbers

_AXES = ("x", "y", "z")


def field_of_points(points: np.ndarray, values: np.ndarray, method: str) -> FieldFunction:
    """Values at scattered points (count, dim) as a function: linear on the simplices of a Delaunay triangulation.

    Outside of their convex hull, and everywhere by the method nearest, it has the value of the nearest point.
    """
    # SciPy's interpolation is loaded here, because most problems do without it.
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import KDTree, QhullError

    if points.shape[1] == 1 and method == "linear":
        order = np.argsort(points[:, 0])
        return lambda x: np.interp(x[0], points[order, 0], values[order])
    tree = KDTree(points)

    def nearest(x: np.ndarray) -> np.ndarray:
        return np.asarray(values[tree.query(x.T)[1]])

    if method == "nearest":
        return nearest
    try:
        linear = LinearNDInterpolator(points, values, rescale=True)
    except (QhullError, ValueError):
        lie = "are not in one plane" if points.shape[1] == 3 else "are not on one line"
        raise DataFieldError(
            "method", f"expected nearest, found 'linear': that takes {points.shape[1] + 1} points or more that {lie}"
        ) from None

    def evaluate(x: np.ndarray) -> np.ndarray:
        found = np.asarray(linear(x.T))
        outside = np.isnan(found)
        if outside.any():
            found[outside] = nearest(x[:, outside])
        return found

    return evaluate


def checked_points(points: np.ndarray, values: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, dim), each once, and their values (count,)."""
    if points.ndim != 2 or points.shape[1] != dim:
        raise DataFieldError("points", f"expected an array (count, {dim}) on this mesh, found {points.shape}")
    if not len(points):
        raise DataFieldError("points", "expected a point or more, found none")
    if values.shape != points.shape[:1]:
        raise DataFieldError("values", f"expected one value for each of {len(points):,} points, found {values.shape}")
    if not (np.isfinite(points).all() and np.isfinite(values).all()):
        raise DataFieldError("values", "expected finite coordinates and values, found some that are not")
    _, first, which = np.unique(points, axis=0, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    if (values != values[first][which]).any():
        where = points[np.flatnonzero(values != values[first][which])[0]]
        raise DataFieldError("points", f"expected one value at a point, found several at {tuple(where.tolist())}")
    return points[first], values[first]


def read_points(path: Path, field: str | None, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, dim) and values (count,) from a text table or an .npz archive."""
    if path.suffix.lower() == ".npz":
        return checked_points(*_archive(path, field), dim)
    try:
        table = read_text_table(path)
    except TableError as error:
        raise DataFieldError("file", str(error)) from None
    names = table.names or (*_AXES[:dim], *(f"value{k}" if k else "value" for k in range(table.rows.shape[1] - dim)))
    if names[:dim] != _AXES[:dim]:
        raise DataFieldError("file", f"expected columns {', '.join(_AXES[:dim])} and values, found {', '.join(names)}")
    values = list(names[dim:])
    if not values:
        raise DataFieldError("file", f"expected columns {', '.join(_AXES[:dim])} and values, found {dim} columns")
    column = names.index(chosen_name(values, field, "column"))
    return checked_points(table.rows[:, :dim], table.rows[:, column], dim)


def _archive(path: Path, field: str | None) -> tuple[np.ndarray, np.ndarray]:
    expected = "expected an archive of arrays of numbers, as numpy.savez writes it"
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            if "points" not in names:
                raise DataFieldError("file", f"expected an array 'points', found {', '.join(names) or 'none'}")
            wanted = chosen_name([name for name in names if name != "points"], field, "array")
            points, values = archive["points"], archive[wanted]
    except DataFieldError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, EOFError, KeyError, zlib.error, zipfile.BadZipFile):
        raise DataFieldError("file", expected) from None
    return real_numbers("points", points), real_numbers("field", values)
