# SPDX-License-Identifier: MIT
"""Figures of shares: requests served, why others failed, and what interrupts came upon."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from harness import units
from harness.compare import percent
from harness.plots import palette
from harness.plots.drawing import HATCHES, Drawing, Entry, Numbers, Panel
from harness.plots.grid import MOST_ROWS, Grid, Row, asked
from harness.plots.panels import Bar, Part, rows_of_bars, swept, swept_entries
from harness.plots.spread import Spread, over_time, said, wilson
from harness.vocabulary import KINDS

__all__ = ["failures", "interrupts", "success"]

_REASON_COLOURS = (0, 1, 2, 3, 4, 5, 7)  # of the series: a black bar says more than it should
Spreads = Mapping[tuple[str, str], Spread | None]  # by label and context

_WILSON = "95 % interval of a share by Wilson, as if requests had nothing to do with each other"


def success(grid: Grid) -> Drawing | None:
    """Draw the share of requests that were served, by context."""
    spreads = {
        (row.label, context): over_time(row, partial(_served, context=context))
        for row in grid.rows
        for context in grid.contexts
    }
    over = said(spreads.values())
    return Drawing(
        "success",
        "Requests that were served, by context",
        [
            "Share of all requests of a context that did not get NULL, %; beside it how many there were.",
            f"Whiskers: {over}." if over else f"Whiskers: {_WILSON}.",
            grid.handlers,
            grid.cut,
        ],
        [_success_panel(grid, context, spreads) for context in grid.contexts],
        swept_entries(grid),
        _success_table(grid, spreads),
    )


def _success_panel(grid: Grid, context: str, spreads: Spreads) -> Panel:
    name, unit = f"success-{context}", "requests served (%)"

    def share(row: Row) -> float | None:
        return _served(row.cell, context)

    def whisker(row: Row) -> tuple[float, float] | None:
        found = spreads[row.label, context]
        if found is not None:
            return found.low, found.high
        served, number = _counts(row, context)
        low, high = wilson(served, number)
        return (100 * low, 100 * high) if number else None

    def bar(row: Row) -> Bar | None:
        served, number = _counts(row, context)
        if not number:
            return None
        note = row.handler_note(context)
        text = f"{percent(served / number)} of {units.count(number)}"
        title, gid = (
            f"{row.label}, {context}{f' {note}' if note else ''}: {text}",
            f"{name}-{grid.rows.index(row)}",
        )
        part = Part(100 * served / number, palette.series(row.colour), gid, title)
        return Bar([part], text, whisker(row))

    if grid.sweep:
        least = min((low for row in grid.rows if (low := share(row)) is not None), default=0.0)
        bottom = next(each for each in (90, 50, 0) if each < least or not each)
        return swept(name, context, unit, grid, share, whisker, limits=(bottom, 100 + 0.03 * (100 - bottom)))
    return rows_of_bars(name, context, unit, grid.shown, bar, (0, 100))


def _success_table(grid: Grid, spreads: Spreads) -> Numbers:
    rows = []
    for row in grid.rows:
        for context in grid.contexts:
            served, number = _counts(row, context)
            if number:
                low, high = wilson(served, number)
                spread = spreads[row.label, context]
                rows.append(
                    [
                        row.label,
                        context,
                        row.handler_note(context).removeprefix("by ") or row.design,
                        f"{number:,}",
                        f"{served:,}",
                        f"{number - served:,}",
                        percent(served / number),
                        f"{percent(low)} to {percent(high)}",
                        spread.text(lambda value: percent(value / 100)) if spread else "-",
                        f"{spread.number} {spread.what}" if spread else "-",
                    ]
                )
    head = (
        "cell",
        "context",
        "design",
        "requests",
        "served",
        "failed",
        "share",
        "95 % (Wilson)",
        "least to most",
        "of",
    )
    return Numbers(head, rows, left=3)


def _counts(row: Row, context: str) -> tuple[int, int]:
    found = asked(row.context(context))
    return found.served, found.number


def _served(each: Mapping[str, Any], context: str) -> float | None:
    found = asked(each.get("contexts", {}).get(context, {})).success
    return None if found is None else 100 * found


def failures(grid: Grid) -> Drawing | None:
    """Draw why requests failed, as shares of all requests of a cell."""
    rows = [row for row in grid.rows if asked(row.cell).failed]
    if not rows:
        return None
    every = list(dict.fromkeys(reason for row in rows for reason in row.cell["failures"]))
    reasons = [reason for reason in every if any(row.cell["failures"].get(reason) for row in rows)]
    looks = {reason: _look(every.index(reason)) for reason in reasons}

    def bar(row: Row) -> Bar:
        found, number = row.cell["failures"], asked(row.cell).number
        parts = [
            Part(
                100 * found[reason] / number,
                looks[reason][0],
                f"failures-{every.index(reason)}-{grid.rows.index(row)}",
                f"{row.label}, {reason}: {found[reason]:,} of {number:,} requests",
                looks[reason][1],
            )
            for reason in reasons
            if found.get(reason)
        ]
        failed = asked(row.cell).failed
        return Bar(parts, f"{units.count(failed)} of {units.count(number)} ({percent(failed / number)})")

    shown = [row for row in grid.shown if row in rows] or rows[:MOST_ROWS]
    left_out = (
        f"{len(shown)} of {len(rows)} cells; the table has all of them." if len(rows) > len(shown) else ""
    )
    unit = "requests that failed (% of the cell's)"
    return Drawing(
        "failures",
        "Why requests failed",
        [
            "Requests that got NULL, by reason, in % of all requests of the cell; both numbers stand beside the bar.",
            f"{len(grid.rows) - len(rows)} of {len(grid.rows)} cells had none."
            if len(rows) < len(grid.rows)
            else "",
            left_out,
            "How failures spread over time is in the figure of served requests.",
        ],
        [rows_of_bars("failures", "all contexts", unit, shown, bar)],
        [Entry(reason, colour, hatch=hatch) for reason, (colour, hatch) in looks.items()],
        _failures_table(grid, reasons),
    )


def _look(number: int) -> tuple[str, int]:
    """Return colour and hatch of a reason. Args: number: its place among all."""
    colour = _REASON_COLOURS[number % len(_REASON_COLOURS)]
    return palette.series(colour), number // len(_REASON_COLOURS) % len(HATCHES)


def _failures_table(grid: Grid, reasons: list[str]) -> Numbers:
    rows = []
    for row in grid.rows:
        for context in grid.contexts:
            found = row.context(context).get("failures", {})
            number = asked(row.context(context)).number
            for reason in reasons:
                if failed := found.get(reason, 0):
                    share = percent(failed / number)
                    rows.append([row.label, context, reason, f"{failed:,}", f"{number:,}", share])
    return Numbers(("cell", "context", "reason", "failed", "of requests", "share"), rows, left=3)


def interrupts(grid: Grid) -> Drawing | None:
    """Draw what interrupts came upon."""
    kinds = [kind for kind in KINDS if any(_handled(row, kind) for row in grid.rows)]
    if not kinds:
        return None
    looks = {"in its slow path": (1, 0), "elsewhere in the allocator": (3, 1), "outside of it": (2, 0)}

    def bar(row: Row, kind: str) -> Bar | None:
        found = row.cell["interrupts"].get(kind, {})
        handled = found.get("handled", 0)
        if not handled:
            return None
        slow, inside = found.get("in_slow_path", 0), found.get("in_allocator", 0)
        counts = (slow, max(0, inside - slow), handled - inside)
        parts = [
            Part(
                100 * count / handled,
                palette.series(colour),
                f"interrupts-{kind}-{at}-{grid.rows.index(row)}",
                f"{row.label}, {kind.upper()} {where}: {count:,} of {handled:,} handled",
                hatch,
            )
            for at, ((where, (colour, hatch)), count) in enumerate(zip(looks.items(), counts, strict=True))
            if count
        ]
        sent = found.get("sent", handled)
        lost = f", {units.count(sent)} sent" if sent != handled else ""
        shares = f"{percent(inside / handled)} / {percent(slow / handled)}"
        return Bar(parts, f"{shares} of {units.count(handled)}{lost}")

    unit = "interrupts (% of those handled)"
    panels = [
        rows_of_bars(f"interrupts-{kind}", kind.upper(), unit, grid.shown, partial(bar, kind=kind), (0, 100))
        for kind in kinds
    ]
    return Drawing(
        "interrupts",
        "What interrupts came upon",
        [
            "Handlers by what they had interrupted, % of those handled; beside a bar: in the allocator / in its slow "
            "path, of how many. Signals that were still pending when another came are one interrupt.",
            "Rate and 95 % intervals are in the table.",
            grid.cut,
        ],
        panels,
        [Entry(where, palette.series(colour), hatch=hatch) for where, (colour, hatch) in looks.items()],
        _interrupts_table(grid, kinds),
    )


def _handled(row: Row, kind: str) -> int:
    return int(row.cell.get("interrupts", {}).get(kind, {}).get("handled", 0))


def _interrupts_table(grid: Grid, kinds: list[str]) -> Numbers:
    counted = ("sent", "handled", "in_allocator", "in_slow_path", "masked", "nested")
    rows = []
    for row in grid.rows:
        for kind in kinds:
            found = row.cell.get("interrupts", {}).get(kind, {})
            handled = found.get("handled", 0)
            if not handled:
                continue
            seconds = row.cell.get("seconds") or 0
            low, high = wilson(found.get("in_slow_path", 0), handled)
            spread = over_time(row, partial(_rate, kind=kind))
            rows.append(
                [
                    row.label,
                    kind.upper(),
                    *(f"{found.get(name, 0):,}" for name in counted),
                    f"{percent(low)} to {percent(high)}",
                    f"{handled / seconds:,.0f}" if seconds else "-",
                    spread.text(lambda value: f"{value:,.0f}") if spread else "-",
                    f"{spread.number} {spread.what}" if spread else "-",
                ]
            )
    names = ("sent", "handled", "in allocator", "in slow path", "masked", "nested")
    head = ("cell", "kind", *names, "in slow path, 95 % (Wilson)", "handled a second", "least to most", "of")
    return Numbers(head, rows, left=2)


def _rate(each: Mapping[str, Any], kind: str) -> float | None:
    count, seconds = each.get("interrupts", {}).get(kind), each.get("seconds")
    if isinstance(count, Mapping):  # of a repeat
        count = count.get("handled")
    return count / seconds if count is not None and seconds else None
