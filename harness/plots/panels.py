# SPDX-License-Identifier: MIT
"""What figures are put together from: axes side by side, bars with their numbers, lines over a sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.plots import style
from harness.plots.grid import MOST_ROWS, Cell, Grid, Row

__all__ = [
    "MARGIN_INCHES",
    "ROW_INCHES",
    "lines",
    "name_axes",
    "row_labels",
    "say",
    "scale",
    "side_by_side",
    "ticks",
    "values",
]

ROW_INCHES, _COLUMN_INCHES, MARGIN_INCHES = 0.32, 3.2, 1.2

Value = Callable[[Cell], float | None]


def side_by_side(
    grid: Grid, names: Sequence[str], width: float = 1.0, *, sharey: bool = True
) -> tuple[Any, list[Any]]:
    """Make one axes for each name, side by side."""
    rows = min(len(grid.rows), MOST_ROWS)
    across = _COLUMN_INCHES * width * len(names)
    if grid.sweep:
        return style.canvas(max(7.0, across + 1.2), 4.2, columns=len(names), sharey=sharey)
    height = MARGIN_INCHES + ROW_INCHES * rows
    return style.canvas(max(6.0, across + 1.6), height, columns=len(names), sharey=True)


def values(axes: Any, grid: Grid, kind: str, value: Value, said: Callable[[Row], str]) -> None:
    """Draw one number of each cell: bars with their numbers, or lines over the number that is swept."""
    if grid.sweep:
        lines(axes, grid, kind, value)
        return
    for at, row in enumerate(grid.rows[:MOST_ROWS]):
        number = value(row.cell)
        if number is None:
            continue
        axes.barh(at, number, color=style.colour(row.colour), height=0.7)
        axes.containers[-1][0].set_gid(f"{kind}:{row.label}")
        say(axes, at, number, said(row))
    row_labels(axes, grid.rows[:MOST_ROWS])


def lines(axes: Any, grid: Grid, kind: str, value: Value, **look: Any) -> None:
    """Draw one line for each design, or what else tells rows apart, over the number that is swept."""
    for name, rows in grid.lines.items():
        points = [(grid.value(row), value(row.cell)) for row in rows]
        points = [(x, y) for x, y in points if y is not None]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                **{
                    "color": style.colour(rows[0].colour),
                    "linestyle": style.dash(rows[0].dash),
                    "marker": "o",
                    "markersize": 4,
                    "label": name,
                    "gid": f"{kind}:{name}",
                    **look,
                },
            )
    if "label" not in look:
        axes.legend(loc="best")


def say(axes: Any, at: float, end: float, text: str) -> None:
    """Write a row's numbers at the end of its bar."""
    axes.annotate(text, (end, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5)


def row_labels(axes: Any, rows: Sequence[Row]) -> None:
    """Name the rows, the first on top."""
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def scale(axes: Any, grid: Grid, limits: tuple[float, float | None]) -> None:
    """Limit the axis of the numbers."""
    (axes.set_ylim if grid.sweep else axes.set_xlim)(*limits)


def ticks(axes: Any, grid: Grid, where: Sequence[float]) -> None:
    """Put ticks on the axis of the numbers."""
    (axes.set_yticks if grid.sweep else axes.set_xticks)(where)


def name_axes(axes: Any, grid: Grid, title: str, unit: str) -> None:
    """Name the axis of the numbers, and that of the sweep."""
    axes.set_title(title)
    if grid.sweep:
        axes.set_xlabel(grid.sweep.rpartition(".")[2])
        axes.set_ylabel(unit)
    else:
        axes.set_xlabel(unit)
