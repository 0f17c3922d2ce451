# SPDX-License-Identifier: MIT
"""A bench's result as tables: what each subject needs, what that is as ratios, what a storm did to it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from harness import units

__all__ = ["parts", "text"]

WIDTH = 190
_WIDE = 0.05  # half an interval, from which on it is shown beside the median
_GROUPS = (
    ("ns per allocation and free", ("pair", "lifo64")),
    ("batches of 512", ("lifo512",)),
    ("random lifetimes, recorded traces", ("mix", "trace")),
    ("two CPUs", ("pc", "two")),
    ("from Python, beyond an empty loop", ("py",)),
)
_KINDS = (("design", ""), ("floor", ""), ("peer", "private"), ("peer", "shared"), ("peer", "python"))

Result = Mapping[str, Any]
Record = Mapping[str, Any]


def text(result: Result) -> str:
    """Return the report as plain text."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=WIDTH, color_system=None)
    for part in parts(result):
        console.print(part)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def parts(result: Result) -> Iterator[RenderableType]:
    """Yield the pieces of a report, top down."""
    yield Text(_headline(result), style="bold")
    for title, prefixes in _GROUPS:
        rows = [row for row in _rows(result) if row.startswith(prefixes)]
        if rows:
            yield _figures(title, rows, result)
    yield from _about(result)
    for subject in _names(result, "design"):
        made = _ratios(subject, result)
        if made is not None:
            yield made
    if result["targets"]:
        yield _targets(result["targets"])
    if result["storm"]:
        yield _storm(result["storm"])
    yield from _remarks(result)


def _headline(result: Result) -> str:
    machine, rows, subjects = result["machine"], _rows(result), {r["subject"] for r in result["rows"]}
    samples = sorted(record["samples"] for record in result["rows"] if record["samples"])
    middle = samples[len(samples) // 2] if samples else 0
    model = machine["cpu_model"] or machine["architecture"]
    return (
        f"bench: {len(subjects)} subjects, {len(rows)} rows, {middle} samples each; "
        f"{result['build']['flavour']} {result['build']['id'][:12]}, oracle off; core {machine['core']} of {model}"
    )


def _about(result: Result) -> Iterator[Text]:
    """Say what the designs and floors are; whoever reads of a peer knows it."""
    for subject in result["subjects"]:
        if subject["kind"] != "peer":
            yield Text(f" {subject['name']}: {subject['summary']}", style="dim")
    yield Text("")


def _rows(result: Result) -> list[str]:
    return list(dict.fromkeys(record["row"] for record in result["rows"]))


def _names(result: Result, kind: str, sharing: str = "") -> list[str]:
    return list(
        dict.fromkeys(
            record["subject"]
            for record in result["rows"]
            if record["kind"] == kind and (not sharing or record["sharing"] == sharing)
        )
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for at, name in enumerate(columns):
        table.add_column(name, justify="right" if at else "left", no_wrap=not at)
    return table


def _figures(title: str, rows: Sequence[str], result: Result) -> Table:
    """Tabulate medians: a line for each subject, a column for each row."""
    table = _table(title, "", *rows)
    found = {(record["subject"], record["row"]): record for record in result["rows"]}
    for kind, sharing in _KINDS:
        added = False
        for name in _names(result, kind, sharing):
            cells = [_cell(found.get((name, row))) for row in rows]
            if any(cells):
                table.add_row(name, *cells)
                added = True
        if added:
            table.add_section()
    return table


def _cell(record: Record | None) -> str:
    if record is None:
        return ""
    if record["ns_median"] is None:
        return "broken" if record["broken"] else "-"
    shown = _ns(record["ns_median"])
    if record["ns_low"] is None:
        return f"{shown} ?"
    half = (record["ns_high"] - record["ns_low"]) / 2 / record["ns_median"]
    return f"{shown} ±{half:.0%}" if half > _WIDE else shown


def _ns(ns: float) -> str:
    return f"{ns:.1f}" if ns < 100 else f"{ns:.0f}" if ns < 10_000 else units.nanoseconds(ns)


def _ratios(subject: str, result: Result) -> Table | None:
    """Tabulate a design's medians with their intervals, and what they are of its floor's and of each peer's."""
    records = [r for r in result["rows"] if r["subject"] == subject and r["ns_median"] is not None]
    if not records:
        return None
    peers = list(dict.fromkeys(peer for record in records for peer in record["ratio_to_peers"]))
    table = _table(f"{subject}, as multiples of", "", "ns", "95 %", "floor", "of it", *peers)
    for record in records:
        low, high = record["ns_low"], record["ns_high"]
        of_peers = [record["ratio_to_peers"].get(peer) for peer in peers]
        table.add_row(
            record["row"],
            _ns(record["ns_median"]),
            "-" if low is None else f"{_ns(low)}..{_ns(high)}",
            (record["floor"] or "-").removeprefix("floor_"),
            _multiple(record["ratio_to_floor"]),
            *map(_multiple, of_peers),
        )
    return table


def _multiple(ratio: Sequence[float] | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio[0]:.2f}" if ratio[0] >= 0.1 else f"{ratio[0]:.3f}"


def _targets(held: Sequence[Record]) -> Table:
    """Tabulate each target by its worst row."""
    table = _table("targets", "", "subject", "rows", "hold", "worst", "in", "against", "limit")
    groups: dict[tuple[str, str], list[Record]] = {}
    for each in held:
        groups.setdefault((each["target"], each["subject"]), []).append(each)
    for (target, subject), each_row in groups.items():
        worst = max(each_row, key=lambda each: float(each["ratio"] / each["limit"]))
        hold = sum(each["holds"] for each in each_row)
        cells = (str(len(each_row)), str(hold), _multiple([worst["ratio"]]), worst["row"], worst["against"])
        table.add_row(target, subject, *cells, f"{worst['limit']:g}")
    return table


def _storm(storms: Sequence[Record]) -> Table:
    table = _table("under a storm of signals whose handler allocates and frees", "", "outcome", "handled", "")
    table.columns[1].justify = table.columns[3].justify = "left"
    for kind, _ in dict.fromkeys((kind, "") for kind, _ in _KINDS):
        shown = [each for each in storms if each["kind"] == kind]
        for each in shown:
            table.add_row(
                each["subject"], each["outcome"] or "not held", units.count(each["handled"]), each["detail"]
            )
        if shown:
            table.add_section()
    return table


def _remarks(result: Result) -> Iterator[Text]:
    noise = result["noise"]
    if noise["compared"]:
        largest, width = noise["largest_ratio"], noise["median_width"]
        yield Text(
            f"noise: a second instance of {_compared(noise)} differed from the first in {noise['differing']} of "
            f"{noise['compared']} rows, by {largest:.2f}x at most; half of all intervals are narrower than {width:.1%}"
        )
    elif noise["rows"]:
        yield Text(
            "noise: too few samples for intervals: 6 are needed, so whether anything differs is not known"
        )
    for pair in result["machine"]["pairs"]:
        cores = " and ".join(map(str, pair["cores"]))
        yield Text(f"line: {pair['line_ns']:.0f} ns between cores {cores}, a {pair['line']} one")
    for sentence in result["machine"]["worth"]:
        yield Text(f"worth: {sentence}", style="yellow")
    reasons: dict[str, list[str]] = {}
    for record in result["rows"]:
        if record["broken"]:
            reasons.setdefault(f"{record['subject']}: {record['why']}", []).append(record["row"])
    for reason, rows in reasons.items():
        yield Text(f"broken: {reason} ({', '.join(rows)})", style="red")
    for missing in result["missing"]:
        yield Text(f"missing: {missing['peer']}: {missing['why']} ({missing['package']})", style="dim")


def _compared(noise: Record) -> str:
    return " or ".join(dict.fromkeys(each["subject"] for each in noise["rows"]))
