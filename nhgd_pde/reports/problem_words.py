"""A resolved problem file in words: equation, control, objective, constraints, random inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from ..problem_file import schema
from ..problem_file.catalogue import CONSTRAINTS, EQUATIONS, TASKS, TERMS, found_at
from ..problem_file.term_parts import term_names
from .markup import is_empty, pairs, plain

Words = list[tuple[str, str]]
# Keys that are shown by other rows, or that say how and not what.
_NOT_COEFFICIENTS = ("kind", "boundary", "points", "python", "stabilisation")


def task_words(task: Mapping[str, Any]) -> Words:
    """The task of machine learning."""
    kind = found_at(TASKS[task["kind"]])
    return [("task", kind.meaning(task)), ("options", pairs({k: v for k, v in task.items() if k != "kind"}))]


def equation_words(content: Mapping[str, Any]) -> Words:
    """The equation with its coefficients and boundary conditions, and the mesh."""
    pde = content["pde"]
    kind = pde.get("kind") or "python"
    # That an equation needs a time is for those who write a problem file.
    formula, needs, _ = found_at(EQUATIONS[kind]).meaning(pde).partition("; needs `time`")
    found = [("equation", f"{kind}: {formula}{'.' if needs else ''}")]
    found += [
        (name, plain(value)) for name, value in pde.items() if name not in _NOT_COEFFICIENTS and not is_empty(value)
    ]
    if pde.get("python"):
        found.append(("function", plain(pde["python"])))
    for name, condition in (pde.get("boundary") or {}).items():
        found.append((f"boundary {name}", pairs(condition) if isinstance(condition, Mapping) else plain(condition)))
    found += [("at a point", pairs(point)) for point in pde.get("points") or []]
    if content.get("time"):
        found.append(("time", pairs(content["time"])))
    found.append(("mesh", f"{pairs(content['mesh'])}; elements {content.get('element', 'P1')}"))
    return found


def control_words(content: Mapping[str, Any]) -> Words:
    """Each control: how it enters, and its options that differ from their defaults."""
    controls = content["control"] if isinstance(content["control"], list) else [content["control"]]
    kinds = _kinds(schema.ControlSpec)
    return [
        (each.get("name") or "control", _with_options(each, kinds.get(each.get("kind")), ("bounds", "initial")))
        for each in controls
    ]


def term_words(content: Mapping[str, Any]) -> Words:
    """Each term of the objective by the name under which its value is reported."""
    terms = content["objective"]
    prior = (content.get("inference") or {}).get("prior") or []
    priors = prior if isinstance(prior, list) else [prior]
    names = term_names([*(term["kind"] for term in terms), *("prior" for _ in priors)])
    words = [_with_options(term, found_at(TERMS[term["kind"]]), ("target", "weight", "norm")) for term in terms]
    words += [f"Prior of a control. Here {pairs({k: v for k, v in each.items() if v is not None})}." for each in priors]
    return list(zip(names, words, strict=True))


def constraint_words(content: Mapping[str, Any]) -> Words:
    """Each constraint."""
    return [
        (each["kind"], _with_options(each, found_at(CONSTRAINTS[each["kind"]]), ()))
        for each in content.get("constraints") or []
    ]


def random_words(content: Mapping[str, Any]) -> Words:
    """The random inputs, their scenarios and the measure of risk."""
    found = [(name, plain(value).strip("()")) for name, value in (content.get("parameters") or {}).items()]
    if found:
        found += [(key, plain(content[key]).strip("()")) for key in ("scenarios", "risk") if content.get(key)]
    return found


def _kinds(annotation: Any) -> dict[str, Any]:
    """The sections of a union by their kinds."""
    members = get_args(get_args(annotation)[0])
    return {get_args(each.model_fields["kind"].annotation)[0]: each for each in members}


def _with_options(section: Mapping[str, Any], kind: Any, always: Sequence[str]) -> str:
    """What a section stands for, and its options; those that have their defaults only where they are asked for."""
    fields = {} if kind is None else kind.model_fields
    shown = {
        name: value
        for name, value in section.items()
        if name not in ("kind", "name") and not _unset(value)
        and (name in always or name not in fields or value != fields[name].default)
    }  # fmt: skip
    what = section.get("kind") if kind is None else kind.meaning(section)
    return f"{what} Here {pairs(shown)}." if shown else str(what)


def _unset(value: Any) -> bool:
    return is_empty(value) or (isinstance(value, list) and all(each is None for each in value))
