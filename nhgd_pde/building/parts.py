"""Parts of a mesh that a problem file describes by conditions on the coordinates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..fem.cells import place_text
from ..fem.mesh import Domain
from ..problem_file.expressions import COORDINATES, Expression, ExpressionError
from ..problem_file.loading import ProblemFile
from ..problem_file.part_spec import PartSpec
from .issue_collector import IssueCollector

# Names that mean something else where the name of a part may stand.
_TAKEN = ("all", "default")


def with_parts(file: ProblemFile, domain: Domain) -> Domain:
    """The mesh with the parts of the file: facets of the boundary and cells whose midpoints satisfy a condition.

    Raises:
        ProblemError: a name is taken, a condition uses anything but coordinates of the mesh, or holds nowhere.
    """
    mesh, mistakes = domain.mesh, IssueCollector(file)
    outer = domain.boundaries["all"]
    places = {
        "boundary": (outer, mesh.p[:, mesh.facets[:, outer]].mean(axis=1)),
        "cells": (np.arange(mesh.nelements), mesh.p[:, mesh.t].mean(axis=1)),
    }
    found: dict[str, dict[str, np.ndarray]] = {"boundary": {}, "cells": {}}
    for name, spec in file.spec.parts.items():
        key, complaint = f"parts.{name}", _complaint(name, domain)
        if complaint:
            mistakes.complain(key, complaint)
        # One condition for both is written at the name of the part, and a mistake in it is reported there, once.
        single = len(set(map(str, spec.conditions.values()))) == 1 and len(spec.conditions) == 2
        for kind, condition in spec.conditions.items():
            numbers, midpoints = places[kind]
            here = numbers[_holds(mistakes, key if single else f"{key}.{kind}", condition, midpoints)]
            if len(here):
                found[kind][name] = here
        if not mistakes.issues and not any(name in parts for parts in found.values()):
            mistakes.complain(key, _none(spec))
    mistakes.raise_found()
    return replace(
        domain,
        boundaries={**domain.boundaries, **found["boundary"]},
        subdomains={**domain.subdomains, **found["cells"]},
    )


def _complaint(name: str, domain: Domain) -> str:
    """What is wrong with the name of a part; empty if nothing is."""
    if not name.strip():
        return "expected a name, found none"
    known = domain.described(name)
    return f"the name is taken: it {known or 'means something else'}" if known or name in _TAKEN else ""


def _none(spec: PartSpec) -> str:
    """A sentence on a part without facets and cells."""
    where = " or ".join("facets of the boundary" if kind == "boundary" else kind for kind in spec.conditions)
    conditions = ", ".join(dict.fromkeys(repr(str(each)) for each in spec.conditions.values()))
    return f"expected {where} at whose midpoints {conditions} holds, found none"


def _holds(mistakes: IssueCollector, key: str, condition: Expression, x: np.ndarray) -> np.ndarray:
    """(P,) whether a condition holds at points (dim, P); nowhere after a complaint."""
    other = sorted(condition.variables - {*COORDINATES, "r"})
    if other:
        mistakes.complain(key, f"expected a condition on the coordinates alone, found {other[0]!r}")
    else:
        try:
            values = condition.numpy(x)
            wrong = ~np.isin(values, (0.0, 1.0))
            if not wrong.any():
                return values == 1.0
            first = int(np.argmax(wrong))
            found = f"{values[first]:g} at {place_text(x[:, first])}" if np.isfinite(values[first]) else "not finite"
            mistakes.complain(
                key,
                f"expected a condition that is 0 or 1 everywhere, found {condition}, {found}; compare, "
                "as in 'x < 0.5', and combine conditions by and, or, not",
            )
        except ExpressionError as error:
            mistakes.complain(key, str(error))
    return np.zeros(x.shape[1], dtype=bool)
