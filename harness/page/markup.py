# SPDX-License-Identifier: MIT
"""HTML made of calls: what is no markup is escaped, always."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

__all__ = [
    "Child",
    "Markup",
    "breakable",
    "copyable",
    "details",
    "element",
    "join",
    "matrix",
    "script_json",
    "table",
]

_VOID = {"meta", "link", "br", "input", "wbr"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | int | Iterable[Child] | None"


def element(tag: str, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """Make an element.

    Args: children: Markup as it is, anything else escaped; None is nothing.  attributes: `class_` for class,
        `_` within a name for `-`; None and False leave it out, True gives it no value.
    """
    words = [tag]
    for name, value in attributes.items():
        key = name.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{html.escape(str(value))}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if tag in _VOID else f"{start}{join(*children)}</{tag}>")


def join(*children: Child) -> Markup:
    """Put children one behind the other."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str | int):
            parts.append(html.escape(str(child)))
        else:
            parts.append(join(*child))
    return Markup("".join(parts))


def breakable(name: str) -> Markup:
    """Write a long name, a cell's say, that may be broken behind a comma and in front of an equals sign."""
    parts = re.split(r"(?<=,)|(?==)", name)
    return join(part for at, each in enumerate(parts) for part in ((element("wbr"), each) if at else (each,)))


def copyable(command: str) -> Markup:
    """Write a command that a click, or Enter, copies."""
    return element("code", command, class_="copy", tabindex="0", title="click or Enter copies")


def details(summary: Child, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """Fold something away. Args: attributes: of the element; `open=True` shows it."""
    return element("details", element("summary", summary), *children, **attributes)


def table(
    head: Iterable[Child],
    rows: Iterable[Iterable[Child]],
    *,
    left: int = 1,
    last: int = 0,
    class_: str | None = None,
) -> Markup:
    """Make a table. Args: left, last: how many columns at its two ends are text; between are numbers, set right."""
    head = list(head)
    right = range(left, len(head) - last)

    def look(at: int, each: Child) -> str | None:
        return None if at not in right else "n zero" if each == "0" else "n"

    titles = [element("th", each, class_=look(at, each), scope="col") for at, each in enumerate(head)]
    lines = [
        element("tr", [element("td", each, class_=look(at, each)) for at, each in enumerate(row)])
        for row in rows
    ]
    inner = join(element("thead", element("tr", titles)), element("tbody", lines))
    return element("div", element("table", inner, class_=class_), class_="wide")


def matrix(
    corner: str, columns: Sequence[str], rows: Sequence[tuple[Child, Sequence[Child]]], *, most: int = 8
) -> Markup:
    """Make a table with a column for each cell of a run.

    Args: rows: name, and a value for each column, "-" where there is none.  most: columns side by side, which fit
        on a sheet of paper; more of them are a table of their own below, of the rows that have a value there.
    """
    parts = [slice(at, at + most) for at in range(0, max(1, len(columns)), most)]
    return join(
        table(
            (corner, *map(breakable, columns[part])),
            [(name, *values[part]) for name, values in rows if any(each != "-" for each in values[part])],
        )
        for part in parts
    )


def script_json(text: str, name: str) -> Markup:
    """Put JSON into a page, so that nothing in it can end the element."""
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    safe = safe.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(f'<script type="application/json" id="{html.escape(name)}">{safe}</script>')
