"""Lists the choices of a problem file for people, with a line on each; everything is read off the schema."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from ..problem_file import method_spec, schema, task_schema
from ..problem_file.catalogue import SOLVERS, found_at
from ..problem_file.starter import TASKS as STARTERS


def vocabulary() -> dict[str, dict[str, str]]:
    """Heading -> name -> one line."""
    return {
        "meshes (mesh.kind, or mesh.file)": _sections(schema.MeshSpec, "file"),
        "equations (pde.kind, or pde.python)": _sections(schema.PDESpec, "python"),
        "controls (control.kind)": _sections(schema.ControlSpec),
        "objective terms (objective[].kind)": _sections(schema.ObjectiveTerm),
        "constraints (constraints[].kind)": _sections(schema.ConstraintSpec),
        "tasks (task.kind)": _sections(task_schema.TaskSection),
        "methods (method)": _methods(),
        "linear solvers (solver.kind)": _solvers(),
        "elements (element)": _choices("element"),
        "inner models (inner.model)": _choices("model", method_spec.InnerSpec),
        "curvature backends (curvature.kind)": _choices("kind", method_spec.CurvatureSpec),
        "outer methods (outer.method)": _choices("method", method_spec.OuterSpec),
        "starters (nhgd-pde new), besides the equations": {name: text for name, (text, _) in STARTERS.items()},
    }


def _sections(annotation: Any, key: str = "") -> dict[str, str]:
    """The sections of a union (or the only one), each with the first line of its docstring.

    A section goes by its kind; the section that has no kind goes by the key that stands in its place.
    """
    members: list[Any] = [annotation] if isinstance(annotation, type) else list(get_args(get_args(annotation)[0]))
    named = {}
    for member in members:
        field = member.model_fields.get("kind")
        name = get_args(field.annotation)[0] if field is not None else key
        named[name] = _first_line(member)
    return named


def _first_line(member: Any) -> str:
    return (member.__doc__ or "").strip().splitlines()[0]


def _methods() -> dict[str, str]:
    # Imported here, because methods load torch.
    from .compared_methods import FOR_EVOLUTIONS, METHODS, OVER_SCENARIOS, SEARCHES

    own = {"nhgd": "natural hypergradient descent", "adjoint": "exact discrete adjoint"}
    compared = {name: method.summary for name, method in METHODS.items()}
    evolutions = {name: f"{method.summary} (evolutions)" for name, method in FOR_EVOLUTIONS.items()}
    scenarios = {name: f"{method.summary} (random inputs)" for name, method in OVER_SCENARIOS.items()}
    searches = {name: search.summary for name, search in SEARCHES.items()}
    return {**own, **compared, **evolutions, **scenarios, **searches}


def _solvers() -> dict[str, str]:
    from ..linalg.solvers.choice import Auto

    found = {"auto": Auto, **{name: found_at(place) for name, place in SOLVERS.items()}}
    return {name: f"{_first_line(solver)}{_missing(solver)}" for name, solver in found.items()}


def _missing(solver: Any) -> str:
    """What a solver needs that is not installed."""
    library = getattr(solver, "library", None)
    return "" if library is None or library.found() else f" (not installed: needs {library.name}; {library.install})"


def _choices(name: str, model: type[BaseModel] = schema.ProblemSpec) -> dict[str, str]:
    field = model.model_fields[name]
    words = [str(word) for word in get_args(field.annotation)]
    return {", ".join(words): (field.description or "").strip()}
