"""Sections of a problem file as Python objects, such as `nhgd.Poisson(source=1)`: mappings with a fixed kind.

Each class is made from the section of the schema when it is first used, and its keys are the keys of a file. Values are
checked where the problem is built, so that all mistakes are reported together.
"""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import Any

from .catalogue import CONSTRAINTS, EQUATIONS, TERMS, found_at

# Name of the class -> its kind, and the place of its section of the schema.
OBJECTS: dict[str, tuple[str | None, str]] = {
    **{
        name: (kind, f"problem_file.mesh_spec:{section}")
        for name, kind, section in (
            ("Interval", "interval", "IntervalMesh"),
            ("Rectangle", "rectangle", "RectangleMesh"),
            ("Box", "box", "BoxMesh"),
            ("Disk", "disk", "DiskMesh"),
            ("LShape", "l_shape", "LShapeMesh"),
            ("MeshFile", None, "FileMesh"),
        )
    },
    **{
        f"{name}Control": (kind, f"problem_file.control_spec:{name}Control")
        for name, kind in (
            ("Source", "source"),
            ("Neumann", "neumann"),
            ("Dirichlet", "dirichlet"),
            ("Robin", "robin"),
            ("Conductivity", "conductivity"),
            ("LogConductivity", "log_conductivity"),
            ("Density", "density"),
            ("Initial", "initial"),
            ("Parameter", "parameter"),
            ("Python", "python"),
        )
    },
}


def _camel(kind: str) -> str:
    return "".join(word.capitalize() for word in kind.split("_"))


OBJECTS |= {_camel(kind): (kind, place) for kind, place in EQUATIONS.items() if kind != "python"}
OBJECTS |= {_camel(kind): (kind, place) for kind, place in TERMS.items() if kind != "python"}
OBJECTS |= {"PythonEquation": (None, EQUATIONS["python"]), "PythonTerm": ("python", TERMS["python"])}
OBJECTS |= {f"{_camel(kind)}Constraint": (kind, place) for kind, place in CONSTRAINTS.items()}


class SectionObject(dict[str, Any]):
    """A section of a problem file: a mapping from keys to values."""

    kind: str | None = None

    def __init__(self, **values: Any) -> None:
        super().__init__({} if self.kind is None else {"kind": self.kind}, **values)

    def __repr__(self) -> str:
        given = ", ".join(f"{key}={value!r}" for key, value in self.items() if key != "kind" or self.kind is None)
        return f"{type(self).__name__}({given})"


def object_class(name: str) -> type[SectionObject]:
    """The class of a name of `OBJECTS`; its documentation lists the keys with their defaults."""
    kind, place = OBJECTS[name]
    section = found_at(place)
    keys = {key: each for key, each in section.model_fields.items() if key != "kind" or kind is None}
    lines = [(section.__doc__ or "").strip(), "", "Args:"]
    parameters = []
    for key, each in keys.items():
        required = each.is_required()
        default = Parameter.empty if required else each.get_default(call_default_factory=True)
        shown = "" if required else f" The default is {_plain(default)!r}."
        lines.append(f"    {key}: {each.description or ''}{shown}")
        parameters.append(Parameter(key, Parameter.KEYWORD_ONLY, default=_plain(default)))
    made = type(name, (SectionObject,), {"kind": kind, "__doc__": "\n".join(lines), "__module__": "nhgd_pde"})
    made.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return made


def _plain(value: Any) -> Any:
    """A default value as it is written in a file."""
    original = getattr(value, "original", value)
    return [_plain(each) for each in original] if isinstance(original, tuple) else original
