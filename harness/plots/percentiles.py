# SPDX-License-Identifier: MIT
"""Figures of latency: the whole percentile curve of each cell, and a few percentiles of all cells at a glance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from harness import units
from harness.plots import palette, style
from harness.plots.drawing import MARKERS, Drawing, Entry, Numbers, Panel
from harness.plots.grid import Facet, Grid, Line, Row
from harness.plots.panels import (
    Bar,
    axes_of_lines,
    facet_entries,
    nanosecond_ticks,
    rows_of_bars,
    swept,
    swept_entries,
)
from harness.plots.spread import Spread, over_time, quantile_bounds, said

__all__ = ["curves", "overview"]

_MOST_PANELS = 24
_NAMES = {"p50": "p50", "p99": "p99", "p999": "p99.9"}
_SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
_SIGNS = {"p50": "o", "p99": "s", "p999": "^"}
_TICKS = {0.0: "0", 0.5: "50", 0.9: "90", 0.99: "99", 0.999: "99.9", 0.9999: "99.99", 0.99999: "99.999"}
_MARKED = (0.5, 0.99, 0.999)
_IN_TABLE = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)
_IS_CLOSE = 1e-9

Array = np.ndarray[Any, np.dtype[np.float64]]


def curves(grid: Grid) -> Drawing | None:
    """Draw the latency of allocations over the percentile, by context."""
    facets = [
        (context, facet, lines)
        for context in _timed(grid)
        for facet in grid.facets
        if (lines := [line for line in facet.lines if len(_curve(line.row, context)) > 1])
    ]
    if not facets:
        return None
    shown = facets[:_MOST_PANELS]
    panels = []
    for at, (context, facet, lines) in enumerate(shown):
        label = f"{context}, {facet.title}" if facet.title else context
        draw = partial(_curves, f"percentiles-{at}", label, context, lines)
        panels.append(Panel(f"percentiles-{at}", f"{label}: latency over percentile", draw))
    spreads = [
        _window(line.row, context, key)
        for context, _, lines in shown
        for line in lines
        for key in ("p50", "p99")
    ]
    over = said(spreads)
    whole = [_is_whole(line.row, context) for context, _, lines in shown for line in lines]
    return Drawing(
        "percentiles",
        "Latency of allocations: percentile curves",
        [
            "At each percentile of the allocations that were timed, what they took at most, ns; both axes logarithmic, "
            "the lower one in the share that took longer. Interrupts that came in between are included. A curve ends "
            "at the longest one, so its length shows how many were timed; the table has the numbers.",
            "Bands: 95 % intervals from the ranks (binomial, as if ops had nothing to do with each other)."
            if any(whole)
            else "",
            f"Upright bars at p50 and p99: {over}." if over else "",
            ""
            if all(whole)
            else "Curves through p50, p99, p99.9 and the longest only: the result is older than whole ones.",
            f"The first {len(shown)} of {len(facets)} panels." if len(shown) < len(facets) else "",
            grid.handlers,
        ],
        panels,
        facet_entries([Facet(facet.title, lines) for _, facet, lines in shown]),
        _table(grid),
    )


def _timed(grid: Grid) -> list[str]:
    return [name for name in grid.contexts if any(_curve(row, name) for row in grid.rows)]


def _percentiles(row: Row, context: str) -> Mapping[str, float | None]:
    found: Mapping[str, float | None] = row.context(context).get("latency_ns", {})
    return found


def _is_whole(row: Row, context: str) -> bool:
    return bool(row.context(context).get("latency_curve"))


def _curve(row: Row, context: str) -> list[tuple[float, float]]:
    """Return a cell's curve; of an old result what there is of it."""
    whole = row.context(context).get("latency_curve")
    if whole:
        return [(share, ns) for share, ns in whole]
    found = _percentiles(row, context)
    known = [(share, found.get(key)) for key, share in (*_SHARES.items(), ("max", 1.0))]
    return [(share, ns) for share, ns in known if ns is not None]


def _at(share: float, timed: int) -> float:
    """Place a share on the axis: decades of the rest; the longest of n where half an n-th is left."""
    return -math.log10(max(1 - share, 0.5 / timed))


def _curves(name: str, label: str, context: str, lines: Sequence[Line]) -> tuple[Any, dict[str, str]]:
    figure, axes = axes_of_lines(label, "percentile of those timed (%)", "latency", height=3.1)
    axes.set_yscale("log")
    titles, longest = {}, 1.0
    for at, line in enumerate(lines):
        curve, timed = _curve(line.row, context), max(1, int(line.row.context(context).get("timed", 0)))
        xs = np.array([_at(share, timed) for share, _ in curve])
        ns = np.array([max(value, 0.1) for _, value in curve])
        longest = max(longest, float(xs[-1]))
        colour, gid = style.colour(line.colour), f"{name}-{at}"
        if _is_whole(line.row, context):
            low, high = _band(curve, xs, ns, timed)
            axes.fill_between(xs, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(xs, ns, color=colour, linestyle=style.dash(line.dash), linewidth=1.4, gid=gid)
        marked = [n for n, (share, _) in enumerate(curve) if share in _MARKED or n == len(curve) - 1]
        axes.plot(
            xs[marked],
            ns[marked],
            color=colour,
            linestyle="none",
            marker=MARKERS[line.dash % len(MARKERS)],
            markersize=4,
        )
        for key in ("p50", "p99"):
            spread = _window(line.row, context, key)
            if spread is not None:
                x = _at(_SHARES[key], timed) + 0.03 * (at - (len(lines) - 1) / 2)
                axes.plot([x, x], [spread.low, spread.high], color=colour, linewidth=2.4, alpha=0.7)
        titles[gid] = _said(line.row, context, timed)
    axes.set_xlim(0, longest + 0.12)
    ticks = {_at(share, 10**9): text for share, text in _TICKS.items() if _at(share, 10**9) <= longest + 0.1}
    axes.set_xticks(list(ticks), list(ticks.values()))
    nanosecond_ticks(axes.yaxis)
    return figure, titles


def _band(curve: Sequence[tuple[float, float]], xs: Array, ns: Array, timed: int) -> tuple[Array, Array]:
    """Return between which times each percentile lies."""
    bounds = [quantile_bounds(share, timed) for share, _ in curve]
    low = np.interp([_at(a, timed) for a, _ in bounds], xs, np.log(ns))
    high = np.interp([_at(b, timed) for _, b in bounds], xs, np.log(ns))
    return np.exp(low), np.exp(high)


def _window(row: Row, context: str, key: str) -> Any:
    return over_time(
        row, lambda each: each.get("contexts", {}).get(context, {}).get("latency_ns", {}).get(key)
    )


def _said(row: Row, context: str, timed: int) -> str:
    found = _percentiles(row, context)
    times = ", ".join(
        f"{_NAMES.get(key, key)} {units.nanoseconds(ns)}" for key, ns in found.items() if ns is not None
    )
    note = row.handler_note(context)
    return (
        f"{row.label} in {context}{f' {note}' if note else ''}: {times}; {timed:,} timed (ns where no unit)"
    )


def _table(grid: Grid) -> Numbers:
    rows = []
    for row in grid.rows:
        for context in _timed(grid):
            curve, timed = _curve(row, context), int(row.context(context).get("timed", 0))
            if not curve or not timed:
                continue
            shares, ns = np.array([share for share, _ in curve]), np.array([value for _, value in curve])
            cells = [_known(float(share), shares, ns, timed) for share in _IN_TABLE]
            spreads = [_window(row, context, key) for key in ("p50", "p99")]
            texts = [spread.text(units.nanoseconds) if spread else "-" for spread in spreads]
            rows.append([row.label, context, f"{timed:,}", *cells, *texts])
    names = ["shortest", "p50", "p90", "p99", "p99.9", "p99.99", "longest"]
    head = (
        "cell",
        "context",
        "timed",
        *(f"{name}, ns" for name in names),
        "p50, least to most",
        "p99, least to most",
    )
    return Numbers(head, rows, left=2)


def _known(share: float, shares: Array, ns: Array, timed: int) -> str:
    """Write a percentile with its 95 % interval, if the curve has it."""
    at = np.flatnonzero(abs(shares - share) < _IS_CLOSE)
    if not len(at):
        return "-"
    if share in (0.0, 1.0):
        return f"{ns[at[0]]:,.0f}"
    if len(shares) <= len(_SHARES) + 1:
        return f"{ns[at[0]]:,.0f}"  # too few for an interval
    low, high = np.interp(quantile_bounds(share, timed), shares, ns)
    return f"{ns[at[0]]:,.0f} ({low:,.0f} to {high:,.0f})"


def overview(grid: Grid) -> Drawing | None:
    """Draw median and tail of every cell, by context; one cell's are in its curve."""
    contexts = _timed(grid)
    if not contexts or (grid.is_single and any(_is_whole(grid.rows[0], context) for context in contexts)):
        return None
    over = (
        said(_window(row, context, "p50") for row in grid.rows for context in contexts) if grid.sweep else ""
    )
    marks = [Entry(_NAMES[key], marker=MARKERS.index(sign)) for key, sign in _SIGNS.items()]
    beside = "" if grid.sweep else " Beside them p50 / p99 in ns, of how many."
    return Drawing(
        "latency",
        "Latency of allocations at a glance",
        [
            f"Median and tail of the allocations that were timed, ns, logarithmic, interrupts included.{beside}",
            f"Whiskers of p50: {over}." if over else "Spread and numbers are with the percentile curves.",
            grid.handlers,
            grid.cut,
        ],
        [_overview_panel(grid, context) for context in contexts],
        swept_entries(grid) or marks,
    )


def _overview_panel(grid: Grid, context: str) -> Panel:
    name = f"latency-{context}"

    def dots(row: Row) -> Bar | None:
        return _dots(row, context, grid.rows.index(row))

    def percentile(key: str) -> Callable[[Row], float | None]:
        return lambda row: _percentiles(row, context).get(key)

    def whisker(row: Row) -> Spread | None:
        found: Spread | None = _window(row, context, "p50")
        return found

    if grid.sweep:
        tail = [("p99", percentile("p99"))]
        return swept(name, context, "p50, and p99 (thin)", grid, percentile("p50"), whisker, tail)
    return rows_of_bars(name, context, "p50, p99, p99.9", grid.shown, dots, (None, None), log=True)


def _dots(row: Row, context: str, number: int) -> Bar | None:
    found = _percentiles(row, context)
    points = [(ns, sign) for key, sign in _SIGNS.items() if (ns := found.get(key)) is not None]
    if not points:
        return None
    timed = int(row.context(context).get("timed", 0))
    times = " / ".join(units.nanoseconds(found.get(key)) for key in ("p50", "p99"))
    text = f"{times} of {units.count(timed)}"
    title = _said(row, context, timed)
    return Bar([], text, None, points, palette.series(row.colour), f"latency-{context}-{number}", title)
