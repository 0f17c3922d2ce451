# SPDX-License-Identifier: MIT
"""The talk's picture on a page: levels of the stack as rows, who arrives in whom as columns, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness import compare
from harness.atlas import outcome_names, stacked
from harness.atlas.page.data import css_class
from harness.atlas.page.markup import Markup, element, join, table
from harness.atlas.stacked import Column
from harness.vocabulary import OK

__all__ = ["bar", "chip", "figure", "legend"]


def figure(columns: Sequence[Column], title: str, number: int) -> Markup:
    """Draw columns side by side, and put the table behind them."""
    levels = stacked.levels(columns)
    heads = [element("th", _head(column), scope="col") for column in columns]
    rows = [
        element(
            "tr",
            element("th", element("code", level), scope="row"),
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
        element("b", f"Figure {number}. "),
        title,
        " Bars: shares of the injections at a level by what the arriving call got. ",
        "Below them: the level's instructions that were executed, each of them interrupted, and what was no plain "
        "success. A level without a bar was not reached.",
    )
    found = {name for column in columns for name in column.outcomes}
    return element(
        "figure",
        element("figcaption", caption),
        legend(found),
        element("div", grid, class_="wide"),
        _numbers(columns, levels, sorted(found, key=outcome_names.rank)),
        id=f"figure-{number}",
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
    said = element("b", f"deadlock at {dead:,} of {of}") if dead else f"{of}: {_rest(row['outcomes'])}"
    inner = join(bar(row["outcomes"]), said)
    return element("a", inner, href="#map", data_cell=column.cell["id"], data_level=level)


def _rest(outcomes: Mapping[str, int]) -> str:
    """Say what was not plain success."""
    total = sum(outcomes.values())
    names = [name for name in outcome_names.sort(outcomes) if name != OK and outcomes[name]]
    rest = [f"{_short(name)} {compare.percent(outcomes[name] / total)}" for name in reversed(names)]
    return ", ".join(rest) or "success"


def _short(outcome: str) -> str:
    return {"other_bucket": "other bucket"}.get(outcome, outcome_names.said(outcome))


def bar(outcomes: Mapping[str, int], width: int = 100) -> Markup:
    """Draw shares; what happened at all can be seen."""
    total = sum(outcomes.values())
    parts = [
        element(
            "i",
            class_=css_class(name),
            style=f"flex-grow:{share}",
            title=f"{outcome_names.said(name)}: {outcomes[name]:,} of {total:,}",
        )
        for name, share in stacked.shares(outcomes, width)
    ]
    return element("span", parts, class_="bar")


def chip(outcome: str) -> Markup:
    """Draw an outcome's letter on its colour."""
    return element("i", outcome_names.look(outcome).letter, class_=f"chip {css_class(outcome)}")


def legend(outcomes: set[str]) -> Markup:
    """Name colours, patterns and letters."""
    items = [
        element("li", chip(name), " ", outcome_names.said(name)) for name in outcome_names.sort(outcomes)
    ]
    return element("ul", items, class_="legend")


def _numbers(columns: Sequence[Column], levels: Sequence[str], names: Sequence[str]) -> Markup:
    rows: list[list[Child]] = []
    for column in columns:
        for level in [*levels, "all levels"]:
            row = column.picture if level == "all levels" else column.level(level)
            if row is not None:
                numbers = [f"{row[key]:,}" for key in ("instructions", "deadlock_points", "points")]
                counts = [f"{row['outcomes'].get(name, 0):,}" for name in names]
                rows.append([column.line, level, *numbers, *counts])
    said = [outcome_names.said(name) for name in names]
    head = ("who in whom", "level", "instructions", "deadlock points", "injections", *said)
    return element(
        "details", element("summary", "the same in numbers"), table(head, rows, left=2), class_="behind"
    )


Child = Markup | str | None
