"""From the periodic conditions of a problem file to the seams of its mesh."""

from __future__ import annotations

import numpy as np

from ..fem.mesh import Domain
from ..fem.seams import MismatchError, Seam, seam
from ..problem_file.loading import ProblemFile
from .issue_collector import IssueCollector


def with_seams(file: ProblemFile, domain: Domain) -> Domain:
    """The domain with the sides that are periodic.

    Raises:
        ProblemError: a side is unknown or has another condition, or two sides do not match.
    """
    pairs = {name: each.periodic for name, each in file.spec.pde.boundary.items() if each.periodic is not None}
    mistakes = IssueCollector(file)
    found: list[Seam] = []
    for first, second in pairs.items():
        key, before = f"pde.boundary.{first}", len(mistakes.issues)
        _check_sides(mistakes, domain, first, second, pairs)
        mirrored = pairs.get(second) == first and second in (each.names[0] for each in found)
        if len(mistakes.issues) > before or mirrored:
            continue
        try:
            found.append(seam(domain.mesh, (first, second), domain.boundaries[first], domain.boundaries[second]))
        except MismatchError as error:
            way = "make the mesh with matching sides (gmsh: `Periodic Curve` or `Periodic Surface`)"
            mistakes.complain(f"{key}.periodic", f"expected sides that are translates of each other; {error}; {way}")
    mistakes.raise_found()
    return domain.glued(found)


def _check_sides(mistakes: IssueCollector, domain: Domain, first: str, second: str, pairs: dict[str, str]) -> None:
    """Complain of two sides that cannot be periodic."""
    key, boundary = f"pde.boundary.{first}", mistakes.file.spec.pde.boundary
    unknown = False
    for at, name in ((key, first), (f"{key}.periodic", second)):
        if name == "all" or name not in domain.boundaries:
            unknown = True
            if name == "all":
                mistakes.complain(at, "expected the name of one side of two, found 'all'")
            else:
                mistakes.unknown(domain, at, "boundary", name, domain.boundaries)
    if unknown:
        return
    if first == second:
        mistakes.complain(f"{key}.periodic", f"expected the side opposite to {first!r}, found that side itself")
        return
    sides = np.concatenate([domain.boundaries[first], domain.boundaries[second]])
    if len(np.unique(sides)) < len(sides):
        mistakes.complain(
            f"{key}.periodic", f"expected two sides without common facets, found {first!r} and {second!r}"
        )
    for name, condition in boundary.items():
        shared = name in domain.facets and len(np.intersect1d(domain.facets[name], sides))
        if name in (first, "all") or not shared or (name == second and pairs.get(second) == first):
            continue
        what = f"{name!r} has facets of them and the condition {condition.condition}"
        mistakes.complain(f"{key}.periodic", f"expected no other condition on {first!r} and {second!r}, but {what}")
