# SPDX-License-Identifier: MIT
"""The figures themselves, one function for each; of nothing they make nothing.

Cells are rows, contexts columns.  Where one number is swept there are lines over it instead.  Each artist
that carries data has a gid, ``KIND:ROW`` or ``KIND:DESIGN``, by which it is found in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness import units
from harness.compare import percent, requests
from harness.memory import Sample
from harness.plots import style
from harness.plots.grid import MOST_ROWS, Cell, Grid, Row
from harness.plots.panels import (
    MARGIN_INCHES,
    ROW_INCHES,
    lines,
    name_axes,
    row_labels,
    say,
    scale,
    side_by_side,
    ticks,
    values,
)
from shmalloc.units import format_bytes

__all__ = ["failures", "latency", "memory", "success", "throughput"]

_MEMORY_PANELS, _MEMORY_COLUMNS = 9, 3
_MIB = 1 << 20
_MARKERS = {"p50": "o", "p99": "s", "p999": "^"}
_NAMES = {"p50": "p50", "p99": "p99", "p999": "p99.9"}


def success(grid: Grid) -> Any:
    """Draw the share of requests that were served, by context."""
    if grid.is_single:
        return None
    figure, panels = side_by_side(grid, grid.contexts)
    for axes, context in zip(panels, grid.contexts, strict=True):

        def share(cell: Cell, context: str = context) -> float | None:
            found = requests(cell["contexts"][context]).success
            return None if found is None else found * 100

        def said(row: Row, context: str = context) -> str:
            asked = requests(row.cell["contexts"][context])
            note = row.handler_note(context)
            return f"{percent(asked.success)} of {units.count(asked.number)}{f' {note}' if note else ''}"

        values(axes, grid, f"success-{context}", share, said)
        scale(axes, grid, (0, 104 if grid.sweep else 165))
        ticks(axes, grid, [0, 25, 50, 75, 100])
        name_axes(axes, grid, context, "requests served (%)")
    style.title(figure, f"Requests that were served, by context{grid.cut}")
    return figure


def throughput(grid: Grid) -> Any:
    """Draw ops a second."""
    if grid.is_single or not any(row.cell["throughput_ops_s"] for row in grid.rows):
        return None
    figure, (axes,) = side_by_side(grid, ("all",), width=2.0)
    values(
        axes,
        grid,
        "throughput",
        lambda cell: cell["throughput_ops_s"] / 1e6,
        lambda row: f"{units.count(row.cell['throughput_ops_s'])}, {units.count(row.cell['ops'])} ops",
    )
    scale(axes, grid, (0, None))
    if not grid.sweep:
        axes.margins(x=0.3)
    name_axes(axes, grid, "", "ops per second, all CPUs (millions)")
    style.title(figure, f"Throughput{grid.cut}")
    return figure


def latency(grid: Grid) -> Any:
    """Draw what an allocation took, by context: median and tail."""
    contexts = [name for name in grid.contexts if any(_timed(row.cell, name) for row in grid.rows)]
    if not contexts:
        return None
    figure, panels = side_by_side(grid, contexts)
    for axes, context in zip(panels, contexts, strict=True):
        (_latency_lines if grid.sweep else _latency_rows)(axes, grid, context)
        timed = min(row.cell["contexts"][context]["timed"] for row in grid.rows)
        name = f"{context}, at least {units.count(timed)} timed each" if grid.sweep else context
        name_axes(axes, grid, name, "ns, logarithmic")
    figure.legend(handles=_percentile_legend(grid), loc="outside right upper")
    style.title(
        figure, f"Latency of allocations (p50 / p99 of how many timed), interrupts included{grid.cut}"
    )
    return figure


def failures(grid: Grid) -> Any:
    """Draw why requests failed, as shares of all requests of a cell."""
    rows = [row for row in grid.rows if requests(row.cell).failed][:MOST_ROWS]
    if not rows:
        return None
    figure, (axes,) = style.canvas(9, MARGIN_INCHES + 0.6 + ROW_INCHES * len(rows))
    reasons = list(rows[0].cell["failures"])
    ends = [0.0] * len(rows)
    for number, reason in enumerate(reasons):
        shares = [100 * row.cell["failures"][reason] / requests(row.cell).number for row in rows]
        if not any(shares):
            continue
        bars = axes.barh(range(len(rows)), shares, left=ends, label=reason, **style.reason_look(number))
        for row, bar in zip(rows, bars, strict=True):
            bar.set_gid(f"failures-{reason}:{row.label}")
        ends = [end + share for end, share in zip(ends, shares, strict=True)]
    for at, row in enumerate(rows):
        asked = requests(row.cell)
        say(axes, at, ends[at], f"{units.count(asked.failed)} of {units.count(asked.number)}")
    axes.margins(x=0.25)
    row_labels(axes, rows)
    axes.set_xlabel("requests that failed (% of the cell's)")
    figure.legend(loc="outside right upper", title="reason")
    style.title(figure, f"Why requests failed{grid.cut}")
    return figure


def memory(grid: Grid, samples: Mapping[str, Sequence[Sample]]) -> Any:
    """Draw memory in use over time, one line for each design."""
    groups = {
        name: [row for row in rows if len(samples.get(row.cell["id"], ())) > 1]
        for name, rows in grid.groups.items()
    }
    shown = [(name, rows) for name, rows in groups.items() if rows][:_MEMORY_PANELS]
    if not shown:
        return None
    columns = min(_MEMORY_COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    width, height = (11.0, 4.8) if len(shown) == 1 else (4.2 * columns, 3.0 * lines)
    figure, panels = style.canvas(width, height, rows=lines, columns=columns, sharey=True)
    for axes, (name, rows) in zip(panels, shown, strict=False):
        for row in rows:
            _memory_line(axes, row, samples[row.cell["id"]])
        axes.set(title=name, xlabel="time (s)", ylabel="memory in use (MiB)", xlim=(0, None), ylim=(0, None))
        if len(shown) > 1:
            axes.legend(loc="best")
    if len(shown) == 1:
        figure.legend(loc="outside right upper")
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    periods = sorted({row.cell["memory"]["sample_period_s"] for _, rows in shown for row in rows})
    taken = min(len(samples[row.cell["id"]]) for _, rows in shown for row in rows)
    every = ", ".join(f"{period * 1e3:.0f}" for period in periods)
    left_out = f" (first {len(shown)} of {len(groups)} panels)" if len(shown) < len(groups) else ""
    style.title(figure, f"Memory held over time: at least {taken} samples each, every {every} ms{left_out}")
    return figure


def _memory_line(axes: Any, row: Row, samples: Sequence[Sample]) -> None:
    used = [sample.used_bytes / _MIB for sample in samples]
    axes.plot(
        [sample.t_s for sample in samples],
        used,
        color=style.colour(row.colour),
        linestyle=style.dash(row.dash),
        linewidth=1.4,
        label=f"{row.design} (peak {format_bytes(row.cell['memory']['peak_bytes'])})",
        gid=f"memory:{row.label}",
    )


def _latency_rows(axes: Any, grid: Grid, context: str) -> None:
    """Draw median, p99 and p99.9 of each cell, joined."""
    for at, row in enumerate(grid.rows[:MOST_ROWS]):
        percentiles = row.cell["contexts"][context]["latency_ns"]
        points = [(percentiles[key], marker) for key, marker in _MARKERS.items()]
        known = [number for number, _ in points if number is not None]
        if not known:
            continue
        colour = style.colour(row.colour)
        axes.plot(known, [at] * len(known), color=colour, linewidth=1, gid=f"latency-{context}:{row.label}")
        for number, marker in points:
            if number is not None:
                axes.plot(number, at, marker=marker, color=colour, markersize=5)
        note = row.handler_note(context)
        timed = units.count(row.cell["contexts"][context]["timed"])
        said = f"{units.nanoseconds(known[0])} / {units.nanoseconds(known[1])} of {timed}{f' {note}' if note else ''}"
        say(axes, at, known[-1], said)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.6)  # room for the numbers at the ends
    row_labels(axes, grid.rows[:MOST_ROWS])


def _latency_lines(axes: Any, grid: Grid, context: str) -> None:
    """Draw median and p99 over the number that is swept."""
    axes.set_yscale("log")
    for key, line in (("p50", "-"), ("p99", ":")):
        lines(
            axes,
            grid,
            f"latency-{key}-{context}",
            lambda cell, key=key: cell["contexts"][context]["latency_ns"][key],  # type: ignore[misc]
            linestyle=line,
            marker=_MARKERS[key],
            label=None,
        )


def _percentile_legend(grid: Grid) -> list[Any]:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color="0.3", marker=marker, linestyle="none", label=_NAMES[key])
        for key, marker in _MARKERS.items()
        if not (grid.sweep and key == "p999")
    ]
    if not grid.sweep:
        return marks
    looks = {name: style.colour(rows[0].colour) for name, rows in grid.lines.items()}
    return marks + [Line2D([], [], color=colour, label=name) for name, colour in looks.items()]


def _timed(cell: Cell, context: str) -> bool:
    return cell["contexts"][context]["latency_ns"]["p50"] is not None
