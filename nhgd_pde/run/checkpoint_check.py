"""Checks the content of a checkpoint, field by field, before a run goes on from it.

A checkpoint consists of nested mappings, see `engine.plain`. Names and types are compared with the dataclasses that are
made from them, lengths with the sizes of the problem. Numbers have to be finite, and counts at least zero.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

import torch
from torch import Tensor

from ..engine.admissible import Edge
from ..engine.curvature.average import Average
from ..engine.loop import Iterate
from ..engine.outer.base import OuterState
from ..engine.plain import CLASS, GENERATOR, TUPLE, class_named
from ..engine.scales import GradientScales
from ..linalg.counts import Counts

# Names of fields that are saved apart from their object, which is saved with None in their place.
_APART = {"nominal", "inverse", "curvature", "kept"}
# Names of fields that are a state, or a row as long as the state for each scenario.
_STATES = {"u", "q", "p", "vector", "moved"}
# Ends of the names of such fields in pairs of states.
_PAIRS = ("known.at.0", "known.at.1", ".images.0", ".images.1")
# Names of fields of samples.
_SAMPLES = {"tests", "noise"}
# Counts, and whole numbers in place of real ones, are below this number.
_MOST = 2**53
# Names of numbers that are norms, relative errors or times, and at least zero.
_SIZES = {"state_error", "adjoint_error", "sensitivity", "gradient_norm", "rounding"}
_SIZES |= {"sampling_error", "sampling_bound"}


class MalformedError(ValueError):
    """A field of a checkpoint is not what it has to be; the message names it."""


@dataclass(frozen=True)
class Shapes:
    """The sizes of a problem.

    Attributes:
        controls: p.
        states: lengths that a state may have: those of the problem, of its stages and of a coarser mesh.
    """

    controls: int
    states: frozenset[int]
    stages: int
    bounds: int


def check_content(content: Mapping[str, Any], shapes: Shapes) -> None:
    """Checks the content of a checkpoint, as `Checkpoints.content` makes it.

    Raises:
        MalformedError: with the name of the first field that is wrong.
    """
    kinds: dict[str, Any] = {
        **dict.fromkeys(("spec", "fingerprint", "history"), dict),
        **dict.fromkeys(("first", "current"), Iterate),
        **dict.fromkeys(("state", "knowledge", "rounds"), Any),
        **dict.fromkeys(("evaluations", "bad", "stage", "before"), int),
        **dict.fromkeys(("sensitivity", "unit", "solved", "seconds", "reference"), float),
        **dict.fromkeys(("edge", "crossed"), Edge | None),
        "run_first": Iterate | None,
        "tried": Tensor | None,
        "outer": OuterState,
        "scales": GradientScales,
        "counts": dict[str, int],
    }
    _same_names(content, set(kinds), "")
    outer = {"first", "current", "outer", "run_first", "tried", "edge", "crossed"}
    for name, kind in kinds.items():
        if name not in ("spec", "fingerprint", "history"):
            _Walk(shapes, outer=name in outer).check(content[name], kind, name)
    _check(isinstance(content["history"], dict), "history", "named fields", content["history"])
    _same_names(content["counts"], set(Counts().as_dict()), "counts")
    _check(content["stage"] < shapes.stages, "stage", f"0 to {shapes.stages - 1}", content["stage"])
    for name in ("sensitivity", "seconds", "reference", "solved"):
        _check(content[name] >= 0.0, name, "at least 0", content[name])
    _check(content["unit"] > 0.0, "unit", "more than 0", content["unit"])
    _check(content["first"]["iteration"] == 0, "first.iteration", "0", content["first"]["iteration"])
    _check_rounds(content["rounds"], shapes)


def _check_rounds(rounds: Any, shapes: Shapes) -> None:
    if rounds is None:
        return
    whole = isinstance(rounds, list) and len(rounds) == 2 and isinstance(rounds[1], list)
    _check(whole, "rounds", "a number and a list", rounds)
    count, relaxations = rounds
    _check(type(count) is int and count >= 0, "rounds.0", "a count", count)
    _check(len(relaxations) == shapes.bounds, "rounds.1", f"{shapes.bounds} bounds of the state", len(relaxations))


def _check(holds: bool, place: str, expected: str, found: Any) -> None:
    if not holds:
        raise MalformedError(f"{place}: expected {expected}, found {_short(found)}")


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, dict | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return repr(value)[:60]


def _same_names(found: Any, expected: set[str], place: str) -> None:
    _check(isinstance(found, dict), place or "content", "named fields", found)
    for name in sorted(expected ^ set(found), key=str):
        what = "is missing" if name in expected else "is not known"
        raise MalformedError(f"{place}.{name} {what}".lstrip("."))


@dataclass(frozen=True)
class _Walk:
    """Goes through one part of a checkpoint.

    Attributes:
        shapes: of the problem.
        outer: the part has nothing but controls and their derivatives: every tensor has their length.
    """

    shapes: Shapes
    outer: bool

    def check(self, value: Any, kind: Any, place: str) -> None:
        """Compare a value with the type that it has to have; `Any` for one that is not known."""
        if getattr(kind, "_is_protocol", False):
            return self._object(value, None, place)
        if isinstance(kind, typing.TypeVar) or kind is Any:
            return self._any(value, place)
        if typing.get_origin(kind) in (Union, types.UnionType):
            return self._one_of(value, typing.get_args(kind), place)
        if typing.get_origin(kind) is Literal:
            return _check(value in typing.get_args(kind), place, f"one of {typing.get_args(kind)}", value)
        if typing.get_origin(kind) is tuple:
            return self._tuple(value, typing.get_args(kind), place)
        if typing.get_origin(kind) in (dict, Mapping):
            _check(isinstance(value, dict), place, "named fields", value)
            for name, each in value.items():
                self.check(each, typing.get_args(kind)[1], f"{place}.{name}")
            return None
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return self._object(value, kind, place)
        return self._plain(value, kind, place)

    def _any(self, value: Any, place: str) -> None:
        if isinstance(value, Tensor):
            self._tensor(value, place)
        elif isinstance(value, dict) and CLASS in value:
            self._object(value, None, place)
        elif isinstance(value, dict) and GENERATOR in value:
            self._generator(value, place)
        elif isinstance(value, dict):
            hints = _hints_of_average(value)
            for name, each in value.items():
                self.check(each, hints.get(name, Any), f"{place}.{name}")
        elif isinstance(value, list):
            for number, each in enumerate(value):
                self._any(each, f"{place}.{number}")
        elif isinstance(value, float):
            _check(not math.isnan(value), place, "a number", value)
        elif type(value) is int:
            _check(0 <= value < _MOST, place, "a count", value)

    def _one_of(self, value: Any, kinds: tuple[Any, ...], place: str) -> None:
        if value is None:
            return _check(type(None) in kinds, place, "a value", value)
        others = [kind for kind in kinds if kind is not type(None)]
        for kind in others[:-1]:
            try:
                return self.check(value, kind, place)
            except MalformedError:
                continue
        return self.check(value, others[-1], place)

    def _tuple(self, value: Any, kinds: tuple[Any, ...], place: str) -> None:
        _check(isinstance(value, dict) and isinstance(value.get(TUPLE), list), place, "a tuple", value)
        _same_names(value, {TUPLE}, place)
        parts = value[TUPLE]
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            kinds = (kinds[0],) * len(parts)
        _check(len(parts) == len(kinds), place, f"{len(kinds)} values", value)
        for number, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
            self.check(part, kind, f"{place}.{number}")

    def _object(self, value: Any, kind: type | None, place: str) -> None:
        named = isinstance(value, dict) and isinstance(value.get(CLASS), str)
        _check(named, place, kind.__name__ if kind else "an object", value)
        try:
            found = class_named(value[CLASS])
        except ValueError as error:
            raise MalformedError(f"{place}: {error}") from None
        _check(kind is None or issubclass(found, kind), place, f"{kind and kind.__name__}", found.__name__)
        fields = {each.name: each for each in dataclasses.fields(found)}
        _same_names(value, {*fields, CLASS}, place)
        hints = _hints(found)
        for name, field in fields.items():
            each, where = value[name], f"{place}.{name}"
            if each is None and name in _APART:
                continue
            # A number that begins as infinite is one that may be: a bound that is not known yet.
            if isinstance(each, float) and math.isinf(each) and field.default == math.inf:
                _check(each > 0.0, where, "more than 0", each)
                continue
            self.check(each, hints.get(name, Any), where)

    def _plain(self, value: Any, kind: Any, place: str) -> None:
        if kind is Tensor:
            _check(isinstance(value, Tensor), place, "a tensor", value)
            return self._tensor(value, place)
        if kind is torch.Generator:
            return self._generator(value, place)
        if kind is float:
            number = type(value) is float or (type(value) is int and abs(value) < _MOST)
            _check(number and math.isfinite(value), place, "a finite number", value)
            at_least = place.rpartition(".")[2] in _SIZES
            return _check(not at_least or value >= 0.0, place, "at least 0", value)
        if kind is int:
            return _check(type(value) is int and 0 <= value < _MOST, place, "a count", value)
        if isinstance(kind, type):
            return _check(isinstance(value, kind), place, kind.__name__, value)
        return self._any(value, place)

    def _tensor(self, value: Tensor, place: str) -> None:
        finite = not value.is_floating_point() or bool(torch.isfinite(value).all())
        _check(finite, place, "finite numbers", "others among them")
        if self.outer:
            # States are checked where the oracle restores them.
            if not place.endswith("oracle.u"):
                self._control(value, place)
            return
        name = next((part for part in reversed(place.split(".")) if not part.isdigit()), "")
        if name in _STATES or place.endswith(_PAIRS):
            right = value.is_floating_point() and value.ndim in (1, 2) and value.shape[-1] in self.shapes.states
            _check(right, place, f"rows of {_any_of(self.shapes.states)} numbers", value)
        if name in _SAMPLES:
            _check(value.is_floating_point(), place, "numbers", value)
        if name == "indirect" or place.endswith("inverse.v"):
            self._control(value, place)

    def _control(self, value: Tensor, place: str) -> None:
        """Checks a control, or a derivative by the controls."""
        shape = (self.shapes.controls,)
        _check(tuple(value.shape) == shape and value.is_floating_point(), place, f"shape {shape}", value)

    def _generator(self, value: Any, place: str) -> None:
        _check(isinstance(value, dict), place, "the state of a generator", value)
        _same_names(value, {GENERATOR}, place)
        state = value[GENERATOR]
        right = isinstance(state, Tensor) and state.dtype == torch.uint8
        _check(right, place, "the state of a generator", state)
        try:
            torch.Generator().set_state(state.cpu())
        except RuntimeError:
            raise MalformedError(f"{place}: expected the state of a generator, found other bytes") from None


def _any_of(lengths: frozenset[int]) -> str:
    return " or ".join(f"{length:,}" for length in sorted(lengths))


def _hints_of_average(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The types of the numbers and tensors of an averaged inverse, which is saved without the name of its class."""
    simple = (float, int, bool, Tensor, float | None)
    for kind in Average.__subclasses__():
        if set(content) == {each.name for each in dataclasses.fields(kind)} - {"invert"}:
            return {name: hint for name, hint in _hints(kind).items() if hint in simple}
    return {}


def _hints(kind: type) -> Mapping[str, Any]:
    """The types of the fields of a dataclass; none where a module has them for type checkers alone."""
    get: Callable[[type], Mapping[str, Any]] = typing.get_type_hints
    try:
        return get(kind)
    except NameError:
        return {}
