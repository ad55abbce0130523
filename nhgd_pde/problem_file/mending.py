"""Leaves out what is wrong in a problem file, so that mistakes in the rest of it are found in the same round."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

Location = tuple[int | str, ...]

# What takes the place of sections that a file must have, and of the members of lists: numbers of the others stay.
_STAND_INS: dict[str, Any] = {
    "name": "unnamed",
    "mesh": {"kind": "interval"},
    "pde": {"kind": "poisson"},
    "control": {"kind": "source"},
    "objective": {"kind": "tracking", "target": 0},
}
# Rounds after which the rest is given up: a key, its section and the whole top-level section.
_ROUNDS = 6


@dataclass(frozen=True)
class Rest:
    """What is left of a file without its mistakes.

    Attributes:
        spec: the checked rest, with stand-ins for sections that a file must have; None if nothing useful is left.
        left_out: the places in the file whose values were left out or replaced.
        further: (place, message) of mistakes that were found in the rest.
    """

    spec: Any
    left_out: frozenset[Location]
    further: tuple[tuple[Location, str], ...]


def rest_of(data: Any, wrong: Iterable[Location], check: Callable[[Any, frozenset[Location]], Any]) -> Rest:
    """Leave out what is wrong, and check the rest.

    Args:
        data: the content of the file, which is changed.
        wrong: the places of the mistakes that have been found.
        check: makes the spec of a content in which the values at these places are left out; raises ValidationError.
    """
    reported, new = list(wrong), list(wrong)
    if () in reported:
        return Rest(None, frozenset(), ())
    left_out: set[Location] = set()
    further: list[tuple[Location, str]] = []
    for _ in range(_ROUNDS):
        left_out |= {_left_out(data, place) for place in new}
        try:
            return Rest(check(data, frozenset(left_out)), frozenset(left_out), tuple(further))
        except ValidationError as error:
            found = [(each["loc"], each["msg"]) for each in error.errors(include_url=False, include_input=False)]
        further += [each for each in found if not any(_follows(each[0], place) for place in [*reported, *left_out])]
        new = [place for place, _ in found]
        reported += new
        if () in new:
            break
    return Rest(None, frozenset(left_out), tuple(further))


def place_of(key: str) -> Location:
    """The place of a dotted key."""
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))


def related(one: Location, other: Location) -> bool:
    """Whether one place is the other one, or is above it."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _follows(place: Location, other: Location) -> bool:
    """Whether what is wrong at a place follows from a mistake at another one: at it, above, below, or beside a `kind`.

    Sections without a kind are recognised by a key, without which their kind seems to be missing.
    """
    return related(place, other) or (place[-1] == "kind" and place[:-1] == other[:-1])


def _left_out(data: Any, place: Location) -> Location:
    """Leave out the value at a place, or what has to go with it; returns the place of what has been left out."""
    section, stand_in = place[0], _STAND_INS.get(str(place[0]))
    if len(place) == 1:
        before = data.pop(section, None)
        if stand_in is not None:
            data[section] = [dict(stand_in)] if section == "objective" else stand_in
        if section == "pde" and isinstance(before, dict) and "boundary" in before:
            # All equations have the same boundary conditions, whose names can be checked.
            data[section] = {**_STAND_INS["pde"], "boundary": before["boundary"]}
        return place
    *above, last = place
    parent = _value_at(data, above)
    if isinstance(parent, dict) and last in parent:
        del parent[last]
        return place
    if isinstance(parent, list) and len(place) == 2 and stand_in is not None:
        if isinstance(last, int) and last < len(parent):
            parent[last] = dict(stand_in)
        return place
    # A key that is missing, or one number of several, goes with the section that it belongs to.
    return _left_out(data, place[:-1])


def _value_at(data: Any, place: Iterable[int | str]) -> Any:
    """The value at a place; None without one."""
    for part in place:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data
