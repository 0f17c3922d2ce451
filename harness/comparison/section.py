# SPDX-License-Identifier: MIT
"""Runs side by side on a page: each one after the first, compared with the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.page import Child, Loaded, Markup, Section, details, element, join, table

__all__ = ["sections"]

_LOOKS = {"better": "good", "worse": "bad", "differs": None}
_MANY, _FEW = 12, 2


def sections(runs: Sequence[Loaded], _designs: Sequence[str]) -> list[Section]:
    """Compare several runs; of one there is nothing to compare."""
    if len(runs) < 2:
        return []
    from harness.comparison import table as text

    first, *others = runs
    found = [_of(first, other) for other in others]
    feet = [tuple(text.foot(each)) for each in found]
    alike = len(set(feet)) == 1  # then they are said once
    parts = [
        _compared(first, other, each, () if alike else foot)
        for other, each, foot in zip(others, found, feet, strict=True)
    ]
    return [Section("compared", "Compared", join(parts, _foot(feet[0]) if alike else None))]


def _of(first: Loaded, other: Loaded) -> dict[str, Any]:
    from harness.comparison.comparing import compare
    from harness.comparison.sides import Result, members

    a, b = (members([Result(str(each.folder), each.run)]) for each in (first, other))
    return compare(a, b)


def _compared(first: Loaded, other: Loaded, found: Mapping[str, Any], foot: Sequence[str]) -> Markup:
    from harness.comparison import table as text

    few = len(found["pairs"]) <= _FEW
    return join(
        element("h3", f"A: {first.label}, B: {other.label}"),
        element("p", text.headline(found)),
        element("p", "; ".join(text.sides(found)), class_="quiet"),
        _differences(found["differences"]),
        [_pair(pair, few) for pair in found["pairs"]],
        _foot(foot),
    )


def _foot(lines: Sequence[str]) -> Markup:
    return join([element("p", line, class_="note") for line in lines])


def _differences(found: Sequence[Mapping[str, Any]]) -> Markup:
    from harness.comparison.table import shown, unknown_keys

    if not found:
        return element("p", "config, build and machine are the same")
    rest, unknown = unknown_keys(found)
    rows = [[element("code", each["key"]), shown(each["a"]), shown(each["b"])] for each in rest]
    said = [element("p", line, class_="quiet") for line in unknown]
    if not rows:
        return join(said)
    made = table(("key", "A", "B"), rows, left=3)
    return join(details(f"what differs: {len(rows)}", made, open=len(rows) <= _MANY), said)


def _pair(pair: Mapping[str, Any], few: bool) -> Markup:
    from harness.comparison.table import change, interval, nothing

    rows: list[list[Child]] = []
    for row in pair["rows"]:
        a, b = (" ".join(filter(None, interval(row[side], row["unit"]))) for side in ("a", "b"))
        mark = element("span", row["mark"], class_=_LOOKS[row["mark"]]) if row["mark"] else ""
        unit = f" ({row['unit']})" if row["unit"] == "ns" else ""
        rows.append([row["quantity"] + unit, mark, a, b, change(row)])
    marks = sum(bool(row["mark"]) for row in pair["rows"])
    verdicts = [", ".join(each) for each in pair["verdicts"]]
    said = f"{pair['name']}: {marks or 'no'} mark{'s' * (marks != 1)}"
    if verdicts[0] != verdicts[1]:
        said += f", verdict {verdicts[0]} | {verdicts[1]}"
    if rows:
        return details(said, table(("", "mark", "A", "B", "change"), rows, left=2), open=few or bool(marks))
    exact = [[element("code", r["key"]), _exact(r["a"]), _exact(r["b"])] for r in pair["exact"]]
    if not exact:
        return element("p", f"{pair['name']}: {nothing(pair)}")
    return details(f"{pair['name']}: {len(exact)} numbers are not equal", table(("", "A", "B"), exact))


def _exact(number: float | None) -> str:
    return "-" if number is None else f"{number:,}"
