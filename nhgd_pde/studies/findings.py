"""What is found from the rows of a study, by its kind, beside the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..problem_file.loading import ProblemFile
from . import l_curve, orders, pareto
from .study_file import StudyFile
from .study_spec import LCurveSpec, OptunaSpec, ParetoSpec, RefinementSpec, StudySpec
from .table_rows import ended, measure, names_of_terms

# Columns that every run has, besides the terms of the objective.
_COLUMNS = ("objective", "control_norm", "gradient_norm", "iterations", "solves", "factorisations", "seconds")


def check_names(study: StudyFile, file: ProblemFile) -> None:
    """Refuses names of columns that no run will have.

    Args:
        file: the problem of a run.

    Raises:
        ProblemError: with the names that there are.
    """
    from ..problem_file.errors import suggest

    spec, known = study.spec, (*names_of_terms(file), *_COLUMNS)
    if isinstance(spec, LCurveSpec) and hasattr(file.spec, "parameters") and file.spec.parameters:
        raise study.error("kind", "expected a problem without random inputs, whose terms are known one by one")
    given = {"minimise": spec.minimise} if isinstance(spec, OptunaSpec) else {}
    if isinstance(spec, ParetoSpec):
        given = {f"of.{k}": name for k, name in enumerate(spec.of)}
        if len(compared(spec, names_of_terms(file))) < 2:
            raise study.error("of", f"expected at least two columns, of {', '.join(known)}")
    for key, name in given.items():
        plain = name.removeprefix("term_")
        if plain not in known:
            raise study.error(key, f"expected one of {', '.join(known)}; found {name!r}{suggest(name, known)}")


def compared(spec: ParetoSpec, terms: Sequence[str]) -> tuple[str, ...]:
    """The names of the quantities of a Pareto front."""
    return spec.of or tuple(terms)


def found_in(spec: StudySpec, rows: Sequence[Mapping[str, Any]], terms: Sequence[str]) -> dict[str, Any]:
    """What the kind of a study makes of its rows: plain values, and sentences for people under `sentences`.

    Args:
        terms: the names of the terms of the objective.
    """
    good = [row for row in rows if ended(row)]
    if isinstance(spec, RefinementSpec):
        return _refined(spec, good)
    if isinstance(spec, LCurveSpec):
        (key,) = spec.vary
        place = int(key.split(".")[1])
        found = l_curve.curve(good, key, terms[place] if place < len(terms) else "")
        return {**found, "sentences": [l_curve.sentence(found)]}
    if isinstance(spec, ParetoSpec):
        found = pareto.traded(good, compared(spec, terms))
        return {**found, "sentences": [pareto.sentence(found, len(good))]}
    return _best(good, spec.minimise if isinstance(spec, OptunaSpec) else "objective")


def _refined(spec: RefinementSpec, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    (key,) = spec.vary
    sizes = [1.0 / float(row[key]) if key == "time.steps" else measure(row, "size") for row in rows]
    known = [(row, size) for row, size in zip(rows, sizes, strict=True) if size]
    found = orders.refined([row for row, _ in known], [size for _, size in known])
    return {**found, "sentences": orders.sentences(found)}


def _best(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """The run whose value in a column is the smallest."""
    numbers = [(value, row) for row in rows if (value := measure(row, name)) is not None]
    if not numbers:
        return {"sentences": []}
    value, best = min(numbers, key=lambda each: each[0])
    return {"best": best["run"], "sentences": [f"smallest {name.replace('_', ' ')}: {value:.9g}, run {best['run']}"]}
