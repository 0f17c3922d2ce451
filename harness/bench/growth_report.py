# SPDX-License-Identifier: MIT
"""How cost grows, as tables: one for each axis, a column for each value, and what kind of growth that is."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["parts", "shown_value", "text"]

_WIDTH = 160
_TITLES = {
    "size": "arena size (sparse; what is not said to be an audit with oracle is without it)",
    "objects": "live objects of 8 bytes",
    "caches": "caches, each with a slab",
    "cpus": "CPUs, taking turns on the cores there are: processor time for an op, counters for a million ops",
    "processes": "CPU processes of a run, each with 1,000 ops",
}

Result = Mapping[str, Any]


def text(result: Result) -> str:
    """Return the report as plain text."""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(file=buffer, width=_WIDTH, color_system=None)
    for part in parts(result):
        console.print(part)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def parts(result: Result) -> Iterator[Any]:
    """Yield the pieces of a report, top down."""
    from rich.text import Text

    model = result["machine"]
    yield Text(
        f"growth: {result['rounds']} rounds; {result['build']['flavour']} {result['build']['id'][:12]}; "
        f"{model['cores_allowed']} cores of {model['cpu_model'] or model['architecture']}",
        style="bold",
    )
    for axis in result["axes"]:
        yield _table(axis, result)
    yield Text(
        "medians; ± is half of the 95 % interval, where it is more than a tenth of the median", style="dim"
    )
    for remark in [*result["remarks"], *model["warnings"]]:
        yield Text(remark, style="dim")


def _table(axis: str, result: Result) -> Any:
    from rich import box
    from rich.table import Table

    records = [record for record in result["growth"] if record["axis"] == axis]
    values = sorted({record["value"] for record in records})
    growths = {trend["what"]: trend for trend in result["trends"] if trend["axis"] == axis}
    table = Table(
        title=_TITLES.get(axis, axis),
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("")
    table.add_column("unit")
    for value in values:
        table.add_column(shown_value(axis, value), justify="right")
    table.add_column("growth")
    for what in dict.fromkeys(record["what"] for record in records):
        mine = {record["value"]: record for record in records if record["what"] == what}
        unit = next(iter(mine.values()))["unit"]
        table.add_row(what, unit, *(_cell(mine.get(value)) for value in values), _growth(growths.get(what)))
    return table


def shown_value(axis: str, value: int) -> str:
    """Write a value of an axis."""
    from shmalloc.units import format_bytes

    return format_bytes(value) if axis == "size" else f"{value:,}"


def _cell(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "-"
    median, low, high = record["median"], record["low"], record["high"]
    shown = _number(median)
    if low is not None and high - low > 0.2 * abs(median):
        shown += f" ±{_number((high - low) / 2)}"
    return shown


def _number(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def _growth(trend: Mapping[str, Any] | None) -> str:
    if trend is None:
        return ""
    ratio = "" if trend["ratio"] is None else f" x{trend['ratio']:.3g}"
    exponent = "" if trend["exponent"] is None else f", ^{trend['exponent']:.2f}"
    return f"{trend['growth']}{ratio}{exponent}"
