"""HTML that is safe by construction: every text is escaped unless a function of this file has made it."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


class Markup(str):
    """A text that is HTML already."""


def tag(name: str, *children: Any, **attributes: str | None) -> Markup:
    """An element; children that are no `Markup` are escaped, as are the values of attributes.

    The underscore at the end of `class_` and the like is left out, inner ones become hyphens.
    """
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    opening = "".join(f' {key}="{escape(value)}"' for key, value in pairs)
    return Markup(f"<{name}{opening}>{joined(children)}</{name}>")


def joined(children: Iterable[Any]) -> Markup:
    """Children one after the other."""
    return Markup("".join(each if isinstance(each, Markup) else escape(str(each), quote=False) for each in children))


def number(value: Any, key: str | None = None) -> Markup:
    """A number in short, with all its digits as the value of the element.

    Args:
        key: its place in summary.json, such as `terms.tracking`.
    """
    if value is None:
        return tag("data", "not known", value="", data_key=key)
    return tag("data", short(value), value=repr(value), data_key=key)


def short(value: Any) -> str:
    """A number in at most six digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if math.isfinite(value) else "not finite"


def table(rows: Iterable[Sequence[Any]], head: Sequence[str] = ()) -> Markup:
    """A table that scrolls sideways where it is wider than the page; a first cell of each row is its heading."""
    lines = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    above = [tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head)))] if head else []
    return tag("div", tag("table", *above, tag("tbody", *lines)), class_="wide")


def image(content: bytes, text: str, caption: str | None = None) -> Markup:
    """A PNG inside the page; `text` describes it to those who do not see it."""
    data = base64.b64encode(content).decode("ascii")
    drawn = Markup(f'<img src="data:image/png;base64,{data}" alt="{escape(text)}" style="max-width:100%">')
    return tag("figure", drawn, *([] if caption is None else [tag("figcaption", caption)]))


def pairs(content: Mapping[str, Any]) -> str:
    """A mapping in words, such as `weight = 1, target = x`; entries that are None or empty are left out."""
    return ", ".join(f"{name} = {plain(value)}" for name, value in content.items() if not is_empty(value))


def is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | dict) and len(value) == 0)


def plain(value: Any) -> str:
    """A value of a problem file as text."""
    if isinstance(value, Mapping):
        return f"({pairs(value)})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(plain, value))}]"
    if value is None:
        return "free"
    return f"{value:g}" if isinstance(value, float) else str(value)
