# SPDX-License-Identifier: MIT
"""What figures are put together from: rows of bars under their names, and lines over a number.

A row has its name and its numbers on a line of text and the bar below it, so that long names need no room beside
the bars, and a panel is as readable on a telephone as three of them side by side on a desk.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from harness.plots import palette, style
from harness.plots.drawing import HATCHES, MARKERS, Entry, Panel
from harness.plots.grid import Facet, Grid, Row
from harness.plots.spread import Spread

__all__ = [
    "PANEL_INCHES",
    "Bar",
    "Part",
    "axes_of_lines",
    "facet_entries",
    "nanosecond_ticks",
    "rows_of_bars",
    "swept",
    "swept_entries",
]

PANEL_INCHES = 4.4
_LETTERS, _ASIDE_LETTERS = 58, 22  # that fit in the width of a panel, and that a row's numbers need at least
_TITLE_LETTERS = 42
_TEXT, _LINE, _BAR, _GAP = (
    0.15,
    0.135,
    0.115,
    0.105,
)  # inches: first line of a row, further ones, bar, below it
_SIDE, _TOP, _NO_TITLE, _BOTTOM = 0.16, 0.27, 0.08, 0.42  # margins of rows
_TITLE_LINE = 0.16  # inches: further lines of a title
_LEFT, _RIGHT = 0.76, 0.14  # of lines
_ASIDE = 0.008  # of the axis: whiskers of one place stand beside each other
_UNITS = (("s", 1e9), ("ms", 1e6), ("us", 1e3), ("ns", 1.0))

Named = TypeVar("Named", bound="HasLabel")
Limits = tuple[float | None, float | None]


class HasLabel(Protocol):
    """A row."""

    @property
    def label(self) -> str:
        """Its name."""


@dataclass(frozen=True)
class Part:
    """A piece of a bar. Attributes: width: in units of the axis.  look: number of a colour, or a stand-in.  hatch.
    gid, said: of the mark, and what the pointer shows over it.
    """

    width: float
    colour: str
    gid: str
    said: str
    hatch: int = 0


@dataclass(frozen=True)
class Bar:
    """A row's bar. Attributes: parts: one behind the other.  said: its numbers.  spread: its whisker, in units of
    the axis, or None.  dots: instead of parts, a line through these numbers, each with its marker.  colour, gid,
    title: of that line.
    """

    parts: Sequence[Part]
    said: str
    spread: tuple[float, float] | None = None
    dots: Sequence[tuple[float, str]] = ()
    colour: str = palette.INK
    gid: str = ""
    title: str = ""


def rows_of_bars(
    name: str,
    title: str,
    unit: str,
    rows: Sequence[Named],
    bar: Callable[[Named], Bar | None],
    limits: Limits = (0, None),
    log: bool = False,
) -> Panel:
    """Draw a bar for each row. Args: unit: of the axis.  bar: None, if a row has no such number."""

    def draw() -> tuple[Any, dict[str, str]]:
        return _rows_of_bars(title, unit, rows, bar, limits, log)

    return Panel(name, f"{title}: {unit}" if title else unit, draw)


def _rows_of_bars(
    title: str,
    unit: str,
    rows: Sequence[Named],
    bar: Callable[[Named], Bar | None],
    limits: Limits,
    log: bool,
) -> tuple[Any, dict[str, str]]:
    bars = [bar(row) for row in rows]
    texts = [_wrapped(row.label, each.said if each else "-") for row, each in zip(rows, bars, strict=True)]
    heights = [_TEXT + _LINE * (len(lines) - 1) + _BAR + _GAP for lines in texts]
    shown, top = _title(title)
    figure, axes = style.panel(PANEL_INCHES, sum(heights) + top + _BOTTOM, _SIDE, _SIDE + 0.06, top, _BOTTOM)
    axes.set_ylim(sum(heights), 0)
    if log:
        axes.set_xscale("log")
    titles: dict[str, str] = {}
    at = 0.0
    across = axes.get_yaxis_transform()
    for lines, height, each in zip(texts, heights, bars, strict=True):
        for number, line in enumerate(lines):
            axes.text(
                0, at + _TEXT / 2 + 0.015 + _LINE * number, line, transform=across, va="center", fontsize=8
            )
        said = each.said if each else "-"
        axes.text(
            1,
            at + _TEXT / 2 + 0.015,
            said,
            transform=across,
            ha="right",
            va="center",
            fontsize=8,
            color=palette.QUIET,
        )
        if each:
            titles.update(_bar(axes, each, at + height - _GAP - _BAR / 2))
        at += height
    axes.autoscale_view(scaley=False)
    axes.set_xlim(*limits)
    axes.set_yticks([])
    if log:
        nanosecond_ticks(axes.xaxis)
    axes.set_xlabel(unit)
    axes.set_title(shown, pad=5)
    axes.spines["left"].set_visible(False)
    return figure, titles


def _title(text: str) -> tuple[str, float]:
    """Return a panel's title on as many lines as it needs, and the margin for it, in inches."""
    lines = textwrap.wrap(text, _TITLE_LETTERS)
    return "\n".join(lines), _TOP + _TITLE_LINE * (len(lines) - 1) if lines else _NO_TITLE


def _wrapped(label: str, said: str) -> list[str]:
    return textwrap.wrap(label, _LETTERS - max(_ASIDE_LETTERS, len(said) + 2)) or [""]


def _bar(axes: Any, bar: Bar, at: float) -> dict[str, str]:
    """Draw one bar. Returns: what the pointer shows over its parts."""
    from matplotlib.patches import Rectangle

    begin, titles = 0.0, {}
    if bar.dots:
        if bar.spread:
            axes.plot(bar.spread, [at, at], color=bar.colour, linewidth=2.2, alpha=0.6, solid_capstyle="butt")
        numbers = [number for number, _ in bar.dots]
        axes.plot(numbers, [at] * len(numbers), color=bar.colour, linewidth=1, gid=bar.gid)
        for number, marker in bar.dots:
            axes.plot(number, at, marker=marker, color=bar.colour, markersize=5)
        titles[bar.gid] = bar.title
    for part in bar.parts:
        mark = Rectangle(
            (begin, at - _BAR / 2),
            part.width,
            _BAR,
            facecolor=part.colour,
            hatch=HATCHES[part.hatch % len(HATCHES)],
            edgecolor=palette.GROUND if part.hatch or len(bar.parts) > 1 else "none",
            linewidth=0.5 if len(bar.parts) > 1 else 0,
        )
        mark.set_gid(part.gid)
        axes.add_patch(mark)
        titles[part.gid] = part.said
        begin += part.width
    if bar.parts:
        axes.update_datalim([(0, at), (max(begin, bar.spread[1] if bar.spread else 0), at)])
    if bar.parts and bar.spread and bar.spread[1] > bar.spread[0]:
        low, high = bar.spread
        for colour, width in ((palette.GROUND, 2.6), (palette.INK, 0.9)):  # to be seen on its bar as well
            axes.plot([low, low, low, high, high, high], _capped(at), color=colour, linewidth=width)
    return titles


def _capped(at: float) -> list[float]:
    half = _BAR * 0.45
    return [at - half, at + half, at, at, at - half, at + half]


def axes_of_lines(
    title: str, across: str, up: str, width: float = PANEL_INCHES, height: float = 3.0
) -> tuple[Any, Any]:
    """Make an empty panel for lines. Args: across, up: what the axes are, with their units."""
    shown, top = _title(title)
    figure, axes = style.panel(width, height + top - _TOP, _LEFT, _RIGHT, top, 0.45)
    axes.set(xlabel=across, ylabel=up)
    across_inches = width - _LEFT - _RIGHT
    axes.yaxis.set_label_coords((0.2 - _LEFT) / across_inches, 0.5)
    axes.set_title(shown, pad=5, x=(0.06 - _LEFT) / across_inches)
    return figure, axes


def swept(
    name: str,
    title: str,
    unit: str,
    grid: Grid,
    value: Callable[[Row], float | None],
    spread: Callable[[Row], Spread | tuple[float, float] | None] = lambda _row: None,
    lines: Sequence[tuple[str, Callable[[Row], float | None]]] = (),
    limits: Limits | None = None,
) -> Panel:
    """Draw one line for each design, or what else tells rows apart, over the number that is swept.

    Args: value: of a row.  spread: its whisker.  lines: further values of the same rows, drawn thinner, and what
        each is called.  limits: of the upright axis; None = logarithmic.
    """

    def draw() -> tuple[Any, dict[str, str]]:
        return _swept(name, title, unit, grid, value, spread, lines, limits)

    return Panel(name, f"{title}: {unit} over {grid.sweep}" if title else f"{unit} over {grid.sweep}", draw)


def _swept(
    name: str,
    title: str,
    unit: str,
    grid: Grid,
    value: Callable[[Row], float | None],
    spread: Callable[[Row], Spread | tuple[float, float] | None],
    lines: Sequence[tuple[str, Callable[[Row], float | None]]],
    limits: Limits | None,
) -> tuple[Any, dict[str, str]]:
    figure, axes = axes_of_lines(title, grid.sweep.rpartition(".")[2], unit)
    if limits is None:
        axes.set_yscale("log")
    titles: dict[str, str] = {}
    places = [grid.value(row) for row in grid.rows]
    step = _ASIDE * (max(places) - min(places))
    for at, (label, rows) in enumerate(grid.lines.items()):
        look, aside = rows[0], step * (at - (len(grid.lines) - 1) / 2)
        for part, (of, each) in enumerate([("", value), *lines]):
            points = [(grid.value(row), number) for row in rows if (number := each(row)) is not None]
            if not points:
                continue
            gid = f"{name}-{look.colour}-{look.dash}{f'-{of}' if of else ''}"
            axes.plot(
                *zip(*points, strict=True),
                color=style.colour(look.colour),
                linestyle=style.dash(look.dash),
                linewidth=0.8 if part else 1.5,
                marker=MARKERS[look.dash % len(MARKERS)],
                markersize=2.5 if part else 4,
                gid=gid,
            )
            shown = ", ".join(f"{x:g}: {y:.5g}" for x, y in points)
            titles[gid] = f"{label}{f', {of}' if of else ''}; {unit} at {shown}"
        bars = [
            (grid.value(row) + aside, *((found.low, found.high) if isinstance(found, Spread) else found))
            for row in rows
            if (found := spread(row)) is not None
        ]
        if bars:
            axes.vlines(*zip(*bars, strict=True), color=style.colour(look.colour), linewidth=0.9)
    if limits is None:
        nanosecond_ticks(axes.yaxis)
    else:
        axes.set_ylim(*limits)
    return figure, titles


def swept_entries(grid: Grid) -> list[Entry]:
    """Name the lines over the number that is swept; rows have their names beside them."""
    if not grid.sweep:
        return []
    looks = {label: rows[0] for label, rows in grid.lines.items()}
    return [Entry(label, palette.series(row.colour), row.dash, row.dash) for label, row in looks.items()]


def facet_entries(facets: Sequence[Facet]) -> list[Entry]:
    """Name the lines of panels, each once."""
    lines = {line.name: line for facet in facets for line in facet.lines}
    return [Entry(name, palette.series(line.colour), line.dash, line.dash) for name, line in lines.items()]


def nanosecond_ticks(axis: Any) -> None:
    """Label a logarithmic axis of times: powers of ten, and what is between where there are few of them.

    matplotlib's own search for ticks takes as long as all the rest of a figure.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = axis.get_view_interval()
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1,) if last - first > 3 else (1, 2, 5)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda tick, _: _time(tick)))


def _time(ns: float) -> str:
    unit, scale = next((name, scale) for name, scale in _UNITS if ns >= scale * 0.999 or scale == 1)
    return f"{ns / scale:g} {unit}"
