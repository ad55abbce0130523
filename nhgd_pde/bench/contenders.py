"""Contenders: methods with options, as the command line names them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..problem_file.errors import Issue, ProblemError, suggest
from ..problem_file.loading import ProblemFile, parse_override, read_problem
from ..problem_file.schema import ProblemSpec

PLACE = "--methods"

# Number of outer iterations of a contender, more than any budget allows: the budget ends a run.
_ENDLESS = 10**7
# The sections of a file that contenders may not change, because all of them solve the same problem.
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
        return replace(self, overrides={**self.overrides, **more})

    def read(self, source: str | Path | Mapping[str, Any], common: Mapping[str, Any], seed: int | None) -> ProblemFile:
        """The problem as this contender solves it; only nhgd takes a network as the state, others finite elements.

        Args:
            common: overrides for every contender.
            seed: of the method's random numbers; None for that of the file.

        Raises:
            ProblemError: an unknown method, or options that it does not have.
        """
        overrides = {"outer.iterations": _ENDLESS, **common, "method": self.method, **self.overrides}
        if seed is not None:
            overrides["seed"] = seed
        if self.method != "nhgd" and read_problem(source, common).spec.state is not None:
            overrides = {"state": None, **overrides}
        return read_problem(source, overrides)


def parse_contenders(texts: Sequence[str]) -> tuple[Contender, ...]:
    """Contenders from lists such as `nhgd,adjoint,dense=nhgd:curvature.kind=dense,inner.tests=64`.

    A contender is METHOD or LABEL=METHOD, with overrides KEY=VALUE after a colon; further overrides follow after
    commas. Without a label it goes by what was written.

    Raises:
        ProblemError: every text that is no contender, option that is no option, and label that is given twice.
    """
    issues: list[Issue] = []
    contenders: tuple[Contender, ...] = ()
    for text in texts:
        given: list[_Written] = []
        for piece in _split(text):
            try:
                _take(piece, given)
            except ProblemError as error:
                issues += error.issues
        contenders += tuple(replace(each.contender, label=each.contender.label or each.text) for each in given)
    if not contenders and not issues:
        issues.append(Issue("", "expected at least one method, found none", PLACE))
    labels = Counter(each.label for each in contenders)
    issues += [
        Issue("", f"the name {label!r} is given twice; tell them apart as LABEL=METHOD", PLACE)
        for label, count in sorted(labels.items())
        if count > 1
    ]
    if issues:
        raise ProblemError(issues)
    return contenders


@dataclass
class _Written:
    """A contender, and the text that it is written as."""

    contender: Contender
    text: str


def _take(piece: str, given: list[_Written]) -> None:
    """Adds a piece between commas, which is another contender or a further override of the last one."""
    match = None if _is_override(piece) else _CONTENDER.fullmatch(piece)
    if not piece or (match is None and not given):
        raise ProblemError([Issue("", f"expected METHOD or LABEL=METHOD[:KEY=VALUE,...], found {piece!r}", PLACE)])
    if match is None:
        given[-1].text += f",{piece}"
    else:
        given.append(_Written(Contender(match["label"] or "", match["method"]), piece))
    override = piece if match is None else match["override"]
    if override:
        given[-1].contender = _overridden(given[-1].contender, override)


def check_contenders(
    contenders: Sequence[Contender], source: str | Path | Mapping[str, Any], common: Mapping[str, Any]
) -> None:
    """Checks that every contender can read a file.

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


def _overridden(contender: Contender, text: str) -> Contender:
    """The contender with another override KEY=VALUE, if contenders may change this value."""
    try:
        key, value = parse_override(text)
    except ProblemError as error:
        raise ProblemError([Issue(each.key, each.message, PLACE) for each in error.issues]) from None
    section = key.partition(".")[0]
    if section in _NOT_OPTIONS:
        message = "contenders solve the same problem and may not change this; --set changes it for all"
        raise ProblemError([Issue(key, message, PLACE)])
    if section not in ProblemSpec.model_fields:
        known = [name for name in ProblemSpec.model_fields if name not in _NOT_OPTIONS]
        message = f"unknown option{suggest(section, known)}; options are below {', '.join(known)}"
        raise ProblemError([Issue(key, message, PLACE)])
    return contender.with_overrides({key: value})
