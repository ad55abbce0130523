"""Exceptions for mistakes in a problem file, with sentences and keys of the file in place of those of pydantic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Location = tuple[int | str, ...]

# Of whole numbers from this size on, messages give the number of digits.
_LONG = 10**24


def found(value: object) -> str:
    """The words for a value in messages: `null`, `true`, `'abc'`, `a mapping`, `a list of 3`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >= _LONG:
        # Python refuses to write whole numbers with more than 4300 digits.
        return f"a whole number of {int(value.bit_length() * math.log10(2.0)) + 1:,} digits"
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def issue(message: str) -> PydanticCustomError:
    """The exception with which a validator reports a mistake."""
    return PydanticCustomError("issue", "{message}", {"message": message})


def expectation(expected: str, value: object, hint: str = "") -> PydanticCustomError:
    return issue(f"expected {expected}, found {found(value)}{hint}")


def raise_issues(title: str, issues: Iterable[tuple[Location, PydanticCustomError]]) -> NoReturn:
    """Raise several mistakes at once, each with its key below the value that is checked."""
    lines = [InitErrorDetails(type=error, loc=location, input=None) for location, error in issues]
    raise ValidationError.from_exception_data(title, lines)


def each_of(title: str, items: Iterable[tuple[Any, Any]], check: Callable[[Any], Any]) -> list[tuple[Any, Any]]:
    """Check every item; the mistakes of all items are raised together, each with its key."""
    good: list[tuple[Any, Any]] = []
    bad: list[tuple[Location, PydanticCustomError]] = []
    for key, value in items:
        try:
            good.append((key, check(value)))
        except PydanticCustomError as error:
            bad.append(((key,), error))
        except ValidationError as error:
            bad += [((key, *each["loc"]), issue(each["msg"])) for each in error.errors(include_url=False)]
    if bad:
        raise_issues(title, bad)
    return good


def words_of(annotation: object) -> tuple[str, ...]:
    """The words a `Literal` lists."""
    return tuple(str(word) for word in get_args(annotation)) if get_origin(annotation) is Literal else ()


def one_of(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
