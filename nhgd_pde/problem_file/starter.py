"""Commented problem files to start from, one an equation kind, made from the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, get_args

from pydantic_core import PydanticUndefined

from . import schema
from .control_spec import SourceControl
from .errors import suggest
from .expressions import Expression
from .fields import Section

_WIDTH = 44


@dataclass(frozen=True)
class Starter:
    """What a starter file of one kind says besides the defaults.

    Attributes:
        pde: values of coefficients, as they are written.
        boundary: conditions by side, as they are written.
        target: of the tracking term.
        weight: of the regularisation.
        more: whole lines after the mesh, such as the section `time`.
        mesh: the mesh.
        element: the element, and what there is to say of it.
    """

    pde: dict[str, str] = field(default_factory=dict)
    boundary: dict[str, str] = field(default_factory=lambda: {"all": "{dirichlet: 0}"})
    target: str = '"sin(pi*x)*sin(pi*y)"'
    weight: str = "1.0e-4"
    more: tuple[str, ...] = ()
    mesh: str = "{kind: rectangle, size: [1, 1], cells: [32, 32]}"
    element: tuple[str, str] = ("P1", "P1 or P2")


_TIME = ('time: {end: 1, steps: 20, scheme: implicit_euler, initial: "0"}',)

_FLOW = Starter(
    pde={"source": "[0, 0]"},
    boundary={"top": "{dirichlet: [1, 0]}", "all": "{dirichlet: 0}"},
    target='["y - 0.5", "0.5 - x"]',
    mesh="{kind: rectangle, size: [1, 1], cells: [16, 16]}",
    element=("P2", "of the velocity; pressures are P1"),
)

STARTERS: dict[str, Starter] = {
    "poisson": Starter(),
    "semilinear": Starter(pde={"nonlinearity": '"u**3"'}),
    "heat": Starter(more=_TIME),
    "burgers": Starter(
        pde={"viscosity": "0.05"},
        target='"sin(pi*x)"',
        weight="1.0e-3",
        more=_TIME,
        mesh="{kind: interval, size: 1, cells: 64}",
    ),
    "allen_cahn": Starter(
        pde={"epsilon": "0.2"},
        boundary={"all": "{neumann: 0}"},
        target='"cos(pi*x)*cos(pi*y)"',
        weight="1.0e-2",
        more=('time: {end: 0.2, steps: 10, scheme: implicit_euler, initial: "cos(pi*x)"}',),
    ),
    "advection_diffusion": Starter(pde={"conductivity": "0.01", "velocity": "[1, 0]"}),
    "helmholtz": Starter(pde={"wavenumber": "5"}, boundary={"all": "{absorbing: true}"}),
    "elasticity": Starter(
        pde={"source": "[0, 0]"},
        boundary={"left": "{dirichlet: [0, 0]}", "right": "{neumann: [0, 0]}"},
        target='[0, "0.1*x**2"]',
        mesh="{kind: rectangle, size: [4, 1], cells: [32, 8]}",
    ),
    "stokes": _FLOW,
    "navier_stokes": replace(_FLOW, pde={**_FLOW.pde, "viscosity": "0.01"}, weight="1.0e-2"),
}


def kinds() -> dict[str, type[Section]]:
    """Equation kinds and their sections."""
    members = get_args(get_args(schema.PDESpec)[0])
    return {get_args(each.model_fields["kind"].annotation)[0]: each for each in members if "kind" in each.model_fields}


def starter(kind: str) -> str:
    """The text of a starter file.

    Raises:
        ValueError: a kind that there is not.
    """
    known = kinds()
    if kind not in known:
        raise ValueError(f"expected one of {', '.join(known)}, found {kind!r}{suggest(kind, known)}")
    section, given = known[kind], STARTERS[kind]
    doc = (section.__doc__ or "").strip().splitlines()[0]
    lines = [
        f"# {doc}",
        "# Every key, also of what is left out here: docs/problem_file.md; `nhgd-pde check` finds mistakes.",
        f"name: my_{kind}",
        _line("mesh", given.mesh, "or interval, box, disk, l_shape, or {file: my.msh}"),
        _line("element", *given.element),
        *given.more,
        "pde:",
        f"  kind: {kind}",
    ]
    for name, info in section.model_fields.items():
        if name not in ("kind", "boundary"):
            value = given.pde.get(name) or _written(info.default)
            lines.append(_line(f"  {name}", value, _description(info)))
    lines.append("  boundary:")
    lines += [
        _line(f"    {side}", value, "by side, or by the names of a mesh file") for side, value in given.boundary.items()
    ]
    control = SourceControl.model_fields
    lines += [
        "control:",
        "  kind: source",
        _line("  initial", _written(control["initial"].default), _description(control["initial"])),
        _line("  bounds", "[null, null]", _description(control["bounds"])),
        "objective:",
        _line("  - {kind: tracking, target", f"{given.target}" + "}", "1/2 int (u - target)^2", glue=": "),
        _line("  - {kind: regularisation, weight", f"{given.weight}" + "}", "weight/2 int v^2", glue=": "),
        _line("output: {every", "10}", "iterations between fields for ParaView; 0: final ones only", glue=": "),
    ]
    return "\n".join(lines) + "\n"


def _line(key: str, value: str, comment: str, glue: str = ": ") -> str:
    text = f"{key}{glue}{value}"
    return f"{text:<{_WIDTH}}  # {comment}" if comment else text


def _description(info: Any) -> str:
    text = info.description or ""
    for extra in info.metadata:
        text = text or getattr(extra, "description", "") or ""
    return text.rstrip(".")


def _written(value: object) -> str:
    if isinstance(value, Expression):
        return f'"{value.original}"' if isinstance(value.original, str) else str(value.original)
    if value is PydanticUndefined:
        raise ValueError("a key without a default needs a value in its starter")
    return {None: "null", True: "true", False: "false", (): "[]"}.get(value, str(value))  # type: ignore[call-overload]
