# SPDX-License-Identifier: MIT
"""Tables of plain text: a column is as wide as what stands in it, and so is the table, whatever the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.top.words import clean

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column. Attributes: title.  key: of a row.  write: the value there, as text.  left: aligned so.
    width: at least.
    """

    title: str
    key: str
    write: Callable[[Any], str] = str
    left: bool = False
    width: int = 0


@dataclass(frozen=True)
class Section:
    """A part of what there is to see.

    Attributes: key: in the JSON.  title.  columns.  rows: as in the JSON.  empty: what to say instead of rows.
        is_bad: which rows want attention.
    """

    key: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    empty: str = "none"
    is_bad: Callable[[Row], bool] = field(default=lambda _row: False)


def lines(section: Section) -> list[str]:
    """Write a section: its titles, then its rows."""
    cells = [[clean(column.write(row[column.key])) for column in section.columns] for row in section.rows]
    widths = [
        max(column.width, len(column.title), *(len(row[at]) for row in cells))
        for at, column in enumerate(section.columns)
    ]
    titles = [column.title for column in section.columns]
    if not cells:
        return [_aligned(section.columns, titles, widths), section.empty]
    return [_aligned(section.columns, row, widths) for row in (titles, *cells)]


def _aligned(columns: Sequence[Column], texts: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        f"{text:<{width}}" if column.left else f"{text:>{width}}"
        for column, text, width in zip(columns, texts, widths, strict=True)
    ]
    return " ".join(cells).rstrip()
