# SPDX-License-Identifier: MIT
"""The talk's picture on a page: levels of the stack as rows, who arrives in whom as columns, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.atlas import outcome_names, stacked
from harness.atlas.levels import CALL, SLIDES
from harness.atlas.page.data import css_class
from harness.atlas.stacked import Column
from harness.page.markup import Markup, element, join, table
from harness.vocabulary import OK

__all__ = ["bar", "chip", "figure", "legend"]

_PARTS = 200  # of a bar
_TOTAL = "all levels"


def figure(columns: Sequence[Column], title: str, name: str) -> Markup:
    """Draw columns side by side, and put the table behind them. Args: name: of the element."""
    levels = stacked.levels(columns)
    heads = [element("th", _head(column), scope="col") for column in columns]
    rows = [
        element(
            "tr",
            element(
                "th", element("code", level, class_="on-slide" if level in SLIDES else None), scope="row"
            ),
            [element("td", _level(column, column.level(level), level)) for column in columns],
        )
        for level in levels
    ]
    grid = element(
        "table",
        element("thead", element("tr", element("th", "level", scope="col"), heads)),
        element("tbody", rows),
        class_="stack",
        style=f"min-width:{11 + 9 * len(columns)}rem;max-width:{11 + 20 * len(columns)}rem",
    )
    caption = join(
        element("b", title),
        " Bars: the instructions of a level that were executed, by the worst that the arriving call got there. "
        "Below them how many there are, and at how many it was not plain success. A level without a bar was "
        "not reached. A NULL for a busy lock is the price of not waiting; any other is the start state's, "
        "which left little or nothing. Levels in bold are on the slides; "
        f"{CALL} is the testbed's own way into a call and out of it, its counts and its oracle.",
    )
    found = {name for column in columns for name in column.outcomes}
    looks = {name for column in columns for name in column.picture["worst"]}
    return element(
        "figure",
        element("figcaption", caption),
        legend(looks),
        element("div", grid, class_="wide"),
        _numbers(columns, levels, sorted(found, key=outcome_names.rank)),
        id=name,
    )


def _head(column: Column) -> Markup:
    dead, of = column.picture["deadlock_points"], column.picture["instructions"]
    notes = filter(None, (column.broken, column.others))
    return join(
        element("span", column.picture["handler_design"], class_="who"),
        element("span", f"arrives in {column.picture['task_design']}", class_="where"),
        [element("span", note, class_="note") for note in notes],
        element("span", f"{dead:,}", class_="big bad" if dead else "big good"),
        element("span", f"deadlock points of {of:,} instructions", class_="where"),
    )


def _level(column: Column, row: Mapping[str, Any] | None, level: str) -> Child:
    if row is None:
        return None
    dead, of = row["deadlock_points"], f"{row['instructions']:,} instr."
    said = element("b", f"deadlock at {dead:,} of {of}") if dead else f"{of}: {_rest(row['worst'])}"
    inner = join(bar(row["worst"], "instructions"), said)
    return element("a", inner, href="#atlas-map", data_cell=column.cell["id"], data_level=level)


def _rest(worst: Mapping[str, int]) -> str:
    """Say what was not plain success, and at how many instructions."""
    names = [name for name in outcome_names.sort(worst) if name != OK and worst[name]]
    return ", ".join(f"{_short(name)} {worst[name]:,}" for name in reversed(names)) or "success"


def _short(outcome: str) -> str:
    return {"other_bucket": "other bucket"}.get(outcome, outcome_names.said(outcome))


def bar(outcomes: Mapping[str, int], what: str = "injections") -> Markup:
    """Draw shares; what happened at all can be seen. Args: what: is counted."""
    total = sum(outcomes.values())
    parts = [
        element(
            "i",
            class_=css_class(name),
            style=f"flex-grow:{share}",
            title=f"{outcome_names.said(name)}: {outcomes[name]:,} of {total:,} {what}",
        )
        for name, share in stacked.shares(outcomes, _PARTS)
    ]
    return element("span", parts, class_="bar")


def chip(outcome: str) -> Markup:
    """Draw an outcome's letter on its colour."""
    return element("i", outcome_names.look(outcome).letter, class_=f"chip {css_class(outcome)}")


def legend(outcomes: set[str]) -> Markup:
    """Name colours, patterns and letters; what looks alike is named together."""
    alike: dict[str, list[str]] = {}
    for name in outcome_names.sort(outcomes):
        alike.setdefault(outcome_names.look(name).letter, []).append(name)
    items = [
        element("li", chip(names[0]), " ", _swatch(names[0]), " ", outcome_names.said_together(names))
        for names in alike.values()
    ]
    return element("ul", items, class_="legend")


def _swatch(outcome: str) -> Markup:
    return element("span", element("i", class_=css_class(outcome), style="flex-grow:1"), class_="bar swatch")


def _numbers(columns: Sequence[Column], levels: Sequence[str], names: Sequence[str]) -> Markup:
    """Tabulate the same: instructions by their worst outcome, and every injection."""
    made: list[Markup] = []
    for key, total, title in (
        ("worst", "instructions", "instructions by the worst outcome there"),
        ("outcomes", "points", "injections by outcome"),
    ):
        rows: list[list[Child]] = []
        for column in columns:
            for level in [_TOTAL, *levels]:
                row = column.picture if level == _TOTAL else column.level(level)
                if row is not None:
                    numbers = [row[total], row["deadlock_points"], *(row[key].get(name, 0) for name in names)]
                    label = element("b", column.line) if level == _TOTAL else None
                    rows.append([label, level, *(f"{number:,}" for number in numbers)])
        said = [outcome_names.said(name) for name in names]
        head = ("who in whom", "level", "all", "deadlock points", *said)
        made.append(element("h4", title))
        made.append(table(head, rows, left=2))
    return element("details", element("summary", "the same in numbers"), made, class_="behind")


Child = Markup | str | None
