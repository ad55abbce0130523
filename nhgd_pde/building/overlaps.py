"""Checks of named parts of the mesh that share facets or cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..fem.state_space import StateSpace
from ..problem_file.control_spec import ConductivityControl, DensityControl, LogConductivityControl, SourceControl
from ..problem_file.expressions import Expression
from .entry import Entry
from .evaluator import point_text
from .values import Values


@dataclass(frozen=True)
class _Acting:
    """A condition or control of the file on a set of facets.

    Attributes:
        name: name of the set of facets.
        key: the key of the condition or control in the file.
        kind: `dirichlet`, `neumann`, ...
        facets: their indices.
        control: whether it is a control.
    """

    name: str
    key: str
    kind: str
    facets: np.ndarray
    control: bool = False

    @property
    def what(self) -> str:
        return self.key if self.control else f"the {self.kind} condition of {self.name}"


def check_overlaps(values: Values, state: StateSpace, facets: dict[str, np.ndarray], entries: Sequence[Entry]) -> None:
    """Report conditions, controls and terms that share facets or cells, and what holds there.

    Parts that add up, or have no effect, give a notice. A result that would depend on the order in the file is a
    mistake.
    """
    acting = []
    for name, indices in facets.items():
        condition = values.file.spec.pde.boundary[name]
        if not condition.no_flux:
            acting.append(_Acting(name, f"pde.boundary.{name}", condition.condition, indices))
    for entry in entries:
        if entry.side is not None and entry.facets is not None:
            kind = "dirichlet" if entry.data is not None else "neumann"
            acting.append(_Acting(entry.side, entry.key, kind, entry.facets, control=True))
    for one, other in combinations(acting, 2):
        shared = np.intersect1d(one.facets, other.facets)
        if one.name != other.name and len(shared):
            _on_facets(values, state, one, other, shared)
    _in_terms(values)
    _in_controls(values)
    pde = values.file.spec.pde
    for field in type(pde).model_fields:
        given = getattr(pde, field)
        for key, each in {f"pde.{field}": given, **_below(f"pde.{field}", given)}.items():
            _in_regions(values, key, each)


def _on_facets(values: Values, state: StateSpace, one: _Acting, other: _Acting, shared: np.ndarray) -> None:
    common = f"{one.name} and {other.name} share {_count(len(shared), 'facet')}"
    kinds = {one.kind, other.kind}
    if kinds == {"dirichlet"} and not one.control and not other.control:
        _same_values(values, state, one, other, shared, common)
    elif kinds == {"dirichlet"} and one.control and other.control:
        values.tell(f"{common}; there u is the mean of the values of {one.key} and {other.key}")
    elif kinds == {"dirichlet"}:
        control, given = (one, other) if one.control else (other, one)
        values.tell(f"{common}; there {control.key} adds to the values of {given.name}")
    elif "dirichlet" in kinds:
        fixing, flux = (one, other) if one.kind == "dirichlet" else (other, one)
        data = None if fixing.control else values.file.spec.pde.boundary[fixing.name].dirichlet
        partly = isinstance(data, tuple) and None in data
        where = " in the components that it gives" if partly else ""
        values.tell(f"{common}; there {fixing.what} holds, and {flux.what} has no effect{where}")
    else:
        values.tell(f"{common}; there {one.what} and {other.what} add up")


def _same_values(
    values: Values, state: StateSpace, one: _Acting, other: _Acting, shared: np.ndarray, common: str
) -> None:
    """Complain of two Dirichlet conditions with different values on the same facets."""
    count = state.groups[0].components
    given = [values.file.spec.pde.boundary[each.name].dirichlet for each in (one, other)]
    for i in range(count):
        first, second = (_component(each, i) for each in given)
        if first is None or second is None or _equal(first, second):
            continue
        dofs = state.facet_dofs(shared, i)
        nodes, where = state.nodes[:, dofs], ""
        if not (first.variables | second.variables) & (values.random_names | values.parameters.keys()):
            left, right = (values.formula(f"{one.key}.dirichlet", each, nodes) for each in (first, second))
            apart = np.abs(left - right) > 1e-12 * max(np.abs(left).max(), np.abs(right).max())
            if not apart.any():
                continue
            where = f" at {point_text(nodes, int(np.argmax(apart)))}"
        message = f"{common}, where both fix u: expected the same values, as their order in the file would decide; "
        values.complain(f"{other.key}.dirichlet", f"{message}found {first} and {second}{where}")
        return


def _component(given: Expression | tuple[Expression | None, ...] | None, i: int) -> Expression | None:
    """The value of a Dirichlet condition for a component; a scalar stands for all components, or for a real part."""
    if isinstance(given, tuple):
        return given[i] if i < len(given) else None
    return given


def _equal(one: Expression, other: Expression) -> bool:
    """Whether two expressions are the same, as texts or as numbers."""
    return str(one) == str(other) or (one.constant is not None and one.constant == other.constant)


def _in_terms(values: Values) -> None:
    """Report terms of the objective that count the same facets or cells."""
    domain = values.domain
    terms: list[tuple[str, str, str, np.ndarray]] = []
    for k, term in enumerate(values.file.spec.objective):
        on = getattr(term, "on", None)
        if on is not None and on != "all" and (on in domain.subdomains or on in domain.facets):
            what, parts = ("cell", domain.subdomains) if on in domain.subdomains else ("facet", domain.facets)
            terms.append((f"objective.{k}", on, what, parts[on]))
            if on in domain.subdomains and on in domain.facets:
                values.tell(f"objective.{k}: {on} names cells and facets; the term is over the cells")
    for (one, first, what, left), (other, second, its, right) in combinations(terms, 2):
        shared = len(np.intersect1d(left, right)) if what == its and first != second else 0
        if shared:
            values.tell(f"{first} and {second} share {_count(shared, what)}, which count in {one} and in {other}")


def _in_controls(values: Values) -> None:
    """Report controls that share cells: sources add up, and two controls of one coefficient are a mistake."""
    made, added = [], []
    for key, each in values.file.spec.keyed_controls:
        if isinstance(each, SourceControl) and each.on is not None:
            added.append((key, each.on))
        elif isinstance(each, DensityControl | ConductivityControl | LogConductivityControl):
            made.append((key, each.on, isinstance(each, DensityControl)))
    cells, every = values.domain.subdomains, np.arange(values.domain.mesh.nelements)
    for (one, first), (other, second) in combinations(added, 2):
        shared = np.intersect1d(cells.get(first, every[:0]), cells.get(second, every[:0]))
        if first != second and len(shared):
            values.tell(f"{first} and {second} share {_count(len(shared), 'cell')}; there {one} and {other} add up")
    for (one, left, dense), (other, right, denser) in combinations(made, 2):
        sets = [every if each is None else cells.get(each, every[:0]) for each in (left, right)]
        shared = np.intersect1d(sets[0], sets[1])
        if (dense or denser) and len(shared):
            message = f"expected cells whose coefficient no other control makes, found {_count(len(shared), 'cell')}"
            values.complain(f"{other}.on", f"{message} of {one}")


def _below(key: str, given: object) -> dict[str, object]:
    """The coefficients of an equation in Python, by their keys."""
    return {f"{key}.{name}": each for name, each in given.items()} if isinstance(given, dict) else {}


def _in_regions(values: Values, key: str, given: object) -> None:
    """Complain of cells to which two named subdomains give different values of a coefficient."""
    if not isinstance(given, dict) or not all(isinstance(each, Expression) for each in given.values()):
        return
    known = values.domain.subdomains
    if "default" in given and "default" in known:
        message = "expected subdomains with other names: 'default' stands for the cells of no other name, and the mesh "
        values.complain(f"{key}.default", f"{message}has a subdomain of this name too")
    for one, other in combinations([name for name in given if name in known and name != "default"], 2):
        shared = 0 if _equal(given[one], given[other]) else len(np.intersect1d(known[one], known[other]))
        if shared:
            message = (
                f"{one} and {other} share {_count(shared, 'cell')}: expected the same value there, as their order in "
            )
            values.complain(f"{key}.{other}", f"{message}the file would decide; found {given[one]} and {given[other]}")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number > 1 else ''}"
