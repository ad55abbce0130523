"""Contenders: a method with options, as named on the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..problem_file.errors import Issue, ProblemError, suggest
from ..problem_file.loading import ProblemFile, parse_override, read_problem
from ..problem_file.schema import ProblemSpec

PLACE = "--methods"

# A budget ends a run, not a number of iterations.
_ENDLESS = 10**7
# What contenders may differ in. The rest of a file is the problem, which is the same for all.
_NOT_OPTIONS = frozenset(
    {"name", "method", "mesh", "element", "pde", "time", "control", "objective", "constraints", "parameters"}
    | {"scenarios", "risk", "seed", "output"}
)
_CONTENDER = re.compile(r"(?:(?P<label>[^=:.{}\[\]]+)=)?(?P<method>[A-Za-z_]\w*)(?::(?P<override>.+))?", re.DOTALL)


@dataclass(frozen=True)
class Contender:
    """A method and its options.

    Attributes:
        label: its name in tables and figures.
        method: the value of `method`.
        overrides: values by dotted path, below `inner`, `curvature`, `hypergradient`, `outer` or `devices`.
    """

    label: str
    method: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def with_overrides(self, more: Mapping[str, Any]) -> Contender:
        """The same with further values by dotted path."""
        return Contender(self.label, self.method, {**self.overrides, **more})

    def read(self, source: str | Path | Mapping[str, Any], common: Mapping[str, Any], seed: int | None) -> ProblemFile:
        """The problem as this contender solves it.

        Args:
            source: problem file or mapping.
            common: overrides for every contender.
            seed: of the method's random numbers; None for that of the file.

        Raises:
            ProblemError: an unknown method, or options that it does not have.
        """
        overrides = {"outer.iterations": _ENDLESS, **common, "method": self.method, **self.overrides}
        if seed is not None:
            overrides["seed"] = seed
        return read_problem(source, overrides)


def parse_contenders(texts: Sequence[str]) -> tuple[Contender, ...]:
    """Contenders from lists such as `nhgd,adjoint,dense=nhgd:curvature.kind=dense,inner.tests=64`.

    A contender is METHOD or LABEL=METHOD, with overrides KEY=VALUE after a colon; further overrides follow after
    commas. Without a label it goes by what was written.

    Raises:
        ProblemError: every text that is no contender, option that is no option, and label that is given twice.
    """
    issues: list[Issue] = []
    found: list[Contender] = []
    written: list[str] = []
    for text in texts:
        started = False
        for piece in _split(text):
            match = None if _is_override(piece) else _CONTENDER.fullmatch(piece)
            if not piece or (match is None and not started):
                issues.append(Issue("", f"expected METHOD or LABEL=METHOD[:KEY=VALUE,...], found {piece!r}", PLACE))
                continue
            started = True
            if match is not None:
                found.append(Contender(match["label"] or "", match["method"]))
                written.append(piece)
            else:
                written[-1] += f",{piece}"
            override = match["override"] if match is not None else piece
            if override:
                found[-1], wrong = _overridden(found[-1], override)
                issues += wrong
    named = [
        Contender(each.label or text, each.method, each.overrides) for each, text in zip(found, written, strict=True)
    ]
    if not named and not issues:
        issues.append(Issue("", "expected at least one method, found none", PLACE))
    labels = [each.label for each in named]
    issues += [
        Issue("", f"the name {label!r} is given twice; tell them apart as LABEL=METHOD", PLACE)
        for label in sorted({label for label in labels if labels.count(label) > 1})
    ]
    if issues:
        raise ProblemError(issues)
    return tuple(named)


def check_contenders(
    contenders: Sequence[Contender], source: str | Path | Mapping[str, Any], common: Mapping[str, Any]
) -> None:
    """See that a file can be read as every contender would.

    Raises:
        ProblemError: every mistake; one of the file itself once.
    """
    read_problem(source, common)
    issues = []
    for contender in contenders:
        try:
            contender.read(source, common, None)
        except ProblemError as error:
            issues += [Issue(each.key, each.message, f"{PLACE} {contender.label}") for each in error.issues]
    if issues:
        raise ProblemError(issues)


def _split(text: str) -> list[str]:
    """The text at its commas outside brackets."""
    pieces, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "[{(") - (character in ")}]")
        if character == "," and depth == 0:
            pieces.append(text[start:at])
            start = at + 1
    return [piece.strip() for piece in [*pieces, text[start:]]]


def _is_override(piece: str) -> bool:
    """KEY=VALUE with a section of problem files as key, in contrast to LABEL=METHOD; labels have no dots."""
    key, separator, _ = piece.partition("=")
    return bool(separator) and key.strip() in ProblemSpec.model_fields


def _overridden(contender: Contender, text: str) -> tuple[Contender, list[Issue]]:
    try:
        key, value = parse_override(text)
    except ProblemError as error:
        return contender, [Issue(each.key, each.message, PLACE) for each in error.issues]
    section = key.partition(".")[0]
    if section in _NOT_OPTIONS:
        message = "contenders solve the same problem and may not change this; --set changes it for all"
        return contender, [Issue(key, message, PLACE)]
    if section not in ProblemSpec.model_fields:
        known = [name for name in ProblemSpec.model_fields if name not in _NOT_OPTIONS]
        message = f"unknown option{suggest(section, known)}; options are below {', '.join(known)}"
        return contender, [Issue(key, message, PLACE)]
    return Contender(contender.label, contender.method, {**contender.overrides, key: value}), []
