"""Checks the names of parts of the mesh in a problem file that has other mistakes as well."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from ..fem.mesh import Domain
from ..problem_file.control_spec import DirichletControl, SideControl
from ..problem_file.errors import Issue, ProblemError
from ..problem_file.loading import RestOfFile, in_reading_order
from ..problem_file.schema import ProblemSpec
from .domains import build_domain
from .issue_collector import IssueCollector


def with_names(error: ProblemError) -> ProblemError:
    """The mistakes of a file, with names in the rest of the file that the mesh does not have, or that of its mesh file.

    Names in a file without other mistakes are checked where they are used.
    """
    found = [] if error.rest is None else mistakes_in_names(error.rest)
    return ProblemError(in_reading_order([*error.issues, *found])) if found else error


@dataclass(frozen=True)
class Use:
    """A place in a file that names a part of the mesh.

    Attributes:
        key: the place.
        name: the name.
        cells, sides, inside: whether it may name a subdomain, a part of the boundary, a curve inside the domain.
    """

    key: str
    name: str
    cells: bool = False
    sides: bool = False
    inside: bool = False

    def allowed(self, domain: Domain) -> bool:
        kinds = ((self.cells, domain.subdomains), (self.sides, domain.boundaries), (self.inside, domain.inside))
        return any(self.name in parts for holds, parts in kinds if holds)

    def complain(self, mistakes: IssueCollector, domain: Domain) -> None:
        if self.cells:
            sides = domain.facets if self.sides else None
            mistakes.unknown(domain, self.key, "subdomain", self.name, domain.subdomains, sides)
        else:
            mistakes.unknown(domain, self.key, "boundary", self.name, domain.boundaries)


def mistakes_in_names(rest: RestOfFile) -> list[Issue]:
    """The names that the mesh does not have, or a mistake of the mesh file, in what is right in a file."""
    if rest.left_out & {("mesh",), ("parts",)}:
        return []
    spec = rest.file.spec
    coarse = rest.file
    if not spec.parts:
        # The coarsest built-in mesh has the names of all finer ones, but not the facets of parts by coordinates.
        own: dict[str, object] = {"refine": 0}
        if hasattr(spec.mesh, "cells"):
            own["cells"] = tuple(1 for _ in spec.mesh.cells)
        coarse = replace(rest.file, spec=spec.model_copy(update={"mesh": spec.mesh.model_copy(update=own)}))
    try:
        wrong = _wrong_names(rest, build_domain(coarse))
        if not wrong:
            return []
        # Messages give numbers of facets and cells.
        domain, mistakes = build_domain(rest.file), IssueCollector(rest.file)
    except ProblemError as error:
        return [each for each in error.issues if each.key == "mesh.file" or each.key.startswith("parts.")]
    for use in wrong:
        use.complain(mistakes, domain)
    return mistakes.issues


def _wrong_names(rest: RestOfFile, domain: Domain) -> Collection[Use]:
    """The places whose names the mesh does not have. A part with a mistake of its own is not unknown."""
    mistaken = {place[1] for place in rest.left_out if place[0] == "parts" and len(place) > 1}
    return [use for use in named_parts(rest.file.spec) if not use.allowed(domain) and use.name not in mistaken]


def named_parts(spec: ProblemSpec) -> Iterator[Use]:
    """The places in a file that name a part of the mesh."""
    for name, condition in spec.pde.boundary.items():
        yield Use(f"pde.boundary.{name}", name, sides=True, inside=condition.dirichlet is not None)
    for field in type(spec.pde).model_fields:
        value = getattr(spec.pde, field)
        if field == "coefficients":
            # Of an equation of the user: coefficients by name, each with one value or one for each subdomain.
            for name, each in value.items():
                yield from _subdomains(f"pde.coefficients.{name}", each)
        elif field != "boundary":
            yield from _subdomains(f"pde.{field}", value)
    for key, control in spec.keyed_controls:
        on = getattr(control, "on", None)
        if isinstance(control, SideControl):
            inside = isinstance(control, DirichletControl) and control.space != "P0"
            yield Use(f"{key}.on", control.on, sides=True, inside=inside)
        elif on is not None:
            yield Use(f"{key}.on", on, cells=True)
    for section, members in (("objective", spec.objective), ("constraints", spec.constraints)):
        for k, each in enumerate(members):
            on = getattr(each, "on", None)
            if on is not None:
                yield Use(f"{section}.{k}.on", on, cells=True, sides=True, inside=True)


def _subdomains(key: str, value: object) -> Iterator[Use]:
    """The subdomains that a coefficient has values for."""
    names = value if isinstance(value, dict) else ()
    yield from (Use(f"{key}.{name}", name, cells=True) for name in names if name != "default")
