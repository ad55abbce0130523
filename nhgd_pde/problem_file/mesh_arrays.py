"""Meshes of scikit-fem and meshio as named arrays, and back, to the last bit.

The array `layout` has the attributes of the mesh as JSON, where {"array": 3} stands for the array `array_3`. Reading
them runs no code from a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .fields.formulas import library_class

# Number of the format that is written and read.
FORMAT = 1
_OF_SKFEM = ("doflocs", "t", "_boundaries", "_subdomains", "affine", "sort_t", "validate")
_OF_MESHIO = ("points", "point_data", "cell_data", "field_data", "point_sets", "cell_sets", "gmsh_periodic", "info")


def arrays_of(mesh: Any) -> dict[str, np.ndarray]:
    """The arrays of a mesh, which are not copied.

    Raises:
        ValueError: the mesh holds something else than numbers, texts, and arrays and mappings of them.
    """
    kind = library_class(mesh)
    assert kind is not None
    if kind.__module__.startswith("skfem"):
        values = {name: getattr(mesh, name) for name in _OF_SKFEM} | {"elem": mesh.elem.__name__}
    else:
        values = {name: getattr(mesh, name) for name in _OF_MESHIO}
        values["cells"] = [[block.type, block.data, block.tags] for block in mesh.cells]
    arrays: dict[str, np.ndarray] = {}
    layout = {"format": FORMAT, "class": kind.__name__, "values": _stored(values, arrays, "the mesh")}
    return {"layout": np.frombuffer(json.dumps(layout).encode("ascii"), dtype=np.uint8), **arrays}


def mesh_of(arrays: Mapping[str, np.ndarray]) -> Any:
    """The mesh of the arrays that `arrays_of` has made.

    Raises:
        ValueError, LookupError, TypeError: they are something else.
    """
    layout = json.loads(arrays["layout"].tobytes())
    if layout["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}, found {layout['format']!r}")
    values = _restored(layout["values"], arrays)
    return (_of_skfem if "doflocs" in values else _of_meshio)(layout["class"], values)


def _of_skfem(name: str, values: dict[str, Any]) -> Any:
    import skfem

    kind, elem = getattr(skfem, name), getattr(skfem, values.pop("elem"))
    if not (issubclass(kind, skfem.Mesh) and issubclass(elem, skfem.Element)):
        raise ValueError(f"expected a mesh of scikit-fem, found {name}")
    # A new mesh sorts the vertices of its cells where this is not switched off.
    switches = {key: values.pop(key) for key in ("sort_t", "validate")}
    mesh = kind(**values, elem=elem, sort_t=False, validate=False)
    for key, value in switches.items():
        setattr(mesh, key, value)
    return mesh


def _of_meshio(name: str, values: dict[str, Any]) -> Any:
    import meshio

    return meshio.Mesh(cells=[meshio.CellBlock(*block) for block in values.pop("cells")], **values)


def _stored(value: Any, arrays: dict[str, np.ndarray], place: str) -> Any:
    """A value in the types of JSON, with its arrays in `arrays`."""
    if isinstance(value, np.ndarray | np.generic):
        return _stored_array(value, arrays, place)
    if isinstance(value, Mapping):
        pairs = [[_stored(key, arrays, place), _stored(each, arrays, str(key))] for key, each in value.items()]
        return {"mapping": pairs}
    if isinstance(value, list | tuple):
        members = [_stored(each, arrays, place) for each in value]
        return members if isinstance(value, list) else {"tuple": members}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"expected numbers, texts and arrays in {place!r}, found {type(value).__name__}")


def _stored_array(value: Any, arrays: dict[str, np.ndarray], place: str) -> dict[str, Any]:
    if value.dtype.hasobject:
        raise ValueError(f"expected an array of numbers or texts in {place!r}, found one of Python objects")
    number = len(arrays)
    arrays[f"array_{number}"] = np.asarray(value)
    if isinstance(value, np.generic):
        return {"scalar": number}
    # scikit-fem's boundaries with a side.
    sides = getattr(value, "ori", None)
    return {"array": number} if sides is None else {"oriented": [number, _stored_array(sides, arrays, place)["array"]]}


def _restored(stored: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value that `_stored` has made plain."""
    if isinstance(stored, list):
        return [_restored(each, arrays) for each in stored]
    if not isinstance(stored, dict):
        return stored
    ((kind, content),) = stored.items()
    return _RESTORED[kind](content, arrays)


def _oriented(content: Any, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    from skfem.generic_utils import OrientedBoundary

    facets, sides = (arrays[f"array_{number}"] for number in content)
    return OrientedBoundary(facets, sides)


_RESTORED: dict[str, Callable[[Any, Mapping[str, np.ndarray]], Any]] = {
    "array": lambda content, arrays: arrays[f"array_{content}"],
    "scalar": lambda content, arrays: arrays[f"array_{content}"][()],
    "oriented": _oriented,
    "mapping": lambda content, arrays: {_restored(key, arrays): _restored(each, arrays) for key, each in content},
    "tuple": lambda content, arrays: tuple(_restored(each, arrays) for each in content),
}
