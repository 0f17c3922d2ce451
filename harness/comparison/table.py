# SPDX-License-Identifier: MIT
"""A comparison as a kernel engineer reads it: what differs, a table for each pair of cells, what the intervals are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from harness import units
from harness.compare import percent
from harness.comparison.differences import ABSENT
from shmalloc.units import format_bytes

__all__ = ["change", "foot", "headline", "interval", "nothing", "parts", "shown", "sides", "unknown_keys"]

_STYLES = {"better": "bold green", "worse": "bold red", "differs": "bold"}
_EXACT_SHOWN = 24
_LONGEST = 60  # value of a key
_TWICE = 2.0

Comparison = Mapping[str, Any]


def parts(found: Comparison, *, marked_only: bool = False) -> Iterator[RenderableType]:
    """Yield the pieces, top down. Args: marked_only: no rows without a mark."""
    yield Text(headline(found), style="bold")
    for line in sides(found):
        yield Text(line, style="dim")
    yield from _differences(found["differences"])
    for pair in found["pairs"]:
        yield from _pair(pair, marked_only=marked_only)
    yield Text("\n".join(foot(found)), style="dim")


def headline(found: Comparison) -> str:
    """Say how many marks there are."""
    marks, pairs = found["marks"], len(found["pairs"])
    count = sum(marks.values())
    said = ", ".join(f"{number} {name}" for name, number in marks.items() if number)
    return (
        f"{_plural(pairs, 'cell')} compared, {_plural(found['method']['rows'], 'row')}, "
        f"{_plural(count, 'mark')}{f' ({said})' if said else ''}"
    )


def _plural(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'s' * (count != 1)}"


def sides(found: Comparison) -> Iterator[str]:
    """Say what A and B are, what runs on one side only, and whose verdict got worse."""
    for name in ("a", "b"):
        side = found[name]
        loads = ", ".join("-" if load is None else f"{load:.1f}" for load in side["loads"])
        yield f"{name.upper()}: {', '.join(side['folders'])}, load {loads}"
    for name in ("a", "b"):
        if left := found["unpaired"][name]:
            yield f"only in {name.upper()}: {', '.join(left)}"
    for name in found["verdicts_worse"]:
        yield f"{name}: the verdict was as expected in A, and is not in B"


def shown(values: Sequence[str]) -> str:
    """Write the values of a key, as they are in the config, but not at any length."""
    text = ", ".join(_value(text) for text in values)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _value(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, str) else text


def unknown_keys(differences: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Put aside what only one side knows of, as results of another version do.

    Returns: the other differences, and lines that name what was put aside.
    """
    lacks = {
        other: [each["key"] for each in differences if each[side] == [ABSENT]]
        for side, other in (("a", "B"), ("b", "A"))
    }
    rest = [each for each in differences if [ABSENT] not in (each["a"], each["b"])]
    return rest, [f"only {name} knows of {', '.join(keys)}" for name, keys in lacks.items() if keys]


def _differences(differences: Sequence[Mapping[str, Any]]) -> Iterator[RenderableType]:
    rest, unknown = unknown_keys(differences)
    if not differences:
        yield Text("config, build and machine are the same")
    if unknown:
        yield Text("\n".join(unknown), style="dim")
    if not rest:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("differs", "A", "B"):
        table.add_column(name, overflow="fold")
    for each in rest:
        table.add_row(Text(each["key"]), Text(shown(each["a"])), Text(shown(each["b"])))
    yield table


def _pair(pair: Mapping[str, Any], *, marked_only: bool) -> Iterator[RenderableType]:
    rows = [row for row in pair["rows"] if row["mark"] or not marked_only]
    title = Text(f"\n{pair['name']}", style="bold")
    verdicts = [", ".join(each) for each in pair["verdicts"]]
    if verdicts[0] != verdicts[1]:
        title.append(
            f"  verdict {verdicts[0]} | {verdicts[1]}", style="bold red" if pair["verdict_worse"] else ""
        )
    if rows:
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        table.add_column("", no_wrap=True)
        for name in ("A", "", "B", "", "change"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("mark", no_wrap=True)
        for row in rows:
            a, b = (interval(row[side], row["unit"]) for side in ("a", "b"))
            table.add_row(
                row["quantity"], *a, *b, change(row), Text(row["mark"], style=_STYLES.get(row["mark"], ""))
            )
        yield table
    elif pair["exact"] or not marked_only:
        yield title
    if pair["exact"]:
        yield _exact(pair["exact"])
    elif not pair["rows"]:
        yield Text(nothing(pair))


def nothing(pair: Mapping[str, Any]) -> str:
    """Say why there is no row."""
    return "all numbers are equal" if pair["comparable"] else "of different engines: no number is of both"


def _exact(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("not equal", no_wrap=True)
    for name in ("A", "B"):
        table.add_column(name, justify="right")
    for row in rows[:_EXACT_SHOWN]:
        table.add_row(row["key"], *("-" if row[side] is None else f"{row[side]:,}" for side in ("a", "b")))
    if len(rows) > _EXACT_SHOWN:
        table.add_row(f"... and {len(rows) - _EXACT_SHOWN} more (--json)")
    return table


def interval(found: Mapping[str, Any] | None, unit: str) -> tuple[str, str]:
    """Write a median and its interval; of nothing a dash."""
    if found is None:
        return "-", ""
    low, high = found["low"], found["high"]
    return _number(
        found["median"], unit
    ), "" if low is None else f"[{_number(low, unit)} .. {_number(high, unit)}]"


def _number(number: float, unit: str) -> str:
    if unit == "share":
        return percent(min(1.0, number))
    if unit == "ratio":
        return f"{number:.3g}"
    if unit == "bytes":
        return format_bytes(round(number))
    if unit == "ns":
        return f"{number:.1f}" if number < 100 else units.nanoseconds(number)
    return units.count(number)


def change(row: Mapping[str, Any]) -> str:
    """Write how much B differs from A: in percent, or as a multiple."""
    if row["change"] is None:
        both = row["a"] is not None and row["b"] is not None
        return "from none" if both and row["b"]["median"] else ""
    times = 1 + row["change"]
    if not times:
        return "to none"
    if times >= _TWICE:
        return f"x {times:.3g}"
    return f"{row['change']:+.1%}" if row["change"] else "0"


def foot(found: Comparison) -> Iterator[str]:
    """Say what the intervals are, and so what a mark means."""
    method = found["method"]
    if not method["rows"]:
        return
    if method["kind"] == "bench":
        yield (
            "ratios to the floor of each bench, as ns depend on the machine's moment; [..]: what the intervals of both "
            f"medians leave, widened by {method['factor'] - 1:.0%}; a mark: they do not overlap"
        )
        return
    of_a, of_b = method["runs"]
    if method["kind"] == "runs":
        least = min(method["coverage"])
        yield (
            f"[..]: of the median of {of_a} and {of_b} runs, by order statistics, {least:.2%} each; a mark: they do "
            "not overlap; two equal things get any in this table with a chance of at most "
            f"{max(method['chance_of_a_mark'], 0.0001):.2%}"
        )
        if not method["in_turn"]:
            yield "the runs of A and B were not taken in turn: --steady says that nothing has changed in between"
        return
    factor, still = method["factor"], method["still_factor"]
    yield f"no interval says how runs of the same thing differ: {method['why']}."
    if method["without_windows"]:
        names = " and ".join(name.upper() for name in method["without_windows"])
        yield f"no windows in {names}, of an older version or too short: medians only, and no mark."
    yield (
        "[..]: all windows of all runs, widened so that a mark means: every window of one side is more than "
        f"{factor:.3g} times every window of the other ({still:.3g} for failures and memory), times the ratio of the "
        "shares of the cores that they had."
    )
    yield (
        "for finer marks, take both in turn: one config with a list (oracle = [true, false]), --set repeats=10 and "
        "compare DIR --cells oracle=true oracle=false; or runs A B A B ... and --a DIR... --b DIR..."
    )
