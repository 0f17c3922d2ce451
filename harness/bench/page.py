# SPDX-License-Identifier: MIT
"""A bench's folder as a page: figures in the page's colours, with their numbers, and all of report.txt's tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.page import Markup, Section, document, element, join, table
from harness.plots import inline, palette
from harness.plots.drawing import MARKERS, Drawing, Entry, Numbers, Panel
from harness.plots.panels import Bar, axes_of_lines, rows_of_bars
from harness.writing import replace_text

__all__ = ["FILE", "drawings_of_bench", "drawings_of_growth", "html", "write"]

FILE = "report.html"
_KINDS = {"design": "designs", "floor": "floors", "peer": "peers"}
_SIGNS = {"design": "o", "floor": "^", "peer": "D"}

Result = Mapping[str, Any]
Record = Mapping[str, Any]


@dataclass(frozen=True)
class _Named:
    label: str
    record: Record


def write(folder: Path, name: str, parts: Iterable[Any], drawings: Sequence[Drawing], *, drawn: bool) -> Path:
    """Leave the page in the folder.

    Args: parts: of the report, for the terminal.  drawn: with figures, not their tables alone.
    Returns: the file.
    """
    path = folder / FILE
    replace_text(path, html(name, parts, drawings, drawn=drawn))
    return path


def html(name: str, parts: Iterable[Any], drawings: Sequence[Drawing], *, drawn: bool) -> str:
    """Make the page. Args: as for `write`."""
    headline, *rest = parts
    figures = join(inline.figure(drawing, drawn=drawn) for drawing in drawings)
    tables = join(_markup(part) for part in rest)
    sections = [
        *([Section("figures", "Figures", figures, inline.css())] if drawings else []),
        Section("tables", "Tables", tables),
    ]
    return document(name, join(element("h1", name), element("p", str(headline.plain))), sections)


def _markup(part: Any) -> Markup | None:
    """Make HTML of what the report has for the terminal: lines of text, and tables."""
    from rich.table import Table
    from rich.text import Text

    if isinstance(part, Text):
        return element("p", part.plain.strip()) if part.plain.strip() else None
    if not isinstance(part, Table):
        raise TypeError(f"a part of a report that is neither text nor table: {type(part).__name__}")
    head = [str(column.header) for column in part.columns]
    rows = [list(map(str, row)) for row in zip(*(column.cells for column in part.columns), strict=True)]
    left = 1 + sum(column.justify == "left" for column in part.columns[1:])
    return join(element("h3", str(part.title or "")), table(head, rows, left=left))


def drawings_of_bench(result: Result, designs: Sequence[str]) -> list[Drawing]:
    """Draw every row of a bench: each subject's median with its interval. Args: designs: places are colours."""
    rows: dict[str, list[Record]] = {}
    for record in result["rows"]:
        if record["ns_median"] is not None:
            rows.setdefault(record["row"], []).append(record)
    if not rows:
        return []
    machine = result["machine"]
    panels = [_bench_panel(row, records, designs) for row, records in rows.items()]
    head = ("row", "subject", "kind", "ns", "95 %", "samples", "of taken")
    lines = [
        [
            record["row"],
            record["subject"],
            record["kind"],
            f"{record['ns_median']:.2f}",
            _interval(record),
            f"{record['samples']}",
            f"{record['taken']}",
        ]
        for records in rows.values()
        for record in records
    ]
    said = [
        "Nanoseconds per allocation and free, logarithmic; fastest on top. Bands are 95 % intervals of the median over "
        "samples, on one core that was the bench's own; beside them median, interval and number of samples.",
        f"Core {machine['core']} of {machine['cpu_model'] or machine['architecture']}.",
    ]
    legend = [Entry(name, marker=MARKERS.index(_SIGNS[kind])) for kind, name in _KINDS.items()]
    return [Drawing("bench", "What each subject needs", said, panels, legend, Numbers(head, lines, left=3))]


def _interval(record: Record) -> str:
    low, high = record["ns_low"], record["ns_high"]
    return "-" if low is None else f"{low:.2f} to {high:.2f}"


def _bench_panel(row: str, records: Sequence[Record], designs: Sequence[str]) -> Panel:
    ordered = sorted(records, key=lambda record: float(record["ns_median"]))

    def bar(named: _Named) -> Bar:
        record = named.record
        said = f"{record['ns_median']:.4g} ({_interval(record).replace(' to ', '..')}), {record['samples']}"
        spread = None if record["ns_low"] is None else (record["ns_low"], record["ns_high"])
        return Bar(
            [],
            said,
            spread,
            [(record["ns_median"], _SIGNS[record["kind"]])],
            _colour(record, designs),
            f"bench-{row}-{ordered.index(record)}",
            f"{record['subject']} in {row}: {said} samples",
        )

    return rows_of_bars(
        f"bench-{row}",
        row,
        "ns",
        [_Named(each["subject"], each) for each in ordered],
        bar,
        (None, None),
        log=True,
    )


def _colour(record: Record, designs: Sequence[str]) -> str:
    if record["kind"] != "design" or record["subject"] not in designs:
        return palette.QUIET if record["kind"] == "floor" else palette.INK
    return palette.series(designs.index(record["subject"]))


def drawings_of_growth(result: Result) -> list[Drawing]:
    """Draw how cost grows: a figure for each axis, a panel for each unit."""
    from harness.bench.growth_report import shown_value

    return [_growth(axis, result, partial(shown_value, axis)) for axis in _axes(result)]


def _axes(result: Result) -> Iterator[str]:
    yield from dict.fromkeys(record["axis"] for record in result["growth"])


def _growth(axis: str, result: Result, shown: Callable[[int], str]) -> Drawing:
    records = [record for record in result["growth"] if record["axis"] == axis]
    names = list(dict.fromkeys(record["what"] for record in records))
    units = list(dict.fromkeys(record["unit"] for record in records))
    panels = []
    for at, unit in enumerate(units):
        mine = [record for record in records if record["unit"] == unit]
        draw = partial(_growth_panel, f"growth-{axis}-{at}", axis, unit, mine, names, shown)
        panels.append(Panel(f"growth-{axis}-{at}", f"{unit} over {axis}", draw))
    head = ("what", "unit", axis, "median", "95 %")
    rows = [
        [each["what"], each["unit"], shown(each["value"]), f"{each['median']:.5g}", _bounds(each)]
        for each in records
    ]
    said = [
        "Both axes logarithmic, where nothing is zero; what does not grow is level. Upright bars: 95 % intervals of "
        f"the median; {result['rounds']} rounds, and 6 are the least that have one.",
    ]
    legend = [Entry(name, palette.series(at), at, at) for at, name in enumerate(names)]
    return Drawing(
        f"growth-{axis}", f"How cost grows with {axis}", said, panels, legend, Numbers(head, rows, left=2)
    )


def _bounds(record: Record) -> str:
    return "-" if record["low"] is None else f"{record['low']:.5g} to {record['high']:.5g}"


def _growth_panel(
    gid: str,
    axis: str,
    unit: str,
    records: Sequence[Record],
    names: Sequence[str],
    shown: Callable[[int], str],
) -> tuple[Any, dict[str, str]]:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    from harness.plots import style

    figure, axes = axes_of_lines(unit, axis, unit)
    axes.set_xscale("log")
    if all(record["median"] > 0 for record in records):
        axes.set_yscale("log")
        middle = math.sqrt(min(each["median"] for each in records) * max(each["median"] for each in records))
        most = max(
            6.0, 2 * max(each["median"] for each in records) / middle
        )  # what is level shall look level
        axes.set_ylim(middle / most, middle * most)
    titles = {}
    for at, name in enumerate(names):
        mine = [record for record in records if record["what"] == name]
        if not mine:
            continue
        xs, ys = [each["value"] for each in mine], [each["median"] for each in mine]
        look = {"color": style.colour(at), "linestyle": style.dash(at), "marker": MARKERS[at % len(MARKERS)]}
        axes.plot(xs, ys, markersize=3.5, linewidth=1.2, gid=f"{gid}-{at}", **look)
        bars = [(each["value"], each["low"], each["high"]) for each in mine if each["low"] is not None]
        if bars:
            axes.vlines(*zip(*bars, strict=True), color=style.colour(at), linewidth=0.9)
        pairs = ", ".join(f"{shown(x)}: {y:.4g}" for x, y in zip(xs, ys, strict=True))
        titles[f"{gid}-{at}"] = f"{name}, {unit}, at {pairs}"
    values = sorted({record["value"] for record in records})
    step = -(-len(values) // 5)
    axes.xaxis.set_major_locator(FixedLocator(values[::step]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(round(value))))
    axes.xaxis.set_minor_locator(NullLocator())
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    return figure, titles
