"""Fields from files, arrays and functions, which expressions of a problem file use by their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..fem.mesh import Domain
from ..problem_file.data_spec import DataSpec, FileData, FunctionData, PointData
from ..problem_file.errors import ProblemError
from ..problem_file.loading import ProblemFile
from .data_kinds.base import DataFieldError, FieldFunction, real_numbers
from .issue_collector import IssueCollector
from .python_code import load_function
from .random_values import same_place

# The kind of each file by its suffix; files with other suffixes are read as meshes.
_TABLES = (".csv", ".txt", ".dat", ".npz")
_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm")


@dataclass(frozen=True, eq=False)
class DataFields:
    """The data of a problem file.

    Attributes:
        functions: name -> function of the coordinates.
        known: points at which values have been asked for, and the values there by name.
    """

    functions: Mapping[str, FieldFunction] = field(default_factory=dict)
    known: list[tuple[np.ndarray, dict[str, np.ndarray]]] = field(default_factory=list)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.functions)

    def at(self, names: Iterable[str], points: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> values (...) at points (dim, ...), for those names that are names of data."""
        wanted = sorted(self.names.intersection(names))
        if not wanted:
            return {}
        found = next((values for place, values in self.known if same_place(place, points)), None)
        if found is None:
            found = {}
            self.known.append((points, found))
        for name in wanted:
            if name not in found:
                found[name] = self.functions[name](points.reshape(len(points), -1)).reshape(points.shape[1:])
        return {name: found[name] for name in wanted}


def data_fields(file: ProblemFile, domain: Domain) -> DataFields:
    """Read the data of a file for a mesh.

    Raises:
        ProblemError: a file that is not there or not what its name says, or points in another dimension.
    """
    mistakes, found = IssueCollector(file), {}
    for name, spec in file.spec.data.items():
        key = f"data.{name}"
        if name in ("x", "y", "z")[: domain.dim]:
            mistakes.complain(key, f"the name {name!r} is taken: it is a coordinate of the mesh")
            continue
        try:
            found[name] = _function(file, key, spec, domain)
        except DataFieldError as error:
            mistakes.complain(f"{key}.{error.key}", str(error))
        except ProblemError as error:
            mistakes.issues.extend(error.issues)
    mistakes.raise_found()
    return DataFields(found)


def _function(file: ProblemFile, key: str, spec: DataSpec, domain: Domain) -> FieldFunction:
    match spec:
        case FileData():
            return _of_file(file, spec, domain)
        case PointData():
            from .data_kinds.scattered import checked_points, field_of_points

            points, values = checked_points(np.array(spec.points), np.array(spec.values), domain.dim)
            return field_of_points(points, values, spec.method)
        case FunctionData():
            function = load_function(file, f"{key}.python", spec.python)
            return partial(_called, file, f"{key}.python", function)


def _of_file(file: ProblemFile, spec: FileData, domain: Domain) -> FieldFunction:
    path = file.resolve(spec.file)
    if path is None:
        raise DataFieldError("file", f"expected a file, found nothing at {spec.file!r}")
    suffix = path.suffix.lower()
    gridded = suffix == ".npy" or suffix in _IMAGES
    if spec.field is not None and gridded:
        raise DataFieldError("field", "expected none, because an image or an array has no names")
    if spec.box is not None and not gridded:
        raise DataFieldError("box", f"expected none, because the places in {path.name} are those of its points")
    if suffix in _TABLES:
        from .data_kinds.scattered import field_of_points, read_points

        return field_of_points(*read_points(path, spec.field, domain.dim), spec.method)
    if gridded:
        from .data_kinds.raster import field_of_array, field_of_image

        box = _box(spec, domain)
        if suffix == ".npy":
            return field_of_array(path, box, spec.method)
        if domain.dim != 2:
            raise DataFieldError(
                "file",
                f"expected data in {domain.dim}-D, found an image, which is for 2-D; write an array (.npy) or a table",
            )
        return field_of_image(path, box, spec.method)
    from .data_kinds.mesh_field import field_of_mesh

    return field_of_mesh(path, spec.field, domain.dim, spec.method)


def _box(spec: FileData, domain: Domain) -> np.ndarray:
    """(2, dim) the lower and the upper corner of the place of an image or array."""
    if spec.box is None:
        return np.stack([domain.mesh.p.min(axis=1), domain.mesh.p.max(axis=1)])
    try:
        corners = np.array(spec.box, dtype=np.float64)
    except ValueError:
        corners = np.zeros(0)
    ends = ["[" + ", ".join(f"{axis}{end}" for axis in "xyz"[: domain.dim]) + "]" for end in (0, 1)]
    expected = f"expected two opposite corners, [{', '.join(ends)}]"
    given = [[f"{each:g}" for each in corner] for corner in spec.box]
    found = f"found [{', '.join('[' + ', '.join(corner) + ']' for corner in given)}]"
    if corners.shape != (2, domain.dim):
        raise DataFieldError("box", f"{expected}, {found}")
    if not (corners[1] != corners[0]).all():
        raise DataFieldError("box", f"{expected}, that differ in every coordinate, {found}")
    return np.sort(corners, axis=0)


def _called(file: ProblemFile, key: str, function: FieldFunction, x: np.ndarray) -> np.ndarray:
    """The values of a function of the user at points (dim, P)."""
    try:
        values = real_numbers("python", np.asarray(function(x.copy())))
    except DataFieldError as error:
        raise file.error(key, str(error)) from None
    except (Exception, SystemExit) as error:
        raise file.error(key, f"the function raised {type(error).__name__}: {str(error)[:500]}") from error
    if values.shape not in ((), x.shape[1:]):
        raise file.error(key, f"expected values of shape ({x.shape[1]},) at {x.shape[1]} points, found {values.shape}")
    return np.array(np.broadcast_to(values, x.shape[1:]))
