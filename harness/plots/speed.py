# SPDX-License-Identifier: MIT
"""Figures of a run's course: ops a second of each cell and over time, and memory over time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from harness import units
from harness.plots import palette, style
from harness.plots.drawing import MARKERS, Drawing, Numbers, Panel
from harness.plots.grid import Facet, Grid, Row
from harness.plots.panels import Bar, Part, axes_of_lines, facet_entries, rows_of_bars, swept, swept_entries
from harness.plots.spread import rates, said
from harness.plots.spread import throughput as spread_of
from shmalloc.units import format_bytes

__all__ = ["memory", "over_time", "throughput"]

_MOST_PANELS = 12
_STEPS = 60  # of a line over time
_MIB = 1 << 20
_MARKED = 6  # markers on a line over time

Point = tuple[float, float]


def throughput(grid: Grid) -> Drawing | None:
    """Draw ops a second."""
    if not any(_speed(row) for row in grid.rows):
        return None
    spreads = {row.label: spread_of(row) for row in grid.rows}
    unit = "ops per second, all CPUs (millions)"

    def whisker(row: Row) -> tuple[float, float] | None:
        found = spreads[row.label]
        return (found.low / 1e6, found.high / 1e6) if found else None

    def bar(row: Row) -> Bar | None:
        if not _speed(row):
            return None
        found = spreads[row.label]
        between = f" ({found.text(units.count)})" if found else ""
        text = f"{units.count(_speed(row))}{between}, {units.count(row.cell.get('ops', 0))} ops"
        gid = f"throughput-{grid.rows.index(row)}"
        part = Part(_speed(row) / 1e6, palette.series(row.colour), gid, f"{row.label}: {text}")
        return Bar([part], text, whisker(row))

    panel = (
        swept("throughput", "", unit, grid, lambda row: _speed(row) / 1e6, whisker, limits=(0, None))
        if grid.sweep
        else rows_of_bars("throughput", "", unit, grid.shown, bar)
    )
    over = said(spreads.values())
    return Drawing(
        "throughput",
        "Throughput",
        [
            "Allocations and frees a second of all CPUs together, over the whole run; beside it how many there were.",
            f"Whiskers: {over}." if over else "No spread is known.",
            grid.cut,
        ],
        [panel],
        swept_entries(grid),
        _throughput_table(grid),
    )


def _speed(row: Row) -> float:
    return float(row.cell.get("throughput_ops_s") or 0)


def _throughput_table(grid: Grid) -> Numbers:
    rows = []
    for row in grid.rows:
        spread = spread_of(row)
        cell = row.cell
        rows.append(
            [
                row.label,
                f"{cell.get('cpus', '-')}",
                f"{cell.get('ops', 0):,}",
                f"{cell.get('seconds', 0):.3f}",
                f"{cell['processor_s']:.3f}" if "processor_s" in cell else "-",
                f"{_speed(row):,.0f}",
                spread.text(lambda value: f"{value:,.0f}") if spread else "-",
                f"{spread.number} {spread.what}" if spread else "-",
            ]
        )
    head = ("cell", "CPUs", "ops", "seconds", "processor s", "ops/s", "least to most", "of")
    return Numbers(head, rows)


def over_time(grid: Grid) -> Drawing | None:
    """Draw ops a second over time, one line for each cell."""
    lines = {row.label: [(t, rate / 1e6) for t, rate in rates(row.samples, _STEPS)] for row in grid.rows}
    if not any(len(line) > 1 for line in lines.values()):
        return None
    steps = [len(line) for line in lines.values() if len(line) > 1]
    return _course(
        grid,
        "throughput-over-time",
        "Throughput over time",
        "ops per second (millions)",
        lines,
        [
            f"Ops of all CPUs a second, between two looks of the parent: {_span(steps)} steps a line.",
            "The table has least, median and most of them.",
        ],
    )


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def memory(grid: Grid) -> Drawing | None:
    """Draw memory in use over time, one line for each cell."""
    lines = {
        row.label: [(sample.t_s, sample.used_bytes / _MIB) for sample in row.samples] for row in grid.rows
    }
    taken = [len(line) for line in lines.values() if len(line) > 1]
    if not taken:
        return None
    periods = sorted(
        {row.cell["memory"].get("sample_period_s", 0.0) for row in grid.rows if len(row.samples) > 1}
    )
    every = ", ".join(f"{period * 1e3:.0f}" for period in periods)
    drawn = _course(
        grid,
        "memory",
        "Memory held over time",
        "memory in use (MiB)",
        lines,
        [
            "Pages on neither buddy nor pcp lists, as MiB: slabs, pools and what waits to be freed included.",
            f"{_span(taken)} samples a line, one every {every} ms; a peak between two is not seen.",
        ],
    )
    return (
        Drawing(drawn.name, drawn.title, drawn.said, drawn.panels, drawn.legend, _memory_table(grid))
        if drawn
        else None
    )


def _memory_table(grid: Grid) -> Numbers:
    rows = []
    for row in grid.rows:
        used = sorted(sample.used_bytes for sample in row.samples)
        found = row.cell["memory"]
        known = [used[0], used[len(used) // 2], used[-1]] if used else [None] * 3
        kept = [found.get(key) for key in ("peak_bytes", "live_bytes", "arena_bytes")]
        texts = ["-" if value is None else format_bytes(value) for value in (*known, *kept)]
        rows.append([row.label, f"{len(used):,}", *texts])
    head = ("cell", "samples", "least", "median", "most", "peak", "live at the end", "arena")
    return Numbers(head, rows)


def _course(
    grid: Grid, name: str, title: str, unit: str, points: dict[str, list[Point]], sentences: list[str]
) -> Drawing | None:
    """Draw a line over time for each cell, those that belong together in one panel."""
    facets = [
        Facet(facet.title, lines)
        for facet in grid.facets
        if (lines := [line for line in facet.lines if len(points[line.row.label]) > 1])
    ]
    most = max(y for line in points.values() for _, y in line)
    shown = facets[:_MOST_PANELS]
    panels = [
        Panel(
            f"{name}-{at}",
            f"{facet.title}: {unit}" if facet.title else unit,
            partial(_lines, f"{name}-{at}", facet, unit, points, most),
        )
        for at, facet in enumerate(shown)
    ]
    left_out = f"The first {len(shown)} of {len(facets)} panels." if len(shown) < len(facets) else ""
    table = [
        [
            row.label,
            f"{len(found):,}",
            f"{found[0]:,.3f}",
            f"{found[len(found) // 2]:,.3f}",
            f"{found[-1]:,.3f}",
        ]
        for row in grid.rows
        if (found := sorted(y for _, y in points[row.label]))
    ]
    numbers = Numbers(("cell", "steps", "least", "median", f"most, {unit}"), table)
    return Drawing(name, title, [*sentences, left_out], panels, facet_entries(shown), numbers)


def _lines(
    name: str, facet: Facet, unit: str, points: dict[str, list[Point]], most: float
) -> tuple[Any, dict[str, str]]:
    figure, axes = axes_of_lines(facet.title, "time (s)", unit, height=2.6)
    titles = {}
    for at, line in enumerate(facet.lines):
        found, gid = points[line.row.label], f"{name}-{at}"
        axes.plot(
            *zip(*found, strict=True),
            color=style.colour(line.colour),
            linestyle=style.dash(line.dash),
            linewidth=1.2,
            marker=MARKERS[line.dash % len(MARKERS)],
            markersize=4,
            markevery=(at * len(found) // (_MARKED * len(facet.lines)), max(1, len(found) // _MARKED)),
            gid=gid,
        )
        values = sorted(y for _, y in found)
        middle = values[len(values) // 2]
        titles[gid] = f"{line.row.label}: {values[0]:.4g} to {values[-1]:.4g}, median {middle:.4g}; {unit}"
    axes.set(xlim=(0, None), ylim=(0, most * 1.05 or 1))
    return figure, titles
